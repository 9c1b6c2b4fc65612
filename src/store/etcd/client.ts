/**
 * What we ask of etcd, in our own words. Two implementations pass one suite (`client-contract.ts`): the JSON gateway of
 * a real cluster, and a simulated cluster. Every read is linearizable. Keys are ASCII, values are text.
 *
 * No call is repeated once a member may have taken it, but reads: whoever wants a write done exactly once makes it so
 * that it can be asked for twice (see `EtcdStore`).
 */
export interface EtcdClient {
  txn(txn: Txn, options?: CallOptions): Promise<TxnResult>
  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult>
  /**
   * Changes of a range of keys, in order, each once, the changes of one transaction never torn apart. Yields a batch
   * without events as soon as the watch stands and now and then as a sign of life, else one per group of changes. Ends when `signal` aborts;
   * throws EtcdError when the link breaks, or `compacted` when `fromRevision` is no longer there. It is never resumed
   * by itself: watch again from the last seen revision + 1.
   */
  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchBatch>
  /** `ttlSeconds` is a whole number. etcd may grant longer than asked (its election timeout times 1.5 at least). */
  leaseGrant(ttlSeconds: number, options?: CallOptions): Promise<Lease>
  /** Puts the whole time back on a lease. Throws `leaseNotFound` when it has ended. */
  leaseKeepAlive(leaseId: string, options?: CallOptions): Promise<Lease>
  /** Ends a lease with its keys. Throws `leaseNotFound` when it has ended before. */
  leaseRevoke(leaseId: string, options?: CallOptions): Promise<void>
  /** Forgets all history before the revision. One that was compacted already is no error. */
  compact(revision: number, options?: CallOptions): Promise<void>
  memberList(options?: CallOptions): Promise<readonly EtcdMember[]>
  /** A learner takes part in nothing but receiving the log, and so can't cost the quorum. etcd allows one at a time. */
  memberAdd(
    request: { readonly peerUrls: readonly string[]; readonly learner: boolean },
    options?: CallOptions,
  ): Promise<EtcdMember>
  /** Makes a learner a voter. Throws `refused` while it is not up to date. */
  memberPromote(memberId: string, options?: CallOptions): Promise<void>
  memberRemove(memberId: string, options?: CallOptions): Promise<void>
  memberUpdate(memberId: string, peerUrls: readonly string[], options?: CallOptions): Promise<void>
  /** Of the member behind one endpoint: the one in use if none is named. Answers also without quorum. */
  status(options?: CallOptions & { readonly endpoint?: string }): Promise<EtcdStatus>
  /** The whole data of one member, as `etcdctl snapshot save` writes it. */
  snapshot(signal: AbortSignal): AsyncIterable<Uint8Array>
  /** Hands leadership of etcd's own raft group to another voter. Goes to the member that leads now by itself. */
  moveLeader(toMemberId: string, options?: CallOptions): Promise<void>
  /** Where members answer, best first. Taken from the next call on; calls and watches under way stay where they are. */
  useEndpoints(endpoints: readonly string[]): void
  /** Leaves the endpoint in use for the next one: when it is known to answer, but from the past. */
  avoidEndpoint(): void
  /** Ends all calls and watches under way. */
  close(): Promise<void>
}

export interface CallOptions {
  readonly signal?: AbortSignal
  /** Longest wait for an answer, all attempts together, in ms. Default `callDeadlineMs`. */
  readonly deadlineMs?: number
}

/** Default of `CallOptions.deadlineMs`: an election of etcd's with some time to spare. */
export const callDeadlineMs = 5_000

export interface KeyValue {
  readonly key: string
  readonly value: string
  readonly createRevision: number
  /** Revision of the last change. */
  readonly modRevision: number
  /** Changes since it was made, that one included. */
  readonly version: number
  /** Its lease, where it has one. */
  readonly leaseId?: string
}

/** One condition. A key that is not there has the revision 0, and no value. */
export type Compare =
  | {
      readonly key: string
      readonly target: 'modRevision' | 'createRevision' | 'version'
      readonly is: '=' | '!=' | '<' | '>'
      readonly to: number
    }
  | {
      readonly key: string
      readonly target: 'value'
      readonly is: '=' | '!='
      readonly to: string
    }

export type Op =
  | {
      readonly type: 'put'
      readonly key: string
      readonly value: string
      readonly leaseId?: string
    }
  /** Without `end`: that key alone. With it: all keys from `key` up to, not including, `end`. */
  | { readonly type: 'delete'; readonly key: string; readonly end?: string }
  | ({ readonly type: 'range' } & RangeRequest)

/** All of `apply` if all of `when` holds, else all of `otherwise`. No key may be written twice. */
export interface Txn {
  readonly when: readonly Compare[]
  readonly apply: readonly Op[]
  readonly otherwise?: readonly Op[]
}

export interface TxnResult {
  readonly succeeded: boolean
  /** Of the whole cluster after the transaction. */
  readonly revision: number
  /** One per operation of the branch taken. */
  readonly results: readonly OpResult[]
}

export type OpResult =
  | { readonly type: 'put' }
  | { readonly type: 'delete'; readonly deleted: number }
  | { readonly type: 'range'; readonly kvs: readonly KeyValue[]; readonly more: boolean }

export interface RangeRequest {
  readonly key: string
  readonly end?: string
  readonly limit?: number
  readonly keysOnly?: boolean
  /** As of then. Throws `compacted` when that is no longer there. Ignored inside a transaction. */
  readonly revision?: number
}

export interface RangeResult {
  /** Of the whole cluster when it was read. */
  readonly revision: number
  /** In order of keys (bytewise). */
  readonly kvs: readonly KeyValue[]
  /** Whether `limit` cut it short. */
  readonly more: boolean
}

export interface WatchRequest {
  readonly key: string
  readonly end?: string
  /** The first revision of interest. */
  readonly fromRevision: number
}

export interface WatchBatch {
  /** The last revision whose changes have been yielded, these included: watch again from the next one. */
  readonly revision: number
  readonly events: readonly WatchEvent[]
}

export type WatchEvent =
  | { readonly type: 'put'; readonly kv: KeyValue }
  | { readonly type: 'delete'; readonly key: string; readonly modRevision: number }

export interface Lease {
  readonly leaseId: string
  readonly ttlSeconds: number
}

export interface EtcdMember {
  readonly memberId: string
  /** Empty until the member has started for the first time. */
  readonly name: string
  readonly peerUrls: readonly string[]
  readonly clientUrls: readonly string[]
  readonly learner: boolean
}

export interface EtcdStatus {
  readonly memberId: string
  /** Absent while there is no leader: no quorum, or an election. */
  readonly leaderId?: string
  readonly version: string
  readonly revision: number
  readonly raftTerm: number
  readonly raftIndex: number
  readonly dbBytes: number
  readonly learner: boolean
  /** Alarms and the like, in etcd's words. */
  readonly errors: readonly string[]
}

/**
 * - `unavailable`: not done, surely: no member could be reached.
 * - `outcomeUnknown`: no answer in time, or the link broke: it may have been done, or may be yet.
 * - `compacted`: the revision asked for is no longer there.
 * - `leaseNotFound`, `memberNotFound`: it is not there.
 * - `tooLarge`: over a limit that etcd was started with.
 * - `noSpace`: over the quota of its database.
 * - `refused`: etcd does not do that, now or ever; the message says why.
 * - `cancelled`: the caller's signal.
 */
export type EtcdErrorReason =
  | 'unavailable'
  | 'outcomeUnknown'
  | 'compacted'
  | 'leaseNotFound'
  | 'memberNotFound'
  | 'tooLarge'
  | 'noSpace'
  | 'refused'
  | 'cancelled'

export class EtcdError extends Error {
  override readonly name = 'EtcdError'
  readonly reason: EtcdErrorReason
  constructor(reason: EtcdErrorReason, message: string, options: { cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.reason = reason
  }
}

/** The end of the range of all keys that begin with the prefix (which ends in an ASCII character). */
export function prefixEnd(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)
}

const rangePageMax = 500

/** All of a range as of one revision, in pages, so that no answer gets large. */
export async function rangeAll(
  client: EtcdClient,
  request: { readonly key: string; readonly end: string; readonly keysOnly?: boolean },
  options: CallOptions & { readonly pageMax?: number } = {},
): Promise<RangeResult> {
  const { pageMax = rangePageMax, ...call } = options
  const first = await client.range({ ...request, limit: pageMax }, call)
  const kvs = [...first.kvs]
  let { more } = first
  while (more) {
    const key = `${kvs.at(-1)?.key ?? request.key}\0`
    const page = await client.range(
      { ...request, key, limit: pageMax, revision: first.revision },
      call,
    )
    for (const kv of page.kvs) kvs.push(kv)
    more = page.more
  }
  return { revision: first.revision, kvs, more: false }
}
