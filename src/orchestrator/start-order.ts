import { UserError } from '../base/index.ts'
import { isJob, isTerminal, rankOf, type Task, type Workload } from '../model/index.ts'
import type { View } from '../store/store.ts'

/**
 * Label of a service: what has to be there before its first task is made, such as
 * `shop_db:healthy,shop_migrate:completed,shop_cache:started?`. A question mark: passed over when there is no such service.
 */
export const startAfterLabel = 'skep.start-after'

const conditions = ['started', 'healthy', 'completed'] as const
export type StartCondition = (typeof conditions)[number]

export interface StartAfter {
  /** The other workload's name. */
  readonly name: string
  readonly condition: StartCondition
  readonly isRequired: boolean
}

/** One that is still waited for. */
export interface Wait {
  readonly name: string
  /** In words, such as `it waits for shop_db to be healthy: 0 of 1`. */
  readonly because: string
}

/** Reads the label. Throws `invalidInput`. */
export function parseStartAfter(text: string | undefined): readonly StartAfter[] {
  if (text === undefined || text === '') return []
  return text.split(',').map((part) => {
    const match = /^\s*([\w.-]+):(\w+)(\??)\s*$/.exec(part)
    const condition = conditions.find((one) => one === match?.[2])
    if (match?.[1] !== undefined && condition !== undefined) {
      return { name: match[1], condition, isRequired: match[3] !== '?' }
    }
    throw new UserError('invalidInput', `label ${startAfterLabel}: "${part}" is no condition`, {
      next: `Write it as service:condition, with ${conditions.join(', ')}.`,
    })
  })
}

/**
 * What a workload still waits for before its first task: `undefined` once it has had one, or when it names nothing. It counts
 * for the first start only: later nothing is held back. O(tasks of those it names).
 */
export function observeStartOrder(
  view: Pick<View, 'byName' | 'tasksOfWorkload'>,
  workload: Workload,
): readonly Wait[] | undefined {
  const label = workload.labels[startAfterLabel]
  if (label === undefined || workload.status.isStartOrderMet) return undefined
  if (view.tasksOfWorkload(workload.id).length > 0) return []
  return parseStartAfter(label).flatMap(({ name, condition, isRequired }) => {
    const [other] = view.byName('workload', name, workload.namespace)
    if (!other) {
      return isRequired ? [{ name, because: `it waits for ${name}, which is not there` }] : []
    }
    const { done, wanted } = progressOf(view, other, condition)
    if (done >= wanted) return []
    const goal = condition === 'completed' ? 'complete' : `be ${condition}`
    const error = lastErrorOf(view.tasksOfWorkload(other.id))
    const why = error === undefined ? '' : `; its last task said: ${error}`
    return [{ name, because: `it waits for ${name} to ${goal}: ${done} of ${wanted}${why}` }]
  })
}

function progressOf(
  view: Pick<View, 'tasksOfWorkload'>,
  { id, spec }: Workload,
  condition: StartCondition,
): { readonly done: number; readonly wanted: number } {
  const { mode, jobIteration } = spec
  const tasks = view
    .tasksOfWorkload(id)
    .filter((task) => !isJob(spec) || (task.jobIteration ?? 0) === jobIteration)
  const places = new Set(tasks.map(placeOf)).size
  const wanted =
    mode.type === 'replicated'
      ? mode.replicas
      : mode.type === 'replicatedJob'
        ? mode.totalCompletions
        : Math.max(1, places)
  const done = new Set(tasks.filter((task) => isThere(task, condition)).map(placeOf)).size
  // Of a job that has begun nobody waits for all of it to run at once.
  return { done, wanted: isJob(spec) && condition !== 'completed' ? Math.min(1, wanted) : wanted }
}

function placeOf({ slot, pinnedNodeId, id }: Task): string {
  return `${slot ?? pinnedNodeId ?? id}`
}

function isThere({ status }: Task, condition: StartCondition): boolean {
  if (status.state === 'complete') return true
  if (isTerminal(status.state) || condition === 'completed') return false
  return condition === 'healthy'
    ? status.state === 'running' && status.ready
    : rankOf(status.state) >= rankOf('starting')
}

function lastErrorOf(tasks: readonly Task[]): string | undefined {
  return tasks.findLast(({ status }) => status.error !== undefined && status.error !== '')?.status
    .error
}
