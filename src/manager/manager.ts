import { Allocator, changesFor as allocationChanges } from '../allocator/index.ts'
import {
  type Clock,
  isDeepEqual,
  KeyedHeap,
  type Log,
  type Portions,
  type Random,
  TurnBudget,
  usualPortions,
  WakeUp,
} from '../base/index.ts'
import {
  Dispatcher,
  decideTraffic,
  isServed,
  type Predecessor,
  type Unseal,
} from '../dispatcher/index.ts'
import {
  type AnyObject,
  type ClusterNode,
  idFrom,
  type NodeId,
  type Revision,
  type Task,
  type Workload,
  type WorkloadId,
} from '../model/index.ts'
import {
  changesInParts,
  decideInParts,
  decideNode,
  decideOrphans,
  decideRebalance,
  isRebalanceWanted,
  type NodeSet,
  nodesAsFirstSeen,
  observeWorkload,
  rebalanceLabel,
} from '../orchestrator/index.ts'
import { Scheduler, changesFor as schedulingChanges } from '../scheduler/index.ts'
import type { Change, Commit, Store, View } from '../store/store.ts'
import type { ManagerLink } from '../wire/index.ts'
import { Loading } from './loading.ts'
import { runLoop, type Turn } from './loop.ts'

export interface ManagerOptions {
  readonly store: Store
  /** Leader epoch: every write of a loop is fenced with it. */
  readonly epoch: number
  readonly unseal: Unseal
  /** The node this leader runs on, if it has an agent in this process. */
  readonly localNodeId?: NodeId
  /** The leader before, where there was another one that this node has listened to. */
  readonly predecessor?: Predecessor
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Default: the usual ones. */
  readonly portions?: Portions
}

export interface Manager {
  /** How agents in this process reach this leader. */
  readonly link: ManagerLink
  /** Sessions of the other nodes. */
  readonly dispatcher: Dispatcher
  /** For addresses that no task asks for. */
  readonly allocator: Allocator
  close(): Promise<void>
}

/** Workloads decided in one turn of the orchestrators' loop; the rest follows in the next. */
const workloadsPerTurnMax = 200
/**
 * How long a workload rests after it was decided, in ms for each of its tasks: to decide it costs as much as it has
 * tasks, so what happens to a large one is gathered. Nothing up to 100 tasks, a tenth of a second for 10,000.
 */
const restMsPerTask = 0.01
/** Of a turn: to take one change in, once it is stored. It can't wait for a share. */
const unitsPerLearned = 1
/** Tasks and revisions that a new leader looks through in one turn of it, for those whose workload is gone. */
const looseEndsPerTurnMax = 5_000

/** Starts the leader's loops over a store. */
export function startManager(options: ManagerOptions): Manager {
  const { store, clock, random, log, epoch, portions = usualPortions } = options
  const stop = new AbortController()
  const { unseal, localNodeId, predecessor } = options
  const turns = new TurnBudget(clock, portions.unitsPerTurn)
  const dispatcher = new Dispatcher({
    store,
    unseal,
    clock,
    turns,
    log,
    fence: epoch,
    portions,
    ...(localNodeId === undefined ? {} : { localNodeId }),
    ...(predecessor && { predecessor }),
  })
  const orchestration = new Orchestration(store, random, portions)
  const traffic = new TrafficControl(store, dispatcher, portions)
  const rebalancing = new RebalanceControl(store)
  // Both learn a large cluster in parts; the scheduler begins in the first turn of its loop.
  const allocator = new Loading(Allocator.inParts(store.view, portions.perPart))
  allocator.step()
  let scheduler: Loading<Scheduler> | undefined
  const wakeAllocator = new WakeUp()
  const wakeScheduler = new WakeUp()

  const unsubscribe = store.subscribe((commit) => {
    turns.spend(unitsPerLearned * commit.changes.length)
    scheduler?.learn(commit)
    allocator.learn(commit)
    orchestration.learn(commit)
    traffic.learn(commit)
    rebalancing.learn(commit)
    wakeAllocator.ring()
    wakeScheduler.ring()
  })
  wakeAllocator.ring()
  wakeScheduler.ring()

  const { changesAtOnce, perPart, tasksPerTurn } = portions
  const base = { store, clock, log, fence: epoch, signal: stop.signal, turns, changesAtOnce }
  /** A turn that loaded one more part. */
  const stillLoading: Turn = { commits: [], more: true, lookedAt: perPart }
  const loops = [
    runLoop({
      ...base,
      name: 'orchestrators',
      wake: orchestration.wake,
      decide: (nowMs) => orchestration.decide(nowMs),
    }),
    runLoop({
      ...base,
      name: 'allocator',
      wake: wakeAllocator,
      decide(nowMs) {
        const decision = allocator.step()?.decide(nowMs, tasksPerTurn)
        if (!decision) return stillLoading
        return { commits: [allocationChanges(store.view, decision)], more: decision.more }
      },
    }),
    runLoop({
      ...base,
      name: 'scheduler',
      wake: wakeScheduler,
      decide(nowMs) {
        scheduler ??= new Loading(Scheduler.inParts(store.view, perPart))
        const decision = scheduler.step()?.decide(nowMs, tasksPerTurn)
        if (!decision) return stillLoading
        return { commits: [schedulingChanges(store.view, decision, nowMs)], more: decision.more }
      },
    }),
    runLoop({ ...base, name: 'traffic', wake: traffic.wake, decide: () => traffic.decide() }),
    runLoop({
      ...base,
      name: 'rebalance',
      wake: rebalancing.wake,
      decide: (nowMs) => rebalancing.decide(nowMs),
    }),
  ]

  return {
    link: dispatcher,
    dispatcher,
    get allocator() {
      return allocator.now()
    },
    async close() {
      stop.abort()
      unsubscribe()
      dispatcher.close()
      await Promise.all(loops)
    },
  }
}

/** Which workloads and nodes to look at, because something of theirs changed or because their time has come. */
class Orchestration {
  readonly wake = new WakeUp()
  readonly #store: Store
  readonly #random: Random
  readonly #portions: Portions
  readonly #dirtyWorkloads = new Set<WorkloadId>()
  readonly #dirtyNodes = new Set<NodeId>()
  /** When a workload asked to be looked at again. */
  readonly #wakeAtMs = new KeyedHeap<WorkloadId>()
  /** Large workloads that were decided a moment ago, and until when they rest. */
  readonly #restUntilMs = new Map<WorkloadId, number>()
  /** Workloads with a task on every node. */
  readonly #onEveryNode = new Set<WorkloadId>()
  /** Who waits for a workload before its own first start, by that workload's name. */
  readonly #waitingFor = new Map<string, Set<WorkloadId>>()
  /** What there was when this leader began and has not been looked through yet. */
  readonly #unlooked: readonly Iterator<Task | Revision>[]
  /** The decision on a large workload that was begun. */
  #underWay: UnderWay | undefined
  #hasLooseEnds = true
  /** Large workloads whose changes came too late. Decided anew once time has passed, unless whoever came first marks them before. */
  readonly #tooLate = new Map<WorkloadId, number>()

  constructor(store: Store, random: Random, portions: Portions) {
    this.#store = store
    this.#random = random
    this.#portions = portions
    for (const workload of store.view.list('workload')) {
      this.#dirtyWorkloads.add(workload.id)
      this.#noteMode(workload.id, workload)
    }
    this.#unlooked = [
      store.view.list('task')[Symbol.iterator](),
      store.view.list('revision')[Symbol.iterator](),
    ]
    for (const { id } of store.view.list('node')) this.#dirtyNodes.add(id)
    this.wake.ring()
  }

  learn(commit: Commit): void {
    for (const { kind, id, before, after } of commit.changes) {
      for (const object of [before, after]) {
        if (!object) continue
        if (this.#waitingFor.size > 0) this.#wakeThoseWaitingFor(object)
        if (object.kind === 'workload') this.#dirtyWorkloads.add(object.id)
        else if (object.kind === 'task' || object.kind === 'revision')
          this.#dirtyWorkloads.add(object.workloadId)
        else if (object.kind === 'endpoint') {
          for (const { workloadId } of object.spec.backends) this.#dirtyWorkloads.add(workloadId)
        } else if (object.kind === 'node') this.#dirtyNodes.add(object.id)
      }
      if (kind === 'workload')
        this.#noteMode(idFrom(id), after?.kind === 'workload' ? after : undefined)
      if (kind === 'node') this.#nodeChanged(idFrom(id), before, after)
      else if (kind === 'cluster')
        for (const workload of this.#store.view.list('workload'))
          this.#dirtyWorkloads.add(workload.id)
    }
    if (this.#dirtyWorkloads.size > 0 || this.#dirtyNodes.size > 0) this.wake.ring()
  }

  #wakeThoseWaitingFor(object: AnyObject): void {
    const name =
      object.kind === 'workload'
        ? object.name
        : object.kind === 'task'
          ? this.#store.view.get('workload', object.workloadId)?.name
          : undefined
    const waiting = name === undefined ? undefined : this.#waitingFor.get(name)
    if (!waiting || name === undefined) return
    // Each says again what it waits for when it is looked at.
    this.#waitingFor.delete(name)
    for (const id of waiting) this.#dirtyWorkloads.add(id)
  }

  /**
   * Those with tasks on the node have to look, also if only tasks are left of them; those with a task on every node, too.
   * All others wait for the scheduler, which looks by itself.
   */
  #nodeChanged(id: NodeId, before: AnyObject | undefined, after: AnyObject | undefined): void {
    const { view } = this.#store
    if (before?.kind === 'node' && after?.kind === 'node' && isSameForTasks(before, after)) return
    for (const { workloadId } of view.tasksOfNode(id)) this.#dirtyWorkloads.add(workloadId)
    for (const workloadId of this.#onEveryNode) this.#dirtyWorkloads.add(workloadId)
  }

  #noteMode(id: WorkloadId, workload: Workload | undefined): void {
    const type = workload?.spec.mode.type
    if (type === 'global' || type === 'globalJob') this.#onEveryNode.add(id)
    else this.#onEveryNode.delete(id)
  }

  decide(nowMs: number): Turn {
    if (this.#underWay) return this.#goOn(this.#underWay, nowMs)
    for (const [id, atMs] of this.#tooLate) if (atMs < nowMs) this.#decideAnew(id)
    for (const id of this.#wakeAtMs.takeUpTo(nowMs)) this.#dirtyWorkloads.add(id)
    this.#lookForLooseEnds()
    const commits: (readonly Change[])[] = []
    const again: (() => void)[] = []
    const add = (changes: readonly Change[], lookAgain: () => void) => {
      if (changes.length === 0) return
      commits.push(changes)
      again.push(lookAgain)
    }
    let lookedAt = 0
    for (const id of take(this.#dirtyWorkloads, workloadsPerTurnMax)) {
      if (lookedAt >= this.#portions.tasksLookedAt) {
        this.#dirtyWorkloads.add(id)
        continue
      }
      const restUntilMs = this.#restUntilMs.get(id) ?? 0
      if (restUntilMs > nowMs) {
        this.#wakeAt(id, restUntilMs)
        continue
      }
      const tasks = this.#store.view.tasksOfWorkload(id).length
      if (Math.max(tasks, this.#replicasOf(id)) >= this.#portions.tasksLookedAt) {
        if (this.#underWay) this.#dirtyWorkloads.add(id)
        // It begins on what is there once what was decided here is stored.
        else this.#underWay = this.#beginLarge(id, tasks, nowMs)
        continue
      }
      const changes = lastOf(this.#decideOne(id, nowMs))
      lookedAt += Math.max(tasks, changes.length)
      add(changes, () => this.#dirtyWorkloads.add(id))
      this.#rest(id, tasks, nowMs)
    }
    for (const id of take(this.#dirtyNodes, workloadsPerTurnMax)) {
      if (lookedAt >= this.#portions.tasksLookedAt) {
        this.#dirtyNodes.add(id)
        continue
      }
      lookedAt += this.#store.view.tasksOfNode(id).length
      add(decideNode(this.#store.view, id).changes, () => this.#dirtyNodes.add(id))
    }
    return {
      commits,
      more: this.#hasMore(),
      wakeAtMs: this.#wakeAtMs.firstRank,
      failed: (index) => again[index]?.(),
      lookedAt,
    }
  }

  /** One more part of a large decision. */
  #goOn({ id, tasks, beganAtMs, parts }: UnderWay, nowMs: number): Turn {
    const { perPart, changesAtOnce } = this.#portions
    const part = parts.next()
    if (!part.done) return { commits: [], more: true, isUnderWay: true, lookedAt: perPart }
    this.#underWay = undefined
    this.#rest(id, tasks, beganAtMs)
    // What changed meanwhile is decided anew: it marked the workload. A group that is not atomic need not fail with it.
    const changes =
      part.value.length > changesAtOnce
        ? part.value.filter((change) => isCurrent(this.#store.view, change))
        : part.value
    return {
      commits: changes.length === 0 ? [] : [changes],
      // Not for its own sake, if this fails: who came before it is still on the way to the disk.
      more: this.#hasMore(),
      wakeAtMs: this.#wakeAtMs.firstRank,
      failed: () => this.#tooLate.set(id, nowMs),
      lookedAt: perPart,
    }
  }

  #rest(id: WorkloadId, tasks: number, nowMs: number): void {
    const restMs = Math.floor(tasks * restMsPerTask)
    if (restMs > 0) this.#restUntilMs.set(id, nowMs + restMs)
    else this.#restUntilMs.delete(id)
  }

  #replicasOf(id: WorkloadId): number {
    const mode = this.#store.view.get('workload', id)?.spec.mode
    return mode?.type === 'replicated' ? mode.replicas : 0
  }

  #decideAnew(id: WorkloadId): void {
    this.#tooLate.delete(id)
    this.#dirtyWorkloads.add(id)
  }

  #hasMore(): boolean {
    return (
      this.#dirtyWorkloads.size > 0 ||
      this.#dirtyNodes.size > 0 ||
      this.#hasLooseEnds ||
      this.#underWay !== undefined
    )
  }

  /** Goes on looking for workloads of whom only tasks or revisions are left. */
  #lookForLooseEnds(): void {
    const { view } = this.#store
    let left = looseEndsPerTurnMax
    for (const unlooked of this.#unlooked) {
      for (; left > 0; left--) {
        const { value, done } = unlooked.next()
        if (done) break
        if (!view.get('workload', value.workloadId)) this.#dirtyWorkloads.add(value.workloadId)
      }
    }
    this.#hasLooseEnds = left <= 0
  }

  /** Looks at the workload again at a time, unless an earlier one was asked for. */
  #wakeAt(id: WorkloadId, atMs: number): void {
    this.#wakeAtMs.set(id, Math.min(atMs, this.#wakeAtMs.rankOf(id) ?? atMs))
  }

  #beginLarge(id: WorkloadId, tasks: number, nowMs: number): UnderWay {
    return { id, tasks, beganAtMs: nowMs, parts: this.#decideOne(id, nowMs, nodesAsFirstSeen) }
  }

  /** What it observes is what there is at its first part. */
  *#decideOne(
    id: WorkloadId,
    nowMs: number,
    nodesFor: (nodes: NodeSet) => NodeSet = (nodes) => nodes,
  ): Generator<undefined, readonly Change[]> {
    this.#wakeAtMs.delete(id)
    const observed = observeWorkload(this.#store.view, id)
    const slice = observed && { ...observed, nodes: nodesFor(observed.nodes) }
    if (!slice) {
      const orphans = decideOrphans(this.#store.view, id, nowMs)
      if (orphans.wakeAtMs !== undefined) this.#wakeAt(id, orphans.wakeAtMs)
      return orphans.changes
    }
    for (const { name } of slice.startOrder ?? []) {
      const waiting = this.#waitingFor.get(name) ?? new Set()
      this.#waitingFor.set(name, waiting.add(id))
    }
    const { perPart } = this.#portions
    const decision = yield* decideInParts(slice, nowMs, perPart)
    if (decision.wakeAtMs !== undefined) this.#wakeAt(id, decision.wakeAtMs)
    return decision.actions.length === 0
      ? []
      : yield* changesInParts(slice, decision.actions, nowMs, this.#random, perPart)
  }
}

/** A decision on a large workload, made in parts: others have the thread between two of them. */
interface UnderWay {
  readonly id: WorkloadId
  readonly tasks: number
  readonly beganAtMs: number
  readonly parts: Iterator<undefined, readonly Change[]>
}

/** Whether what it changes is still as it was when that was decided. */
function isCurrent(view: View, change: Change): boolean {
  if (change.type === 'create') return true
  const [{ kind, id }, version] =
    change.type === 'delete' ? [change, change.version] : [change.object, change.object.version]
  return view.get(kind, id)?.version === version
}

function lastOf<Result>(parts: Iterator<undefined, Result>): Result {
  for (;;) {
    const part = parts.next()
    if (part.done) return part.value
  }
}

/** Whether nothing of a node changed that tells where tasks may be. */
function isSameForTasks(before: ClusterNode, after: ClusterNode): boolean {
  return (
    before.status.state === after.status.state &&
    before.status.address === after.status.address &&
    isDeepEqual(before.spec, after.spec) &&
    isDeepEqual(before.labels, after.labels) &&
    isDeepEqual(before.description, after.description)
  )
}

/** Takes up to `limit` items out of a set. */
function take<T>(from: Set<T>, limit: number): readonly T[] {
  const taken: T[] = []
  for (const item of from) {
    if (taken.length >= limit) break
    taken.push(item)
  }
  for (const item of taken) from.delete(item)
  return taken
}

/** Tasks on their way into or out of traffic. */
class TrafficControl {
  readonly #store: Store
  readonly #dispatcher: Dispatcher
  readonly #perTurn: number
  readonly #dirty = new Set<string>()
  /** What there was when this leader began and has not been looked at yet. */
  readonly #unlooked: Iterator<Task>
  /** Tasks that wait until every router has taken them out, by their version: the revision that has to be followed. */
  readonly #draining = new KeyedHeap<string>()

  constructor(store: Store, dispatcher: Dispatcher, { tasksPerTurn }: Portions) {
    this.#store = store
    this.#dispatcher = dispatcher
    this.#perTurn = tasksPerTurn
    this.#unlooked = store.view.list('task')[Symbol.iterator]()
    this.wake.ring()
  }

  /** Also rung by acknowledgements. */
  get wake(): WakeUp {
    return this.#dispatcher.acknowledged
  }

  learn(commit: Commit): void {
    for (const { kind, id, before, after } of commit.changes) {
      if (after?.kind === 'task' && !hasNoTraffic(after)) this.#dirty.add(id)
      if (after?.kind === 'node' && before?.kind === 'node') {
        if (before.status.state === after.status.state) continue
        for (const task of this.#store.view.tasksOfNode(after.id)) this.#dirty.add(task.id)
      }
      if (kind !== 'endpoint' || after?.kind !== 'endpoint') continue
      for (const { workloadId } of after.spec.backends) {
        for (const task of this.#store.view.tasksOfWorkload(workloadId)) this.#dirty.add(task.id)
      }
    }
    if (this.#dirty.size > 0) this.wake.ring()
  }

  decide(): Turn {
    const { view } = this.#store
    const changes: Change[] = []
    for (const id of this.#draining.takeUpTo(this.#dispatcher.acknowledgedRevision))
      this.#dirty.add(id)
    const ids = new Set<string>()
    while (ids.size < this.#perTurn) {
      const { value, done } = this.#unlooked.next()
      if (done) break
      ids.add(value.id)
    }
    const isAllLookedAt = ids.size < this.#perTurn
    for (const id of take(this.#dirty, this.#perTurn - ids.size)) ids.add(id)
    for (const id of ids) {
      const task = view.get('task', id)
      const traffic =
        task &&
        decideTraffic(
          task,
          isServed(view, task),
          (revision) => revision <= this.#dispatcher.acknowledgedRevision,
        )
      if (task && traffic === 'draining') this.#draining.set(id, task.version)
      else this.#draining.delete(id)
      if (task && traffic && traffic !== task.traffic)
        changes.push({ type: 'update', object: { ...task, traffic } })
    }
    return {
      commits: [changes],
      more: this.#dirty.size > 0 || !isAllLookedAt,
      lookedAt: ids.size,
      failed: () => {
        for (const change of changes)
          if (change.type === 'update') this.#dirty.add(change.object.id)
      },
    }
  }
}

/** It gets none and is not ready for any: whatever else is so, that stays. */
function hasNoTraffic({ traffic, status }: Task): boolean {
  return traffic === 'none' && !(status.state === 'running' && status.ready)
}

/** How often the whole cluster is looked at for moves while it changes or moves are under way, in ms. */
const rebalanceLookMs = 5_000
/** How often it is looked at while nothing changes: what had to rest may have rested, in ms. */
const rebalanceRestMs = 30_000

/** Evens out where people asked for it. It looks at all tasks, so it looks seldom, and not at all where nobody asked. */
class RebalanceControl {
  readonly wake = new WakeUp()
  readonly #store: Store
  #isWanted = true
  #nextLookMs = 0

  constructor(store: Store) {
    this.#store = store
    this.wake.ring()
  }

  learn(commit: Commit): void {
    for (const { before, after } of commit.changes) {
      // Only these carry the label that asks for it; a change of status leaves the labels as they are.
      if (after?.kind !== 'workload' && after?.kind !== 'cluster') continue
      if (before?.labels === after.labels || after.labels[rebalanceLabel] !== 'on') continue
      this.#isWanted = true
      this.wake.ring()
      return
    }
  }

  decide(nowMs: number): Turn {
    if (!this.#isWanted) return { commits: [] }
    if (nowMs < this.#nextLookMs) return { commits: [], wakeAtMs: this.#nextLookMs }
    this.#isWanted = isRebalanceWanted(this.#store.view)
    if (!this.#isWanted) return { commits: [] }
    const { changes, underWay } = decideRebalance(this.#store.view, nowMs)
    this.#nextLookMs = nowMs + (underWay > 0 ? rebalanceLookMs : rebalanceRestMs)
    return { commits: [changes], wakeAtMs: this.#nextLookMs }
  }
}
