import type { Log, Random } from '../base/index.ts'
import type { AnyObject } from '../model/index.ts'
import type {
  CallOptions,
  EtcdClient,
  Op,
  Txn,
  TxnResult,
  WatchRequest,
} from '../store/etcd/client.ts'
import { type EtcdStore, openEtcdStore } from '../store/etcd/etcd-store.ts'
import { decodeObject, defaultPrefix, Layout } from '../store/etcd/layout.ts'
import {
  type SimulatedClient,
  SimulatedEtcd,
  type SimulatedEtcdOptions,
} from '../store/etcd/simulated-etcd.ts'
import type { ValueCodec } from '../store/index.ts'
import type { Host } from './host.ts'
import type { SimulatedProcess } from './process.ts'
import { sharedValues } from './shared-values.ts'

/** Told of everything that etcd's state machine does, at the moment it does it. */
export interface EtcdWitness {
  committed(
    revision: number,
    put: readonly AnyObject[],
    removed: readonly { kind: AnyObject['kind']; id: string }[],
  ): void
  epochBegan(epoch: number): void
  memberRemoved(memberId: string): void
}

const layout = new Layout(defaultPrefix)

/** The managers' etcd, with somebody who sees each transaction as it takes effect. */
class WitnessedEtcd extends SimulatedEtcd {
  readonly #values: ValueCodec
  readonly #witness: EtcdWitness

  constructor(options: SimulatedEtcdOptions, values: ValueCodec, witness: EtcdWitness) {
    super(options)
    this.#values = values
    this.#witness = witness
  }

  override txn(txn: Txn): TxnResult {
    const result = super.txn(txn)
    this.#tell(result.succeeded ? txn.apply : (txn.otherwise ?? []), result.revision)
    return result
  }

  override memberRemove(memberId: string): void {
    super.memberRemove(memberId)
    this.#witness.memberRemoved(memberId)
  }

  #tell(ops: readonly Op[], revision: number): void {
    const put: AnyObject[] = []
    const removed: { kind: AnyObject['kind']; id: string }[] = []
    for (const op of ops) {
      if (op.type === 'put' && op.key === layout.epoch) this.#witness.epochBegan(Number(op.value))
      if (op.type === 'range') continue
      const target = layout.parseObjectKey(op.key)
      if (!target) continue
      if (op.type === 'delete') removed.push(target)
      else {
        const kv = {
          key: op.key,
          value: op.value,
          createRevision: revision,
          modRevision: revision,
          version: 1,
        }
        put.push(decodeObject(this.#values, kv, { ...target, offset: 0 }).object)
      }
    }
    if (put.length > 0 || removed.length > 0) this.#witness.committed(revision, put, removed)
  }
}

/** The durable state of a cluster with several managers, each on a machine of its own. */
export class ReplicatedState {
  readonly etcd: WitnessedEtcd
  readonly #values = sharedValues()
  #hosts: readonly Host[] = []
  readonly #clients = new Map<SimulatedProcess, SimulatedClient>()
  #foundersToCome: number

  constructor(options: SimulatedEtcdOptions & { readonly members: number }, witness: EtcdWitness) {
    this.#foundersToCome = options.members
    this.etcd = new WitnessedEtcd(options, this.#values, witness)
  }

  /** Machines whose etcd is one of the managers' now. */
  get hosts(): readonly Host[] {
    return this.#hosts
  }

  /** The first machines are members from the beginning on. */
  addFounder(host: Host, peerUrl: string): void {
    if (this.#foundersToCome === 0) return
    this.#foundersToCome -= 1
    const [member] = this.etcd.memberList().slice(this.#hosts.length)
    if (!member) throw new Error('broken invariant: each founder has a member')
    this.etcd.memberUpdate(member.memberId, [peerUrl])
    host.role = 'manager'
    host.etcdState = 'up'
    this.addMember(host, member.memberId)
  }

  /** A machine starts its etcd as the member that it was let in as. */
  addMember(host: Host, memberId: string): void {
    host.memberId = memberId
    this.etcd.nameMember(memberId, host.nodeId)
    if (!this.#hosts.includes(host)) this.#hosts = [...this.#hosts, host]
  }

  /** Its etcd ends there, whether it was removed or never came to be one of them. */
  forget(host: Host): void {
    host.memberId = undefined
    host.etcdState = 'down'
    this.#hosts = this.#hosts.filter((other) => other !== host)
  }

  /** What a manager's process opens: it talks to the etcd of its own machine. */
  async open(
    host: Host,
    process: SimulatedProcess,
    random: Random,
    log: Log,
  ): Promise<{ readonly store: EtcdStore; readonly client: EtcdClient }> {
    const member = host.memberId === undefined ? undefined : this.etcd.indexOf(host.memberId)
    if (member === undefined) throw new Error(`${host.name} is no member of the managers' etcd`)
    const raw = this.etcd.client({ member, fixed: true })
    this.#clients.set(process, raw)
    process.onKilled(() => {
      this.#clients.delete(process)
      void raw.close()
    })
    const client = clientFor(process, raw)
    const { clock } = process
    const store = await openEtcdStore({ client, values: this.#values, clock, random, log })
    return { store, client }
  }

  hostOf(memberId: string): Host | undefined {
    return this.#hosts.find((host) => host.memberId === memberId)
  }

  clientOf(process: SimulatedProcess): SimulatedClient | undefined {
    return this.#clients.get(process)
  }

  /** Members follow their machines: without power they are down, without a majority in reach they are cut off. */
  follow(areJoined: (a: Host, b: Host) => boolean): void {
    for (const host of this.hosts) {
      const index = host.memberId === undefined ? undefined : this.etcd.indexOf(host.memberId)
      if (index === undefined) continue
      const reached = this.hosts.filter(
        (other) => other === host || (other.isUp && areJoined(host, other)),
      )
      const state = !host.isUp
        ? 'down'
        : host.isEtcdPaused
          ? 'paused'
          : reached.length * 2 > this.hosts.length
            ? 'up'
            : 'cut'
      if (host.etcdState === state) continue
      host.etcdState = state
      this.etcd.setMember(index, state)
    }
  }

  get hasLeader(): boolean {
    return this.etcd.leaderIndex !== undefined
  }
}

/** A client of etcd as one process sees it. */
function clientFor(process: SimulatedProcess, raw: EtcdClient): EtcdClient {
  return {
    txn: (txn, options) => process.gate(raw.txn(txn, options)),
    range: (request, options) => process.gate(raw.range(request, options)),
    watch: (request, signal) => watchFor(process, raw, request, signal),
    leaseGrant: (ttlSeconds, options) => process.gate(raw.leaseGrant(ttlSeconds, options)),
    leaseKeepAlive: (leaseId, options) => process.gate(raw.leaseKeepAlive(leaseId, options)),
    leaseRevoke: (leaseId, options) => process.gate(raw.leaseRevoke(leaseId, options)),
    compact: (revision, options) => process.gate(raw.compact(revision, options)),
    memberList: (options?: CallOptions) => process.gate(raw.memberList(options)),
    memberAdd: (request, options) => process.gate(raw.memberAdd(request, options)),
    memberPromote: (memberId, options) => process.gate(raw.memberPromote(memberId, options)),
    memberRemove: (memberId, options) => process.gate(raw.memberRemove(memberId, options)),
    memberUpdate: (memberId, peerUrls, options) =>
      process.gate(raw.memberUpdate(memberId, peerUrls, options)),
    status: (options) => process.gate(raw.status(options)),
    snapshot: (signal) => raw.snapshot(signal),
    moveLeader: (toMemberId, options) => process.gate(raw.moveLeader(toMemberId, options)),
    useEndpoints: (endpoints) => raw.useEndpoints(endpoints),
    avoidEndpoint: () => raw.avoidEndpoint(),
    close: () => process.gate(raw.close()),
  }
}

async function* watchFor(
  process: SimulatedProcess,
  raw: EtcdClient,
  request: WatchRequest,
  signal: AbortSignal,
) {
  const batches = raw.watch(request, signal)[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await process.gate(batches.next())
      if (done) return
      yield value
    }
  } finally {
    void batches.return?.()
  }
}
