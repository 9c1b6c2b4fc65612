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
/** Longest that a task stays on a node it has to leave while its successor comes up elsewhere (start first), in ms. */
const leaveWaitMs = 120_000

/**
 * Decides for one place that should be filled: drops what ended or was lost, starts what may start, keeps one task.
 * Returns `dirty` when only an update may touch it further: its tasks are up to date with another revision.
 */
export function decidePlace(
  picture: Picture,
  place: Place,
  plan: Plan,
  mayCreate: boolean,
): 'settled' | 'dirty' {
  dropEnded(picture, place, plan, mayCreate)
  const live = picture.liveAt(place)
  for (const task of live) advance(picture, task, plan)
  if (live.length === 0) {
    if (mayCreate) refill(picture, place, plan)
    return 'settled'
  }
  const keeper = keeperOf(picture, live)
  if (keeper) {
    dropOthers(picture, live, keeper, plan)
    return 'settled'
  }
  const reason = live.map((task) => picture.moveReason(task)).find((text) => text !== undefined)
  if (reason === undefined) return 'dirty'
  if (mayCreate) replaceLive(picture, place, plan, reason)
  return 'settled'
}

/** The live task that the place settles on: one of the wanted revision; while an update is paused, any. */
export function keeperOf(picture: Picture, live: readonly Task[]): Task | undefined {
  const staying = live.filter((task) => picture.moveReason(task) === undefined)
  const clean = staying.filter((task) => picture.isClean(task))
  return (
    bestOf(picture, clean) ?? (picture.phase === 'paused' ? bestOf(picture, staying) : undefined)
  )
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
  const before = task.startAfterTaskId && picture.taskById.get(task.startAfterTaskId)
  if (!before || !mayRun(picture, before)) return delayedUntilMs
  const containers = picture.revisionOf(before)?.template.containers ?? []
  const graceMs = Math.max(0, ...containers.map(({ stopGraceMs }) => stopGraceMs))
  const waitMs = Math.max(predecessorWaitMs, graceMs + predecessorMarginMs)
  return Math.max(delayedUntilMs, task.createdAtMs + waitMs)
}

/** Everything but the keeper goes: at once when stopping comes first, else once the keeper is up. */
function dropOthers(picture: Picture, live: readonly Task[], keeper: Task, plan: Plan): void {
  const keeperUp = picture.isUp(keeper)
  for (const task of live) {
    if (task === keeper) continue
    const isDuplicate = picture.isClean(task) && picture.moveReason(task) === undefined
    const mayWait = !picture.isStopFirst && !isDuplicate && mayStay(picture, task, keeper, plan)
    if (!keeperUp && mayWait) continue
    const because = isDuplicate
      ? 'another task holds its place'
      : (picture.moveReason(task) ?? `replaced by task ${keeper.id}`)
    plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'shutdown', because })
  }
}

/**
 * Whether an old task may go on until its successor is up. On a node that is to be left, only while there is hope that
 * this comes soon: the operator wants the node empty.
 */
function mayStay(picture: Picture, task: Task, successor: Task | undefined, plan: Plan): boolean {
  if (picture.moveReason(task) === undefined) return true
  const { state, error } = successor?.status ?? {}
  if (state === 'pending' && error !== undefined) return false
  const leaveAtMs = (picture.nodeOf(task)?.updatedAtMs ?? 0) + leaveWaitMs
  if (leaveAtMs <= picture.nowMs) return false
  plan.wakeAt(leaveAtMs)
  return true
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
export function replaceLive(picture: Picture, place: Place, plan: Plan, because: string): boolean {
  const live = picture.liveAt(place)
  const old = live.at(-1)
  const revisionId = successorRevision(picture, old)
  const failedTry = place.tasks.findLast(
    (task) =>
      endedByItself(task) &&
      isSameKind(picture, task, revisionId) &&
      (old === undefined || task.createdAtMs >= old.createdAtMs),
  )
  const verdict = failedTry && verdictOn(picture, failedTry)
  if (verdict?.restart === false) return false
  if (failedTry && waitsOutDelay(picture, failedTry, revisionId, plan)) return false
  const stopFirst = picture.isStopFirst
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
