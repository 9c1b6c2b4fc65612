/** What `stop-after` asks of a node that hears no manager. */
export interface Fence {
  /** When tasks with this limit are stopped if no manager is heard before. Absent: nothing is to be stopped. */
  readonly atMs?: number
  readonly isOver: boolean
}

/**
 * Decides whether a node has been without a manager for so long that it stops a task by itself. The managers start another
 * one only some time after that, so of a single task there are never two. Pure.
 *
 * `heardAtMs`: when a manager was last in reach, in time that goes on over restarts of the agent; `isInReach`: one is now.
 */
export function decideStopAfter(
  stopAfterMs: number | undefined,
  { heardAtMs, isInReach }: { readonly heardAtMs: number; readonly isInReach: boolean },
  nowMs: number,
): Fence {
  if (stopAfterMs === undefined || isInReach) return { isOver: false }
  const atMs = heardAtMs + stopAfterMs
  return { atMs, isOver: atMs <= nowMs }
}
