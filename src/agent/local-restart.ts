import type { TaskStatus } from '../model/index.ts'
import type { TaskAssignment } from '../wire/index.ts'

/** A task that ended while no manager was in reach may be started again here: nobody else would. */
export interface LocalRestart {
  /** How long to wait before it, in ms. */
  readonly delayMs: number
}

const delayMsMin = 1_000
const delayMsMax = 60_000

/**
 * Decides whether a task that has ended is started again in place by its node. `restarts` counts those since a manager
 * was last in reach. Pure. A job's task is left to the managers, who count its attempts.
 */
export function decideLocalRestart(
  { task, template }: TaskAssignment,
  ended: TaskStatus,
  restarts: number,
): LocalRestart | undefined {
  if (task.desiredState !== 'running') return undefined
  const { condition, delayMs, maxAttempts } = template.restart
  if (condition === 'none') return undefined
  if (ended.state !== 'failed' && ended.state !== 'complete') return undefined
  if (ended.state === 'complete' && condition === 'onFailure') return undefined
  if (maxAttempts > 0 && task.restarts.count + restarts >= maxAttempts) return undefined
  const backoffMs = restarts === 0 ? 0 : Math.min(delayMsMax, delayMsMin * 2 ** (restarts - 1))
  return { delayMs: Math.max(delayMs, backoffMs) }
}
