import { createSecretKey } from 'node:crypto'
import {
  type Cluster,
  type ClusterNode,
  type Config,
  defaultNamespace,
  type Endpoint,
  idFrom,
  type Kind,
  noRestarts,
  type ObjectMeta,
  type Revision,
  type Task,
} from '../model/index.ts'
import { buildClusterSpec } from '../model/testing.ts'
import type { ValueKey } from './sealed-values.ts'

/** Objects for tests of stores: whole, small, and as a caller makes them (the store fills in the rest). */

function meta<K extends Kind>(kind: K, id: string, name = id) {
  return {
    kind,
    id: idFrom<K>(id),
    namespace: defaultNamespace,
    name,
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
  } satisfies ObjectMeta<K, unknown>
}

const source = { dialect: 'skep', document: {} } as const

export function buildConfig(id: string, options: { name?: string; data?: string } = {}): Config {
  return { ...meta('config', id, options.name), source, spec: {}, data: options.data ?? '' }
}

export function buildTask(
  id: string,
  options: { workload?: string; node?: string; networks?: readonly string[] } = {},
): Task {
  return {
    ...meta('task', id),
    workloadId: idFrom(options.workload ?? 'w'),
    revisionId: idFrom('r'),
    ...(options.node !== undefined && { nodeId: idFrom<'node'>(options.node) }),
    desiredState: 'running',
    status: { state: 'new', atMs: 0, message: 'created', ready: false, hostPorts: [] },
    traffic: 'none',
    addresses: (options.networks ?? []).map((network) => ({
      networkId: idFrom<'network'>(network),
      address: '10.0.0.2',
      mac: '02:42:0a:00:00:02',
    })),
    genericResources: [],
    restarts: noRestarts,
  }
}

export function buildEndpoint(
  id: string,
  options: {
    name?: string
    workloads?: readonly string[]
    networks?: readonly string[]
    vips?: readonly string[]
  } = {},
): Endpoint {
  return {
    ...meta('endpoint', id, options.name),
    source,
    spec: {
      mode: 'vip',
      networks: (options.networks ?? []).map((network) => ({
        networkId: idFrom<'network'>(network),
        aliases: [],
      })),
      ports: [],
      backends: (options.workloads ?? []).map((workload) => ({
        workloadId: idFrom<'workload'>(workload),
        weight: 1,
      })),
    },
    status: {
      vips: (options.vips ?? []).map((network) => ({
        networkId: idFrom<'network'>(network),
        address: '10.0.0.3',
      })),
      ports: [],
    },
  }
}

export function buildNode(id: string, hostname: string): ClusterNode {
  return {
    ...meta('node', id, hostname),
    source,
    spec: { role: 'worker', availability: 'active' },
    description: {
      hostname,
      platform: { architecture: 'x86_64', os: 'linux' },
      resources: { nanoCpus: 1e9, memoryBytes: 1e9, generic: [] },
      engine: { version: '20.10.24', apiVersion: '1.41', labels: {}, plugins: [] },
      skepVersion: '0.1.0',
      hostSubnets: [],
    },
    status: { state: 'ready', message: '', address: '192.0.2.1' },
  }
}

export function buildRevision(id: string, workload: string, number: number): Revision {
  return {
    ...meta('revision', id),
    workloadId: idFrom(workload),
    number,
    templateHash: '',
    template: {
      containers: [],
      restart: { scope: 'task', condition: 'any', delayMs: 0, maxAttempts: 0, windowMs: 0 },
      placement: { constraints: [], spread: [], maxReplicasPerNode: 0, platforms: [] },
      reservations: { nanoCpus: 0, memoryBytes: 0, generic: [] },
      networks: [],
      forceUpdate: 0,
    },
    source,
  }
}

export function buildCluster(id: string): Cluster {
  const sealed = { keyId: '', nonce: '', ciphertext: '' }
  return {
    ...meta('cluster', id),
    source,
    spec: buildClusterSpec(),
    status: {
      root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
      rootRotationInProgress: false,
      joinTokens: { worker: sealed, manager: sealed },
      addressPools: [],
      subnetSize: 24,
      dataPathPort: 4789,
    },
  }
}

/** A key for values: the same one for the same id. */
export function buildValueKey(id = '0123456789abcdef'): ValueKey {
  return { id, key: createSecretKey(Buffer.from(id.repeat(2))) }
}
