export type { CallOptions, EtcdClient, EtcdErrorReason, EtcdMember, EtcdStatus } from './client.ts'
export {
  type Candidate,
  type Election,
  type ElectionOptions,
  type Leader,
  type Leadership,
  openElection,
} from './election.ts'
export {
  type EtcdStore,
  type EtcdStoreOptions,
  OutcomeUnknownError,
  openEtcdStore,
} from './etcd-store.ts'
export { type GatewayClientOptions, openGatewayClient } from './gateway-client.ts'
export { type MigrationOptions, migrateToEtcd } from './migrate.ts'
