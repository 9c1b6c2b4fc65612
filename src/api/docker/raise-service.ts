import type { Endpoint, NodeId, Task, UpdateStatus, Workload } from '../../model/index.ts'
import { isJob, isStopWanted } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { ServiceSpecDocument } from './documents.ts'
import { documentOf, meta, raisePort, time } from './raise.ts'

export interface ServiceReading {
  /** Fill in what was left unset. */
  readonly insertDefaults: boolean
  /** Count its tasks: `nodesUp(view)`. */
  readonly status?: ReadonlySet<NodeId> | undefined
}

/** Workloads of other dialects are not services: their documents mean nothing to a Docker client. */
export function isService({ source }: Workload): boolean {
  return source.dialect === 'docker'
}

export function raiseService(view: View, workload: Workload, reading: ServiceReading): object {
  const { spec, status } = workload
  const previous = spec.previousRevisionId && view.get('revision', spec.previousRevisionId)
  const [endpoint] = view.endpointsOfWorkload(workload.id)
  const document = specOf(view, workload)
  return {
    ...meta(workload),
    Spec: reading.insertDefaults ? insertDefaults(document) : document,
    ...(previous ? { PreviousSpec: documentOf(previous.source) } : {}),
    Endpoint: raiseEndpoint(view, endpoint, document),
    ...(status.update ? { UpdateStatus: raiseUpdate(status.update) } : {}),
    ...(reading.status ? { ServiceStatus: countTasks(view, workload, reading.status) } : {}),
    ...(isJob(spec)
      ? {
          JobStatus: {
            JobIteration: { Index: spec.jobIteration },
            ...(status.lastExecutionMs === undefined
              ? {}
              : { LastExecution: time(status.lastExecutionMs) }),
          },
        }
      : {}),
  }
}

/** The wanted revision's document: a rollback by the orchestrator changes the revision and nothing else. */
export function specOf(view: View, workload: Workload): ServiceSpecDocument {
  const revision = view.get('revision', workload.spec.revisionId)
  const empty = { Labels: {}, TaskTemplate: { ForceUpdate: 0 }, Mode: {} }
  return { ...empty, ...documentOf(revision?.source ?? workload.source) }
}

function raiseEndpoint(
  view: View,
  endpoint: Endpoint | undefined,
  { EndpointSpec = {} }: ServiceSpecDocument,
): object {
  const { ports, vips } = endpoint?.status ?? { ports: [], vips: [] }
  if (ports.length === 0 && vips.length === 0) return { Spec: {} }
  return {
    Spec: { Mode: 'vip', ...EndpointSpec },
    ...(ports.length > 0 ? { Ports: ports.map(raisePort) } : {}),
    ...(vips.length > 0
      ? {
          VirtualIPs: vips.map(({ networkId, address }) => ({
            NetworkID: networkId,
            Addr: withPrefix(address, view.get('network', networkId)?.status.subnet),
          })),
        }
      : {}),
  }
}

/** `10.0.1.7` on `10.0.1.0/24` is `10.0.1.7/24`. */
export function withPrefix(address: string, subnet: string | undefined): string {
  const length = subnet?.split('/')[1]
  return length ? `${address}/${length}` : address
}

const updateStates = {
  updating: 'updating',
  paused: 'paused',
  completed: 'completed',
  rollbackStarted: 'rollback_started',
  rollbackPaused: 'rollback_paused',
  rollbackCompleted: 'rollback_completed',
} as const satisfies Record<UpdateStatus['state'], string>

export function raiseUpdateState(state: UpdateStatus['state']): string {
  return updateStates[state]
}

function raiseUpdate({ state, startedAtMs, completedAtMs, message, waitingFor }: UpdateStatus) {
  return {
    State: updateStates[state],
    StartedAt: time(startedAtMs),
    ...(completedAtMs === undefined ? {} : { CompletedAt: time(completedAtMs) }),
    Message: waitingFor ? `${message}: ${waitingFor}` : message,
  }
}

const nodesUpByView = new WeakMap<View, ReadonlySet<NodeId>>()

/** Nodes that are not down; the same set as long as they are the same ones. */
export function nodesUp(view: View): ReadonlySet<NodeId> {
  const known = nodesUpByView.get(view)
  const now = new Set<NodeId>()
  let isKnown = known !== undefined
  for (const { id, status } of view.list('node')) {
    if (status.state === 'down') continue
    now.add(id)
    isKnown &&= known?.has(id) === true
  }
  if (known && isKnown && known.size === now.size) return known
  nodesUpByView.set(view, now)
  return now
}

interface TaskCounts {
  readonly running: number
  readonly wanted: number
  readonly completed: number
}

/** What was counted of a list of tasks, which is another one once one of its tasks has changed. */
const countsOfList = new WeakMap<
  readonly Task[],
  {
    readonly up: ReadonlySet<NodeId>
    readonly jobIteration: number | undefined
    readonly counts: TaskCounts
  }
>()

function countTasks(view: View, workload: Workload, up: ReadonlySet<NodeId>): object {
  const { mode } = workload.spec
  const jobIteration = isJob(workload.spec) ? workload.spec.jobIteration : undefined
  const tasks = view.tasksOfWorkload(workload.id)
  const known = countsOfList.get(tasks)
  const isKnown = known?.up === up && known.jobIteration === jobIteration
  const counts = isKnown ? known.counts : countOf(tasks, up, jobIteration)
  if (!isKnown) countsOfList.set(tasks, { up, jobIteration, counts })
  const { running, wanted, completed } = counts
  return {
    RunningTasks: running,
    DesiredTasks:
      mode.type === 'replicated'
        ? mode.replicas
        : mode.type === 'replicatedJob'
          ? mode.maxConcurrent
          : wanted,
    CompletedTasks: completed,
  }
}

/** Running tasks are those that should run and do, on a node that is there. Of a job: those of its last execution. */
function countOf(
  tasks: readonly Task[],
  up: ReadonlySet<NodeId>,
  jobIteration: number | undefined,
): TaskCounts {
  let running = 0
  let wanted = 0
  let completed = 0
  for (const task of tasks) {
    const { nodeId, status } = task
    if (jobIteration !== undefined && task.jobIteration !== jobIteration) continue
    if (jobIteration !== undefined && status.state === 'complete') {
      completed++
      continue
    }
    if (isStopWanted(task) || (nodeId !== undefined && !up.has(nodeId))) continue
    wanted++
    if (status.state === 'running' && nodeId !== undefined) running++
  }
  return { running, wanted, completed }
}

const updateDefaults = {
  Parallelism: 1,
  FailureAction: 'pause',
  Monitor: 5e9,
  MaxFailureRatio: 0,
  Order: 'stop-first',
} as const

/** The document with the Engine's defaults in the places left unset. */
export function insertDefaults(document: ServiceSpecDocument): ServiceSpecDocument {
  const { TaskTemplate: task, Mode, EndpointSpec } = document
  const isJob = Mode.ReplicatedJob !== undefined || Mode.GlobalJob !== undefined
  const filled = (config: ServiceSpecDocument['UpdateConfig']) => ({
    ...updateDefaults,
    ...config,
    Order: config?.Order || updateDefaults.Order,
  })
  return {
    ...document,
    TaskTemplate: {
      ...task,
      ...(task.ContainerSpec
        ? {
            ContainerSpec: {
              ...task.ContainerSpec,
              StopGracePeriod: task.ContainerSpec.StopGracePeriod ?? 10e9,
              DNSConfig: task.ContainerSpec.DNSConfig ?? {},
            },
          }
        : {}),
      Resources: { Limits: {}, Reservations: {}, ...task.Resources },
      RestartPolicy: {
        Condition: isJob ? 'on-failure' : 'any',
        Delay: 5e9,
        MaxAttempts: 0,
        ...task.RestartPolicy,
      },
      Placement: task.Placement ?? {},
    },
    ...(isJob
      ? {}
      : {
          UpdateConfig: filled(document.UpdateConfig),
          RollbackConfig: filled(document.RollbackConfig),
        }),
    EndpointSpec: { ...EndpointSpec, Mode: EndpointSpec?.Mode ?? 'vip' },
  }
}
