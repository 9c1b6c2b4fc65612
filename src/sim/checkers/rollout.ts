import {
  isLive,
  isStopWanted,
  isTerminal,
  placementFits,
  type Revision,
  type Task,
  type UpdatePolicy,
  type UpdateStatus,
  type Workload,
  type WorkloadId,
} from '../../model/index.ts'
import type { Commit, View } from '../../store/store.ts'
import type { Checker } from '../judge.ts'
import type { Past } from '../past.ts'

/** What an update or rollback is doing to one workload. */
interface Rollout {
  readonly workload: Workload
  readonly update: UpdateStatus
  readonly wanted: Revision
  readonly policy: UpdatePolicy
  readonly served: boolean
}

function rolloutOf(view: View, id: WorkloadId): Rollout | undefined {
  const workload = view.get('workload', id)
  const update = workload?.status.update
  if (!workload || !update || update.revisionId !== workload.spec.revisionId) return undefined
  const isRollback = update.state === 'rollbackStarted'
  if (update.state !== 'updating' && !isRollback) return undefined
  const wanted = view.get('revision', workload.spec.revisionId)
  if (!wanted) return undefined
  const policy = isRollback ? workload.spec.rollback : workload.spec.update
  const served = view
    .endpointsOfWorkload(id)
    .some(
      ({ spec }) =>
        spec.networks.length > 0 || spec.ports.some(({ publishMode }) => publishMode === 'ingress'),
    )
  return { workload, update, wanted, policy, served }
}

/** How long a decision may be on its way to a slow disk: what happens meanwhile it was taken without, in ms. */
const onItsWayMs = 1_000

const isBegun = ({ desiredBecause }: Task) =>
  /^(update|rollback) to revision/.test(desiredBecause ?? '')

/** Updates replace no more slots at once than they may, in their order, and stop once too many have failed. */
export function rollout(past: Past): Checker {
  /** When the state first had the end of each task. */
  const endedAtMs = new Map<string, number>()
  return {
    name: 'updates keep their policy',
    commit(commit, view) {
      const begunBy = new Map<WorkloadId, Task[]>()
      for (const { id, before, after } of commit.changes) {
        if (after?.kind !== 'task') endedAtMs.delete(id)
        else if (isTerminal(after.status.state) && !endedAtMs.has(id))
          endedAtMs.set(id, commit.atMs)
        if (before || after?.kind !== 'task' || !isBegun(after)) continue
        const begun = begunBy.get(after.workloadId)
        if (begun) begun.push(after)
        else begunBy.set(after.workloadId, [after])
      }
      const isKnown = ({ id: taskId }: Task) =>
        (endedAtMs.get(taskId) ?? 0) + onItsWayMs < commit.atMs
      for (const [id, begun] of begunBy) {
        const nowMs = Math.max(...begun.map(({ createdAtMs }) => createdAtMs))
        const wrong = (known: View): string | undefined => {
          const rolling = rolloutOf(known, id)
          return rolling && wrongWith(rolling, known, nowMs, isKnown)
        }
        const what = wrong(view) && wrong(past.whenDecided(begun) ?? view)
        if (what !== undefined) return what
      }
      return orderOf(commit, view, past)
    },
  }
}

function placesOf(view: View, id: WorkloadId): ReadonlyMap<number | string, readonly Task[]> {
  const places = new Map<number | string, Task[]>()
  for (const task of view.tasksOfWorkload(id)) {
    const key = task.slot ?? task.pinnedNodeId ?? ''
    const known = places.get(key)
    if (known) known.push(task)
    else places.set(key, [task])
  }
  return places
}

/** `nowMs`: in the time of the leader that began the next slots. */
function wrongWith(
  { workload, update, wanted, policy, served }: Rollout,
  view: View,
  nowMs: number,
  isKnown: (ended: Task) => boolean,
): string | undefined {
  const isClean = (task: Task) =>
    task.revisionId === wanted.id ||
    view.get('revision', task.revisionId)?.templateHash === wanted.templateHash
  const isNew = (task: Task) => isClean(task) && task.createdAtMs >= update.startedAtMs
  let inProgress = 0
  let failed = 0
  let slots = 0
  for (const tasks of placesOf(view, workload.id).values()) {
    // A place on a node that takes no new tasks now is left alone.
    const pinned = tasks[0]?.pinnedNodeId && view.get('node', tasks[0].pinnedNodeId)
    if (pinned && (pinned.status.state !== 'ready' || pinned.spec.availability !== 'active'))
      continue
    if (
      !tasks.some((task) => isLive(task)) &&
      !tasks.some((task) => isNew(task) && isTerminal(task.status.state))
    )
      continue
    slots += 1
    const failures = tasks.filter((task) => isNew(task) && hasFailed(task, policy, wanted))
    if (failures.some(isKnown)) failed += 1
    if (failures.length > 0) continue
    if (tasks.some((task) => isNew(task) && isOverdue(task, policy, nowMs))) continue
    else if (
      tasks.some((task) => isNew(task) && isLive(task) && !isUp(task, served)) &&
      !tasks.some((task) => isNew(task) && isLive(task) && isUp(task, served))
    )
      inProgress += 1
  }
  const { name, spec } = workload
  if (policy.parallelism > 0 && inProgress > policy.parallelism)
    return `${name} replaces ${inProgress} slots at once; its policy allows ${policy.parallelism}`
  // Of a workload with a task on each node, a place where nothing runs any more counts too.
  const nodes = [...view.list('node')].filter((node) =>
    placementFits(node, wanted.template.placement),
  )
  const total = spec.mode.type === 'replicated' ? spec.mode.replicas : Math.max(slots, nodes.length)
  if (policy.onFailure !== 'continue' && failed / Math.max(1, total) > policy.maxFailureRatio)
    return `${name} goes on with its update although ${failed} of ${total} slots failed (ratio ${policy.maxFailureRatio} allowed)`
  return undefined
}

function isUp(task: Task, served: boolean): boolean {
  const { state, ready } = task.status
  return state === 'running' && ready && (!served || task.traffic === 'routable')
}

function hasFailed(task: Task, policy: UpdatePolicy, wanted: Revision): boolean {
  const { state, atMs, readyAtMs } = task.status
  if (state !== 'failed' && state !== 'rejected' && state !== 'complete') return false
  if (state === 'complete' && wanted.template.restart.condition !== 'any') return false
  return readyAtMs === undefined || atMs - readyAtMs <= policy.monitorMs
}

/** It made no progress for so long that it may count as failed: such a slot holds up nobody. */
function isOverdue(task: Task, policy: UpdatePolicy, nowMs: number): boolean {
  const sinceMs = Math.max(task.createdAtMs, task.startNotBeforeMs ?? 0)
  return task.status.readyAtMs === undefined && nowMs - sinceMs > policy.progressDeadlineMs
}

/** Start first: what serves is told to stop only once its successor serves, as far as the leader knew. */
function orderOf(commit: Commit, view: View, past: Past): string | undefined {
  for (const { before, after } of commit.changes) {
    if (before?.kind !== 'task' || after?.kind !== 'task') continue
    if (isStopWanted(before) || !isStopWanted(after) || isTerminal(before.status.state)) continue
    if (!(after.desiredBecause ?? '').startsWith('replaced by task') && !isBegun(after)) continue
    const what =
      stoppedFirst(before, view) && stoppedFirst(before, past.whenDecided([after]) ?? view)
    if (what !== undefined) return what
  }
  return undefined
}

function stoppedFirst(stopped: Task, view: View): string | undefined {
  const rolling = rolloutOf(view, stopped.workloadId)
  if (!rolling) return undefined
  const { policy, served, workload } = rolling
  const hasHostPort = view
    .endpointsOfWorkload(workload.id)
    .some(({ spec }) =>
      spec.ports.some((port) => port.publishMode === 'host' && port.publishedPort !== 0),
    )
  if (policy.order !== 'startFirst' || hasHostPort || !isUp(stopped, served)) return undefined
  const isBeside = (task: Task) =>
    task.id !== stopped.id &&
    task.slot === stopped.slot &&
    task.pinnedNodeId === stopped.pinnedNodeId
  const serves = (task: Task) => isBeside(task) && isUp(task, served) && !isStopWanted(task)
  return view.tasksOfWorkload(workload.id).some(serves)
    ? undefined
    : `${workload.name} starts the new task first, but task ${stopped.id} was told to stop while nothing else serves in its slot`
}
