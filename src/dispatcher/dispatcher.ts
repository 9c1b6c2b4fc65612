import {
  type Clock,
  isDeepEqual,
  type Log,
  messageOf,
  UserError,
  unreachable,
  WakeUp,
} from '../base/index.ts'
import {
  acceptStatus,
  type ClusterNode,
  type ConfigId,
  type EndpointId,
  holdsResources,
  idFrom,
  isTerminal,
  type NetworkId,
  type NodeDescription,
  type NodeId,
  type SecretId,
  type Task,
  type TaskId,
  type WorkloadId,
} from '../model/index.ts'
import { nextCommit } from '../store/index.ts'
import { type AppliedChange, type Change, changesPerCommitMax, type Store } from '../store/store.ts'
import type {
  AssignmentChange,
  ConfigAssignment,
  EndpointAssignment,
  ManagerLink,
  NetworkAssignment,
  SecretAssignment,
  Session,
  TaskAssignment,
  TaskReport,
} from '../wire/index.ts'
import {
  configAssignment,
  endpointAssignment,
  isAssignedTo,
  isRouted,
  networkAssignment,
  networksNeeded,
  nodeAssignment,
  type References,
  referencedIds,
  secretAssignment,
  taskAssignment,
  type Unseal,
} from './assignments.ts'
import {
  beginWatch,
  decideLiveness,
  type LivenessLimits,
  livenessLimits,
  lookAgain,
  type Watch,
  type WatchedNode,
} from './liveness.ts'
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
}

/** A node's session over the network, as its manager holds it. */
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
  readonly #sessions = new Map<NodeId, NodeSession>()
  readonly #unsubscribe: () => void
  /** Nodes that should be heard and are not down: those with a session over the network, and those without any. */
  readonly #awaited = new Map<NodeId, number>()
  readonly #stop = new AbortController()
  readonly #watchWanted = new WakeUp()
  #watch: Watch
  /** Rung when a node acknowledged: draining tasks may go on. */
  readonly acknowledged = new WakeUp()

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.#unsubscribe = options.store.subscribe((commit) => {
      for (const change of commit.changes) this.#learn(change, commit.revision)
    })
    this.#watch = beginWatch(options.clock.nowMs(), this.livenessLimits())
    for (const node of options.store.view.list('node')) this.#await(node, 0)
    void this.#watchLoop()
  }

  /** What nodes are held to now: it grows with their number. */
  livenessLimits(): LivenessLimits {
    const { view } = this.#options.store
    const [cluster] = view.list('cluster')
    return livenessLimits(view.count('node'), cluster?.spec.heartbeatPeriodMs ?? 5_000)
  }

  /** A node with a session over the network has spoken. */
  heard(nodeId: NodeId): void {
    if (this.#awaited.has(nodeId)) this.#awaited.set(nodeId, this.#watch.awakeMs)
  }

  /**
   * Whether every node routes as the store said at `revision`. One that has lost its session still routes by what it
   * was told last: it is waited for until it is back, or down.
   */
  isAcknowledged(revision: number): boolean {
    for (const session of this.#sessions.values()) {
      if (!session.isAcknowledged(revision)) return false
    }
    const { view } = this.#options.store
    for (const nodeId of this.#awaited.keys()) {
      if (!this.#sessions.has(nodeId) && view.get('node', nodeId)?.status.state === 'ready')
        return false
    }
    return true
  }

  async open(
    nodeId: NodeId,
    description: NodeDescription,
    signal: AbortSignal,
    { isRemote }: OpenOptions = { isRemote: false },
  ): Promise<Session> {
    const node = this.#options.store.view.get('node', nodeId)
    if (!node) throw notMember(nodeId)
    this.#sessions.get(nodeId)?.close()
    await this.#updateNode(nodeId, description, 'ready')
    const session = new NodeSession(nodeId, {
      ...this.#options,
      acknowledged: () => this.acknowledged.ring(),
      report: (reports) => this.#report(nodeId, reports),
      describe: (next) => this.#updateNode(nodeId, next, 'ready'),
      closed: () => {
        if (this.#sessions.get(nodeId) !== session) return
        this.#sessions.delete(nodeId)
        const node = this.#options.store.view.get('node', nodeId)
        if (node) this.#await(node, this.#watch.awakeMs)
        this.acknowledged.ring()
      },
    })
    // Someone else may have been faster while the node was written.
    this.#sessions.get(nodeId)?.close()
    this.#sessions.set(nodeId, session)
    if (!isRemote) this.#awaited.delete(nodeId)
    else if (nodeId !== this.#options.localNodeId) this.#awaited.set(nodeId, this.#watch.awakeMs)
    this.#watchWanted.ring()
    signal.addEventListener('abort', () => session.close(), { once: true })
    return session
  }

  /** Tells each session what of its node's assignments one change may have altered. */
  #learn({ kind, id, before, after }: AppliedChange, revision: number): void {
    const { view } = this.#options.store
    switch (kind) {
      case 'task': {
        const old = before?.kind === 'task' ? before : undefined
        const task = after?.kind === 'task' ? after : undefined
        for (const nodeId of new Set([old?.nodeId, task?.nodeId])) {
          const session = nodeId && this.#sessions.get(nodeId)
          if (!session) continue
          session.touch({ type: 'task', id }, revision)
          if (
            !old ||
            !task ||
            holdsResources(old) !== holdsResources(task) ||
            old.nodeId !== task.nodeId
          ) {
            session.touch({ type: 'networks' }, revision)
          }
        }
        // Only routable tasks are in the sets, so other news of a task is none to those who route to it.
        const wasRoutable = old?.traffic === 'routable'
        const workloadId = (task ?? old)?.workloadId
        if (
          workloadId &&
          (wasRoutable || task?.traffic === 'routable') &&
          old?.traffic !== task?.traffic
        ) {
          for (const endpoint of view.endpointsOfWorkload(workloadId))
            this.#touchAll({ type: 'endpoint', id: endpoint.id }, revision)
        }
        break
      }
      case 'endpoint':
        this.#touchAll({ type: 'endpoint', id }, revision)
        for (const object of [before, after]) {
          if (object?.kind !== 'endpoint') continue
          for (const { workloadId } of object.spec.backends)
            this.#touchTasksOf(workloadId, revision)
        }
        break
      case 'workload':
        this.#touchTasksOf(idFrom(id), revision)
        for (const endpoint of view.endpointsOfWorkload(idFrom(id)))
          this.#touchAll({ type: 'endpoint', id: endpoint.id }, revision)
        break
      case 'network':
        this.#touchAll({ type: 'networks' }, revision)
        break
      case 'cluster':
        this.#touchAll({ type: 'everything' }, revision)
        break
      case 'node':
        if (after?.kind === 'node') {
          if (after.status.state === 'down') this.#awaited.delete(after.id)
          // A node that has just been made has yet to begin: it gets the time of one that comes back.
          else if (!this.#sessions.has(after.id))
            this.#await(after, this.#watch.awakeMs + this.livenessLimits().graceMs)
        } else {
          const nodeId: NodeId = idFrom(id)
          this.#awaited.delete(nodeId)
          this.#sessions.get(nodeId)?.close(notMember(nodeId))
        }
        this.acknowledged.ring()
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

  #touchAll(part: Part, revision: number): void {
    for (const session of this.#sessions.values()) session.touch(part, revision)
  }

  #touchTasksOf(workloadId: WorkloadId, revision: number): void {
    for (const task of this.#options.store.view.tasksOfWorkload(workloadId)) {
      const session = task.nodeId && this.#sessions.get(task.nodeId)
      if (session) session.touch({ type: 'task', id: task.id }, revision)
    }
  }

  // ---- Which nodes are there ----

  #await(node: ClusterNode, heardAtMs: number): void {
    if (node.status.state === 'down' || node.id === this.#options.localNodeId) return
    if (this.#awaited.has(node.id)) return
    this.#awaited.set(node.id, heardAtMs)
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
      if (down.length > 0) await this.#markDown(down)
    }
  }

  *#awaitedNodes(): Iterable<WatchedNode> {
    for (const [nodeId, heardAtMs] of this.#awaited) yield { nodeId, heardAtMs }
  }

  /** What fails here is decided anew at the next look. */
  async #markDown(nodeIds: readonly NodeId[]): Promise<void> {
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
        message: 'heartbeat failure',
        sinceMs: clock.nowMs(),
      }
      return [{ type: 'update', object: { ...node, status } }]
    })
    if (changes.length === 0) return
    try {
      await store.commit(changes, { fence })
      for (const nodeId of nodeIds) {
        log.warn('a node is down: it has been silent for too long', { nodeId })
        this.#sessions.get(nodeId)?.close()
      }
    } catch (error) {
      log.warn('a silent node could not be marked as down; trying again', {
        error: messageOf(error),
      })
    }
  }

  close(): void {
    this.#stop.abort()
    this.#unsubscribe()
    for (const session of [...this.#sessions.values()]) session.close()
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
      const status = {
        ...node.status,
        state,
        message: '',
        ...(sinceMs === undefined ? {} : { sinceMs }),
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
      const changes: Change[] = []
      for (const { taskId, status } of reports) {
        const task = store.view.get('task', taskId)
        if (!task) continue
        if (task.nodeId !== nodeId) {
          log.warn('a node reported a task of another node; ignored', { nodeId, taskId })
          continue
        }
        const accepted = acceptStatus(task.status, status)
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

function notMember(nodeId: NodeId): UserError {
  return new UserError('notFound', `node ${nodeId} is not part of this cluster`, {
    next: 'It was removed: make it leave with `docker swarm leave --force` and join again.',
  })
}

function isStale(error: unknown): boolean {
  return error instanceof UserError && (error.code === 'outOfSequence' || error.code === 'notFound')
}

type Part =
  | { readonly type: 'task' | 'endpoint'; readonly id: string }
  | { readonly type: 'networks' | 'everything' }

interface SessionContext extends DispatcherOptions {
  readonly acknowledged: () => void
  readonly report: (reports: readonly TaskReport[]) => Promise<void>
  readonly describe: (description: NodeDescription) => Promise<void>
  readonly closed: () => void
}

/** One node's view of the cluster: what it was last told, and what may have changed since. */
class NodeSession implements Session {
  readonly #nodeId: NodeId
  readonly #context: SessionContext
  readonly #wake = new WakeUp()
  readonly #closed = new AbortController()
  #closedBecause: UserError | undefined
  readonly #sentTasks = new Map<TaskId, TaskAssignment>()
  readonly #sentEndpoints = new Map<EndpointId, EndpointAssignment>()
  readonly #sentNetworks = new Map<NetworkId, NetworkAssignment>()
  readonly #sentSecrets = new Map<SecretId, SecretAssignment>()
  readonly #sentConfigs = new Map<ConfigId, ConfigAssignment>()
  /** Users of each secret and config, by task, so that the last one to go takes it along. */
  readonly #references = new Map<TaskId, References>()
  #dirtyTasks = new Set<string>()
  #dirtyEndpoints = new Set<string>()
  #networksDirty = true
  #everything = true
  #touchedRevision: number
  #acknowledgedRevision = 0

  constructor(nodeId: NodeId, context: SessionContext) {
    this.#nodeId = nodeId
    this.#context = context
    this.#touchedRevision = context.store.view.revision
    this.#wake.ring()
  }

  /** Marks a part of this node's assignments as possibly different since `revision`. */
  touch(part: Part, revision: number): void {
    if (part.type === 'task') this.#dirtyTasks.add(part.id)
    else if (part.type === 'endpoint') this.#dirtyEndpoints.add(part.id)
    else if (part.type === 'networks') this.#networksDirty = true
    else this.#everything = true
    this.#touchedRevision = revision
    this.#wake.ring()
  }

  /** Whether this node routes as the store said at `revision`, or nothing of it has changed since it did. */
  isAcknowledged(revision: number): boolean {
    return this.#acknowledgedRevision >= Math.min(revision, this.#touchedRevision)
  }

  async next(signal: AbortSignal): Promise<AssignmentChange> {
    const { clock } = this.#context
    const ended = AbortSignal.any([signal, this.#closed.signal])
    await this.#wake.wait(clock, ended)
    if (ended.aborted) {
      throw (
        this.#closedBecause ?? new UserError('unavailable', 'the session with the manager is over')
      )
    }
    return this.#difference()
  }

  #difference(): AssignmentChange {
    const { store, unseal } = this.#context
    const { view } = store
    const full = this.#everything
    if (full) {
      this.#everything = false
      for (const sent of [
        this.#sentTasks,
        this.#sentEndpoints,
        this.#sentNetworks,
        this.#sentSecrets,
        this.#sentConfigs,
      ]) {
        sent.clear()
      }
      this.#references.clear()
      for (const task of view.tasksOfNode(this.#nodeId)) this.#dirtyTasks.add(task.id)
      for (const endpoint of view.list('endpoint')) this.#dirtyEndpoints.add(endpoint.id)
      this.#networksDirty = true
    }
    const networks = this.#networksDirty ? this.#diffNetworks() : noDelta
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
    const endpoints = this.#diffEndpoints()
    this.#dirtyTasks = new Set()
    this.#dirtyEndpoints = new Set()
    this.#networksDirty = false
    return {
      full,
      revision: view.revision,
      node: nodeAssignment(view, this.#nodeId),
      tasks,
      secrets,
      configs,
      networks,
      endpoints,
    }
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
    const { view } = this.#context.store
    const put: TaskAssignment[] = []
    const remove: TaskId[] = []
    for (const id of dirty) {
      const task = view.get('task', id)
      const taskId: TaskId = idFrom(id)
      const assignment =
        task && isAssignedTo(task, this.#nodeId)
          ? this.#opened(id, () => taskAssignment(view, task, this.#context.unseal))
          : undefined
      if (task && assignment) {
        if (sameTask(this.#sentTasks.get(taskId), assignment)) continue
        this.#sentTasks.set(taskId, assignment)
        this.#references.set(taskId, referencedIds(view, task))
        put.push(assignment)
      } else if (this.#sentTasks.delete(taskId)) {
        this.#references.delete(taskId)
        remove.push(taskId)
      }
    }
    return { put, remove }
  }

  #diffNetworks(): AssignmentChange['networks'] {
    const { view } = this.#context.store
    const needed = networksNeeded(view, this.#nodeId)
    const delta = diff(this.#sentNetworks, needed, false, (id) => {
      const network = view.get('network', id)
      return network && networkAssignment(network)
    })
    if (delta.put.length > 0 || delta.remove.length > 0) {
      for (const endpoint of view.list('endpoint')) this.#dirtyEndpoints.add(endpoint.id)
    }
    return delta
  }

  #diffEndpoints(): AssignmentChange['endpoints'] {
    const { view } = this.#context.store
    const put: EndpointAssignment[] = []
    const remove: EndpointId[] = []
    const networks = new Set(this.#sentNetworks.keys())
    for (const id of this.#dirtyEndpoints) {
      const endpoint = view.get('endpoint', id)
      const endpointId: EndpointId = idFrom(id)
      if (endpoint && isRouted(endpoint, networks)) {
        const assignment = endpointAssignment(view, endpoint)
        if (isDeepEqual(this.#sentEndpoints.get(endpointId), assignment)) continue
        this.#sentEndpoints.set(endpointId, assignment)
        put.push(assignment)
      } else if (this.#sentEndpoints.delete(endpointId)) remove.push(endpointId)
    }
    return { put, remove }
  }

  acknowledge(revision: number): void {
    if (revision <= this.#acknowledgedRevision) return
    this.#acknowledgedRevision = revision
    this.#context.acknowledged()
  }

  async report(reports: readonly TaskReport[]): Promise<void> {
    if (this.#closed.signal.aborted)
      throw new UserError('unavailable', 'the session with the manager is over')
    await this.#context.report(reports)
  }

  async describe(description: NodeDescription): Promise<void> {
    await this.#context.describe(description)
  }

  close(because?: UserError): void {
    this.#closedBecause ??= because
    this.#closed.abort()
    this.#context.closed()
  }
}

const noDelta = { put: [], remove: [] }

/** A node acts on desired state, traffic and template; what it reported itself is no news to it. */
function sameTask(before: TaskAssignment | undefined, after: TaskAssignment): boolean {
  return (
    before !== undefined &&
    before.task.desiredState === after.task.desiredState &&
    before.task.traffic === after.task.traffic &&
    before.drainMs === after.drainMs &&
    before.name === after.name &&
    before.task.addresses === after.task.addresses &&
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
