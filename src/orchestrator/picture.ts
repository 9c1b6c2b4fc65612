import { isDeepEqual, unreachable } from '../base/index.ts'
import {
  availabilitySinceMs,
  type ClusterNode,
  type ContainerSpec,
  type Endpoint,
  isJob,
  isLive,
  isStopWanted,
  isTerminal,
  matchesConstraints,
  type NodeId,
  type Revision,
  type RevisionId,
  rankOf,
  stateSinceMs,
  type Task,
  type TaskId,
  type UpdatePolicy,
  type UpdateStatus,
} from '../model/index.ts'
import { seconds } from './restart-policy.ts'
import type { WorkloadSlice } from './slice.ts'

/** How long a node may be down before its tasks are given up for good, in ms. */
export const orphanAfterMs = 24 * 3_600_000
/** What a lost agent gets beyond `stop-after` and the stop grace to have stopped its tasks by itself, in ms. */
const stopAfterMarginMs = 10_000

/** A place in a workload: a slot, or a node of a one-per-node workload, with all tasks that were ever there. */
export interface Place {
  readonly slot?: number
  readonly nodeId?: NodeId
  /** In order of creation. */
  readonly tasks: readonly Task[]
}

/** Where a change of the template stands. */
export type Phase = 'rolling' | 'paused' | 'settled'

/** What follows from a slice at a time, computed once and asked by every rule. */
export class Picture {
  readonly slice: WorkloadSlice
  readonly nowMs: number
  readonly wanted: Revision
  readonly isJob: boolean
  readonly isOnePerNode: boolean
  /** The update under way or last done, if it is the one to the wanted revision. */
  readonly update: UpdateStatus | undefined
  readonly phase: Phase
  readonly isRollback: boolean
  /** Of the update or rollback under way. */
  readonly policy: UpdatePolicy
  /**
   * Whether the old task is stopped before the new one starts. With a fixed host port it has to be: both can't
   * have the port of one node.
   */
  readonly isStopFirst: boolean
  readonly #liveByPlace = new Map<Place, readonly Task[]>()
  readonly #keeperByPlace = new Map<Place, Task | undefined>()
  #taskById: ReadonlyMap<TaskId, Task> | undefined
  readonly #likeness = new Map<RevisionId, Likeness>()

  constructor(slice: WorkloadSlice, wanted: Revision, nowMs: number) {
    this.slice = slice
    this.wanted = wanted
    this.nowMs = nowMs
    const { type } = slice.workload.spec.mode
    this.isJob = isJob(slice.workload.spec)
    this.isOnePerNode = type === 'global' || type === 'globalJob'
    const { spec, status } = slice.workload
    this.update = status.update?.revisionId === spec.revisionId ? status.update : undefined
    this.phase = phaseOf(this.update?.state)
    this.isRollback = this.update?.state.startsWith('rollback') ?? false
    this.policy = this.isRollback ? spec.rollback : spec.update
    this.isStopFirst =
      this.isJob || this.policy.order === 'stopFirst' || slice.endpoints.some(hasHostPort)
  }

  static of(slice: WorkloadSlice, nowMs: number): Picture | undefined {
    const wanted = slice.revisions.get(slice.workload.spec.revisionId)
    return wanted && new Picture(slice, wanted, nowMs)
  }

  /** Its tasks that count: neither ended, nor asked to stop, nor lost. */
  liveAt(place: Place): readonly Task[] {
    let live = this.#liveByPlace.get(place)
    if (live === undefined) {
      live = place.tasks.filter((task) => isLive(task) && this.lossOf(task).because === undefined)
      this.#liveByPlace.set(place, live)
    }
    return live
  }

  /** It has just been decided that one of them stops. */
  leaves(place: Place, task: Task): void {
    this.#liveByPlace.set(
      place,
      this.liveAt(place).filter((other) => other !== task),
    )
  }

  /** The live task that the place settles on: one of the wanted revision; while an update is paused, any. */
  keeperAt(place: Place): Task | undefined {
    const known = this.#keeperByPlace.get(place)
    if (known || this.#keeperByPlace.has(place)) return known
    const staying = this.liveAt(place).filter((task) => this.moveOf(task) === undefined)
    const clean = staying.filter((task) => this.isClean(task))
    const keeper =
      bestOf(this, clean) ?? (this.phase === 'paused' ? bestOf(this, staying) : undefined)
    this.#keeperByPlace.set(place, keeper)
    return keeper
  }

  /** Looked up only where one task waits for another, so the map is made when it is asked for. */
  taskOf(id: TaskId): Task | undefined {
    this.#taskById ??= new Map(this.slice.tasks.map((task) => [task.id, task]))
    return this.#taskById.get(id)
  }

  nodeOf(task: Task): ClusterNode | undefined {
    const id = task.nodeId ?? task.pinnedNodeId
    return id === undefined ? undefined : this.slice.nodes.get(id)
  }

  revisionOf(task: Task): Revision | undefined {
    return this.slice.revisions.get(task.revisionId)
  }

  /** Whether the task runs what is wanted, or differs only in a placement that its node satisfies. */
  isClean(task: Task): boolean {
    if (this.isJob) return true
    const likeness = this.#likenessOf(task.revisionId)
    if (likeness !== 'placementOnly') return likeness === 'same'
    const node = this.nodeOf(task)
    return (
      node !== undefined && matchesConstraints(node, this.wanted.template.placement.constraints)
    )
  }

  #likenessOf(id: RevisionId): Likeness {
    let likeness = this.#likeness.get(id)
    if (likeness === undefined) {
      likeness = compareRevisions(this.slice.revisions.get(id), this.wanted)
      this.#likeness.set(id, likeness)
    }
    return likeness
  }

  /** Ready, and in the sets of its endpoints if it has any. */
  isUp(task: Task): boolean {
    return (
      task.status.state === 'running' &&
      task.status.ready &&
      (!this.slice.hasEndpoint || task.traffic === 'routable')
    )
  }

  /** Why the task counts as gone although it has not ended, or when it will. */
  lossOf(task: Task): Loss {
    if (isTerminal(task.status.state)) return {}
    const id = task.nodeId ?? task.pinnedNodeId
    if (id === undefined) return {}
    const node = this.slice.nodes.get(id)
    if (!node) return { because: `node ${id} was removed` }
    if (node.status.state !== 'down') return {}
    const because = `node ${node.name} is down`
    const { onNodeLoss } = this.slice.workload.spec
    switch (onNodeLoss.type) {
      case 'replace':
        // No other node can take it: one that was only cut off, or whose daemon was away, goes on with what it has.
        if (this.isOnePerNode) {
          return { waits: `${because}, and its task is kept for when it comes back (one a node)` }
        }
        return { because }
      case 'keep':
        return {
          waits: `${because}, and its task is kept for when it comes back (skep.failure=keep)`,
        }
      case 'stopAfter': {
        // The agent counts from its last word with a manager, which is earlier; then it has to stop the task.
        const atMs =
          stateSinceMs(node) + onNodeLoss.afterMs + this.stopGraceMs(task) + stopAfterMarginMs
        if (atMs <= this.nowMs) return { because }
        const left = seconds(atMs - this.nowMs)
        return {
          atMs,
          waits: `${because}; its agent stops the task by itself, and a new one follows in ${left} (skep.failure=stop-after)`,
        }
      }
      default:
        return unreachable(onNodeLoss)
    }
  }

  /** Why a running task has to leave its (healthy) node, in words. One-per-node tasks don't move, they stop. */
  moveReason(task: Task): string | undefined {
    return this.moveOf(task)?.because
  }

  moveOf(task: Task): Move | undefined {
    if (this.isOnePerNode || task.nodeId === undefined) return undefined
    const node = this.slice.nodes.get(task.nodeId)
    if (!node) return undefined
    if (node.spec.availability === 'drain')
      return { because: `node ${node.name} is drained`, sinceMs: availabilitySinceMs(node) }
    const own = this.revisionOf(task)
    const fits = (revision: Revision) =>
      matchesConstraints(node, revision.template.placement.constraints)
    const hasToGo = own && !fits(own) && (this.#likenessOf(own.id) === 'same' || !fits(this.wanted))
    if (hasToGo) {
      const because = `node ${node.name} no longer meets the placement constraints`
      return { because, sinceMs: node.updatedAtMs }
    }
    return task.leaveBecause === undefined ? undefined : { because: task.leaveBecause }
  }

  /**
   * Whether a task that moves is stopped before its successor starts. On another node neither ports nor limits are in
   * the way; but two tasks must not write to the same data, and a job's must not run twice.
   */
  movesStopFirst(task: Task): boolean {
    return this.isJob || (this.revisionOf(task)?.template.containers.some(keepsData) ?? false)
  }

  stopGraceMs(task: Task): number {
    const containers = this.revisionOf(task)?.template.containers ?? []
    return Math.max(0, ...containers.map(({ stopGraceMs }) => stopGraceMs))
  }
}

/** Why a task has to leave its node; with `sinceMs` the node has to be left for good, and waits only so long. */
interface Move {
  readonly because: string
  readonly sinceMs?: number
}

interface Loss {
  readonly because?: string
  /** When it will count as gone if nothing changes. */
  readonly atMs?: number
  /** Why it does not count as gone yet although its node is, in words. */
  readonly waits?: string
}

type Likeness = 'same' | 'placementOnly' | 'different'

function compareRevisions(one: Revision | undefined, wanted: Revision): Likeness {
  if (one === undefined) return 'different'
  if (one.id === wanted.id) return 'same'
  // The hash is that of all but the placement.
  const samePlacement = isDeepEqual(one.template.placement, wanted.template.placement)
  if (one.templateHash === wanted.templateHash) return samePlacement ? 'same' : 'placementOnly'
  const beside = ({ template, declared }: Revision) => ({
    template: { ...template, placement: undefined },
    ports: declared?.endpoint.ports,
    mode: declared?.endpoint.mode,
  })
  // If the placement is the same too, the hashes differ for something that can't be seen here.
  return !samePlacement && isDeepEqual(beside(one), beside(wanted)) ? 'placementOnly' : 'different'
}

function phaseOf(state: UpdateStatus['state'] | undefined): Phase {
  switch (state) {
    case 'updating':
    case 'rollbackStarted':
      return 'rolling'
    case 'paused':
    case 'rollbackPaused':
      return 'paused'
    case 'completed':
    case 'rollbackCompleted':
    case undefined:
      return 'settled'
    default:
      return unreachable(state)
  }
}

/** Writes to a named volume or a folder of the host: data of which only one task may be the owner. */
export function keepsData({ mounts }: ContainerSpec): boolean {
  return mounts.some((mount) => {
    if (mount.readOnly || mount.type === 'tmpfs') return false
    return mount.type === 'bind' ? !isSocket(mount.source) : mount.source !== ''
  })
}

/** Tools mount the engine's socket: nothing is written there. */
function isSocket(path: string): boolean {
  return path.endsWith('.sock')
}

function hasHostPort({ spec }: Endpoint): boolean {
  return spec.ports.some((port) => port.publishMode === 'host' && port.publishedPort !== 0)
}

/** Asked to stop, not yet stopped, and possibly with a container. */
export function stoppingTasks(picture: Picture, place: Place): readonly Task[] {
  return place.tasks.filter((task) => isStopWanted(task) && mayRun(picture, task))
}

/** Whether a task may have a container on a node that still answers. */
export function mayRun(picture: Picture, task: Task): boolean {
  if (isTerminal(task.status.state) || rankOf(task.status.state) < rankOf('assigned')) return false
  const node = picture.nodeOf(task)
  return node !== undefined && node.status.state !== 'down'
}

/** The one to keep of several: up before not, further on before behind, then the older. */
export function bestOf(picture: Picture, tasks: readonly Task[]): Task | undefined {
  let best: Task | undefined
  for (const task of tasks) if (!best || merit(picture, task) > merit(picture, best)) best = task
  return best
}

function merit(picture: Picture, task: Task): number {
  return (picture.isUp(task) ? 100 : 0) + rankOf(task.status.state)
}

/** Groups tasks by slot, or by node in one-per-node workloads. Places without tasks are not in it. */
export function placesOf(picture: Picture, tasks: readonly Task[]): Map<number | NodeId, Place> {
  const tasksByKey = new Map<number | NodeId, Task[]>()
  for (const task of tasks) {
    const key = picture.isOnePerNode ? (task.pinnedNodeId ?? task.nodeId) : task.slot
    if (key === undefined) continue
    const known = tasksByKey.get(key)
    if (known) known.push(task)
    else tasksByKey.set(key, [task])
  }
  const placeByKey = new Map<number | NodeId, Place>()
  for (const [key, own] of tasksByKey) placeByKey.set(key, placeAt(key, own))
  return placeByKey
}

export function placeAt(key: number | NodeId, tasks: readonly Task[] = []): Place {
  return typeof key === 'number' ? { slot: key, tasks } : { nodeId: key, tasks }
}
