import { unreachable } from '../base/index.ts'
import type { NodeId } from '../model/index.ts'

/** How often nodes speak, and how long they may be silent. All in ms. */
export interface LivenessLimits {
  /** Between two heartbeats of a node. */
  readonly heartbeatMs: number
  /** Silence after which a node is down. */
  readonly silenceMs: number
  /** Between two looks of the watcher. */
  readonly lookMs: number
  /** What a node gets to come back whose daemon ended without a word: it was killed. */
  readonly returnMs: number
  /** What a node gets to come back whose daemon said that it stops: it is started again, or updated. */
  readonly restartMs: number
  /** What nodes get to come back after the watcher itself was away, or has just begun. */
  readonly graceMs: number
}

const heartbeatMsMin = 500
/** A link that flaps for a second, and TCP that waits twice as long before it sends again, is no loss. */
const silenceMsMin = 3_000
const lookMs = 250
/** A daemon that its host starts again at once says within a second or two that it is there. */
const returnMsMin = 4_000
const restartMs = 15_000
const graceMsMin = 8_000
/** What the leader before gets in any case to find this one: it may have lost its lease and nothing else. */
const predecessorMsMin = 1_000
/** Nodes whose heartbeats a manager takes in a millisecond of its time, and whose sessions it opens anew in one. */
const heartbeatsPerMs = 1
const sessionsPerMs = 0.1

/**
 * The period grows with the cluster: half a second up to 500 nodes, then a millisecond for each, so that a manager
 * hears at most a thousand a second. `periodMsMax` is the cluster's own setting (`--dispatcher-heartbeat`, 5 s).
 */
export function livenessLimits(nodeCount: number, periodMsMax: number): LivenessLimits {
  const grown = Math.max(heartbeatMsMin, Math.ceil(nodeCount / heartbeatsPerMs))
  const heartbeatMs = Math.max(100, Math.min(grown, periodMsMax))
  const silenceMs = Math.max(silenceMsMin, 3 * heartbeatMs)
  return {
    heartbeatMs,
    silenceMs,
    lookMs,
    returnMs: Math.max(returnMsMin, silenceMs),
    restartMs: Math.max(restartMs, silenceMs),
    graceMs: Math.max(graceMsMin, 2 * silenceMs) + Math.ceil(nodeCount / sessionsPerMs),
  }
}

/**
 * Time as the watcher lived it: a span in which it did not run (a stalled event loop, a stopped process, a suspended
 * host) counts as one look, however long it was. Silence is measured in it, since nobody can be heard meanwhile.
 */
export interface Watch {
  readonly awakeMs: number
  readonly lookedAtMs: number
  /** In awake time: nobody is called down before. */
  readonly graceUntilMs: number
  /** When that began. Who has begun a session since is known to be there, and gets no more time than ever. */
  readonly graceSinceMs: number
  /** One that has a grace of its own, as long as the watcher was there all the time. */
  readonly early?: { readonly nodeId: NodeId; readonly graceUntilMs: number }
}

/** How a node's session ended, or whether it just fell silent. */
export type SessionEnd = 'silent' | 'ended' | 'stopping'

/** The leader before, as the one after it has listened to it. */
export interface Predecessor {
  readonly nodeId: NodeId
  /** Since it was heard last, or its session ended, in ms. */
  readonly sinceMs: number
  readonly end: SessionEnd
}

/** A fresh leader has heard nobody yet, but it has listened to the one before. */
export function beginWatch(
  nowMs: number,
  { graceMs }: LivenessLimits,
  predecessor?: Predecessor,
): Watch {
  return {
    awakeMs: 0,
    lookedAtMs: nowMs,
    graceUntilMs: graceMs,
    graceSinceMs: 0,
    ...(predecessor && {
      early: { nodeId: predecessor.nodeId, graceUntilMs: predecessorMsMin },
    }),
  }
}

/** How long a node may stay away from now on, by how it went. */
export function allowedMs(end: SessionEnd, limits: LivenessLimits): number {
  switch (end) {
    case 'silent':
      return limits.silenceMs
    case 'ended':
      return limits.returnMs
    case 'stopping':
      return limits.restartMs
    default:
      return unreachable(end)
  }
}

/** The watch after another look. */
export function lookAgain(watch: Watch, nowMs: number, limits: LivenessLimits): Watch {
  const passedMs = nowMs - watch.lookedAtMs
  const awakeMs = watch.awakeMs + Math.max(0, Math.min(passedMs, 2 * limits.lookMs))
  // Away for longer than nodes wait for an answer: they have given up their sessions and look for a manager now.
  const wasAway = passedMs > limits.silenceMs / 2
  if (!wasAway) return { ...watch, awakeMs, lookedAtMs: nowMs }
  const graceUntilMs = Math.max(watch.graceUntilMs, awakeMs + limits.graceMs)
  return { awakeMs, lookedAtMs: nowMs, graceUntilMs, graceSinceMs: awakeMs }
}

/** A node that should be there. */
export interface WatchedNode {
  readonly nodeId: NodeId
  /** When it was last heard, in awake time; later than now: how long it has time to come at all. */
  readonly heardAtMs: number
  /** When its last session began, in awake time. Absent: it has had none with this watcher. */
  readonly openedAtMs?: number
}

/** Decides which nodes are down: those silent for too long of the time in which they could have been heard. */
export function decideLiveness(
  nodes: Iterable<WatchedNode>,
  watch: Watch,
  { silenceMs }: LivenessLimits,
): readonly NodeId[] {
  const { awakeMs, early, graceSinceMs } = watch
  const isGrace = awakeMs < watch.graceUntilMs
  const isEarly = isGrace && awakeMs >= (early?.graceUntilMs ?? Number.POSITIVE_INFINITY)
  const down: NodeId[] = []
  for (const { nodeId, heardAtMs, openedAtMs } of nodes) {
    const isKnown = openedAtMs !== undefined && openedAtMs >= graceSinceMs
    if (isGrace && !isKnown && !(isEarly && nodeId === early?.nodeId)) continue
    if (awakeMs - heardAtMs >= silenceMs) down.push(nodeId)
  }
  return down
}
