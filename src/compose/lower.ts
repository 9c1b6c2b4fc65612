import { familiarImage } from './image-name.ts'
import { fault } from './reader.ts'
import type {
  ContainerSpecBody,
  FileObjectBody,
  FileReferenceBody,
  MountBody,
  NetworkAttachmentBody,
  NetworkCreateBody,
  RestartPolicyBody,
  ServiceSpecBody,
  UpdateConfigBody,
} from './service-spec.ts'
import type {
  Pairs,
  StackFile,
  StackFileObject,
  StackFileReference,
  StackMount,
  StackService,
} from './stack-file.ts'

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
  /** Holds the data; absolute. Absent when a driver has it. */
  readonly file?: string
}

/** A service's body; the ids of its secrets and configs are empty until they are known by name. */
export interface StackServiceBody {
  readonly body: ServiceSpecBody
  /** The image as the file has it. */
  readonly image: string
}

/** Networks that every engine has, reached without an alias. */
const predefinedNetworks: readonly string[] = ['host', 'bridge', 'none', 'default']

/** Lowers a checked file to API bodies, equal to those of `docker stack deploy`. Throws `invalidInput`. */
export function lowerStack(name: string, file: StackFile): Stack {
  const scope = (short: string) => `${name}_${short}`
  const labelled = (labels: Pairs | undefined) => ({ ...labels, [stackLabel]: name })
  const used = new Set<string>()
  for (const service of Object.values(file.services)) {
    for (const network of Object.keys(service.networks ?? { default: {} })) used.add(network)
  }
  const networks: NetworkCreateBody[] = []
  const externalNetworks: string[] = []
  for (const short of [...used].sort()) {
    const network = file.networks[short]
    if (network === undefined) {
      if (short === 'default') networks.push(networkBody(scope(short), labelled({}), undefined))
      continue // Refused with the service that names it.
    }
    if (network.external) externalNetworks.push(network.name ?? short)
    else networks.push(networkBody(network.name ?? scope(short), labelled(network.labels), network))
  }
  return {
    name,
    networks,
    externalNetworks,
    secrets: fileObjects(file.secrets, scope, labelled),
    configs: fileObjects(file.configs, scope, labelled),
    services: Object.entries(file.services).map(([short, service]) =>
      lowerService(name, short, service, file),
    ),
  }
}

function networkBody(
  name: string,
  labels: Record<string, string>,
  network: StackFile['networks'][string] | undefined,
): NetworkCreateBody {
  return {
    Name: name,
    Driver: network?.driver ?? 'overlay',
    Scope: '',
    IPAM: network?.ipam
      ? {
          Driver: network.ipam.driver,
          Options: null,
          Config: network.ipam.subnets.map((subnet) => ({ Subnet: subnet })),
        }
      : null,
    Internal: network?.internal ?? false,
    Attachable: network?.attachable ?? false,
    Ingress: false,
    ConfigOnly: false,
    ConfigFrom: null,
    Options: network?.driverOpts ? { ...network.driverOpts } : null,
    Labels: labels,
  }
}

function fileObjects(
  objects: Pairs<StackFileObject>,
  scope: (short: string) => string,
  labelled: (labels: Pairs | undefined) => Record<string, string>,
): readonly StackObject[] {
  return Object.entries(objects)
    .filter(([, object]) => !object.external)
    .map(([short, object]) => ({
      body: {
        Name: object.name ?? scope(short),
        Labels: labelled(object.labels),
        ...(object.driver !== undefined && {
          Driver: {
            Name: object.driver,
            ...(object.driverOpts && { Options: { ...object.driverOpts } }),
          },
        }),
        ...(object.templateDriver !== undefined && { Templating: { Name: object.templateDriver } }),
      },
      ...(object.driver === undefined && object.file !== undefined && { file: object.file }),
    }))
}

function lowerService(
  stack: string,
  short: string,
  service: StackService,
  file: StackFile,
): StackServiceBody {
  const path = `services.${short}`
  const image = service.image
  if (!image)
    throw fault(`${path}.image`, 'is missing', 'A stack runs images, it does not build them.')
  const labelled = (labels: Pairs | undefined) => ({ ...labels, [stackLabel]: stack })
  const limits = service.limits
  const reservations = service.reservations
  const restart = lowerRestart(path, service)
  const body: ServiceSpecBody = {
    Name: `${stack}_${short}`,
    Labels: { ...labelled(service.deployLabels), [stackImageLabel]: image },
    TaskTemplate: {
      ContainerSpec: lowerContainer(path, stack, service, file, labelled),
      Resources: {
        ...(limits && { Limits: { ...limits } }),
        ...(reservations && { Reservations: { ...reservations } }),
      },
      ...(restart && { RestartPolicy: restart }),
      Placement: { ...service.placement },
      Networks: lowerNetworks(path, stack, short, service, file),
      ...(service.logging && {
        LogDriver: {
          ...(service.logging.driver !== undefined && { Name: service.logging.driver }),
          ...(service.logging.options && { Options: { ...service.logging.options } }),
        },
      }),
      ForceUpdate: 0,
    },
    Mode: lowerMode(path, service),
    ...(service.updateConfig && { UpdateConfig: lowerUpdate(service.updateConfig) }),
    ...(service.rollbackConfig && { RollbackConfig: lowerUpdate(service.rollbackConfig) }),
    EndpointSpec: {
      ...(service.endpointMode !== undefined && { Mode: service.endpointMode }),
      ...(service.ports &&
        service.ports.length > 0 && {
          Ports: [...service.ports].sort((a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0)),
        }),
    },
  }
  return { body, image }
}

function lowerContainer(
  path: string,
  stack: string,
  service: StackService,
  file: StackFile,
  labelled: (labels: Pairs | undefined) => Record<string, string>,
): ContainerSpecBody {
  const capabilities = lowerCapabilities(service.capAdd ?? [], service.capDrop ?? [])
  const secrets = references(
    path,
    'secrets',
    stack,
    service.secrets,
    file.secrets,
    (source) => source,
  )
  const configs = references(
    path,
    'configs',
    stack,
    service.configs,
    file.configs,
    (source) => source,
  )
  const health = service.healthcheck
  const { disable, ...probe } = health ?? {}
  if (disable && probe.Test && probe.Test.length > 0 && probe.Test[0] !== 'NONE') {
    throw fault(`${path}.healthcheck`, 'is disabled and has a test', 'Remove one of the two.')
  }
  const mounts = service.volumes?.map((mount, index) =>
    lowerMount(`${path}.volumes[${index}]`, mount, stack, file, labelled),
  )
  const env = Object.entries(service.environment ?? {})
    .map(([key, value]) => (value === undefined ? key : `${key}=${value}`))
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
    Privileges: {
      CredentialSpec: lowerCredentialSpec(path, service, stack, file),
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
    ...(health && { Healthcheck: disable ? { Test: ['NONE'] } : probe }),
    ...(service.extraHosts && service.extraHosts.length > 0 && { Hosts: [...service.extraHosts] }),
    ...((service.dns || service.dnsSearch) && {
      DNSConfig: {
        ...(service.dns && { Nameservers: [...service.dns] }),
        ...(service.dnsSearch && { Search: [...service.dnsSearch] }),
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

function lowerCredentialSpec(
  path: string,
  { credentialSpec: spec }: StackService,
  stack: string,
  file: StackFile,
): { Config?: string; File?: string; Registry?: string } | null {
  if (spec === undefined) return null
  if (spec.Config === undefined) return { ...spec }
  const config = file.configs[spec.Config]
  if (config === undefined) {
    throw fault(
      `${path}.credential_spec.config`,
      `names the config ${spec.Config}, which the file does not have`,
    )
  }
  return { Config: config.name ?? (config.external ? spec.Config : `${stack}_${spec.Config}`) }
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
  stack: string,
  wanted: readonly StackFileReference[] | undefined,
  known: Pairs<StackFileObject>,
  defaultTarget: (source: string) => string,
): readonly { readonly name: string; readonly target: FileReferenceBody }[] {
  return (wanted ?? [])
    .map(({ source, target, uid, gid, mode }) => {
      const object = known[source]
      if (object === undefined) {
        throw fault(
          `${path}.${kind}`,
          `names ${source}, which the file does not have`,
          `Add it to the top-level ${kind}.`,
        )
      }
      return {
        name: object.name ?? (object.external ? source : `${stack}_${source}`),
        target: {
          Name: target ?? defaultTarget(source),
          UID: uid ?? '0',
          GID: gid ?? '0',
          Mode: mode ?? 0o444,
        },
      }
    })
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

function lowerMount(
  path: string,
  mount: StackMount,
  stack: string,
  file: StackFile,
  labelled: (labels: Pairs | undefined) => Record<string, string>,
): MountBody {
  const base = {
    Type: mount.type,
    ...(mount.readOnly && { ReadOnly: true }),
    ...(mount.consistency && { Consistency: mount.consistency }),
    Target: mount.target,
  }
  if (mount.type === 'bind') {
    return {
      ...base,
      ...(mount.source !== undefined && { Source: mount.source }),
      ...(mount.hasBind && {
        BindOptions: { ...(mount.propagation !== undefined && { Propagation: mount.propagation }) },
      }),
    }
  }
  if (mount.type === 'tmpfs') {
    return {
      ...base,
      ...(mount.hasTmpfs && {
        TmpfsOptions: { ...(mount.tmpfsBytes !== undefined && { SizeBytes: mount.tmpfsBytes }) },
      }),
    }
  }
  if (!mount.source) return base
  const volume = file.volumes[mount.source]
  if (volume === undefined) {
    throw fault(
      path,
      `names the volume ${mount.source}, which the file does not have`,
      'Add it to the top-level volumes.',
    )
  }
  const options = {
    ...(mount.noCopy && { NoCopy: true }),
    ...(mount.subpath && { Subpath: mount.subpath }),
  }
  if (volume.external) {
    return { ...base, Source: volume.name ?? mount.source, VolumeOptions: options }
  }
  return {
    ...base,
    Source: volume.name ?? `${stack}_${mount.source}`,
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
  path: string,
  stack: string,
  short: string,
  service: StackService,
  file: StackFile,
): NetworkAttachmentBody[] {
  const wanted = Object.entries(service.networks ?? {})
  const all = wanted.length > 0 ? wanted : [['default', { aliases: [] }] as const]
  return all
    .map(([name, { aliases, ...rest }]) => {
      const network = file.networks[name]
      if (network === undefined && name !== 'default') {
        throw fault(
          `${path}.networks`,
          `names ${name}, which the file does not have`,
          'Add it to the top-level networks.',
        )
      }
      const target = network?.name ?? (network?.external ? name : `${stack}_${name}`)
      const driverOpts = 'driverOpts' in rest ? rest.driverOpts : undefined
      return {
        Target: target,
        ...(!predefinedNetworks.includes(target) && { Aliases: [...aliases, short] }),
        ...(driverOpts && { DriverOpts: { ...driverOpts } }),
      }
    })
    .sort((a, b) => (a.Target < b.Target ? -1 : 1))
}

function lowerMode(
  path: string,
  { mode = 'replicated', replicas }: StackService,
): ServiceSpecBody['Mode'] {
  switch (mode) {
    case 'replicated':
      return { Replicated: replicas === undefined ? {} : { Replicas: replicas } }
    case 'global':
      if (replicas !== undefined) throw globalReplicas(path, mode)
      return { Global: {} }
    case 'replicated-job':
      return {
        ReplicatedJob:
          replicas === undefined ? {} : { MaxConcurrent: replicas, TotalCompletions: replicas },
      }
    case 'global-job':
      if (replicas !== undefined) throw globalReplicas(path, mode)
      return { GlobalJob: {} }
    default:
      throw fault(
        `${path}.deploy.mode`,
        `is "${mode}"`,
        'Choose replicated, global, replicated-job or global-job.',
      )
  }
}

function globalReplicas(path: string, mode: string): Error {
  return fault(
    `${path}.deploy.replicas`,
    `does not go with the mode ${mode}`,
    'It runs once on every node.',
  )
}

function lowerUpdate(config: Partial<UpdateConfigBody>): UpdateConfigBody {
  return { Parallelism: 1, MaxFailureRatio: 0, Order: '', ...config }
}

/** `deploy.restart_policy`, else what Compose's `restart` means. */
function lowerRestart(
  path: string,
  { restart, restartPolicy }: StackService,
): RestartPolicyBody | undefined {
  if (restartPolicy) return { ...restartPolicy }
  if (restart === undefined || restart === '') return undefined
  const match = /^(no|none|always|unless-stopped|on-failure)(?::(\d+))?$/.exec(restart)
  if (!match || (match[2] !== undefined && match[1] !== 'on-failure')) {
    throw fault(`${path}.restart`, `is "${restart}"`, 'Write deploy.restart_policy instead.')
  }
  // The stock CLI leaves it to the default, which restarts; the parser warns of it.
  if (match[1] === 'no' || match[1] === 'none') return undefined
  if (match[1] !== 'on-failure') return { Condition: 'any' }
  return {
    Condition: 'on-failure',
    MaxAttempts: Number(match[2] ?? 0),
  }
}
