import { rm } from 'node:fs/promises'
import { type Agent, startAgent } from '../agent/index.ts'
import { writeBackup } from '../backup/index.ts'
import { assert, messageOf, UserError } from '../base/index.ts'
import {
  type AttachmentDesk,
  type Closing,
  examineNetworks,
  type NetworkReport,
  openClusterLogs,
  openRemoteDesk,
  openRemoteLink,
} from '../cluster/index.ts'
import { type Control, findObject, openControl } from '../control/index.ts'
import { idFrom, type NodeId, stateSinceMs } from '../model/index.ts'
import { bridgeName, type DataPlane, type Encryption } from '../network/index.ts'
import type { Runtime } from '../runtime/index.ts'
import { type Keyring, parseUnlockKey } from '../security/index.ts'
import {
  type EtcdClient,
  type EtcdStore,
  migrateToEtcd,
  OutcomeUnknownError,
  openEtcdStore,
} from '../store/etcd/index.ts'
import {
  type LeaderEpoch,
  nextCommit,
  openSqliteStore,
  readStoredClusterId,
  type Store,
  sealedValues,
} from '../store/index.ts'
import type { LogSource } from '../wire/index.ts'
import { openAttachmentDesk } from './attachment-desk.ts'
import { clearHost, describeEncryption, type MemberWorld, openHost, servicesOf } from './host.ts'
import { hostSubnets, isOwnAddress } from './host-facts.ts'
import { dataPaths, type Identity, writeIdentity } from './identity.ts'
import { LeaderLink, otherManagersOf } from './leader-link.ts'
import { Leading } from './leading.ts'
import { ManagerAdmission } from './manager-admission.ts'
import { ManagerPort } from './manager-port.ts'
import { MemberEtcd } from './member-etcd.ts'
import { MemberStore } from './member-store.ts'
import { openNetworkExaminer } from './network-examiner.ts'
import { NodeAttachments } from './node-attachments.ts'
import { NodeCertificates } from './node-certificates.ts'
import { openFileJournal } from './node-journal.ts'
import { hostOf } from './own-address.ts'
import { type PlainContainers, watchPlainContainers } from './plain-containers.ts'
import { describeQuorumLoss } from './quorum-loss.ts'
import { settleAddress } from './settle-address.ts'
import { version } from './version.ts'

/** For the others to remove a manager that leaves, in ms: they do so only while all have been in reach for 5 s. */
const removalMs = 15_000

/** For one manager's etcd to be started anew and catch up, in ms, before the next one's is. */
const etcdRestartMs = 15_000

/** For a leader whose host stops to write that down, in ms. */
const goodbyeMs = 2_000

/** The state as this manager shares it with others. */
export interface SharedState {
  readonly etcd: MemberEtcd
  readonly store: EtcdStore
  readonly certificates: NodeCertificates
}

/** This node while it is a manager: store, manager and agent together. */
export class Member {
  readonly identity: Identity
  readonly store: Store
  readonly control: Control
  readonly agent: Agent
  readonly runtime: Runtime
  readonly keyring: Keyring
  readonly port: ManagerPort
  /** Logs of tasks on every node. */
  readonly logs: LogSource
  /** Places of this node's plain containers on attachable networks. */
  readonly attachments: NodeAttachments
  readonly #world: MemberWorld
  readonly #dataPlane: DataPlane
  readonly #encryption: Encryption
  readonly #plain: PlainContainers
  readonly #unfollowLock: () => void
  /** One change of the lock at a time. */
  #locking: Promise<void> = Promise.resolve()
  /** This node is about to be no manager any more. */
  #isLockOver = false
  readonly #leading: Leading
  /** The only manager's own store, until it is shared. */
  readonly #alone: (Store & LeaderEpoch) | undefined
  #shared: { readonly etcd: MemberEtcd; readonly store: EtcdStore } | undefined
  readonly #switched: MemberStore
  /** The agent's way to whoever leads. */
  readonly #link: LeaderLink
  #removed = () => {}
  readonly #closing = new AbortController()
  #quorumTrouble: string | undefined
  #closesBecause: Closing | undefined

  private constructor(
    world: MemberWorld,
    identity: Identity,
    parts: {
      readonly store: MemberStore
      readonly alone: (Store & LeaderEpoch) | undefined
      readonly shared: SharedState | undefined
      readonly leading: Leading
      readonly keyring: Keyring
      readonly runtime: Runtime
      readonly dataPlane: DataPlane
      readonly encryption: Encryption
      readonly port: ManagerPort
    },
  ) {
    this.#world = world
    this.identity = identity
    this.store = parts.store
    this.#switched = parts.store
    this.#alone = parts.alone
    this.#shared = parts.shared
    this.#leading = parts.leading
    this.keyring = parts.keyring
    this.runtime = parts.runtime
    this.#dataPlane = parts.dataPlane
    this.#encryption = parts.encryption
    this.port = parts.port
    this.logs = openClusterLogs({
      view: () => this.store.view,
      nodeId: identity.nodeId,
      local: parts.runtime,
      port: () => this.port.port,
    })
    const { clock, random, log, engine, options } = world
    this.control = openControl({ store: parts.store, clock, random, sealer: parts.keyring })
    this.attachments = this.#openAttachments()
    this.#plain = watchPlainContainers({
      engine,
      clock,
      log,
      changed: () => this.agent.plainContainersChanged(),
      gone: () => this.attachments.sweep(),
    })
    this.#link = this.#openLink()
    this.agent = startAgent({
      nodeId: identity.nodeId,
      runtime: parts.runtime,
      dataPlane: parts.dataPlane,
      link: this.#link,
      clock,
      log,
      // A single manager has its own state to go on with.
      ...(parts.shared && {
        journal: openFileJournal({
          path: dataPaths(options.dataRoot).journal,
          keyPem: parts.shared.certificates.keyPem,
        }),
      }),
      describeHost: async () => this.#describeHost(),
      plainContainers: () => this.#plain.list(),
    })
    this.port.onRenewed(() => {
      void this.#tellEtcd()
      void this.agent.describeAgain()
    })
    this.port.onTrust(() => void this.#tellEtcd())
    this.#unfollowLock = this.#followLock()
  }

  /** Opens the cluster's state on this node and starts working. `shared`: it is shared with other managers, and open. */
  static async open(
    world: MemberWorld,
    identity: Identity,
    given: { readonly keyring: Keyring; readonly shared?: SharedState },
  ): Promise<Member> {
    const { options, clock, log } = world
    const { keyring, shared } = given
    const paths = dataPaths(options.dataRoot)
    const alone = shared
      ? undefined
      : await openSqliteStore({ path: paths.store, keys: keyring.storeKeys(), clock, log })
    const opened = shared?.store ?? alone
    assert(opened !== undefined, 'a manager has a store')
    let member: Member | undefined
    const store = new MemberStore(opened, async (error) =>
      member ? member.#explain(error) : error,
    )
    try {
      const [cluster] = store.view.list('cluster')
      const id = cluster?.id
      if (id === undefined) {
        throw new UserError(
          'internal',
          `the state of this manager (${paths.cluster}) holds no cluster`,
          { next: 'Leave with `docker swarm leave --force`, or restore a backup.' },
        )
      }
      await settleAddress({
        ...{ world, identity, store: opened, keyring, etcd: shared?.etcd },
        certificates:
          shared?.certificates ?? (await NodeCertificates.open(options.dataRoot, keyring)),
      })
      const { runtime, dataPlane, encryption } = await openHost(world, identity, id)
      const { nodeId, address } = identity
      const leading = new Leading({
        world,
        nodeId,
        address,
        store,
        keyring,
        transport: () => memberOf(member).port.transport,
        changed: () => {
          if (member) member.#leaderChanged()
        },
      })
      if (alone) await leading.alone(alone)
      const port = await ManagerPort.open({
        world,
        identity,
        store,
        keyring,
        dispatcher: () => leading.manager?.dispatcher,
        leader: () => {
          const leader = leading.livingLeader
          return leader && { nodeId: idFrom(leader.id), address: leader.address }
        },
        ...(shared ? { certificates: shared.certificates } : {}),
        members: new ManagerAdmission({
          store,
          shared: () => memberOf(member).#shared?.etcd.client,
          share: () => memberOf(member).#etcdClient(),
          clock,
          log,
        }),
        attachments: (id) => (member ? member.#deskOf(id) : undefined),
        services: servicesOf(
          world,
          runtime,
          openNetworkExaminer({ dataPlane, agent: () => member?.agent, clock }),
        ),
      })
      const parts = { store, alone, shared, leading, keyring, runtime, dataPlane, encryption, port }
      member = new Member(world, identity, parts)
      if (shared) leading.elect(shared.etcd, shared.store)
      return member
    } catch (error) {
      await store.close()
      throw error
    }
  }

  /** Whether this manager leads now. */
  get isLeader(): boolean {
    return this.#leading.manager !== undefined
  }

  /** Calls back when the others have taken this node off the list of managers. */
  onRemoved(removed: () => void): void {
    this.#removed = removed
  }

  /** Why nothing can be stored, in words, or undefined. */
  quorumTrouble(): string | undefined {
    if (this.#shared?.store.quorumLostAtMs === undefined) return undefined
    return this.#quorumTrouble ?? 'no majority of the managers answers'
  }

  /** Names the managers that are missing, where the majority is. */
  async #explain(error: unknown): Promise<unknown> {
    const sinceMs = this.#shared?.store.quorumLostAtMs
    const isOther =
      !(error instanceof UserError) ||
      error.code !== 'unavailable' ||
      error.cause instanceof OutcomeUnknownError
    if (isOther) return error
    // One that the others have just let go hears from none of them, and that is as it should be.
    if (this.store.view.get('node', this.identity.nodeId)?.spec.role === 'worker') {
      return new UserError('unavailable', 'this node is no manager any more: it becomes a worker', {
        next: 'Run this on a manager.',
        cause: error,
      })
    }
    if (sinceMs === undefined) return error
    const others = [...this.store.view.list('node')].flatMap((node) =>
      node.manager && node.id !== this.identity.nodeId
        ? [
            {
              name: node.name,
              address: node.manager.address,
              ...(node.status.state === 'down' ? { sinceMs: stateSinceMs(node) } : {}),
            },
          ]
        : [],
    )
    const { clock } = this.#world
    const loss = await describeQuorumLoss(others, {
      transport: this.port.transport,
      clock,
      sinceMs,
    })
    this.#quorumTrouble = loss.message
    return loss
  }

  // ---- Finding the leader ----

  #leaderChanged(): void {
    this.port.leadershipChanged()
    this.#link.leaderChanged()
    this.agent.leaderChanged()
  }

  #openLink(): LeaderLink {
    const { clock, random, log } = this.#world
    const remote = openRemoteLink({
      transport: this.port.transport,
      clock,
      random,
      log,
      skepVersion: version,
      managers: () => this.#otherManagers(),
      learned: () => {}, // All that it says is in the state.
      isOwnAddress,
      asked: (ask) => this.port.answers.answer(ask),
      closing: () => this.#closesBecause,
      heard: (word) => this.#leading.hear(word),
    })
    return new LeaderLink(this.#leading, remote)
  }

  #otherManagers(): readonly string[] {
    return otherManagersOf(this.store.view, this.#leading, this.identity.nodeId)
  }

  // ---- Several managers ----

  /** Where the state is shared; it moves there first if it is not yet. */
  async #etcdClient(): Promise<EtcdClient> {
    const { etcd } = this.#shared ?? (await this.#share())
    return etcd.client
  }

  /** Moves the state from this manager's own file to where others can keep it too. Commits wait meanwhile; reads go on. */
  async #share(): Promise<{ readonly etcd: MemberEtcd; readonly store: EtcdStore }> {
    const { options, clock, random, log } = this.#world
    const { nodeId } = this.identity
    const paths = dataPaths(options.dataRoot)
    const from = this.#alone
    const [cluster] = this.store.view.list('cluster')
    assert(from !== undefined && cluster !== undefined, 'what is not shared is kept alone')
    // Others know this manager by the address in its certificate, which one of an earlier release lacks.
    await this.port.renewNow()
    // What a try that failed has left: the file is still what counts.
    await rm(paths.etcd, { recursive: true, force: true })
    const begin = { type: 'new', token: cluster.id } as const
    const { certificates } = this.port
    const etcd = await MemberEtcd.start(this.#world, this.identity, certificates, begin)
    try {
      await etcd.untilAnswers()
      const startedAtMs = clock.nowMs()
      let store: EtcdStore | undefined
      await this.#leading.close()
      await this.#switched.moveTo(async () => {
        const { client } = etcd
        const values = sealedValues(this.keyring.storeKeys())
        await migrateToEtcd({ from, client, values, clock, random, log })
        store = await openEtcdStore({ client, values, clock, random, log, writer: nodeId })
        await writeIdentity(options.dataRoot, { ...this.identity, store: 'etcd' })
        return store
      })
      assert(store !== undefined, 'the state has moved')
      const shared = { etcd, store }
      this.#shared = shared
      etcd.onRemoved(() => this.#removed())
      this.#leading.elect(etcd, store)
      log.info('the state is shared from now on', { waitedMs: clock.nowMs() - startedAtMs })
      for (const end of ['', '-wal', '-shm']) await rm(`${paths.store}${end}`, { force: true })
      return shared
    } catch (error) {
      if (!this.#shared) {
        if (!this.isLeader) await this.#leading.alone(from)
        await etcd.close()
      }
      throw error
    }
  }

  /**
   * Takes this manager off the list, before it leaves: it says so, and whoever leads then removes it. The others go on;
   * nothing may be asked of it afterwards. Rejects with `unavailable` when that is not done in time.
   */
  async resign(): Promise<void> {
    const shared = this.#shared
    if (!shared || this.#otherManagers().length === 0) return
    const { clock } = this.#world
    const removed = new Promise<true>((resolve) => shared.etcd.onRemoved(() => resolve(true)))
    for (;;) {
      const node = this.store.view.get('node', this.identity.nodeId)
      if (!node) return
      const message = 'left the cluster'
      const status = { ...node.status, state: 'down' as const, message, sinceMs: clock.nowMs() }
      const spec = { ...node.spec, role: 'worker' as const }
      try {
        await this.store.commit([{ type: 'update', object: { ...node, spec, status } }])
        break
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(this.store, clock)
      }
    }
    const done = new AbortController()
    const isRemoved = await Promise.race([removed, clock.sleep(removalMs, done.signal)])
    done.abort()
    if (isRemoved) return
    shared.etcd.onRemoved(() => this.#removed())
    throw new UserError(
      'unavailable',
      `the other managers did not let this one go in ${removalMs / 1000} s`,
      { next: 'It becomes a worker as soon as they do (`docker node ls`); let it leave then.' },
    )
  }

  /** etcd proves itself with this node's certificate, and learns roots at its start alone. */
  async #tellEtcd(): Promise<void> {
    const etcd = this.#shared?.etcd
    if (!etcd) return
    const { clock, log } = this.#world
    try {
      await etcd.certificatesChanged()
      if (!etcd.hasOldRoots) return
      // One manager after the other, so that the majority stays.
      const managers = [...this.store.view.list('node')].filter(({ manager }) => manager)
      const place = managers.findIndex(({ id }) => id === this.identity.nodeId)
      await clock.sleep(Math.max(0, place) * etcdRestartMs, this.#closing.signal)
      if (!this.#closing.signal.aborted && etcd.hasOldRoots) await etcd.restart()
    } catch (error) {
      log.error('the certificate could not be handed to etcd', { error: messageOf(error) })
    }
  }

  /**
   * Brings the lock of the data keys on this node's disk in step with what the cluster says. Resolves once it is durable.
   * Every manager does so for its own disk.
   */
  keepLocked(): Promise<void> {
    const work = this.#locking.then(() => this.#keepLockedNow())
    this.#locking = work.catch(() => {})
    return work
  }

  /** What this node keeps as a worker has to open without the cluster's keys: from now on its own key is not sealed. */
  async endLock(): Promise<void> {
    this.#isLockOver = true
    this.#unfollowLock()
    await this.#locking
    await this.port.keepSealed(undefined)
  }

  async #keepLockedNow(): Promise<void> {
    const [cluster] = this.store.view.list('cluster')
    if (!cluster || this.#isLockOver) return
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
      address: hostOf(this.identity.address),
      hostSubnets: hostSubnets((name) => ownBridges.has(name)),
      tls: this.port.tls,
      encryption: describeEncryption(this.#encryption),
      ...(dataPathAddress === undefined ? {} : { dataPathAddress }),
    }
  }

  // ---- Plain containers on attachable networks ----

  /** Where a node gets places for its plain containers, while this manager leads. */
  #deskOf(nodeId: NodeId): AttachmentDesk | undefined {
    const allocator = this.#leading.manager?.allocator
    const { clock } = this.#world
    return allocator && openAttachmentDesk({ store: this.store, allocator, clock }, nodeId)
  }

  #openAttachments(): NodeAttachments {
    const { clock, log } = this.#world
    const { transport } = this.port
    const remote = openRemoteDesk(
      { transport, clock, skepVersion: version },
      () => this.#otherManagers(),
      this.#closing.signal,
    )
    return new NodeAttachments({
      desk: () => this.#deskOf(this.identity.nodeId) ?? remote,
      dataPlane: this.#dataPlane,
      plain: () => this.#plain,
      clock,
      log,
    })
  }

  /** Asks the nodes how their networks are. `nodes`: as a person names them; empty: all. */
  async examineNetworks(
    wish: { readonly nodes: readonly string[]; readonly network?: string },
    signal: AbortSignal,
  ): Promise<NetworkReport> {
    const { port } = this.port
    const { view } = this.store
    const { clock, random } = this.#world
    if (!port) throw new UserError('unavailable', 'the cluster port of this manager is closed')
    const nodes = wish.nodes.map((text) => findObject(view, 'node', text).id)
    const network =
      wish.network === undefined ? undefined : findObject(view, 'network', wish.network)
    return await examineNetworks(
      {
        ...{ view, port, clock, random },
        ...(nodes.length > 0 ? { nodes } : {}),
        ...(network ? { network: network.name } : {}),
      },
      signal,
    )
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

  /** Stops working; containers, traffic and names go on, unless the host stops. */
  async close(because: Closing = 'restart'): Promise<void> {
    this.#closesBecause = because
    this.#link.close()
    const { manager } = this.#leading
    if (because === 'hostStops' && manager && this.#otherManagers().length > 0) {
      // Nobody else would know; whoever leads next shall replace the tasks of this host at once.
      const written = manager.dispatcher.hostStops(this.identity.nodeId)
      await Promise.race([written, this.#world.clock.sleep(goodbyeMs)])
    }
    await this.#end()
    await this.#dataPlane.close()
    await this.#endState()
  }

  /** Ends every task of the cluster on this host and removes what it needed. */
  async destroy(): Promise<void> {
    await this.#end()
    await clearHost(this.#world, this.runtime, this.#dataPlane)
    await this.#endState()
  }

  async #end(): Promise<void> {
    this.#closing.abort()
    this.#unfollowLock()
    await this.#plain.close()
    await this.attachments.close()
    await this.port.close()
    await this.agent.close()
    await this.#leading.close()
  }

  async #endState(): Promise<void> {
    await this.store.close()
    await this.#shared?.etcd.close()
  }

  /** As `destroy`, for a member whose keys nobody has unlocked, or whose state is out of reach. */
  static async destroyLocked(world: MemberWorld, identity: Identity): Promise<void> {
    const { dataRoot } = world.options
    const clusterId =
      identity.store === 'etcd'
        ? await NodeCertificates.clusterIdOf(dataRoot)
        : await readStoredClusterId({ path: dataPaths(dataRoot).store })
    if (clusterId === undefined) return
    const { runtime, dataPlane } = await openHost(world, identity, clusterId)
    await clearHost(world, runtime, dataPlane)
  }
}

function memberOf(member: Member | undefined): Member {
  if (member) return member
  throw new UserError('unavailable', 'this manager is only just starting', {
    next: 'Try again in a moment.',
  })
}
