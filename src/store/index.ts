export { type DataRootLock, lockDataRoot } from './data-root-lock.ts'
export { type MemoryStoreOptions, openMemoryStore } from './memory-store.ts'
export { nextCommit } from './next-commit.ts'
export { type Batch, PersistError, type Persistence, type Snapshot } from './persistence.ts'
export type { ValueKey } from './sealed-values.ts'
export {
  openSqliteStore,
  readStoredClusterId,
  restoreSqliteStore,
  type SqliteStoreOptions,
} from './sqlite-store.ts'
export { commitSizeMax } from './staging.ts'
export {
  type AppliedChange,
  type Change,
  type Commit,
  type CommitOptions,
  changesPerCommitMax,
  type LeaderEpoch,
  objectSizeMax,
  type Store,
  type View,
} from './store.ts'
export {
  charactersQueuedMax,
  commitsQueuedMax,
  StoreCore,
  type StoreCoreOptions,
} from './store-core.ts'
export { plainValues, sealedValues, type ValueCodec } from './value-codec.ts'
