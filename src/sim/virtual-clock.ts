import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '../base/index.ts'

interface Timer {
  readonly atMs: number
  readonly wake: () => void
}

/** Turns of the event loop in which nothing woke before everything that could run is taken to have run. */
const quietTurns = 12

/** Time that passes only when it is told to: `advance` wakes the sleepers on the way, in order. */
export class VirtualClock implements Clock {
  #nowMs: number
  #timers: Timer[] = []

  constructor(startMs = 1_000_000) {
    this.#nowMs = startMs
  }

  nowMs(): number {
    return this.#nowMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const timer: Timer = {
        atMs: this.#nowMs + Math.max(0, ms),
        wake: () => {
          signal?.removeEventListener('abort', timer.wake)
          this.#timers = this.#timers.filter((other) => other !== timer)
          resolve()
        },
      }
      signal?.addEventListener('abort', timer.wake, { once: true })
      const later = this.#timers.findIndex((other) => other.atMs > timer.atMs)
      this.#timers.splice(later < 0 ? this.#timers.length : later, 0, timer)
    })
  }

  /** Lets everything run that is due within `ms`. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    for (;;) {
      for (let turn = 0; turn < quietTurns; turn++) await nextTurn()
      const next = this.#timers[0]
      if (!next || next.atMs > untilMs) break
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.wake()
    }
    this.#nowMs = untilMs
  }
}
