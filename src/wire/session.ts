import { UserError } from '../base/index.ts'
import type { NodeDescription, NodeId, TaskId, TaskStatus } from '../model/index.ts'
import type { AssignmentChange } from './assignment.ts'
import type { HeldFeeds } from './feed.ts'

/** A task's state as its node sees it. */
export interface TaskReport {
  readonly taskId: TaskId
  readonly status: TaskStatus
}

/** An agent's standing with the leader: in process on a manager, over mTLS elsewhere. */
export interface Session {
  /** The next change of assignments, coalesced; the first is full. Rejects when the session is over. */
  next(signal: AbortSignal): Promise<AssignmentChange>
  /**
   * The data plane of this node reflects every change that this session told up to the one with `sequence`: no new
   * connection is sent to a task that was not routable then.
   */
  acknowledge(sequence: number): void
  /** Resolves once the reports are durable. Unknown tasks are ignored. */
  report(reports: readonly TaskReport[]): Promise<void>
  describe(description: NodeDescription): Promise<void>
  close(): void
}

/** Why a session is over where nobody says more. */
export function sessionOver(): UserError {
  return new UserError('unavailable', 'the session with the manager is over')
}

/** How an agent finds the leader. */
export interface ManagerLink {
  /** `held`: what the node knows from a session before, and is not told again. It applies the first change to that. */
  open(
    nodeId: NodeId,
    description: NodeDescription,
    signal: AbortSignal,
    held?: HeldFeeds,
  ): Promise<Session>
}

export interface LogOptions {
  readonly stdout: boolean
  readonly stderr: boolean
  readonly follow: boolean
  /** Lines from the end; `all` otherwise. */
  readonly tail: number | 'all'
  readonly sinceMs?: number
  readonly untilMs?: number
}
export interface LogLine {
  readonly taskId: TaskId
  readonly nodeId: NodeId
  readonly stream: 'stdout' | 'stderr'
  /** RFC 3339 with nanoseconds. */
  readonly timestamp: string
  /** Log driver's own attributes (`--log-opt labels`). */
  readonly details: Readonly<Record<string, string>>
  /** Without the newline's addition: as the container wrote it. */
  readonly data: Uint8Array
}

/** Where logs of tasks are read, on whichever node they are. */
export interface LogSource {
  /** Ends when the logs end (without follow), when `signal` aborts, or when the task's container is gone. */
  logs(taskId: TaskId, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine>
}
