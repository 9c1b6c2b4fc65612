/** Something that happens at a time; `cancelled` is looked at when it is due. */
export interface Timer {
  readonly atMs: number
  readonly order: number
  readonly work: () => void
  cancelled: boolean
  /** Whether nobody can go on because of this work, unless it says so by calling `disturb`: it takes no step of its own. */
  readonly isQuiet: boolean
}

/**
 * Timers that fall due in one turn of the event loop: a turn of its own for each would cost more than most of them do. What
 * others wait for breaks a turn off, and is often followed by more of it: turns are short after that, and grow again.
 */
const stepsPerTurnMax = 64
const stepsPerTurnMin = 4

/** Immediates of others (a library that answers a request in memory) that have yet to run. */
let othersWaiting = 0
const nextTurn = globalThis.setImmediate
Object.defineProperty(globalThis, 'setImmediate', {
  configurable: true,
  writable: true,
  value: Object.assign((work: (...own: unknown[]) => void, ...own: unknown[]) => {
    othersWaiting += 1
    return nextTurn(() => {
      othersWaiting -= 1
      work(...own)
    })
  }, nextTurn),
})

/**
 * The time of a simulated world. It passes only from one timer to the next, and between two timers everything that
 * can run does run, in one order: so a run follows from its seed alone. Node.js runs all microtasks and ticks after each
 * immediate before it goes on to the next one of the same turn, and nothing in a simulated world waits for anything else.
 */
export class SimulatedTime {
  nowMs: number
  /** Timers that were due so far. */
  eventCount = 0
  #order = 0
  #isDisturbed = false
  /** A binary heap, earliest first; of equal times the one set first. */
  readonly #heap: Timer[] = []

  constructor(startMs: number) {
    this.nowMs = startMs
  }

  at(atMs: number, work: () => void, isQuiet = false): Timer {
    const timer = {
      atMs: Math.max(atMs, this.nowMs),
      order: this.#order++,
      work,
      cancelled: false,
      isQuiet,
    }
    this.#push(timer)
    return timer
  }

  /** Bookkeeping of the world itself: nothing waits for it. Work that wakes somebody all the same calls `disturb`. */
  quietlyAfter(ms: number, work: () => void): Timer {
    return this.at(this.nowMs + Math.max(0, ms), work, true)
  }

  /** Said from within quiet work: somebody may go on because of it. */
  disturb(): void {
    this.#isDisturbed = true
  }

  after(ms: number, work: () => void): Timer {
    return this.at(this.nowMs + Math.max(0, ms), work)
  }

  /** Lets everything happen that is due up to `untilMs`, or until `isOver` says so. */
  runUntil(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    return new Promise((resolve, reject) => {
      let isBegun = false
      let isDone = false
      const step = (): void => {
        try {
          if (isBegun && isOver()) isDone = true
          else if (this.#runNext(untilMs)) isBegun = true
          else {
            this.nowMs = Math.max(this.nowMs, untilMs)
            isDone = true
          }
        } catch (error) {
          isDone = true
          reject(error)
        }
        if (isDone) resolve()
      }
      let turnNumber = 0
      let stepsPerTurn = stepsPerTurnMin
      const beginTurn = (): void => {
        const own = ++turnNumber
        // What others wait for comes before any step that is not set up yet.
        let left = othersWaiting > 0 ? 1 : stepsPerTurn
        stepsPerTurn =
          othersWaiting > 0 ? stepsPerTurnMin : Math.min(stepsPerTurnMax, 2 * stepsPerTurn)
        const stepOfTurn = (): void => {
          if (isDone || own !== turnNumber) return
          left -= 1
          step()
          if (!isDone && (left === 0 || othersWaiting > 0)) beginTurn()
        }
        for (let set = left; set > 0; set--) nextTurn(stepOfTurn)
      }
      beginTurn()
    })
  }

  /** Lets the next thing happen that is due up to `untilMs`. Returns whether there was one. */
  #runNext(untilMs: number): boolean {
    for (let next = this.#heap[0]; next && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop()
      if (next.cancelled) continue
      this.nowMs = Math.max(this.nowMs, next.atMs)
      this.eventCount += 1
      this.#isDisturbed = !next.isQuiet
      next.work()
      if (this.#isDisturbed) return true
    }
    return false
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
