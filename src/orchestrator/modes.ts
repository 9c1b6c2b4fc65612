import { unreachable } from '../base/index.ts'
import {
  type ClusterNode,
  isStopWanted,
  isTerminal,
  type NodeId,
  placementFits,
  type Task,
} from '../model/index.ts'
import { bestOf, type Picture, type Place, placeAt, placesOf } from './picture.ts'
import { restReason } from './place.ts'

/** Which places a workload has, by its mode. */
export interface Places {
  /** To be filled, those without any task included. In order of slot, or of node. */
  readonly wanted: readonly Place[]
  /** Left alone: their node takes no new tasks, or may come back. */
  readonly frozen: readonly Place[]
  /** To be emptied, with the reason in words. */
  readonly unwanted: readonly {
    readonly place: Place
    readonly because: string
    /** Whether nothing of it is to be remembered. */
    readonly forget: boolean
  }[]
}

export function decidePlaces(picture: Picture): Places {
  const { spec } = picture.slice.workload
  switch (spec.mode.type) {
    case 'replicated':
      return replicatedPlaces(picture, spec.mode.replicas)
    case 'global':
    case 'globalJob':
      return nodePlaces(picture)
    case 'replicatedJob':
      return jobPlaces(picture, spec.mode.maxConcurrent, spec.mode.totalCompletions)
    default:
      return unreachable(spec.mode)
  }
}

/** Slots 1..N. Slots are counted, not tasks: during an update one slot may hold two. */
function replicatedPlaces(picture: Picture, replicas: number): Places {
  const placeBySlot = placesOf(picture, picture.slice.tasks)
  const occupied = [...placeBySlot.values()].filter((place) => isOccupied(picture, place))
  // Nothing to add, nothing to drop: the usual case.
  if (occupied.length === replicas && placeBySlot.size === replicas)
    return { wanted: occupied.sort(bySlot), frozen: [], unwanted: [] }
  const kept = new Set(
    occupied.length <= replicas ? occupied : rankForKeeping(picture, occupied).slice(0, replicas),
  )
  const wanted = [...kept]
  const taken = new Set(wanted.map(({ slot }) => slot))
  for (let slot = 1; wanted.length < replicas; slot++) {
    if (taken.has(slot)) continue
    const place = placeBySlot.get(slot) ?? placeAt(slot)
    kept.add(place)
    wanted.push(place)
  }
  const because = `scaled down to ${replicas}`
  return {
    wanted: wanted.sort(bySlot),
    frozen: [],
    unwanted: [...placeBySlot.values()]
      .filter((place) => !kept.has(place))
      .map((place) => ({ place, because, forget: true })),
  }
}

function isOccupied(picture: Picture, place: Place): boolean {
  return place.tasks.some((task) => !isStopWanted(task)) || restReason(picture, place) !== undefined
}

/**
 * Orders slots so that those to keep come first: up ones, then spread evenly over nodes (each slot is the n-th copy
 * on its node), then low slot numbers. A total order, so that equal slices keep equal slots.
 */
function rankForKeeping(picture: Picture, places: readonly Place[]): readonly Place[] {
  const ranked = places.map((place) => {
    const best = bestOf(picture, picture.liveAt(place))
    const nodeId = best?.nodeId
    const standing = best === undefined ? 3 : nodeId === undefined ? 2 : picture.isUp(best) ? 0 : 1
    return { place, nodeId, standing, copy: 0 }
  })
  ranked.sort((a, b) => a.standing - b.standing || bySlot(a.place, b.place))
  const copiesByNode = new Map<NodeId | undefined, number>()
  const numbered = ranked.map((entry) => {
    const copy = (copiesByNode.get(entry.nodeId) ?? 0) + 1
    copiesByNode.set(entry.nodeId, copy)
    return { ...entry, copy }
  })
  numbered.sort((a, b) => a.standing - b.standing || a.copy - b.copy || bySlot(a.place, b.place))
  return numbered.map(({ place }) => place)
}

function bySlot(a: Place, b: Place): number {
  return (a.slot ?? 0) - (b.slot ?? 0)
}

/** One place a node. A node that is paused, silent or lost keeps what it has: no other can have it. */
function nodePlaces(picture: Picture): Places {
  const { tasks, nodes } = picture.slice
  const { current, unwanted: old } = byIteration(picture, tasks)
  const placeByNode = placesOf(picture, current)
  const wanted: Place[] = []
  const frozen: Place[] = []
  const unwanted = [...old]
  for (const node of nodes.all()) {
    const place = placeByNode.get(node.id)
    placeByNode.delete(node.id)
    const refusal = refusalOf(picture, node, place)
    if (refusal === undefined) wanted.push(place ?? placeAt(node.id))
    else if (!place) continue
    else if (refusal.keeps) frozen.push(place)
    else unwanted.push({ place, because: refusal.because, forget: false })
  }
  for (const [nodeId, place] of placeByNode)
    unwanted.push({ place, because: `node ${nodeId} was removed`, forget: true })
  return { wanted, frozen, unwanted }
}

/** Why a node gets no task, in words, and whether it keeps the one it has. */
function refusalOf(
  picture: Picture,
  node: ClusterNode,
  place: Place | undefined,
): { readonly because: string; readonly keeps: boolean } | undefined {
  const { availability } = node.spec
  if (availability === 'drain') return { because: `node ${node.name} is drained`, keeps: false }
  if (!placementFits(node, picture.wanted.template.placement))
    return { because: `node ${node.name} does not meet the placement`, keeps: false }
  switch (node.status.state) {
    case 'down':
      return {
        because: `node ${node.name} is down`,
        keeps:
          picture.slice.workload.spec.onNodeLoss.type !== 'replace' ||
          (place !== undefined && picture.liveAt(place).length > 0),
      }
    case 'unknown':
    case 'disconnected':
      return { because: `node ${node.name} is ${node.status.state}`, keeps: true }
    case 'ready':
      return availability === 'pause'
        ? { because: `node ${node.name} is paused`, keeps: true }
        : undefined
    default:
      return unreachable(node.status.state)
  }
}

/** Slots 0..total-1, so many of them at work as may run at once; lowest first. */
function jobPlaces(picture: Picture, maxConcurrent: number, totalCompletions: number): Places {
  const { current, unwanted } = byIteration(picture, picture.slice.tasks)
  const placeBySlot = placesOf(picture, current)
  const places = [...placeBySlot.values()]
  const atWork = places.filter((place) => !isFinished(picture, place)).length
  let free = Math.min(maxConcurrent - atWork, totalCompletions - places.length)
  for (let slot = 0; free > 0; slot++) {
    if (placeBySlot.has(slot)) continue
    places.push(placeAt(slot))
    free -= 1
  }
  return { wanted: places.sort(bySlot), frozen: [], unwanted }
}

/** Complete, or given up. */
export function isFinished(picture: Picture, place: Place): boolean {
  if (place.tasks.some(({ status }) => status.state === 'complete')) return true
  return picture.liveAt(place).length === 0 && restReason(picture, place) !== undefined
}

/** A job's tasks of earlier iterations go altogether. */
function byIteration(
  picture: Picture,
  tasks: readonly Task[],
): { readonly current: readonly Task[]; readonly unwanted: Places['unwanted'] } {
  if (!picture.isJob) return { current: tasks, unwanted: [] }
  const wanted = picture.slice.workload.spec.jobIteration
  const isCurrent = (task: Task) => (task.jobIteration ?? 0) === wanted
  const old = tasks.filter((task) => !isCurrent(task))
  const because = 'the job was started anew'
  return {
    current: tasks.filter(isCurrent),
    unwanted: old.length === 0 ? [] : [{ place: { tasks: old }, because, forget: true }],
  }
}

/** Whether a task still has to be told to go. */
export function isToDismiss(task: Task, forget: boolean): boolean {
  if (isTerminal(task.status.state)) return false
  return forget ? task.desiredState !== 'remove' : !isStopWanted(task)
}
