import { findObject } from '../../control/index.ts'
import type { Task } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import { type Call, jsonText, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { DockerError } from './errors.ts'
import type { Filters } from './filters.ts'
import { streamLogs } from './logs.ts'
import { raiseTaskJson } from './raise-task.ts'

const filterKeys = [
  'id',
  'label',
  'name',
  'node',
  'service',
  'desired-state',
  'runtime',
  '_up-to-date',
] as const

/** Desired states that a filter may name: those of Docker, some of which no task of ours ever has. */
const desiredStates = new Set([
  'new',
  'allocated',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'remove',
  'orphaned',
])

export function taskRoutes(api: ApiContext): readonly Route[] {
  return [
    { method: 'GET', path: '/tasks', handle: (call) => listTasks(api, call) },
    {
      method: 'GET',
      path: '/tasks/:id',
      handle(call) {
        const { view } = api.requireControl().store
        return jsonText(raiseTaskJson(view, findObject(view, 'task', call.param('id'))))
      },
    },
    {
      method: 'GET',
      path: '/tasks/:id/logs',
      handle(call) {
        const { store } = api.requireControl()
        const { id } = findObject(store.view, 'task', call.param('id'))
        return streamLogs(api, call, store, undefined, (view) => {
          const task = view.get('task', id)
          return task ? [task] : []
        })
      },
    },
  ]
}

function listTasks(api: ApiContext, call: Call) {
  const { view } = api.requireControl().store
  const filters = call.filters(filterKeys)
  const parts: string[] = []
  for (const task of candidates(view, filters)) {
    if (isListed(view, task, filters)) parts.push(raiseTaskJson(view, task))
  }
  return jsonText(`[${parts.join(',')}]`)
}

/** The tasks of the services and nodes that the filters name, by index where one serves. */
function candidates(view: View, filters: Filters): Iterable<Task> {
  for (const state of filters.get('desired-state')) {
    if (!desiredStates.has(state)) {
      throw new DockerError(500, `Invalid desired-state filter: '${state}'`)
    }
  }
  const workloads = new Set(
    filters.get('service').map((text) => findObject(view, 'workload', text).id),
  )
  const nodes = new Set(filters.get('node').map((text) => findObject(view, 'node', text).id))
  if (workloads.size > 0) {
    const tasks = [...workloads].flatMap((id) => view.tasksOfWorkload(id))
    if (nodes.size === 0) return tasks
    return tasks.filter(({ nodeId }) => nodeId !== undefined && nodes.has(nodeId))
  }
  if (nodes.size > 0) return [...nodes].flatMap((id) => view.tasksOfNode(id))
  return view.list('task')
}

function isListed(view: View, task: Task, filters: Filters): boolean {
  return (
    filters.startsWith('id', task.id) &&
    filters.equals('desired-state', task.desiredState) &&
    filters.equals('runtime', 'container') &&
    (!filters.has('name') || filters.startsWith('name', nameOf(view, task))) &&
    (!filters.has('label') || filters.labels('label', labelsOf(view, task))) &&
    (!filters.has('_up-to-date') || isUpToDate(view, task) === isTrue(filters))
  )
}

function isTrue(filters: Filters): boolean {
  return filters.get('_up-to-date').some((value) => value === 'true' || value === '1')
}

/** Labels of the service: a removed one's are those of the revision the task was made from. */
function labelsOf(view: View, task: Task): Readonly<Record<string, string>> {
  const owner = view.get('workload', task.workloadId) ?? view.get('revision', task.revisionId)
  return owner?.labels ?? {}
}

function nameOf(view: View, task: Task): string {
  const owner = view.get('workload', task.workloadId) ?? view.get('revision', task.revisionId)
  return `${owner?.name ?? task.workloadId}.${task.slot ?? task.nodeId ?? ''}.${task.id}`
}

/** Whether the task runs what its service wants now. */
function isUpToDate(view: View, task: Task): boolean {
  const workload = view.get('workload', task.workloadId)
  if (!workload) return false
  if (workload.spec.revisionId === task.revisionId) return true
  const wanted = view.get('revision', workload.spec.revisionId)?.templateHash
  return wanted !== undefined && view.get('revision', task.revisionId)?.templateHash === wanted
}
