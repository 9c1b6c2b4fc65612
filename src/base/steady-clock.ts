/** What a machine knows of time, in ms. */
export interface TimeSources {
  /** The wall clock: jumps, forth and back, when somebody sets it. */
  readonly wallMs: () => number
  /** Time since some moment; goes on evenly whatever is set. */
  readonly elapsedMs: () => number
}

/** A clock that never goes back, never stands still, and is the wall clock whenever it can be. */
export interface SteadyClock {
  nowMs(): number
  /** What somebody else wrote down happened at `ms`: it is no earlier now. */
  notBefore(ms: number): void
}

/** How fast time passes while the wall clock is behind, until it has caught up. */
const slowedTo = 0.9

/**
 * Follows the wall clock at once when that is ahead. When it is behind (it was set back, or a leader before this one
 * had a clock that was fast), time goes on from where it was, a little slower, so that waits still end.
 */
export function steadyClock({ wallMs, elapsedMs }: TimeSources): SteadyClock {
  let lastMs = Number.NEGATIVE_INFINITY
  let lastElapsedMs = elapsedMs()
  const nowMs = (): number => {
    const elapsed = elapsedMs()
    const goneOnMs = lastMs + slowedTo * Math.max(0, elapsed - lastElapsedMs)
    lastElapsedMs = elapsed
    lastMs = Math.max(goneOnMs, wallMs())
    // Whole ms for whoever writes it down; what is left counts on.
    return Math.floor(lastMs)
  }
  return {
    nowMs,
    notBefore(ms) {
      if (ms > nowMs()) lastMs = ms
    },
  }
}
