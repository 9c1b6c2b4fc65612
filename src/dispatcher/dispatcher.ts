import {
  type Clock,
  isDeepEqual,
  KeyedHeap,
  type Log,
  messageOf,
  type Portions,
  TurnBudget,
  UserError,
  unreachable,
  usualPortions,
  WakeUp,
} from '../base/index.ts'
import {
  acceptStatus,
  type Cluster,
  type ClusterNode,
  type ConfigId,
  holdsResources,
  idFrom,
  isTerminal,
  lostWithNode,
  type Network,
  type NetworkId,
  type NodeDescription,
  type NodeId,
  rankOf,
  type SecretId,
  type Task,
  type TaskId,
  type Workload,
  type WorkloadId,
} from '../model/index.ts'
import { nextCommit } from '../store/index.ts'
import { type AppliedChange, type Change, changesPerCommitMax, type Store } from '../store/store.ts'
import {
  type AssignmentChange,
  type ConfigAssignment,
  type FeedChange,
  type FeedId,
  type HeldFeeds,
  type ManagerLink,
  type NetworkAssignment,
  type SecretAssignment,
  type Session,
  sessionOver,
  type TaskAssignment,
  type TaskReport,
} from '../wire/index.ts'
import {
  configAssignment,
  dataAddressOf,
  isAssignedTo,
  networkAssignment,
  networksNeeded,
  networksOfTasks,
  nodeAssignment,
  type References,
  referencedIds,
  secretAssignment,
  taskAssignment,
  type Unseal,
} from './assignments.ts'
import { factCountOf } from './feed.ts'
import { Feeds, type Listener } from './feeds.ts'
import {
  allowedMs,
  beginWatch,
  decideLiveness,
  type LivenessLimits,
  livenessLimits,
  lookAgain,
  type Predecessor,
  type SessionEnd,
  type Watch,
  type WatchedNode,
} from './liveness.ts'
import { inLeaderTime } from './node-time.ts'
import { RoutingIndex } from './routing-index.ts'
import { decideTraffic, isServed } from './traffic.ts'

export interface DispatcherOptions {
  readonly store: Store
  readonly unseal: Unseal
  readonly clock: Clock
  readonly log: Log
  /** Leader epoch that every write is fenced with. */
  readonly fence: number
  /** The leader's own node: its agent lives and dies with this process, so nobody has to listen for it. */
  readonly localNodeId?: NodeId
  /** The leader before, where there was another one that this node has listened to. */
  readonly predecessor?: Predecessor
  /** Default: the usual ones. */
  readonly portions?: Portions
  /** Shares the thread with the leader's loops; without one sessions share it among themselves. */
  readonly turns?: TurnBudget
}

/** A session as its manager holds it. */
export interface HeldSession extends Session {
  /** Aborted once it is over, also while nobody asks for what comes next. Its reason is a UserError. */
  readonly over: AbortSignal
}

export interface OpenOptions {
  /** It is kept alive by heartbeats, told by `heard`. In process: as long as it is open. */
  readonly isRemote: boolean
}

/** Times a report is tried again when something else changed the same tasks first. */
const reportRetriesMax = 20

/**
 * Carries assignments out to the nodes and statuses back. A node's assignments are derived from the store; each
 * commit only marks what of them may differ, and the next message is the difference.
 */
export class Dispatcher implements ManagerLink {
  readonly #options: DispatcherOptions
  /** Shares the thread among all that is done for nodes. */
  readonly turns: TurnBudget
  readonly #sessions = new Map<NodeId, NodeSession>()
  /** Sessions of the nodes that need a network. */
  readonly #sessionsByNetwork = new Map<NetworkId, Set<NodeSession>>()
  /** Sessions whose node still has to follow, by the revision it has acknowledged. */
  readonly #behind = new KeyedHeap<NodeSession>()
  /** Nodes that are not down and have no session. */
  readonly #away = new Set<NodeId>()
  #isOwnLate = false
  readonly #routing: RoutingIndex
  readonly #feeds: Feeds
  /** Whether each node needs the ingress network. */
  #isIngressNeeded: boolean
  readonly #unsubscribe: () => void
  /** Nodes that should be heard and are not down: those with a session over the network, and those without any. */
  readonly #awaited = new Map<NodeId, number>()
  /** Of those, the ones whose daemon has ended, not their host. */
  readonly #ended = new Set<NodeId>()
  /** When each one's last session over the network began, in awake time. */
  readonly #openedAt = new Map<NodeId, number>()
  /** Those whose daemon has been started again since they had a session. */
  readonly #returning = new Set<NodeId>()
  readonly #stop = new AbortController()
  readonly #watchWanted = new WakeUp()
  #watch: Watch
  /** Resolves once nothing new is placed on the leader before, which may be lost. */
  readonly #predecessorDoubted: Promise<void>
  /** Rung when a node acknowledged: draining tasks may go on. */
  readonly acknowledged = new WakeUp()

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.turns = options.turns ?? new TurnBudget(options.clock)
    this.#routing = RoutingIndex.from(options.store.view)
    this.#isIngressNeeded = this.#needsIngress()
    this.#feeds = new Feeds({
      view: options.store.view,
      clock: options.clock,
      signal: this.#stop.signal,
      turns: this.turns,
      factsPerPart: (options.portions ?? usualPortions).factsPerPart,
      everyone: () => this.#sessions.values(),
      onNetwork: (id) => this.#sessionsByNetwork.get(id) ?? [],
      handedOut: () => this.acknowledged.ring(),
    })
    this.#unsubscribe = options.store.subscribe((commit) => {
      for (const change of commit.changes) this.#learn(change, commit.revision)
      this.#feeds.handOut()
    })
    const limits = this.livenessLimits()
    const { predecessor } = options
    this.#watch = beginWatch(options.clock.nowMs(), limits, predecessor)
    for (const node of options.store.view.list('node')) {
      const isPredecessor = node.id === predecessor?.nodeId
      const heardAtMs = isPredecessor
        ? allowedMs(predecessor.end, limits) - limits.silenceMs - predecessor.sinceMs
        : 0
      this.#await(node, heardAtMs)
      if (isPredecessor && predecessor.end !== 'silent') this.#ended.add(node.id)
    }
    this.#predecessorDoubted = predecessor ? this.#doubt(predecessor.nodeId) : Promise.resolve()
    void this.#waitForOwn(limits.silenceMs)
    void this.#watchLoop()
  }

  /**
   * The leader's own node routes as it was told by the leader before, until its agent has a session with this one. It is
   * waited for as long as a node that falls silent, and never called down: its engine may be slow to start.
   */
  async #waitForOwn(forMs: number): Promise<void> {
    const { localNodeId, clock } = this.#options
    if (localNodeId === undefined) return
    this.#lookForNode(localNodeId)
    await clock.sleep(forMs, this.#stop.signal)
    this.#isOwnLate = true
    this.#lookForNode(localNodeId)
  }

  /** What nodes are held to now: it grows with their number. */
  livenessLimits(): LivenessLimits {
    const { view } = this.#options.store
    const [cluster] = view.list('cluster')
    return livenessLimits(view.count('node'), cluster?.spec.heartbeatPeriodMs ?? 5_000)
  }

  /** Whether a node has a session with this leader now. */
  isInSession(nodeId: NodeId): boolean {
    return this.#sessions.has(nodeId)
  }

  /** A node with a session over the network has spoken. */
  heard(nodeId: NodeId): void {
    if (this.#awaited.has(nodeId)) this.#awaited.set(nodeId, this.#watch.awakeMs)
  }

  /**
   * A node's session was ended from its side: its daemon has ended, but its host is there and so are its containers.
   * `stopping`: it said so before, to be started again.
   */
  ended(nodeId: NodeId, end: Exclude<SessionEnd, 'silent'>): void {
    const limits = this.livenessLimits()
    if (!this.#awaited.has(nodeId)) return
    this.#awaited.set(nodeId, this.#watch.awakeMs + allowedMs(end, limits) - limits.silenceMs)
    this.#ended.add(nodeId)
  }

  /**
   * The daemon of a node without a session has been started again: it gets the time of a restart, counted from when it was
   * lost. Once only: one that is started again and again is lost in the end.
   */
  returning(nodeId: NodeId): void {
    const heardAtMs = this.#awaited.get(nodeId)
    if (heardAtMs === undefined || this.#sessions.has(nodeId) || this.#returning.has(nodeId)) return
    const { restartMs, returnMs } = this.livenessLimits()
    this.#returning.add(nodeId)
    this.#awaited.set(nodeId, heardAtMs + restartMs - returnMs)
  }

  /** A node's host is being shut down: its tasks end now, and it is not waited for. Resolves once that is written down. */
  async hostStops(nodeId: NodeId): Promise<void> {
    await this.#markDown([nodeId], 'its host was shut down')
  }

  /**
   * The last revision that every node routes by. One that has lost its session still routes by what it was told last: it
   * is waited for until it is back, or down.
   */
  get acknowledgedRevision(): number {
    if (this.#away.size > 0) return -1
    const untold = this.#feeds.pendingSinceRevision ?? Number.POSITIVE_INFINITY
    const slowest = this.#behind.firstRank ?? Number.POSITIVE_INFINITY
    return Math.min(untold - 1, slowest)
  }

  /** How far a session has followed may differ: rings when that takes everybody further. */
  #followed(session: NodeSession): void {
    if (this.#stop.signal.aborted) return
    const before = this.#behind.firstRank
    if (session.isBehind) this.#behind.set(session, session.acknowledgedRevision)
    else this.#behind.delete(session)
    const after = this.#behind.firstRank
    if (before !== undefined && (after === undefined || after > before)) this.acknowledged.ring()
  }

  /** Whether a node is there may differ. */
  #lookForNode(nodeId: NodeId): void {
    const state = this.#options.store.view.get('node', nodeId)?.status.state
    const isExpected =
      nodeId === this.#options.localNodeId ? !this.#isOwnLate : this.#awaited.has(nodeId)
    const isAway =
      isExpected && !this.#sessions.has(nodeId) && state !== undefined && state !== 'down'
    if (isAway) this.#away.add(nodeId)
    else if (this.#away.delete(nodeId)) this.acknowledged.ring()
  }

  async open(
    nodeId: NodeId,
    description: NodeDescription,
    signal: AbortSignal,
    held?: HeldFeeds,
    { isRemote }: OpenOptions = { isRemote: false },
  ): Promise<HeldSession> {
    await this.#predecessorDoubted
    this.#refuseIfOver(signal)
    const node = this.#options.store.view.get('node', nodeId)
    if (!node) throw notMember(nodeId)
    this.#sessions.get(nodeId)?.close()
    await this.#updateNode(nodeId, description, 'ready')
    this.#refuseIfOver(signal)
    const session = new NodeSession(nodeId, {
      ...this.#options,
      turns: this.turns,
      routing: this.#routing,
      feeds: this.#feeds,
      held,
      untoldSinceRevision: () => this.#feeds.pendingSinceRevision,
      followed: () => this.#followed(session),
      networksChanged: (before, after) => this.#networksChanged(session, before, after),
      report: (reports) => this.#report(nodeId, reports),
      describe: (next) => this.#updateNode(nodeId, next, 'ready'),
      closed: () => {
        if (this.#sessions.get(nodeId) !== session) return
        this.#sessions.delete(nodeId)
        const node = this.#options.store.view.get('node', nodeId)
        if (node) this.#await(node, this.#watch.awakeMs)
        this.#lookForNode(nodeId)
      },
    })
    // Someone else may have been faster while the node was written.
    this.#sessions.get(nodeId)?.close()
    this.#sessions.set(nodeId, session)
    this.#returning.delete(nodeId)
    this.#ended.delete(nodeId)
    this.#openedAt.set(nodeId, this.#watch.awakeMs)
    if (!isRemote) this.#awaited.delete(nodeId)
    else if (nodeId !== this.#options.localNodeId) this.#awaited.set(nodeId, this.#watch.awakeMs)
    this.#lookForNode(nodeId)
    this.#followed(session)
    this.#watchWanted.ring()
    signal.addEventListener('abort', () => session.close(), { once: true })
    return session
  }

  /** A session that begins after whoever asked has gone, or after this manager's leadership, would never end. */
  #refuseIfOver(asker: AbortSignal): void {
    if (this.#stop.signal.aborted)
      throw new UserError('unavailable', 'this manager no longer leads')
    if (asker.aborted)
      throw new UserError('unavailable', 'the session with the manager was given up')
  }

  /** Tells each session what of its node's assignments one change may have altered. */
  #learn(change: AppliedChange, revision: number): void {
    this.#feeds.learn(change, this.#routing.learn(change), revision)
    this.#lookForIngress(revision)
    const { kind, id, before, after } = change
    switch (kind) {
      case 'task':
        this.#learnTask(
          before?.kind === 'task' ? before : undefined,
          after?.kind === 'task' ? after : undefined,
          revision,
        )
        break
      case 'endpoint':
        if (isSamePorts(before, after)) break
        for (const object of [before, after]) {
          if (object?.kind !== 'endpoint') continue
          for (const { workloadId } of object.spec.backends)
            this.#touchTasksOf(workloadId, revision)
        }
        break
      case 'workload':
        if (before?.kind === 'workload' && after?.kind === 'workload' && isSameName(before, after))
          break
        this.#touchTasksOf(idFrom(id), revision)
        break
      case 'network': {
        const [old, now] = [before, after].map((object) =>
          object?.kind === 'network' ? object : undefined,
        )
        const isOtherNetwork = !old || !now || !isSameButPlaces(old, now)
        const sessions = new Set(isOtherNetwork ? this.#sessionsByNetwork.get(idFrom(id)) : [])
        for (const nodeId of nodesWithOtherPlaces(old, now)) {
          const session = this.#sessions.get(nodeId)
          if (session) sessions.add(session)
        }
        for (const session of sessions) session.touch({ type: 'networks' }, revision)
        break
      }
      case 'cluster':
        if (
          before?.kind === 'cluster' &&
          after?.kind === 'cluster' &&
          isSameForNodes(before, after)
        )
          break
        for (const session of this.#sessions.values())
          session.touch({ type: 'everything' }, revision)
        break
      case 'node':
        if (after?.kind === 'node') {
          // What it sends its own packets of cluster networks from goes with its assignments.
          if (before?.kind === 'node' && dataAddressOf(before) !== dataAddressOf(after))
            this.#sessions.get(after.id)?.touch({ type: 'everything' }, revision)
          if (after.status.state === 'down') this.#gone(after.id)
          // A node that has just been made has yet to begin: it gets the time of one that comes back.
          else if (!this.#sessions.has(after.id))
            this.#await(after, this.#watch.awakeMs + this.livenessLimits().graceMs)
        } else {
          const nodeId: NodeId = idFrom(id)
          this.#gone(nodeId)
          this.#sessions.get(nodeId)?.close(notMember(nodeId))
        }
        this.#lookForNode(idFrom(id))
        break
      case 'revision':
      case 'secret':
      case 'config':
        // Immutable, and sent with the tasks that need it.
        break
      default:
        unreachable(kind)
    }
  }

  #needsIngress(): boolean {
    return this.#routing.published.size > 0 && this.#options.store.view.count('node') > 1
  }

  #lookForIngress(revision: number): void {
    const isIngressNeeded = this.#needsIngress()
    if (isIngressNeeded === this.#isIngressNeeded) return
    this.#isIngressNeeded = isIngressNeeded
    for (const session of this.#sessions.values()) session.touch({ type: 'networks' }, revision)
  }

  #learnTask(before: Task | undefined, after: Task | undefined, revision: number): void {
    if (before && after && isSameForNode(before, after)) return
    const session = after?.nodeId && this.#sessions.get(after.nodeId)
    if (session) this.#touchTask(session, before, after, revision)
    const left = before?.nodeId && this.#sessions.get(before.nodeId)
    if (left && left !== session) this.#touchTask(left, before, after, revision)
  }

  #touchTask(
    session: NodeSession,
    before: Task | undefined,
    after: Task | undefined,
    revision: number,
  ): void {
    const id = (after ?? before)?.id
    if (id !== undefined) session.touch({ type: 'task', id }, revision)
    const isSameHolder =
      before &&
      after &&
      before.nodeId === after.nodeId &&
      holdsResources(before) === holdsResources(after)
    const addresses = (after ?? before)?.addresses.length ?? 0
    if (!isSameHolder && addresses > 0) session.touch({ type: 'networks' }, revision)
  }

  #networksChanged(
    session: NodeSession,
    before: ReadonlySet<NetworkId>,
    after: ReadonlySet<NetworkId>,
  ): void {
    if (this.#stop.signal.aborted) return
    for (const id of before) {
      if (after.has(id)) continue
      const sessions = this.#sessionsByNetwork.get(id)
      sessions?.delete(session)
      if (sessions?.size === 0) this.#sessionsByNetwork.delete(id)
    }
    for (const id of after) {
      const sessions = this.#sessionsByNetwork.get(id)
      if (sessions) sessions.add(session)
      else this.#sessionsByNetwork.set(id, new Set([session]))
    }
  }

  #touchTasksOf(workloadId: WorkloadId, revision: number): void {
    for (const task of this.#options.store.view.tasksOfWorkload(workloadId)) {
      const session = task.nodeId && this.#sessions.get(task.nodeId)
      if (session) session.touch({ type: 'task', id: task.id }, revision)
    }
  }

  // ---- Which nodes are there ----

  #gone(nodeId: NodeId): void {
    this.#awaited.delete(nodeId)
    this.#ended.delete(nodeId)
    this.#openedAt.delete(nodeId)
    this.#returning.delete(nodeId)
  }

  #await(node: ClusterNode, heardAtMs: number): void {
    if (node.status.state === 'down' || node.id === this.#options.localNodeId) return
    if (this.#awaited.has(node.id)) return
    this.#awaited.set(node.id, heardAtMs)
    this.#lookForNode(node.id)
    this.#watchWanted.ring()
  }

  async #watchLoop(): Promise<void> {
    const { clock } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      if (this.#awaited.size === 0) {
        await this.#watchWanted.wait(clock, signal)
        // Nobody was listened for meanwhile, so no time was missed.
        this.#watch = { ...this.#watch, lookedAtMs: clock.nowMs() }
        continue
      }
      const limits = this.livenessLimits()
      await clock.sleep(limits.lookMs, signal)
      if (signal.aborted) return
      this.#watch = lookAgain(this.#watch, clock.nowMs(), limits)
      const down = decideLiveness(this.#awaitedNodes(), this.#watch, limits)
      if (down.length > 0) await this.#markDown(down, 'heartbeat failure')
    }
  }

  *#awaitedNodes(): Iterable<WatchedNode> {
    for (const [nodeId, heardAtMs] of this.#awaited) {
      const openedAtMs = this.#openedAt.get(nodeId)
      yield { nodeId, heardAtMs, ...(openedAtMs === undefined ? {} : { openedAtMs }) }
    }
  }

  /** Has nothing placed on a node until it has a session. Its tasks stay what they are. */
  async #doubt(nodeId: NodeId): Promise<void> {
    const { store, clock, log, fence } = this.#options
    const node = store.view.get('node', nodeId)
    if (node?.status.state !== 'ready') return
    const message = 'it led, and its successor has not heard of it yet'
    const status = { ...node.status, state: 'unknown' as const, message, sinceMs: clock.nowMs() }
    try {
      await store.commit([{ type: 'update', object: { ...node, status } }], { fence })
    } catch (error) {
      log.debug('the leader before could not be marked', { error: messageOf(error) })
    }
  }

  /** What fails here is decided anew at the next look. */
  async #markDown(nodeIds: readonly NodeId[], message: string): Promise<void> {
    const { store, clock, log, fence } = this.#options
    const changes = nodeIds.slice(0, changesPerCommitMax).flatMap((nodeId): Change[] => {
      const node = store.view.get('node', nodeId)
      if (!node) {
        this.#awaited.delete(nodeId)
        return []
      }
      const status = {
        ...node.status,
        state: 'down' as const,
        message,
        sinceMs: clock.nowMs(),
        ...(this.#ended.has(nodeId) ? {} : { isSilent: true as const }),
      }
      return [{ type: 'update', object: { ...node, status } }]
    })
    if (changes.length === 0) return
    try {
      await store.commit(changes, { fence })
      for (const nodeId of nodeIds) {
        log.warn('a node is down', { nodeId, why: message })
        this.#sessions.get(nodeId)?.close()
      }
    } catch (error) {
      log.warn('a node could not be marked as down; trying again', {
        error: messageOf(error),
      })
    }
  }

  close(): void {
    this.#stop.abort()
    this.#unsubscribe()
    // One for all: to make thousands, each with its stack, would hold up everybody else.
    const over = sessionOver()
    const sessions = [...this.#sessions.values()]
    this.#sessions.clear()
    for (const session of sessions) session.close(over)
  }

  async #updateNode(
    nodeId: NodeId,
    description: NodeDescription,
    state: 'ready' | 'down',
  ): Promise<void> {
    const { store, clock, fence } = this.#options
    for (let attempt = 0; ; attempt++) {
      const node = store.view.get('node', nodeId)
      if (!node) return
      const same =
        node.status.state === state &&
        JSON.stringify(node.description) === JSON.stringify(description)
      if (same) return
      const sinceMs = node.status.state === state ? node.status.sinceMs : clock.nowMs()
      const { isSilent: _, ...before } = node.status
      const isBack = node.status.state === 'down' && state === 'ready'
      const status = {
        ...before,
        state,
        message: '',
        ...(isBack ? { backSinceMs: clock.nowMs() } : {}),
        ...(sinceMs === undefined ? {} : { sinceMs }),
        ...(description.address === undefined ? {} : { address: description.address }),
      }
      const object = { ...node, name: description.hostname, description, status }
      try {
        await store.commit([{ type: 'update', object }], { fence })
        return
      } catch (error) {
        if (!isStale(error) || attempt >= reportRetriesMax) throw error
        await nextCommit(store, clock)
      }
    }
  }

  /** Writes what a node says of its tasks; whether they get traffic follows at once, in the same commit. */
  async #report(nodeId: NodeId, reports: readonly TaskReport[]): Promise<void> {
    const { store, clock, log, fence } = this.#options
    for (let attempt = 0; ; attempt++) {
      // Not in a share: a task's state is not to wait behind messages to thousands of nodes.
      this.turns.spend(unitsPerReport * reports.length)
      const changes: Change[] = []
      const node = store.view.get('node', nodeId)
      for (const { taskId, status } of reports) {
        const task = store.view.get('task', taskId)
        if (!task) continue
        if (task.nodeId !== nodeId) {
          log.warn('a node reported a task of another node; ignored', { nodeId, taskId })
          continue
        }
        const told = inLeaderTime(task, status, clock.nowMs())
        const accepted = acceptStatus(task.status, node ? lostWithNode(task, told, node) : told)
        if (accepted === task.status || isDeepEqual(accepted, task.status)) continue
        const object: Task = { ...task, status: accepted }
        const traffic = decideTraffic(object, isServed(store.view, task), () => false)
        changes.push({ type: 'update', object: { ...object, traffic } })
      }
      if (changes.length === 0) return
      try {
        await store.commit(changes, { fence })
        return
      } catch (error) {
        if (!isStale(error) || attempt >= reportRetriesMax) throw error
        await nextCommit(store, clock)
      }
    }
  }
}

/** Whether the parts of the cluster object that assignments are made of are the same. */
function isSameForNodes(before: Cluster, after: Cluster): boolean {
  return (
    isDeepEqual(before.spec.logDriver, after.spec.logDriver) &&
    before.status.dataPathPort === after.status.dataPathPort
  )
}

function notMember(nodeId: NodeId): UserError {
  return new UserError('notFound', `node ${nodeId} is not part of this cluster`, {
    next: 'It was removed: make it leave with `docker swarm leave --force` and join again.',
  })
}

function isStale(error: unknown): boolean {
  return error instanceof UserError && (error.code === 'outOfSequence' || error.code === 'notFound')
}

/**
 * A node acts on what it is to do, where it gets traffic from, and with what. Its own reports are no news to it, but for a task
 * that is not ready any more: the node has to know that its traffic was decided on that.
 */
function isSameForNode(before: Task, after: Task): boolean {
  return (
    before.nodeId === after.nodeId &&
    before.desiredState === after.desiredState &&
    before.traffic === after.traffic &&
    before.addresses === after.addresses &&
    before.status.unreadyCount === after.status.unreadyCount &&
    isTerminal(before.status.state) === isTerminal(after.status.state) &&
    rankOf(before.status.state) >= rankOf('assigned')
  )
}

function isSamePorts(before: AppliedChange['before'], after: AppliedChange['after']): boolean {
  return (
    before?.kind === 'endpoint' &&
    after?.kind === 'endpoint' &&
    isDeepEqual(before.spec, after.spec) &&
    isDeepEqual(before.status.ports, after.status.ports)
  )
}

/** Whether nothing of the network differs but who has addresses there. */
function isSameButPlaces(before: Network, after: Network): boolean {
  const others = ({ name, labels, spec, status }: Network) => {
    const { attachments: _, nodeAddresses: __, ...rest } = status
    return { name, labels, spec, rest }
  }
  return isDeepEqual(others(before), others(after))
}

/** The nodes whose plain containers there, or whose own address there, differ. */
function nodesWithOtherPlaces(
  before: Network | undefined,
  after: Network | undefined,
): ReadonlySet<NodeId> {
  const nodeIds = new Set<NodeId>()
  const placesOf = (network: Network | undefined) => [
    ...(network?.status.attachments ?? []),
    ...(network?.status.nodeAddresses ?? []),
  ]
  const [old, now] = [placesOf(before), placesOf(after)]
  const keyOf = ({ nodeId, address, mac }: (typeof old)[number]) => `${nodeId} ${address} ${mac}`
  const [oldKeys, nowKeys] = [new Set(old.map(keyOf)), new Set(now.map(keyOf))]
  for (const place of old) if (!nowKeys.has(keyOf(place))) nodeIds.add(place.nodeId)
  for (const place of now) if (!oldKeys.has(keyOf(place))) nodeIds.add(place.nodeId)
  return nodeIds
}

function isSameName(before: Workload, after: Workload): boolean {
  return (
    before.name === after.name &&
    isDeepEqual(before.labels, after.labels) &&
    isDeepEqual(before.spec.onNodeLoss, after.spec.onNodeLoss)
  )
}

type Part =
  | { readonly type: 'task'; readonly id: string }
  | { readonly type: 'networks' | 'everything' }

interface SessionContext extends DispatcherOptions {
  readonly turns: TurnBudget
  readonly routing: RoutingIndex
  readonly feeds: Feeds
  /** What the node knows from a session before. */
  readonly held: HeldFeeds | undefined
  /** The first change that the rounds of routing have not handed out yet. */
  readonly untoldSinceRevision: () => number | undefined
  /** How far this session has followed may differ. */
  readonly followed: () => void
  readonly networksChanged: (before: ReadonlySet<NetworkId>, after: ReadonlySet<NetworkId>) => void
  readonly report: (reports: readonly TaskReport[]) => Promise<void>
  readonly describe: (description: NodeDescription) => Promise<void>
  readonly closed: () => void
}

interface Unacknowledged {
  readonly sequence: number
  /** Of the first change it carries. */
  readonly sinceRevision: number
}

/** Of a turn: to make a message to a node and its bytes; for each task in it. */
const unitsPerMessage = 6
const unitsPerTask = 4
/** To look at what a node says of a task, and to check and encode what follows. */
const unitsPerReport = 2
/** Facts of feeds whose ready-made bytes are sent in one unit: some 50 each, encrypted and handed to the kernel. */
const factsPerUnit = 100

/** Messages to a node told apart; of more, the last ones count as one. */
const unacknowledgedMax = 64

/** One node's view of the cluster: what it was last told, and what may have changed since. */
class NodeSession implements HeldSession, Listener {
  readonly #nodeId: NodeId
  readonly #context: SessionContext
  readonly #wake = new WakeUp()
  readonly #over = new AbortController()
  /** Signals whose end rings: `next` comes with the same one again and again. */
  readonly #ringing = new WeakSet<AbortSignal>()
  readonly #sentTasks = new Map<TaskId, TaskAssignment>()
  readonly #sentNetworks = new Map<NetworkId, NetworkAssignment>()
  readonly #sentSecrets = new Map<SecretId, SecretAssignment>()
  readonly #sentConfigs = new Map<ConfigId, ConfigAssignment>()
  /** Users of each secret and config, by task, so that the last one to go takes it along. */
  readonly #references = new Map<TaskId, References>()
  /** Versions of the feeds that the node was told. */
  #toldFeeds: ReadonlyMap<FeedId, number> = new Map()
  #feedsDirty = true
  #neededNetworks: ReadonlySet<NetworkId> = new Set()
  /** Those on which it has tasks. */
  #taskNetworks: ReadonlySet<NetworkId> = new Set()
  #dirtyTasks = new Set<string>()
  #networksDirty = true
  #everything = true
  /** Revision of the first change that may concern this node and is in no message yet. */
  #untoldSince: number | undefined = 0
  #sequence = 0
  /** Messages that the node has not acknowledged, oldest first. */
  #unacknowledged: Unacknowledged[] = []

  constructor(nodeId: NodeId, context: SessionContext) {
    this.#nodeId = nodeId
    this.#context = context
    this.#wake.ring()
  }

  get over(): AbortSignal {
    return this.#over.signal
  }

  get #isClosed(): boolean {
    return this.#over.signal.aborted
  }

  /** Marks a part of this node's assignments as possibly different since `revision`. */
  touch(part: Part, revision: number): void {
    if (part.type === 'task') this.#dirtyTasks.add(part.id)
    else if (part.type === 'networks') this.#networksDirty = true
    else this.#everything = true
    this.#touched(revision)
  }

  touchFeeds(sinceRevision: number): void {
    this.#feedsDirty = true
    this.#touched(sinceRevision)
  }

  #touched(revision: number): void {
    if (this.#isClosed) return
    this.#untoldSince = Math.min(this.#untoldSince ?? revision, revision)
    this.#wake.ring()
    this.#context.followed()
  }

  /** Whether the node has still to say that it is as the store was when something of it last changed. */
  get isBehind(): boolean {
    if (this.#isClosed) return false
    return this.#untoldSince !== undefined || this.#unacknowledged.length > 0
  }

  /** The last revision that the node follows whole. A message may carry changes older than those of the one before. */
  get acknowledgedRevision(): number {
    let since = this.#untoldSince ?? Number.POSITIVE_INFINITY
    for (const { sinceRevision } of this.#unacknowledged) since = Math.min(since, sinceRevision)
    return since - 1
  }

  async next(signal: AbortSignal): Promise<AssignmentChange> {
    if (!this.#ringing.has(signal)) {
      this.#ringing.add(signal)
      signal.addEventListener('abort', () => this.#wake.ring(), { once: true })
    }
    for (;;) {
      if (!signal.aborted) await this.#wake.rung()
      if (signal.aborted || this.#isClosed) {
        this.#wake.ring() // Also for whoever asks next.
        throw this.#isClosed ? this.#over.signal.reason : sessionOver()
      }
      const begun = this.#context.feeds.begun()
      if (begun) await begun
      const units = this.#differenceUnits()
      const share = this.#context.turns.take(units)
      if (share) await share
      if (begun || share) {
        if (signal.aborted || this.#isClosed) {
          this.#wake.ring()
          continue
        }
      }
      // More of it may differ since the share was asked for.
      const unitsNow = this.#differenceUnits()
      const change = this.#difference()
      let facts = 0
      for (const { parts } of change.feeds.put) for (const part of parts) facts += factCountOf(part)
      this.#context.turns.spend(Math.max(0, unitsNow - units) + facts / factsPerUnit)
      const sinceRevision = this.#untoldSince
      this.#untoldSince = undefined
      const isNews = change.full || !isEmpty(change)
      if (isNews) this.#expect({ sequence: change.sequence, sinceRevision })
      // Otherwise nothing of the node is different after all: it is where it was after the last message.
      this.#context.followed()
      if (isNews) return change
    }
  }

  /** The message also tells what the rounds would hand out only later. */
  #expect(message: { readonly sequence: number; readonly sinceRevision: number | undefined }) {
    const { store, untoldSinceRevision } = this.#context
    const last =
      this.#unacknowledged.length < unacknowledgedMax ? undefined : this.#unacknowledged.pop()
    const sinceRevision = Math.min(
      message.sinceRevision ?? store.view.revision,
      untoldSinceRevision() ?? Number.POSITIVE_INFINITY,
      last?.sinceRevision ?? Number.POSITIVE_INFINITY,
    )
    this.#unacknowledged.push({ sequence: message.sequence, sinceRevision })
  }

  /** What the next difference takes of a turn, with its bytes. */
  #differenceUnits(): number {
    const { store } = this.#context
    const own = this.#everything ? store.view.tasksOfNode(this.#nodeId).length : 0
    return unitsPerMessage + unitsPerTask * (this.#dirtyTasks.size + own) + this.#toldFeeds.size
  }

  #difference(): AssignmentChange {
    const { store, unseal } = this.#context
    const { view } = store
    const full = this.#everything
    if (full) {
      this.#everything = false
      for (const sent of [
        this.#sentTasks,
        this.#sentNetworks,
        this.#sentSecrets,
        this.#sentConfigs,
      ]) {
        sent.clear()
      }
      this.#references.clear()
      for (const task of view.tasksOfNode(this.#nodeId)) this.#dirtyTasks.add(task.id)
      this.#networksDirty = true
    }
    const networks = this.#networksDirty ? this.#diffNetworks() : noDelta
    if (this.#networksDirty) this.#taskNetworks = networksOfTasks(view.tasksOfNode(this.#nodeId))
    const feeds = full || this.#networksDirty || this.#feedsDirty ? this.#diffFeeds(full) : noDelta
    const tasks = this.#diffTasks(this.#dirtyTasks)
    const wantedSecrets = new Set<SecretId>()
    const wantedConfigs = new Set<ConfigId>()
    for (const { secrets, configs } of this.#references.values()) {
      for (const id of secrets) wantedSecrets.add(id)
      for (const id of configs) wantedConfigs.add(id)
    }
    const secrets = diff(this.#sentSecrets, wantedSecrets, true, (id) =>
      this.#opened(id, () => secretAssignment(view, id, unseal)),
    )
    const configs = diff(this.#sentConfigs, wantedConfigs, true, (id) => configAssignment(view, id))
    this.#dirtyTasks = new Set()
    this.#networksDirty = false
    this.#feedsDirty = false
    return {
      full,
      sequence: ++this.#sequence,
      node: nodeAssignment(view, this.#nodeId),
      tasks,
      secrets,
      configs,
      networks,
      feeds,
    }
  }

  /** `full`: what the node is to keep is named too. */
  #diffFeeds(full: boolean): AssignmentChange['feeds'] {
    const { feeds, held } = this.#context
    const told = new Map<FeedId, number>()
    const put: FeedChange[] = []
    const wanted = feeds.wantedBy(this.#sentNetworks.keys(), (id) => this.#taskNetworks.has(id))
    for (const feed of wanted) {
      // The first message is the only one that is applied to what the node had before.
      const known =
        this.#sequence === 0 ? feed.versionOf(held?.get(feed.id)) : this.#toldFeeds.get(feed.id)
      told.set(feed.id, feed.version)
      if (full || known !== feed.version) put.push(feed.since(known))
    }
    const remove = full ? [] : [...this.#toldFeeds.keys()].filter((id) => !told.has(id))
    this.#toldFeeds = told
    return { put, remove }
  }

  #opened<T>(id: string, open: () => T): T | undefined {
    try {
      return open()
    } catch (error) {
      this.#context.log.error('a sealed object could not be opened', {
        id,
        error: messageOf(error),
      })
      return undefined
    }
  }

  #diffTasks(dirty: ReadonlySet<string>): AssignmentChange['tasks'] {
    const { routing, store, unseal } = this.#context
    const { view } = store
    const put: TaskAssignment[] = []
    const remove: TaskId[] = []
    for (const id of dirty) {
      const task = view.get('task', id)
      const taskId: TaskId = idFrom(id)
      const assignment =
        task && isAssignedTo(task, this.#nodeId)
          ? this.#opened(id, () =>
              taskAssignment(view, task, routing.hasOtherRoutable(task), unseal),
            )
          : undefined
      if (task && assignment) {
        if (sameTask(this.#sentTasks.get(taskId), assignment)) continue
        this.#sentTasks.set(taskId, assignment)
        const references = referencedIds(view, task)
        if (references.secrets.length + references.configs.length > 0)
          this.#references.set(taskId, references)
        else this.#references.delete(taskId)
        put.push(assignment)
      } else if (this.#sentTasks.delete(taskId)) {
        this.#references.delete(taskId)
        remove.push(taskId)
      }
    }
    return { put, remove }
  }

  #diffNetworks(): AssignmentChange['networks'] {
    const { networksChanged, routing, store } = this.#context
    const { view } = store
    const needed = networksNeeded(
      view,
      this.#nodeId,
      routing.attachedNetworks(this.#nodeId),
      routing.published.size > 0,
    )
    networksChanged(this.#neededNetworks, needed)
    this.#neededNetworks = needed
    return diff(this.#sentNetworks, needed, false, (id) => {
      const network = view.get('network', id)
      return network && networkAssignment(network, this.#nodeId)
    })
  }

  acknowledge(sequence: number): void {
    const [first] = this.#unacknowledged
    if (!first || sequence < first.sequence) return
    this.#unacknowledged = this.#unacknowledged.filter((message) => message.sequence > sequence)
    this.#context.followed()
  }

  async report(reports: readonly TaskReport[]): Promise<void> {
    if (this.#isClosed) throw sessionOver()
    await this.#context.report(reports)
  }

  async describe(description: NodeDescription): Promise<void> {
    await this.#context.describe(description)
  }

  close(because: UserError = sessionOver()): void {
    if (this.#isClosed) return
    this.#over.abort(because)
    this.#wake.ring()
    this.#context.followed()
    this.#context.networksChanged(this.#neededNetworks, new Set())
    this.#context.closed()
  }
}

const noDelta = { put: [], remove: [] }

function isEmpty(change: AssignmentChange): boolean {
  const { tasks, secrets, configs, networks, feeds } = change
  return [tasks, secrets, configs, networks, feeds].every(
    ({ put, remove }) => put.length === 0 && remove.length === 0,
  )
}

/** A node acts on desired state, traffic and template; what it reported itself is no news to it. */
function sameTask(before: TaskAssignment | undefined, after: TaskAssignment): boolean {
  return (
    before !== undefined &&
    before.task.desiredState === after.task.desiredState &&
    before.task.traffic === after.task.traffic &&
    before.drainMs === after.drainMs &&
    before.stopAfterMs === after.stopAfterMs &&
    before.name === after.name &&
    before.task.addresses === after.task.addresses &&
    before.task.status.unreadyCount === after.task.status.unreadyCount &&
    isTerminal(before.task.status.state) === isTerminal(after.task.status.state)
  )
}

function diff<Key extends string, Value>(
  sent: Map<Key, Value>,
  wanted: ReadonlySet<Key>,
  immutable: boolean,
  make: (id: Key) => Value | undefined,
): { readonly put: readonly Value[]; readonly remove: readonly Key[] } {
  const put: Value[] = []
  const remove: Key[] = []
  for (const id of sent.keys()) if (!wanted.has(id)) remove.push(id)
  for (const key of remove) sent.delete(key)
  for (const id of wanted) {
    const known = sent.get(id)
    // Secrets and configs never change; what may change is compared.
    if (known !== undefined && immutable) continue
    const value = make(id)
    if (value === undefined || (known !== undefined && isDeepEqual(known, value))) continue
    sent.set(id, value)
    put.push(value)
  }
  return { put, remove }
}
