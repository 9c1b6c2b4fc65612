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

  /** Resolves at the next ring (at once if one came before), at `untilMs`, or when `signal` aborts. */
  async wait(clock: Clock, signal: AbortSignal, untilMs?: number): Promise<void> {
    if (!this.#rung && !signal.aborted) {
      const done = new AbortController()
      const rung = new Promise<void>((resolve) => {
        this.#wake = resolve
        signal.addEventListener('abort', () => resolve(), { once: true, signal: done.signal })
      })
      const timer =
        untilMs === undefined
          ? undefined
          : clock.sleep(Math.max(0, untilMs - clock.nowMs()), done.signal)
      await (timer ? Promise.race([rung, timer]) : rung)
      this.#wake = undefined
      done.abort()
    }
    this.#rung = false
  }
}
