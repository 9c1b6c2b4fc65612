import { type Agent, startAgent } from '../agent/index.ts'
import { type DockerApi, type EngineProxy, openDockerApi } from '../api/docker/index.ts'
import {
  type Log,
  messageOf,
  type Portions,
  silentLog,
  UserError,
  usualPortions,
} from '../base/index.ts'
import {
  Authority,
  askToBeMember,
  type ClusterPort,
  confirmMember,
  NodeAnswers,
  type NodeServices,
  openClusterLogs,
  openClusterPort,
  openRemoteLink,
  type Peer,
} from '../cluster/index.ts'
import { type Control, initialNetworks, openControl, type Sealer } from '../control/index.ts'
import { LeaderLink, otherManagersOf } from '../daemon/leader-link.ts'
import { Leading } from '../daemon/leading.ts'
import { ManagerAdmission } from '../daemon/manager-admission.ts'
import { peerUrlOf } from '../daemon/peer-url.ts'
import { heedRemoval } from '../daemon/removed-node.ts'
import { type Manager, startManager } from '../manager/index.ts'
import { type AnyObject, idFrom, mintId, type NodeId, type NodeRole } from '../model/index.ts'
import { buildClusterSpec, buildNode } from '../model/testing.ts'
import { explainTask, explainWorkload, observeWorkload } from '../orchestrator/index.ts'
import type { SimulatedBehaviour } from '../runtime/simulated-runtime.ts'
import type { Keyring } from '../security/index.ts'
import type { EtcdClient } from '../store/etcd/client.ts'
import { type EtcdStore, openEtcdStore } from '../store/etcd/etcd-store.ts'
import {
  type Change,
  type Commit,
  type LeaderEpoch,
  plainValues,
  type Store,
  StoreCore,
} from '../store/index.ts'
import { SimulatedDisk } from '../store/simulated-disk.ts'
import {
  type Assignments,
  applyChange,
  type LogSource,
  type ManagerLink,
  type TaskAssignment,
} from '../wire/index.ts'
import { Chance } from './chance.ts'
import { dataPlaneFor, journalFor, persistenceFor, runtimeFor, storeForLeader } from './guarded.ts'
import { Host } from './host.ts'
import { SimulatedNetwork } from './network.ts'
import { HostClock, SimulatedProcess } from './process.ts'
import { ReplicatedState } from './replicated.ts'
import { SimulatedTime } from './time.ts'
import type { Trace } from './trace.ts'
import { type Port, SimulatedTransport } from './transport.ts'

/** What watches a simulated cluster from outside, as no part of it could. */
export interface Observer {
  /** The durable state was opened by a new process: what it holds is what was not lost. */
  storeOpened(store: Store): void
  committed(commit: Commit): void
  /** What one transaction of the managers' etcd did, as it took effect. */
  etcdWrote(
    revision: number,
    put: readonly AnyObject[],
    removed: readonly { readonly kind: AnyObject['kind']; readonly id: string }[],
  ): void
  /** A leader asks for this; `revision` is what it has seen, `leaderMs` what time it is by its clock. */
  leaderDecided(changes: readonly Change[], revision: number, leaderMs: number): void
  /** A leader's write was accepted; `newestEpoch` had begun when it was made. */
  leaderWrote(fence: number | undefined, newestEpoch: number): void
  leaderBegan(epoch: number): void
  /** What a node has been told, after one more message. */
  assigned(nodeId: NodeId, assignments: Assignments): void
  /** A line that some part of the cluster wrote to its log. */
  logged(line: string): void
}

/** Seals by a pattern, so that plain bytes are never in the store, and the same seed gives the same text. */
const sealer: Sealer = {
  seal: (bytes, context) => ({
    keyId: context,
    nonce: '',
    ciphertext: Buffer.from(bytes.map((byte) => byte ^ 0x55)).toString('base64'),
  }),
  unseal: (sealed, context) => {
    if (sealed.keyId !== context) throw new Error('sealed for another object')
    return Buffer.from(sealed.ciphertext, 'base64').map((byte) => byte ^ 0x55)
  },
}

const keyring: Keyring = {
  keyId: '',
  ...sealer,
  rotate: async () => {},
  lockWith: async () => {},
  exportKeys: () => '',
  storeKeys: () => [],
}
const skepVersion = 'simulated'

const addressOf = (host: Host): string => `${host.name}:2377`
const keyOf = (host: Host): string => `key of ${host.name}`

/** One leader's loops: they may be stopped, or deposed, by themselves. */
interface Leadership {
  readonly process: SimulatedProcess
  readonly manager: Manager
  readonly epoch: number
}

/** The daemon of one machine, from its start to its end. */
export interface Daemon {
  readonly process: SimulatedProcess
  readonly agent: Agent
  /** What it tells managers that ask it. */
  readonly answers: NodeAnswers
  /** How the agent of one of several managers reaches the leader, once it takes part. */
  link?: LeaderLink
  /** Aborted then: it no longer looks for the leader elsewhere alone. */
  readonly takesPart: AbortController
  leading?: Leading
  /** The managers want it to be one of them, and it asks them to let it in. */
  isPromoted?: boolean
  /** Absent on workers, and until the durable state has been opened. */
  manager?: DaemonManager
}

interface DaemonManager {
  readonly store: Store & LeaderEpoch
  readonly control: Control
  readonly api: DockerApi
  readonly port: ClusterPort
  /** The one that leads, if it does. */
  readonly leaderships: Leadership[]
  /** Deposed ones, which may still run. */
  readonly former: Leadership[]
}

/** For an etcd to learn that it was removed, in ms. */
const endsEtcdMs = 50
/** For a daemon to take up another role, in ms. */
const restartsMs = 100
/** Between attempts to become a manager, in ms. */
const roleRetryMs = 5_000
const startMs = 1_800_000_000_000
const firstHardware = { nanoCpus: 4e9, memoryBytes: 8 * 1024 ** 3, gpus: 0 }

/** In half of all lives as in the field; in the others what goes in parts where there are thousands of tasks does so with a few. */
function portionsOf(chance: Chance): Portions {
  if (chance.oneIn(2)) return usualPortions
  return {
    unitsPerTurn: chance.between(5, 50),
    tasksLookedAt: chance.between(2, 6),
    perPart: chance.between(1, 4),
    tasksPerTurn: chance.between(1, 5),
    changesAtOnce: chance.between(2, 8),
    factsPerPart: chance.between(1, 5),
  }
}

/** A whole cluster in one process: real managers and agents between simulated machines. */
export class SimulatedCluster {
  readonly seed: number
  readonly time = new SimulatedTime(startMs)
  readonly network: SimulatedNetwork
  readonly hosts: Host[] = []
  readonly daemons = new Map<string, Daemon>()
  readonly disk: SimulatedDisk
  /** Longest time that a sync takes now, in ms. */
  syncMsMax = 2
  trace: Trace | undefined
  observer: Observer | undefined
  /** How a container is going to behave; decided when it is made. */
  behave: (assignment: TaskAssignment) => SimulatedBehaviour = () => ({})
  /** Whether a container no longer ends by itself. */
  isCalm: (assignment: TaskAssignment) => boolean = () => false
  /** Called when a daemon is about to have a container started. */
  beforeStart: (host: Host, taskId: string) => void = () => {}
  /** Called when a daemon is about to have a container stopped. */
  beforeStop: (host: Host, taskId: string) => void = () => {}
  readonly #idChance: Chance
  readonly #portions: Portions
  #hostCount = 0
  #newestEpoch = 0
  /** Machines that are no managers any more and have not heard of it. */
  readonly #removed = new Set<Host>()
  readonly #ports = new Map<string, Port>()
  /** Since when somebody has led without a break, in true ms. */
  ledSinceMs = startMs

  /** Present: three managers share what is durable. Absent: one manager keeps it on its own disk. */
  readonly replicated: ReplicatedState | undefined

  constructor(seed: number, managerCount = 1) {
    this.seed = seed
    this.network = new SimulatedNetwork(this.time, Chance.of(seed, 'network'))
    this.#idChance = Chance.of(seed, 'ids')
    this.#portions = portionsOf(Chance.of(seed, 'portions'))
    const syncMs = () => this.syncMsMax
    this.disk = new SimulatedDisk({
      clock: { nowMs: () => this.time.nowMs, sleep: (ms) => this.#sleepTrue(ms) },
      random: Chance.of(seed, 'disk'),
      get syncMsMax() {
        return syncMs()
      },
    })
    const world = new SimulatedProcess(this.time, new HostClock(this.time), 'world')
    if (managerCount === 1) return
    this.replicated = new ReplicatedState(
      { clock: world.clock, random: Chance.of(seed, 'etcd'), members: managerCount, delayMsMax: 2 },
      {
        committed: (revision, put, removed) => this.observer?.etcdWrote(revision, put, removed),
        epochBegan: (epoch) => this.#epochBegan(epoch),
        memberRemoved: (memberId) => this.#memberRemoved(memberId),
      },
    )
    this.network.onCutsChanged = () => this.followCuts()
  }

  get managerHosts(): readonly Host[] {
    return this.replicated ? this.replicated.hosts : this.hosts.slice(0, 1)
  }

  /**
   * Whether every machine knows a manager that stays when this one is none any more. One that is away meanwhile would
   * never find the others again, and nobody could tell it but its own people.
   */
  maySpare(host: Host): boolean {
    const view = this.store?.view
    const staying = this.managerHosts
      .filter((one) => one !== host && view?.get('node', one.nodeId)?.spec.role === 'manager')
      .map(addressOf)
    return this.hosts.every(
      (other) =>
        other.isRemoved ||
        staying.includes(addressOf(other)) ||
        other.managersKnown.some((address) => staying.includes(address)),
    )
  }

  /** Members of the managers' etcd reach each other as their machines do. */
  followCuts(): void {
    this.replicated?.follow((a, b) => this.network.areJoined(a.name, b.name))
    for (const host of this.#removed) this.#tellRemoved(host)
  }

  /** The managers have taken a machine's etcd off their list, which that learns from any of the others. */
  #memberRemoved(memberId: string): void {
    const host = this.hosts.find((one) => one.memberId === memberId)
    if (!host) return
    this.trace?.say(`the etcd of ${host.name} is removed from the managers'`)
    this.replicated?.forget(host)
    this.#removed.add(host)
    this.#tellRemoved(host)
  }

  /** Its etcd ends, and the daemon becomes a worker's; one that is away does so when it is back. */
  #tellRemoved(host: Host): void {
    const process = this.daemons.get(host.name)?.process
    const knows = this.managerHosts.some((other) => this.network.areJoined(host.name, other.name))
    if (!process || !knows) return
    this.time.after(endsEtcdMs, () => process.post(() => this.#becomeWorker(host)))
  }

  #becomeWorker(host: Host): void {
    // Only now: it may have lost its power before, and hears of it when it is back.
    this.#removed.delete(host)
    if (host.role === 'worker' || host.memberId !== undefined) return
    host.role = 'worker'
    this.trace?.say(`${host.name} is a worker now`)
    this.killDaemon(host)
    this.time.after(restartsMs, () => this.startDaemon(host))
  }

  #epochBegan(epoch: number): void {
    this.#newestEpoch = epoch
    this.observer?.leaderBegan(epoch)
    this.ledSinceMs = this.time.nowMs
  }

  /** The daemon whose loops act now, or would if its process ran. */
  get leader(): Daemon | undefined {
    let newest: Daemon | undefined
    let newestEpoch = -1
    for (const daemon of this.daemons.values()) {
      const epoch = daemon.manager?.leaderships.at(-1)?.epoch ?? (this.replicated ? -1 : 0)
      if (!daemon.manager || epoch <= newestEpoch) continue
      newest = daemon
      newestEpoch = epoch
    }
    return newest
  }

  /** What time it is for whoever leads: what is stored is told in it, and its clock may have been wrong by an hour. */
  get leaderMs(): number {
    const name = this.leader?.process.name
    return name === undefined ? this.time.nowMs : this.host(name).clock.nowMs()
  }

  /** Of some manager that runs. */
  get store(): (Store & LeaderEpoch) | undefined {
    const running = this.managers().filter(({ process }) => process.isRunning)
    return running[0]?.manager?.store
  }

  host(name: string): Host {
    const host = this.hosts.find((one) => one.name === name)
    if (!host) throw new Error(`broken invariant: there is no host ${name}`)
    return host
  }

  addHost(hardware = firstHardware): Host {
    const name = `h${++this.#hostCount}`
    const host: Host = new Host({
      name,
      nodeId: mintId<'node'>(this.#idChance),
      time: this.time,
      chance: Chance.of(this.seed, `engine of ${name}`),
      hardware,
      behave: (assignment) => this.behave(assignment),
      isCalm: (assignment) => this.isCalm(assignment),
    })
    this.hosts.push(host)
    if (this.replicated) this.replicated.addFounder(host, peerUrlOf(addressOf(host)))
    else if (this.hosts.length === 1) host.role = 'manager'
    return host
  }

  /** Makes the cluster's first objects, on the first host's disk. */
  async found(): Promise<void> {
    const random = this.#idChance
    const clock = this.#trueClock
    const opening: Promise<Store> = this.replicated
      ? openEtcdStore({
          client: this.replicated.etcd.client(),
          values: plainValues,
          clock,
          random,
          log: silentLog,
        })
      : StoreCore.open({ clock, persistence: this.disk.attach() })
    await this.time.runUntil(this.time.nowMs + 500)
    const store = await opening
    const sealed = { keyId: '', nonce: '', ciphertext: '' }
    const cluster = {
      kind: 'cluster',
      id: mintId<'cluster'>(random),
      namespace: 'default',
      name: 'default',
      labels: {},
      version: 0,
      specVersion: 0,
      createdAtMs: 0,
      updatedAtMs: 0,
      source: { dialect: 'docker', document: {} },
      spec: buildClusterSpec({ taskHistoryLimit: 2 }),
      status: {
        root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
        rootRotationInProgress: false,
        joinTokens: { worker: sealed, manager: sealed },
        addressPools: ['10.0.0.0/8'],
        subnetSize: 24,
        dataPathPort: 4789,
      },
    } as const
    const objects = [cluster, ...initialNetworks(random)]
    const done = store.commit(objects.map((object) => ({ type: 'create' as const, object })))
    await this.time.runUntil(this.time.nowMs + 1_000)
    await done
    if (this.replicated) void store.close()
  }

  /** What a join comes to in the store. Resolves with whether it did. */
  async enrol(host: Host, role: NodeRole): Promise<boolean> {
    host.managersKnown = this.managerHosts.map(addressOf)
    const store = this.store
    if (!store) return false
    const isManager = role === 'manager'
    const node = {
      ...buildNode({
        id: host.nodeId,
        hostname: host.name,
        role,
        state: 'unknown',
        ...(isManager
          ? {
              manager: {
                address: addressOf(host),
                leader: host.name === 'h1',
                reachability: 'reachable',
              },
            }
          : {}),
      }),
      certificate: { publicKeyHash: keyOf(host), rootHash: '', expiresAtMs: startMs * 2 },
    }
    const done = store.commit([{ type: 'create', object: node }]).then(
      () => true,
      // It is there already: an earlier try got through, but its answer did not.
      (error: unknown) => error instanceof UserError && error.code === 'conflict',
    )
    return Promise.race([done, this.#sleepTrue(30_000).then(() => false)])
  }

  /** Managers whose daemon is there, be it stopped. */
  managers(): readonly Daemon[] {
    return [...this.daemons.values()].filter(({ manager }) => manager)
  }

  /** Whether somebody leads who can. */
  get isLed(): boolean {
    const { leader, replicated } = this
    const leadership = leader?.manager?.leaderships.at(-1)
    if (!leader || !leadership?.process.isRunning) return false
    if (!replicated) return this.disk.fault === 'none'
    const isHeard =
      this.host(leader.process.name).etcdState === 'up' &&
      replicated.clientOf(leader.process)?.cut !== true
    return replicated.hasLeader && isHeard
  }

  powerOn(host: Host): void {
    if (host.isRemoved) return
    host.isUp = true
    this.followCuts()
    this.startDaemon(host)
  }

  /** What the network did by itself, as kinds of faults. */
  networkFaults(): Record<string, number> {
    const { lost, doubled, late } = this.network.counts
    return { 'messages lost': lost, 'messages doubled': doubled, 'messages late': late }
  }

  shutDown(host: Host): void {
    this.crashHost(host)
  }

  /** Starts the daemon of a machine. */
  startDaemon(host: Host): void {
    if (this.daemons.has(host.name) || !host.isUp) return
    // It was removed while it was away.
    if (this.#removed.delete(host)) host.role = 'worker'
    const process = new SimulatedProcess(this.time, host.clock, host.name)
    host.engine.setReachable(!host.isEngineAway)
    const log = this.#logOf(host.name)
    const transport = this.#transportOf(host, process)
    const remote = openRemoteLink({
      transport,
      clock: process.clock,
      random: Chance.of(this.seed, `link of ${host.name} ${this.time.nowMs}`),
      log,
      skepVersion,
      managers: () => host.managersKnown,
      learned: ({ managers, role }) => {
        host.managersKnown = managers.map(({ address }) => address)
        if (role === 'manager') this.#promote(host, daemon, transport)
      },
      asked: (ask) => daemon.answers.answer(ask),
      heard: (word) => daemon.leading?.hear(word),
    })
    const heeding = heedRemoval(remote, {
      clusterId: 'simulated',
      clock: process.clock,
      log,
      removed: () => {},
    })
    const agent = startAgent({
      nodeId: host.nodeId,
      runtime: runtimeFor(process, host.engine, {
        beforeStart: (taskId) => this.beforeStart(host, taskId),
        beforeStop: (taskId) => this.beforeStop(host, taskId),
      }),
      dataPlane: dataPlaneFor(process, host.kernel),
      link: this.#watched({
        open: (nodeId, description, signal, held) => {
          if (daemon.link) return daemon.link.open(nodeId, description, signal, held)
          const until = AbortSignal.any([signal, daemon.takesPart.signal])
          return heeding.open(nodeId, description, until, held)
        },
      }),
      clock: process.clock,
      log,
      describeHost: async () => ({ skepVersion, hostSubnets: [] }),
      // A single manager has its own state to go on with.
      ...((host.role === 'worker' || this.replicated) && {
        journal: journalFor(
          process,
          host,
          Chance.of(this.seed, `journal of ${host.name} ${this.time.nowMs}`),
        ),
      }),
    })
    const answers = new NodeAnswers(transport, servicesOf(host), skepVersion, log)
    const daemon: Daemon = { process, agent, answers, takesPart: new AbortController() }
    this.daemons.set(host.name, daemon)
    if (host.role === 'manager') void this.#beManager(host, daemon, transport, remote)
  }

  /** The managers want this machine to be one of them: it asks until they have taken it in. */
  #promote(host: Host, daemon: Daemon, transport: SimulatedTransport): void {
    const { replicated } = this
    if (!replicated || host.role === 'manager' || daemon.isPromoted) return
    daemon.isPromoted = true
    const { clock } = daemon.process
    const world = { transport, clock, skepVersion }
    const { signal } = new AbortController()
    void (async () => {
      while (host.role === 'worker') {
        try {
          const managers = host.managersKnown.filter((address) => address !== addressOf(host))
          const { memberId } = await askToBeMember(world, managers, addressOf(host), signal)
          replicated.addMember(host, memberId)
          this.followCuts()
          await confirmMember(world, managers, memberId, signal)
          host.role = 'manager'
        } catch (error) {
          this.trace?.say(`${host.name} could not become a manager: ${messageOf(error)}`)
          if (host.memberId !== undefined) this.#endMember(host)
          await clock.sleep(roleRetryMs)
        }
      }
      this.trace?.say(`${host.name} is a manager now`)
      this.killDaemon(host)
      this.time.after(restartsMs, () => this.startDaemon(host))
    })()
  }

  /** Its etcd ends; whether it counts by now the managers know. */
  #endMember(host: Host): void {
    const { replicated } = this
    const index = host.memberId === undefined ? undefined : replicated?.etcd.indexOf(host.memberId)
    if (index !== undefined) replicated?.etcd.setMember(index, 'down')
    replicated?.forget(host)
  }

  /** Opens the durable state, again and again while that fails, and takes part in leading. */
  async #beManager(
    host: Host,
    daemon: Daemon,
    transport: SimulatedTransport,
    remote: ManagerLink,
  ): Promise<void> {
    for (;;) {
      try {
        await this.#startManager(host, daemon, transport, remote)
        return
      } catch (error) {
        this.trace?.say(`the manager on ${host.name} did not start: ${messageOf(error)}`)
        await daemon.process.clock.sleep(1_000)
      }
    }
  }

  async #startManager(
    host: Host,
    daemon: Daemon,
    transport: SimulatedTransport,
    remote: ManagerLink,
  ): Promise<void> {
    const { process } = daemon
    const { clock } = process
    const random = Chance.of(this.seed, `manager ${host.name} ${this.time.nowMs}`)
    const log = this.#logOf(host.name)
    const { store, shared } = await this.#openState(host, process, random, log)
    const control = openControl({ store, clock, random, sealer })
    const logs = openClusterLogs({
      view: () => store.view,
      nodeId: host.nodeId,
      local: host.engine,
      port: () => daemon.manager?.port,
    })
    const api = openApi(control, host, logs, clock, random, log)
    const leaderships: Leadership[] = []
    const port = await openClusterPort({
      transport,
      listenAddress: addressOf(host),
      store,
      authority: new Authority({ store, keyring, clock, random, managersRefused: () => undefined }),
      dispatcher: () => leaderships.at(-1)?.manager.dispatcher,
      ownAddress: () => addressOf(host),
      clock,
      random,
      log,
      skepVersion,
      own: { nodeId: host.nodeId, ask: (ask) => daemon.answers.answer(ask) },
      ...(shared && {
        leader: () => {
          const leader = daemon.leading?.livingLeader
          return leader && { nodeId: idFrom(leader.id), address: leader.address }
        },
        members: new ManagerAdmission({
          store,
          share: async () => shared.client,
          shared: () => shared.client,
          clock,
          log,
        }),
      }),
    })
    const manager: DaemonManager = { store, control, api, port, leaderships, former: [] }
    // A manager alone that could not begin to lead is no manager: nobody may ask it anything.
    if (!shared) await this.#lead(host, manager)
    daemon.manager = manager
    if (shared) this.#takePart(host, daemon, manager, shared, random, transport, remote)
  }

  /** Leads whenever the managers elect this one, as the daemon does. */
  #takePart(
    host: Host,
    daemon: Daemon,
    { port, leaderships }: DaemonManager,
    { store, client }: { readonly store: EtcdStore; readonly client: EtcdClient },
    random: Chance,
    transport: SimulatedTransport,
    remote: ManagerLink,
  ): void {
    const { process } = daemon
    const { nodeId } = host
    const watched = this.#storeOfLeader(process, store)
    const leading: Leading = new Leading({
      world: { clock: process.clock, random, log: this.#logOf(host.name) },
      nodeId,
      address: addressOf(host),
      store: watched,
      keyring: sealer,
      transport: () => transport,
      portions: this.#portions,
      changed: () => {
        const { manager, epoch } = leading
        leaderships.splice(0)
        if (manager && epoch !== undefined) {
          leaderships.push({ process, manager, epoch })
          this.trace?.say(`${host.name} leads, epoch ${epoch}`)
        }
        port.leadershipChanged()
        link.leaderChanged()
        daemon.agent.leaderChanged()
      },
    })
    const learnManagers = () => {
      host.managersKnown = otherManagersOf(store.view, leading, nodeId)
    }
    const link = new LeaderLink(leading, {
      open: (...call) => {
        learnManagers()
        return remote.open(...call)
      },
    })
    daemon.link = link
    daemon.leading = leading
    daemon.takesPart.abort()
    daemon.agent.leaderChanged()
    // On its disk, for when it is no manager any more.
    learnManagers()
    store.subscribe(({ changes }) => {
      if (process.isAlive && changes.some(({ kind }) => kind === 'node')) learnManagers()
    })
    leading.elect(
      { client },
      {
        ...watched,
        barrier: () => process.gate(store.barrier()),
        keepCompacted: (signal) => store.keepCompacted(signal),
      },
    )
  }

  async #openState(
    host: Host,
    process: SimulatedProcess,
    random: Chance,
    log: Log,
  ): Promise<{
    readonly store: Store & LeaderEpoch
    readonly shared?: { readonly store: EtcdStore; readonly client: EtcdClient }
  }> {
    if (this.replicated) {
      const shared = await this.replicated.open(host, process, random, log)
      return { store: shared.store, shared }
    }
    const persistence = persistenceFor(process, this.disk.attach())
    const { changesAtOnce } = this.#portions
    const store = await StoreCore.open({ clock: process.clock, persistence, changesAtOnce })
    this.observer?.storeOpened(store)
    store.subscribe((commit) => this.observer?.committed(commit))
    return { store }
  }

  #storeOfLeader(process: SimulatedProcess, store: Store & LeaderEpoch): Store {
    return storeForLeader(process, store, {
      newestEpoch: () => this.#newestEpoch,
      decided: (...decision) => this.observer?.leaderDecided(...decision),
      wrote: (fence, newestEpoch) => this.observer?.leaderWrote(fence, newestEpoch),
    })
  }

  #startLoops(
    host: Host,
    process: SimulatedProcess,
    store: Store & LeaderEpoch,
    epoch: number,
  ): Leadership {
    return {
      process,
      epoch,
      manager: startManager({
        store: this.#storeOfLeader(process, store),
        epoch,
        unseal: (sealed, aad) => sealer.unseal(sealed, aad),
        clock: process.clock,
        random: Chance.of(this.seed, `leader ${epoch}`),
        log: this.#logOf(`${host.name}/leader ${epoch}`),
        portions: this.#portions,
      }),
    }
  }

  /** Begins a leadership on a manager; an older one there is deposed, whether it knows or not. */
  async #lead(host: Host, manager: DaemonManager): Promise<void> {
    manager.former.push(...manager.leaderships.splice(0))
    manager.port.leadershipChanged()
    const epoch = await manager.store.advanceEpoch()
    const process = new SimulatedProcess(this.time, host.clock, `leader ${epoch} on ${host.name}`)
    this.#epochBegan(epoch)
    this.trace?.say(`${host.name} leads, epoch ${epoch}`)
    manager.leaderships.push(this.#startLoops(host, process, manager.store, epoch))
  }

  /** Another leader takes over while the old one is stopped. Returns the old one, which knows nothing of it. */
  depose(): Leadership | undefined {
    const daemon = this.leader
    const manager = daemon?.manager
    const old = manager?.leaderships.at(-1)
    if (!daemon?.process.isRunning || !manager || !old?.process.isRunning) return undefined
    old.process.pause()
    void this.#lead(this.host(daemon.process.name), manager).catch((error: unknown) => {
      this.trace?.say(`nobody else could lead: ${messageOf(error)}`)
      manager.leaderships.push(...manager.former.splice(manager.former.indexOf(old), 1))
      old.process.resume()
    })
    return old
  }

  isDeposed(leadership: Leadership): boolean {
    return leadership.epoch < this.#newestEpoch
  }

  #transportOf(host: Host, process: SimulatedProcess): SimulatedTransport {
    return new SimulatedTransport({
      time: this.time,
      network: this.network,
      process,
      hostName: host.name,
      self: (): Peer => ({
        type: 'node',
        nodeId: host.nodeId,
        role:
          host.role === 'manager' || this.daemons.get(host.name)?.isPromoted ? 'manager' : 'worker',
        publicKeyHash: keyOf(host),
      }),
      ports: this.#ports,
      isUp: (name) => this.host(name).isUp,
    })
  }

  /** A link to the leader, with somebody who reads along what the node is told. */
  #watched(link: ManagerLink): ManagerLink {
    return {
      open: async (nodeId, description, signal, held) => {
        const session = await link.open(nodeId, description, signal, held)
        let known: Assignments | undefined
        return {
          next: async (ended) => {
            const change = await session.next(ended)
            known = applyChange(known, change)
            this.observer?.assigned(nodeId, known)
            return change
          },
          acknowledge: (sequence) => session.acknowledge(sequence),
          report: (reports) => session.report(reports),
          describe: (next) => session.describe(next),
          close: () => session.close(),
        }
      },
    }
  }

  /** `kill -9`: containers go on. */
  killDaemon(host: Host): void {
    const daemon = this.daemons.get(host.name)
    if (!daemon) return
    this.daemons.delete(host.name)
    daemon.process.kill()
    for (const process of processesOf(daemon)) process.kill()
    // One that had not been taken in yet begins anew.
    if (host.role === 'worker' && host.memberId !== undefined) this.#endMember(host)
    if (!this.replicated && host.role === 'manager') this.disk.crash()
  }

  pauseDaemon(host: Host): Daemon | undefined {
    const daemon = this.daemons.get(host.name)
    daemon?.process.pause()
    if (daemon) for (const process of processesOf(daemon)) process.pause()
    return daemon
  }

  resumeDaemon(daemon: Daemon): void {
    daemon.process.resume()
    for (const process of processesOf(daemon)) process.resume()
  }

  /** The power goes: daemon, containers and all that was not synced. */
  crashHost(host: Host): void {
    this.killDaemon(host)
    host.isUp = false
    this.followCuts()
    host.engine.reboot()
    host.engine.setReachable(false)
  }

  get #trueClock() {
    return { nowMs: () => this.time.nowMs, sleep: (ms: number) => this.#sleepTrue(ms) }
  }

  #sleepTrue(ms: number): Promise<void> {
    return new Promise((resolve) => this.time.after(ms, resolve))
  }

  #logOf(name: string): Log {
    const write =
      (level: string) =>
      (message: string, fields: Record<string, unknown> = {}): void => {
        const line = `${name} ${level}: ${message} ${JSON.stringify(fields)}`
        this.observer?.logged(line)
        if (level !== 'debug') this.trace?.say(line)
      }
    return {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
    }
  }
}

/** The loops of a daemon's leaders, where they may be stopped apart from it. */
function processesOf({ manager }: Daemon): readonly SimulatedProcess[] {
  return [...(manager?.leaderships ?? []), ...(manager?.former ?? [])].map(({ process }) => process)
}

function refuse(): never {
  throw new UserError('unsupported', 'the simulated engine does not do that')
}

/** What a machine can be asked for. */
function servicesOf(host: Host): NodeServices {
  return {
    logs: host.engine,
    connectEngine: refuse,
    network: { examine: refuse, openProbe: refuse },
    dial: refuse,
  }
}

/** The Docker API of a manager, over its real control operations. Nothing of it is passed on to an engine. */
function openApi(
  control: Control,
  host: Host,
  logs: LogSource,
  clock: SimulatedProcess['clock'],
  random: Chance,
  log: Log,
): DockerApi {
  const proxy: EngineProxy = { handle: refuse, checkContinue: refuse, upgrade: refuse }
  return openDockerApi({
    control: () => control,
    examineNetworks: refuse,
    node: {
      state: () => ({
        localNodeState: 'active',
        nodeId: host.nodeId,
        nodeAddress: host.name,
        controlAvailable: true,
        error: '',
        remoteManagers: [],
      }),
      init: refuse,
      join: refuse,
      leave: refuse,
      unlock: refuse,
      unlockKey: refuse,
      joinTokens: async () => ({ worker: '', manager: '' }),
      rotateTokens: refuse,
      createToken: refuse,
      listTokens: refuse,
      removeToken: refuse,
      rotateRoot: refuse,
    },
    logs,
    proxy,
    engine: {
      ping: async () => ({ 'api-version': '1.41', ostype: 'linux', server: 'simulated' }),
      version: refuse,
      info: refuse,
      events: refuse,
      containers: { inspect: refuse },
      networks: {
        list: async () => [],
        inspect: refuse,
        connect: refuse,
        disconnect: refuse,
        prune: refuse,
      },
    },
    attachments: { reserve: refuse, release: refuse },
    explain: {
      workload: (view, id) => {
        const slice = observeWorkload(view, idFrom(id))
        return slice && explainWorkload(slice, clock.nowMs())
      },
      task: (view, id) => {
        const task = view.get('task', id)
        const slice = task && observeWorkload(view, task.workloadId)
        return slice && explainTask(slice, idFrom(id), clock.nowMs())
      },
    },
    checkTemplate: () => {},
    clock,
    random,
    log,
    skepVersion: 'simulated',
  })
}
