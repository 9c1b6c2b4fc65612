import type { Clock } from './world.ts'

/**
 * A coalescing wake-up: any number of `ring` calls before a `wait` end one wait. Nothing is carried but the hint
 * to look again, so a lost or doubled ring costs time, never correctness.
 */
export class WakeUp {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Resolves at the next ring, at once if one came before. Nothing else ends it: whoever waits so has to be rung. */
  async rung(): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    this.#rung = false
  }

  /** Resolves at the next ring (at once if one came before), at `untilMs`, or when `signal` aborts. */
  async wait(clock: Clock, signal: AbortSignal, untilMs?: number): Promise<void> {
    if (!this.#rung && !signal.aborted) {
      // Only a wait with an end has a timer to take back: thousands of nodes' waits have none.
      const timer = untilMs === undefined ? undefined : new AbortController()
      await new Promise<void>((resolve) => {
        const end = () => {
          signal.removeEventListener('abort', end)
          resolve()
        }
        this.#wake = end
        signal.addEventListener('abort', end)
        if (timer && untilMs !== undefined) {
          void clock.sleep(Math.max(0, untilMs - clock.nowMs()), timer.signal).then(end)
        }
      })
      this.#wake = undefined
      timer?.abort()
    }
    this.#rung = false
  }
}
