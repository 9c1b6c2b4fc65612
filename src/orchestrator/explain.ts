import { unreachable } from '../base/index.ts'
import { isLive, isStopWanted, isTerminal, type Task, type TaskId } from '../model/index.ts'
import { decidePlaces } from './modes.ts'
import { Picture, type Place } from './picture.ts'
import { heldUntilMs, leavesAtMs, restReason, verdictOn } from './place.ts'
import { counted, seconds } from './restart-policy.ts'
import type { WorkloadSlice } from './slice.ts'
import { describeTask } from './update.ts'

export interface Explanation {
  /** One plain sentence or two. */
  readonly summary: string
  /** Why it is not as declared, most telling first. Empty when it is. */
  readonly reasons: readonly string[]
  /** What happened, oldest first. */
  readonly timeline: readonly { readonly atMs: number; readonly text: string }[]
}

/** Reasons of one kind that are listed one by one. */
const reasonsMax = 10

/** Why a workload is not as declared. */
export function explainWorkload(slice: WorkloadSlice, nowMs: number): Explanation {
  const { workload } = slice
  const picture = Picture.of(slice, nowMs)
  if (!picture) {
    const summary = `${workload.name} is left as it is: revision ${workload.spec.revisionId}, which it should run, is missing.`
    return { summary, reasons: ['Declare it again with an update.'], timeline: [] }
  }
  if (slice.startOrder && slice.startOrder.length > 0) {
    return {
      summary: `${workload.name} has not been started yet.`,
      reasons: slice.startOrder.map(({ because }) => because),
      timeline: workloadTimeline(picture),
    }
  }
  const { wanted, frozen } = decidePlaces(picture)
  const count = countWords(picture, wanted)
  const reasons = [
    ...updateReasons(picture),
    ...slice.endpoints.flatMap(({ status }) => (status.error ? [status.error] : [])),
    ...wanted.flatMap((place) => placeReason(picture, place) ?? []).slice(0, reasonsMax),
    ...frozen
      .filter((place) => picture.liveAt(place).length === 0)
      .map(({ nodeId }) => `node ${nodeId} takes no new tasks now`),
  ]
  if (wanted.length === 0) reasons.push(emptyReason(picture))
  return {
    summary: `${workload.name} has ${count}.${updateWords(picture)}`,
    reasons,
    timeline: workloadTimeline(picture),
  }
}

/** Why one task is where it is, or `undefined` when the slice has no such task. */
export function explainTask(
  slice: WorkloadSlice,
  id: TaskId,
  nowMs: number,
): Explanation | undefined {
  const task = slice.tasks.find((one) => one.id === id)
  if (!task) return undefined
  const picture = Picture.of(slice, nowMs)
  const reasons: string[] = []
  const { state } = task.status
  if (task.status.error) reasons.push(task.status.error)
  if (picture) {
    const { because: loss, waits } = picture.lossOf(task)
    if (loss !== undefined) reasons.push(loss)
    else if (waits !== undefined) reasons.push(waits)
    const leaving = isLive(task) ? leavingReason(picture, task) : undefined
    if (leaving !== undefined) reasons.push(leaving)
    if (isStopWanted(task))
      reasons.push(`it is to stop: ${task.desiredBecause ?? 'no longer wanted'}`)
    else if (task.desiredState === 'ready' && !isTerminal(state))
      reasons.push(holdWords(picture, task))
    else if (isTerminal(state) && !picture.isJob) {
      const verdict = verdictOn(picture, task)
      if (!verdict.restart) reasons.push(verdict.because)
    }
    if (isLive(task) && !picture.isClean(task))
      reasons.push(
        `it runs revision ${picture.revisionOf(task)?.number ?? 'unknown'}; wanted is ${picture.wanted.number}`,
      )
    if (isLive(task) && state === 'running' && !picture.isUp(task))
      reasons.push(task.status.ready ? 'it gets no traffic yet' : 'its health check has not passed')
  }
  if (reasons.length === 0 && isLive(task) && state !== 'running')
    reasons.push(`it is on its way: ${task.status.message}`)
  const node = picture?.nodeOf(task)
  const where = node ? ` on node ${node.name}` : ''
  return {
    summary: `Task ${task.id} (${task.name || slice.workload.name}) is ${state}${where}; it should be ${desiredWords(task)}.`,
    reasons,
    timeline: taskEvents(task, slice.workload.name),
  }
}

/** Why a task still is on a node that it has to leave. */
function leavingReason(picture: Picture, task: Task): string | undefined {
  const reason = picture.moveReason(task)
  if (reason === undefined) return undefined
  const successor = picture.slice.tasks.findLast(
    (other) =>
      other !== task && other.slot === task.slot && isLive(other) && !picture.moveReason(other),
  )
  if (!successor) return `${reason}; it waits for its turn to move: a few tasks at a time`
  const leavesMs = leavesAtMs(picture, task, successor)
  const limit =
    leavesMs === undefined
      ? ''
      : ` It is stopped in ${seconds(Math.max(0, leavesMs - picture.nowMs))} even so.`
  return `${reason}; it serves until its successor does: ${describeTask(picture, successor)}.${limit}`
}

function desiredWords({ desiredState }: Task): string {
  switch (desiredState) {
    case 'ready':
      return 'prepared and held back'
    case 'running':
      return 'running'
    case 'complete':
      return 'run to its end'
    case 'shutdown':
      return 'stopped'
    case 'remove':
      return 'stopped and removed'
    default:
      return unreachable(desiredState)
  }
}

function countWords(picture: Picture, wanted: readonly Place[]): string {
  const { mode } = picture.slice.workload.spec
  const up = wanted.filter((place) => picture.liveAt(place).some((task) => picture.isUp(task)))
  const complete = wanted.filter((place) =>
    place.tasks.some(({ status }) => status.state === 'complete'),
  ).length
  switch (mode.type) {
    case 'replicated':
      return `${up.length} of ${counted(mode.replicas, 'task')} up`
    case 'global':
      return `${up.length} of ${counted(wanted.length, 'task')} up, one on each node that meets its placement`
    case 'replicatedJob':
      return `${complete} of ${counted(mode.totalCompletions, 'task')} complete, ${up.length} running`
    case 'globalJob':
      return `${complete} of ${counted(wanted.length, 'task')} complete, ${up.length} running, one on each node that meets its placement`
    default:
      return unreachable(mode)
  }
}

function emptyReason(picture: Picture): string {
  const { mode } = picture.slice.workload.spec
  switch (mode.type) {
    case 'replicated':
      return 'it is scaled to 0: scale it up to run it'
    case 'replicatedJob':
      return mode.maxConcurrent === 0 && mode.totalCompletions > 0
        ? 'it may run 0 tasks at once: raise max-concurrent'
        : 'nothing is asked of it: its total is 0'
    case 'global':
    case 'globalJob':
      return 'no ready and active node meets its placement'
    default:
      return unreachable(mode)
  }
}

function updateWords(picture: Picture): string {
  const { update } = picture
  if (!update || picture.phase === 'settled') return ''
  return ` ${sentence(update.message)}`
}

function updateReasons(picture: Picture): readonly string[] {
  const { update } = picture
  switch (picture.phase) {
    case 'rolling':
      return update?.waitingFor ? [`the update waits: ${update.waitingFor}`] : []
    case 'paused':
      return [
        `${update?.message ?? 'update paused'}; nothing more is replaced until it is updated or rolled back`,
      ]
    case 'settled':
      return []
    default:
      return unreachable(picture.phase)
  }
}

/** Why a place is not served, or `undefined` when it is. */
function placeReason(picture: Picture, place: Place): string | undefined {
  if (picture.isJob && place.tasks.some(({ status }) => status.state === 'complete'))
    return undefined
  const live = picture.liveAt(place)
  const keeper = picture.keeperAt(place) ?? live.at(-1)
  const last = place.tasks.at(-1)
  if (!keeper) {
    const rest = restReason(picture, place)
    const name = `${picture.slice.workload.name}.${place.slot ?? place.nodeId ?? ''}`
    if (!last) return `${name} has no task yet`
    return rest === undefined
      ? `${describeTask(picture, last)}; a new task is about to take its place`
      : `${describeTask(picture, last)}; ${rest}`
  }
  if (picture.isUp(keeper)) return picture.lossOf(keeper).waits ?? leavingReason(picture, keeper)
  if (keeper.desiredState === 'ready') {
    const before = place.tasks.findLast((task) => isTerminal(task.status.state))
    const why = before ? `; before it: ${describeTask(picture, before)}` : ''
    return `${describeTask(picture, keeper)}; ${holdWords(picture, keeper)}${why}`
  }
  return describeTask(picture, keeper)
}

function holdWords(picture: Picture, task: Task): string {
  const untilMs = heldUntilMs(picture, task)
  const { failuresInRow } = task.restarts
  const waits =
    untilMs > picture.nowMs ? `starts in ${seconds(untilMs - picture.nowMs)}` : 'starts now'
  if (task.startNotBeforeMs !== undefined && task.startNotBeforeMs > picture.nowMs) {
    const row = failuresInRow > 1 ? ` after ${counted(failuresInRow, 'failure')} in a row` : ''
    return `${waits}: the restart delay${row}`
  }
  return task.startAfterTaskId !== undefined && untilMs > picture.nowMs
    ? `${waits} at the latest: task ${task.startAfterTaskId}, which it replaces, has to stop first`
    : waits
}

function workloadTimeline(picture: Picture): Explanation['timeline'] {
  const { workload, revisions, tasks } = picture.slice
  const events = [{ atMs: workload.createdAtMs, text: `${workload.name} was declared` }]
  for (const { number, createdAtMs, healthyAtMs } of revisions.values()) {
    if (number > 1) events.push({ atMs: createdAtMs, text: `revision ${number} was declared` })
    if (healthyAtMs !== undefined)
      events.push({ atMs: healthyAtMs, text: `revision ${number} proved healthy` })
  }
  const { update } = picture
  if (update)
    events.push({ atMs: update.completedAtMs ?? update.startedAtMs, text: update.message })
  for (const task of tasks) events.push(...taskEvents(task, workload.name))
  return events.sort((a, b) => a.atMs - b.atMs)
}

function taskEvents(task: Task, workloadName: string): { atMs: number; text: string }[] {
  const { state, atMs, readyAtMs, error, message } = task.status
  const name = `${workloadName}.${task.slot ?? task.pinnedNodeId ?? task.nodeId ?? ''} (task ${task.id})`
  const events = [{ atMs: task.createdAtMs, text: `${name} was created` }]
  if (readyAtMs !== undefined) events.push({ atMs: readyAtMs, text: `${name} became ready` })
  if (state !== 'new' && !(state === 'running' && readyAtMs === atMs)) {
    const words = error || message
    events.push({
      atMs,
      text: `${name} is ${state}${words && words !== state ? `: ${words}` : ''}`,
    })
  }
  return events
}

function sentence(text: string): string {
  return text === '' ? '' : `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
}
