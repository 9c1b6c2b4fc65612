import {
  type Cluster,
  type ClusterNode,
  type ConfigId,
  type Endpoint,
  holdsResources,
  isStopWanted,
  isTerminal,
  type Network,
  type NetworkId,
  type NodeAddress,
  type NodeId,
  type Revision,
  rankOf,
  type Sealed,
  type SecretId,
  type Task,
} from '../model/index.ts'
import type { View } from '../store/store.ts'
import type {
  Assignments,
  Backend,
  ConfigAssignment,
  EndpointHead,
  NetworkAssignment,
  SecretAssignment,
  TaskAssignment,
} from '../wire/index.ts'

/** Opens what is sealed in the store; `aad` is the id of the object it belongs to. */
export type Unseal = (sealed: Sealed, aad: string) => Uint8Array

/** How long open connections may take to end before a task is stopped, unless the workload says otherwise, in ms. */
export const drainMsDefault = 10_000
/** Label on a service: how long open connections may take to end, as `5s`, `0s`. */
export const drainLabel = 'skep.drain'

/** Whether a node has to know of the task: it is placed there and its record is kept. */
export function isAssignedTo(task: Task, nodeId: NodeId): boolean {
  return task.nodeId === nodeId && rankOf(task.status.state) >= rankOf('assigned')
}

/** What a node is told of itself, by what that was made of: it is in every message to it. */
const assignmentOfNode = new WeakMap<
  ClusterNode,
  { readonly cluster: Cluster | undefined; readonly assignment: Assignments['node'] }
>()

export function nodeAssignment(view: View, nodeId: NodeId): Assignments['node'] {
  const node = view.get('node', nodeId)
  const [cluster] = view.list('cluster')
  const known = node && assignmentOfNode.get(node)
  if (known && known.cluster === cluster) return known.assignment
  const assignment = {
    id: nodeId,
    clusterId: cluster?.id ?? '',
    hostname: node?.description.hostname ?? '',
    platform: node?.description.platform ?? { architecture: '', os: '' },
    ...(node && cluster && dataAddressOf(node) !== ''
      ? { dataPath: { address: dataAddressOf(node), port: cluster.status.dataPathPort } }
      : {}),
  }
  if (node) assignmentOfNode.set(node, { cluster, assignment })
  return assignment
}

/** Where other nodes send a node the packets of cluster networks; empty: not known. */
export function dataAddressOf({ description, status }: ClusterNode): string {
  return description.dataPathAddress ?? status.address
}

/**
 * A task as its node needs it, or undefined when its revision is gone (then so is the task, soon). `hasOtherRoutable`:
 * whether another task of the workload takes the connections that this one no longer gets.
 */
export function taskAssignment(
  view: View,
  task: Task,
  hasOtherRoutable: boolean,
  unseal: Unseal,
): TaskAssignment | undefined {
  const revision = view.get('revision', task.revisionId)
  if (!revision) return undefined
  const workload = view.get('workload', task.workloadId)
  const endpoints = view.endpointsOfWorkload(task.workloadId)
  const [cluster] = view.list('cluster')
  const place = task.slot ?? task.nodeId ?? ''
  const workloadName = workload?.name ?? task.name
  const auth = isTerminal(task.status.state) ? undefined : registryAuth(revision, unseal)
  return {
    task,
    template: revision.template,
    workload: { id: task.workloadId, name: workloadName, labels: workload?.labels ?? {} },
    ...(workload?.spec.onNodeLoss.type === 'stopAfter'
      ? { stopAfterMs: workload.spec.onNodeLoss.afterMs }
      : {}),
    name: `${workloadName}.${place}.${task.id}`,
    engineNetworks: predefinedNetworks(view, revision),
    hostPorts: endpoints.flatMap(({ status, spec }) =>
      (status.ports.length > 0 ? status.ports : spec.ports).filter(
        ({ publishMode }) => publishMode === 'host',
      ),
    ),
    endpointPorts: endpoints.flatMap(({ spec }) =>
      spec.ports.map(({ protocol, targetPort }) => ({ protocol, port: targetPort })),
    ),
    drainMs:
      workload && hasOtherRoutable && isStopWanted(task)
        ? (parseSeconds(workload.labels[drainLabel]) ?? drainMsDefault)
        : 0,
    ...(auth === undefined ? {} : { registryAuth: auth }),
    ...(cluster?.spec.logDriver ? { defaultLogDriver: cluster.spec.logDriver } : {}),
  }
}

function registryAuth(revision: Revision, unseal: Unseal): string | undefined {
  return (
    revision.registryAuth && new TextDecoder().decode(unseal(revision.registryAuth, revision.id))
  )
}

function predefinedNetworks(view: View, revision: Revision): TaskAssignment['engineNetworks'] {
  return revision.template.networks.flatMap(({ networkId }) => {
    const network = view.get('network', networkId)
    return network?.spec.predefined ? [{ networkId, engineName: network.name }] : []
  })
}

function parseSeconds(text: string | undefined): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text ?? '')
  if (!match) return undefined
  const factor = match[2] === 'ms' ? 1 : match[2] === 's' ? 1000 : 60_000
  return Number(match[1]) * factor
}

export interface References {
  readonly secrets: readonly SecretId[]
  readonly configs: readonly ConfigId[]
}

/** Ids of the secrets and configs that the node's unfinished tasks refer to. */
export function referencedIds(view: View, task: Task): References {
  if (isTerminal(task.status.state)) return { secrets: [], configs: [] }
  const template = view.get('revision', task.revisionId)?.template
  return {
    secrets: template?.containers.flatMap(({ secrets }) => secrets.map(({ id }) => id)) ?? [],
    configs: template?.containers.flatMap(({ configs }) => configs.map(({ id }) => id)) ?? [],
  }
}

export function secretAssignment(
  view: View,
  id: string,
  unseal: Unseal,
): SecretAssignment | undefined {
  const secret = view.get('secret', id)
  return (
    secret && {
      id: secret.id,
      name: secret.name,
      data: unseal(secret.data, secret.id),
      ...(secret.spec.templating === undefined ? {} : { templating: secret.spec.templating }),
    }
  )
}

export function configAssignment(view: View, id: string): ConfigAssignment | undefined {
  const config = view.get('config', id)
  return (
    config && {
      id: config.id,
      name: config.name,
      data: Uint8Array.from(atob(config.data), (char) => char.charCodeAt(0)),
      ...(config.spec.templating === undefined ? {} : { templating: config.spec.templating }),
    }
  )
}

/**
 * The cluster networks that must exist on a node: those its unfinished tasks have an address on, those it has plain
 * containers `attached` to, and while ports are `published`, the one by which they come in.
 */
export function networksNeeded(
  view: View,
  nodeId: NodeId,
  attached: Iterable<NetworkId>,
  arePortsPublished: boolean,
): ReadonlySet<NetworkId> {
  const needed = new Set(attached)
  // On a node that is alone all tasks are its own, and they have been counted.
  if (arePortsPublished && view.count('node') > 1) {
    for (const { id, spec } of view.list('network')) if (spec.ingress) needed.add(id)
  }
  for (const id of networksOfTasks(view.tasksOfNode(nodeId))) needed.add(id)
  return needed
}

/** The networks that unfinished tasks have an address on. */
export function networksOfTasks(tasks: readonly Task[]): ReadonlySet<NetworkId> {
  const networks = new Set<NetworkId>()
  for (const task of tasks) {
    if (!holdsResources(task)) continue
    for (const { networkId } of task.addresses) networks.add(networkId)
  }
  return networks
}

/** By the list that they come from, which is the same until one of them changes. */
const addressByNode = new WeakMap<readonly NodeAddress[], ReadonlyMap<NodeId, NodeAddress>>()

/** A node's own address among those of all nodes: each of thousands of nodes asks for its own. */
export function nodeAddressOf(
  addresses: readonly NodeAddress[] | undefined,
  nodeId: NodeId,
): NodeAddress | undefined {
  if (addresses === undefined) return undefined
  let known = addressByNode.get(addresses)
  if (known === undefined) {
    known = new Map(addresses.map((address) => [address.nodeId, address]))
    addressByNode.set(addresses, known)
  }
  return known.get(nodeId)
}

export function networkAssignment(network: Network, nodeId: NodeId): NetworkAssignment | undefined {
  const { subnet, gateway, ipv6, vni, nodeAddresses } = network.status
  const own = nodeAddressOf(nodeAddresses, nodeId)
  if (subnet === undefined || gateway === undefined || network.spec.predefined) return undefined
  return {
    id: network.id,
    name: network.name,
    labels: network.labels,
    subnet,
    gateway,
    ...(ipv6 ? { ipv6 } : {}),
    internal: network.spec.internal,
    attachable: network.spec.attachable,
    ingress: network.spec.ingress,
    ...(network.spec.encrypted ? { encrypted: true } : {}),
    options: network.spec.options,
    vni: vni ?? 0,
    ...(own ? { nodeAddress: { address: own.address, mac: own.mac } } : {}),
  }
}

/** Whether it has ports that every node takes connections on. */
export function isPublished({ spec }: Endpoint): boolean {
  return spec.ports.some(({ publishMode }) => publishMode === 'ingress')
}

/** The endpoint as nodes are told of it, without the tasks behind it. */
export function endpointHead(endpoint: Endpoint): EndpointHead {
  return {
    id: endpoint.id,
    name: endpoint.name,
    mode: endpoint.spec.mode,
    networks: endpoint.spec.networks.map(({ networkId, aliases }) => {
      const vip = endpoint.status.vips.find(
        (candidate) => candidate.networkId === networkId,
      )?.address
      return { networkId, aliases, ...(vip === undefined ? {} : { vip }) }
    }),
    ...(isPublished(endpoint) ? { published: true } : {}),
    ports: endpoint.status.ports.filter(({ publishMode }) => publishMode === 'ingress'),
    ...(endpoint.spec.ingress === undefined ? {} : { ingress: endpoint.spec.ingress }),
  }
}

/** The task as one that gets the endpoint's traffic, if it may now. */
export function backendOf(
  view: View,
  endpoint: Endpoint,
  task: Task | undefined,
): Backend | undefined {
  if (task?.traffic !== 'routable' || task.nodeId === undefined) return undefined
  const { id: taskId, nodeId, workloadId } = task
  const behind = endpoint.spec.backends.find((candidate) => candidate.workloadId === workloadId)
  if (!behind) return undefined
  const name = view.get('workload', workloadId)?.name ?? ''
  return {
    taskId,
    taskName: `${name}.${task.slot ?? nodeId}.${taskId}`,
    nodeId,
    weight: behind.weight,
    addresses: Object.fromEntries(
      task.addresses.map(({ networkId, address }) => [networkId, address]),
    ),
  }
}
