/** Builders for tests: whole objects of which a test shows only what it is about. */
import type { ClusterSpec } from './cluster.ts'
import type { Endpoint, EndpointSpec, EndpointStatus } from './endpoint.ts'
import { idFrom, type NodeId } from './ids.ts'
import type { Availability, ClusterNode, NodeRole, NodeStatus } from './node.ts'
import { defaultNamespace, type Source } from './object.ts'
import { noRestarts, type Task, type TaskState, type TaskStatus } from './task.ts'
import type {
  ContainerSpec,
  GenericResource,
  Placement,
  Platform,
  Revision,
  TaskTemplate,
  UpdatePolicy,
  Workload,
  WorkloadSpec,
  WorkloadStatus,
} from './workload.ts'

const source: Source = { dialect: 'docker', document: {} }
const times = { version: 1, specVersion: 1, createdAtMs: 0, updatedAtMs: 0 }

export function buildContainer(over: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    name: 'main',
    role: 'main',
    image: 'nginx:1.25',
    env: [],
    labels: {},
    groups: [],
    mounts: [],
    secrets: [],
    configs: [],
    health: undefined,
    limits: {},
    stopGraceMs: 10_000,
    tty: false,
    openStdin: false,
    readOnly: false,
    dns: { nameservers: [], search: [], options: [] },
    hosts: [],
    capabilitiesAdd: [],
    capabilitiesDrop: [],
    sysctls: {},
    ulimits: [],
    privileges: { noNewPrivileges: false },
    ...over,
  }
}

/** One container, restarted always after 5 s, anywhere. `restart` and `placement` may be given in part. */
export function buildTemplate(
  over: Partial<Omit<TaskTemplate, 'restart' | 'placement'>> & {
    readonly restart?: Partial<TaskTemplate['restart']>
    readonly placement?: Partial<Placement>
  } = {},
): TaskTemplate {
  return {
    containers: [buildContainer()],
    reservations: { nanoCpus: 0, memoryBytes: 0, generic: [] },
    networks: [],
    forceUpdate: 0,
    ...over,
    restart: {
      scope: 'task',
      condition: 'any',
      delayMs: 5_000,
      maxAttempts: 0,
      windowMs: 0,
      ...over.restart,
    },
    placement: {
      constraints: [],
      spread: [],
      maxReplicasPerNode: 0,
      platforms: [],
      ...over.placement,
    },
  }
}

/** Swarm's defaults, and a progress deadline of ten minutes. */
export function buildUpdatePolicy(over: Partial<UpdatePolicy> = {}): UpdatePolicy {
  return {
    parallelism: 1,
    delayMs: 0,
    onFailure: 'pause',
    monitorMs: 5_000,
    maxFailureRatio: 0,
    order: 'stopFirst',
    progressDeadlineMs: 600_000,
    ...over,
  }
}

/** One replica of revision `r1`. `spec` may be given in part. */
export function buildWorkload(
  over: Partial<Omit<Workload, 'id' | 'spec' | 'status' | 'kind'>> & {
    readonly id?: string
    readonly spec?: Partial<WorkloadSpec>
    readonly status?: WorkloadStatus
  } = {},
): Workload {
  return {
    namespace: defaultNamespace,
    name: 'web',
    labels: {},
    ...times,
    source,
    ...over,
    kind: 'workload',
    id: idFrom(over.id ?? 'w1'),
    spec: {
      mode: { type: 'replicated', replicas: 1 },
      update: buildUpdatePolicy(),
      rollback: buildUpdatePolicy(),
      revisionId: idFrom('r1'),
      jobIteration: 0,
      onNodeLoss: { type: 'replace' },
      ...over.spec,
    },
    status: over.status ?? {},
  }
}

/** Revision `r<number>` of workload `w1`; its hash follows from the number. */
export function buildRevision(
  over: Partial<Omit<Revision, 'id' | 'workloadId' | 'kind'>> & {
    readonly id?: string
    readonly workloadId?: string
  } = {},
): Revision {
  const number = over.number ?? 1
  return {
    namespace: defaultNamespace,
    name: `web.${number}`,
    labels: {},
    ...times,
    templateHash: `hash-${number}`,
    template: buildTemplate(),
    source,
    ...over,
    number,
    kind: 'revision',
    id: idFrom(over.id ?? `r${number}`),
    workloadId: idFrom(over.workloadId ?? 'w1'),
  }
}

/** A running, ready task in slot 1 of workload `w1` on node `n1`. `state` is short for a status in that state. */
export function buildTask(
  over: Partial<
    Omit<
      Task,
      'id' | 'workloadId' | 'revisionId' | 'nodeId' | 'pinnedNodeId' | 'slot' | 'status' | 'kind'
    >
  > & {
    readonly id?: string
    readonly workloadId?: string
    readonly revisionId?: string
    /** `undefined`: on no node yet. */
    readonly nodeId?: string | undefined
    readonly pinnedNodeId?: string
    /** `undefined`: a task of a global workload. */
    readonly slot?: number | undefined
    readonly state?: TaskState
    readonly status?: Partial<TaskStatus>
  } = {},
): Task {
  const { id, workloadId, revisionId, nodeId, pinnedNodeId, slot, state, status, ...rest } = over
  const reached = status?.state ?? state ?? 'running'
  const node = 'nodeId' in over ? nodeId : 'n1'
  const place = 'slot' in over ? slot : 1
  return {
    namespace: defaultNamespace,
    name: '',
    labels: {},
    ...times,
    desiredState: 'running',
    traffic: 'none',
    addresses: [],
    genericResources: [],
    restarts: noRestarts,
    ...rest,
    kind: 'task',
    id: idFrom(id ?? 't1'),
    workloadId: idFrom(workloadId ?? 'w1'),
    revisionId: idFrom(revisionId ?? 'r1'),
    ...(place === undefined ? {} : { slot: place }),
    ...(node === undefined ? {} : { nodeId: idFrom<'node'>(node) }),
    ...(pinnedNodeId === undefined ? {} : { pinnedNodeId: idFrom<'node'>(pinnedNodeId) }),
    status: {
      state: reached,
      atMs: 0,
      message: reached,
      ready: reached === 'running',
      ...(reached === 'running' ? { readyAtMs: 0 } : {}),
      hostPorts: [],
      ...status,
    },
  }
}

/** Node `n1`: a ready, active x86_64 Linux worker with 4 CPUs and 8 GiB. */
export function buildNode(
  over: Partial<Pick<ClusterNode, 'labels' | 'manager' | 'version' | 'createdAtMs' | 'source'>> & {
    readonly id?: string
    readonly hostname?: string
    readonly role?: NodeRole
    readonly availability?: Availability
    readonly state?: NodeStatus['state']
    /** When the node's state was last changed, in ms. */
    readonly updatedAtMs?: number
    readonly address?: string
    readonly platform?: Platform
    readonly nanoCpus?: number
    readonly memoryBytes?: number
    readonly generic?: readonly GenericResource[]
    readonly engineLabels?: Readonly<Record<string, string>>
    readonly plugins?: ClusterNode['description']['engine']['plugins']
    readonly hostSubnets?: readonly string[]
    readonly encryption?: ClusterNode['description']['encryption']
  } = {},
): ClusterNode {
  const id: NodeId = idFrom(over.id ?? 'n1')
  const hostname = over.hostname ?? `host-${id}`
  return {
    ...times,
    version: over.version ?? 1,
    createdAtMs: over.createdAtMs ?? 0,
    updatedAtMs: over.updatedAtMs ?? 0,
    kind: 'node',
    id,
    namespace: defaultNamespace,
    name: hostname,
    labels: over.labels ?? {},
    source: over.source ?? source,
    spec: { role: over.role ?? 'worker', availability: over.availability ?? 'active' },
    description: {
      hostname,
      platform: over.platform ?? { architecture: 'x86_64', os: 'linux' },
      resources: {
        nanoCpus: over.nanoCpus ?? 4_000_000_000,
        memoryBytes: over.memoryBytes ?? 8_589_934_592,
        generic: over.generic ?? [],
      },
      engine: {
        version: '20.10.24',
        apiVersion: '1.41',
        labels: over.engineLabels ?? {},
        plugins: over.plugins ?? [],
      },
      skepVersion: '0.1.0',
      hostSubnets: over.hostSubnets ?? [],
      ...(over.encryption ? { encryption: over.encryption } : {}),
    },
    status: { state: over.state ?? 'ready', message: '', address: over.address ?? '10.0.0.1' },
    ...(over.manager === undefined ? {} : { manager: over.manager }),
  }
}

/** The endpoint `e1` of workload `w1`: VIP mode, no networks or ports. */
export function buildEndpoint(
  over: Partial<Omit<Endpoint, 'id' | 'spec' | 'status' | 'kind'>> & {
    readonly id?: string
    readonly workloadId?: string
    readonly spec?: Partial<EndpointSpec>
    readonly status?: Partial<EndpointStatus>
  } = {},
): Endpoint {
  const { id, workloadId, spec, status, ...rest } = over
  return {
    namespace: defaultNamespace,
    name: 'web',
    labels: {},
    ...times,
    source,
    ...rest,
    kind: 'endpoint',
    id: idFrom(id ?? 'e1'),
    spec: {
      mode: 'vip',
      networks: [],
      ports: [],
      backends: [{ workloadId: idFrom(workloadId ?? 'w1'), weight: 1 }],
      ...spec,
    },
    status: { vips: [], ports: spec?.ports ?? [], ...status },
  }
}

export function buildClusterSpec(over: Partial<ClusterSpec> = {}): ClusterSpec {
  return {
    taskHistoryLimit: 5,
    heartbeatPeriodMs: 5_000,
    nodeCertExpiryMs: 7_776_000_000,
    autoLock: false,
    ...over,
  }
}
