import {
  type ClusterNode,
  isStopWanted,
  isTerminal,
  type NodeId,
  type Revision,
  type Task,
  type TaskId,
  type WorkloadId,
} from '../model/index.ts'
import { placementFits } from '../model/placement.ts'
import type { View } from '../store/store.ts'

/** What a node carries. Planned moves change it. */
export interface Carried {
  readonly node: ClusterNode
  nanoCpus: number
  memoryBytes: number
  tasks: number
  readonly hostPorts: Set<string>
  readonly generic: Map<string, number>
}

/** The nodes and what they carry, for plans of moves: as it will be after those planned so far. O(all tasks) to make. */
export class Floor {
  readonly #view: View
  readonly #carried = new Map<NodeId, Carried>()
  readonly #nodeOf = new Map<TaskId, NodeId>()

  constructor(view: View) {
    this.#view = view
    for (const node of view.list('node')) {
      this.#carried.set(node.id, {
        node,
        nanoCpus: 0,
        memoryBytes: 0,
        tasks: 0,
        hostPorts: new Set(),
        generic: new Map(),
      })
    }
    for (const task of view.list('task')) {
      if (task.nodeId === undefined || isTerminal(task.status.state)) continue
      this.#nodeOf.set(task.id, task.nodeId)
      this.#add(this.#carried.get(task.nodeId), task, 1)
    }
  }

  get all(): readonly Carried[] {
    return [...this.#carried.values()]
  }

  /** Where a task is, planned moves included. */
  at(task: Task): Carried | undefined {
    const id = this.#nodeOf.get(task.id)
    return id === undefined ? undefined : this.#carried.get(id)
  }

  move(task: Task, to: Carried): void {
    this.#add(this.at(task), task, -1)
    this.#add(to, task, 1)
    this.#nodeOf.set(task.id, to.node.id)
  }

  /** Nodes that take tasks and meet the revision's placement, whatever is free there. */
  candidates(revision: Revision): readonly Carried[] {
    return this.all.filter(
      ({ node }) =>
        node.status.state === 'ready' &&
        node.spec.availability === 'active' &&
        placementFits(node, revision.template.placement),
    )
  }

  /** Whether one of the workload's `tasks` has room there, as a task of the revision. */
  hasRoom(to: Carried, revision: Revision, tasks: readonly Task[], moving: Task): boolean {
    const { reservations, placement } = revision.template
    const { resources } = to.node.description
    const { nanoCpus, memoryBytes } = reservations
    if (nanoCpus > 0 && to.nanoCpus + nanoCpus > resources.nanoCpus) return false
    if (memoryBytes > 0 && to.memoryBytes + memoryBytes > resources.memoryBytes) return false
    for (const { kind, value } of reservations.generic) {
      const has = resources.generic.find((one) => one.kind === kind)?.value ?? 0
      if ((to.generic.get(kind) ?? 0) + value > has) return false
    }
    for (const port of hostPortsOf(this.#view, revision.workloadId))
      if (to.hostPorts.has(port)) return false
    const most = placement.maxReplicasPerNode
    return (
      most === 0 || tasks.filter((one) => one.id !== moving.id && this.at(one) === to).length < most
    )
  }

  #add(carried: Carried | undefined, task: Task, sign: 1 | -1): void {
    if (!carried) return
    const reserved = this.#view.get('revision', task.revisionId)?.template.reservations
    carried.nanoCpus += sign * (reserved?.nanoCpus ?? 0)
    carried.memoryBytes += sign * (reserved?.memoryBytes ?? 0)
    // As the scheduler counts: what is stopping holds its reservations, and is no task to even out any more.
    if (!isStopWanted(task)) carried.tasks += sign
    for (const { kind, value } of reserved?.generic ?? [])
      carried.generic.set(kind, (carried.generic.get(kind) ?? 0) + sign * value)
    for (const port of hostPortsOf(this.#view, task.workloadId))
      if (sign > 0) carried.hostPorts.add(port)
      else carried.hostPorts.delete(port)
  }
}

/** The larger of the shares of CPUs and memory that are reserved. */
export function shareOf({ node, nanoCpus, memoryBytes }: Carried): number {
  const { resources } = node.description
  return Math.max(
    resources.nanoCpus > 0 ? nanoCpus / resources.nanoCpus : 0,
    resources.memoryBytes > 0 ? memoryBytes / resources.memoryBytes : 0,
  )
}

/** Orders nodes by what they carry, lightest first: by reserved share, then by count of tasks. */
export function compareLoad(a: Carried, b: Carried): number {
  return shareOf(a) - shareOf(b) || a.tasks - b.tasks
}

function hostPortsOf(view: View, id: WorkloadId): readonly string[] {
  return view
    .endpointsOfWorkload(id)
    .flatMap(({ spec }) =>
      spec.ports.flatMap(({ publishMode, publishedPort, protocol }) =>
        publishMode === 'host' && publishedPort !== 0 ? [`${publishedPort}/${protocol}`] : [],
      ),
    )
}
