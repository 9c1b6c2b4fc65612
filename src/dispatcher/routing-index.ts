import { isDeepEqual } from '../base/index.ts'
import type {
  Endpoint,
  EndpointId,
  Network,
  NetworkId,
  NodeId,
  Task,
  TaskId,
  Workload,
  WorkloadId,
} from '../model/index.ts'
import type { AppliedChange, View } from '../store/store.ts'
import { isPublished } from './assignments.ts'

/** An endpoint that may not be as nodes were told; with `taskId`: only whether that task is behind it. */
export interface RoutingChange {
  readonly id: EndpointId
  readonly taskId?: TaskId
}

const noChanges: readonly RoutingChange[] = []
const noNetworks: ReadonlySet<NetworkId> = new Set()

/**
 * What sessions ask for again and again, derived from the view and kept up to date by changes, so that a message to a
 * node costs what is in it: which endpoints every node routes to, who has plain containers where, and how many tasks of a
 * workload take traffic.
 */
export class RoutingIndex {
  readonly #view: View
  readonly #published = new Set<EndpointId>()
  /** Of the workloads that were asked for: to count all tasks would hold a new leader up. */
  readonly #routableByWorkload = new Map<WorkloadId, number>()
  readonly #attachedByNode = new Map<NodeId, Set<NetworkId>>()

  private constructor(view: View) {
    this.#view = view
  }

  static from(view: View): RoutingIndex {
    const index = new RoutingIndex(view)
    for (const kind of ['endpoint', 'network'] as const) {
      for (const after of view.list(kind)) index.learn({ kind, id: after.id, after })
    }
    return index
  }

  /** Endpoints that every node routes to. */
  get published(): ReadonlySet<EndpointId> {
    return this.#published
  }

  /** Networks on which a node has plain containers. */
  attachedNetworks(nodeId: NodeId): ReadonlySet<NetworkId> {
    return this.#attachedByNode.get(nodeId) ?? noNetworks
  }

  /** Whether another task of the workload takes connections. Not to be asked while a commit is being learned. */
  hasOtherRoutable({ workloadId, traffic }: Task): boolean {
    let count = this.#routableByWorkload.get(workloadId)
    if (count === undefined) {
      count = 0
      for (const task of this.#view.tasksOfWorkload(workloadId))
        if (task.traffic === 'routable') count += 1
      this.#routableByWorkload.set(workloadId, count)
    }
    return count > (traffic === 'routable' ? 1 : 0)
  }

  /** Takes a change in, in order, once it is in the view. Answers which endpoints may not be as nodes were told. */
  learn({ kind, before, after }: AppliedChange): readonly RoutingChange[] {
    switch (kind) {
      case 'task':
        return this.#learnTask(
          before?.kind === 'task' ? before : undefined,
          after?.kind === 'task' ? after : undefined,
        )
      case 'endpoint':
        return this.#learnEndpoint(
          before?.kind === 'endpoint' ? before : undefined,
          after?.kind === 'endpoint' ? after : undefined,
        )
      case 'workload':
        return this.#learnWorkload(
          before?.kind === 'workload' ? before : undefined,
          after?.kind === 'workload' ? after : undefined,
        )
      case 'network':
        this.#attach(before?.kind === 'network' ? before : undefined, false)
        this.#attach(after?.kind === 'network' ? after : undefined, true)
        return noChanges
      default:
        return noChanges
    }
  }

  #learnTask(before: Task | undefined, after: Task | undefined): readonly RoutingChange[] {
    const workloadId = (after ?? before)?.workloadId
    // A workload that is gone is forgotten with the last of its tasks.
    if (workloadId !== undefined && !after && !this.#view.get('workload', workloadId))
      this.#routableByWorkload.delete(workloadId)
    const wasRoutable = before?.traffic === 'routable'
    const isRoutable = after?.traffic === 'routable'
    // Only routable tasks are in the sets, so other news of a task is none to those who route to it.
    if (workloadId === undefined || wasRoutable === isRoutable) return noChanges
    this.#countRoutable(workloadId, isRoutable ? 1 : -1)
    const taskId = (after ?? before)?.id
    return this.#view
      .endpointsOfWorkload(workloadId)
      .map(({ id }) => (taskId === undefined ? { id } : { id, taskId }))
  }

  #countRoutable(workloadId: WorkloadId, by: 1 | -1): void {
    const count = this.#routableByWorkload.get(workloadId)
    if (count !== undefined) this.#routableByWorkload.set(workloadId, count + by)
  }

  #learnEndpoint(
    before: Endpoint | undefined,
    after: Endpoint | undefined,
  ): readonly RoutingChange[] {
    const id = (after ?? before)?.id
    if (id === undefined) return noChanges
    if (after && isPublished(after)) this.#published.add(id)
    else this.#published.delete(id)
    if (before && after && isSameRouting(before, after)) return noChanges
    return [{ id }]
  }

  /** Tasks bear its name. */
  #learnWorkload(
    before: Workload | undefined,
    after: Workload | undefined,
  ): readonly RoutingChange[] {
    const id = (after ?? before)?.id
    if (id === undefined || before?.name === after?.name) return noChanges
    return this.#view.endpointsOfWorkload(id).map((endpoint) => ({ id: endpoint.id }))
  }

  #attach(network: Network | undefined, isThere: boolean): void {
    for (const { nodeId } of network?.status.attachments ?? []) {
      if (network === undefined) return
      const networks = this.#attachedByNode.get(nodeId)
      if (isThere) {
        if (networks) networks.add(network.id)
        else this.#attachedByNode.set(nodeId, new Set([network.id]))
      } else {
        networks?.delete(network.id)
        if (networks?.size === 0) this.#attachedByNode.delete(nodeId)
      }
    }
  }
}

function isSameRouting(a: Endpoint, b: Endpoint): boolean {
  return a.name === b.name && isDeepEqual(a.spec, b.spec) && isDeepEqual(a.status, b.status)
}
