import {
  isStopWanted,
  isTerminal,
  type Revision,
  type Task,
  type UpdateStatus,
} from '../model/index.ts'
import type { Action, Plan } from './actions.ts'
import type { Picture, Place } from './picture.ts'
import { replaceLive, restReason } from './place.ts'
import { counted, seconds } from './restart-policy.ts'

/** Slots that `waitingFor` names one by one. */
const waitingNamedMax = 3

/** How the tries of an update or rollback went so far, derived from the tasks it made. */
export interface Rollout {
  /** It replaces tasks, and does not only add or remove some. */
  readonly replaces: boolean
  /** Places where a task it made failed, with the first such task. */
  readonly failureByPlace: ReadonlyMap<Place, Task>
}

/** How long the last new task has to stay ready before an update is called complete, in ms; less if monitored less. */
const settleMs = 1_000

/** Looks at what an update did. Asks the plan to look again when a deadline passes. */
export function observeRollout(picture: Picture, wanted: readonly Place[], plan: Plan): Rollout {
  const failureByPlace = new Map<Place, Task>()
  const { update } = picture
  if (!update || (picture.phase !== 'rolling' && !isStillWatched(picture, update)))
    return { replaces: false, failureByPlace }
  let replaces = false
  for (const place of wanted) {
    for (const task of place.tasks) {
      if (!picture.isClean(task)) {
        const endedBefore = isTerminal(task.status.state) && task.status.atMs < update.startedAtMs
        if (!endedBefore) replaces = true
        continue
      }
      if (task.createdAtMs < update.startedAtMs || failureByPlace.has(place)) continue
      if (isFailure(picture, task, plan)) failureByPlace.set(place, task)
    }
  }
  return { replaces, failureByPlace }
}

/**
 * An update is called complete once its last task has stayed ready for `settleMs`, so that nobody has to wait for the
 * rest of the monitor period; a failure within that still pauses it or takes it back.
 */
function isStillWatched({ policy, nowMs }: Picture, update: UpdateStatus): boolean {
  const isDone = update.state === 'completed' || update.state === 'rollbackCompleted'
  return isDone && nowMs <= (update.completedAtMs ?? 0) + policy.monitorMs
}

/** Ended before it was ready or while it was watched, or made no progress for too long. */
function isFailure(picture: Picture, task: Task, plan: Plan): boolean {
  const { state, atMs, readyAtMs } = task.status
  const { monitorMs, progressDeadlineMs } = picture.policy
  if (state === 'failed' || state === 'rejected' || state === 'complete') {
    const meantToEnd = state === 'complete' && picture.wanted.template.restart.condition !== 'any'
    return !meantToEnd && (readyAtMs === undefined || atMs - readyAtMs <= monitorMs)
  }
  const held = task.desiredState === 'ready'
  if (isTerminal(state) || isStopWanted(task) || held || readyAtMs !== undefined) return false
  const deadlineMs = startedAtMs(picture, task) + progressDeadlineMs
  if (deadlineMs < picture.nowMs) return true
  plan.wakeAt(deadlineMs + 1)
  return false
}

/** When a task that is no longer held was let go, as far as its traces tell. */
function startedAtMs(picture: Picture, task: Task): number {
  const before = task.startAfterTaskId && picture.taskOf(task.startAfterTaskId)
  const beforeEndedAtMs =
    before && isTerminal(before.status.state) ? before.status.atMs : task.createdAtMs
  return Math.max(task.createdAtMs, task.startNotBeforeMs ?? 0, beforeEndedAtMs)
}

/** What an update does that failed too often: pause, or go back; `undefined` when it goes on. */
export function decideFailure(
  picture: Picture,
  wanted: readonly Place[],
  { replaces, failureByPlace }: Rollout,
): Action | undefined {
  const { update, policy } = picture
  if (!update || !replaces || policy.onFailure === 'continue') return undefined
  if (failureByPlace.size / Math.max(1, wanted.length) <= policy.maxFailureRatio) return undefined
  const [first] = failureByPlace.values()
  if (!first) return undefined
  const why = `due to failure or early termination of task ${first.id}`
  const { startedAtMs, revisionId } = update
  if (picture.isRollback) {
    const message = `rollback paused ${why}`
    return {
      type: 'setUpdate',
      update: { state: 'rollbackPaused', startedAtMs, revisionId, message },
    }
  }
  const previous = rollbackTarget(picture)
  if (policy.onFailure === 'rollback' && previous) {
    return {
      type: 'rollBack',
      revisionId: previous.id,
      update: {
        state: 'rollbackStarted',
        startedAtMs: picture.nowMs,
        revisionId: previous.id,
        message: `update rolled back ${why}`,
      },
    }
  }
  const message = `update paused ${why}`
  return { type: 'setUpdate', update: { state: 'paused', startedAtMs, revisionId, message } }
}

/**
 * Where a failed update goes back to: the previous revision, unless that one never proved itself (nor one with the
 * same tasks) while an older one did. A revision with the very tasks that fail is no way back.
 */
function rollbackTarget({ slice, wanted }: Picture): Revision | undefined {
  const revisions = [...slice.revisions.values()].filter(
    ({ templateHash }) => templateHash !== wanted.templateHash,
  )
  const proven = revisions.filter(({ healthyAtMs }) => healthyAtMs !== undefined)
  const previous = revisions.find(({ id }) => id === slice.workload.spec.previousRevisionId)
  if (previous && proven.some(({ templateHash }) => templateHash === previous.templateHash))
    return previous
  const older = proven.filter(({ number }) => number < wanted.number)
  return older.sort((a, b) => b.number - a.number)[0] ?? previous
}

/** Places of a workload as an update looks at them. */
export interface UpdatedPlaces {
  readonly wanted: readonly Place[]
  /** Of those, the ones that have no task of the wanted revision. */
  readonly dirty: readonly Place[]
  /** Where nothing is wanted any more. */
  readonly givenUp: readonly Place[]
}

/** Takes an update further: the next slots, or its end. `dirty` are the places that run something else. */
export function decideUpdate(
  picture: Picture,
  places: UpdatedPlaces,
  rollout: Rollout,
  plan: Plan,
): void {
  switch (picture.phase) {
    case 'paused':
      return
    case 'settled':
      settle(picture, places, plan)
      return
    case 'rolling':
      roll(picture, places, rollout, plan)
      return
  }
}

/** With no update under way: begins one where tasks are out of date, and notes a revision that proved itself. */
function settle(picture: Picture, { wanted, dirty }: UpdatedPlaces, plan: Plan): void {
  if (dirty.length > 0) {
    plan.add({
      type: 'setUpdate',
      update: {
        state: 'updating',
        startedAtMs: picture.nowMs,
        message: 'update in progress',
        revisionId: picture.wanted.id,
      },
    })
    return
  }
  if (picture.isJob || picture.wanted.healthyAtMs !== undefined || wanted.length === 0) return
  let provenAtMs = 0
  for (const place of wanted) {
    const keeper = picture.keeperAt(place)
    if (!keeper || !picture.isUp(keeper)) return
    provenAtMs = Math.max(provenAtMs, watchedUntilMs(picture, keeper))
  }
  if (provenAtMs <= picture.nowMs) plan.add({ type: 'markHealthy', revisionId: picture.wanted.id })
  else plan.wakeAt(provenAtMs)
}

function watchedUntilMs(picture: Picture, task: Task): number {
  return (task.status.readyAtMs ?? picture.nowMs) + picture.policy.monitorMs
}

function roll(
  picture: Picture,
  { wanted, dirty, givenUp }: UpdatedPlaces,
  rollout: Rollout,
  plan: Plan,
): void {
  const { update, policy, nowMs } = picture
  if (!update) return
  const isDirty = new Set(dirty)
  let inProgress = plan.actions.filter(({ type }) => type === 'createTask').length
  let isDone = dirty.length === 0 && inProgress === 0
  let isProven = true
  const waiting: Place[] = []
  for (const place of wanted) {
    if (isDirty.has(place)) continue
    const live = picture.liveAt(place)
    if (rollout.failureByPlace.has(place)) {
      // A failed slot holds up nobody; but where an old task still serves in its stead, it is not done.
      if (live.some((task) => !picture.isClean(task))) isDone = false
      continue
    }
    const keeper = picture.keeperAt(place)
    if (!keeper || keeper.createdAtMs < update.startedAtMs) continue
    if (!picture.isUp(keeper)) {
      inProgress += 1
      isDone = false
      waiting.push(place)
      continue
    }
    const delayedUntilMs = (keeper.status.readyAtMs ?? nowMs) + policy.delayMs
    if (delayedUntilMs > nowMs) {
      inProgress += 1
      if (dirty.length > 0) plan.wakeAt(delayedUntilMs)
    }
    if (watchedUntilMs(picture, keeper) > nowMs) isProven = false
    const settledAtMs = (keeper.status.readyAtMs ?? nowMs) + Math.min(policy.monitorMs, settleMs)
    if (settledAtMs > nowMs) {
      isDone = false
      if (rollout.replaces) plan.wakeAt(settledAtMs)
    }
  }
  // What it began where nothing is wanted any more counts until that is told to go: many changes are not made at once.
  for (const place of givenUp) {
    const keeper = picture.keeperAt(place)
    if (keeper && keeper.createdAtMs >= update.startedAtMs && !picture.isUp(keeper)) inProgress += 1
  }
  if (isDone || (dirty.length === 0 && !rollout.replaces)) {
    complete(
      picture,
      update,
      isProven && rollout.replaces && rollout.failureByPlace.size === 0,
      plan,
    )
    return
  }
  const budget = policy.parallelism === 0 ? dirty.length : policy.parallelism - inProgress
  let started = 0
  for (const place of brokenFirst(picture, dirty)) {
    if (started >= budget) break
    const because = `${picture.isRollback ? 'rollback' : 'update'} to revision ${picture.wanted.number}`
    if (replaceLive(picture, place, plan, { because, stopFirst: picture.isStopFirst })) started += 1
  }
  const waitingFor = wordsFor(picture, wanted, waiting, rollout)
  if (waitingFor !== update.waitingFor)
    plan.add({ type: 'setUpdate', update: { ...update, waitingFor } })
}

function complete(picture: Picture, update: UpdateStatus, isProven: boolean, plan: Plan): void {
  const { startedAtMs, revisionId } = update
  plan.add({
    type: 'setUpdate',
    update: {
      state: picture.isRollback ? 'rollbackCompleted' : 'completed',
      startedAtMs,
      completedAtMs: picture.nowMs,
      message: picture.isRollback ? 'rollback completed' : 'update completed',
      revisionId,
    },
  })
  if (isProven && picture.wanted.healthyAtMs === undefined)
    plan.add({ type: 'markHealthy', revisionId })
}

/** Slots that serve nothing have nothing to lose, so they come first. */
function brokenFirst(picture: Picture, places: readonly Place[]): readonly Place[] {
  const isBroken = (place: Place) => !place.tasks.some((task) => picture.isUp(task))
  return [...places.filter(isBroken), ...places.filter((place) => !isBroken(place))]
}

/** Words that change only when something happens: no times in them. */
function wordsFor(
  picture: Picture,
  wanted: readonly Place[],
  waiting: readonly Place[],
  rollout: Rollout,
): string {
  const done = wanted.filter((place) => {
    const keeper = picture.keeperAt(place)
    return keeper !== undefined && picture.isUp(keeper)
  }).length
  const parts = [`${done} of ${counted(wanted.length, 'task')} updated`]
  for (const place of waiting.slice(0, waitingNamedMax)) {
    const keeper = picture.keeperAt(place)
    if (keeper) parts.push(describeTask(picture, keeper))
  }
  if (waiting.length > waitingNamedMax) parts.push(`and ${waiting.length - waitingNamedMax} more`)
  for (const [place, task] of [...rollout.failureByPlace].slice(0, waitingNamedMax)) {
    const rest = picture.liveAt(place).length === 0 ? restReason(picture, place) : undefined
    parts.push(`${describeTask(picture, task)}${rest === undefined ? '' : ` (${rest})`}`)
  }
  const { monitorMs } = picture.policy
  if (done === wanted.length && waiting.length === 0 && monitorMs > 0)
    parts.push(`watching the new tasks for ${seconds(monitorMs)}`)
  return parts.join('; ')
}

/** `web.3 (task x): pending: no suitable node (…)` */
export function describeTask(picture: Picture, task: Task): string {
  const { state, error, message } = task.status
  const place = task.slot ?? task.pinnedNodeId ?? task.nodeId ?? ''
  const words = error || message
  const held = task.desiredState === 'ready' && !isTerminal(state) ? ', held back' : ''
  return `${picture.slice.workload.name}.${place} (task ${task.id}): ${state}${held}${words && words !== state ? `: ${words}` : ''}`
}
