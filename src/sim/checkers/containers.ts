import {
  type ClusterNode,
  isJob,
  isStopWanted,
  isTerminal,
  placementFits,
  type Revision,
  stateSinceMs,
  type Task,
  type WorkloadId,
} from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Host } from '../host.ts'
import type { Checker } from '../judge.ts'

/** A machine that was cut off, stopped or dead a short time ago may still have what nobody wants any more, in ms. */
const recoveryMs = 45_000
/** A policy that was changed a short time ago binds what was begun since, in ms. */
const policyMs = 120_000
/** How long a container may outlive the record of its task on a sound machine, in ms. */
const leftoverMs = 40_000

/** How long a machine that was called down may take to catch up once it is back, in ms. */
const catchUpMs = 5_000

/** Whether the machine's daemon has been able to do its part for a while. */
export function isSound(cluster: SimulatedCluster, host: Host, forMs = recoveryMs): boolean {
  return !isTroubled(cluster, host) && cluster.time.nowMs - host.troubledAtMs >= forMs
}

/** Whether something keeps the machine's daemon from doing its part right now. */
export function isTroubled(cluster: SimulatedCluster, host: Host): boolean {
  const daemon = cluster.daemons.get(host.name)
  const leader = cluster.leader
  return (
    !host.isUp ||
    host.isEngineAway ||
    !daemon?.process.isRunning ||
    (leader !== undefined && !cluster.network.areJoined(host.name, leader.process.name))
  )
}

/** Never more running containers for a slot than its policy allows, unless a machine is out of reach. */
export function containers(cluster: SimulatedCluster): Checker {
  const modeChangedAtMs = new Map<WorkloadId, number>()
  const goneAtMs = new Map<string, number>()
  const toldAtMs = new Map<string, number>()
  const leaving = new Set<string>()
  return {
    name: 'a slot runs what its policy allows',
    change({ before, after }) {
      if (before?.kind === 'task' && !after) goneAtMs.set(before.id, cluster.time.nowMs)
      if (after?.kind === 'task' && isStopWanted(after) && !toldAtMs.has(after.id))
        toldAtMs.set(after.id, cluster.time.nowMs)
      if (after?.kind === 'workload') modeChangedAtMs.set(after.id, cluster.time.nowMs)
      // It may be called down for less than a second.
      if (after?.kind === 'node' && after.status.state !== 'ready') {
        const host = cluster.hosts.find(({ nodeId }) => nodeId === after.id)
        if (host) host.troubledAtMs = cluster.time.nowMs
      }
      return undefined
    },
    second(view) {
      const { nowMs } = cluster.time
      const byPlace = new Map<string, { readonly task: Task; readonly host: Host }[]>()
      for (const host of cluster.hosts) {
        // Lost messages may be as good as a cut: it was called down, and others have taken over.
        const isCalledDown = view.get('node', host.nodeId)?.status.state !== 'ready'
        if (isTroubled(cluster, host) || isCalledDown) host.troubledAtMs = nowMs
        if (host.isRemoved || !isSound(cluster, host)) continue
        for (const taskId of host.engine.runningTasks()) {
          const task = view.get('task', taskId)
          if (!task) {
            const sinceMs = goneAtMs.get(taskId)
            if (
              sinceMs !== undefined &&
              nowMs - sinceMs >
                leftoverMs + (nowMs - cluster.ledSinceMs > recoveryMs ? 0 : recoveryMs)
            )
              return `a container of task ${taskId} runs on ${host.name} ${(nowMs - sinceMs) / 1000} s after the task was forgotten`
            continue
          }
          // A job that is started anew does not wait for what is left of the last time.
          const key = `${task.workloadId}/${task.slot ?? host.nodeId}/${task.jobIteration ?? ''}`
          const known = byPlace.get(key)
          if (known) known.push({ task, host })
          else byPlace.set(key, [{ task, host }])
        }
      }
      for (const all of byPlace.values()) {
        const [one] = all
        // Once it had to leave it may go on leaving, also where its node takes tasks again.
        for (const { task } of all) if (hasToLeave(view, task)) leaving.add(task.id)
        const isMove = all.some(({ task }) => leaving.has(task.id))
        const limit = one ? limitFor(view, one.task, nowMs, modeChangedAtMs, isMove) : 0
        // Where a new task may run beside an old one, a try that was given up may still be on its way out.
        const running =
          limit === 1 ? all : all.filter(({ task }) => !isLeaving(task, toldAtMs, nowMs))
        const [first] = running
        if (!first || running.length <= limit) continue
        const list = running.map(
          ({ task, host }) =>
            `${task.id} (${host.name}, ${task.status.state}, wants ${task.desiredState})`,
        )
        const service = view.get('workload', first.task.workloadId)?.name ?? first.task.workloadId
        return `${running.length} containers run for slot ${first.task.slot ?? first.host.name} of ${service}: ${list.join(', ')}`
      }
      return undefined
    },
  }
}

function isLeaving(task: Task, toldAtMs: ReadonlyMap<string, number>, nowMs: number): boolean {
  return isStopWanted(task) && nowMs - (toldAtMs.get(task.id) ?? 0) < leftoverMs
}

/** Whether a revision's tasks may be on a node: asked every second, of the same two objects mostly. */
const fitsByRevision = new WeakMap<Revision, WeakMap<ClusterNode, boolean>>()

function mayBeOn(node: ClusterNode, revision: Revision): boolean {
  let fitsByNode = fitsByRevision.get(revision)
  if (!fitsByNode) {
    fitsByNode = new WeakMap()
    fitsByRevision.set(revision, fitsByNode)
  }
  let fits = fitsByNode.get(node)
  if (fits === undefined) {
    fits = placementFits(node, revision.template.placement)
    fitsByNode.set(node, fits)
  }
  return fits
}

/** A task that has to leave its node serves until its successor does, whatever the order of updates. */
function hasToLeave(view: View, task: Task): boolean {
  const node = task.nodeId === undefined ? undefined : view.get('node', task.nodeId)
  const revision = view.get('revision', task.revisionId)
  if (task.leaveBecause !== undefined || node?.spec.availability === 'drain') return true
  return node !== undefined && revision !== undefined && !mayBeOn(node, revision)
}

/** Such a task's successor must not run beside it. */
function writesToNode(view: View, task: Task): boolean {
  const mounts = view
    .get('revision', task.revisionId)
    ?.template.containers.flatMap(({ mounts }) => mounts)
  return (mounts ?? []).some(
    ({ type, readOnly }) => !readOnly && (type === 'volume' || type === 'bind'),
  )
}

function limitFor(
  view: View,
  task: Task,
  nowMs: number,
  changed: ReadonlyMap<WorkloadId, number>,
  isMove: boolean,
): number {
  const workload = view.get('workload', task.workloadId)
  if (!workload) return 2
  const { update, rollback } = workload.spec
  if (isJob(workload.spec)) return 1
  const isRecent = nowMs - (changed.get(workload.id) ?? 0) < policyMs
  if (isMove && !writesToNode(view, task)) return 2
  return isRecent || update.order === 'startFirst' || rollback.order === 'startFirst' ? 2 : 1
}

/**
 * A task gets its stop signal only when no machine sends it connections any more, but those that were called down: not one whose
 * daemon was just started anew either, or whose engine does not answer. To one without an address (its service was on no
 * network when it began) none does, whatever lists it.
 */
export function stopsAfterTraffic(cluster: SimulatedCluster, viewOf: () => View) {
  return (host: Host, taskId: string): string | undefined => {
    const task = viewOf().get('task', taskId)
    if (!task || isTerminal(task.status.state) || !host.engine.runningTasks().includes(task.id))
      return undefined
    if (!isSound(cluster, host)) return undefined
    for (const other of cluster.hosts) {
      if (other.isRemoved || !other.isUp) continue
      // Nobody waits for one that was called down: it may be back before it has said so, or has been told.
      const node = viewOf().get('node', other.nodeId)
      if (node?.status.state !== 'ready') continue
      if (cluster.time.nowMs - stateSinceMs(node) < catchUpMs) continue
      const endpoint = other.kernel.desired.endpoints.find(({ backends }) =>
        backends.some(
          (backend) => backend.taskId === taskId && Object.keys(backend.addresses).length > 0,
        ),
      )
      if (endpoint)
        return `task ${taskId} on ${host.name} is stopped while ${other.name} still sends it connections to ${endpoint.name}`
    }
    return undefined
  }
}
