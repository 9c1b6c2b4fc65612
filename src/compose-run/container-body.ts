import { UserError } from '../base/index.ts'
import type {
  ComposeService,
  DeviceRequest,
  Port,
  Project,
  ServiceNetwork,
  ServiceVolume,
} from '../compose/index.ts'
import {
  type ContainerCreateBody,
  type EndpointBody,
  type HostConfigBody,
  type ImageInspect,
  isOlderApi,
  type MountBody,
  type PortMap,
} from '../engine/index.ts'
import type { FileMount } from './files.ts'

/** What a container's body depends on beside its service. */
export interface BodyContext {
  readonly project: Project
  readonly serviceName: string
  readonly service: ComposeService
  readonly labels: Readonly<Record<string, string>>
  /** Name or id that the container is made from. */
  readonly image: string
  readonly imageConfig: ImageInspect['Config']
  readonly apiVersion: string
  /** Id of the container of a service, for `service:` modes, links and `volumes_from`. */
  readonly containerIdOf: (service: string) => string | undefined
  /** Secrets and configs that are bound from the host. */
  readonly fileMounts: readonly FileMount[]
  /** Anonymous volumes of the container that this one follows: name by path. */
  readonly inheritedVolumes?: Readonly<Record<string, string>>
  /** For `run`: the service's name leads to its own containers only. */
  readonly isOneOff?: boolean
  /** Another container of the service has its ports that only one can have: see `soloPorts`. */
  readonly isFurther?: boolean
}

export interface ContainerPlan {
  readonly body: ContainerCreateBody
  /** Networks to join after the making: engines before API 1.44 take one only when they make it. */
  readonly connects: readonly { readonly network: string; readonly endpoint: EndpointBody }[]
}

/** Translates a service into what the engine makes a container from. Throws `unsupported` or `invalidInput`. */
export function containerPlan(context: BodyContext): ContainerPlan {
  const { service, apiVersion } = context
  refuseUnsupported(context)
  const networks = networksInOrder(context)
  const [first, ...others] = networks
  const takesAll = !isOlderApi(apiVersion, '1.44')
  const endpoints = takesAll ? networks : networks.slice(0, 1)
  const mode = networkModeOf(context, first?.network)
  const healthcheck = healthcheckOf(service, apiVersion)
  const { exposed, bindings } = portsOf(service, context.isFurther ?? false)
  const command = wordsOf(context)
  const inherited = context.inheritedVolumes ?? {}
  const anonymous = (service.volumes ?? [])
    .filter((volume) => isPlainAnonymous(volume) && inherited[volume.target] === undefined)
    .map(({ target }) => [target, {}] as const)
  const macAddress = service.macAddress ?? first?.macAddress
  const body: ContainerCreateBody = {
    Image: context.image,
    ...command,
    Env: environmentOf(service),
    Labels: context.labels,
    ...given('Hostname', service.hostname),
    ...given('Domainname', service.domainname),
    ...given('User', service.user),
    ...given('WorkingDir', service.workingDir),
    ...given('Tty', service.tty),
    ...given('OpenStdin', service.stdinOpen),
    AttachStdout: true,
    AttachStderr: true,
    ...given('StopSignal', service.stopSignal),
    ...(service.stopGracePeriodNs !== undefined && {
      StopTimeout: Math.ceil(service.stopGracePeriodNs / 1e9),
    }),
    ...(Object.keys(exposed).length > 0 && { ExposedPorts: exposed }),
    ...(anonymous.length > 0 && { Volumes: Object.fromEntries(anonymous) }),
    ...(healthcheck && { Healthcheck: healthcheck }),
    ...(macAddress !== undefined && isOlderApi(apiVersion, '1.44') && { MacAddress: macAddress }),
    HostConfig: hostConfigOf(context, mode, bindings),
    ...(endpoints.length > 0 && {
      NetworkingConfig: {
        EndpointsConfig: Object.fromEntries(
          endpoints.map(({ network, endpoint }) => [network, endpoint]),
        ),
      },
    }),
  }
  return { body, connects: takesAll ? [] : others }
}

function given<Key extends string, Value>(
  key: Key,
  value: Value | undefined,
): Partial<Record<Key, Value>> {
  const out: Partial<Record<Key, Value>> = {}
  if (value !== undefined) out[key] = value
  return out
}

/** Throws `unsupported` for the first key of a service that this engine can't honour. */
export function refuseUnsupported({
  service,
  serviceName,
  apiVersion,
}: Pick<BodyContext, 'service' | 'serviceName' | 'apiVersion'>): void {
  const refuse = (key: string, next: string): never => {
    throw new UserError(
      'unsupported',
      `service ${serviceName} has ${key}, which can't be honoured on this engine`,
      {
        next,
      },
    )
  }
  if (service.provider) refuse('provider', 'Replace it with an image of your own.')
  if (Object.keys(service.models ?? {}).length > 0) {
    refuse('models', 'Run the model as a service with an image, and name its address.')
  }
  if (service.useApiSocket) {
    refuse('use_api_socket', 'Mount /var/run/docker.sock as a volume instead.')
  }
  const spec = service.credentialSpec
  if (spec) refuse('credential_spec', 'It is for Windows containers only: take it away.')
  if (service.annotations && isOlderApi(apiVersion, '1.43')) {
    refuse('annotations', 'They need Docker 24 or newer: use labels.')
  }
  if (service.healthcheck?.startIntervalNs !== undefined && isOlderApi(apiVersion, '1.44')) {
    refuse('healthcheck.start_interval', 'It needs Docker 25 or newer: take it away.')
  }
  for (const volume of service.volumes ?? []) {
    if (volume.type === 'cluster' || volume.type === 'npipe') {
      refuse(`a volume of type ${volume.type}`, 'Use bind, volume or tmpfs.')
    }
    if (volume.type === 'image' && isOlderApi(apiVersion, '1.48')) {
      refuse('a volume of type image', 'It needs Docker 28 or newer.')
    }
    if (volume.volume?.subpath !== undefined && isOlderApi(apiVersion, '1.45')) {
      refuse('volume.subpath', 'It needs Docker 26 or newer: mount the whole volume.')
    }
  }
  for (const [name, network] of Object.entries(service.networks ?? {})) {
    if (network.interfaceName !== undefined && isOlderApi(apiVersion, '1.49')) {
      refuse(`networks.${name}.interface_name`, 'It needs Docker 28.1 or newer: take it away.')
    }
    if (network.gwPriority !== undefined && isOlderApi(apiVersion, '1.48')) {
      refuse(`networks.${name}.gw_priority`, 'It needs Docker 28 or newer: take it away.')
    }
  }
}

/** Entrypoint and command. An empty command of a file takes the image's away, which the engine does only where an entrypoint is given. */
function wordsOf({
  service: { command, entrypoint },
  imageConfig,
}: BodyContext): Pick<ContainerCreateBody, 'Cmd' | 'Entrypoint'> {
  const ownEntrypoint =
    command?.length === 0 && entrypoint === undefined
      ? (imageConfig?.Entrypoint ?? undefined)
      : entrypoint
  return { ...given('Cmd', command), ...given('Entrypoint', ownEntrypoint) }
}

function environmentOf(service: ComposeService): readonly string[] {
  return Object.entries(service.environment ?? {}).map(([name, value]) =>
    value === null ? name : `${name}=${value}`,
  )
}

function healthcheckOf(
  service: ComposeService,
  apiVersion: string,
): ContainerCreateBody['Healthcheck'] {
  const check = service.healthcheck
  if (check === undefined) return undefined
  if (check.disable) return { Test: ['NONE'] }
  return {
    ...given('Test', check.test),
    ...given('Interval', check.intervalNs),
    ...given('Timeout', check.timeoutNs),
    ...given('StartPeriod', check.startPeriodNs),
    ...(isOlderApi(apiVersion, '1.44') ? {} : given('StartInterval', check.startIntervalNs)),
    ...given('Retries', check.retries),
  }
}

function portsOf(
  service: ComposeService,
  isFurther: boolean,
): {
  readonly exposed: Record<string, Record<string, never>>
  readonly bindings: PortMap
} {
  const exposed: Record<string, Record<string, never>> = {}
  for (const text of service.expose ?? []) {
    const [range = '', protocol = 'tcp'] = text.split('/')
    const [first = '', last = first] = range.split('-')
    for (let port = Number(first); port <= Number(last); port++) exposed[`${port}/${protocol}`] = {}
  }
  const bindings: Record<string, { HostIp?: string; HostPort?: string }[]> = {}
  const solo = isFurther ? soloPorts(service) : []
  for (const port of service.ports ?? []) {
    const key = `${port.target}/${port.protocol ?? 'tcp'}`
    exposed[key] = {}
    if (solo.includes(port)) continue
    bindings[key] = [...(bindings[key] ?? []), bindingOf(port)]
  }
  return { exposed, bindings }
}

/**
 * Ports that only one container of the service can have: published under one number. Of several containers the first has
 * them, and the others are reached by the service's name.
 */
export function soloPorts({ ports = [] }: ComposeService): readonly Port[] {
  return ports.filter(
    ({ published }) => published !== undefined && published.first === published.last,
  )
}

function bindingOf({ hostIp, published }: Port): { HostIp?: string; HostPort?: string } {
  const ports =
    published === undefined
      ? ''
      : published.first === published.last
        ? `${published.first}`
        : `${published.first}-${published.last}`
  return { ...(hostIp !== undefined && { HostIp: hostIp }), HostPort: ports }
}

function networkModeOf(context: BodyContext, first: string | undefined): string {
  const mode = context.service.networkMode
  return mode === undefined ? (first ?? 'none') : shared(context, 'network_mode', mode)
}

/** `service:x` as the engine's `container:<id>`; anything else as it is. */
function shared(context: BodyContext, key: string, mode: string): string {
  if (!mode.startsWith('service:')) return mode
  const other = mode.slice('service:'.length)
  const id = context.containerIdOf(other)
  if (id === undefined) {
    throw new UserError(
      'failedPrecondition',
      `service ${context.serviceName} has ${key}: ${mode}, and ${other} has no container`,
      { next: `Start ${other} first, or leave out --no-deps.` },
    )
  }
  return `container:${id}`
}

function networksInOrder(context: BodyContext): readonly {
  readonly network: string
  readonly endpoint: EndpointBody
  readonly macAddress: string | undefined
}[] {
  const { project, service, serviceName, isOneOff, apiVersion } = context
  if (service.networkMode !== undefined) return []
  return Object.entries(service.networks ?? {})
    .sort(
      ([oneKey, one], [otherKey, other]) =>
        (other.priority ?? 0) - (one.priority ?? 0) || (oneKey < otherKey ? -1 : 1),
    )
    .map(([key, network]) => ({
      network: project.networks[key]?.name ?? key,
      endpoint: endpointOf(context, network, isOneOff ? [] : [serviceName], apiVersion),
      macAddress: network.macAddress,
    }))
}

function endpointOf(
  context: BodyContext,
  network: ServiceNetwork,
  names: readonly string[],
  apiVersion: string,
): EndpointBody {
  const links = linksOf(context)
  return {
    Aliases: [...new Set([...names, ...(context.isOneOff ? [] : (network.aliases ?? []))])],
    ...(links.length > 0 && { Links: links }),
    ...((network.ipv4Address ?? network.ipv6Address ?? network.linkLocalIps) !== undefined && {
      IPAMConfig: {
        ...given('IPv4Address', network.ipv4Address),
        ...given('IPv6Address', network.ipv6Address),
        ...given('LinkLocalIPs', network.linkLocalIps),
      },
    }),
    ...(isOlderApi(apiVersion, '1.44') ? {} : given('MacAddress', network.macAddress)),
    ...given('DriverOpts', network.driverOpts),
    ...given('GwPriority', network.gwPriority),
  }
}

/** `service[:alias]` and `container[:alias]` as the engine's `container:alias`. */
function linksOf({ service, containerIdOf }: BodyContext): readonly string[] {
  const own = (service.links ?? []).flatMap((text) => {
    const [name = '', alias = name] = text.split(':')
    const id = containerIdOf(name)
    return id === undefined ? [] : [`${id}:${alias}`]
  })
  const external = (service.externalLinks ?? []).map((text) => {
    const [name = '', alias = name] = text.split(':')
    return `${name}:${alias}`
  })
  return [...own, ...external]
}

function hostConfigOf(
  context: BodyContext,
  networkMode: string,
  bindings: PortMap,
): HostConfigBody {
  const { service } = context
  const limits = service.deploy?.resources?.limits
  const reservations = service.deploy?.resources?.reservations
  const requests = [...(service.gpus ?? []), ...(reservations?.devices ?? [])]
  const { binds, mounts } = mountsOf(context)
  const tmpfs = (service.tmpfs ?? []).map((text) => {
    const colon = text.indexOf(':')
    return colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)]
  })
  return {
    NetworkMode: networkMode,
    ...(Object.keys(bindings).length > 0 && { PortBindings: bindings }),
    ...(binds.length > 0 && { Binds: binds }),
    ...(mounts.length > 0 && { Mounts: mounts }),
    RestartPolicy: restartPolicyOf(service),
    ...given('Annotations', service.annotations),
    ...given('Init', service.init),
    ...given('Privileged', service.privileged),
    ...given('ReadonlyRootfs', service.readOnly),
    ...given('CapAdd', service.capAdd),
    ...given('CapDrop', service.capDrop),
    ...given('SecurityOpt', service.securityOpt),
    ...given('GroupAdd', service.groupAdd),
    ...given('Dns', service.dns),
    ...given('DnsSearch', service.dnsSearch),
    ...given('DnsOptions', service.dnsOpt),
    ...(service.extraHosts && {
      ExtraHosts: service.extraHosts.map(({ host, address }) => `${host}:${address}`),
    }),
    ...given('Sysctls', service.sysctls),
    ...(service.ulimits && {
      Ulimits: Object.entries(service.ulimits).map(([name, { soft, hard }]) => ({
        Name: name,
        Soft: soft,
        Hard: hard,
      })),
    }),
    ...(service.logging && {
      LogConfig: { Type: service.logging.driver ?? '', Config: service.logging.options ?? {} },
    }),
    ...given('NanoCpus', limits?.cpusNano ?? service.cpusNano),
    ...given('Memory', limits?.memoryBytes ?? service.memLimitBytes),
    ...given('MemoryReservation', reservations?.memoryBytes ?? service.memReservationBytes),
    ...given('MemorySwap', service.memswapLimitBytes),
    ...given('MemorySwappiness', service.memSwappiness),
    ...given('PidsLimit', limits?.pids ?? service.pidsLimit),
    ...given('CpuCount', service.cpuCount),
    ...given('CpuPercent', service.cpuPercent),
    ...given('CpuPeriod', service.cpuPeriodUs),
    ...given('CpuQuota', service.cpuQuotaUs),
    ...given('CpuRealtimePeriod', service.cpuRtPeriodUs),
    ...given('CpuRealtimeRuntime', service.cpuRtRuntimeUs),
    ...given('CpuShares', service.cpuShares),
    ...given('CpusetCpus', service.cpuset),
    ...given('CgroupParent', service.cgroupParent),
    ...given('CgroupnsMode', service.cgroup),
    ...given('OomKillDisable', service.oomKillDisable),
    ...given('OomScoreAdj', service.oomScoreAdj),
    ...given('ShmSize', service.shmSizeBytes),
    ...given('StorageOpt', service.storageOpt),
    ...given('Runtime', service.runtime),
    ...given('Isolation', service.isolation),
    ...given('UTSMode', service.uts),
    ...given('UsernsMode', service.usernsMode),
    ...(service.pid !== undefined && { PidMode: shared(context, 'pid', service.pid) }),
    ...(service.ipc !== undefined && { IpcMode: shared(context, 'ipc', service.ipc) }),
    ...given('DeviceCgroupRules', service.deviceCgroupRules),
    ...(service.devices && {
      Devices: service.devices.map(({ source, target, permissions }) => ({
        PathOnHost: source,
        PathInContainer: target ?? source,
        CgroupPermissions: permissions ?? 'rwm',
      })),
    }),
    ...(requests.length > 0 && { DeviceRequests: requests.map(deviceRequestOf) }),
    ...(service.volumesFrom && { VolumesFrom: volumesFromOf(context) }),
    ...(tmpfs.length > 0 && { Tmpfs: Object.fromEntries(tmpfs) }),
    ...blkioOf(service),
  }
}

function blkioOf({ blkioConfig }: ComposeService): HostConfigBody {
  if (blkioConfig === undefined) return {}
  const limits = (list: readonly { path: string; rate: number }[] | undefined) =>
    list?.map(({ path, rate }) => ({ Path: path, Rate: rate }))
  return {
    ...given('BlkioWeight', blkioConfig.weight),
    ...given(
      'BlkioWeightDevice',
      blkioConfig.weightDevice?.map(({ path, weight }) => ({ Path: path, Weight: weight })),
    ),
    ...given('BlkioDeviceReadBps', limits(blkioConfig.deviceReadBps)),
    ...given('BlkioDeviceReadIOps', limits(blkioConfig.deviceReadIops)),
    ...given('BlkioDeviceWriteBps', limits(blkioConfig.deviceWriteBps)),
    ...given('BlkioDeviceWriteIOps', limits(blkioConfig.deviceWriteIops)),
  }
}

function deviceRequestOf({
  capabilities,
  driver,
  count,
  deviceIds,
  options,
}: DeviceRequest): NonNullable<HostConfigBody['DeviceRequests']>[number] {
  // Without a count and ids all are meant.
  const all = count ?? (deviceIds === undefined ? -1 : undefined)
  return {
    Capabilities: [capabilities ?? ['gpu']],
    ...given('Driver', driver),
    ...given('Count', all),
    ...given('DeviceIDs', deviceIds),
    ...given('Options', options),
  }
}

function restartPolicyOf(service: ComposeService): { Name: string; MaximumRetryCount?: number } {
  if (service.restart !== undefined) {
    const [name = 'no', times] = service.restart.split(':')
    return { Name: name, ...(times !== undefined && { MaximumRetryCount: Number(times) }) }
  }
  const policy = service.deploy?.restartPolicy
  if (policy === undefined) return { Name: 'no' }
  switch (policy.condition ?? 'any') {
    case 'none':
      return { Name: 'no' }
    case 'on-failure':
      return { Name: 'on-failure', ...given('MaximumRetryCount', policy.maxAttempts) }
    default:
      return { Name: 'always' }
  }
}

function volumesFromOf(context: BodyContext): readonly string[] {
  return (context.service.volumesFrom ?? []).map((text) => {
    if (text.startsWith('container:')) return text.slice('container:'.length)
    const [name = '', ...mode] = text.split(':')
    const id = shared(context, 'volumes_from', `service:${name}`).slice('container:'.length)
    return [id, ...mode].join(':')
  })
}

function mountsOf(context: BodyContext): {
  readonly binds: readonly string[]
  readonly mounts: readonly MountBody[]
} {
  const { service, fileMounts, inheritedVolumes = {} } = context
  const binds: string[] = []
  const mounts: MountBody[] = []
  for (const volume of service.volumes ?? []) {
    const inherited = inheritedVolumes[volume.target]
    if (inherited !== undefined && isAnonymous(volume)) continue
    if (isPlainAnonymous(volume)) continue
    const bind = bindOf(context, volume)
    if (bind === undefined) mounts.push(mountOf(context, volume))
    else binds.push(bind)
  }
  for (const [target, name] of Object.entries(inheritedVolumes)) binds.push(`${name}:${target}:rw`)
  for (const { path, target } of fileMounts) {
    mounts.push({ Type: 'bind', Source: path, Target: target, ReadOnly: true })
  }
  return { binds, mounts }
}

export function isAnonymous({ type, source }: ServiceVolume): boolean {
  return type === 'volume' && source === undefined
}

/** One that needs no more than its path. */
function isPlainAnonymous(volume: ServiceVolume): boolean {
  return isAnonymous(volume) && volume.readOnly !== true && volume.volume === undefined
}

/** The short form where it says all: the engine makes a missing host path only for that one. */
function bindOf({ project }: BodyContext, volume: ServiceVolume): string | undefined {
  const { type, source, target, readOnly, bind, volume: ofVolume } = volume
  if (source === undefined) return undefined
  const mode = readOnly ? 'ro' : 'rw'
  if (type === 'bind' && bind?.createHostPath && bind.recursive === undefined) {
    const parts = [mode, bind.propagation, bind.selinux].filter((part) => part !== undefined)
    return `${source}:${target}:${parts.join(',')}`
  }
  if (type === 'volume' && !ofVolume?.labels && ofVolume?.subpath === undefined) {
    const name = project.volumes[source]?.name ?? source
    return `${name}:${target}:${mode}${ofVolume?.nocopy ? ',nocopy' : ''}`
  }
  return undefined
}

function mountOf({ project, apiVersion }: BodyContext, volume: ServiceVolume): MountBody {
  const { type, source, target, readOnly, bind, volume: ofVolume, tmpfs } = volume
  const shared = { Target: target, ...given('ReadOnly', readOnly) }
  if (type === 'tmpfs') {
    return {
      ...shared,
      Type: 'tmpfs',
      TmpfsOptions: { ...given('SizeBytes', tmpfs?.sizeBytes), ...given('Mode', tmpfs?.mode) },
    }
  }
  if (type === 'image') {
    return {
      ...shared,
      Type: 'image',
      Source: source ?? '',
      ...(volume.image?.subpath !== undefined && {
        ImageOptions: { Subpath: volume.image.subpath },
      }),
    }
  }
  if (type === 'bind') {
    const recursive = bind?.recursive
    return {
      ...shared,
      Type: 'bind',
      Source: source ?? '',
      BindOptions: {
        ...given('Propagation', bind?.propagation),
        ...(bind?.createHostPath && !isOlderApi(apiVersion, '1.42') && { CreateMountpoint: true }),
        ...(recursive === 'disabled' && { NonRecursive: true }),
        ...(recursive === 'writable' && { ReadOnlyNonRecursive: true }),
        ...(recursive === 'readonly' && { ReadOnlyForceRecursive: true }),
      },
    }
  }
  return {
    ...shared,
    Type: 'volume',
    ...(source !== undefined && { Source: project.volumes[source]?.name ?? source }),
    VolumeOptions: {
      ...given('NoCopy', ofVolume?.nocopy),
      ...given('Labels', ofVolume?.labels),
      ...given('Subpath', ofVolume?.subpath),
    },
  }
}
