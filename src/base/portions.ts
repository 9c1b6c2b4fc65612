/**
 * How much is done at a stretch, before others have the thread or the disk. What is decided does not depend on them, but what may
 * happen meanwhile does: lives in the simulator draw small ones, as nothing in them is large.
 */
export interface Portions {
  /** Of a turn of the event loop that many share: what may be done in a row, in units of about 10 us. */
  readonly unitsPerTurn: number
  /**
   * Tasks that the orchestrators look at or change in one turn, but for those of the last workload. One with as many, those it lacks
   * included, is decided in parts, each in a turn of its own.
   */
  readonly tasksLookedAt: number
  /** Places and actions in one part of such a decision; objects that a new leader learns in one. */
  readonly perPart: number
  /** Tasks placed, addressed or brought into or out of traffic in one turn. */
  readonly tasksPerTurn: number
  /** Changes of one loop that are stored, and become visible, at once; a larger group is not atomic. */
  readonly changesAtOnce: number
  /** Facts in one part of a feed: what is made, put into bytes and read in one go. */
  readonly factsPerPart: number
}

export const usualPortions: Portions = {
  unitsPerTurn: 500,
  tasksLookedAt: 2_000,
  perPart: 1_000,
  tasksPerTurn: 500,
  changesAtOnce: 500,
  factsPerPart: 500,
}
