/** Something that happens at a time; `cancelled` is looked at when it is due. */
export interface Timer {
  readonly atMs: number
  readonly order: number
  readonly work: () => void
  cancelled: boolean
}

/**
 * The time of a simulated world. It passes only from one timer to the next, and between two timers everything that
 * can run does run, in one order: so a run follows from its seed alone.
 */
export class SimulatedTime {
  nowMs: number
  /** Timers that were due so far. */
  eventCount = 0
  /** Called after everything that one timer set off has run. */
  afterEach: () => void = () => {}
  #order = 0
  /** A binary heap, earliest first; of equal times the one set first. */
  readonly #heap: Timer[] = []

  constructor(startMs: number) {
    this.nowMs = startMs
  }

  at(atMs: number, work: () => void): Timer {
    const timer = {
      atMs: Math.max(atMs, this.nowMs),
      order: this.#order++,
      work,
      cancelled: false,
    }
    this.#push(timer)
    return timer
  }

  after(ms: number, work: () => void): Timer {
    return this.at(this.nowMs + Math.max(0, ms), work)
  }

  /** Lets everything happen that is due up to `untilMs`, or until `isOver` says so. */
  async runUntil(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    await drain()
    for (let next = this.#heap[0]; next && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop()
      if (next.cancelled) continue
      this.nowMs = Math.max(this.nowMs, next.atMs)
      this.eventCount += 1
      next.work()
      await drain()
      this.afterEach()
      if (isOver()) return
    }
    this.nowMs = Math.max(this.nowMs, untilMs)
  }

  #push(timer: Timer): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(timer)
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = heap[above]
      if (!parent || !isBefore(timer, parent)) break
      heap[at] = parent
      at = above
    }
    heap[at] = timer
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (!last || heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      const left = heap[below]
      if (!left) break
      const right = heap[below + 1]
      if (right && isBefore(right, left)) below += 1
      const child = heap[below]
      if (!child || !isBefore(child, last)) break
      heap[at] = child
      at = below
    }
    heap[at] = last
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs
}

/**
 * Runs everything that can run without waiting for a timer. Microtasks and ticks all run before the event loop takes
 * its next turn, and nothing in a simulated world waits for anything else.
 */
function drain(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
