import type {
  DesiredState,
  NodeId,
  RestartRecord,
  RevisionId,
  TaskId,
  UpdateStatus,
} from '../model/index.ts'

/** What a decision asks for. `because` is words for people. */
export type Action =
  | CreateTask
  | {
      readonly type: 'setDesired'
      readonly taskId: TaskId
      readonly desiredState: DesiredState
      readonly because: string
    }
  /** Nobody will ever report on the task again: its node is gone. */
  | { readonly type: 'orphanTask'; readonly taskId: TaskId; readonly error: string }
  | { readonly type: 'deleteTask'; readonly taskId: TaskId }
  | { readonly type: 'setUpdate'; readonly update: UpdateStatus }
  /** Makes the revision the declared one again: template, mode, policies, labels and endpoint. */
  | { readonly type: 'rollBack'; readonly revisionId: RevisionId; readonly update: UpdateStatus }
  /** What was to be there before the first task is. */
  | { readonly type: 'meetStartOrder' }
  | { readonly type: 'markHealthy'; readonly revisionId: RevisionId }
  | { readonly type: 'deleteRevision'; readonly revisionId: RevisionId }

export interface CreateTask {
  readonly type: 'createTask'
  readonly slot?: number
  readonly pinnedNodeId?: NodeId
  readonly revisionId: RevisionId
  readonly desiredState: 'ready' | 'running' | 'complete'
  readonly because: string
  readonly restarts: RestartRecord
  readonly jobIteration?: number
  readonly startNotBeforeMs?: number
  readonly startAfterTaskId?: TaskId
}

/** What should change, and when to look again although nothing happened. */
export interface Decision {
  readonly actions: readonly Action[]
  readonly wakeAtMs?: number
}

/** A decision in the making. */
export class Plan {
  readonly actions: Action[] = []
  #wakeAtMs: number | undefined

  add(...actions: readonly Action[]): void {
    this.actions.push(...actions)
  }

  /** Asks to look again at a time; the earliest one asked for counts. */
  wakeAt(atMs: number): void {
    if (this.#wakeAtMs === undefined || atMs < this.#wakeAtMs) this.#wakeAtMs = atMs
  }

  decision(): Decision {
    return this.#wakeAtMs === undefined
      ? { actions: this.actions }
      : { actions: this.actions, wakeAtMs: this.#wakeAtMs }
  }
}
