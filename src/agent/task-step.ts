import { unreachable } from '../base/index.ts'
import { isTerminal, rankOf, type TaskStatus } from '../model/index.ts'
import type { ObservedContainer } from '../runtime/runtime.ts'
import type { TaskAssignment } from '../wire/index.ts'

/** What a node does next for one task. Statuses are written as the step is taken, so a crash repeats it. */
export type Step =
  /** Report this state and look again. */
  | { readonly type: 'become'; readonly status: TaskStatus }
  | { readonly type: 'prepare' }
  | { readonly type: 'start' }
  /** Started with a health check: probe until the first success. */
  | { readonly type: 'probe' }
  /** Let open connections end, then stop; `outcome` is the state after it. */
  | { readonly type: 'stop'; readonly outcome: TaskStatus['state']; readonly error?: string }
  /** The task has ended, and its container runs: somebody has started it, or an engine that was told to before. Stop it. */
  | { readonly type: 'endAgain' }
  /** Nothing to do until something changes. */
  | { readonly type: 'wait' }

/** What the node knows of a task besides its status and its container. */
export interface NodeWord {
  /** No manager has been in reach for so long that another node is about to run the task. */
  readonly isFenced?: boolean
  /** What was seen as it started: `nothing listens on port 9090/tcp, which its image exposes`. */
  readonly remark?: string | undefined
}

/**
 * Decides the next step of one task. Pure: the same task, status and container give the same step.
 *
 * `observed` is the engine's word on the task's container; undefined when there is none. The engine is believed over
 * the stored status: a container that runs without the daemon having seen its start is adopted as it is.
 */
export function decideStep(
  assignment: TaskAssignment,
  status: TaskStatus,
  observed: ObservedContainer | undefined,
  nowMs: number,
  { isFenced = false, remark }: NodeWord = {},
): Step {
  const { task } = assignment
  if (isTerminal(status.state)) return { type: observed?.state === 'running' ? 'endAgain' : 'wait' }
  const ended = endOf(status, observed, nowMs)
  switch (task.desiredState) {
    case 'shutdown':
    case 'remove':
      if (!observed || observed.state === 'created' || ended) {
        return become({
          ...status,
          ...ended,
          state: 'shutdown',
          message: 'shutdown',
          ready: false,
          atMs: nowMs,
        })
      }
      if (task.traffic !== 'none') return { type: 'wait' }
      return { type: 'stop', outcome: 'shutdown' }
    case 'ready':
    case 'running':
    case 'complete':
      break
    default:
      return unreachable(task.desiredState)
  }
  if (isFenced) return fenced(assignment, status, observed, ended !== undefined, nowMs)
  if (ended) return become(ended)
  switch (status.state) {
    case 'new':
    case 'pending':
      return { type: 'wait' }
    case 'assigned':
      return become({ ...status, state: 'accepted', message: 'accepted', atMs: nowMs })
    case 'accepted':
      return become({ ...status, state: 'preparing', message: 'preparing', atMs: nowMs })
    case 'preparing':
      return { type: 'prepare' }
    case 'ready':
      if (task.desiredState === 'ready') return { type: 'wait' }
      return become({ ...status, state: 'starting', message: 'starting', atMs: nowMs })
    case 'starting':
      if (!observed || observed.state === 'created') return { type: 'start' }
      if (observed.health === 'unhealthy') return unhealthy(observed)
      if (observed.health === 'starting') return { type: 'probe' }
      return become(runningStatus(status, observed, nowMs, remark))
    case 'running':
      if (observed?.health !== 'unhealthy') {
        if (status.ready || observed?.state !== 'running') return { type: 'wait' }
        // Started again in place, or well again: whoever looked at it then may not have seen the end of that.
        if (observed.health === 'starting') return { type: 'probe' }
        return become(runningStatus(status, observed, nowMs, remark))
      }
      if (status.ready) {
        const unreadyCount = (status.unreadyCount ?? 0) + 1
        const error = unhealthyText(observed)
        return become({ ...status, ready: false, unreadyCount, error, atMs: nowMs })
      }
      // Out of every endpoint first; the leader answers `draining` and then `none`.
      if (task.traffic !== 'none' || !isTrafficCurrent(assignment, status)) return { type: 'wait' }
      return unhealthy(observed)
    case 'complete':
    case 'shutdown':
    case 'failed':
    case 'rejected':
    case 'remove':
    case 'orphaned':
      return { type: 'wait' }
    default:
      return unreachable(status.state)
  }
}

/**
 * Whether the leader decided on the task's traffic knowing that it is not ready any more. Until then it may have others send
 * there: the report that the task was ready can be on its way to it still.
 */
function isTrafficCurrent({ task, endpointPorts }: TaskAssignment, status: TaskStatus): boolean {
  const mayBeServed = endpointPorts.length > 0 || task.addresses.length > 0
  return !mayBeServed || (task.status.unreadyCount ?? 0) >= (status.unreadyCount ?? 0)
}

/** Stopped by the node itself. It is no failure of the task, so it counts for no restart policy. */
function fenced(
  { stopAfterMs = 0 }: TaskAssignment,
  status: TaskStatus,
  observed: ObservedContainer | undefined,
  isEnded: boolean,
  nowMs: number,
): Step {
  const error = `stopped by its node: no manager in reach for ${Math.round(stopAfterMs / 1000)} s (skep.failure=stop-after)`
  if (observed && observed.state !== 'created' && !isEnded)
    return { type: 'stop', outcome: 'shutdown', error }
  return become({
    ...status,
    state: 'shutdown',
    message: 'stopped',
    error,
    ready: false,
    atMs: nowMs,
  })
}

/** The status of a task whose container runs and is healthy, or has no check. */
export function runningStatus(
  status: TaskStatus,
  observed: ObservedContainer,
  nowMs: number,
  remark?: string,
): TaskStatus {
  const { error: _, ...rest } = status
  return {
    ...rest,
    state: 'running',
    message: remark === undefined ? 'started' : `started; ${remark}`,
    atMs: nowMs,
    ready: true,
    readyAtMs: status.readyAtMs ?? nowMs,
    container: { containerId: observed.containerId, pid: observed.pid },
    hostPorts: observed.hostPorts,
  }
}

/** The terminal status of a container that has ended, or vanished after its start; undefined while it may live. */
function endOf(
  status: TaskStatus,
  observed: ObservedContainer | undefined,
  nowMs: number,
): TaskStatus | undefined {
  if (!observed) {
    const started =
      status.state === 'running' || (status.state === 'starting' && status.container !== undefined)
    if (!started) return undefined
    return {
      ...status,
      state: 'failed',
      message: 'failed',
      error: 'the container was removed by something other than Skep',
      ready: false,
      atMs: nowMs,
    }
  }
  if (observed.state !== 'exited' && observed.state !== 'dead') return undefined
  if (rankOf(status.state) < rankOf('starting')) return undefined
  const container = { containerId: observed.containerId, pid: 0, exitCode: observed.exitCode }
  const atMs = observed.finishedAtMs ?? nowMs
  if (observed.exitCode === 0 && observed.error === '') {
    const { error: _, ...rest } = status
    return { ...rest, state: 'complete', message: 'finished', ready: false, atMs, container }
  }
  return {
    ...status,
    state: 'failed',
    message: 'started',
    error: exitText(observed),
    ready: false,
    atMs,
    container,
  }
}

function exitText(observed: ObservedContainer): string {
  const why = observed.oomKilled ? 'killed: out of memory, raise its memory limit' : observed.error
  return `task: non-zero exit (${observed.exitCode})${why === '' ? '' : `: ${why}`}`
}

function unhealthy(observed: ObservedContainer): Step {
  return { type: 'stop', outcome: 'failed', error: unhealthyText(observed) }
}

function unhealthyText(observed: ObservedContainer): string {
  const output = observed.healthOutput.trim().split('\n').at(-1) ?? ''
  return `task: non-zero exit (137): dockerexec: unhealthy container${output === '' ? '' : ` (last probe: ${output.slice(0, 200)})`}`
}

function become(status: TaskStatus): Step {
  return { type: 'become', status }
}
