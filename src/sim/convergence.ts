import { isDeepEqual } from '../base/index.ts'
import {
  type ClusterNode,
  type Endpoint,
  isLive,
  isTerminal,
  type Task,
  type Workload,
} from '../model/index.ts'
import { explainWorkload, observeWorkload } from '../orchestrator/index.ts'
import type { View } from '../store/store.ts'
import type { SimulatedCluster } from './cluster.ts'
import type { Host } from './host.ts'
import type { ReplicatedState } from './replicated.ts'

/** How long after a restart delay a task may still be held, in ms. */
const wakeUpMs = 5_000

/** Why the cluster is not yet as declared, in words; undefined when it is. */
export function unconverged(cluster: SimulatedCluster, view: View): string | undefined {
  for (const node of view.list('node')) {
    if (node.status.state !== 'ready') return `node ${node.name} is ${node.status.state}`
    const what = cluster.replicated && standingLag(cluster.replicated, node)
    if (what !== undefined) return what
  }
  for (const workload of view.list('workload')) {
    const what = workloadLag(workload, view, cluster.leaderMs)
    if (what !== undefined) return what
  }
  for (const task of view.list('task')) {
    if (!view.get('workload', task.workloadId))
      return `task ${task.id} of a removed service is still ${task.status.state}`
    const node = task.nodeId && view.get('node', task.nodeId)
    if (!isTerminal(task.status.state) && task.nodeId !== undefined && !node)
      return `task ${task.id} is ${task.status.state} on a node that was removed`
    if (!isTerminal(task.status.state) && !isLive(task))
      return `task ${task.id} is still to stop: ${task.status.state}, traffic ${task.traffic}`
  }
  return hostLag(cluster, view)
}

/** Whether a node is the manager that it is to be, or none, in what everybody reads and in etcd itself. */
function standingLag(replicated: ReplicatedState, node: ClusterNode): string | undefined {
  const { name, spec, manager } = node
  const member = replicated.etcd
    .memberList()
    .find(({ memberId }) => replicated.hostOf(memberId)?.nodeId === node.id)
  if (spec.role === 'worker') {
    if (manager) return `node ${name} is to be a worker, and is still told as a manager`
    return member && `node ${name} is to be a worker, and its etcd still counts`
  }
  if (!member || member.learner)
    return `node ${name} is to be a manager, and its etcd does not count`
  return manager?.reachability === 'reachable'
    ? undefined
    : `manager ${name} is ${manager?.reachability ?? 'none'}`
}

function workloadLag(workload: Workload, view: View, nowMs: number): string | undefined {
  const { name, spec, status } = workload
  const tasks = view.tasksOfWorkload(workload.id)
  const slice = observeWorkload(view, workload.id)
  if (!slice) return undefined
  const isHeldUp = isBlocked(tasks) || tasks.some((task) => isLastTry(task, workload, view))
  const isPaused = status.update?.state === 'paused' || status.update?.state === 'rollbackPaused'
  if (
    !isPaused &&
    status.update &&
    /updating|rollbackStarted/.test(status.update.state) &&
    !isHeldUp
  )
    return `${name} is still ${status.update.state}: ${status.update.waitingFor ?? ''}`
  const live = tasks.filter(isLive)
  for (const task of live) {
    const { state, error } = task.status
    // Nothing fits, and it says so.
    if (state === 'pending' && error !== undefined) continue
    if (state === 'new' && error !== undefined) continue
    if (state !== 'running' || !task.status.ready) {
      const isHeld = task.desiredState === 'ready' && state === 'ready'
      if (isHeld && (task.startNotBeforeMs ?? nowMs) > nowMs - wakeUpMs) continue
      return `task ${task.id} of ${name} is ${state}, wants ${task.desiredState}`
    }
    if (slice.hasEndpoint && task.traffic !== 'routable')
      return `task ${task.id} of ${name} gets no traffic`
    if (
      !isPaused &&
      !isHeldUp &&
      spec.mode.type !== 'replicatedJob' &&
      spec.mode.type !== 'globalJob'
    ) {
      const revision = view.get('revision', task.revisionId)
      const wanted = view.get('revision', spec.revisionId)
      if (revision?.templateHash !== wanted?.templateHash && !isPlacementOnly(revision, wanted))
        return `task ${task.id} of ${name} runs an old revision`
    }
  }
  if (spec.mode.type === 'replicated') {
    const slots = new Set(live.map(({ slot }) => slot))
    const { replicas } = spec.mode
    if (slots.size > replicas) return `${name} has ${slots.size} slots instead of ${replicas}`
    if (slots.size < replicas && explainWorkload(slice, nowMs).reasons.length === 0)
      return `${name} has ${slots.size} of ${replicas} slots, without a reason`
    if (slots.size < replicas && !hasRestedSlots(tasks, slots))
      return `${name} has ${slots.size} of ${replicas} slots`
  }
  return undefined
}

function isPlacementOnly(a: unknown, b: unknown): boolean {
  return a !== undefined && b !== undefined && !isDeepEqual(a, b)
}

/** A task that cannot be placed holds up the update it belongs to. */
function isBlocked(tasks: readonly Task[]): boolean {
  return tasks.some(
    (task) =>
      isLive(task) &&
      (task.status.state === 'pending' || task.status.state === 'new') &&
      task.status.error !== undefined,
  )
}

/** What an update tried failed, and its restart policy allows no other try: the old task goes on, which it says. */
function isLastTry(task: Task, { spec, status }: Workload, view: View): boolean {
  const wanted = view.get('revision', spec.revisionId)
  return (
    isTerminal(task.status.state) &&
    (task.desiredBecause ?? '').startsWith('not restarted') &&
    task.createdAtMs >= (status.update?.startedAtMs ?? 0) &&
    view.get('revision', task.revisionId)?.templateHash === wanted?.templateHash
  )
}

/** Slots without a live task whose last one ended by itself: their restart policy leaves them at rest. */
function hasRestedSlots(tasks: readonly Task[], live: ReadonlySet<number | undefined>): boolean {
  return tasks.some(
    ({ slot, status }) =>
      !live.has(slot) && ['complete', 'failed', 'rejected'].includes(status.state),
  )
}

/** Machines against what is declared: containers, and the sets that traffic is sent by. */
function hostLag(cluster: SimulatedCluster, view: View): string | undefined {
  for (const host of cluster.hosts) {
    if (host.isRemoved || !view.get('node', host.nodeId)) continue
    const running = new Set(host.engine.runningTasks())
    for (const task of view.tasksOfNode(host.nodeId)) {
      if (task.status.state === 'running' && !running.delete(task.id))
        return `task ${task.id} is running in the store, but not on ${host.name}`
    }
    for (const id of running) {
      const state = view.get('task', id)?.status.state
      return `a container of task ${id} (${state ?? 'forgotten'}) runs on ${host.name}`
    }
    const left = host.engine.knownTasks().find((id) => !view.get('task', id))
    if (left) return `${host.name} keeps a container of task ${left}, which nobody knows any more`
    const known = new Map(host.kernel.desired.endpoints.map((endpoint) => [endpoint.id, endpoint]))
    for (const endpoint of view.list('endpoint')) {
      const own = known.get(endpoint.id)
      known.delete(endpoint.id)
      if (!isToRoute(view, host, endpoint)) {
        if (own) return `${host.name} routes to ${endpoint.name}, which it need not`
        continue
      }
      const wanted = endpoint.spec.backends.flatMap(({ workloadId }) =>
        view
          .tasksOfWorkload(workloadId)
          .filter(({ traffic }) => traffic === 'routable')
          .map(({ id }) => id),
      )
      const sent = (own?.backends ?? []).map(({ taskId }) => taskId)
      if (!isDeepEqual(sent.sort(), wanted.sort()))
        return `${host.name} sends connections of ${endpoint.name} to ${words(sent)} instead of ${words(wanted)}`
    }
    const [gone] = known.values()
    if (gone) return `${host.name} still routes to ${gone.name}, which is gone`
  }
  return undefined
}

function words(ids: readonly string[]): string {
  return ids.length === 0 ? 'nobody' : ids.map((id) => id.slice(0, 6)).join(', ')
}

/** Every machine takes connections to published ports; other endpoints are reached from their networks. */
function isToRoute(view: View, host: Host, { spec }: Endpoint): boolean {
  if (spec.ports.some(({ publishMode }) => publishMode === 'ingress')) return true
  const networks = new Set(
    view
      .tasksOfNode(host.nodeId)
      .filter(({ status }) => !isTerminal(status.state))
      .flatMap(({ addresses }) => addresses.map(({ networkId }) => networkId)),
  )
  return spec.networks.some(({ networkId }) => networks.has(networkId))
}
