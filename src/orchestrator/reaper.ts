import {
  isStopWanted,
  isTerminal,
  rankOf,
  stateSinceMs,
  type Task,
  type WorkloadId,
} from '../model/index.ts'
import type { Plan } from './actions.ts'
import { orphanAfterMs, type Picture, type Place } from './picture.ts'
import type { NodeSet, WorkloadSlice } from './slice.ts'

/** Finished tasks kept per place where the cluster does not say. */
const taskHistoryLimitDefault = 5
/** Revisions that proved healthy and are kept to go back to. */
const healthyRevisionsMax = 10

/** A task that is to stop and never got a node has nothing to stop; one that is to be removed goes once it ended. */
export function isForgettable(task: Task): boolean {
  if (!isStopWanted(task)) return false
  if (task.nodeId === undefined && rankOf(task.status.state) < rankOf('assigned')) return true
  return task.desiredState === 'remove' && isTerminal(task.status.state)
}

/** Lets go of what nobody needs any more at a place: forgotten tasks, and history beyond the limit. */
export function reapPlace(picture: Picture, place: Place, plan: Plan): void {
  const limit = picture.slice.cluster?.taskHistoryLimit ?? taskHistoryLimitDefault
  let kept: ReadonlySet<Task | undefined> | undefined
  let finished = 0
  for (let at = place.tasks.length - 1; at >= 0; at--) {
    const task = place.tasks[at]
    if (!task || !isStopWanted(task)) continue
    if (isForgettable(task)) {
      plan.add({ type: 'deleteTask', taskId: task.id })
      continue
    }
    if (!isTerminal(task.status.state)) continue
    finished += 1
    if (limit < 0 || finished <= limit) continue
    kept ??= evidence(picture, place)
    if (!kept.has(task)) plan.add({ type: 'deleteTask', taskId: task.id })
  }
}

/** Ended tasks that decisions still follow from: what a place rests on, and how the tries of an update went. */
function evidence(picture: Picture, place: Place): ReadonlySet<Task | undefined> {
  const kept = new Set<Task | undefined>()
  if (picture.liveAt(place).length === 0) kept.add(place.tasks.at(-1))
  if (picture.phase !== 'settled') {
    const ended = place.tasks.filter(({ status }) => isTerminal(status.state))
    kept.add(ended.findLast((task) => !picture.isClean(task)))
    kept.add(ended.findLast((task) => picture.isClean(task)))
  }
  return kept
}

/** Revisions that are not wanted, not run, not the previous one and not among the last healthy ones. */
export function reapRevisions({ workload, revisions, tasks }: WorkloadSlice, plan: Plan): void {
  const { spec, status } = workload
  const kept = new Set([spec.revisionId, spec.previousRevisionId, status.update?.revisionId])
  if (revisions.size <= kept.size && revisions.size <= 2) return
  for (const { revisionId } of tasks) kept.add(revisionId)
  const byNumber = [...revisions.values()].sort((a, b) => b.number - a.number)
  // The newest is the memory of which numbers were given out.
  if (byNumber[0]) kept.add(byNumber[0].id)
  for (const { id } of byNumber
    .filter(({ healthyAtMs }) => healthyAtMs !== undefined)
    .slice(0, healthyRevisionsMax))
    kept.add(id)
  for (const { id } of byNumber)
    if (!kept.has(id)) plan.add({ type: 'deleteRevision', revisionId: id })
}

/**
 * Gives up tasks that nobody will report on: at once when their node was removed, after 24 hours when it is down.
 * A workload that keeps its tasks on lost nodes keeps those it wants. O(the tasks given).
 */
export function giveUpLost(
  tasks: readonly Task[],
  nodes: NodeSet,
  keepsWanted: boolean,
  nowMs: number,
  plan: Plan,
): void {
  for (const task of tasks) {
    if (task.nodeId === undefined || isTerminal(task.status.state)) continue
    const node = nodes.get(task.nodeId)
    if (!node) {
      plan.add({ type: 'orphanTask', taskId: task.id, error: `node ${task.nodeId} was removed` })
      continue
    }
    if (node.status.state !== 'down' || (keepsWanted && !isStopWanted(task))) continue
    const atMs = stateSinceMs(node) + orphanAfterMs
    if (atMs > nowMs) plan.wakeAt(atMs)
    else {
      const error = `node ${node.name} has been down for 24 hours`
      plan.add({ type: 'orphanTask', taskId: task.id, error })
    }
  }
}

/** Empties out what a deleted workload left: its tasks stop, and go once they have. */
export function decideLeftovers(
  tasks: readonly Task[],
  nodes: NodeSet,
  workloadId: WorkloadId,
  nowMs: number,
  plan: Plan,
): void {
  giveUpLost(tasks, nodes, false, nowMs, plan)
  for (const task of tasks) {
    const { state } = task.status
    if (isTerminal(state) || (task.nodeId === undefined && rankOf(state) < rankOf('assigned')))
      plan.add({ type: 'deleteTask', taskId: task.id })
    else if (task.desiredState !== 'remove') {
      const because = `workload ${workloadId} was removed`
      plan.add({ type: 'setDesired', taskId: task.id, desiredState: 'remove', because })
    }
  }
}
