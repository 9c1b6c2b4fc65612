import type { Network, Revision, Task } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import { documentOf, meta, raiseGeneric, time } from './raise.ts'
import { withPrefix } from './raise-service.ts'

/**
 * Tasks are written as text by hand: their template and networks are shared by thousands of them, and are turned into
 * JSON once for each revision and network.
 */
const templateJson = new WeakMap<Revision, string>()
const networkJson = new WeakMap<Network, string>()

export function raiseTaskJson(view: View, task: Task): string {
  const { ID, Version: _version, ...rest } = meta(task)
  const { status } = task
  const nodeId = task.nodeId ?? task.pinnedNodeId
  const container = status.container
  const ports = status.hostPorts.map(({ protocol, targetPort, publishedPort }) => ({
    Protocol: protocol,
    TargetPort: targetPort,
    PublishedPort: publishedPort,
    PublishMode: 'host',
  }))
  const before = JSON.stringify({
    ID,
    Version: { Index: task.version },
    ...rest,
    Labels: task.labels,
  })
  const after = JSON.stringify({
    ServiceID: task.workloadId,
    ...(task.slot ? { Slot: task.slot } : {}),
    ...(nodeId ? { NodeID: nodeId } : {}),
    Status: {
      Timestamp: time(status.atMs),
      State: status.state,
      Message: status.message,
      ...(status.error ? { Err: status.error } : {}),
      ...(container
        ? {
            ContainerStatus: {
              ContainerID: container.containerId,
              PID: container.pid,
              ExitCode: container.exitCode ?? 0,
            },
          }
        : {}),
      PortStatus: ports.length > 0 ? { Ports: ports } : {},
    },
    DesiredState: task.desiredState,
    ...(task.genericResources.length > 0
      ? { GenericResources: raiseGeneric(task.genericResources) }
      : {}),
    ...(task.jobIteration === undefined
      ? {}
      : { JobIteration: task.jobIteration ? { Index: task.jobIteration } : {} }),
    Volumes: null,
  })
  const attachments = attachmentsJson(view, task)
  const spec = `"Spec":${specJson(view, task)},`
  const networks = attachments === '' ? '' : `,"NetworksAttachments":[${attachments}]`
  return `${before.slice(0, -1)},${spec}${after.slice(1, -1)}${networks}}`
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
      const addresses = JSON.stringify([withPrefix(address, network.status.subnet)])
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
          ]
        : [],
    },
  })
  networkJson.set(network, json)
  return json
}
