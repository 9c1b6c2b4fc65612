import type { Task, TaskStatus } from '../model/index.ts'

/**
 * A status with its times in the leader's time. Nodes' clocks may be wrong by any amount, and policies compare these
 * times with the leader's own: what a node says happened before its last word, or after now, happened at the nearest
 * moment that can be. What was known before keeps its time, so that the same report again changes nothing.
 */
export function inLeaderTime(task: Task, reported: TaskStatus, nowMs: number): TaskStatus {
  const known = task.status
  const sinceMs = Math.min(nowMs, Math.max(task.createdAtMs, known.atMs))
  const within = (ms: number): number => Math.min(nowMs, Math.max(sinceMs, ms))
  const isKnown =
    known.state === reported.state &&
    known.message === reported.message &&
    known.error === reported.error &&
    known.ready === reported.ready
  const readyAtMs = known.readyAtMs ?? reported.readyAtMs
  return {
    ...reported,
    atMs: isKnown ? known.atMs : within(reported.atMs),
    ...(readyAtMs === undefined ? {} : { readyAtMs: known.readyAtMs ?? within(readyAtMs) }),
  }
}
