import {
  type RestartPolicy,
  type RestartRecord,
  restartTimesMax,
  type Task,
} from '../model/index.ts'

/** Longest pause the back-off of a crash loop grows to, in ms. A longer declared delay stays as declared. */
const restartDelayMaxMs = 300_000
/** What the back-off grows from when the declared delay is shorter, in ms. The first restart never waits for it. */
const backOffBaseMinMs = 100

export type RestartVerdict =
  | { readonly restart: true; readonly delayMs: number; readonly restarts: RestartRecord }
  | { readonly restart: false; readonly because: string }

export interface EndedTask {
  /** Has ended by itself: `complete`, `failed` or `rejected`. */
  readonly task: Pick<Task, 'status' | 'restarts'>
  readonly policy: RestartPolicy
  /** A job's task is never run again once complete. */
  readonly isJob: boolean
  /** How long an update watches a task: a task ready for longer than this (and ten delays) was no crash loop. */
  readonly monitorMs: number
  readonly nowMs: number
}

/**
 * Decides whether a task that ended by itself gets a successor, and after which pause.
 *
 * The verdict (not the pause) depends on the task alone, never on the time it is asked at, so a place that was left
 * at rest stays at rest. Attempts are counted within the window before the task ended, as Swarm does.
 */
export function decideRestart({
  task,
  policy,
  isJob,
  monitorMs,
  nowMs,
}: EndedTask): RestartVerdict {
  const { status, restarts } = task
  const completed = status.state === 'complete'
  if (completed && isJob) return { restart: false, because: 'the job is complete here' }
  if (policy.condition === 'none') {
    return { restart: false, because: 'not restarted: the restart condition is none' }
  }
  if (completed && policy.condition === 'onFailure') {
    return {
      restart: false,
      because: 'not restarted: it completed, and the restart condition is on-failure',
    }
  }
  const attempts = attemptsBefore(status.atMs, restarts, policy.windowMs)
  if (policy.maxAttempts > 0 && attempts >= policy.maxAttempts) {
    const within = policy.windowMs > 0 ? ` within ${seconds(policy.windowMs)}` : ''
    return {
      restart: false,
      because: `not restarted: gave up after ${counted(attempts, 'restart')}${within} (max-attempts ${policy.maxAttempts})`,
    }
  }
  const readyForMs = status.readyAtMs === undefined ? 0 : status.atMs - status.readyAtMs
  const wasStable = readyForMs > Math.max(monitorMs, 10 * policy.delayMs)
  const failuresInRow = completed ? 0 : wasStable ? 1 : restarts.failuresInRow + 1
  return {
    restart: true,
    delayMs: delayAfter(failuresInRow, policy.delayMs),
    restarts: {
      count: restarts.count + 1,
      timesMs: [...restarts.timesMs, nowMs].slice(-restartTimesMax),
      failuresInRow,
    },
  }
}

/** The declared delay, doubled with each further failure in a row. */
function delayAfter(failuresInRow: number, delayMs: number): number {
  if (failuresInRow <= 1) return delayMs
  const grown = Math.max(delayMs, backOffBaseMinMs) * 2 ** Math.min(failuresInRow - 1, 40)
  return Math.max(delayMs, Math.min(restartDelayMaxMs, grown))
}

function attemptsBefore(endedAtMs: number, restarts: RestartRecord, windowMs: number): number {
  if (windowMs === 0) return restarts.count
  return restarts.timesMs.filter((atMs) => atMs >= endedAtMs - windowMs && atMs < endedAtMs).length
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** A span for people: `500 ms`, `5 s`, `10 min`. */
export function seconds(ms: number): string {
  if (ms < 1000) return `${ms} ms`
  if (ms < 120_000) return `${Math.round(ms / 100) / 10} s`
  return `${Math.round(ms / 6000) / 10} min`
}
