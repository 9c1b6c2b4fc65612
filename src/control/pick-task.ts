import { UserError } from '../base/index.ts'
import type { ClusterNode, Task } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { lookUp } from './lookup.ts'

/** A task that runs, and where. */
export interface RunningTask {
  readonly task: Task
  /** `web.1`, or `web.<host>` for one of a service that has one on each node. */
  readonly name: string
  readonly node: ClusterNode
  readonly containerId: string
}

/**
 * The running task that a person means: by service (its ready task of the lowest slot), `service.slot` (of a global
 * service: `service.node`), the whole name of the container (`web.1.<id>`) or the beginning of the task's id. Throws
 * `notFound`, `ambiguous`, `failedPrecondition` (it does not run) or `unavailable` (its node is down).
 */
export function pickTask(view: View, text: string): RunningTask {
  const found = candidates(view, text)
  const running = found.tasks.filter(({ status }) => status.state === 'running').sort(byPlace)
  const [task] = running.filter(({ nodeId }) => isReachable(view, nodeId))
  if (task) return placeOf(view, task)
  const [lost] = running
  if (lost) {
    const node = lost.nodeId === undefined ? undefined : view.get('node', lost.nodeId)
    throw new UserError(
      'unavailable',
      `${nameOfTask(view, lost)} runs on ${node?.name ?? lost.nodeId}, which is down`,
      { next: 'Start that node again, or choose a task on another one.' },
    )
  }
  const [latest] = [...found.tasks].sort((a, b) => b.createdAtMs - a.createdAtMs)
  throw new UserError('failedPrecondition', `${found.what} ${whyNot(latest)}`, {
    next: `Ask why with \`skep explain ${found.explain}\`.`,
  })
}

/** `web.1`, or `web.<host>`. */
export function nameOfTask(view: View, { workloadId, slot, nodeId }: Task): string {
  const service = view.get('workload', workloadId)?.name ?? workloadId
  if (slot !== undefined) return `${service}.${slot}`
  return `${service}.${nodeId === undefined ? '' : (view.get('node', nodeId)?.name ?? nodeId)}`
}

interface Candidates {
  readonly tasks: readonly Task[]
  /** The beginning of a sentence about them. */
  readonly what: string
  /** What `skep explain` is asked for. */
  readonly explain: string
}

function candidates(view: View, text: string): Candidates {
  // A name goes before the beginnings of ids, as everywhere.
  const [named] = view.byName('workload', text)
  const services = named ? [named] : lookUp(view, 'workload', text)
  const tasks = named ? [] : taskNamed(view, text)
  const count = services.length + tasks.length
  if (count > 1) {
    throw new UserError('ambiguous', `${text} is ambiguous (${count} services and tasks match)`, {
      next: 'Write the whole name of a service, service.slot, or more of the id.',
    })
  }
  const [service] = services
  if (service) {
    const { id, name } = service
    const what = `service ${name} has no task that runs:`
    return { tasks: view.tasksOfWorkload(id), what, explain: name }
  }
  const [task] = tasks
  if (task)
    return { tasks: [task], what: `${nameOfTask(view, task)} does not run:`, explain: task.id }
  return ofPlace(view, text)
}

/** By the beginning of its id, or the whole name of its container. */
function taskNamed(view: View, text: string): readonly Task[] {
  const id = /\.([0-9a-z]{25})$/.exec(text)?.[1]
  if (id !== undefined) {
    const task = view.get('task', id)
    return task ? [task] : []
  }
  return text.includes('.') ? [] : lookUp(view, 'task', text)
}

/** `web.1`, `web.<node>`. */
function ofPlace(view: View, text: string): Candidates {
  const dot = text.indexOf('.')
  const [service] = dot > 0 ? view.byName('workload', text.slice(0, dot)) : []
  if (!service) {
    throw new UserError('notFound', `there is no service or task ${text}`, {
      next: 'List them with `skep service ls` and `skep service ps <service>`.',
    })
  }
  const place = text.slice(dot + 1)
  const all = view.tasksOfWorkload(service.id)
  const tasks = all.filter(({ slot, nodeId }) =>
    slot === undefined
      ? nodeId !== undefined && (nodeId === place || view.get('node', nodeId)?.name === place)
      : String(slot) === place,
  )
  if (tasks.length > 0) return { tasks, what: `${text} does not run:`, explain: service.name }
  const known = [...new Set(all.map((task) => nameOfTask(view, task)))]
  throw new UserError('notFound', `service ${service.name} has no task ${text}`, {
    next:
      known.length === 0
        ? `It has none at all: ask why with \`skep explain ${service.name}\`.`
        : `It has ${known.slice(0, 10).join(', ')}${known.length > 10 ? ', …' : ''}.`,
  })
}

/** Ready ones first, then those that stay, then by slot, then the newest. */
function byPlace(a: Task, b: Task): number {
  return (
    Number(b.status.ready) - Number(a.status.ready) ||
    Number(b.desiredState === 'running') - Number(a.desiredState === 'running') ||
    (a.slot ?? 0) - (b.slot ?? 0) ||
    b.createdAtMs - a.createdAtMs
  )
}

function isReachable(view: View, nodeId: Task['nodeId']): boolean {
  return nodeId !== undefined && view.get('node', nodeId)?.status.state !== 'down'
}

function placeOf(view: View, task: Task): RunningTask {
  const name = nameOfTask(view, task)
  const node = task.nodeId === undefined ? undefined : view.get('node', task.nodeId)
  const containerId = task.status.container?.containerId
  if (!node || containerId === undefined) {
    throw new UserError('failedPrecondition', `${name} has no container yet`, {
      next: 'Try again in a moment.',
    })
  }
  return { task, name, node, containerId }
}

function whyNot(task: Task | undefined): string {
  if (!task) return 'it has none at all'
  const { state, error } = task.status
  return `its state is ${state}${error === undefined ? '' : ` (${error})`}`
}
