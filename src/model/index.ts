export type { Cluster, ClusterSpec, ClusterStatus, Config, Secret } from './cluster.ts'
export type { Endpoint, EndpointSpec, EndpointStatus, PortSpec, Protocol } from './endpoint.ts'
export {
  type ClusterId,
  type ConfigId,
  type EndpointId,
  type Id,
  idFrom,
  mintId,
  type NetworkId,
  type NodeId,
  type RevisionId,
  type SecretId,
  type TaskId,
  type WorkloadId,
} from './ids.ts'
export { type AnyObject, type Kind, kinds, type ObjectByKind, uniquelyNamedKinds } from './kinds.ts'
export type { Network, NetworkAttachment, NetworkSpec, NetworkStatus } from './network.ts'
export type { Availability, ClusterNode, NodeDescription, NodeRole, NodeStatus } from './node.ts'
export { defaultNamespace, type ObjectMeta, type Source } from './object.ts'
export { matchesConstraints, placementFits } from './placement.ts'
export { withRevision } from './revision.ts'
export {
  acceptStatus,
  type ContainerStatus,
  type DesiredState,
  type HostPort,
  holdsResources,
  isLive,
  isStopWanted,
  isTerminal,
  noRestarts,
  type RestartRecord,
  rankOf,
  restartTimesMax,
  type Task,
  type TaskAddress,
  type TaskState,
  type TaskStatus,
  type Traffic,
} from './task.ts'
export type {
  Constraint,
  ContainerSpec,
  CredentialReference,
  DeclaredWorkload,
  FileReference,
  GenericResource,
  HealthCheck,
  Limits,
  Mount,
  NetworkAttachmentSpec,
  NodeLossPolicy,
  Placement,
  Platform,
  Privileges,
  Reservations,
  RestartPolicy,
  Revision,
  Sealed,
  TaskTemplate,
  UpdatePolicy,
  UpdateStatus,
  Workload,
  WorkloadMode,
  WorkloadSpec,
  WorkloadStatus,
} from './workload.ts'
