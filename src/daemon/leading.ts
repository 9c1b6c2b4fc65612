import { messageOf, type Portions, untilAborted, within } from '../base/index.ts'
import { isRefused, type ManagerWord, type Transport } from '../cluster/index.ts'
import { type Manager, startManager } from '../manager/index.ts'
import { idFrom, type NodeId } from '../model/index.ts'
import type { Keyring } from '../security/index.ts'
import {
  type Election,
  type EtcdClient,
  type EtcdStore,
  type Leader,
  type Leadership,
  openElection,
} from '../store/etcd/index.ts'
import type { LeaderEpoch, Store } from '../store/index.ts'
import type { MemberWorld } from './host.ts'
import { LeaderEar } from './leader-ear.ts'
import { keepRoster } from './roster.ts'

export interface LeadingOptions {
  readonly world: Pick<MemberWorld, 'clock' | 'random' | 'log'>
  readonly nodeId: NodeId
  /** Of this node's cluster port. */
  readonly address: string
  readonly store: Store
  readonly keyring: Pick<Keyring, 'unseal'>
  /** How the other managers are reached. */
  readonly transport: () => Transport
  /** Default: the usual ones. */
  readonly portions?: Portions
  /** Another one leads now, or nobody, or this manager. */
  readonly changed: () => void
}

/** The etcd that the managers share, as this one reaches it. */
type SharedEtcd = { readonly client: EtcdClient }

/** The state in it. */
type SharedStore = Store & Pick<EtcdStore, 'barrier' | 'keepCompacted'>

/** Before a manager that is no longer to be one looks whether it may lead again, in ms. */
const demotedLookMs = 500
/** Between two attempts to reach a leader whose session has ended, in ms. */
const refusalsApartMs = 150
/** For a leader that is quiet to take a connection, in ms. */
const unreachableMs = 700
/** For etcd to take its leadership then, in ms: after it the lease has ended anyway. */
const deposeMs = 2_000
/** Refusals of its host after which its daemon counts as ended. */
const refusalsMin = 2

/** Whether this manager leads, and the loops that run only while it does. */
export class Leading {
  readonly #options: LeadingOptions
  #manager: Manager | undefined
  #epoch: number | undefined
  /** Loops of earlier leaderships that have yet to notice their end. */
  readonly #ending = new Set<Promise<void>>()
  #election: Election | undefined
  readonly #ear = new LeaderEar()
  /** Of the leader, if it has ended its session with this node, or fallen silent in it. */
  #goneEpoch: number | undefined
  /** The last one that led and was another. */
  #former: Leader | undefined
  /** Of an attempt to take leadership from one that seems gone. */
  #deposing: AbortController | undefined
  #electing: { readonly stop: AbortController; readonly done: Promise<void> } | undefined

  constructor(options: LeadingOptions) {
    this.#options = options
  }

  /** The loops, while this manager leads. */
  get manager(): Manager | undefined {
    return this.#manager
  }

  /** The epoch of those loops. */
  get epoch(): number | undefined {
    return this.#manager && this.#epoch
  }

  /** Who leads where there are several managers, as far as this one knows. */
  get leader(): Leader | undefined {
    return this.#election?.leader
  }

  /** As `leader`, but for one that has gone, though its lease has not ended yet. */
  get livingLeader(): Leader | undefined {
    const { leader } = this
    return leader?.epoch === this.#goneEpoch ? undefined : leader
  }

  /** What this node hears in its session with the leader. */
  hear(word: ManagerWord): void {
    const { clock, log } = this.#options.world
    this.#ear.hear(word, clock.nowMs())
    const { leader } = this
    if (leader?.address !== word.address) return
    this.#goneEpoch = word.type === 'speaks' ? undefined : leader.epoch
    if (word.type === 'speaks') {
      this.#deposing?.abort()
      this.#deposing = undefined
    }
    if (word.type !== 'ended' && word.type !== 'quiet') return
    const stop = this.#electing?.stop.signal
    if (!stop || (this.#deposing && !this.#deposing.signal.aborted)) return
    const deposing = new AbortController()
    this.#deposing = deposing
    const signal = AbortSignal.any([stop, deposing.signal])
    const work =
      word.type === 'ended'
        ? this.#deposeIfRefused(leader, signal)
        : this.#deposeIfUnreachable(leader, signal)
    work
      .catch((error: unknown) =>
        log.warn('a leader that has gone could not be deposed', { error: messageOf(error) }),
      )
      .finally(() => deposing.abort())
  }

  /**
   * A leader that says nothing, and whose host takes no connection either, is off or stands still: nobody has to wait for the end
   * of its lease. Its node gets the time of any other that fell silent.
   */
  async #deposeIfUnreachable({ address, epoch }: Leader, signal: AbortSignal): Promise<void> {
    const { world, transport } = this.#options
    try {
      const stream = await within(world.clock, unreachableMs, (late) =>
        transport().connect(address, { type: 'cluster' }, AbortSignal.any([signal, late])),
      )
      stream.close()
      return
    } catch {
      if (signal.aborted || this.leader?.epoch !== epoch) return
    }
    world.log.info('the leader can not be reached: another one is elected at once', { address })
    // Later it would be an old judgement: this manager may be the one that was cut off, and be back.
    await within(world.clock, deposeMs, async (old) =>
      this.#election?.depose(epoch, AbortSignal.any([signal, old])),
    )
  }

  /** A leader whose host refuses connections has no daemon any more: nobody has to wait for the end of its lease. */
  async #deposeIfRefused({ address, epoch }: Leader, signal: AbortSignal): Promise<void> {
    const { world, transport } = this.#options
    const { clock, log } = world
    for (let refusals = 0; refusals < refusalsMin; refusals++) {
      await clock.sleep(refusalsApartMs, signal)
      if (signal.aborted || this.leader?.epoch !== epoch) return
      try {
        const stream = await transport().connect(address, { type: 'cluster' }, signal)
        stream.close()
        return
      } catch (error) {
        if (!isRefused(error)) return
      }
    }
    log.info('the daemon of the leader has ended: another one is elected at once', { address })
    await this.#election?.depose(epoch, signal)
  }

  /** Leads as the only manager. */
  async alone(epochs: LeaderEpoch): Promise<void> {
    this.#start(await epochs.advanceEpoch())
  }

  /** Takes part in the election among the managers from now on. */
  elect(etcd: SharedEtcd, store: SharedStore): void {
    const { world, nodeId, address, changed } = this.#options
    const { clock, log } = world
    const stop = new AbortController()
    const election = openElection({
      client: etcd.client,
      clock,
      log,
      candidate: { id: nodeId, address },
    })
    this.#election = election
    election.subscribe((leader) => {
      if (leader && leader.id !== nodeId) this.#former = leader
      changed()
    })
    this.#electing = { stop, done: this.#campaign(election, etcd, store, stop.signal) }
  }

  /** Ends the loops, and gives leadership up where there are others to take it. */
  async close(): Promise<void> {
    const electing = this.#electing
    electing?.stop.abort()
    this.#stop()
    await electing?.done
    await this.#election?.close()
    this.#election = undefined
    this.#electing = undefined
    await Promise.all(this.#ending)
  }

  async #campaign(
    election: Election,
    etcd: SharedEtcd,
    store: SharedStore,
    signal: AbortSignal,
  ): Promise<void> {
    const { nodeId, world } = this.#options
    const { clock, log } = world
    while (!signal.aborted) {
      if (store.view.get('node', nodeId)?.spec.role === 'worker') {
        await clock.sleep(demotedLookMs, signal)
        continue
      }
      const leadership = await election.campaign(signal)
      if (!leadership) return
      try {
        // The first decision is made on everything that leaders before have done.
        await store.barrier()
        await this.#lead(leadership, etcd, store, signal)
      } catch (error) {
        log.warn('this manager was elected and could not lead', { error: messageOf(error) })
      }
      await leadership.resign()
    }
  }

  /** Returns when this manager leads no longer. */
  async #lead(
    leadership: Leadership,
    etcd: SharedEtcd,
    store: SharedStore,
    signal: AbortSignal,
  ): Promise<void> {
    const { world, nodeId } = this.#options
    const over = AbortSignal.any([leadership.lost, signal])
    if (over.aborted) return
    const manager = this.#start(leadership.epoch)
    const resigning = new AbortController()
    try {
      const duties = AbortSignal.any([over, resigning.signal])
      const roster = keepRoster({
        store,
        client: etcd.client,
        nodeId,
        epoch: leadership.epoch,
        isInSession: (id) => manager.dispatcher.isInSession(id),
        resign: () => resigning.abort(),
        clock: world.clock,
        log: world.log,
        signal: duties,
      })
      void store.keepCompacted(duties)
      await untilAborted(duties)
      this.#stop()
      resigning.abort()
      await roster
    } finally {
      this.#stop()
    }
  }

  #start(epoch: number): Manager {
    const { world, store, keyring, nodeId, portions, changed } = this.#options
    const { clock, random, log } = world
    const former = this.#former
    const predecessor =
      former && this.#ear.predecessor(idFrom(former.id), former.address, clock.nowMs())
    const manager = startManager({
      store,
      epoch,
      ...(predecessor && { predecessor }),
      unseal: (sealed, aad) => keyring.unseal(sealed, aad),
      localNodeId: nodeId,
      clock,
      random,
      log,
      ...(portions && { portions }),
    })
    this.#manager = manager
    this.#epoch = epoch
    changed()
    return manager
  }

  /** At once for everyone else; what the loops have under way is refused by its epoch. */
  #stop(): void {
    const manager = this.#manager
    if (!manager) return
    this.#manager = undefined
    this.#former = undefined
    const ended = manager.close().finally(() => this.#ending.delete(ended))
    this.#ending.add(ended)
    this.#options.changed()
  }
}
