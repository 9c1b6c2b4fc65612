import { type Clock, type SteadyClock, steadyClock } from '../base/index.ts'
import type { SimulatedTime, Timer } from './time.ts'

/** A machine's clock as its processes read it: true time, by how much it is wrong, and what they make of a jump. */
export class HostClock {
  readonly #steady: SteadyClock
  #offsetMs = 0

  constructor(time: SimulatedTime) {
    this.#steady = steadyClock({
      wallMs: () => time.nowMs + this.#offsetMs,
      elapsedMs: () => time.nowMs,
    })
  }

  nowMs(): number {
    return this.#steady.nowMs()
  }

  notBefore(ms: number): void {
    this.#steady.notBefore(ms)
  }

  jump(ms: number): void {
    this.#offsetMs += ms
  }

  correct(): void {
    this.#offsetMs = 0
  }
}

/**
 * One process of a simulated machine. Whatever reaches it (timers, messages, answers of disk and engine) comes through
 * `post` or `gate`: while it is stopped (SIGSTOP, a long pause of the garbage collector) that waits, in order; once it
 * is dead it is dropped, so that the code of a killed process simply never goes on.
 */
export class SimulatedProcess {
  readonly name: string
  readonly clock: Clock
  readonly #time: SimulatedTime
  readonly #timers = new Set<Timer>()
  #state: 'running' | 'paused' | 'dead' = 'running'
  #waiting: (() => void)[] = []
  readonly #onKilled: (() => void)[] = []

  constructor(time: SimulatedTime, hostClock: HostClock, name: string) {
    this.name = name
    this.#time = time
    this.clock = {
      nowMs: () => hostClock.nowMs(),
      sleep: (ms, signal) => this.#sleep(ms, signal),
      notBefore: (ms) => hostClock.notBefore(ms),
    }
  }

  get isAlive(): boolean {
    return this.#state !== 'dead'
  }

  get isRunning(): boolean {
    return this.#state === 'running'
  }

  post(work: () => void): void {
    if (this.#state === 'running') work()
    else if (this.#state === 'paused') this.#waiting.push(work)
  }

  /** What came of a promise that is settled outside, told to this process. */
  gate<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => this.post(() => resolve(value)),
        (error: unknown) => this.post(() => reject(error)),
      )
    })
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused'
  }

  /** It goes on, and believes that nothing happened. */
  resume(): void {
    if (this.#state !== 'paused') return
    this.#state = 'running'
    const waiting = this.#waiting
    this.#waiting = []
    for (const work of waiting) work()
  }

  kill(): void {
    this.#state = 'dead'
    this.#waiting = []
    for (const timer of this.#timers) timer.cancelled = true
    this.#timers.clear()
    for (const work of this.#onKilled.splice(0)) work()
  }

  /** What the machine does when this process ends. */
  onKilled(work: () => void): void {
    this.#onKilled.push(work)
  }

  #sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        timer.cancelled = true
        this.#timers.delete(timer)
        signal?.removeEventListener('abort', end)
        resolve()
      }
      const timer = this.#time.after(ms, () => this.post(end))
      this.#timers.add(timer)
      signal?.addEventListener('abort', end, { once: true })
    })
  }
}
