/** Test support: the data plane's inputs, with only what a test is about. */
import { idFrom, type PortSpec } from '../model/index.ts'
import type { Backend, EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import type { LocalTask } from './data-plane.ts'

export interface Place {
  readonly network: NetworkAssignment
  readonly address: string
}

export function backendOf(task: LocalTask, weight = 1): Backend {
  return {
    taskId: task.taskId,
    taskName: task.name,
    nodeId: idFrom('node'),
    weight,
    addresses: Object.fromEntries(
      task.addresses.map(({ networkId, address }) => [networkId, address]),
    ),
  }
}

export function buildEndpoint(
  name: string,
  parts: Partial<Omit<EndpointAssignment, 'ports'>> & {
    readonly ports?: readonly Partial<PortSpec>[]
  },
): EndpointAssignment {
  return {
    id: idFrom(`endpoint-${name}`),
    name,
    mode: 'vip',
    networks: [],
    backends: [],
    ...parts,
    ports: (parts.ports ?? []).map((port) => ({
      protocol: 'tcp',
      targetPort: 80,
      publishedPort: 0,
      publishMode: 'ingress',
      ...port,
    })),
  }
}

export function buildNetwork(
  name: string,
  parts: Partial<NetworkAssignment> = {},
): NetworkAssignment {
  return {
    id: idFrom(name.padEnd(25, '0')),
    name,
    labels: {},
    subnet: '10.0.1.0/24',
    gateway: '10.0.1.1',
    internal: false,
    attachable: false,
    ingress: false,
    options: {},
    vni: 4097,
    ...parts,
  }
}

export function buildTask(name: string, places: readonly Place[], pid = 0): LocalTask {
  return {
    taskId: idFrom(name.padEnd(25, '0')),
    name,
    hostname: '',
    pid,
    addresses: places.map(({ network, address }) => ({ networkId: network.id, address })),
    nameservers: [],
  }
}
