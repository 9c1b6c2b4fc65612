export { type ClusterDeclaration, clusterOf } from './cluster.ts'
export { type Control, openControl } from './control.ts'
export { findObject, lookUp } from './lookup.ts'
export { initialNetworks, type NetworkDeclaration } from './networks.ts'
export type {
  InitRequest,
  JoinRequest,
  NodeControl,
  NodeState,
  TokenRotation,
  TokenSummary,
  TokenWish,
} from './node-control.ts'
export type { NodeDeclaration } from './nodes.ts'
export { nameOfTask, pickTask, type RunningTask } from './pick-task.ts'
export { decideQuorum, quorumOf } from './quorum.ts'
export type { ConfigDeclaration, SecretDeclaration } from './secrets.ts'
export { templateHash } from './template-hash.ts'
export type {
  RegistryAuth,
  RollbackRequest,
  WorkloadDeclaration,
  WorkloadUpdate,
} from './workloads.ts'
export type { ControlWorld, Sealer } from './world.ts'
