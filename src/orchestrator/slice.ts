import type {
  ClusterNode,
  ClusterSpec,
  Endpoint,
  NodeId,
  Revision,
  RevisionId,
  Task,
  Workload,
  WorkloadId,
} from '../model/index.ts'
import type { View } from '../store/store.ts'
import { observeStartOrder, type Wait } from './start-order.ts'

/** The cluster's nodes, looked up one by one; only one-per-node workloads go through all. */
export interface NodeSet {
  get(id: NodeId): ClusterNode | undefined
  all(): Iterable<ClusterNode>
}

/** Everything one workload's decisions look at. Built from a view by `observeWorkload`. */
export interface WorkloadSlice {
  readonly workload: Workload
  readonly revisions: ReadonlyMap<RevisionId, Revision>
  /** In order of creation. */
  readonly tasks: readonly Task[]
  readonly nodes: NodeSet
  readonly cluster: ClusterSpec | undefined
  /** Those that have the workload as a backend. */
  readonly endpoints: readonly Endpoint[]
  /** Its tasks get traffic: an update waits for `traffic`, not for readiness alone. */
  readonly hasEndpoint: boolean
  /** What its first task waits for; absent when no start order counts any more. */
  readonly startOrder?: readonly Wait[]
}

/** What the view knows of one workload, or `undefined` when there is no such workload. O(its tasks). */
export function observeWorkload(view: View, id: WorkloadId): WorkloadSlice | undefined {
  const workload = view.get('workload', id)
  if (!workload) return undefined
  const endpoints = view.endpointsOfWorkload(id)
  const startOrder = observeStartOrder(view, workload)
  return {
    workload,
    revisions: new Map(view.revisionsOfWorkload(id).map((revision) => [revision.id, revision])),
    tasks: view.tasksOfWorkload(id),
    nodes: nodesOf(view),
    cluster: clusterSpecOf(view),
    endpoints,
    hasEndpoint: endpoints.some(
      ({ spec }) =>
        spec.networks.length > 0 || spec.ports.some(({ publishMode }) => publishMode === 'ingress'),
    ),
    ...(startOrder && { startOrder }),
  }
}

export function nodesOf(view: View): NodeSet {
  return { get: (id) => view.get('node', id), all: () => view.list('node') }
}

/** Each node as it is when it is first asked for: for a decision in parts, which has to see the same one every time. */
export function nodesAsFirstSeen(nodes: NodeSet): NodeSet {
  const seen = new Map<NodeId, ClusterNode | undefined>()
  const get = (id: NodeId): ClusterNode | undefined => {
    const known = seen.get(id)
    if (known !== undefined || seen.has(id)) return known
    const node = nodes.get(id)
    seen.set(id, node)
    return node
  }
  return {
    get,
    *all() {
      for (const node of nodes.all()) yield get(node.id) ?? node
    },
  }
}

export function clusterSpecOf(view: View): ClusterSpec | undefined {
  for (const { spec } of view.list('cluster')) return spec
  return undefined
}
