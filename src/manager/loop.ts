import {
  type Clock,
  type Log,
  messageOf,
  type TurnBudget,
  UserError,
  type WakeUp,
} from '../base/index.ts'
import type { Change, Store } from '../store/store.ts'

/** What one turn of a loop wants: groups of changes, each atomic unless it is large, and when to look again by itself. */
export interface Turn {
  readonly commits: readonly (readonly Change[])[]
  readonly wakeAtMs?: number | undefined
  /** There is more to decide at once: the turn stopped at its bound. */
  readonly more?: boolean
  /** A large decision was begun and is not done: it goes on in the next turn of the event loop, ahead of what waits for a share. */
  readonly isUnderWay?: boolean
  /** Tasks looked at, beside those that change. */
  readonly lookedAt?: number
  /** Called for each group whose commit failed, to look at its objects again. */
  readonly failed?: (index: number) => void
}

export interface LoopOptions {
  readonly name: string
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly fence: number
  readonly wake: WakeUp
  readonly signal: AbortSignal
  /** Shares the thread with the other loops and with the nodes' sessions. */
  readonly turns: TurnBudget
  /** Of `Portions`. */
  readonly changesAtOnce: number
  /** Observes and decides. Synchronous: the view does not change meanwhile. */
  readonly decide: (nowMs: number) => Turn
}

/** Of a turn's units: to decide, check and encode a change; to look at a task. */
const unitsPerChange = 2
const unitsPerTask = 0.3
/** When a decision that lost a race is made again, if nothing wakes its loop sooner, in ms. */
const raceRetryMs = 50
/** Changes of one loop under way at once. */
const changesPerWaveMax = 2_000
/** Pause before a loop whose commit could not be stored tries again, in ms. */
const unavailableMs = 1000

/**
 * Observe, decide, commit, wait: the shape of every loop on the leader. A commit that lost a race is decided anew on
 * what is there now; one that the store could not take is tried again after a pause.
 */
export async function runLoop(options: LoopOptions): Promise<void> {
  const { name, store, clock, log, fence, wake, signal, turns, changesAtOnce, decide } = options
  let wakeAtMs: number | undefined
  /** What the last turn took: the next one is likely to take as much. The first one learns what is stored. */
  let units = turns.unitsPerTurn
  let isUnderWay = false
  while (!signal.aborted) {
    if (!isUnderWay) {
      await wake.wait(clock, signal, wakeAtMs)
      if (signal.aborted) return
      const share = turns.take(units)
      if (share) await share
      if (signal.aborted) return
    }
    const turn = decide(clock.nowMs())
    wakeAtMs = turn.wakeAtMs
    const taken = isUnderWay ? 0 : units
    isUnderWay = turn.isUnderWay ?? false
    units = unitsOf(turn)
    turns.spend(Math.max(0, units - taken))
    const results = await commitAll(turn, changesAtOnce, (changes) =>
      store.commit(changes, { fence }),
    )
    let pause = false
    let isLate = false
    for (const result of results) {
      if (result.status === 'fulfilled') continue
      if (result.reason instanceof UserError && isRace(result.reason)) {
        log.debug('a loop lost a race', { loop: name, error: result.reason.message })
        // Whoever won is on the way to the disk, and wakes this loop when it lands. To ask again at once would only
        // keep it from landing.
        const retryAtMs = clock.nowMs() + raceRetryMs
        wakeAtMs = wakeAtMs === undefined ? retryAtMs : Math.min(wakeAtMs, retryAtMs)
        isLate = true
        continue
      }
      wake.ring()
      log.warn('a loop could not store its decision', {
        loop: name,
        error: messageOf(result.reason),
      })
      pause = true
    }
    // One that is under way goes on by itself: a ring that is left from it would hide that its end lost a race.
    if (turn.more && !turn.isUnderWay && !isLate) wake.ring()
    if (pause) await clock.sleep(unavailableMs, signal)
    // A turn without a commit has not let anybody else run.
    else if (turn.more && results.length === 0) await clock.sleep(0, signal)
  }
}

/**
 * Commits all that a turn wants. A large turn goes in waves, so that others' changes get in between and the store's
 * queue stays short; what was decided is checked against the versions it was decided on all the same.
 */
async function commitAll(
  { commits, failed }: Turn,
  changesAtOnce: number,
  commit: (changes: readonly Change[]) => Promise<unknown>,
): Promise<readonly PromiseSettledResult<unknown>[]> {
  const results: PromiseSettledResult<unknown>[] = []
  let wave: Promise<unknown>[] = []
  let changesInWave = 0
  for (const [index, group] of commits.entries()) {
    for (const changes of chunks(group, changesAtOnce)) {
      if (changesInWave + changes.length > changesPerWaveMax) {
        results.push(...(await Promise.allSettled(wave)))
        wave = []
        changesInWave = 0
      }
      changesInWave += changes.length
      wave.push(
        commit(changes).catch((error: unknown) => {
          failed?.(index)
          throw error
        }),
      )
    }
  }
  results.push(...(await Promise.allSettled(wave)))
  return results
}

function unitsOf({ commits, lookedAt = 0 }: Turn): number {
  const changes = commits.reduce((sum, group) => sum + group.length, 0)
  return 1 + unitsPerChange * changes + unitsPerTask * lookedAt
}

function isRace(error: UserError): boolean {
  return error.code === 'outOfSequence' || error.code === 'notFound' || error.code === 'conflict'
}

function chunks(changes: readonly Change[], atOnce: number): (readonly Change[])[] {
  if (changes.length <= atOnce) return changes.length === 0 ? [] : [changes]
  const parts: (readonly Change[])[] = []
  for (let at = 0; at < changes.length; at += atOnce) {
    parts.push(changes.slice(at, at + atOnce))
  }
  return parts
}
