import {
  type ClusterNode,
  isLive,
  isStopWanted,
  isTerminal,
  type NodeId,
  type Revision,
  type RevisionId,
  stateSinceMs,
  type Task,
  type TaskId,
  type Workload,
  type WorkloadId,
} from '../model/index.ts'
import { labelOf } from '../model/placement.ts'
import type { Change, View } from '../store/store.ts'
import { type Carried, compareLoad, Floor, shareOf } from './floor.ts'
import { keepsData } from './picture.ts'
import { counted } from './restart-policy.ts'
import { observeWorkload } from './slice.ts'

/** Label on a service, or on the cluster: `on` or `off`. A service's own word goes before the cluster's. */
export const rebalanceLabel = 'skep.rebalance'

/** Moves under way at once in the whole cluster; of one workload it is always one. */
const movesAtOnceMax = 5
/** Moves that a plan lists. */
const plannedMax = 1_000
/** How long a workload rests after its newest task was made, in ms. */
const restMs = 30_000
/** How long a node has to be ready before anything is moved to it, in ms: one that comes and goes gets nothing. */
const nodeSettledMs = 60_000
/** How long a successor may find no node, or not become ready, before its move is called off, in ms. */
const callOffMs = 120_000

export interface Move {
  readonly taskId: TaskId
  readonly workloadId: WorkloadId
  /** `web.3` */
  readonly name: string
  readonly from: NodeId
  /** Where the scheduler is expected to put the successor. */
  readonly to: NodeId
  /** In words: becomes the task's `leaveBecause`. */
  readonly because: string
}

export interface Rebalancing {
  readonly moves: readonly Move[]
  /** Workloads that are left alone, and why. */
  readonly skipped: readonly { readonly name: string; readonly because: string }[]
}

export interface RebalanceScope {
  /** Also workloads that nobody switched it on for; those switched off stay out. */
  readonly everything: boolean
  /** Do not wait for workloads and nodes to have rested. */
  readonly atOnce: boolean
}

/**
 * Plans which tasks would have to move for the cluster to be even, one after the other. Pure.
 *
 * A move evens out the tasks of one workload over the branches of its spread preferences and over nodes (by two or
 * more), or, leaving that as it is, what the nodes carry: reserved shares first, then counts of tasks. Each move lowers
 * the earlier of these that it changes, so a plan ends and no two moves undo each other.
 */
export function planRebalance(
  view: View,
  nowMs: number,
  scope: RebalanceScope,
  movesMax: number = plannedMax,
): Rebalancing {
  const plan = new Planning(view, nowMs, scope)
  const skipped: { name: string; because: string }[] = []
  const candidates: Candidate[] = []
  const clusterLabel = clusterRebalances(view)
  for (const workload of view.list('workload')) {
    const label = workload.labels[rebalanceLabel]
    if (label === 'off' || (label !== 'on' && !clusterLabel && !scope.everything)) continue
    const found = observe(view, workload, nowMs, scope)
    if ('because' in found) skipped.push({ name: workload.name, because: found.because })
    else candidates.push(plan.candidate(found))
  }
  const moves: Move[] = []
  for (const candidate of candidates) {
    while (moves.length < movesMax) {
      const move = evenOut(plan, candidate)
      if (!move) break
      moves.push(move)
    }
  }
  while (moves.length < movesMax) {
    const move = lighten(plan, candidates)
    if (!move) break
    moves.push(move)
  }
  return { moves, skipped }
}

export interface RebalanceDecision {
  readonly changes: readonly Change[]
  readonly moves: readonly Move[]
  /** Moves under way, those begun now included. */
  readonly underWay: number
}

/** Decides which moves begin now, and which are called off. Nothing begins while others are under way. Pure. */
export function decideRebalance(
  view: View,
  nowMs: number,
  scope: RebalanceScope = { everything: false, atOnce: false },
): RebalanceDecision {
  const changes: Change[] = []
  let underWay = 0
  for (const task of view.list('task')) {
    if (task.leaveBecause === undefined || isTerminal(task.status.state)) continue
    if (isStopWanted(task)) {
      // On a node that is down nobody tells when it has stopped.
      if (task.nodeId && view.get('node', task.nodeId)?.status.state !== 'down') underWay += 1
      continue
    }
    const successor = view
      .tasksOfWorkload(task.workloadId)
      .findLast((other) => other.id !== task.id && other.slot === task.slot && isLive(other))
    const isStuck =
      successor !== undefined &&
      !successor.status.ready &&
      successor.createdAtMs + callOffMs <= nowMs
    if (isStuck) {
      const { leaveBecause: _, ...object } = task
      changes.push({ type: 'update', object })
    } else underWay += 1
  }
  if (underWay > 0 || changes.length > 0) return { changes, moves: [], underWay }
  const moves: Move[] = []
  for (const move of planRebalance(view, nowMs, scope, movesAtOnceMax).moves) {
    // What follows was planned on this workload's first move being done.
    if (moves.some(({ workloadId }) => workloadId === move.workloadId)) break
    const task = view.get('task', move.taskId)
    if (!task) continue
    moves.push(move)
    changes.push({ type: 'update', object: { ...task, leaveBecause: move.because } })
  }
  return { changes, moves, underWay: moves.length }
}

/** Whether anybody asked for it, for all or for one workload. */
export function isRebalanceWanted(view: View): boolean {
  if (clusterRebalances(view)) return true
  for (const { labels } of view.list('workload')) if (labels[rebalanceLabel] === 'on') return true
  return false
}

function clusterRebalances(view: View): boolean {
  for (const { labels } of view.list('cluster')) return labels[rebalanceLabel] === 'on'
  return false
}

/** A workload whose tasks may be moved now. */
interface Movable {
  readonly workload: Workload
  readonly revision: Revision
  /** Live tasks, each up and on a node; planned moves change where. */
  readonly tasks: readonly Task[]
}

function observe(
  view: View,
  workload: Workload,
  nowMs: number,
  { atOnce }: RebalanceScope,
): Movable | { readonly because: string } {
  const { mode, revisionId } = workload.spec
  if (mode.type !== 'replicated') return { because: `its mode is ${mode.type}` }
  const revision = view.get('revision', revisionId)
  if (!revision) return { because: 'its revision is missing' }
  if (revision.template.containers.some(keepsData))
    return { because: 'its tasks write to a volume or folder of their node' }
  const { state } = workload.status.update ?? {}
  if (state !== undefined && state !== 'completed' && state !== 'rollbackCompleted')
    return { because: 'it is being updated' }
  const slice = observeWorkload(view, workload.id)
  const tasks = view.tasksOfWorkload(workload.id).filter(isLive)
  const isUp = ({ status, traffic, nodeId }: Task) =>
    status.ready && nodeId !== undefined && (!slice?.hasEndpoint || traffic === 'routable')
  if (tasks.length !== mode.replicas || !tasks.every(isUp))
    return { because: 'not all of its tasks are up' }
  const newestMs = Math.max(0, ...tasks.map(({ createdAtMs }) => createdAtMs))
  if (!atOnce && newestMs + restMs > nowMs) return { because: 'it was changed a moment ago' }
  return { workload, revision, tasks }
}

/** The next move that evens out one workload's own tasks, carried out on the floor. */
function evenOut(plan: Planning, candidate: Candidate): Move | undefined {
  const { floor } = plan
  const { paths, revision, tasks } = candidate
  const targets = plan.targets(revision)
  if (paths.isEvenAmong(targets)) return undefined
  let best: { task: Task; to: Carried; from: Carried; merit: readonly number[] } | undefined
  for (const [task] of candidate.movableByNode.values()) {
    const from = task && floor.at(task)
    if (!task || !from) continue
    for (const to of targets) {
      const less = paths.difference(from.node, to.node)
      if (less < 2) continue
      // The largest difference first, then off the fullest node, then onto the emptiest.
      const merit = [less, paths.onNode(from.node), -shareOf(to), -to.tasks]
      if (best && !isGreater(merit, best.merit)) continue
      if (floor.hasRoom(to, revision, tasks, task)) best = { task, to, from, merit }
    }
  }
  if (!best) return undefined
  const { task, from, to } = best
  const because = `moved to even out ${candidate.workload.name}: ${from.node.name} has ${counted(paths.onNode(from.node), 'task')} of it, ${to.node.name} ${paths.onNode(to.node)}`
  return plan.move(candidate, task, to, because)
}

/** The next move that takes load off the fullest node and leaves each workload as even as it is. */
function lighten(plan: Planning, all: readonly Candidate[]): Move | undefined {
  const { floor } = plan
  const lightestFirst = [...floor.all].sort(compareLoad)
  const [lightest] = lightestFirst
  if (!lightest) return undefined
  for (const from of lightestFirst.toReversed()) {
    // What can't be put on the lightest node can't be put anywhere, and the others carry no more than this one.
    if (from.tasks - lightest.tasks < 2 && shareOf(from) <= shareOf(lightest)) return undefined
    for (const candidate of all) {
      const task = candidate.movableByNode.get(from.node.id)?.[0]
      if (!task) continue
      const { paths, revision, tasks } = candidate
      const to = plan
        .targets(revision)
        .filter(
          (target) => lightens(from, target, revision) && paths.isNoWorse(from.node, target.node),
        )
        .sort(compareLoad)
        .find((target) => floor.hasRoom(target, revision, tasks, task))
      if (!to) continue
      const because = `moved to even out the nodes: ${from.node.name} carries ${counted(from.tasks, 'task')}, ${to.node.name} ${to.tasks}`
      return plan.move(candidate, task, to, because)
    }
  }
  return undefined
}

function isGreater(a: readonly number[], b: readonly number[]): boolean {
  for (const [index, value] of a.entries()) {
    const other = b[index] ?? 0
    if (value !== other) return value > other
  }
  return false
}

/** A workload in a plan: where its tasks are by now, and which of them have not moved yet. */
interface Candidate extends Movable {
  readonly paths: PathCounts
  readonly movableByNode: ReadonlyMap<NodeId, Task[]>
}

/** A plan in the making: each task moves once at most. */
class Planning {
  readonly floor: Floor
  readonly #isSettled: (node: ClusterNode) => boolean
  readonly #targets = new Map<RevisionId, readonly Carried[]>()

  constructor(view: View, nowMs: number, { atOnce }: RebalanceScope) {
    this.floor = new Floor(view)
    this.#isSettled = (node) => atOnce || stateSinceMs(node) + nodeSettledMs <= nowMs
  }

  candidate(movable: Movable): Candidate {
    const movableByNode = new Map<NodeId, Task[]>()
    const paths = new PathCounts(movable.revision.template.placement.spread)
    for (const task of movable.tasks) {
      const node = this.floor.at(task)?.node
      if (!node) continue
      paths.add(node, 1)
      const there = movableByNode.get(node.id)
      if (there) there.push(task)
      else movableByNode.set(node.id, [task])
    }
    return { ...movable, paths, movableByNode }
  }

  targets(revision: Revision): readonly Carried[] {
    let targets = this.#targets.get(revision.id)
    if (!targets) {
      targets = this.floor.candidates(revision).filter(({ node }) => this.#isSettled(node))
      this.#targets.set(revision.id, targets)
    }
    return targets
  }

  move(candidate: Candidate, task: Task, to: Carried, because: string): Move | undefined {
    const from = this.floor.at(task)
    if (!from) return undefined
    this.floor.move(task, to)
    candidate.paths.add(from.node, -1)
    candidate.paths.add(to.node, 1)
    const there = candidate.movableByNode.get(from.node.id) ?? []
    there.splice(there.indexOf(task), 1)
    const { workload } = candidate
    return {
      taskId: task.id,
      workloadId: workload.id,
      name: `${workload.name}.${task.slot ?? ''}`,
      from: from.node.id,
      to: to.node.id,
      because,
    }
  }
}

/** How many of a workload's tasks each branch of its spread preferences, and each node, has. */
class PathCounts {
  readonly #counts = new Map<string, number>()
  readonly #spread: readonly string[]
  readonly #pathsByNode = new Map<NodeId, readonly string[]>()

  constructor(spread: readonly string[]) {
    this.#spread = spread
  }

  add(node: ClusterNode, count: 1 | -1): void {
    for (const path of this.#paths(node))
      this.#counts.set(path, (this.#counts.get(path) ?? 0) + count)
  }

  /** Branches from the outermost to the node itself. */
  #paths(node: ClusterNode): readonly string[] {
    let paths = this.#pathsByNode.get(node.id)
    if (!paths) {
      const values = this.#spread.map((key) => labelOf(node, key) ?? '')
      const branches = values.map((_, depth) => JSON.stringify(values.slice(0, depth + 1)))
      paths = [...branches, node.id]
      this.#pathsByNode.set(node.id, paths)
    }
    return paths
  }

  onNode(node: ClusterNode): number {
    return this.#counts.get(node.id) ?? 0
  }

  /** Whether it is seen at a glance that nothing can be evened out: a look at each place, and not at each pair. */
  isEvenAmong(targets: readonly Carried[]): boolean {
    const most = Math.max(0, ...this.#counts.values())
    let least = Number.POSITIVE_INFINITY
    for (const { node } of targets)
      for (const path of this.#paths(node)) least = Math.min(least, this.#counts.get(path) ?? 0)
    return most - least < 2
  }

  /** By how many tasks `from` has more than `to`, on the first level where the two part. */
  difference(from: ClusterNode, to: ClusterNode): number {
    const toPaths = this.#paths(to)
    for (const [level, path] of this.#paths(from).entries()) {
      const other = toPaths[level] ?? ''
      if (path !== other) return (this.#counts.get(path) ?? 0) - (this.#counts.get(other) ?? 0)
    }
    return 0
  }

  /** Whether a move changes places only: on every level where the two part, `from` has more. */
  isNoWorse(from: ClusterNode, to: ClusterNode): boolean {
    const toPaths = this.#paths(to)
    return this.#paths(from).every((path, level) => {
      const other = toPaths[level] ?? ''
      return path === other || (this.#counts.get(path) ?? 0) - (this.#counts.get(other) ?? 0) >= 1
    })
  }
}

/** Whether the fuller of the two nodes is less full after the move. */
function lightens(from: Carried, to: Carried, { template }: Revision): boolean {
  const { nanoCpus, memoryBytes } = template.reservations
  if (nanoCpus === 0 && memoryBytes === 0)
    return from.tasks - to.tasks >= 2 && shareOf(to) <= shareOf(from)
  const after = shareOf({
    ...to,
    nanoCpus: to.nanoCpus + nanoCpus,
    memoryBytes: to.memoryBytes + memoryBytes,
  })
  return after < shareOf(from)
}
