import {
  ipv6Of,
  isTerminal,
  type Network,
  type Revision,
  stateSinceMs,
  type Task,
} from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import { documentOf, meta, raiseGeneric, time } from './raise.ts'
import { withPrefix } from './raise-service.ts'

/**
 * Tasks are written as text by hand: a list may hold ten thousand of them. What they share, their template and networks,
 * is turned into JSON once for each revision and network, and a task that has not changed is not written again.
 */
const templateJson = new WeakMap<Revision, string>()
const networkJson = new WeakMap<Network, string>()
const taskJson = new WeakMap<
  Task,
  {
    readonly json: string
    readonly networks: readonly unknown[]
    readonly unheard: string | undefined
  }
>()

export function raiseTaskJson(view: View, task: Task): string {
  const networks = task.addresses.map(({ networkId }) => view.get('network', networkId))
  const unheard = unheardReason(view, task)
  const known = taskJson.get(task)
  const isSame =
    known?.unheard === unheard &&
    known?.networks.every((network, index) => network === networks[index])
  if (known && isSame) return known.json
  const json = writeTask(view, task, unheard)
  taskJson.set(task, { json, networks, unheard })
  return json
}

/** Why the state shown is only the last one known; `undefined` while its node answers. */
function unheardReason(view: View, task: Task): string | undefined {
  if (task.nodeId === undefined || isTerminal(task.status.state)) return undefined
  const node = view.get('node', task.nodeId)
  if (node?.status.state !== 'down') return undefined
  return `node ${node.name} is down since ${time(stateSinceMs(node)).slice(0, 19)}Z: this is the last state it told`
}

/** Ids, states and times hold nothing that JSON would have to escape. */
function writeTask(view: View, task: Task, unheard: string | undefined): string {
  const { status } = task
  const problem = unheard ?? status.error
  const nodeId = task.nodeId ?? task.pinnedNodeId
  const container = status.container
  const ports = status.hostPorts.map(({ protocol, targetPort, publishedPort }) => ({
    Protocol: protocol,
    TargetPort: targetPort,
    PublishedPort: publishedPort,
    PublishMode: 'host',
  }))
  const attachments = attachmentsJson(view, task)
  const iteration = task.jobIteration
  return [
    `{"ID":"${task.id}","Version":{"Index":${task.version}}`,
    `,"CreatedAt":"${time(task.createdAtMs)}","UpdatedAt":"${time(task.updatedAtMs)}"`,
    `,"Labels":${JSON.stringify(task.labels)},"Spec":${specJson(view, task)}`,
    `,"ServiceID":"${task.workloadId}"`,
    task.slot ? `,"Slot":${task.slot}` : '',
    nodeId ? `,"NodeID":"${nodeId}"` : '',
    `,"Status":{"Timestamp":"${time(status.atMs)}","State":"${status.state}"`,
    `,"Message":${JSON.stringify(status.message)}`,
    problem ? `,"Err":${JSON.stringify(problem)}` : '',
    container
      ? `,"ContainerStatus":{"ContainerID":${JSON.stringify(container.containerId)},"PID":${container.pid},"ExitCode":${container.exitCode ?? 0}}`
      : '',
    `,"PortStatus":${ports.length > 0 ? JSON.stringify({ Ports: ports }) : '{}'}}`,
    `,"DesiredState":"${task.desiredState}"`,
    attachments === '' ? '' : `,"NetworksAttachments":[${attachments}]`,
    task.genericResources.length > 0
      ? `,"GenericResources":${JSON.stringify(raiseGeneric(task.genericResources))}`
      : '',
    iteration === undefined ? '' : `,"JobIteration":${iteration ? `{"Index":${iteration}}` : '{}'}`,
    ',"Volumes":null}',
  ].join('')
}

function specJson(view: View, task: Task): string {
  const revision = view.get('revision', task.revisionId)
  if (!revision) return '{}'
  const known = templateJson.get(revision)
  if (known !== undefined) return known
  const document: { readonly TaskTemplate?: object } = documentOf(revision.source)
  const json = JSON.stringify(document.TaskTemplate ?? {})
  templateJson.set(revision, json)
  return json
}

function attachmentsJson(view: View, task: Task): string {
  return task.addresses
    .flatMap(({ networkId, address }) => {
      const network = view.get('network', networkId)
      if (!network) return []
      const { subnet, ipv6 } = network.status
      const wide =
        subnet !== undefined && ipv6
          ? [withPrefix(ipv6Of({ subnet, ipv6 }, address), ipv6.subnet)]
          : []
      const addresses = JSON.stringify([withPrefix(address, subnet), ...wide])
      return [`{"Network":${attachedNetworkJson(network)},"Addresses":${addresses}}`]
    })
    .join(',')
}

function attachedNetworkJson(network: Network): string {
  const known = networkJson.get(network)
  if (known !== undefined) return known
  const { spec, status } = network
  const json = JSON.stringify({
    ...meta(network),
    Spec: {
      Name: network.name,
      Labels: network.labels,
      DriverConfiguration: { Name: spec.driver },
      ...(spec.ipv6 ? { IPv6Enabled: true } : {}),
      ...(spec.internal ? { Internal: true } : {}),
      ...(spec.attachable ? { Attachable: true } : {}),
      ...(spec.ingress ? { Ingress: true } : {}),
      IPAMOptions: { Driver: { Name: 'default' } },
      Scope: 'swarm',
    },
    DriverState: { Name: spec.driver, Options: spec.options },
    IPAMOptions: {
      Driver: { Name: 'default' },
      Configs: status.subnet
        ? [
            {
              Subnet: status.subnet,
              ...(status.range ? { Range: status.range } : {}),
              ...(status.gateway ? { Gateway: status.gateway } : {}),
            },
            ...(status.ipv6
              ? [
                  {
                    Subnet: status.ipv6.subnet,
                    ...(status.ipv6.range ? { Range: status.ipv6.range } : {}),
                    Gateway: status.ipv6.gateway,
                  },
                ]
              : []),
          ]
        : [],
    },
  })
  networkJson.set(network, json)
  return json
}
