import { usualPortions } from './portions.ts'
import type { Clock } from './world.ts'

/** What was done longer ago than this is forgotten: the thread was free in between, in ms. */
const windowMs = 50
/** Once this share of it is taken, the turn is watched until it ends. */
const watchedShare = 0.1

/**
 * Shares the thread among much work in small pieces that falls due at once (thousands of nodes to be told of one change,
 * loops with thousands of tasks to decide): each piece takes its share before it begins, in the order of asking, and after
 * a turn's worth the rest waits until others have had a turn of the event loop: requests, heartbeats, answers of the disk.
 */
export class TurnBudget {
  /** What may be done in a row before whatever else waits for the thread goes first, of `Portions`. */
  readonly unitsPerTurn: number
  readonly #clock: Clock
  #sinceMs: number
  #taken = 0
  /** Bounded by what there is to do at once: one entry for each session and loop. */
  #waiting: { readonly units: number; readonly begin: () => void }[] = []
  #isSharing = false
  /** Those who waited begin right now: what is spent meanwhile is theirs. */
  #isBeginning = false
  /** Spent by others since they began last: their next turn has so much less room. */
  #spentByOthers = 0
  /** Much was taken, and this is still that turn, however long it takes: others on the machine may have the core. */
  #isWatched = false

  constructor(clock: Clock, unitsPerTurn = usualPortions.unitsPerTurn) {
    this.unitsPerTurn = unitsPerTurn
    this.#clock = clock
    this.#sinceMs = clock.nowMs()
  }

  /** Takes a share of this turn. `undefined`: begin at once; otherwise wait for it. */
  take(units: number): Promise<void> | undefined {
    if (!this.#isSharing) {
      const nowMs = this.#clock.nowMs()
      if (nowMs - this.#sinceMs >= windowMs && !this.#isWatched) this.#begin(nowMs)
      if (this.#hasRoomFor(units)) {
        this.spend(units)
        return undefined
      }
    }
    return new Promise((begin) => {
      this.#waiting.push({ units, begin })
      if (!this.#isSharing) void this.#share()
    })
  }

  /**
   * Notes what a piece that has begun came to beyond its share, or what somebody did who could not wait for one: what is asked for
   * next has so much less room.
   */
  spend(units: number): void {
    this.#taken += units
    if (this.#isSharing) {
      if (!this.#isBeginning) this.#spentByOthers += units
      return
    }
    if (this.#taken < this.unitsPerTurn * watchedShare || this.#isWatched) return
    this.#isWatched = true
    void this.#watchTurn()
  }

  async #watchTurn(): Promise<void> {
    await this.#clock.sleep(0)
    this.#isWatched = false
    if (!this.#isSharing) this.#begin(this.#clock.nowMs())
  }

  /** What is larger than a turn gets one for itself. */
  #hasRoomFor(units: number): boolean {
    return this.#taken === 0 || this.#taken + units <= this.unitsPerTurn
  }

  #begin(nowMs: number): void {
    this.#sinceMs = nowMs
    this.#taken = 0
  }

  async #share(): Promise<void> {
    this.#isSharing = true
    this.#spentByOthers = 0
    while (this.#waiting.length > 0) {
      await this.#clock.sleep(0)
      this.#begin(this.#clock.nowMs())
      this.#taken = this.#spentByOthers
      this.#spentByOthers = 0
      this.#isBeginning = true
      let begun = 0
      for (const { units, begin } of this.#waiting) {
        // One goes on in any case, whatever others spend.
        if (begun > 0 && !this.#hasRoomFor(units)) break
        this.#taken += units
        begun += 1
        begin()
        // It runs now, and may spend more than it asked for.
        await Promise.resolve()
      }
      this.#isBeginning = false
      this.#waiting = this.#waiting.slice(begun)
    }
    this.#isSharing = false
  }
}
