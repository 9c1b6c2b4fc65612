import { type Random, usualPortions } from '../base/index.ts'
import {
  type DesiredState,
  mintId,
  orphanedTask,
  type Revision,
  type RevisionId,
  rankOf,
  type Task,
  type TaskId,
  type UpdateStatus,
  type Workload,
  withRevision,
} from '../model/index.ts'
import type { Change } from '../store/store.ts'
import type { Action, CreateTask } from './actions.ts'
import type { WorkloadSlice } from './slice.ts'

/** The store's changes that carry out actions decided on the slice: at most one per object. */
export function changesFor(
  slice: WorkloadSlice,
  actions: readonly Action[],
  nowMs: number,
  random: Random,
): readonly Change[] {
  const parts = changesInParts(slice, actions, nowMs, random)
  for (;;) {
    const part = parts.next()
    if (part.done) return part.value
  }
}

/** The same in parts of a few ms each, where there are more actions than `perPart`. */
export function* changesInParts(
  slice: WorkloadSlice,
  actions: readonly Action[],
  nowMs: number,
  random: Random,
  perPart = usualPortions.perPart,
): Generator<undefined, readonly Change[]> {
  const { workload, revisions } = slice
  const changes: Change[] = [...taskChanges(slice.tasks, actions, nowMs)]
  let update: UpdateStatus | undefined
  let isStartOrderMet = false
  let goBackTo: Revision | undefined
  const deleted = new Set<RevisionId>()
  for (const [at, action] of actions.entries()) {
    if (at % perPart === perPart - 1) yield
    switch (action.type) {
      case 'createTask': {
        const waitsForAddresses = needsAddresses(slice, action.revisionId)
        const task = newTask(workload, action, waitsForAddresses, nowMs, random)
        changes.push({ type: 'create', object: task })
        break
      }
      case 'setUpdate':
        update = action.update
        break
      case 'rollBack':
        update = action.update
        goBackTo = revisions.get(action.revisionId)
        break
      case 'meetStartOrder':
        isStartOrderMet = true
        break
      case 'markHealthy': {
        const revision = revisions.get(action.revisionId)
        if (revision) changes.push({ type: 'update', object: { ...revision, healthyAtMs: nowMs } })
        break
      }
      case 'deleteRevision':
        deleted.add(action.revisionId)
        break
      case 'setDesired':
      case 'orphanTask':
      case 'deleteTask':
        break // taskChanges did these.
    }
  }
  for (const id of deleted) {
    const revision = revisions.get(id)
    if (revision) changes.push({ type: 'delete', kind: 'revision', id, version: revision.version })
  }
  if (update || isStartOrderMet) {
    const status = {
      ...workload.status,
      ...(update && { update }),
      ...(isStartOrderMet && { isStartOrderMet: true as const }),
    }
    changes.push(...workloadChanges(slice, status, goBackTo))
  }
  return changes
}

function workloadChanges(
  { workload, endpoints }: WorkloadSlice,
  status: Workload['status'],
  goBackTo: Revision | undefined,
): readonly Change[] {
  if (!goBackTo) return [{ type: 'update', object: { ...workload, status } }]
  // The endpoint that was declared with the workload: its only backend, under the same name.
  const own = endpoints.find(
    ({ name, spec }) => name === workload.name && spec.backends.length === 1,
  )
  const before = withRevision(workload, own, goBackTo)
  const { previousRevisionId: _, ...spec } = before.workload.spec
  const object: Workload = { ...before.workload, spec, status }
  const changes: Change[] = [{ type: 'update', object, specChanged: true }]
  if (before.endpoint && before.endpoint !== own)
    changes.push({ type: 'update', object: before.endpoint, specChanged: true })
  return changes
}

/** One change per task: several wishes for one are joined, the furthest desired state wins. */
export function taskChanges(
  tasks: readonly Task[],
  actions: readonly Action[],
  nowMs: number,
): readonly Change[] {
  const afterById = new Map<TaskId, Task>()
  const deleted = new Set<TaskId>()
  const byId = tasksNamed(tasks, actions)
  const current = (id: TaskId) => afterById.get(id) ?? byId.get(id)
  for (const action of actions) {
    switch (action.type) {
      case 'setDesired': {
        const task = current(action.taskId)
        if (task && rankOf(action.desiredState) > rankOf(task.desiredState))
          afterById.set(task.id, withDesired(task, action.desiredState, action.because))
        break
      }
      case 'orphanTask': {
        const task = current(action.taskId)
        if (task) afterById.set(task.id, orphanedTask(task, action.error, nowMs))
        break
      }
      case 'deleteTask':
        deleted.add(action.taskId)
        break
      case 'createTask':
      case 'setUpdate':
      case 'rollBack':
      case 'meetStartOrder':
      case 'markHealthy':
      case 'deleteRevision':
        break
    }
  }
  const changes: Change[] = []
  for (const [id, object] of afterById)
    if (!deleted.has(id)) changes.push({ type: 'update', object })
  for (const id of deleted) {
    const task = current(id)
    if (task) changes.push({ type: 'delete', kind: 'task', id, version: task.version })
  }
  return changes
}

/** The tasks that actions are about: few of many, as a rule. */
function tasksNamed(tasks: readonly Task[], actions: readonly Action[]): ReadonlyMap<TaskId, Task> {
  const named = new Set(actions.flatMap((action) => ('taskId' in action ? action.taskId : [])))
  const byId = new Map<TaskId, Task>()
  if (named.size === 0) return byId
  for (const task of tasks) if (named.has(task.id)) byId.set(task.id, task)
  return byId
}

function withDesired(task: Task, desiredState: DesiredState, because: string): Task {
  const { desiredBecause: _, ...rest } = task
  return { ...rest, desiredState, ...(because === '' ? {} : { desiredBecause: because }) }
}

/** Whether tasks of a revision get anything from the allocator, or have to wait for what their endpoints get. */
function needsAddresses({ endpoints, revisions }: WorkloadSlice, id: RevisionId): boolean {
  const revision = revisions.get(id)
  if (!revision || revision.template.networks.length > 0) return true
  return endpoints.some(({ spec, status }) => spec.ports.length > 0 || status.error !== undefined)
}

/** One without addresses is for the scheduler at once: to pass it on would be a write for each task. */
function newTask(
  workload: Workload,
  action: CreateTask,
  waitsForAddresses: boolean,
  nowMs: number,
  random: Random,
): Task {
  const { type: _, because, ...fields } = action
  const id = mintId<'task'>(random)
  const place = action.slot ?? action.pinnedNodeId ?? ''
  return {
    kind: 'task',
    id,
    namespace: workload.namespace,
    name: `${workload.name}.${place}.${id}`,
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    workloadId: workload.id,
    ...fields,
    desiredBecause: because,
    status: {
      state: waitsForAddresses ? 'new' : 'pending',
      atMs: nowMs,
      message: waitsForAddresses ? 'created' : 'pending task scheduling',
      ready: false,
      hostPorts: [],
    },
    traffic: 'none',
    addresses: [],
    genericResources: [],
  }
}
