import type { NetworkId, NodeId, RevisionId, TaskId, WorkloadId } from './ids.ts'
import type { ClusterNode } from './node.ts'
import type { ObjectMeta } from './object.ts'
import type { GenericResource } from './workload.ts'

/** One attempt at one place in a workload. It never changes node; its state only goes forward. */
export interface Task extends ObjectMeta<'task', TaskId> {
  readonly workloadId: WorkloadId
  readonly revisionId: RevisionId
  /** The place in a replicated workload, from 1 (jobs: from 0). Absent: one task a node (global). */
  readonly slot?: number
  /** Set by the orchestrator for one-per-node workloads: the only node that may run it. */
  readonly pinnedNodeId?: NodeId
  /** Set by the scheduler. */
  readonly nodeId?: NodeId
  readonly desiredState: DesiredState
  /** Why the desired state is what it is, in words for `service ps` and `explain`. */
  readonly desiredBecause?: string
  /** Asked to make way for a task on another node although its own is fine (rebalancing): why, in words. */
  readonly leaveBecause?: string
  readonly status: TaskStatus
  /** Whether endpoints send it traffic. Only `none` may be stopped. */
  readonly traffic: Traffic
  /** One per attached network, given out by the allocator. */
  readonly addresses: readonly TaskAddress[]
  /** Named or counted resources the scheduler gave it. */
  readonly genericResources: readonly GenericResource[]
  /** Carried from the task it replaces, so that policy needs no memory of deleted tasks. */
  readonly restarts: RestartRecord
  readonly jobIteration?: number
  /** Held at `ready` until then: the restart delay. */
  readonly startNotBeforeMs?: number
  /** Held at `ready` until this task has stopped: stop-first replacement. */
  readonly startAfterTaskId?: TaskId
}

export interface TaskAddress {
  readonly networkId: NetworkId
  /** Without prefix length: `10.0.1.7`. */
  readonly address: string
  /** Link-layer address derived from it, so that all nodes know it: `02:42:0a:00:01:07`. */
  readonly mac: string
}

/** In order. `complete` and later are terminal. */
const taskStates = [
  'new',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'remove',
  'orphaned',
] as const
export type TaskState = (typeof taskStates)[number]

/** `ready`: prepare and wait. `complete`: run to the end (jobs). `remove`: stop, then forget. */
export type DesiredState = 'ready' | 'running' | 'complete' | 'shutdown' | 'remove'

const stateRank = new Map<string, number>(taskStates.map((state, index) => [state, index]))

/** Position of a state in its life: a greater one is later. Also orders desired states. */
export function rankOf(state: TaskState | DesiredState): number {
  return stateRank.get(state) ?? 0
}

/** Whether the task has ended, whatever the outcome. */
export function isTerminal(state: TaskState): boolean {
  return rankOf(state) >= rankOf('complete')
}

/** Whether the task should not (or no longer) run. */
export function isStopWanted(task: Task): boolean {
  return task.desiredState === 'shutdown' || task.desiredState === 'remove'
}

/** A task that holds its place: neither ended nor asked to stop. */
export function isLive(task: Task): boolean {
  return !isTerminal(task.status.state) && !isStopWanted(task)
}

/** A task that may still have a container, and so holds its addresses, ports and reservations. */
export function holdsResources(task: Task): boolean {
  return !isTerminal(task.status.state)
}

export interface TaskStatus {
  readonly state: TaskState
  /** When this state was reached, by the clock of who reported it. */
  readonly atMs: number
  /** What is going on, in words: `preparing`, `started`, `pending task scheduling`. */
  readonly message: string
  /** What is wrong, in one sentence. While pending: why no node fits. */
  readonly error?: string
  readonly container?: ContainerStatus
  /** Passes its readiness check. Never true before `running`. */
  readonly ready: boolean
  /** When it first became ready. */
  readonly readyAtMs?: number
  /** How many times it has stopped being ready. Absent: never. */
  readonly unreadyCount?: number
  /** Host-mode ports the engine bound. */
  readonly hostPorts: readonly HostPort[]
}

export interface ContainerStatus {
  readonly containerId: string
  /** 0 when it does not run. */
  readonly pid: number
  readonly exitCode?: number
}

export interface HostPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly targetPort: number
  readonly publishedPort: number
}

/**
 * - `none`: gets no traffic: not ready yet, no endpoint, or drained.
 * - `routable`: in the sets of every endpoint over it.
 * - `draining`: leaving the sets; becomes `none` once every node that routes has acknowledged that it is out.
 */
export type Traffic = 'none' | 'routable' | 'draining'

export interface RestartRecord {
  /** Restarts of this place since the revision began. */
  readonly count: number
  /** Times of the latest ones, oldest first, at most `restartTimesMax`. */
  readonly timesMs: readonly number[]
  /** Failures in a row without having been ready for long: what the back-off grows with. */
  readonly failuresInRow: number
}
export const restartTimesMax = 64
export const noRestarts: RestartRecord = { count: 0, timesMs: [], failuresInRow: 0 }

/** `status.state` may only move forward; equal states take the newer details. */
export function acceptStatus(known: TaskStatus, reported: TaskStatus): TaskStatus {
  return rankOf(reported.state) >= rankOf(known.state) ? reported : known
}

/**
 * What a node tells of a task that failed while the node counted as down: it was lost with its node, mostly by a reboot. That is no
 * failure of its own, which a restart policy would count, and it is replaced as others of lost nodes are.
 */
export function lostWithNode(known: Task, told: TaskStatus, node: ClusterNode): TaskStatus {
  const { state, backSinceMs = Number.NEGATIVE_INFINITY } = node.status
  if (told.state !== 'failed') return told
  // Told again, it stays what it was taken for.
  if (isTerminal(known.status.state)) return known.status.state === 'shutdown' ? known.status : told
  if (state !== 'down' && told.atMs > backSinceMs) return told
  const why = told.error === undefined ? '' : `: ${told.error}`
  return { ...told, state: 'shutdown', error: `it ended while node ${node.name} was down${why}` }
}

/** A task that nobody will report on again: its node is gone. `error` says why. */
export function orphanedTask(task: Task, error: string, nowMs: number): Task {
  const status = { ...task.status, state: 'orphaned' as const, atMs: nowMs, ready: false, error }
  return { ...task, status: { ...status, message: 'orphaned' }, traffic: 'none' }
}
