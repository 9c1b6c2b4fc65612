import {
  isStopWanted,
  isTerminal,
  noRestarts,
  type RestartRecord,
  type RevisionId,
  rankOf,
  type Task,
} from '../model/index.ts'
import type { CreateTask, Plan } from './actions.ts'
import { bestOf, mayRun, type Picture, type Place, stoppingTasks } from './picture.ts'
import { decideRestart, type RestartVerdict } from './restart-policy.ts'

/** Longest wait for a replaced task to stop before its successor starts anyway, in ms; its stop grace if that is longer. */
const predecessorWaitMs = 60_000
const predecessorMarginMs = 10_000
/** Longest that a task stays on a node it has to leave although no other node takes its successor, in ms. */
const nowhereWaitMs = 10_000

/**
 * Decides for one place that should be filled: drops what ended or was lost, starts what may start, keeps one task.
 * Returns `dirty` when only an update may touch it further: its tasks are up to date with another revision; `leaving`
 * when its task has to go to another node and serves until it may.
 */
export function decidePlace(
  picture: Picture,
  place: Place,
  plan: Plan,
  mayCreate: boolean,
): 'settled' | 'dirty' | 'leaving' {
  dropEnded(picture, place, plan, mayCreate)
  const live = picture.liveAt(place)
  for (const task of live) advance(picture, task, plan)
  if (live.length === 0) {
    if (mayCreate) refill(picture, place, plan)
    return 'settled'
  }
  const keeper = picture.keeperAt(place)
  if (keeper) {
    dropOthers(picture, live, keeper, plan)
    return 'settled'
  }
  if (live.every((task) => picture.moveOf(task) === undefined)) {
    dropOvertaken(picture, place, plan)
    return 'dirty'
  }
  if (!mayCreate) return 'settled'
  if (live.some((task) => picture.isUp(task))) return 'leaving'
  move(picture, place, plan)
  return 'settled'
}

/**
 * Begins to move tasks that serve and have to leave their nodes, a few at a time: as many as an update may replace at
 * once, or a quarter of the tasks if that is more. Those that serve nothing were moved already.
 */
export function decideMoves(
  picture: Picture,
  wanted: readonly Place[],
  leaving: readonly Place[],
  plan: Plan,
): void {
  if (leaving.length === 0) return
  const { parallelism } = picture.policy
  const limit =
    parallelism === 0 ? wanted.length : Math.max(parallelism, Math.floor(wanted.length / 4))
  let moving = 0
  for (const place of wanted) if (isMoving(picture, place)) moving += 1
  for (const place of leaving) {
    if (moving >= limit) return
    if (move(picture, place, plan)) moving += 1
  }
}

/** Whether a successor is on its way here while the task it follows leaves, or has left, its node. */
function isMoving(picture: Picture, place: Place): boolean {
  const keeper = picture.keeperAt(place)
  if (!keeper || picture.isUp(keeper)) return false
  return place.tasks.some(
    (task) =>
      task !== keeper && !isTerminal(task.status.state) && picture.moveOf(task) !== undefined,
  )
}

function move(picture: Picture, place: Place, plan: Plan): boolean {
  const live = picture.liveAt(place)
  const because = live.map((task) => picture.moveReason(task)).find((text) => text !== undefined)
  const stopFirst = live.some((task) => picture.movesStopFirst(task))
  if (because === undefined) return false
  if (replaceLive(picture, place, plan, { because, stopFirst })) return true
  // Nothing comes in its place; the node is left all the same in the end.
  for (const task of live)
    if (!mayStay(picture, task, undefined, plan))
      plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
  return false
}

/** Why nothing runs at a place without a live task and nothing will, in words; `undefined` when it is to be filled. */
export function restReason(picture: Picture, place: Place): string | undefined {
  const newest = newestOf(place)
  if (!newest || !endedByItself(newest)) return undefined
  const verdict = verdictOn(picture, newest)
  if (verdict.restart) return undefined
  // A new revision is a new start: what the old one came to does not bind it.
  if (!picture.isClean(newest) && picture.phase !== 'paused') return undefined
  return verdict.because
}

function newestOf(place: Place): Task | undefined {
  return place.tasks.findLast((task) => task.desiredState !== 'remove')
}

function endedByItself({ status: { state } }: Task): boolean {
  return state === 'complete' || state === 'failed' || state === 'rejected'
}

/** By the wanted revision's policy, unless the task belongs to another. */
export function verdictOn(picture: Picture, task: Task): RestartVerdict {
  const own = picture.isClean(task) ? picture.wanted : picture.revisionOf(task)
  return decideRestart({
    task,
    policy: (own ?? picture.wanted).template.restart,
    isJob: picture.isJob,
    monitorMs: picture.policy.monitorMs,
    nowMs: picture.nowMs,
  })
}

function dropEnded(picture: Picture, place: Place, plan: Plan, mayCreate: boolean): void {
  for (const task of place.tasks) {
    if (isStopWanted(task)) continue
    if (isTerminal(task.status.state)) {
      if (picture.isJob && task.status.state === 'complete') continue
      const verdict = verdictOn(picture, task)
      const because = !mayCreate
        ? 'not restarted: its node takes no new tasks'
        : verdict.restart
          ? `it ended (${task.status.state}), and a new task takes its place`
          : verdict.because
      plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
      continue
    }
    const { because, atMs } = picture.lossOf(task)
    if (because !== undefined)
      plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
    else if (atMs !== undefined) plan.wakeAt(atMs)
  }
}

/** Lets a held task go once its delay is over and the task it replaces has stopped. */
function advance(picture: Picture, task: Task, plan: Plan): void {
  if (task.desiredState !== 'ready') return
  const untilMs = heldUntilMs(picture, task)
  if (untilMs > picture.nowMs) {
    plan.wakeAt(untilMs)
    return
  }
  const desiredState = picture.isJob ? 'complete' : 'running'
  plan.add({ type: 'setDesired', taskId: task.id, desiredState, because: '' })
}

/** When a task that is held at `ready` may start if nothing changes. */
export function heldUntilMs(picture: Picture, task: Task): number {
  const delayedUntilMs = task.startNotBeforeMs ?? 0
  const before = task.startAfterTaskId && picture.taskOf(task.startAfterTaskId)
  if (!before || !mayRun(picture, before)) return delayedUntilMs
  const waitMs = Math.max(predecessorWaitMs, picture.stopGraceMs(before) + predecessorMarginMs)
  return Math.max(delayedUntilMs, task.createdAtMs + waitMs)
}

/**
 * An update that starts its tasks first and is overtaken by another leaves two at a place. The later one takes over once it is up,
 * although it is not wanted either: it may be long before the update comes to this place.
 */
function dropOvertaken(picture: Picture, place: Place, plan: Plan): void {
  const live = picture.liveAt(place)
  const later = live.findLast((task) => picture.isUp(task))
  for (const task of live) {
    if (later === undefined || task === later) return
    const because = `replaced by task ${later.id}`
    plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
    picture.leaves(place, task)
  }
}

/** Everything but the keeper goes: at once when stopping comes first, else once the keeper is up. */
function dropOthers(picture: Picture, live: readonly Task[], keeper: Task, plan: Plan): void {
  const keeperUp = picture.isUp(keeper)
  for (const task of live) {
    if (task === keeper) continue
    const isDuplicate = picture.isClean(task) && picture.moveReason(task) === undefined
    const isLeaving = picture.moveOf(task) !== undefined
    const stopFirst = isLeaving ? picture.movesStopFirst(task) : picture.isStopFirst
    const mayWait = !stopFirst && !isDuplicate && mayStay(picture, task, keeper, plan)
    if (!keeperUp && mayWait) continue
    const because = isDuplicate
      ? 'another task holds its place'
      : (picture.moveReason(task) ?? `replaced by task ${keeper.id}`)
    plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
  }
}

/**
 * Whether an old task may go on until its successor is up. On a node that is to be left, only while there is hope that
 * this comes: the operator wants the node empty. No other node takes it: a few seconds. It does not become ready: as long
 * as an update waits for one task.
 */
function mayStay(picture: Picture, task: Task, successor: Task | undefined, plan: Plan): boolean {
  const leaveAtMs = leavesAtMs(picture, task, successor)
  if (leaveAtMs === undefined) return true
  if (leaveAtMs <= picture.nowMs) return false
  plan.wakeAt(leaveAtMs)
  return true
}

/** When a task on a node that has to be left is stopped although nothing serves in its place; `undefined`: never. */
export function leavesAtMs(
  picture: Picture,
  task: Task,
  successor: Task | undefined,
): number | undefined {
  const sinceMs = picture.moveOf(task)?.sinceMs
  if (sinceMs === undefined) return undefined
  const { state, error } = successor?.status ?? {}
  return successor && state === 'pending' && error !== undefined
    ? successor.createdAtMs + nowhereWaitMs
    : sinceMs + picture.policy.progressDeadlineMs
}

/**
 * Whether a task ended while it was still held back: preparing it failed. Its delay holds for its successor too, or a
 * missing image would be tried again and again without any pause.
 */
function waitsOutDelay(picture: Picture, task: Task, revisionId: RevisionId, plan: Plan): boolean {
  const untilMs = task.startNotBeforeMs ?? 0
  const isBound = endedByItself(task) && isSameKind(picture, task, revisionId)
  if (!isBound || untilMs <= picture.nowMs) return false
  plan.wakeAt(untilMs)
  return true
}

/** Starts a task at a place without a live one, unless policy leaves the place at rest. */
function refill(picture: Picture, place: Place, plan: Plan): void {
  if (restReason(picture, place) !== undefined) return
  const newest = newestOf(place)
  const revisionId = successorRevision(picture, newest)
  if (newest && waitsOutDelay(picture, newest, revisionId, plan)) return
  const sameRevision = newest !== undefined && isSameKind(picture, newest, revisionId)
  const verdict = sameRevision && endedByItself(newest) ? verdictOn(picture, newest) : undefined
  const restart = verdict?.restart ? verdict : undefined
  plan.add(
    create(picture, place, {
      revisionId,
      because: newest === undefined ? 'wanted' : `in the place of task ${newest.id}`,
      restarts: restart?.restarts ?? (sameRevision ? newest.restarts : noRestarts),
      delayMs: restart?.delayMs ?? 0,
      after: stoppingTasks(picture, place).at(-1),
    }),
  )
}

/**
 * Puts a new task in the place of live ones: after them (stop first), or beside them until it is up (start first).
 * Returns false when an earlier try at this place failed and its restart policy allows no further one.
 */
export function replaceLive(
  picture: Picture,
  place: Place,
  plan: Plan,
  { because, stopFirst }: { readonly because: string; readonly stopFirst: boolean },
): boolean {
  const live = picture.liveAt(place)
  const old = live.at(-1)
  const revisionId = successorRevision(picture, old)
  // What a try before this update came to does not bind it: people asked again.
  const begunAtMs = picture.phase === 'rolling' ? (picture.update?.startedAtMs ?? 0) : 0
  const failedTry = place.tasks.findLast(
    (task) =>
      endedByItself(task) &&
      isSameKind(picture, task, revisionId) &&
      (old === undefined || task.createdAtMs >= old.createdAtMs) &&
      task.createdAtMs >= begunAtMs,
  )
  const verdict = failedTry && verdictOn(picture, failedTry)
  if (verdict?.restart === false) return false
  if (failedTry && waitsOutDelay(picture, failedTry, revisionId, plan)) return false
  // Beside the new task one old one goes on, even if an earlier update has left two.
  const serving = stopFirst ? undefined : bestOf(picture, live)
  for (const task of live) {
    const serves = task === serving && rankOf(task.status.state) >= rankOf('starting')
    if (serves && mayStay(picture, task, undefined, plan)) continue
    plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
  }
  plan.add(
    create(picture, place, {
      revisionId,
      because,
      restarts:
        verdict?.restarts ??
        (old && isSameKind(picture, old, revisionId) ? old.restarts : noRestarts),
      delayMs: verdict?.delayMs ?? 0,
      after: stopFirst
        ? (live.findLast((task) => mayRun(picture, task)) ?? stoppingTasks(picture, place).at(-1))
        : undefined,
    }),
  )
  return true
}

/** What is wanted; but while an update is paused, a task of an older revision is followed by one of the same. */
function successorRevision(picture: Picture, before: Task | undefined): RevisionId {
  const stays =
    before !== undefined &&
    !picture.isJob &&
    picture.phase === 'paused' &&
    picture.revisionOf(before) !== undefined &&
    !picture.isClean(before)
  return stays ? before.revisionId : picture.wanted.id
}

function isSameKind(picture: Picture, task: Task, revisionId: RevisionId): boolean {
  return (
    task.revisionId === revisionId || (revisionId === picture.wanted.id && picture.isClean(task))
  )
}

interface Successor {
  readonly revisionId: RevisionId
  readonly because: string
  readonly restarts: RestartRecord
  readonly delayMs: number
  readonly after: Task | undefined
}

function create(
  picture: Picture,
  place: Place,
  { revisionId, because, restarts, delayMs, after }: Successor,
): CreateTask {
  const held = delayMs > 0 || after !== undefined
  const { spec } = picture.slice.workload
  return {
    type: 'createTask',
    ...(place.slot === undefined ? {} : { slot: place.slot }),
    ...(place.nodeId === undefined ? {} : { pinnedNodeId: place.nodeId }),
    revisionId,
    desiredState: held ? 'ready' : picture.isJob ? 'complete' : 'running',
    because,
    restarts,
    ...(picture.isJob ? { jobIteration: spec.jobIteration } : {}),
    ...(delayMs > 0 ? { startNotBeforeMs: picture.nowMs + delayMs } : {}),
    ...(after === undefined ? {} : { startAfterTaskId: after.id }),
  }
}
