import { type Clock, messageOf, type Random } from '../../base/index.ts'
import {
  type CallOptions,
  type Compare,
  callDeadlineMs,
  type EtcdClient,
  EtcdError,
  type EtcdMember,
  type EtcdStatus,
  type KeyValue,
  type Lease,
  type Op,
  type OpResult,
  type RangeRequest,
  type RangeResult,
  type Txn,
  type TxnResult,
  type WatchBatch,
  type WatchEvent,
  type WatchRequest,
} from './client.ts'

export interface SimulatedEtcdOptions {
  readonly clock: Clock
  readonly random: Random
  /** Default 1. */
  readonly members?: number
  /** Longest way of a request, a reply or an event, in ms; each takes a random part of it. Default 0. */
  readonly delayMsMax?: number
  /** Shortest election, in ms; one takes up to twice that. Default 600. */
  readonly electionMs?: number
}

/**
 * - `up`: it answers.
 * - `down`: its process is dead: whoever is connected learns at once.
 * - `paused`: its process stands still, or its host is unplugged: nobody hears anything.
 * - `cut`: it hears clients, but no other member.
 */
export type MemberState = 'up' | 'down' | 'paused' | 'cut'

interface Member {
  readonly memberId: string
  /** What it calls itself, once it has been started. */
  name: string
  readonly endpoint: string
  peerUrls: readonly string[]
  learner: boolean
  /** Added, but never started yet. */
  fresh: boolean
  state: MemberState
}

/** What a key was from a revision on. */
interface Version {
  readonly revision: number
  readonly kv: KeyValue | undefined
}

interface LeaseState {
  readonly leaseId: string
  readonly ttlMs: number
  expiresAtMs: number
  readonly keys: Set<string>
}

interface Watcher {
  readonly request: WatchRequest
  readonly member: Member
  readonly client: SimulatedClient
  readonly queue: WatchBatch[]
  failure: EtcdError | undefined
}

/** Silence after which a client gives up a watch or one attempt of a read, in ms: as the real client does. */
const silenceMs = 2_500
/** A wait without an end of its own. */
const forEver = Number.MAX_SAFE_INTEGER

/**
 * A whole etcd cluster in memory, on the injected clock, with the faults that a real one meets. What it holds is one
 * history that survives every fault, as a cluster's does; faults change who can reach it, when, and who hears of it.
 */
export class SimulatedEtcd {
  readonly clock: Clock
  readonly random: Random
  delayMsMax: number
  readonly #electionMs: number
  #members: Member[] = []
  #leader: Member | undefined
  #raftTerm = 1
  #raftIndex = 1
  #idNext = 1
  #revision = 1
  #compacted = 0
  readonly #versionsByKey = new Map<string, Version[]>()
  /** Changes by revision, from the one after `#compacted` on. */
  #history: { readonly revision: number; readonly events: readonly WatchEvent[] }[] = []
  readonly #leaseById = new Map<string, LeaseState>()
  readonly #watchers = new Set<Watcher>()
  readonly #waiting = new Set<() => void>()
  readonly #closed = new AbortController()
  #electing = false

  constructor(options: SimulatedEtcdOptions) {
    this.clock = options.clock
    this.random = options.random
    this.delayMsMax = options.delayMsMax ?? 0
    this.#electionMs = options.electionMs ?? 600
    for (let i = 0; i < (options.members ?? 1); i++) this.#newMember(`member-${i}`, false, false)
    this.#leader = this.#members[0]
  }

  /** A client whose first choice is one member. Without `fixed` it goes to the others when that one fails. */
  client(options: { readonly member?: number; readonly fixed?: boolean } = {}): SimulatedClient {
    const endpoints = this.#members.map((member) => member.endpoint)
    const first = endpoints.splice(options.member ?? 0, 1)
    return new SimulatedClient(this, options.fixed ? first : [...first, ...endpoints])
  }

  get closed(): AbortSignal {
    return this.#closed.signal
  }

  /** Index of the member that leads now: for tests that kill it. */
  get leaderIndex(): number | undefined {
    return this.#leader && this.#members.indexOf(this.#leader)
  }

  close(): void {
    this.#closed.abort()
    for (const watcher of this.#watchers) {
      this.#breakWatch(watcher, new EtcdError('unavailable', 'etcd was ended'))
    }
    this.announce()
  }

  /** Where a member is among the others now; `undefined` when it is none. */
  indexOf(memberId: string): number | undefined {
    const index = this.#members.findIndex((member) => member.memberId === memberId)
    return index < 0 ? undefined : index
  }

  setMember(index: number, state: MemberState): void {
    const member = this.#members[index]
    if (!member) throw new Error(`broken invariant: there is no member ${index}`)
    member.state = state
    if (state === 'up') member.fresh = false
    if (state === 'down') {
      for (const watcher of this.#watchers) {
        if (watcher.member !== member) continue
        this.#breakWatch(watcher, new EtcdError('unavailable', `${member.name} ended`))
      }
    }
    if (this.#leader && (this.#leader.state !== 'up' || !this.#hasQuorum()))
      this.#leader = undefined
    this.announce()
    this.#elect()
  }

  /** Nobody leads for at least that long, as after a lost leader: nothing is read or written meanwhile. */
  async loseLeaderFor(ms: number): Promise<void> {
    this.#leader = undefined
    this.#electing = true
    this.announce()
    await this.clock.sleep(ms, this.#closed.signal)
    this.#electing = false
    this.#elect()
  }

  #hasQuorum(): boolean {
    const voters = this.#members.filter((member) => !member.learner)
    return voters.filter((member) => member.state === 'up').length * 2 > voters.length
  }

  #elect(): void {
    if (this.#leader || this.#electing || !this.#hasQuorum()) return
    this.#electing = true
    void (async () => {
      const takesMs = this.#electionMs + this.random.below(this.#electionMs + 1)
      await this.clock.sleep(takesMs, this.#closed.signal)
      this.#electing = false
      const able = this.#members.filter((member) => member.state === 'up' && !member.learner)
      if (this.#leader || !this.#hasQuorum() || this.#closed.signal.aborted) return
      this.#leader = able[this.random.below(able.length)]
      this.#raftTerm += 1
      // A new leader does not know what the old one heard: every lease gets its whole time again, and more.
      for (const lease of this.#leaseById.values()) {
        lease.expiresAtMs = this.clock.nowMs() + lease.ttlMs + this.#electionMs
      }
      this.announce()
    })()
  }

  /** What a member was started with (`--name`). */
  nameMember(memberId: string, name: string): void {
    this.#member(memberId).name = name
  }

  #newMember(name: string, learner: boolean, fresh: boolean): Member {
    const memberId = String(this.#idNext++)
    const member: Member = {
      memberId,
      name,
      endpoint: `https://${name || memberId}.test:2379`,
      peerUrls: [`https://${name || memberId}.test:2380`],
      learner,
      fresh,
      state: fresh ? 'down' : 'up',
    }
    this.#members.push(member)
    return member
  }

  /** Wakes everyone who waits for something in here to change. */
  announce(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  /** Waits until `ready`, `untilMs` or the signal; says whether it is ready. */
  async #until(ready: () => boolean, untilMs: number, signal?: AbortSignal): Promise<boolean> {
    while (!ready()) {
      if (this.clock.nowMs() >= untilMs || signal?.aborted || this.closed.aborted) return false
      const done = new AbortController()
      const { promise, resolve } = Promise.withResolvers<void>()
      // Most changes are not what this one waits for: it stays in line, and sets up nothing anew.
      const wake = (): void => {
        if (ready() || this.closed.aborted) resolve()
      }
      this.#waiting.add(wake)
      signal?.addEventListener('abort', () => resolve(), { signal: done.signal })
      const ends = [promise]
      // A timer that is never due would stay with the clock for good.
      if (untilMs < forEver) ends.push(this.clock.sleep(untilMs - this.clock.nowMs(), done.signal))
      await Promise.race(ends)
      this.#waiting.delete(wake)
      done.abort()
    }
    return true
  }

  async travel(signal?: AbortSignal): Promise<void> {
    if (this.delayMsMax > 0) await this.clock.sleep(this.random.below(this.delayMsMax + 1), signal)
  }

  memberAt(endpoint: string): Member | undefined {
    return this.#members.find((member) => member.endpoint === endpoint)
  }

  /** Takes a call to a member and its answer back, through all that may go wrong. */
  async call<T>(
    client: SimulatedClient,
    kind: 'read' | 'write',
    options: CallOptions,
    work: () => T,
  ): Promise<T> {
    const { signal } = options
    const untilMs = this.clock.nowMs() + (options.deadlineMs ?? callDeadlineMs)
    const failed = (message: string): EtcdError => {
      if (signal?.aborted) return new EtcdError('cancelled', 'the call was cancelled')
      return new EtcdError(kind === 'read' ? 'unavailable' : 'outcomeUnknown', message)
    }
    for (;;) {
      client.check(signal)
      const member = client.pick()
      if (!member) throw new EtcdError('unavailable', 'no member of etcd can be reached')
      // One that hangs is given up for a read after a while, for another one; a write may have happened there.
      const patienceMs =
        kind === 'read' ? Math.min(untilMs, this.clock.nowMs() + silenceMs) : untilMs
      await this.travel(signal)
      const heard = (): boolean => !client.cut && member.state !== 'paused'
      const canWork = (): boolean =>
        isDown(member) || (heard() && member.state !== 'cut' && this.#leader !== undefined)
      const ready = await this.#until(canWork, patienceMs, signal)
      if (!ready) {
        client.avoidEndpoint()
        // What was given up may still be under way, and be done when things go on.
        if (kind === 'write' && !client.cut && this.random.below(2) === 0) {
          void this.#doLate(work)
        }
        if (kind === 'read' && this.clock.nowMs() < untilMs && !signal?.aborted) continue
        throw failed('etcd did not answer in time')
      }
      if (isDown(member)) continue // Refused: nothing was sent.
      this.#raftIndex += 1
      const result = work()
      if (kind === 'write' && client.takeLostReply()) {
        client.avoidEndpoint()
        throw failed('the link broke before the answer came')
      }
      await this.travel(signal)
      if (signal?.aborted) throw failed('')
      if (heard() && !isDown(member)) return result
      if (isDown(member)) {
        client.avoidEndpoint()
        if (kind === 'read') continue
        throw failed('the link broke before the answer came')
      }
      if (await this.#until(heard, patienceMs, signal)) return result
      client.avoidEndpoint()
      if (kind === 'read' && this.clock.nowMs() < untilMs && !signal?.aborted) continue
      throw failed('etcd did not answer in time')
    }
  }

  async #doLate(work: () => unknown): Promise<void> {
    await this.#until(() => this.#leader !== undefined, forEver, this.closed)
    if (this.closed.aborted) return
    try {
      work()
    } catch (error) {
      // Nobody is there to hear why it was refused.
      void messageOf(error)
    }
  }

  async *watch(
    client: SimulatedClient,
    request: WatchRequest,
    signal: AbortSignal,
  ): AsyncGenerator<WatchBatch> {
    if (signal.aborted) return
    const member = await this.call(client, 'read', { signal }, () => client.pick())
    if (!member || isDown(member)) {
      throw new EtcdError('unavailable', 'no member of etcd can be reached')
    }
    if (request.fromRevision <= this.#compacted) {
      throw new EtcdError('compacted', `revision ${request.fromRevision} was compacted`)
    }
    const watcher: Watcher = {
      request,
      member,
      client,
      queue: [{ revision: request.fromRevision - 1, events: [] }],
      failure: undefined,
    }
    for (const { revision, events } of this.#history) this.#tell(watcher, revision, events)
    this.#watchers.add(watcher)
    const flows = (): boolean => !client.cut && (member.state === 'up' || isDown(member))
    try {
      for (;;) {
        if (signal.aborted || client.isClosed) return
        if (!flows() && !(await this.#until(flows, this.clock.nowMs() + silenceMs, signal))) {
          if (signal.aborted) return
          client.avoidEndpoint()
          throw new EtcdError('unavailable', 'the watch has gone silent')
        }
        // What a member sent before it ended has arrived, or is lost.
        if (watcher.failure) throw watcher.failure
        const batch = watcher.queue[0]
        if (batch) {
          await this.travel(signal)
          if (!flows()) continue
          watcher.queue.shift()
          yield batch
          continue
        }
        await this.#until(
          () =>
            watcher.queue.length > 0 ||
            watcher.failure !== undefined ||
            client.isClosed ||
            !flows(),
          forEver,
          signal,
        )
        if (this.closed.aborted) throw new EtcdError('unavailable', 'etcd was ended')
      }
    } finally {
      this.#watchers.delete(watcher)
    }
  }

  #tell(watcher: Watcher, revision: number, all: readonly WatchEvent[]): void {
    const { key, end, fromRevision } = watcher.request
    if (revision < fromRevision) return
    const events = all.filter((event) =>
      isInside(event.type === 'put' ? event.kv.key : event.key, key, end),
    )
    if (events.length > 0) watcher.queue.push({ revision, events })
  }

  #breakWatch(watcher: Watcher, failure: EtcdError): void {
    watcher.failure ??= failure
    watcher.client.avoidEndpoint()
  }

  // What etcd's state machine does.

  txn({ when, apply, otherwise = [] }: Txn): TxnResult {
    const succeeded = when.every((compare) => this.#holds(compare))
    const ops = succeeded ? apply : otherwise
    const written = new Set<string>()
    for (const op of ops) {
      if (op.type !== 'put') continue
      if (written.has(op.key)) throw new EtcdError('refused', 'duplicate key given in txn request')
      written.add(op.key)
      if (op.leaseId !== undefined && !this.#leaseById.has(op.leaseId)) {
        throw new EtcdError('leaseNotFound', 'requested lease not found')
      }
    }
    for (const op of ops) {
      if (op.type !== 'delete') continue
      const { key: from, end } = op
      const isWritten =
        end === undefined ? written.has(from) : [...written].some((key) => isInside(key, from, end))
      if (isWritten) {
        throw new EtcdError('refused', 'duplicate key given in txn request')
      }
    }
    const results = this.#write(ops)
    return { succeeded, revision: this.#revision, results }
  }

  #holds(compare: Compare): boolean {
    const kv = this.#get(compare.key)
    if (compare.target === 'value') {
      if (kv === undefined) return false
      return compare.is === '=' ? kv.value === compare.to : kv.value !== compare.to
    }
    const value = kv?.[compare.target] ?? 0
    switch (compare.is) {
      case '=':
        return value === compare.to
      case '!=':
        return value !== compare.to
      case '<':
        return value < compare.to
      case '>':
        return value > compare.to
    }
  }

  #write(ops: readonly Op[]): OpResult[] {
    const revision = this.#revision + 1
    const events: WatchEvent[] = []
    const results = ops.map((op): OpResult => {
      if (op.type === 'put') {
        const before = this.#get(op.key)
        if (before?.leaseId !== undefined) this.#leaseById.get(before.leaseId)?.keys.delete(op.key)
        if (op.leaseId !== undefined) this.#leaseById.get(op.leaseId)?.keys.add(op.key)
        const kv: KeyValue = {
          key: op.key,
          value: op.value,
          createRevision: before?.createRevision ?? revision,
          modRevision: revision,
          version: (before?.version ?? 0) + 1,
          ...(op.leaseId !== undefined && { leaseId: op.leaseId }),
        }
        this.#keep(op.key, { revision, kv })
        events.push({ type: 'put', kv })
        return { type: 'put' }
      }
      if (op.type === 'delete') {
        const keys = this.#keys(op.key, op.end).filter((key) => this.#get(key))
        for (const key of keys) {
          const leaseId = this.#get(key)?.leaseId
          if (leaseId !== undefined) this.#leaseById.get(leaseId)?.keys.delete(key)
          this.#keep(key, { revision, kv: undefined })
          events.push({ type: 'delete', key, modRevision: revision })
        }
        return { type: 'delete', deleted: keys.length }
      }
      const { kvs, more } = this.range({ ...op, revision: 0 })
      return { type: 'range', kvs, more }
    })
    if (events.length > 0) {
      this.#revision = revision
      this.#history.push({ revision, events })
      for (const watcher of this.#watchers) this.#tell(watcher, revision, events)
      this.announce()
    }
    return results
  }

  range(request: RangeRequest): RangeResult {
    const at = request.revision ?? 0
    if (at > 0 && at < this.#compacted) {
      throw new EtcdError('compacted', `revision ${at} was compacted`)
    }
    if (at > this.#revision)
      throw new EtcdError('refused', 'required revision is a future revision')
    const kvs: KeyValue[] = []
    for (const key of this.#keys(request.key, request.end)) {
      const kv = this.#get(key, at || undefined)
      if (kv) kvs.push(request.keysOnly ? { ...kv, value: '' } : kv)
    }
    const { limit = 0 } = request
    const more = limit > 0 && kvs.length > limit
    return { revision: this.#revision, kvs: more ? kvs.slice(0, limit) : kvs, more }
  }

  #keys(key: string, end: string | undefined): string[] {
    if (end === undefined) return [key]
    return [...this.#versionsByKey.keys()].filter((one) => isInside(one, key, end)).sort()
  }

  #get(key: string, at = this.#revision + 1): KeyValue | undefined {
    return this.#versionsByKey.get(key)?.findLast((version) => version.revision <= at)?.kv
  }

  #keep(key: string, version: Version): void {
    const versions = this.#versionsByKey.get(key)
    if (versions) versions.push(version)
    else this.#versionsByKey.set(key, [version])
  }

  compact(revision: number): void {
    if (revision > this.#revision) {
      throw new EtcdError('refused', 'required revision is a future revision')
    }
    if (revision <= this.#compacted) return
    this.#compacted = revision
    this.#history = this.#history.filter((entry) => entry.revision > revision)
    for (const [key, versions] of this.#versionsByKey) {
      const first = versions.findLastIndex((version) => version.revision <= revision)
      const kept = versions.slice(Math.max(0, first))
      if (kept.length === 1 && kept[0]?.kv === undefined) this.#versionsByKey.delete(key)
      else this.#versionsByKey.set(key, kept)
    }
  }

  leaseGrant(ttlSeconds: number): Lease {
    const leaseId = String(this.#idNext++)
    const granted = Math.max(ttlSeconds, Math.ceil((this.#electionMs * 1.5) / 1000))
    const ttlMs = granted * 1000
    const lease: LeaseState = {
      leaseId,
      ttlMs,
      expiresAtMs: this.clock.nowMs() + ttlMs,
      keys: new Set(),
    }
    this.#leaseById.set(leaseId, lease)
    void this.#expire(lease)
    return { leaseId, ttlSeconds: granted }
  }

  async #expire(lease: LeaseState): Promise<void> {
    while (this.#leaseById.has(lease.leaseId) && !this.closed.aborted) {
      const leftMs = lease.expiresAtMs - this.clock.nowMs()
      if (leftMs > 0) await this.clock.sleep(leftMs, this.closed)
      else if (this.#leader) this.leaseRevoke(lease.leaseId)
      else await this.#until(() => this.#leader !== undefined, forEver)
    }
  }

  leaseKeepAlive(leaseId: string): Lease {
    const lease = this.#leaseById.get(leaseId)
    if (!lease) throw new EtcdError('leaseNotFound', 'requested lease not found')
    lease.expiresAtMs = this.clock.nowMs() + lease.ttlMs
    return { leaseId, ttlSeconds: lease.ttlMs / 1000 }
  }

  leaseRevoke(leaseId: string): void {
    const lease = this.#leaseById.get(leaseId)
    if (!lease) throw new EtcdError('leaseNotFound', 'requested lease not found')
    this.#leaseById.delete(leaseId)
    const keys = [...lease.keys].sort()
    if (keys.length > 0) this.#write(keys.map((key) => ({ type: 'delete', key })))
  }

  memberList(): readonly EtcdMember[] {
    return this.#members.map((member) => ({
      memberId: member.memberId,
      name: member.fresh ? '' : member.name,
      peerUrls: member.peerUrls,
      clientUrls: member.fresh ? [] : [member.endpoint],
      learner: member.learner,
    }))
  }

  memberAdd(peerUrls: readonly string[], learner: boolean): EtcdMember {
    if (learner && this.#members.some((member) => member.learner)) {
      throw new EtcdError('refused', 'too many learner members in cluster')
    }
    // Not by how many there are: a name of one that was removed may be another's by then.
    const member = this.#newMember(`member-${this.#idNext - 1}`, learner, true)
    member.peerUrls = peerUrls
    return { memberId: member.memberId, name: '', peerUrls, clientUrls: [], learner }
  }

  memberPromote(memberId: string): void {
    const member = this.#member(memberId)
    if (!member.learner) throw new EtcdError('refused', 'can only promote a learner member')
    if (member.state !== 'up') {
      throw new EtcdError('refused', 'can only promote a learner which is in sync with leader')
    }
    member.learner = false
  }

  memberRemove(memberId: string): void {
    const member = this.#member(memberId)
    this.setMember(this.#members.indexOf(member), 'down')
    this.#members = this.#members.filter((other) => other !== member)
    this.#elect()
  }

  memberUpdate(memberId: string, peerUrls: readonly string[]): void {
    this.#member(memberId).peerUrls = peerUrls
  }

  moveLeader(memberId: string): void {
    const member = this.#member(memberId)
    if (member.learner || member.state !== 'up') {
      throw new EtcdError('refused', 'bad leader transferee')
    }
    this.#leader = member
    this.#raftTerm += 1
  }

  #member(memberId: string): Member {
    const member = this.#members.find((one) => one.memberId === memberId)
    if (!member) throw new EtcdError('memberNotFound', 'member not found')
    return member
  }

  statusOf(member: Member): EtcdStatus {
    return {
      memberId: member.memberId,
      ...(this.#leader && member.state === 'up' && { leaderId: this.#leader.memberId }),
      version: '3.4.23',
      revision: this.#revision,
      raftTerm: this.#raftTerm,
      raftIndex: this.#raftIndex,
      dbBytes: 0,
      learner: member.learner,
      errors: [],
    }
  }

  /** All that is kept, as text: not etcd's format, but whole. */
  dump(): Uint8Array {
    return new TextEncoder().encode(JSON.stringify([...this.#versionsByKey]))
  }
}

/** A client of the simulated cluster, and what goes wrong between the two. */
export class SimulatedClient implements EtcdClient {
  readonly #etcd: SimulatedEtcd
  #endpoints: readonly string[]
  #current = 0
  #cut = false
  #repliesToLose = 0
  #writesToHold = 0
  readonly #held: Txn[] = []
  #closed = false

  constructor(etcd: SimulatedEtcd, endpoints: readonly string[]) {
    this.#etcd = etcd
    this.#endpoints = endpoints
  }

  /** Cuts the client off from every member, or reaches them again; nothing says so to either side. */
  get cut(): boolean {
    return this.#cut
  }
  set cut(cut: boolean) {
    this.#cut = cut
    this.#etcd.announce()
  }

  /** Of the writes from now on so many are done, but the answer never comes. */
  loseReplies(count: number): void {
    this.#repliesToLose = count
  }

  /** Of the transactions from now on so many get stuck on the way: no answer comes, and they arrive when released. */
  holdWrites(count: number): void {
    this.#writesToHold = count
  }

  releaseWrites(): void {
    for (const txn of this.#held.splice(0)) this.#etcd.txn(txn)
  }

  takeLostReply(): boolean {
    if (this.#repliesToLose === 0) return false
    this.#repliesToLose -= 1
    return true
  }

  get isClosed(): boolean {
    return this.#closed
  }

  check(signal: AbortSignal | undefined): void {
    if (signal?.aborted) throw new EtcdError('cancelled', 'the call was cancelled')
    if (this.#closed) throw new EtcdError('unavailable', 'the client of etcd is closed')
  }

  /** The member that the next call goes to: the one in use, unless nobody listens there. */
  pick() {
    for (let i = 0; i < this.#endpoints.length; i++) {
      const member = this.#etcd.memberAt(this.#endpoints[this.#current] ?? '')
      if (member && member.state !== 'down') return member
      this.avoidEndpoint()
    }
    return undefined
  }

  avoidEndpoint(): void {
    this.#current = (this.#current + 1) % Math.max(1, this.#endpoints.length)
  }

  useEndpoints(endpoints: readonly string[]): void {
    this.#endpoints = endpoints
    this.#current = 0
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    if (this.#writesToHold > 0) {
      this.#writesToHold -= 1
      this.#held.push(txn)
      await this.#etcd.travel(options.signal)
      throw new EtcdError('outcomeUnknown', 'the link broke before the answer came')
    }
    return this.#etcd.call(this, 'write', options, () => this.#etcd.txn(txn))
  }

  async range(request: RangeRequest, options: CallOptions = {}): Promise<RangeResult> {
    return this.#etcd.call(this, 'read', options, () => this.#etcd.range(request))
  }

  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchBatch> {
    return this.#etcd.watch(this, request, signal)
  }

  async leaseGrant(ttlSeconds: number, options: CallOptions = {}): Promise<Lease> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.leaseGrant(ttlSeconds))
  }

  async leaseKeepAlive(leaseId: string, options: CallOptions = {}): Promise<Lease> {
    return this.#etcd.call(this, 'read', options, () => this.#etcd.leaseKeepAlive(leaseId))
  }

  async leaseRevoke(leaseId: string, options: CallOptions = {}): Promise<void> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.leaseRevoke(leaseId))
  }

  async compact(revision: number, options: CallOptions = {}): Promise<void> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.compact(revision))
  }

  async memberList(options: CallOptions = {}): Promise<readonly EtcdMember[]> {
    return this.#etcd.call(this, 'read', options, () => this.#etcd.memberList())
  }

  async memberAdd(
    request: { readonly peerUrls: readonly string[]; readonly learner: boolean },
    options: CallOptions = {},
  ): Promise<EtcdMember> {
    return this.#etcd.call(this, 'write', options, () =>
      this.#etcd.memberAdd(request.peerUrls, request.learner),
    )
  }

  async memberPromote(memberId: string, options: CallOptions = {}): Promise<void> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.memberPromote(memberId))
  }

  async memberRemove(memberId: string, options: CallOptions = {}): Promise<void> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.memberRemove(memberId))
  }

  async memberUpdate(
    memberId: string,
    peerUrls: readonly string[],
    options: CallOptions = {},
  ): Promise<void> {
    return this.#etcd.call(this, 'write', options, () =>
      this.#etcd.memberUpdate(memberId, peerUrls),
    )
  }

  async moveLeader(toMemberId: string, options: CallOptions = {}): Promise<void> {
    return this.#etcd.call(this, 'write', options, () => this.#etcd.moveLeader(toMemberId))
  }

  async status(options: CallOptions & { readonly endpoint?: string } = {}): Promise<EtcdStatus> {
    this.check(options.signal)
    const member = options.endpoint ? this.#etcd.memberAt(options.endpoint) : this.pick()
    await this.#etcd.travel(options.signal)
    if (!member || this.#cut || member.state === 'down' || member.state === 'paused') {
      throw new EtcdError('unavailable', 'this member of etcd can not be reached')
    }
    return this.#etcd.statusOf(member)
  }

  async *snapshot(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    yield await this.#etcd.call(this, 'read', { signal }, () => this.#etcd.dump())
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#etcd.announce()
  }
}

/** A call of its own, because a member's state changes while others wait. */
function isDown(member: Member): boolean {
  return member.state === 'down'
}

function isInside(key: string, from: string, end: string | undefined): boolean {
  return end === undefined ? key === from : key >= from && key < end
}
