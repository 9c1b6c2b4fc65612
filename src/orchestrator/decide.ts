import { usualPortions } from '../base/index.ts'
import { isTerminal } from '../model/index.ts'
import { type Decision, Plan } from './actions.ts'
import { decidePlaces, isToDismiss } from './modes.ts'
import { Picture, type Place } from './picture.ts'
import { decideMoves, decidePlace } from './place.ts'
import { giveUpLost, isForgettable, reapPlace, reapRevisions } from './reaper.ts'
import type { WorkloadSlice } from './slice.ts'
import { decideFailure, decideUpdate, observeRollout } from './update.ts'

/**
 * Decides what one workload gains, loses and remembers.
 *
 * Pure: equal slices and times give equal decisions, and nothing is remembered between two. Everything (restarts,
 * how far an update is, what failed) follows from the tasks, the revisions and the workload's status. Once the actions
 * are applied and nothing else happens, a second call gives none until `wakeAtMs`.
 */
export function decideWorkload(slice: WorkloadSlice, nowMs: number): Decision {
  const parts = decideInParts(slice, nowMs)
  for (;;) {
    const part = parts.next()
    if (part.done) return part.value
  }
}

/** The same in parts of a few ms each, where there are more tasks than `perPart`. What the slice holds may not change meanwhile. */
export function* decideInParts(
  slice: WorkloadSlice,
  nowMs: number,
  perPart = usualPortions.perPart,
): Generator<undefined, Decision> {
  const isLarge = slice.tasks.length > perPart
  const picture = Picture.of(slice, nowMs)
  // Without its revision nothing is known of what is wanted, so nothing may be touched; explainWorkload says so.
  if (!picture) return { actions: [] }
  if (slice.startOrder && slice.startOrder.length > 0) return { actions: [] }
  const plan = new Plan()
  if (slice.startOrder) plan.add({ type: 'meetStartOrder' })
  const { wanted, frozen, unwanted } = decidePlaces(picture)
  if (isLarge) yield
  const rollout = observeRollout(picture, wanted, plan)
  const failure = decideFailure(picture, wanted, rollout)
  // What follows from a pause or a rollback is decided on the state it leaves.
  if (failure) return { actions: [failure] }
  if (isLarge) yield

  const keepsWanted = slice.workload.spec.onNodeLoss.type === 'keep'
  giveUpLost(slice.tasks, slice.nodes, keepsWanted, nowMs, plan)
  if (isLarge) yield
  const dirty: Place[] = []
  const leaving: Place[] = []
  for (const [at, place] of wanted.entries()) {
    if (at % perPart === perPart - 1) yield
    const outcome = decidePlace(picture, place, plan, true)
    if (outcome === 'dirty') dirty.push(place)
    else if (outcome === 'leaving') leaving.push(place)
  }
  decideMoves(picture, wanted, leaving, plan)
  for (const place of frozen) decidePlace(picture, place, plan, false)
  for (const [at, { place, because, forget }] of unwanted.entries()) {
    if (at % perPart === perPart - 1) yield
    for (const task of place.tasks) {
      if (isToDismiss(task, forget)) {
        const desiredState = forget ? 'remove' : 'shutdown'
        plan.add({ type: 'setDesired', taskId: task.id, desiredState, because })
      } else if (forget && (isTerminal(task.status.state) || isForgettable(task))) {
        plan.add({ type: 'deleteTask', taskId: task.id })
      }
    }
    if (!forget) reapPlace(picture, place, plan)
  }
  if (isLarge) yield
  const givenUp = unwanted.map(({ place }) => place)
  decideUpdate(picture, { wanted, dirty, givenUp }, rollout, plan)
  if (isLarge) yield
  for (const place of wanted) reapPlace(picture, place, plan)
  for (const place of frozen) reapPlace(picture, place, plan)
  reapRevisions(slice, plan)
  return plan.decision()
}
