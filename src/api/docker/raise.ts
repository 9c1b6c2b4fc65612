import type {
  Cluster,
  ClusterNode,
  Config,
  GenericResource,
  Network,
  PortSpec,
  Secret,
  Source,
} from '../../model/index.ts'
import type { SwarmSpecDocument } from './documents.ts'

/** What is stored, back in the Engine API's words. */

export function time(ms: number): string {
  return new Date(ms).toISOString()
}

interface Stored {
  readonly id: string
  readonly specVersion: number
  readonly createdAtMs: number
  readonly updatedAtMs: number
}

/** `Version` counts what people declared, so that a loop's write does not make their next update stale. */
export function meta({ id, specVersion, createdAtMs, updatedAtMs }: Stored) {
  return {
    ID: id,
    Version: { Index: specVersion },
    CreatedAt: time(createdAtMs),
    UpdatedAt: time(updatedAtMs),
  }
}

/** The declared document, when it was declared in this dialect. */
export function documentOf(source: Source): object {
  const { dialect, document } = source
  return dialect === 'docker' && typeof document === 'object' && document !== null ? document : {}
}

export function raiseGeneric(resources: readonly GenericResource[]): readonly object[] {
  return resources.flatMap(({ kind, value, names }): object[] =>
    names
      ? names.map((name) => ({ NamedResourceSpec: { Kind: kind, Value: name } }))
      : [{ DiscreteResourceSpec: { Kind: kind, Value: value } }],
  )
}

export function raisePort(port: PortSpec) {
  return {
    ...(port.name ? { Name: port.name } : {}),
    Protocol: port.protocol,
    TargetPort: port.targetPort,
    ...(port.publishedPort ? { PublishedPort: port.publishedPort } : {}),
    PublishMode: port.publishMode,
  }
}

export function raiseNode(node: ClusterNode): object {
  const { description, status, manager, spec } = node
  const { resources, engine, tls } = description
  return {
    ...meta(node),
    Spec: {
      ...(spec.name ? { Name: spec.name } : {}),
      Labels: node.labels,
      Role: spec.role,
      Availability: spec.availability,
    },
    Description: {
      Hostname: description.hostname,
      Platform: {
        Architecture: description.platform.architecture,
        OS: description.platform.os,
      },
      Resources: {
        NanoCPUs: resources.nanoCpus,
        MemoryBytes: resources.memoryBytes,
        ...(resources.generic.length > 0
          ? { GenericResources: raiseGeneric(resources.generic) }
          : {}),
      },
      Engine: {
        EngineVersion: engine.version,
        ...(Object.keys(engine.labels).length > 0 ? { Labels: engine.labels } : {}),
        Plugins: engine.plugins.map(({ type, name }) => ({ Type: type, Name: name })),
      },
      TLSInfo: tls
        ? {
            TrustRoot: tls.trustRoot,
            CertIssuerSubject: tls.issuerSubject,
            CertIssuerPublicKey: tls.issuerPublicKey,
          }
        : {},
    },
    Status: {
      State: status.state,
      ...(status.message ? { Message: status.message } : {}),
      Addr: status.address,
    },
    ...(manager
      ? {
          ManagerStatus: {
            ...(manager.leader ? { Leader: true } : {}),
            Reachability: manager.reachability,
            Addr: manager.address,
          },
        }
      : {}),
  }
}

const nsPerMs = 1e6

/** The swarm spec of a cluster for which nothing was asked. */
export const defaultSwarmSpec = {
  Name: 'default',
  Labels: {},
  Orchestration: { TaskHistoryRetentionLimit: 5 },
  Raft: {
    SnapshotInterval: 10_000,
    KeepOldSnapshots: 0,
    LogEntriesForSlowFollowers: 500,
    ElectionTick: 10,
    HeartbeatTick: 1,
  },
  Dispatcher: { HeartbeatPeriod: 5_000 * nsPerMs },
  CAConfig: { NodeCertExpiry: 90 * 24 * 3_600_000 * nsPerMs },
  TaskDefaults: {},
  EncryptionConfig: { AutoLockManagers: false },
} satisfies SwarmSpecDocument

/** The `ClusterInfo` of `/info`; `GET /swarm` adds the tokens. */
export function raiseCluster(cluster: Cluster): object {
  const { spec, status } = cluster
  const document: SwarmSpecDocument = { ...defaultSwarmSpec, ...documentOf(cluster.source) }
  return {
    ...meta(cluster),
    Spec: {
      ...document,
      Labels: cluster.labels,
      Orchestration: { TaskHistoryRetentionLimit: spec.taskHistoryLimit },
      Dispatcher: { HeartbeatPeriod: spec.heartbeatPeriodMs * nsPerMs },
      CAConfig: { ...document.CAConfig, NodeCertExpiry: spec.nodeCertExpiryMs * nsPerMs },
      TaskDefaults: spec.logDriver
        ? { LogDriver: { Name: spec.logDriver.name, Options: spec.logDriver.options } }
        : {},
      EncryptionConfig: { AutoLockManagers: spec.autoLock },
    },
    TLSInfo: {
      TrustRoot: status.root.certificatePem,
      CertIssuerSubject: status.root.issuerSubject,
      CertIssuerPublicKey: status.root.issuerPublicKey,
    },
    RootRotationInProgress: status.rootRotationInProgress,
    DefaultAddrPool: status.addressPools,
    SubnetSize: status.subnetSize,
    DataPathPort: status.dataPathPort,
  }
}

/** Never with its data. */
export function raiseSecret(secret: Secret): object {
  return { ...meta(secret), Spec: raiseFileSpec(secret) }
}

export function raiseConfig(config: Config): object {
  return { ...meta(config), Spec: { ...raiseFileSpec(config), Data: config.data } }
}

function raiseFileSpec({ name, labels, source }: Secret | Config) {
  const {
    Name: _name,
    Labels: _labels,
    Data: _data,
    ...rest
  }: Record<string, unknown> = {
    ...documentOf(source),
  }
  return { Name: name, Labels: labels, ...rest }
}

/** First VXLAN id that Docker gives out is 4096; ours comes from the network's status. */
const vxlanOption = 'com.docker.network.driver.overlay.vxlanid_list'

/** A cluster network as `/networks` shows it. `containers`: those on this node, by the engine; absent in lists. */
export function raiseNetwork(
  network: Network,
  containers: Readonly<Record<string, unknown>> | null,
): Record<string, unknown> {
  const { spec, status } = network
  const document: { readonly IPAM?: { readonly Driver?: string; readonly Options?: unknown } } =
    documentOf(network.source)
  const { subnet, range, gateway, ipv6 } = status
  return {
    Name: network.name,
    Id: network.id,
    Created: time(network.createdAtMs),
    Scope: 'swarm',
    Driver: spec.driver,
    EnableIPv4: true,
    EnableIPv6: spec.ipv6,
    IPAM: {
      Driver: document.IPAM?.Driver ?? 'default',
      Options: document.IPAM?.Options ?? null,
      Config: subnet
        ? [
            {
              Subnet: subnet,
              ...(range ? { IPRange: range } : {}),
              ...(gateway ? { Gateway: gateway } : {}),
            },
            ...(ipv6
              ? [
                  {
                    Subnet: ipv6.subnet,
                    ...(ipv6.range ? { IPRange: ipv6.range } : {}),
                    Gateway: ipv6.gateway,
                  },
                ]
              : []),
          ]
        : spec.predefined
          ? null
          : spec.ipam.map((pool) => ({
              ...(pool.subnet ? { Subnet: pool.subnet } : {}),
              ...(pool.range ? { IPRange: pool.range } : {}),
              ...(pool.gateway ? { Gateway: pool.gateway } : {}),
            })),
    },
    Internal: spec.internal,
    Attachable: spec.attachable,
    Ingress: spec.ingress,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: containers,
    Options: {
      ...spec.options,
      ...(status.vni === undefined ? {} : { [vxlanOption]: String(status.vni) }),
    },
    Labels: network.labels,
  }
}
