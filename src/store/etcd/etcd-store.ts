import {
  assert,
  type Clock,
  type Log,
  messageOf,
  type Random,
  UserError,
} from '../../base/index.ts'
import { type AnyObject, uniquelyNamedKinds } from '../../model/index.ts'
import { MemoryView } from '../memory-view.ts'
import { checkedTooEarly, type StagedCommit, Staging } from '../staging.ts'
import type {
  AppliedChange,
  Change,
  Commit,
  CommitOptions,
  LeaderEpoch,
  Store,
  View,
} from '../store.ts'
import { commitsQueuedMax } from '../store-core.ts'
import type { ValueCodec } from '../value-codec.ts'
import {
  type Compare,
  type EtcdClient,
  EtcdError,
  type KeyValue,
  type Op,
  prefixEnd,
  rangeAll,
  type Txn,
  type WatchEvent,
} from './client.ts'
import {
  decodeObject,
  defaultPrefix,
  encodeMeta,
  encodeObject,
  type Head,
  Layout,
  parseHead,
  parseMeta,
} from './layout.ts'

export interface EtcdStoreOptions {
  /** Ended by whoever made it, after the store. */
  readonly client: EtcdClient
  /** How objects are written. */
  readonly values: ValueCodec
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Where all keys begin. Default `/skep/`. */
  readonly prefix?: string
  /** Names this manager among the writers; one that is not shared with another. Default: a random one. */
  readonly writer?: string
  readonly freeze?: boolean
  readonly commitsQueuedMax?: number
}

/**
 * Where leaders are elected (`election.ts`), the election counts the epochs: `commit` takes `Leadership.epoch` as its
 * fence, and nobody calls `advanceEpoch`.
 */
export interface EtcdStore extends Store, LeaderEpoch {
  /**
   * Resolves once the view has every commit that was done, on any manager, before the call. Rejects with `unavailable`
   * when no majority of the managers answers. Calls at the same time share one question.
   */
  barrier(): Promise<void>
  /** Since when no majority of the managers answers; undefined while one does. Known within some seconds. */
  readonly quorumLostAtMs: number | undefined
  /** Forgets old history in etcd, now and then, until `signal` aborts: a task of the leader's. */
  keepCompacted(signal: AbortSignal): Promise<void>
}

/** Cause of an `unavailable` after which the commit may have been done, or not. */
export class OutcomeUnknownError extends Error {
  override readonly name = 'OutcomeUnknownError'
}

/**
 * Most operations in one of our transactions: what etcd has to be started with as `--max-txn-ops`. A change takes up
 * to three (the object, the name it had, the name it gets), a commit four more.
 */
export const txnOpsMax = 8_192
/** Most bytes in one of our transactions; `--max-request-bytes` has to be greater. */
export const txnBytesMax = 24_000_000

/** Longest time until a commit is known to be done or not, in ms; after that its outcome is called unknown. */
const commitDeadlineMs = 8_000
/**
 * Longest wait for the answer to one attempt, in ms. What etcd was asked while it had no leader it never answers: so
 * this is about as long as an election. To ask again is harmless, whatever became of the attempt before.
 */
const attemptMs = 600
/** The same for a large transaction. */
const largeAttemptMs = 4_000
const largeBytes = 1_000_000
/** Pause before the next attempt where nobody could be reached, in ms. */
const retryMs = 50
const retryMsMax = 500
/** How often to look whether a majority answers and the view is up to date, in ms. */
const probeMs = 1_000
const probeLostMs = 200
const probeDeadlineMs = 3_000
/** Time after which a view that is known to be behind looks for another member, in ms. */
const behindMs = 700
/** Objects in one transaction that renews the layout, and how often that begins anew because somebody else wrote. */
const layoutObjectsPerTxn = 200
const layoutRoundsMax = 5
/** History kept for watches that come back, in revisions. */
const historyKept = 2_000
const compactEveryMs = 60_000

/** A commit or a new epoch that waits for its turn. */
type Entry = { readonly reject: (error: UserError) => void } & (
  | {
      readonly type: 'commit'
      readonly changes: readonly Change[]
      readonly fence: number | undefined
      readonly checkedAt: number | undefined
      readonly resolve: (commit: Commit) => void
    }
  | { readonly type: 'epoch'; readonly resolve: (epoch: number) => void }
)

/** Entries that go to etcd in one transaction. */
interface Batch {
  readonly token: string
  readonly atMs: number
  readonly parts: readonly Part[]
  readonly txn: Txn
  readonly placeByKey: ReadonlyMap<string, number>
  readonly bytes: number
  /** Resolves when the view has it; `settled` says so. */
  readonly landed: Promise<void>
  settled: boolean
  readonly land: () => void
}

/** One entry of a batch, with what comes of it once the batch is done. */
type Part =
  | { readonly entry: Entry & { readonly type: 'commit' }; readonly staged: StagedCommit }
  | { readonly entry: Entry & { readonly type: 'epoch' }; readonly epoch: number }
  | { readonly entry: Entry; readonly refused: UserError }

interface KeyState {
  readonly modRevision: number
  readonly createRevision: number
  readonly place: number
}

/**
 * Opens the store of a cluster with several managers. Each manager has one; all have the same view, a moment apart.
 * Makes an empty store where there is none. Rejects with UserError: `unavailable` (no majority of the managers
 * answers), `internal` (written by another version).
 */
export async function openEtcdStore(options: EtcdStoreOptions): Promise<EtcdStore> {
  const store = new WatchedStore(options)
  await store.start()
  return store
}

class WatchedStore implements EtcdStore {
  readonly #client: EtcdClient
  readonly #values: ValueCodec
  readonly #clock: Clock
  readonly #log: Log
  readonly #freeze: boolean
  readonly #commitsQueuedMax: number
  readonly #layout: Layout
  readonly #writer: string
  readonly #tokenStart: string
  readonly #view = new MemoryView()
  readonly #listeners = new Set<(commit: Commit) => void>()
  readonly #stop = new AbortController()
  /** What etcd holds, as far as it was seen: what a transaction compares with. */
  readonly #objectByKey = new Map<string, KeyState>()
  readonly #nameRevisionByKey = new Map<string, number>()
  #metaRevision = 0
  #isOldLayout = false
  /** etcd's revision of the last commit that was checked across objects; 0: there was none. */
  #checkedRevision = 0
  /** Store revision = etcd's revision + this. */
  #offset = 0
  #epoch = 0
  #epochRevision = 0
  /** Everything up to here has been seen. */
  #seenRevision = 0
  #queue: Entry[] = []
  #inFlight: Batch | undefined
  #pumping = false
  #idle: (() => void) | undefined
  #closed: Promise<void> | undefined
  #tokenNext = 1
  /** Revision of our writer key, where it is known for sure. */
  #writerRevision: number | undefined
  #watchTry = new AbortController()
  #loops: Promise<void>[] = []
  readonly #behind = new Set<() => void>()
  #quorumLostAtMs: number | undefined
  /** Why the view can't follow what etcd holds. */
  #unreadable: UserError | undefined
  #refusedAtRevision: number | undefined
  #barrier: { readonly started: boolean; readonly done: Promise<void> } | undefined

  constructor(options: EtcdStoreOptions) {
    this.#client = options.client
    this.#values = options.values
    this.#clock = options.clock
    this.#log = options.log
    this.#freeze = options.freeze ?? false
    this.#commitsQueuedMax = options.commitsQueuedMax ?? commitsQueuedMax
    this.#layout = new Layout(options.prefix ?? defaultPrefix)
    const random = Array.from({ length: 12 }, () => options.random.below(36).toString(36)).join('')
    this.#writer = options.writer ?? random
    // Tokens of one process never equal those of its predecessor with the same name.
    this.#tokenStart = `${this.#writer} ${random}`
  }

  async start(): Promise<void> {
    await this.#load(commitDeadlineMs)
    if (this.#isOldLayout) await this.#renewLayout()
    this.#loops = [this.#followAll(), this.#probe()]
  }

  get view(): View {
    return this.#view
  }

  get epoch(): number {
    return this.#epoch
  }

  get quorumLostAtMs(): number | undefined {
    return this.#quorumLostAtMs
  }

  async commit(changes: readonly Change[], options: CommitOptions = {}): Promise<Commit> {
    this.#checkOpen()
    const { fence, checkedAt } = options
    const { promise, resolve, reject } = Promise.withResolvers<Commit>()
    this.#enqueue({ type: 'commit', changes, fence, checkedAt, resolve, reject })
    return promise
  }

  async advanceEpoch(): Promise<number> {
    this.#checkOpen()
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#enqueue({ type: 'epoch', resolve, reject })
    return promise
  }

  subscribe(listener: (commit: Commit) => void): () => void {
    // Wrapped, so that one function subscribed twice is two subscriptions.
    const own = (commit: Commit): void => listener(commit)
    this.#listeners.add(own)
    return () => this.#listeners.delete(own)
  }

  close(): Promise<void> {
    this.#closed ??= this.#finish()
    return this.#closed
  }

  async #finish(): Promise<void> {
    if (this.#pumping) await new Promise<void>((resolve) => (this.#idle = resolve))
    this.#stop.abort()
    this.#watchTry.abort()
    for (const wake of this.#behind) wake()
    await Promise.all(this.#loops)
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new UserError('unavailable', 'the store is closed', {
        next: 'The daemon is shutting down; try again once it is back.',
      })
    }
    if (this.#quorumLostAtMs !== undefined)
      throw noQuorum(this.#clock.nowMs() - this.#quorumLostAtMs)
    if (this.#queue.length >= this.#commitsQueuedMax) {
      throw new UserError('unavailable', 'too many changes are waiting to be stored', {
        next: 'Try again in a moment; if this stays, look at the disks and the network of the managers.',
      })
    }
  }

  // Reading

  /** Reads everything, and tells listeners what changed since the view was last up to date. */
  async #load(deadlineMs: number): Promise<void> {
    const { prefix } = this.#layout
    const untilMs = this.#clock.nowMs() + deadlineMs
    for (;;) {
      const leftMs = Math.max(1, untilMs - this.#clock.nowMs())
      try {
        const { kvs, revision } = await rangeAll(
          this.#client,
          { key: prefix, end: prefixEnd(prefix) },
          { signal: this.#stop.signal, deadlineMs: Math.min(leftMs, probeDeadlineMs) },
        )
        // The watch may have got further meanwhile.
        if (revision < this.#seenRevision) continue
        if (kvs.some((kv) => kv.key === this.#layout.meta)) {
          this.#take(kvs, revision)
          this.#noteQuorum()
          return
        }
        // Nothing there yet. Whoever makes it first, makes it for all.
        await this.#client.txn(
          {
            when: [{ key: this.#layout.meta, target: 'modRevision', is: '=', to: 0 }],
            apply: [{ type: 'put', key: this.#layout.meta, value: encodeMeta(0) }],
          },
          { signal: this.#stop.signal, deadlineMs: attemptMs },
        )
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error
        if (this.#stop.signal.aborted || this.#clock.nowMs() >= untilMs) {
          throw noQuorum(deadlineMs, error)
        }
        this.#log.debug('etcd could not be read', { error: messageOf(error) })
        await this.#clock.sleep(retryMs, this.#stop.signal)
      }
    }
  }

  /**
   * Writes every object as it is written now, with the version it has, and then the layout's version. Before the watch
   * begins, which tells of all that as of another manager's commits. What can't be done is left to the next start: both
   * layouts can be read.
   */
  async #renewLayout(): Promise<void> {
    const layout = this.#layout
    const call = { signal: this.#stop.signal, deadlineMs: largeAttemptMs }
    const token = `${this.#tokenStart} layout`
    try {
      for (let round = 1; round <= layoutRoundsMax; round++) {
        const puts: { readonly when: Compare; readonly put: Op & { readonly type: 'put' } }[] = []
        for (const [key, { place, modRevision }] of this.#objectByKey) {
          const { kind, id } = layout.parseObjectKey(key) ?? {}
          const object = kind && id !== undefined ? this.#view.get(kind, id) : undefined
          assert(object !== undefined, 'only objects are kept there')
          const value = encodeObject(this.#values, { object, place, keepVersions: true })
          puts.push({ when: unchanged(key, modRevision), put: { type: 'put', key, value } })
        }
        const meta: Op = { type: 'put', key: layout.meta, value: encodeMeta(this.#offset) }
        let isDone = true
        for (let at = 0; isDone && at <= puts.length; at += layoutObjectsPerTxn) {
          const chunk = puts.slice(at, at + layoutObjectsPerTxn)
          const head: Head = { token, atMs: this.#clock.nowMs() }
          const txn: Txn = {
            when: [unchanged(layout.meta, this.#metaRevision), ...chunk.map(({ when }) => when)],
            apply: [
              ...chunk.map(({ put }) => put),
              { type: 'put', key: layout.head, value: JSON.stringify(head) },
              ...(at + layoutObjectsPerTxn > puts.length ? [meta] : []),
            ],
          }
          isDone = (await this.#client.txn(txn, call)).succeeded
        }
        if (isDone) {
          this.#log.info('what etcd holds is sealed from now on', { objects: puts.length })
          return
        }
        await this.#load(commitDeadlineMs)
        if (!this.#isOldLayout) return
      }
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error
      this.#log.warn('what etcd holds was not sealed whole; the next start tries again', {
        error: messageOf(error),
      })
    }
  }

  /** Makes the view what was read. */
  #take(kvs: readonly KeyValue[], revision: number): void {
    const kvByKey = new Map(kvs.map((kv) => [kv.key, kv]))
    const meta = kvByKey.get(this.#layout.meta)
    assert(meta !== undefined, 'a store has a meta key')
    this.#metaRevision = meta.modRevision
    const { offset, isOld } = parseMeta(meta.value)
    this.#offset = offset
    this.#isOldLayout = isOld
    const changes: AppliedChange[] = []
    for (const key of this.#objectByKey.keys()) {
      if (kvByKey.has(key)) continue
      const { kind, id } = this.#layout.parseObjectKey(key) ?? {}
      assert(kind !== undefined && id !== undefined, 'only objects are kept there')
      const before = this.#view.get(kind, id)
      changes.push({ kind, id, ...(before && { before }) })
      this.#objectByKey.delete(key)
      this.#view.delete(kind, id)
    }
    const changed: { readonly kv: KeyValue; readonly place: number; readonly after: AnyObject }[] =
      []
    this.#nameRevisionByKey.clear()
    let epoch: KeyValue | undefined
    for (const kv of kvs) {
      if (this.#layout.isNameKey(kv.key)) this.#nameRevisionByKey.set(kv.key, kv.modRevision)
      if (kv.key === this.#layout.epoch) epoch = kv
      if (kv.key === this.#layout.checked) this.#checkedRevision = kv.modRevision
      const known = this.#objectByKey.get(kv.key)
      const named = this.#layout.parseObjectKey(kv.key)
      if (known?.modRevision === kv.modRevision || named === undefined) continue
      const { object, place } = decodeObject(this.#values, kv, { ...named, offset: this.#offset })
      changed.push({ kv, place, after: object })
    }
    changed.sort((a, b) => a.kv.createRevision - b.kv.createRevision || a.place - b.place)
    for (const { kv, place, after } of changed) {
      const { kind, id } = after
      const before = this.#view.get(kind, id)
      if (this.#objectByKey.get(kv.key)?.createRevision !== kv.createRevision) {
        this.#view.delete(kind, id) // So that it comes last in the order of creation.
      }
      this.#put(kv, place, after)
      changes.push({ kind, id, ...(before && { before }), after })
    }
    this.#setEpoch(epoch)
    this.#seenRevision = revision
    const head = kvByKey.get(this.#layout.head)
    if (head) this.#learnTime(parseHead(head.value))
    const storeRevision = this.#offset + (head ?? meta).modRevision
    const isNews = storeRevision !== this.#view.revision || changes.length > 0
    this.#view.setRevision(storeRevision)
    if (isNews) {
      this.#tell({ revision: storeRevision, atMs: this.#clock.nowMs(), changes })
    }
    const own = kvByKey.get(this.#layout.writer(this.#writer))
    const batch = this.#inFlight
    if (batch && own?.value === batch.token) {
      // It was done while nobody was listening; its changes are among those told just now.
      this.#writerRevision = own.modRevision
      this.#settle(batch, (part) => {
        if ('epoch' in part) part.entry.resolve(part.epoch)
        else if ('staged' in part) {
          part.entry.resolve({
            revision: this.#offset + own.modRevision,
            atMs: batch.atMs,
            changes: part.staged.applied.map((change) =>
              change.after
                ? {
                    ...change,
                    after: numbered(change.after, part.staged, this.#offset + own.modRevision),
                  }
                : change,
            ),
          })
        }
      })
    }
    this.#wakeBehind()
  }

  #put(kv: KeyValue, place: number, object: AnyObject): void {
    if (this.#freeze) deepFreeze(object)
    this.#objectByKey.set(kv.key, {
      modRevision: kv.modRevision,
      createRevision: kv.createRevision,
      place,
    })
    this.#view.put(object)
  }

  #setEpoch(kv: KeyValue | undefined): void {
    if (kv === undefined) return
    this.#epoch = Number(kv.value)
    this.#epochRevision = kv.modRevision
  }

  /** Follows the changes for as long as the store is open. */
  async #followAll(): Promise<void> {
    let waitMs = 0
    while (!this.#stop.signal.aborted) {
      this.#watchTry = new AbortController()
      try {
        await this.#follow(this.#watchTry.signal, () => (waitMs = 0))
      } catch (error) {
        if (this.#stop.signal.aborted) return
        if (error instanceof EtcdError && error.reason === 'compacted') {
          this.#log.info('history is gone where the watch stood; reading everything again', {
            revision: this.#seenRevision,
          })
          await this.#load(commitDeadlineMs).catch((failure: unknown) =>
            this.#log.warn('etcd can not be read', { error: messageOf(failure) }),
          )
          continue
        }
        if (error instanceof UserError) {
          this.#unreadable = error
          this.#wakeBehind()
          this.#log.error('what another manager wrote can not be read', { error: error.message })
        } else this.#log.info('watch of etcd ended; watching again', { error: messageOf(error) })
      }
      if (waitMs > 0) await this.#clock.sleep(waitMs, this.#stop.signal)
      waitMs = Math.min(retryMsMax, waitMs * 2 || retryMs)
    }
  }

  async #follow(signal: AbortSignal, onStanding: () => void): Promise<void> {
    const { prefix } = this.#layout
    const request = { key: prefix, end: prefixEnd(prefix), fromRevision: this.#seenRevision + 1 }
    for await (const { events } of this.#client.watch(request, signal)) {
      if (signal.aborted) return
      onStanding()
      for (let from = 0; from < events.length; ) {
        const revision = revisionOf(events[from])
        let to = from + 1
        while (to < events.length && revisionOf(events[to]) === revision) to++
        // A watch that stands again may begin with what was seen already.
        if (revision > this.#seenRevision) this.#learn(revision, events.slice(from, to))
        from = to
      }
    }
  }

  /** Takes in one transaction, of ours or of another manager. */
  #learn(revision: number, events: readonly WatchEvent[]): void {
    let head: Head | undefined
    const objects: WatchEvent[] = []
    for (const event of events) {
      const key = event.type === 'put' ? event.kv.key : event.key
      if (this.#layout.isNameKey(key)) {
        if (event.type === 'put') this.#nameRevisionByKey.set(key, revision)
        else this.#nameRevisionByKey.delete(key)
      } else if (key === this.#layout.head && event.type === 'put') {
        head = parseHead(event.kv.value)
      } else if (key === this.#layout.epoch && event.type === 'put') {
        this.#setEpoch(event.kv)
      } else if (key === this.#layout.checked && event.type === 'put') {
        this.#checkedRevision = revision
      } else if (key === this.#layout.meta && event.type === 'put') {
        this.#metaRevision = revision
        this.#offset = parseMeta(event.kv.value).offset
      } else if (this.#layout.parseObjectKey(key)) {
        objects.push(event)
      }
    }
    const batch = this.#inFlight
    if (head !== undefined && batch && head.token === batch.token) {
      this.#seenRevision = revision
      this.#applyOwn(batch, revision, objects)
    } else if (head !== undefined) this.#applyForeign(head, revision, objects)
    this.#seenRevision = revision
    this.#unreadable = undefined
    this.#wakeBehind()
  }

  /**
   * Decisions compare what is stored with the time: times that another manager wrote down, whose clock is ahead of this
   * one's, have passed here too.
   */
  #learnTime({ atMs }: Head): void {
    this.#clock.notBefore?.(atMs)
  }

  #applyForeign(head: Head, revision: number, events: readonly WatchEvent[]): void {
    this.#learnTime(head)
    // All of it can be read before any of it is shown.
    const read = events.map((event) => {
      const key = event.type === 'put' ? event.kv.key : event.key
      const named = this.#layout.parseObjectKey(key)
      assert(named !== undefined, 'only objects come here')
      if (event.type === 'delete') return { key, ...named, after: undefined }
      const { kv } = event
      const stored = decodeObject(this.#values, kv, { ...named, offset: this.#offset })
      return { key, ...named, after: { kv, stored } }
    })
    this.#seenRevision = revision
    const changes: AppliedChange[] = []
    for (const { key, kind, id, after } of read) {
      const before = this.#view.get(kind, id)
      if (after === undefined) {
        this.#objectByKey.delete(key)
        this.#view.delete(kind, id)
        changes.push({ kind, id, ...(before && { before }) })
        continue
      }
      const { place, object } = after.stored
      this.#put(after.kv, place, object)
      changes.push({ kind, id, ...(before && { before }), after: object })
    }
    const storeRevision = this.#offset + revision
    this.#view.setRevision(storeRevision)
    this.#tell({ revision: storeRevision, atMs: head.atMs, changes })
  }

  /** Tells of each commit of a batch by itself, in the order in which they were asked for. */
  #applyOwn(batch: Batch, revision: number, events: readonly WatchEvent[]): void {
    const kvByKey = new Map<string, KeyValue>()
    for (const event of events) if (event.type === 'put') kvByKey.set(event.kv.key, event.kv)
    this.#writerRevision = revision
    const storeRevision = this.#offset + revision
    this.#settle(batch, (part) => {
      if ('epoch' in part) {
        part.entry.resolve(part.epoch)
        return
      }
      if (!('staged' in part)) return
      const changes = part.staged.applied.map((change): AppliedChange => {
        const { kind, id, after } = change
        const key = this.#layout.object(kind, id)
        if (after === undefined) {
          this.#objectByKey.delete(key)
          this.#view.delete(kind, id)
          return change
        }
        const kv = kvByKey.get(key)
        assert(kv !== undefined, 'a transaction is told of whole')
        const object = numbered(after, part.staged, storeRevision)
        const place = batch.placeByKey.get(key)
        assert(place !== undefined, 'what a transaction puts has a place')
        this.#put(kv, place, object)
        return { ...change, after: object }
      })
      const commit: Commit = { revision: storeRevision, atMs: batch.atMs, changes }
      this.#view.setRevision(storeRevision)
      this.#tell(commit)
      part.entry.resolve(commit)
    })
  }

  /** Ends a batch that was done. */
  #settle(batch: Batch, take: (part: Part) => void): void {
    this.#inFlight = undefined
    batch.settled = true
    for (const part of batch.parts) {
      if ('refused' in part) part.entry.reject(part.refused)
      else take(part)
    }
    batch.land()
  }

  #tell(commit: Commit): void {
    for (const listener of this.#listeners) {
      try {
        listener(commit)
      } catch (error) {
        // The commit is done and others wait for it; a broken listener stops the process by itself.
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }

  // Keeping up

  #wakeBehind(): void {
    for (const wake of this.#behind) wake()
  }

  /**
   * Waits until the view has a revision that is known to exist, and looks for another member when that takes long. Rejects
   * with UserError when it can't be read.
   */
  async #reach(revision: number): Promise<void> {
    for (let tries = 1; this.#seenRevision < revision && !this.#stop.signal.aborted; tries++) {
      const done = new AbortController()
      const { promise, resolve } = Promise.withResolvers<void>()
      const wake = (): void => {
        if (this.#seenRevision >= revision || this.#unreadable || this.#stop.signal.aborted) {
          resolve()
        }
      }
      this.#behind.add(wake)
      await Promise.race([promise, this.#clock.sleep(behindMs, done.signal)])
      done.abort()
      this.#behind.delete(wake)
      if (this.#seenRevision >= revision || this.#stop.signal.aborted) return
      if (this.#unreadable) throw this.#unreadable
      this.#log.warn('the view is behind; watching another member', { tries })
      this.#client.avoidEndpoint()
      this.#watchTry.abort()
    }
  }

  async #readHead(): Promise<number> {
    const { kvs } = await this.#client.range(
      { key: this.#layout.head, keysOnly: true },
      { signal: this.#stop.signal, deadlineMs: probeDeadlineMs },
    )
    return kvs[0]?.modRevision ?? 0
  }

  #noteQuorum(): void {
    if (this.#quorumLostAtMs === undefined) return
    this.#log.info('a majority of the managers answers again', {
      afterMs: this.#clock.nowMs() - this.#quorumLostAtMs,
    })
    this.#quorumLostAtMs = undefined
  }

  /** Asks every second: a watch does not tell a quiet cluster from a lost one. */
  async #probe(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#clock.sleep(this.#quorumLostAtMs === undefined ? probeMs : probeLostMs, signal)
      if (signal.aborted) return
      const askedAtMs = this.#clock.nowMs()
      try {
        const head = await this.#readHead()
        this.#noteQuorum()
        if (head > this.#seenRevision) await this.#reach(head)
      } catch (error) {
        // A majority answered; what it said can't be read, and that is logged where it is read.
        if (signal.aborted || error instanceof UserError) continue
        if (this.#quorumLostAtMs === undefined) {
          this.#quorumLostAtMs = askedAtMs
          this.#log.warn('no majority of the managers answers', { error: messageOf(error) })
        }
      }
    }
  }

  async barrier(): Promise<void> {
    this.#checkOpen()
    // A question that is under way may have been answered before this call: only one still to be asked will do.
    if (this.#barrier === undefined || this.#barrier.started) {
      const before = this.#barrier?.done.catch(() => {})
      const mine: { started: boolean; done: Promise<void> } = {
        started: false,
        done: Promise.resolve(before).then(async () => {
          mine.started = true
          try {
            await this.#reach(await this.#readHead())
          } catch (error) {
            throw error instanceof UserError ? error : noQuorum(probeDeadlineMs, error)
          } finally {
            if (this.#barrier === mine) this.#barrier = undefined
          }
        }),
      }
      this.#barrier = mine
    }
    return this.#barrier.done
  }

  async keepCompacted(signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, this.#stop.signal])
    for (;;) {
      await this.#clock.sleep(compactEveryMs, stop)
      if (stop.aborted) return
      const revision = this.#seenRevision - historyKept
      if (revision <= 0) continue
      try {
        await this.#client.compact(revision, { signal: stop })
      } catch (error) {
        if (!stop.aborted) {
          this.#log.warn('history of etcd was not compacted', { error: messageOf(error) })
        }
      }
    }
  }

  // Writing

  #enqueue(entry: Entry): void {
    this.#queue.push(entry)
    if (this.#pumping) return
    this.#pumping = true
    void this.#pump()
  }

  /** Never rejects: every failure goes to those who wait for the commit. */
  async #pump(): Promise<void> {
    // Commits of the same turn share the first transaction too.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      if (
        this.#queue.some((entry) => entry.type === 'commit' && (entry.fence ?? 0) > this.#epoch)
      ) {
        await this.#catchUpWithEpoch()
      }
      const batch = this.#stage()
      this.#inFlight = batch
      try {
        await this.#send(batch)
      } catch (error) {
        this.#fail(batch, notStored(error))
      }
    }
    this.#pumping = false
    this.#idle?.()
  }

  /** A leader that was just elected may write before the watch has told of its epoch. */
  async #catchUpWithEpoch(): Promise<void> {
    const done = new AbortController()
    try {
      const { kvs } = await this.#client.range(
        { key: this.#layout.epoch },
        { signal: this.#stop.signal, deadlineMs: attemptMs },
      )
      const patience = this.#clock.sleep(commitDeadlineMs, done.signal)
      await Promise.race([this.#reach(kvs[0]?.modRevision ?? 0), patience])
    } catch (error) {
      // The commit is tried all the same, and fails with what is known.
      this.#log.debug('the epoch could not be read', { error: messageOf(error) })
    } finally {
      done.abort()
    }
  }

  #fail(batch: Batch, error: UserError): void {
    if (this.#inFlight === batch) this.#inFlight = undefined
    for (const part of batch.parts) part.entry.reject('refused' in part ? part.refused : error)
  }

  /** Takes as many entries as fit into one transaction, each found valid on top of those before. */
  #stage(): Batch {
    const layout = this.#layout
    const atMs = this.#clock.nowMs()
    const token = `${this.#tokenStart} ${this.#tokenNext++}`
    const staging = new Staging(this.#view, { isKept: false })
    const parts: Part[] = []
    const written = new Set<string>()
    const objectOps: Op[] = []
    const nameOps: Op[] = []
    const when: Compare[] = []
    let epoch = this.#epoch
    let isFenced = false
    let isChecked = false
    let bytes = 0
    let placeNext = 0
    const placeByKey = new Map<string, number>()
    while (this.#queue.length > 0) {
      const entry = this.#queue[0]
      assert(entry !== undefined, 'the queue is not empty')
      if (entry.type === 'epoch') {
        this.#queue.shift()
        epoch += 1
        isFenced = true
        parts.push({ entry, epoch })
        continue
      }
      let staged: StagedCommit
      try {
        if (entry.fence !== undefined && entry.fence !== epoch) throw staleEpoch(entry.fence, epoch)
        if (entry.checkedAt !== undefined && (isChecked || this.#wasCheckedAfter(entry.checkedAt)))
          throw checkedTooEarly()
        staged = staging.stage(entry.changes, atMs)
      } catch (error) {
        if (!(error instanceof UserError)) throw error
        this.#queue.shift()
        parts.push({ entry, refused: error })
        continue
      }
      const names = this.#nameChanges(staged)
      const objectKeys = staged.applied.map(({ kind, id }) => layout.object(kind, id))
      // A transaction writes a key once: what comes later waits for the next one.
      if ([...objectKeys, ...names.keys()].some((key) => written.has(key))) break
      const puts = staged.applied.map(({ after }, i): Op => {
        const key = objectKeys[i] ?? ''
        if (after === undefined) return { type: 'delete', key }
        const object = numbered(after, staged, 0)
        const place = this.#objectByKey.get(key)?.place ?? placeNext++
        placeByKey.set(key, place)
        const value = encodeObject(this.#values, { object, place })
        return { type: 'put', key, value }
      })
      const size = puts.reduce((sum, op) => sum + bytesOf(op), 0)
      const ops = objectOps.length + nameOps.length + puts.length + names.size + 4
      const isFull = bytes + size > txnBytesMax || ops > txnOpsMax
      if (isFull && written.size > 0) break
      this.#queue.shift()
      if (isFull) {
        const refused = new UserError(
          'tooLarge',
          `a commit of ${size} bytes is over the limit of ${txnBytesMax}`,
          { next: 'Split it into several.' },
        )
        parts.push({ entry, refused })
        break
      }
      bytes += size
      isFenced ||= entry.fence !== undefined
      isChecked ||= entry.checkedAt !== undefined
      parts.push({ entry, staged })
      objectOps.push(...puts)
      for (const key of objectKeys) {
        written.add(key)
        when.push(unchanged(key, this.#objectByKey.get(key)?.modRevision ?? 0))
      }
      for (const [key, id] of names) {
        written.add(key)
        when.push(unchanged(key, this.#nameRevisionByKey.get(key) ?? 0))
        nameOps.push(id === undefined ? { type: 'delete', key } : { type: 'put', key, value: id })
      }
    }
    if (isFenced) when.push(unchanged(layout.epoch, this.#epochRevision))
    if (isChecked) when.push(unchanged(layout.checked, this.#checkedRevision))
    when.push(unchanged(layout.meta, this.#metaRevision))
    const apply: Op[] = [...objectOps, ...nameOps]
    if (isChecked) apply.push({ type: 'put', key: layout.checked, value: token })
    if (epoch !== this.#epoch) apply.push({ type: 'put', key: layout.epoch, value: String(epoch) })
    apply.push(
      { type: 'put', key: layout.head, value: JSON.stringify({ token, atMs } satisfies Head) },
      { type: 'put', key: layout.writer(this.#writer), value: token },
    )
    const { promise, resolve } = Promise.withResolvers<void>()
    return {
      token,
      atMs,
      parts,
      txn: { when, apply },
      placeByKey,
      bytes,
      landed: promise,
      settled: false,
      land: resolve,
    }
  }

  /** Whether a commit that was checked across objects came after this revision of the view. */
  #wasCheckedAfter(revision: number): boolean {
    return this.#checkedRevision > 0 && this.#offset + this.#checkedRevision > revision
  }

  /** The names that a commit takes (with the id) and gives back, by key. */
  #nameChanges({ applied }: StagedCommit): Map<string, string | undefined> {
    const names = new Map<string, string | undefined>()
    const keyOf = (object: AnyObject | undefined): string | undefined =>
      object && uniquelyNamedKinds.has(object.kind) ? this.#layout.name(object) : undefined
    const kept = new Set<string>()
    for (const { before, after } of applied) {
      const [old, now] = [keyOf(before), keyOf(after)]
      if (old !== undefined && old === now) kept.add(old)
      else if (old !== undefined) names.set(old, undefined)
    }
    for (const { after } of applied) {
      const now = keyOf(after)
      if (after && now !== undefined && !kept.has(now)) names.set(now, after.id)
    }
    return names
  }

  /** Returns once the batch is done and in the view, or its entries wait again for their turn. */
  async #send(batch: Batch): Promise<void> {
    if (batch.parts.every((part) => 'refused' in part)) {
      this.#settle(batch, () => {})
      return
    }
    const untilMs = this.#clock.nowMs() + commitDeadlineMs
    let waitMs = retryMs
    /** Whether an attempt went out whose answer is not known. */
    let isUnknown = false
    let failure: EtcdError | undefined
    while (!batch.settled) {
      if (this.#clock.nowMs() >= untilMs) {
        if (isUnknown) this.#writerRevision = undefined
        throw isUnknown ? outcomeUnknown(failure) : noQuorum(commitDeadlineMs, failure)
      }
      try {
        const outcome = await this.#tryOnce(batch, isUnknown)
        if (batch.settled) return
        await Promise.race([this.#reach(outcome.seenRevision), batch.landed])
        if (batch.settled) return
        if (outcome.type === 'done') {
          throw new EtcdError('outcomeUnknown', 'the view was closed before it had the commit')
        }
        await this.#checkProgress()
        if (batch.settled) return
        this.#inFlight = undefined
        this.#queue.unshift(...batch.parts.map((part) => part.entry))
        return
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error
        failure = error
        if (error.reason === 'outcomeUnknown') isUnknown = true
        else if (error.reason === 'tooLarge' || error.reason === 'refused') throw error
        else if (error.reason === 'noSpace' && !isUnknown) throw error
        await Promise.race([this.#clock.sleep(waitMs, this.#stop.signal), batch.landed])
        waitMs = Math.min(retryMsMax, waitMs * 2)
      }
    }
  }

  /** Asks etcd to do the batch; says where the view has to be to show what came of it. */
  async #tryOnce(
    batch: Batch,
    isUnknown: boolean,
  ): Promise<{ readonly type: 'done' | 'refused'; readonly seenRevision: number }> {
    const { layout, options } = { layout: this.#layout, options: { signal: this.#stop.signal } }
    if (this.#writerRevision === undefined) {
      const claim = await this.#claimWriter(batch)
      if (claim.isDone) return { type: 'done', seenRevision: claim.revision }
      this.#writerRevision = claim.revision
    }
    const writer = layout.writer(this.#writer)
    const asked = this.#client.txn(
      {
        when: [...batch.txn.when, unchanged(writer, this.#writerRevision)],
        apply: batch.txn.apply,
        otherwise: [
          { type: 'range', key: writer },
          ...[layout.head, layout.epoch, layout.meta].map(
            (key): Op => ({ type: 'range', key, keysOnly: true }),
          ),
        ],
      },
      { ...options, deadlineMs: batch.bytes > largeBytes ? largeAttemptMs : attemptMs },
    )
    // The watch may tell of it before the answer does; then nobody waits for the answer.
    asked.catch(() => {})
    const answer = await Promise.race([asked, batch.landed])
    if (answer === undefined) return { type: 'done', seenRevision: 0 }
    if (answer.succeeded) {
      this.#writerRevision = answer.revision
      return { type: 'done', seenRevision: answer.revision }
    }
    const found = answer.results.flatMap((result) => (result.type === 'range' ? result.kvs : []))
    const own = found.find((kv) => kv.key === writer)
    if (own?.value === batch.token) {
      this.#writerRevision = own.modRevision
      return { type: 'done', seenRevision: own.modRevision }
    }
    const seenRevision = Math.max(0, ...found.map((kv) => (kv === own ? 0 : kv.modRevision)))
    this.#writerRevision = undefined
    if (isUnknown) {
      // Something changed meanwhile. Were an earlier attempt to arrive only now, it might fit again: a new mark on the
      // writer's key shuts it out for good.
      const claim = await this.#claimWriter(batch)
      if (claim.isDone) return { type: 'done', seenRevision: claim.revision }
      this.#writerRevision = claim.revision
    }
    return { type: 'refused', seenRevision }
  }

  /**
   * Puts a new mark on our writer key, after which no transaction asked for before can be done any more. Says whether
   * the batch was done before that.
   */
  async #claimWriter(
    batch: Batch,
  ): Promise<{ readonly isDone: boolean; readonly revision: number }> {
    const key = this.#layout.writer(this.#writer)
    const options = { signal: this.#stop.signal, deadlineMs: attemptMs }
    const mark = `${this.#tokenStart} mark ${this.#tokenNext++}`
    try {
      for (;;) {
        const seen = (await this.#client.range({ key }, options)).kvs[0]
        if (seen?.value === batch.token) return { isDone: true, revision: seen.modRevision }
        if (seen?.value === mark) return { isDone: false, revision: seen.modRevision }
        const { succeeded, revision } = await this.#client.txn(
          {
            when: [unchanged(key, seen?.modRevision ?? 0)],
            apply: [{ type: 'put', key, value: mark }],
          },
          options,
        )
        if (succeeded) return { isDone: false, revision }
      }
    } catch (error) {
      // Whether the mark was made does not matter: it is looked at again before the next attempt.
      if (error instanceof EtcdError && error.reason === 'outcomeUnknown') {
        throw new EtcdError('unavailable', error.message, { cause: error })
      }
      throw error
    }
  }

  /** A view that etcd refuses twice without having moved is not what etcd has: it is read again, whole. */
  async #checkProgress(): Promise<void> {
    if (this.#refusedAtRevision === this.#seenRevision) {
      this.#log.warn('etcd holds something else than the view; reading everything again', {
        revision: this.#seenRevision,
      })
      await this.#load(commitDeadlineMs)
    }
    this.#refusedAtRevision = this.#seenRevision
  }
}

function unchanged(key: string, modRevision: number): Compare {
  return { key, target: 'modRevision', is: '=', to: modRevision }
}

function revisionOf(event: WatchEvent | undefined): number {
  assert(event !== undefined, 'there is an event')
  return event.type === 'put' ? event.kv.modRevision : event.modRevision
}

/** An object as staged, with the version it has in the end; 0 while that is not known. */
function numbered(object: AnyObject, staged: StagedCommit, version: number): AnyObject {
  const specVersion = object.specVersion === staged.revision ? version : object.specVersion
  return { ...object, version, specVersion }
}

function bytesOf(op: Op): number {
  return op.type === 'put' ? Buffer.byteLength(op.value) + op.key.length : op.key.length
}

function staleEpoch(fence: number, epoch: number): UserError {
  return new UserError(
    'outOfSequence',
    `a leader of epoch ${fence} may not write in epoch ${epoch}`,
    { next: 'Another manager leads now; leave it to that one.' },
  )
}

function noQuorum(silentMs: number, cause?: unknown): UserError {
  return new UserError(
    'unavailable',
    `no majority of the managers has answered for ${Math.max(1, Math.round(silentMs / 1000))} s, so nothing can be stored or read for certain; running services are not touched`,
    {
      next: 'Start the missing managers again (`docker node ls` on one that answers names them); only if they are lost for good, run `docker swarm init --force-new-cluster` on one that is left.',
      cause,
    },
  )
}

function outcomeUnknown(cause: unknown): UserError {
  return new UserError(
    'unavailable',
    'the majority of the managers was lost while the change was on its way: it may have been stored, or not',
    {
      next: 'Once a majority answers again, look whether the change is there before asking for it again.',
      cause: new OutcomeUnknownError('the outcome of the commit is not known', { cause }),
    },
  )
}

function notStored(error: unknown): UserError {
  if (error instanceof UserError) return error
  const reason = error instanceof EtcdError ? error.reason : undefined
  if (reason === 'tooLarge') {
    return new UserError('tooLarge', `the change is too large for etcd: ${messageOf(error)}`, {
      next: 'Split it into several.',
      cause: error,
    })
  }
  return new UserError('unavailable', `the change was not stored: ${messageOf(error)}`, {
    next:
      reason === 'noSpace'
        ? 'The database of etcd is at its quota: remove what is not needed, or raise the quota.'
        : 'Look at the log of the daemon, and try again.',
    cause: error,
  })
}

function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  Object.freeze(value)
  for (const part of Object.values(value)) deepFreeze(part)
}
