import { usualPortions } from '../base/index.ts'
import {
  type ClusterNode,
  type Endpoint,
  type GenericResource,
  isLive,
  isStopWanted,
  isTerminal,
  type NodeId,
  type Revision,
  type RevisionId,
  type Task,
  type TaskId,
  type Workload,
  type WorkloadId,
} from '../model/index.ts'
import type { AppliedChange, Change, Commit, View } from '../store/store.ts'
import { Candidates, refusalOf, type Search, StaticFilter } from './candidates.ts'
import { explainPinned, explainRefusal } from './explain.ts'
import { getOrMake } from './get-or-make.ts'
import { declaredHostPorts, isFixedHostPort, type Needs, needsOf, portKey } from './needs.ts'
import { type Holding, type NodeState, NodeTable, reasonCode } from './node-state.ts'
import { SmallMap } from './small-map.ts'
import { WorkloadState } from './workload-state.ts'

export interface Placement {
  readonly taskId: TaskId
  /** The task's version that was decided on. */
  readonly version: number
  readonly nodeId: NodeId
  readonly genericResources: readonly GenericResource[]
}

export interface Refusal {
  readonly taskId: TaskId
  readonly version: number
  /** Why no node fits, one sentence; it differs from what the task says now. */
  readonly reason: string
}

export interface SchedulerDecision {
  readonly placements: readonly Placement[]
  readonly refusals: readonly Refusal[]
  /** Tasks told to stop before they had a node: they have ended. */
  readonly shutDown: readonly { readonly taskId: TaskId; readonly version: number }[]
  /** The limit was reached: there is more to decide at once. */
  readonly more: boolean
}

/** Pending tasks of one revision: equal but for their slot. */
interface Group {
  readonly revisionId: RevisionId
  readonly workloadId: WorkloadId
  readonly pending: SmallMap<TaskId, Task>
  needs: Needs | undefined
  maxReplicas: number
  needsEpoch: number
  /** What all its tasks say now, when `isSaid`. */
  sentence: string
  isSaid: boolean
  /** End of the log of node changes when nothing fitted: until it moves on, nothing will. */
  blockedAt: number
}

/** Choosing for one group within one decision. */
interface Session {
  readonly group: Group
  readonly needs: Needs
  readonly workload: WorkloadState
  readonly tasks: Iterator<Task>
  /** Nodes with many failures of this revision, by index. */
  readonly avoided: ReadonlyMap<number, number>
  candidates: Candidates
  isOwn: boolean
  counts: Map<unknown, number>
}

/** Nodes passed over in the shared candidates before a workload gets its own. */
const skipsMax = 64
/** Entries of nodes kept in shared candidates, and as many in workloads' own: about 50 bytes each. */
const placesMax = 4_000_000
/** Sets of shared candidates, and filters, kept; fewer where there are many nodes. */
const sharedMax = 512

/**
 * Decides which node runs each task. What it knows is derived from the view and kept up to date by commits; made anew
 * from the view it knows the same.
 *
 * Tasks with equal needs share one set of candidate nodes, ordered by how full they are. A workload's task takes the
 * best one without a task of that workload; only when there is none does the workload get candidates of its own,
 * ordered by its own tasks first. So a task costs O(log nodes), whether it is one of many or one of a kind.
 */
export class Scheduler {
  readonly #view: View
  readonly #nodes = new NodeTable()
  readonly #workloads = new Map<WorkloadId, WorkloadState>()
  readonly #holdings = new Map<TaskId, Holding>()
  readonly #groups = new Map<RevisionId, Group>()
  /** Pending tasks that only one node may run, by that node; and the nodes to look at again. */
  readonly #pinned = new Map<NodeId, Map<TaskId, Task>>()
  readonly #pinnedToCheck = new Set<NodeId>()
  readonly #unwanted = new Map<TaskId, Task>()
  /** Placed by the last decision, not yet seen in a commit. */
  readonly #undecided = new Set<TaskId>()
  readonly #shared = new Map<string, Candidates>()
  /** The one used last. */
  #sharedKeyLast = ''
  #sharedLast: Candidates | undefined
  readonly #own = new Map<
    string,
    { readonly candidates: Candidates; readonly workload: WorkloadState }
  >()
  readonly #filters = new Map<string, StaticFilter>()
  #needsEpoch = 0
  /** Counted up when what tasks hold may differ though they are the same. */
  #holdingsEpoch = 0
  /** As of the last decision. */
  #decidedEpoch = 0

  private constructor(view: View) {
    this.#view = view
  }

  /** Learns everything. The view is kept: revisions and endpoints are read from it as they are needed. */
  static from(view: View): Scheduler {
    const parts = Scheduler.inParts(view)
    for (;;) {
      const part = parts.next()
      if (part.done) return part.value
    }
  }

  /** The same in parts of a few ms each. Commits made meanwhile are to be applied once it is whole. */
  static *inParts(view: View, perPart = usualPortions.perPart): Generator<undefined, Scheduler> {
    const scheduler = new Scheduler(view)
    // As they are now: what changes meanwhile is in those commits.
    const all = [...view.list('node'), ...view.list('task')]
    for (const [at, object] of all.entries()) {
      if (at % perPart === 0) yield
      if (object.kind === 'node') scheduler.#setNode(object.id, undefined, object)
      else scheduler.#setTask(object.id, undefined, object)
    }
    return scheduler
  }

  /** Learns what a commit changed. Call it for every commit, in order. */
  apply(commit: Commit): void {
    for (const change of commit.changes) this.#applyChange(change)
  }

  #applyChange({ kind, id, before, after }: AppliedChange): void {
    switch (kind) {
      case 'task':
        if (before?.kind === 'task' || after?.kind === 'task') {
          const task = after?.kind === 'task' ? after : before
          if (task?.kind !== 'task') return
          this.#setTask(
            task.id,
            before?.kind === 'task' ? before : undefined,
            after?.kind === 'task' ? after : undefined,
          )
        }
        return
      case 'node': {
        const old = before?.kind === 'node' ? before : undefined
        const now = after?.kind === 'node' ? after : undefined
        const nodeId = (now ?? old)?.id
        if (nodeId !== undefined) this.#setNode(nodeId, old, now)
        return
      }
      case 'workload':
        if (after?.kind === 'workload') {
          this.#setWorkload(before?.kind === 'workload' ? before : undefined, after)
        } else if (before?.kind === 'workload') this.#dropOwn(before.id)
        return
      case 'endpoint':
        this.#setEndpoint(
          before?.kind === 'endpoint' ? before : undefined,
          after?.kind === 'endpoint' ? after : undefined,
        )
        return
      case 'network': {
        const driver = (object: typeof before) =>
          object?.kind === 'network' ? object.spec.driver : undefined
        if (driver(before) !== driver(after)) this.#needsChanged()
        return
      }
      case 'revision': {
        const revision = after ?? before
        const group = revision?.kind === 'revision' ? this.#groups.get(revision.id) : undefined
        if (group) group.needsEpoch = -1
        this.#holdingsEpoch++
        return
      }
      case 'cluster': {
        const driver = (object: typeof before) =>
          object?.kind === 'cluster' ? object.spec.logDriver?.name : undefined
        if (driver(before) !== driver(after)) this.#needsChanged()
        return
      }
      case 'secret':
      case 'config':
        return
      default:
        throw new Error(`broken invariant: unexpected kind of ${String(kind)} ${id}`)
    }
  }

  #needsChanged(): void {
    this.#needsEpoch++
    this.#holdingsEpoch++
    for (const nodeId of this.#pinned.keys()) this.#pinnedToCheck.add(nodeId)
  }

  #setNode(id: NodeId, before: ClusterNode | undefined, after: ClusterNode | undefined): void {
    if (before && after && !matters(before, after)) {
      const state = this.#nodes.get(id)
      state.node = after
      return
    }
    const state = this.#nodes.get(id)
    state.node = after
    state.generation++
    this.#touch(state)
  }

  #touch(state: NodeState): void {
    this.#nodes.touch(state)
    if (this.#pinned.has(state.id)) this.#pinnedToCheck.add(state.id)
  }

  #setWorkload(before: Workload | undefined, after: Workload): void {
    if (before?.spec.revisionId === after.spec.revisionId) return
    // Tasks of the revision before now hold the ports they were seen to bind.
    const ports = this.#view
      .endpointsOfWorkload(after.id)
      .some(({ spec }) => spec.ports.some(isFixedHostPort))
    if (ports) this.#portsChanged(after.id)
  }

  #setEndpoint(before: Endpoint | undefined, after: Endpoint | undefined): void {
    if (before && after && before.spec === after.spec) return
    const ports = [before, after].some((endpoint) => endpoint?.spec.ports.some(isFixedHostPort))
    if (!ports) return
    const workloads = [before, after].flatMap(
      (endpoint) => endpoint?.spec.backends.map(({ workloadId }) => workloadId) ?? [],
    )
    for (const workloadId of new Set(workloads)) this.#portsChanged(workloadId)
  }

  #portsChanged(workloadId: WorkloadId): void {
    this.#holdingsEpoch++
    for (const { id } of this.#view.revisionsOfWorkload(workloadId)) {
      const group = this.#groups.get(id)
      if (group) group.needsEpoch = -1
    }
    for (const task of this.#view.tasksOfWorkload(workloadId)) {
      if (!this.#undecided.has(task.id)) this.#setHolding(task.id, this.#holdingOf(task))
      if (task.pinnedNodeId !== undefined) this.#pinnedToCheck.add(task.pinnedNodeId)
    }
  }

  #workload(id: WorkloadId): WorkloadState {
    return getOrMake(this.#workloads, id, () => new WorkloadState(id))
  }

  #forget(id: WorkloadId): void {
    const workload = this.#workloads.get(id)
    if (workload?.isForgettable) this.#workloads.delete(id)
  }

  #setTask(id: TaskId, before: Task | undefined, after: Task | undefined): void {
    const isPlaced = this.#undecided.delete(id)
    this.#setPending(before, after)
    if (!(isPlaced && before && after && this.#isAsPlaced(before, after)))
      this.#setHolding(id, after && this.#holdingOf(after))
    const failedBefore = before && failureOf(before)
    const failedNow = after && failureOf(after)
    if (failedBefore?.nodeId === failedNow?.nodeId && before?.status.atMs === after?.status.atMs)
      return
    if (before && failedBefore) {
      this.#workload(before.workloadId).removeFailure(before.revisionId, failedBefore.nodeId, id)
      this.#forget(before.workloadId)
    }
    if (after && failedNow) {
      this.#workload(after.workloadId).addFailure(
        after.revisionId,
        failedNow.nodeId,
        id,
        after.status.atMs,
      )
    }
  }

  /** Whether a task holds what it was placed with by the last decision, so that nothing of it has to be looked up again. */
  #isAsPlaced(before: Task, after: Task): boolean {
    const holding = this.#holdings.get(after.id)
    return (
      holding !== undefined &&
      this.#decidedEpoch === this.#holdingsEpoch &&
      holding.node.id === after.nodeId &&
      holding.generic === after.genericResources &&
      holding.hostPorts.length === 0 &&
      after.status.hostPorts.length === 0 &&
      before.revisionId === after.revisionId &&
      isLive(after)
    )
  }

  #setPending(before: Task | undefined, after: Task | undefined): void {
    if (before && isPending(before) && !(after && isPending(after) && samePlace(before, after))) {
      this.#removePending(before)
    }
    if (!after || !isPending(after)) return
    if (isStopWanted(after)) {
      // One to be removed is deleted by the reaper: it has no node to stop on.
      if (after.desiredState === 'shutdown') this.#unwanted.set(after.id, after)
      return
    }
    if (after.pinnedNodeId !== undefined) {
      const onNode = this.#pinned.get(after.pinnedNodeId)
      if (onNode) onNode.set(after.id, after)
      else this.#pinned.set(after.pinnedNodeId, new Map([[after.id, after]]))
      this.#pinnedToCheck.add(after.pinnedNodeId)
      return
    }
    const group = this.#groups.get(after.revisionId)
    if (group) {
      group.pending.set(after.id, after)
      if (after.status.error !== group.sentence) group.isSaid = false
      return
    }
    const pending = new SmallMap<TaskId, Task>()
    pending.set(after.id, after)
    this.#groups.set(after.revisionId, {
      revisionId: after.revisionId,
      workloadId: after.workloadId,
      pending,
      needs: undefined,
      maxReplicas: 0,
      needsEpoch: -1,
      sentence: '',
      isSaid: false,
      blockedAt: -1,
    })
  }

  #removePending(task: Task): void {
    this.#unwanted.delete(task.id)
    if (task.pinnedNodeId !== undefined) {
      const onNode = this.#pinned.get(task.pinnedNodeId)
      onNode?.delete(task.id)
      if (onNode?.size === 0) this.#pinned.delete(task.pinnedNodeId)
      return
    }
    const group = this.#groups.get(task.revisionId)
    group?.pending.delete(task.id)
    if (group?.pending.size !== 0) return
    this.#groups.delete(task.revisionId)
    this.#forget(task.workloadId)
  }

  /** What a stored task holds; `undefined` when it is on no node or has ended. */
  #holdingOf(task: Task): Holding | undefined {
    if (task.nodeId === undefined || isTerminal(task.status.state)) return undefined
    const reservations = this.#view.get('revision', task.revisionId)?.template.reservations
    return {
      node: this.#nodes.get(task.nodeId),
      workloadId: task.workloadId,
      nanoCpus: reservations?.nanoCpus ?? 0,
      memoryBytes: reservations?.memoryBytes ?? 0,
      generic: task.genericResources,
      hostPorts: this.#portsOf(task),
      active: isLive(task),
    }
  }

  /** Ports a task of the wanted revision will bind, and those any task was seen to bind. */
  #portsOf(task: Task): readonly string[] {
    const isCurrent =
      this.#view.get('workload', task.workloadId)?.spec.revisionId === task.revisionId
    const declared = isCurrent ? declaredHostPorts(this.#view, task.workloadId) : noPorts
    if (task.status.hostPorts.length === 0) return declared
    const bound = task.status.hostPorts
      .filter(({ publishedPort }) => publishedPort !== 0)
      .map(portKey)
    return [...new Set([...declared, ...bound])].sort()
  }

  #setHolding(id: TaskId, now: Holding | undefined): void {
    const before = this.#holdings.get(id)
    if (before === now || (before && now && sameHolding(before, now))) return
    if (now) this.#holdings.set(id, now)
    else this.#holdings.delete(id)
    // The new one first: a node known only by what it holds would be forgotten in between.
    if (now) this.#hold(now, 1)
    if (before) {
      this.#hold(before, -1)
      this.#forget(before.workloadId)
    }
  }

  #hold(holding: Holding, sign: 1 | -1): void {
    holding.node.hold(holding, sign)
    if (holding.active) this.#workload(holding.workloadId).countOn(holding.node.index, sign)
    this.#touch(holding.node)
  }

  /**
   * Decides for what is pending, at most `limit` tasks. Asked again before the answer was committed, it gives the same
   * one.
   */
  decide(nowMs: number, limit: number): SchedulerDecision {
    for (const taskId of this.#undecided) this.#setHolding(taskId, undefined)
    this.#undecided.clear()
    this.#decidedEpoch = this.#holdingsEpoch

    const placements: Placement[] = []
    const refusals: Refusal[] = []
    const shutDown: { taskId: TaskId; version: number }[] = []
    const left = () => limit - placements.length - refusals.length - shutDown.length

    for (const { id, version } of this.#unwanted.values()) {
      if (left() <= 0) return { placements, refusals, shutDown, more: true }
      shutDown.push({ taskId: id, version })
    }
    for (const nodeId of this.#pinnedToCheck) {
      if (left() <= 0) return { placements, refusals, shutDown, more: true }
      if (this.#confirmPinned(nodeId, left(), placements, refusals))
        this.#pinnedToCheck.delete(nodeId)
    }

    const blocked: Session[] = []
    const waiting: Group[] = []
    let more = this.#placeInTurns(nowMs, left, placements, blocked, waiting)
    for (const session of blocked) {
      session.candidates.catchUp()
      const sentence = explainRefusal(
        session.needs,
        session.candidates.refused,
        session.group.maxReplicas,
      )
      if (!this.#refuse(session.group, sentence, left, refusals)) more = true
    }
    for (const group of waiting) {
      const sentence = `no suitable node (revision ${group.revisionId} no longer exists)`
      if (!this.#refuse(group, sentence, left, refusals)) more = true
    }
    return { placements, refusals, shutDown, more }
  }

  /** Goes round the groups, so that a large one does not keep the others waiting. True: the limit ended it. */
  #placeInTurns(
    nowMs: number,
    left: () => number,
    placements: Placement[],
    blocked: Session[],
    waiting: Group[],
  ): boolean {
    const turn = Math.max(1, Math.floor(left() / Math.max(1, this.#groups.size)))
    let sessions: Session[] = []
    const serve = (session: Session, again: Session[]) => {
      for (let count = 0; count < turn; count++) {
        if (left() <= 0) return false
        const next = session.tasks.next()
        if (next.done) return true
        const node = this.#choose(session)
        if (!node) {
          blocked.push(session)
          return true
        }
        this.#place(session, next.value, node, placements)
      }
      again.push(session)
      return true
    }
    for (const group of this.#groups.values()) {
      if (left() <= 0) return true
      const isSame = group.blockedAt === this.#nodes.end && group.needsEpoch === this.#needsEpoch
      if (isSame && group.isSaid) continue
      const session = this.#open(group, nowMs)
      if (!session) waiting.push(group)
      else if (!serve(session, sessions)) return true
    }
    while (sessions.length > 0) {
      const again: Session[] = []
      for (const session of sessions) if (!serve(session, again)) return true
      sessions = again
    }
    return false
  }

  #open(group: Group, nowMs: number): Session | undefined {
    const needs = this.#needsOf(group)
    if (!needs) return undefined
    const workload = this.#workload(group.workloadId)
    const own = this.#ownOf(group, needs, workload)
    const candidates = own?.candidates ?? this.#sharedFor(needs)
    candidates.catchUp()
    return {
      group,
      needs,
      workload,
      tasks: group.pending.values(),
      avoided: this.#avoided(workload.avoided(group.revisionId, nowMs)),
      candidates,
      isOwn: own !== undefined,
      counts: branchCounts(candidates, workload),
    }
  }

  /** The candidates kept for a workload alone, which from now on were used last. */
  #ownOf(group: Group, needs: Needs, workload: WorkloadState) {
    if (workload.ownKeys.size === 0) return undefined
    const key = ownKey(group, needs)
    const own = this.#own.get(key)
    if (own) {
      this.#own.delete(key)
      this.#own.set(key, own)
    }
    return own
  }

  /** The same failures by the index of their node. */
  #avoided(failuresByNode: ReadonlyMap<NodeId, number>): ReadonlyMap<number, number> {
    if (failuresByNode.size === 0) return noneAvoided
    const avoided = new Map<number, number>()
    for (const [nodeId, failures] of failuresByNode) {
      const state = this.#nodes.byId.get(nodeId)
      if (state) avoided.set(state.index, failures)
    }
    return avoided
  }

  #needsOf(group: Group): Needs | undefined {
    if (group.needsEpoch !== this.#needsEpoch || !group.needs) {
      const revision: Revision | undefined = this.#view.get('revision', group.revisionId)
      const hostPorts = revision ? declaredHostPorts(this.#view, group.workloadId) : noPorts
      group.needs = revision && needsOf(this.#view, revision, hostPorts)
      group.maxReplicas = revision?.template.placement.maxReplicasPerNode ?? 0
      group.needsEpoch = this.#needsEpoch
    }
    return group.needs
  }

  #filterFor(needs: Needs): StaticFilter {
    if (this.#filters.size >= sharedMax) this.#filters.clear()
    return getOrMake(this.#filters, needs.staticKey, () => new StaticFilter(needs))
  }

  /** Sets of candidates that the bound on places allows. */
  get #setsMax(): number {
    return Math.max(4, Math.floor(placesMax / Math.max(1, this.#nodes.slots.length)))
  }

  #sharedFor(needs: Needs): Candidates {
    if (needs.key === this.#sharedKeyLast && this.#sharedLast) return this.#sharedLast
    let candidates = this.#shared.get(needs.key)
    if (candidates) this.#shared.delete(needs.key)
    else candidates = new Candidates(this.#nodes, needs, this.#filterFor(needs))
    // Last is the one used last: the first is the one to drop.
    this.#shared.set(needs.key, candidates)
    this.#sharedKeyLast = needs.key
    this.#sharedLast = candidates
    if (this.#shared.size > Math.min(sharedMax, this.#setsMax))
      this.#shared.delete(first(this.#shared) ?? needs.key)
    return candidates
  }

  #dropOwn(workloadId: WorkloadId): void {
    const workload = this.#workloads.get(workloadId)
    for (const key of workload?.ownKeys ?? []) this.#own.delete(key)
    workload?.dropOwnKeys()
    this.#forget(workloadId)
  }

  #giveOwn(session: Session): void {
    const { group, needs, workload } = session
    const key = ownKey(group, needs)
    const candidates = new Candidates(this.#nodes, needs, this.#filterFor(needs), {
      counts: workload.counts,
      max: group.maxReplicas,
    })
    candidates.catchUp()
    this.#own.set(key, { candidates, workload })
    workload.addOwnKey(key)
    while (this.#own.size > this.#setsMax) {
      const oldest = first(this.#own)
      const dropped = oldest === undefined ? undefined : this.#own.get(oldest)
      if (oldest === undefined || !dropped) break
      this.#own.delete(oldest)
      dropped.workload.removeOwnKey(oldest)
      this.#forget(dropped.workload.id)
    }
    session.candidates = candidates
    session.isOwn = true
    session.counts = branchCounts(candidates, workload)
  }

  #choose(session: Session): NodeState | undefined {
    const { candidates, workload, avoided, counts } = session
    candidates.catchUp()
    if (candidates.live === 0) return undefined
    if (!session.isOwn) {
      // Most often nothing stands against the best one.
      if (workload.counts.size + avoided.size === 0 && !candidates.isSpread)
        return candidates.choose(anyNode)
      const search: Search = {
        skips: (index) => workload.counts.has(index) || avoided.has(index),
        counts,
        budget: skipsMax,
      }
      const found = candidates.choose(search)
      if (found) return found
      this.#giveOwn(session)
      return this.#choose(session)
    }
    const found = candidates.choose({
      skips: (index) => avoided.has(index),
      counts,
      budget: Number.POSITIVE_INFINITY,
    })
    return found ?? this.#leastBad(session)
  }

  /** Of the nodes with many failures that fit, the one with the fewest. */
  #leastBad({ candidates, avoided }: Session): NodeState | undefined {
    let best = -1
    for (const [index, failures] of avoided) {
      if (!candidates.fits(index)) continue
      const bestFailures = avoided.get(best) ?? Number.POSITIVE_INFINITY
      if (
        failures < bestFailures ||
        (failures === bestFailures && candidates.isBetter(index, best))
      ) {
        best = index
      }
    }
    return best < 0 ? undefined : this.#nodes.slots[best]
  }

  #place(session: Session, task: Task, node: NodeState, placements: Placement[]): void {
    const placement = this.#assign(task, session.needs, node)
    session.candidates.countIn(session.counts, node.index, 1)
    placements.push(placement)
  }

  #assign(task: Task, needs: Needs, node: NodeState): Placement {
    const genericResources = needs.generic.length === 0 ? noResources : node.pick(needs.generic)
    this.#undecided.add(task.id)
    this.#setHolding(task.id, {
      node,
      workloadId: task.workloadId,
      nanoCpus: needs.nanoCpus,
      memoryBytes: needs.memoryBytes,
      generic: genericResources,
      hostPorts: needs.hostPorts,
      active: true,
    })
    return { taskId: task.id, version: task.version, nodeId: node.id, genericResources }
  }

  /** Checks the tasks that only this node may run. True: nothing was left to say. */
  #confirmPinned(
    nodeId: NodeId,
    limit: number,
    placements: Placement[],
    refusals: Refusal[],
  ): boolean {
    const node = this.#nodes.byId.get(nodeId)
    let said = 0
    for (const task of this.#pinned.get(nodeId)?.values() ?? []) {
      if (said >= limit) return false
      const reason = this.#refusePinned(task, node)
      if (typeof reason !== 'string' && node) {
        placements.push(this.#assign(task, reason, node))
        said++
      } else if (typeof reason === 'string' && reason !== task.status.error) {
        refusals.push({ taskId: task.id, version: task.version, reason })
        said++
      }
    }
    return said === 0
  }

  #refusePinned(task: Task, node: NodeState | undefined): string | Needs {
    const revision = this.#view.get('revision', task.revisionId)
    if (!revision) return `revision ${task.revisionId} no longer exists`
    const needs = needsOf(this.#view, revision, declaredHostPorts(this.#view, task.workloadId))
    if (!node?.node) return `node ${task.pinnedNodeId ?? ''} no longer exists`
    const reason = refusalOf(node, needs, this.#filterFor(needs))
    return reason === reasonCode.fits ? needs : explainPinned(needs, reason)
  }

  /** Says why to every task of the group that says something else. False: the limit ended it. */
  #refuse(group: Group, sentence: string, left: () => number, refusals: Refusal[]): boolean {
    if (group.isSaid && group.sentence === sentence) return true
    group.sentence = sentence
    group.isSaid = false
    let isSaid = true
    for (const task of group.pending.values()) {
      if (task.status.error === sentence) continue
      // Not said for sure before it comes back in a commit.
      isSaid = false
      if (this.#undecided.has(task.id)) continue
      if (left() <= 0) return false
      refusals.push({ taskId: task.id, version: task.version, reason: sentence })
    }
    group.isSaid = isSaid
    group.blockedAt = this.#nodes.end
    return true
  }

  /** All it knows of nodes and pending tasks, for comparing with a rebuilt one. */
  describe(): unknown {
    for (const taskId of this.#undecided) this.#setHolding(taskId, undefined)
    this.#undecided.clear()
    const sorted = (ids: Iterable<string>) => [...ids].sort()
    return {
      nodes: [...this.#nodes.byId.values()].map((node) => node.describe()).sort(byText),
      counts: [...this.#workloads.values()]
        .flatMap(({ id, counts }) =>
          [...counts].map(([index, count]) => [id, this.#nodes.slots[index]?.id, count]),
        )
        .sort(byText),
      groups: sorted(
        [...this.#groups.values()].flatMap(({ pending }) => [...pending].map(([id]) => id)),
      ),
      pinned: sorted([...this.#pinned.values()].flatMap((tasks) => [...tasks.keys()])),
      unwanted: sorted(this.#unwanted.keys()),
    }
  }
}

const noPorts: readonly string[] = []
const anyNode: Search = { skips: () => false, counts: new Map(), budget: Number.POSITIVE_INFINITY }
const noneAvoided: ReadonlyMap<number, number> = new Map()
const noResources: readonly GenericResource[] = []

/** The changes that carry a decision out. What changed or went since it was decided is left out. */
export function changesFor(view: View, decision: SchedulerDecision, nowMs: number): Change[] {
  const changes: Change[] = []
  const update = (
    { taskId, version }: { readonly taskId: TaskId; readonly version: number },
    change: (task: Task) => Task,
  ) => {
    const task = view.get('task', taskId)
    if (task?.version === version) changes.push({ type: 'update', object: change(task) })
  }
  for (const each of decision.shutDown) {
    update(each, (task) => ({
      ...task,
      status: { ...withoutError(task), state: 'shutdown', atMs: nowMs, message: 'shutdown' },
    }))
  }
  for (const each of decision.placements) {
    update(each, (task) => ({
      ...task,
      nodeId: each.nodeId,
      genericResources: each.genericResources,
      status: {
        ...withoutError(task),
        state: 'assigned',
        atMs: nowMs,
        message:
          task.pinnedNodeId === undefined
            ? 'scheduler assigned task to node'
            : 'scheduler confirmed task can run on preassigned node',
      },
    }))
  }
  for (const each of decision.refusals) {
    update(each, (task) => ({ ...task, status: { ...task.status, error: each.reason } }))
  }
  return changes
}

function withoutError(task: Task): Omit<Task['status'], 'error'> {
  if (!('error' in task.status)) return task.status
  const { error: _, ...status } = task.status
  return status
}

function isPending(task: Task): boolean {
  return task.status.state === 'pending' && task.nodeId === undefined
}

/** Whether both are kept in the same list of pending tasks. */
function samePlace(a: Task, b: Task): boolean {
  return (
    a.revisionId === b.revisionId &&
    a.pinnedNodeId === b.pinnedNodeId &&
    isStopWanted(a) === isStopWanted(b) &&
    a.desiredState === b.desiredState
  )
}

/** Failures of preassigned tasks say nothing of where else they could go. */
function failureOf({ nodeId, pinnedNodeId, status }: Task): { nodeId: NodeId } | undefined {
  const failed = status.state === 'failed' || status.state === 'rejected'
  return failed && nodeId !== undefined && pinnedNodeId === undefined ? { nodeId } : undefined
}

/** Whether a change of the node object can change a placement. Heartbeats and messages do not. */
function matters(before: ClusterNode, after: ClusterNode): boolean {
  return (
    before.labels !== after.labels ||
    before.spec !== after.spec ||
    before.description !== after.description ||
    before.status.state !== after.status.state ||
    before.status.address !== after.status.address
  )
}

function sameHolding(a: Holding, b: Holding): boolean {
  return (
    a.node === b.node &&
    a.workloadId === b.workloadId &&
    a.active === b.active &&
    a.nanoCpus === b.nanoCpus &&
    a.memoryBytes === b.memoryBytes &&
    sameList(a.hostPorts, b.hostPorts) &&
    (a.generic === b.generic || sameList(a.generic.map(genericText), b.generic.map(genericText)))
  )
}

function genericText({ kind, value, names }: GenericResource): string {
  return JSON.stringify([kind, value, names ?? []])
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((value, index) => value === b[index]))
}

function ownKey(group: Group, needs: Needs): string {
  return `${group.workloadId} ${group.maxReplicas} ${needs.key}`
}

const noCounts = new Map<unknown, number>()
function branchCounts(candidates: Candidates, workload: WorkloadState): Map<unknown, number> {
  // Nothing is counted then.
  if (!candidates.isSpread) return noCounts
  const counts = new Map<unknown, number>()
  for (const [index, count] of workload.counts) candidates.countIn(counts, index, count)
  return counts
}

function first<Key>(map: ReadonlyMap<Key, unknown>): Key | undefined {
  for (const key of map.keys()) return key
  return undefined
}

function byText(a: unknown, b: unknown): number {
  const [left, right] = [JSON.stringify(a), JSON.stringify(b)]
  return left < right ? -1 : left > right ? 1 : 0
}
