import type { Cluster, Config, Secret } from './cluster.ts'
import type { Endpoint } from './endpoint.ts'
import type { Network } from './network.ts'
import type { ClusterNode } from './node.ts'
import type { Task } from './task.ts'
import type { Revision, Workload } from './workload.ts'

export interface ObjectByKind {
  readonly cluster: Cluster
  readonly node: ClusterNode
  readonly workload: Workload
  readonly revision: Revision
  readonly task: Task
  readonly endpoint: Endpoint
  readonly network: Network
  readonly secret: Secret
  readonly config: Config
}
export type Kind = keyof ObjectByKind
export type AnyObject = ObjectByKind[Kind]

export const kinds: readonly Kind[] = [
  'cluster',
  'node',
  'workload',
  'revision',
  'task',
  'endpoint',
  'network',
  'secret',
  'config',
]

/** Kinds whose name (per namespace, ignoring case) belongs to one object only. */
export const uniquelyNamedKinds: ReadonlySet<Kind> = new Set([
  'cluster',
  'workload',
  'endpoint',
  'network',
  'secret',
  'config',
])
