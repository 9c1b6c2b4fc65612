import { type Agent, startAgent } from '../agent/index.ts'
import { writeBackup } from '../backup/index.ts'
import { messageOf, UserError } from '../base/index.ts'
import { openClusterLogs } from '../cluster/index.ts'
import { type Control, openControl } from '../control/index.ts'
import { networkAssignment } from '../dispatcher/index.ts'
import { type Manager, startManager } from '../manager/index.ts'
import type { Network, NetworkAttachment, NetworkId } from '../model/index.ts'
import { bridgeName, type DataPlane } from '../network/index.ts'
import type { Runtime } from '../runtime/index.ts'
import { type Keyring, openKeyring, parseUnlockKey } from '../security/index.ts'
import { type LeaderEpoch, nextCommit, openSqliteStore, type Store } from '../store/index.ts'
import type { LogSource } from '../wire/index.ts'
import { clearHost, type MemberWorld, openHost } from './host.ts'
import { hostSubnets } from './host-facts.ts'
import { dataPaths, type Identity } from './identity.ts'
import { ManagerPort } from './manager-port.ts'
import { type PlainContainers, watchPlainContainers } from './plain-containers.ts'
import { version } from './version.ts'

/** A container's place on an attachable cluster network. */
export interface ReservedAddress {
  readonly address: string
  readonly mac: string
  readonly engineNetwork: string
  readonly nameservers: readonly string[]
}

/** How long an address stays reserved for a container that has not shown up, in ms. */
const attachmentGraceMs = 60_000

/** This node while it is in a cluster: store, manager and agent together. */
export class Member {
  readonly identity: Identity
  readonly store: Store & LeaderEpoch
  readonly control: Control
  readonly manager: Manager
  readonly agent: Agent
  readonly runtime: Runtime
  readonly keyring: Keyring
  readonly port: ManagerPort
  /** Logs of tasks on every node. */
  readonly logs: LogSource
  readonly #world: MemberWorld
  readonly #dataPlane: DataPlane
  readonly #plain: PlainContainers
  readonly #unfollowLock: () => void
  #sweeping = false

  private constructor(
    world: MemberWorld,
    identity: Identity,
    parts: {
      readonly store: Store & LeaderEpoch
      readonly keyring: Keyring
      readonly manager: Manager
      readonly runtime: Runtime
      readonly dataPlane: DataPlane
      readonly port: ManagerPort
    },
  ) {
    this.#world = world
    this.identity = identity
    this.store = parts.store
    this.keyring = parts.keyring
    this.manager = parts.manager
    this.runtime = parts.runtime
    this.#dataPlane = parts.dataPlane
    this.port = parts.port
    this.logs = openClusterLogs({
      view: () => this.store.view,
      nodeId: identity.nodeId,
      local: parts.runtime,
      port: () => this.port.port,
    })
    const { clock, random, log, engine } = world
    this.control = openControl({ store: parts.store, clock, random, sealer: parts.keyring })
    this.#plain = watchPlainContainers({
      engine,
      clock,
      log,
      changed: () => this.agent.plainContainersChanged(),
      gone: () => void this.#sweepAttachments(),
    })
    this.agent = startAgent({
      nodeId: identity.nodeId,
      runtime: parts.runtime,
      dataPlane: parts.dataPlane,
      link: parts.manager.link,
      clock,
      log,
      describeHost: async () => this.#describeHost(),
      plainContainers: () => this.#plain.list(),
    })
    this.port.onRenewed(() => void this.agent.describeAgain())
    this.#unfollowLock = this.#followLock()
  }

  /** Opens the cluster's state on this node and starts working. */
  static async open(
    world: MemberWorld,
    identity: Identity,
    unlockKey?: Uint8Array,
  ): Promise<Member> {
    const { options, clock, random, log } = world
    const paths = dataPaths(options.dataRoot)
    const keyring = await openKeyring({ path: paths.keys, ...(unlockKey ? { unlockKey } : {}) })
    const store = await openSqliteStore({ path: paths.store, clock, log })
    try {
      const [cluster] = store.view.list('cluster')
      const id = cluster?.id
      if (id === undefined) {
        throw new UserError('internal', `${paths.store} holds no cluster`, {
          next: 'Leave with `docker swarm leave --force`, or restore a backup.',
        })
      }
      const { runtime, dataPlane } = await openHost(world, identity, id)
      const epoch = await store.advanceEpoch()
      const manager = startManager({
        store,
        epoch,
        unseal: (sealed, aad) => keyring.unseal(sealed, aad),
        localNodeId: identity.nodeId,
        clock,
        random,
        log,
      })
      const port = await ManagerPort.open({
        world,
        identity,
        store,
        keyring,
        dispatcher: () => manager.dispatcher,
      })
      return new Member(world, identity, { store, keyring, manager, runtime, dataPlane, port })
    } catch (error) {
      await store.close()
      throw error
    }
  }

  /**
   * Brings the lock of the data keys on this node's disk in step with what the cluster says. Resolves once it is durable.
   * Every manager does so for its own disk.
   */
  async keepLocked(): Promise<void> {
    const [cluster] = this.store.view.list('cluster')
    if (!cluster) return
    const sealed = cluster.spec.autoLock ? cluster.status.unlockKey : undefined
    const key =
      sealed &&
      parseUnlockKey(new TextDecoder().decode(this.keyring.unseal(sealed, `${cluster.id}/unlock`)))
    await this.keyring.lockWith(key)
    await this.port.keepSealed(key && this.keyring)
  }

  #followLock(): () => void {
    const { log } = this.#world
    const keep = () =>
      this.keepLocked().catch((error: unknown) =>
        log.error('the data keys could not be locked as the swarm wants it', {
          error: messageOf(error),
        }),
      )
    void keep()
    return this.store.subscribe(({ changes }) => {
      if (changes.some(({ kind }) => kind === 'cluster')) void keep()
    })
  }

  #describeHost() {
    const { dataPathAddress } = this.identity
    const ownBridges = new Set([...this.store.view.list('network')].map(({ id }) => bridgeName(id)))
    return {
      skepVersion: version,
      hostSubnets: hostSubnets((name) => ownBridges.has(name)),
      tls: this.port.tls,
      ...(dataPathAddress === undefined ? {} : { dataPathAddress }),
    }
  }

  // ---- Plain containers on attachable networks ----

  /** Takes an address for a container that a person creates or connects; durable before it is used. */
  async reserve(
    networkId: NetworkId,
    container: string,
    requestedAddress?: string,
  ): Promise<ReservedAddress> {
    const { nodeId } = this.identity
    const createdAtMs = this.#world.clock.nowMs()
    let taken: { readonly address: string; readonly mac: string } | undefined
    const network = await this.#changeNetwork(networkId, (before) => {
      taken = this.manager.allocator.freeAddress(networkId, requestedAddress)
      const attachments = [
        ...(before.status.attachments ?? []),
        { nodeId, container, createdAtMs, ...taken },
      ]
      return { ...before, status: { ...before.status, attachments } }
    })
    const assignment = networkAssignment(network, nodeId)
    if (!assignment || !taken) {
      throw new UserError(
        'unavailable',
        `network ${network.name} has no subnet: ${network.status.error ?? 'it is being allocated'}`,
      )
    }
    try {
      const engineNetwork = await this.#dataPlane.ensureNetwork(assignment)
      return { ...taken, engineNetwork, nameservers: this.#dataPlane.nameserversFor([assignment]) }
    } catch (error) {
      await this.release(networkId, container)
      throw error
    }
  }

  async release(networkId: NetworkId, container: string): Promise<void> {
    await this.#keepAttachments(networkId, (attachment) => attachment.container !== container)
  }

  async #keepAttachments(
    id: NetworkId,
    isKept: (attachment: NetworkAttachment) => boolean,
  ): Promise<void> {
    await this.#changeNetwork(id, (network) => ({
      ...network,
      status: { ...network.status, attachments: (network.status.attachments ?? []).filter(isKept) },
    }))
  }

  /** Frees the addresses of containers that the engine no longer knows. */
  async #sweepAttachments(): Promise<void> {
    if (this.#sweeping) return
    this.#sweeping = true
    try {
      const known = await this.#plain.known()
      const nowMs = this.#world.clock.nowMs()
      const isKept = ({ container, nodeId, createdAtMs }: NetworkAttachment) =>
        nodeId !== this.identity.nodeId ||
        known.has(container) ||
        nowMs - createdAtMs < attachmentGraceMs
      for (const { id, status } of [...this.store.view.list('network')]) {
        if (status.attachments && !status.attachments.every(isKept))
          await this.#keepAttachments(id, isKept)
      }
    } catch (error) {
      this.#world.log.debug('attachments could not be swept', { error: messageOf(error) })
    } finally {
      this.#sweeping = false
    }
  }

  async #changeNetwork(id: NetworkId, change: (network: Network) => Network): Promise<Network> {
    for (;;) {
      const network = this.store.view.get('network', id)
      if (!network) throw new UserError('notFound', `network ${id} not found`)
      try {
        await this.store.commit([{ type: 'update', object: change(network) }])
        return network
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(this.store, this.#world.clock)
      }
    }
  }

  /** The whole state of the cluster as of now, encrypted. */
  backup(passphrase: string): AsyncIterable<Uint8Array> {
    const { nodeId } = this.identity
    const [cluster] = this.store.view.list('cluster')
    const head = {
      clusterId: cluster?.id ?? '',
      nodeId,
      takenAtMs: this.#world.clock.nowMs(),
      skepVersion: version,
      keys: this.keyring.exportKeys(),
    }
    return writeBackup(this.store.view, head, passphrase)
  }

  /** Stops working; containers, traffic and names go on. */
  async close(): Promise<void> {
    this.#unfollowLock()
    await this.#plain.close()
    await this.port.close()
    await this.agent.close()
    await this.manager.close()
    await this.#dataPlane.close()
    await this.store.close()
  }

  /** Ends every task of the cluster on this host and removes what it needed. */
  async destroy(): Promise<void> {
    this.#unfollowLock()
    await this.#plain.close()
    await this.port.close()
    await this.agent.close()
    await this.manager.close()
    await clearHost(this.#world, this.runtime, this.#dataPlane)
    await this.store.close()
  }

  /** As `destroy`, for a member whose keys nobody has unlocked. */
  static async destroyLocked(world: MemberWorld, identity: Identity): Promise<void> {
    const { options, clock, log } = world
    const store = await openSqliteStore({ path: dataPaths(options.dataRoot).store, clock, log })
    try {
      const [cluster] = store.view.list('cluster')
      if (!cluster) return
      const { runtime, dataPlane } = await openHost(world, identity, cluster.id)
      await clearHost(world, runtime, dataPlane)
    } finally {
      await store.close()
    }
  }
}
