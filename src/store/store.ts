import type {
  AnyObject,
  Kind,
  NetworkId,
  NodeId,
  ObjectByKind,
  WorkloadId,
} from '../model/index.ts'

/**
 * The indexed in-memory picture of everything durable. It changes only between turns of the event loop, so a
 * synchronous function sees one consistent state; after an `await`, look again. Objects are never mutated: a
 * change replaces the object, so a kept reference is a snapshot of it.
 */
export interface View {
  /**
   * Grows with commits; those that were stored together may share one. Objects carry the one that changed them as
   * `version`.
   */
  readonly revision: number
  get<K extends Kind>(kind: K, id: string): ObjectByKind[K] | undefined
  /** In order of creation. */
  list<K extends Kind>(kind: K): Iterable<ObjectByKind[K]>
  count(kind: Kind): number
  /** Ignores case. At most one for uniquely named kinds. Without a namespace: in the default one. */
  byName<K extends Kind>(kind: K, name: string, namespace?: string): readonly ObjectByKind[K][]
  tasksOfWorkload(id: WorkloadId): readonly ObjectByKind['task'][]
  tasksOfNode(id: NodeId): readonly ObjectByKind['task'][]
  /** Tasks with an address on the network. */
  tasksOnNetwork(id: NetworkId): readonly ObjectByKind['task'][]
  revisionsOfWorkload(id: WorkloadId): readonly ObjectByKind['revision'][]
  /** Endpoints that have the workload as a backend. */
  endpointsOfWorkload(id: WorkloadId): readonly ObjectByKind['endpoint'][]
  /** Endpoints that are on the network or have a VIP there (published ports: on the ingress network). */
  endpointsOnNetwork(id: NetworkId): readonly ObjectByKind['endpoint'][]
}

/**
 * One change. The store sets `version`, `updatedAtMs`, on creation `createdAtMs`, and `specVersion` on creation and
 * where `specChanged` says so; what the caller put there is ignored. An `update` and a `delete` name the version they
 * were decided on: `object.version` of what was read.
 */
export type Change =
  | { readonly type: 'create'; readonly object: AnyObject }
  | { readonly type: 'update'; readonly object: AnyObject; readonly specChanged?: boolean }
  | { readonly type: 'delete'; readonly kind: Kind; readonly id: string; readonly version: number }

export interface CommitOptions {
  /** Leader epoch: the commit fails with `outOfSequence` unless it is the current one. */
  readonly fence?: number
  /**
   * Revision of the view that references and conflicts across objects were checked on: the commit fails with
   * `outOfSequence` when another one with this option, on any manager, came after it. Versions of the objects that are
   * written do not show such a race: two services may publish the same port, each an object of its own.
   */
  readonly checkedAt?: number
}

/** What one commit did, in the order it was asked for. */
export interface Commit {
  readonly revision: number
  readonly atMs: number
  readonly changes: readonly AppliedChange[]
}
export interface AppliedChange {
  readonly kind: Kind
  readonly id: string
  readonly before?: AnyObject
  readonly after?: AnyObject
}

export interface Store {
  readonly view: View
  /**
   * Applies all changes or none. Resolves once they are durable and in the view.
   * Rejects with UserError: `outOfSequence` (a version or the fence is stale), `conflict` (id or unique name taken),
   * `notFound` (nothing to update or delete), `unavailable` (disk full or failing, or closed), `tooLarge`.
   */
  commit(changes: readonly Change[], options?: CommitOptions): Promise<Commit>
  /**
   * Resolves once the view has everything that was acknowledged anywhere before the call: what a read waits for.
   * Rejects with `unavailable` without a majority. Absent where there is one view, which always has.
   */
  barrier?(): Promise<void>
  /** Calls back, in order and within the turn in which the view changes, for every commit. Returns the way to stop. */
  subscribe(listener: (commit: Commit) => void): () => void
  close(): Promise<void>
}

/** Counts the leaders a store has had, so that a deposed one cannot write: see `CommitOptions.fence`. */
export interface LeaderEpoch {
  /** The current epoch: 0 before the first leader. */
  readonly epoch: number
  /** Begins the next epoch. Resolves with its number once that is durable; every older fence fails from the call on. */
  advanceEpoch(): Promise<number>
}

/** Largest JSON text of one object, in characters. */
export const objectSizeMax = 4_000_000
/** Most changes in one commit; larger plans are split by the caller. */
export const changesPerCommitMax = 2_000
