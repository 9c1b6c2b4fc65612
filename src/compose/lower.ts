import { assert, unreachable } from '../base/index.ts'
import { familiarImage } from './image-name.ts'
import type {
  ComposeSecret,
  ComposeService,
  Deploy,
  FileReference,
  Healthcheck,
  Port,
  Project,
  ResourceLimits,
  ResourceReservations,
  RestartPolicy,
  ServiceVolume,
  UpdateConfig,
} from './project.ts'
import type {
  ContainerSpecBody,
  FileObjectBody,
  FileReferenceBody,
  HealthcheckBody,
  LimitsBody,
  MountBody,
  NetworkAttachmentBody,
  NetworkCreateBody,
  PlacementBody,
  PortBody,
  ReservationsBody,
  RestartPolicyBody,
  ServiceSpecBody,
  UpdateConfigBody,
} from './service-spec.ts'
import type { RecordOf } from './shape.ts'
import { skepLabels } from './skep-extension.ts'

export const stackLabel = 'com.docker.stack.namespace'
export const stackImageLabel = 'com.docker.stack.image'

/** Everything a stack is made of, named as the cluster names it. Equal files give equal bodies. */
export interface Stack {
  readonly name: string
  readonly networks: readonly NetworkCreateBody[]
  /** Networks that have to be there already, by their real names. */
  readonly externalNetworks: readonly string[]
  readonly secrets: readonly StackObject[]
  readonly configs: readonly StackObject[]
  readonly services: readonly StackServiceBody[]
}

export interface StackObject {
  readonly body: FileObjectBody
  /** Holds the data; absolute. Absent when a driver has it, or `content` is it. */
  readonly file?: string
  /** The data itself. */
  readonly content?: string
  /** The file says its name in the cluster, which is kept to. */
  readonly isNamed: boolean
}

/** A service's body; the ids of its secrets and configs are empty until they are known by name. */
export interface StackServiceBody {
  readonly body: ServiceSpecBody
  /** The image as the file has it. */
  readonly image: string
}

/** Networks that every engine has, reached without an alias. */
const predefinedNetworks: readonly string[] = ['host', 'bridge', 'none', 'default']

/** Lowers a project to API bodies, equal to those of `docker stack deploy`. Its name is the stack's. Throws `invalidInput`. */
export function lowerStack(project: Project): Stack {
  const { name } = project
  const labelled = (labels: RecordOf<string> | undefined) => ({ ...labels, [stackLabel]: name })
  const used = new Set(
    Object.values(project.services).flatMap(({ networks }) =>
      Object.keys(networks ?? { default: {} }),
    ),
  )
  const networks: NetworkCreateBody[] = []
  const externalNetworks: string[] = []
  for (const short of [...used].sort()) {
    const network = project.networks[short]
    if (network?.external) externalNetworks.push(network.name)
    else {
      networks.push(
        networkBody(network?.name ?? `${name}_${short}`, labelled(network?.labels), network),
      )
    }
  }
  return {
    name,
    networks,
    externalNetworks,
    secrets: fileObjects(project, 'secrets', labelled),
    configs: fileObjects(project, 'configs', labelled),
    services: Object.entries(project.services).map(([short, service]) =>
      lowerService(short, service, project),
    ),
  }
}

function networkBody(
  name: string,
  labels: Record<string, string>,
  network: Project['networks'][string] | undefined,
): NetworkCreateBody {
  return {
    Name: name,
    Driver: network?.driver ?? 'overlay',
    Scope: '',
    IPAM: network?.ipam
      ? {
          Driver: network.ipam.driver ?? '',
          Options: null,
          Config: (network.ipam.config ?? []).map(({ subnet }) => ({
            ...(subnet !== undefined && { Subnet: subnet }),
          })),
        }
      : null,
    Internal: network?.internal ?? false,
    Attachable: network?.attachable ?? false,
    Ingress: false,
    ConfigOnly: false,
    ConfigFrom: null,
    ...(network?.enableIpv6 !== undefined && { EnableIPv6: network.enableIpv6 }),
    Options: network?.driverOpts ? { ...network.driverOpts } : null,
    Labels: labels,
  }
}

function fileObjects(
  project: Project,
  kind: 'secrets' | 'configs',
  labelled: (labels: RecordOf<string> | undefined) => Record<string, string>,
): readonly StackObject[] {
  return Object.entries(project[kind]).flatMap(([short, object]) => {
    if (object.source.type === 'external') return []
    const body: FileObjectBody = {
      Name: object.name,
      Labels: labelled(object.labels),
      ...(object.source.type === 'driver' && {
        Driver: {
          Name: object.source.driver,
          ...(object.source.driverOpts && { Options: { ...object.source.driverOpts } }),
        },
      }),
      ...(object.templateDriver !== undefined && { Templating: { Name: object.templateDriver } }),
    }
    const isNamed = object.name !== `${project.name}_${short}`
    return [{ body, isNamed, ...dataOf(`${kind}.${short}`, object, project) }]
  })
}

/** Where the data is, or the data itself. */
function dataOf(
  path: string,
  { source }: ComposeSecret,
  { environment }: Project,
): { readonly file?: string; readonly content?: string } {
  switch (source.type) {
    case 'file':
      return { file: source.path }
    case 'content':
      return { content: source.content }
    case 'environment': {
      const content = environment[source.variable]
      assert(content !== undefined, `${path}.environment was checked to be set`)
      return { content }
    }
    case 'external':
    case 'driver':
      return {}
  }
}

function lowerService(short: string, service: ComposeService, project: Project): StackServiceBody {
  const path = `services.${short}`
  const { image, deploy = {}, logging } = service
  const stack = project.name
  assert(image !== undefined && image !== '', `${path}.image was checked to be there`)
  const labelled = (labels: RecordOf<string> | undefined) => ({ ...labels, [stackLabel]: stack })
  const { limits, reservations } = deploy.resources ?? {}
  const restart = lowerRestart(service)
  const ports = (service.ports ?? []).map(lowerPort)
  const body: ServiceSpecBody = {
    Name: `${stack}_${short}`,
    Labels: {
      ...skepLabels(path, service.extensions),
      ...startOrder(service, project),
      ...labelled(deploy.labels),
      [stackImageLabel]: image,
    },
    TaskTemplate: {
      ContainerSpec: lowerContainer(path, service, project, labelled),
      Resources: {
        ...(limits && { Limits: lowerLimits(limits) }),
        ...(reservations && { Reservations: lowerReservations(reservations) }),
      },
      ...(restart && { RestartPolicy: restart }),
      Placement: lowerPlacement(service),
      Networks: lowerNetworks(short, service, project),
      ...(logging && {
        LogDriver: {
          ...(logging.driver !== undefined && { Name: logging.driver }),
          ...(logging.options && { Options: { ...logging.options } }),
        },
      }),
      ForceUpdate: 0,
    },
    Mode: lowerMode(service),
    ...(deploy.updateConfig && { UpdateConfig: lowerUpdate(deploy.updateConfig) }),
    ...(deploy.rollbackConfig && { RollbackConfig: lowerUpdate(deploy.rollbackConfig) }),
    EndpointSpec: {
      ...(deploy.endpointMode !== undefined && { Mode: deploy.endpointMode }),
      ...(ports.length > 0 && {
        Ports: ports.sort((a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0)),
      }),
    },
  }
  return { body, image }
}

/** Service label for `depends_on`; the orchestrators read it (orchestrator/start-order.ts). */
function startOrder({ dependsOn }: ComposeService, { name: stack }: Project): RecordOf<string> {
  const words = {
    service_started: 'started',
    service_healthy: 'healthy',
    service_completed_successfully: 'completed',
  } as const
  const parts = Object.entries(dependsOn ?? {}).map(
    ([name, { condition, required = true }]) =>
      `${stack}_${name}:${words[condition]}${required ? '' : '?'}`,
  )
  return parts.length === 0 ? {} : { 'skep.start-after': parts.join(',') }
}

function lowerPort({ mode, target, published, protocol }: Port): PortBody {
  return {
    ...(protocol !== undefined && { Protocol: protocol }),
    TargetPort: target,
    ...(published !== undefined && { PublishedPort: published.first }),
    ...(mode !== undefined && { PublishMode: mode }),
  }
}

function lowerLimits({ cpusNano, memoryBytes, pids }: ResourceLimits): LimitsBody {
  return {
    ...(cpusNano !== undefined && { NanoCPUs: cpusNano }),
    ...(memoryBytes !== undefined && { MemoryBytes: memoryBytes }),
    ...(pids !== undefined && { Pids: pids }),
  }
}

function lowerReservations(reservations: ResourceReservations): ReservationsBody {
  const { cpusNano, memoryBytes, genericResources } = reservations
  return {
    ...lowerLimits({
      ...(cpusNano !== undefined && { cpusNano }),
      ...(memoryBytes !== undefined && { memoryBytes }),
    }),
    ...(genericResources && {
      GenericResources: genericResources.flatMap(({ discreteResourceSpec: spec }) =>
        spec === undefined
          ? []
          : [{ DiscreteResourceSpec: { Kind: spec.kind, Value: spec.value } }],
      ),
    }),
  }
}

function lowerPlacement({ deploy, platform }: ComposeService): PlacementBody {
  const { constraints, preferences, maxReplicasPerNode } = deploy?.placement ?? {}
  const [os, architecture] = platform?.split('/') ?? []
  return {
    ...(constraints && { Constraints: [...constraints] }),
    ...(preferences && {
      Preferences: preferences.map(({ spread }) => ({ Spread: { SpreadDescriptor: spread } })),
    }),
    ...(maxReplicasPerNode !== undefined && { MaxReplicas: maxReplicasPerNode }),
    ...(os !== undefined && {
      Platforms: [{ ...(architecture !== undefined && { Architecture: architecture }), OS: os }],
    }),
  }
}

function lowerContainer(
  path: string,
  service: ComposeService,
  project: Project,
  labelled: (labels: RecordOf<string> | undefined) => Record<string, string>,
): ContainerSpecBody {
  const capabilities = lowerCapabilities(service.capAdd ?? [], service.capDrop ?? [])
  const secrets = references(path, 'secrets', service.secrets, project)
  const configs = references(path, 'configs', service.configs, project)
  const health = service.healthcheck
  const probe = lowerHealthcheck(health ?? {})
  const mounts = service.volumes?.map((mount) => lowerMount(mount, project, labelled))
  const env = Object.entries(service.environment ?? {})
    .map(([key, value]) => (value === null ? key : `${key}=${value}`))
    .sort()
  return {
    Image: familiarImage(service.image ?? ''),
    Labels: labelled(service.labels),
    ...(service.entrypoint &&
      service.entrypoint.length > 0 && { Command: [...service.entrypoint] }),
    ...(service.command && service.command.length > 0 && { Args: [...service.command] }),
    ...(service.hostname && { Hostname: service.hostname }),
    ...(env.length > 0 && { Env: env }),
    ...(service.workingDir && { Dir: service.workingDir }),
    ...(service.user && { User: service.user }),
    ...(service.groupAdd && service.groupAdd.length > 0 && { Groups: [...service.groupAdd] }),
    Privileges: {
      CredentialSpec: lowerCredentialSpec(service, project),
      SELinuxContext: null,
      NoNewPrivileges: false,
    },
    ...(service.init !== undefined && { Init: service.init }),
    ...(service.stopSignal && { StopSignal: service.stopSignal }),
    ...(service.tty && { TTY: true }),
    ...(service.stdinOpen && { OpenStdin: true }),
    ...(service.readOnly && { ReadOnly: true }),
    ...(mounts && mounts.length > 0 && { Mounts: mounts }),
    ...(service.stopGracePeriodNs !== undefined && { StopGracePeriod: service.stopGracePeriodNs }),
    ...(health && { Healthcheck: health.disable ? { Test: ['NONE'] } : probe }),
    ...(service.extraHosts &&
      service.extraHosts.length > 0 && {
        Hosts: service.extraHosts.map(({ host, address }) => `${address} ${host}`),
      }),
    ...((service.dns || service.dnsSearch || service.dnsOpt) && {
      DNSConfig: {
        ...(service.dns && { Nameservers: [...service.dns] }),
        ...(service.dnsSearch && { Search: [...service.dnsSearch] }),
        ...(service.dnsOpt && { Options: [...service.dnsOpt] }),
      },
    }),
    ...(secrets.length > 0 && {
      Secrets: secrets.map(({ name, target }) => ({
        File: target,
        SecretID: '',
        SecretName: name,
      })),
    }),
    ...(configs.length > 0 && {
      Configs: configs.map(({ name, target }) => ({
        File: target,
        ConfigID: '',
        ConfigName: name,
      })),
    }),
    ...(service.isolation && { Isolation: service.isolation }),
    ...(service.sysctls && { Sysctls: { ...service.sysctls } }),
    ...capabilities,
    ...(service.ulimits && {
      Ulimits: Object.entries(service.ulimits)
        .map(([Name, { soft, hard }]) => ({ Name, Hard: hard, Soft: soft }))
        .sort((a, b) => (a.Name < b.Name ? -1 : 1)),
    }),
  }
}

function lowerHealthcheck(health: Healthcheck): HealthcheckBody {
  const { test, intervalNs, timeoutNs, startPeriodNs, startIntervalNs, retries } = health
  return {
    ...(test && test.length > 0 && { Test: [...test] }),
    ...(intervalNs !== undefined && { Interval: intervalNs }),
    ...(timeoutNs !== undefined && { Timeout: timeoutNs }),
    ...(startPeriodNs !== undefined && { StartPeriod: startPeriodNs }),
    ...(startIntervalNs !== undefined && { StartInterval: startIntervalNs }),
    ...(retries !== undefined && { Retries: retries }),
  }
}

function lowerCredentialSpec(
  { credentialSpec: spec }: ComposeService,
  { configs }: Project,
): { Config?: string; File?: string; Registry?: string } | null {
  if (spec === undefined) return null
  const { config, file, registry } = spec
  return {
    ...(config !== undefined && { Config: configs[config]?.name ?? config }),
    ...(file !== undefined && { File: file }),
    ...(registry !== undefined && { Registry: registry }),
  }
}

/** `CAP_CHOWN` of `chown`; ALL swallows the others, and what is added is not dropped. Sorted. */
export function lowerCapabilities(
  add: readonly string[],
  drop: readonly string[],
): { CapabilityAdd?: string[]; CapabilityDrop?: string[] } {
  const normal = (names: readonly string[]): ReadonlySet<string> => {
    const all = names.map((name) => {
      const upper = name.trim().toUpperCase()
      return upper === 'ALL' || upper === 'RESET' || upper.startsWith('CAP_')
        ? upper
        : `CAP_${upper}`
    })
    return new Set(all.includes('ALL') ? ['ALL'] : all)
  }
  const added = normal(add)
  const dropped = [...normal(drop)].filter((name) => !added.has(name))
  return {
    ...(added.size > 0 && { CapabilityAdd: [...added].sort() }),
    ...(dropped.length > 0 && { CapabilityDrop: dropped.sort() }),
  }
}

function references(
  path: string,
  kind: 'secrets' | 'configs',
  wanted: readonly FileReference[] | undefined,
  project: Project,
): readonly { readonly name: string; readonly target: FileReferenceBody }[] {
  return (wanted ?? [])
    .map(({ source, target, uid, gid, mode }) => {
      const object = project[kind][source]
      assert(object !== undefined, `${path}.${kind} was checked to be there`)
      return {
        name: object.name,
        target: {
          Name: target ?? source,
          UID: uid ?? '0',
          GID: gid ?? '0',
          Mode: mode ?? 0o444,
        },
      }
    })
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

function lowerMount(
  mount: ServiceVolume,
  project: Project,
  labelled: (labels: RecordOf<string> | undefined) => Record<string, string>,
): MountBody {
  const { type, source, target, readOnly, consistency, bind, tmpfs } = mount
  const base = {
    Type: type,
    ...(readOnly && { ReadOnly: true }),
    ...(consistency && { Consistency: consistency }),
    Target: target,
  }
  if (type === 'bind') {
    return {
      ...base,
      ...(source !== undefined && { Source: source }),
      ...(bind && {
        BindOptions: { ...(bind.propagation !== undefined && { Propagation: bind.propagation }) },
      }),
    }
  }
  if (type === 'tmpfs') {
    return {
      ...base,
      ...(tmpfs && {
        TmpfsOptions: { ...(tmpfs.sizeBytes !== undefined && { SizeBytes: tmpfs.sizeBytes }) },
      }),
    }
  }
  if (!source) return base
  const volume = project.volumes[source]
  assert(volume !== undefined, `the volume ${source} was checked to be there`)
  const options = {
    ...(mount.volume?.nocopy && { NoCopy: true }),
    ...(mount.volume?.subpath && { Subpath: mount.volume.subpath }),
  }
  if (volume.external) return { ...base, Source: volume.name, VolumeOptions: options }
  return {
    ...base,
    Source: volume.name,
    VolumeOptions: {
      ...options,
      Labels: labelled(volume.labels),
      ...((volume.driver !== undefined || volume.driverOpts) && {
        DriverConfig: {
          ...(volume.driver !== undefined && { Name: volume.driver }),
          ...(volume.driverOpts && { Options: { ...volume.driverOpts } }),
        },
      }),
    },
  }
}

function lowerNetworks(
  short: string,
  service: ComposeService,
  project: Project,
): NetworkAttachmentBody[] {
  return Object.entries(service.networks ?? { default: {} })
    .map(([name, { aliases = [], driverOpts }]) => {
      const target = project.networks[name]?.name ?? `${project.name}_${name}`
      return {
        Target: target,
        ...(!predefinedNetworks.includes(target) && { Aliases: [...aliases, short] }),
        ...(driverOpts && { DriverOpts: { ...driverOpts } }),
      }
    })
    .sort((a, b) => (a.Target < b.Target ? -1 : 1))
}

function lowerMode({ deploy = {}, scale }: ComposeService): ServiceSpecBody['Mode'] {
  const { mode = 'replicated', replicas = scale }: Deploy = deploy
  switch (mode) {
    case 'replicated':
      return { Replicated: replicas === undefined ? {} : { Replicas: replicas } }
    case 'global':
      return { Global: {} }
    case 'replicated-job':
      return {
        ReplicatedJob:
          replicas === undefined ? {} : { MaxConcurrent: replicas, TotalCompletions: replicas },
      }
    case 'global-job':
      return { GlobalJob: {} }
    default:
      return unreachable(mode)
  }
}

function lowerUpdate(config: UpdateConfig): UpdateConfigBody {
  const { parallelism, delayNs, failureAction, monitorNs, maxFailureRatio, order } = config
  return {
    Parallelism: parallelism ?? 1,
    ...(delayNs !== undefined && { Delay: delayNs }),
    ...(failureAction !== undefined && { FailureAction: failureAction }),
    ...(monitorNs !== undefined && { Monitor: monitorNs }),
    MaxFailureRatio: maxFailureRatio ?? 0,
    Order: order ?? '',
  }
}

function lowerRestartPolicy(policy: RestartPolicy): RestartPolicyBody {
  const { condition, delayNs, maxAttempts, windowNs } = policy
  return {
    ...(condition !== undefined && { Condition: condition }),
    ...(delayNs !== undefined && { Delay: delayNs }),
    ...(maxAttempts !== undefined && { MaxAttempts: maxAttempts }),
    ...(windowNs !== undefined && { Window: windowNs }),
  }
}

/** `deploy.restart_policy`, else what Compose's `restart` means. */
function lowerRestart({ restart, deploy }: ComposeService): RestartPolicyBody | undefined {
  if (deploy?.restartPolicy) return lowerRestartPolicy(deploy.restartPolicy)
  // The stock CLI leaves `no` to the default, which restarts; the loader warns of it.
  if (restart === undefined || ['', 'no', 'none'].includes(restart)) return undefined
  const [condition, attempts = '0'] = restart.split(':')
  if (condition !== 'on-failure') return { Condition: 'any' }
  return { Condition: 'on-failure', MaxAttempts: Number(attempts) }
}
