import {
  type GenericResource,
  isLive,
  isTerminal,
  type NodeId,
  type Reservations,
  rankOf,
  type Task,
  type WorkloadId,
} from '../model/index.ts'
import type { Change, View } from '../store/store.ts'
import { Plan } from './actions.ts'
import { taskChanges } from './changes.ts'
import { decideLeftovers } from './reaper.ts'
import { nodesOf } from './slice.ts'

export interface Housekeeping {
  readonly changes: readonly Change[]
  readonly wakeAtMs?: number
}

/** The tasks and revisions of a workload that no longer exists. Nothing for one that does. O(its tasks). */
export function decideOrphans(view: View, id: WorkloadId, nowMs: number): Housekeeping {
  if (view.get('workload', id)) return { changes: [] }
  const tasks = view.tasksOfWorkload(id)
  const plan = new Plan()
  decideLeftovers(tasks, nodesOf(view), id, nowMs, plan)
  const { actions, wakeAtMs } = plan.decision()
  const changes = [...taskChanges(tasks, actions, nowMs)]
  // A task that still has to stop is stopped by what its revision says, so that goes last.
  if (tasks.length === 0)
    for (const revision of view.revisionsOfWorkload(id)) {
      const { kind, version } = revision
      changes.push({ type: 'delete', kind, id: revision.id, version })
    }
  return wakeAtMs === undefined ? { changes } : { changes, wakeAtMs }
}

/**
 * The enforcer of resources: when a node shrank below what its tasks reserve, or lost a named resource one of them
 * holds, the newest of them have to go, just as many as needed. Their workloads then replace them. O(the node's tasks).
 */
export function decideNode(view: View, id: NodeId): Housekeeping {
  const node = view.get('node', id)
  if (node?.status.state !== 'ready' || node.spec.availability !== 'active') return { changes: [] }
  const holders = view.tasksOfNode(id).filter((task) => !isTerminal(task.status.state))
  const { nanoCpus, memoryBytes, generic } = node.description.resources
  const changes: Change[] = []
  let cpusLeft = nanoCpus
  let memoryLeft = memoryBytes
  const countLeft = new Map(generic.map(({ kind, value }) => [kind, value]))
  const namesLeft = new Map(generic.map(({ kind, names }) => [kind, new Set(names)]))
  for (const task of holders) {
    const reserved = reservationsOf(view, task)
    if (!reserved) continue
    const fits =
      (reserved.nanoCpus === 0 || reserved.nanoCpus <= cpusLeft) &&
      (reserved.memoryBytes === 0 || reserved.memoryBytes <= memoryLeft) &&
      task.genericResources.every((held) => isThere(held, countLeft, namesLeft))
    if (fits || !isLive(task) || rankOf(task.status.state) < rankOf('assigned')) {
      cpusLeft -= reserved.nanoCpus
      memoryLeft -= reserved.memoryBytes
      for (const { kind, value } of task.genericResources)
        countLeft.set(kind, (countLeft.get(kind) ?? 0) - value)
      continue
    }
    const desiredBecause = `node ${node.name} no longer has the resources it reserved`
    changes.push({ type: 'update', object: { ...task, desiredState: 'shutdown', desiredBecause } })
  }
  return { changes }
}

function reservationsOf(view: View, task: Task): Reservations | undefined {
  const { nanoCpus, memoryBytes, generic } =
    view.get('revision', task.revisionId)?.template.reservations ?? {}
  if (!nanoCpus && !memoryBytes && !generic?.length) return undefined
  return { nanoCpus: nanoCpus ?? 0, memoryBytes: memoryBytes ?? 0, generic: generic ?? [] }
}

function isThere(
  { kind, value, names }: GenericResource,
  countLeft: ReadonlyMap<string, number>,
  namesLeft: ReadonlyMap<string, ReadonlySet<string>>,
): boolean {
  if (names && names.length > 0)
    return names.every((name) => namesLeft.get(kind)?.has(name) ?? false)
  return (countLeft.get(kind) ?? 0) >= value
}
