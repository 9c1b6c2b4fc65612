import type {
  BindOptions,
  BlkioConfig,
  BlkioLimit,
  BlkioWeight,
  Build,
  ComposeModel,
  ComposeNetwork,
  ComposeService,
  ComposeVolume,
  CredentialSpec,
  Dependency,
  Deploy,
  Develop,
  DeviceMapping,
  DeviceRequest,
  DiscreteResource,
  EnvFile,
  Extensions,
  FileReference,
  GenericResource,
  Healthcheck,
  Hook,
  ImageOptions,
  Ipam,
  IpamPool,
  Logging,
  ModelReference,
  Placement,
  PlacementPreference,
  Port,
  Provider,
  ResourceLimits,
  ResourceReservations,
  Resources,
  RestartPolicy,
  ServiceNetwork,
  ServiceVolume,
  TmpfsOptions,
  UpdateConfig,
  VolumeOptions,
  WatchRule,
} from './project.ts'
import { isMapping } from './reader.ts'
import {
  absolutePath,
  anyWhole,
  boolean,
  bytes,
  bytesOrUnlimited,
  choice,
  command,
  count,
  cpusNano,
  cpusNanoText,
  durationNs,
  fileMode,
  fullText,
  hostPath,
  isRemote,
  microseconds,
  number,
  pattern,
  text,
  textOrBoolean,
  whole,
} from './scalars.ts'
import {
  field,
  list,
  object,
  type Place,
  type RecordOf,
  record,
  refused,
  type Shape,
  shapeOf,
  supported,
  textOf,
  warned,
  wrong,
} from './shape.ts'
import {
  consistencyIsIdle,
  extraHosts,
  labels,
  mountTarget,
  publishedPorts,
  shortDevice,
  shortPorts,
  shortVolume,
  targetPort,
  ulimit,
  variables,
} from './short-forms.ts'

/** One file, in long form; several are laid over each other before they become a project. */
export interface FileModel {
  readonly version?: string
  readonly name?: string
  readonly include?: readonly Include[]
  readonly services?: RecordOf<ServiceModel>
  readonly networks?: RecordOf<NetworkModel>
  readonly volumes?: RecordOf<VolumeModel>
  readonly secrets?: RecordOf<FileObjectModel>
  readonly configs?: RecordOf<FileObjectModel>
  readonly models?: RecordOf<ModelModel>
  readonly extensions?: Extensions
}

export type ServiceModel = ComposeService & {
  readonly extends?: Extends
  readonly cgroupnsMode?: string
  readonly volumeDriver?: string
}
export type NetworkModel = Omit<ComposeNetwork, 'name' | 'external'> & Outside
export type VolumeModel = Omit<ComposeVolume, 'name' | 'external'> & Outside
export type ModelModel = Omit<ComposeModel, 'name'> & { readonly name?: string }

interface Outside {
  readonly name?: string
  readonly external?: External
}

/** Of the older form, `external: {name: …}`, the name. */
export interface External {
  readonly isExternal: boolean
  readonly name?: string
}

export interface FileObjectModel extends Outside {
  /** Absolute. */
  readonly file?: string
  readonly environment?: string
  readonly content?: string
  readonly driver?: string
  readonly driverOpts?: RecordOf<string>
  readonly labels?: RecordOf<string>
  readonly templateDriver?: string
  readonly extensions?: Extensions
}

export interface Include {
  /** Absolute; the first names the directory where the others' relative paths start. */
  readonly paths: readonly string[]
  readonly projectDirectory?: string
  readonly envFiles?: readonly string[]
}

export interface Extends {
  readonly service: string
  /** Absolute. Absent: the same file. */
  readonly file?: string
}

// What is said of keys, in more than one place.
const cpuLimit = { stack: refused('Set deploy.resources.limits.cpus.') }
const memoryLimit = { stack: refused('Set deploy.resources.limits.memory.') }
const idleInStack = (why = '') => ({ stack: warned(why) })
const idle = (why: string) => ({ compose: warned(why), stack: warned(why) })
const refusedInStack = (next: string) => ({ stack: refused(next) })
const notInCluster = refusedInStack(
  "Remove it, or run this service with skep compose: a cluster's containers can't have it.",
)
const onlyCluster = { compose: warned('one engine has no cluster; it counts in a stack') }

const texts = list(text, { keyOf: String })
const textOrTexts = list(text, { keyOf: String, takesOne: true })
const plainTexts = list(text)

const fileReference = object<FileReference>(
  {
    source: field('source', fullText, { isRequired: true }),
    target: field('target', text),
    uid: field('uid', text),
    gid: field('gid', text),
    mode: field('mode', fileMode),
  },
  {
    expects: 'a name or a mapping',
    short: (value) => (typeof value === 'string' ? { source: value } : undefined),
  },
)
const fileReferences = list(fileReference, {
  keyOf: ({ source, target }) => target ?? source,
  stackKeyOf: ({ source }) => source,
})

const serviceBuild = object<Build>(
  {
    context: field('context', buildContext()),
    dockerfile: field('dockerfile', text),
    dockerfileInline: field('dockerfile_inline', text),
    args: field('args', variables),
    ssh: field('ssh', sshKeys()),
    labels: field('labels', labels),
    cacheFrom: field('cache_from', plainTexts),
    cacheTo: field('cache_to', plainTexts),
    noCache: field('no_cache', boolean),
    additionalContexts: field('additional_contexts', additionalContexts()),
    entitlements: field('entitlements', texts),
    extraHosts: field('extra_hosts', extraHosts),
    isolation: field('isolation', text),
    network: field('network', text),
    platforms: field('platforms', texts),
    privileged: field('privileged', boolean),
    provenance: field('provenance', textOrBoolean),
    pull: field('pull', boolean),
    sbom: field('sbom', textOrBoolean),
    secrets: field('secrets', fileReferences),
    shmSizeBytes: field('shm_size', bytes),
    tags: field('tags', texts),
    target: field('target', text),
    ulimits: field('ulimits', record(ulimit)),
  },
  {
    expects: 'a path or a mapping',
    short: (value, at) =>
      typeof value === 'string' ? { context: contextPath(value, at) } : undefined,
  },
)

function contextPath(value: string, at: Place): string {
  return isRemote(value) || value === '-' ? value : absolutePath(value, at)
}

function buildContext(): Shape<string> {
  return shapeOf({
    expects: 'a path or a URL',
    parse: (value, at) => contextPath(textOf(value, at, 'a path or a URL'), at),
  })
}

/** `default`, `id=path` or `{id: path}`. */
function sshKeys(): Shape<RecordOf<string>> {
  return shapeOf({
    expects: labels.expects,
    parse: (value, at) => labels.parse(typeof value === 'string' ? [value] : value, at),
    merge: labels.merge,
  })
}

function additionalContexts(): Shape<RecordOf<string>> {
  return shapeOf({
    expects: labels.expects,
    parse: (value, at) =>
      Object.fromEntries(
        Object.entries(labels.parse(value, at)).map(([name, context]) => [
          name,
          isRemote(context) || /^(service|docker-image|oci-layout|target):/.test(context)
            ? context
            : absolutePath(context, at),
        ]),
      ),
    merge: labels.merge,
  })
}

const dependencies = record<Dependency>(
  object<Dependency>(
    {
      condition: field(
        'condition',
        choice(['service_started', 'service_healthy', 'service_completed_successfully']),
        { isRequired: true },
      ),
      restart: field('restart', boolean),
      required: field('required', boolean),
    },
    // Format 2 had the condition alone; without one it means that the other is started.
    { short: (value) => (value === null ? { condition: 'service_started' } : undefined) },
  ),
  { names: () => ({ condition: 'service_started', required: true }) },
)

const updateConfig = object<UpdateConfig>(
  {
    parallelism: field('parallelism', count),
    delayNs: field('delay', durationNs),
    failureAction: field('failure_action', choice(['pause', 'continue', 'rollback'])),
    monitorNs: field('monitor', durationNs),
    maxFailureRatio: field('max_failure_ratio', number),
    order: field('order', choice(['start-first', 'stop-first'])),
  },
  { isEmptyWhenNull: false },
)

/** A number of devices; `all` is -1. */
const deviceCount: Shape<number> = shapeOf({
  expects: 'a whole number or all',
  parse: (value, at) => {
    if (value === 'all') return -1
    const given = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
    if (typeof given === 'number' && Number.isSafeInteger(given) && given >= -1) return given
    throw wrong(at, 'a whole number or all', value)
  },
  write: (given) => (given === -1 ? 'all' : given),
})

const deviceRequest = object<DeviceRequest>({
  capabilities: field('capabilities', texts),
  driver: field('driver', text),
  count: field('count', deviceCount),
  deviceIds: field('device_ids', texts),
  options: field('options', labels),
})

const resources = object<Resources>({
  limits: field(
    'limits',
    object<ResourceLimits>({
      cpusNano: field('cpus', cpusNanoText),
      memoryBytes: field('memory', bytes),
      pids: field('pids', anyWhole),
    }),
  ),
  reservations: field(
    'reservations',
    object<ResourceReservations>({
      cpusNano: field('cpus', cpusNanoText, {
        compose: warned('an engine reserves no CPUs; write limits.cpus'),
      }),
      memoryBytes: field('memory', bytes),
      genericResources: field(
        'generic_resources',
        list(
          object<GenericResource>({
            discreteResourceSpec: field(
              'discrete_resource_spec',
              object<DiscreteResource>({
                kind: field('kind', fullText, { isRequired: true }),
                value: field('value', count, { isRequired: true }),
              }),
            ),
          }),
        ),
        onlyCluster,
      ),
      devices: field(
        'devices',
        list(deviceRequest),
        refusedInStack('Name what nodes offer in generic_resources.'),
      ),
    }),
  ),
})

const deploy = object<Deploy>({
  mode: field('mode', choice(['replicated', 'global', 'replicated-job', 'global-job'])),
  replicas: field('replicas', count),
  endpointMode: field('endpoint_mode', text, onlyCluster),
  labels: field('labels', labels, {
    compose: warned('they are of a service in a cluster; write labels'),
  }),
  updateConfig: field('update_config', updateConfig, onlyCluster),
  rollbackConfig: field('rollback_config', updateConfig, onlyCluster),
  resources: field('resources', resources),
  restartPolicy: field(
    'restart_policy',
    object<RestartPolicy>({
      condition: field('condition', choice(['none', 'on-failure', 'any'])),
      delayNs: field('delay', durationNs, onlyCluster),
      maxAttempts: field('max_attempts', count),
      windowNs: field('window', durationNs, onlyCluster),
    }),
  ),
  placement: field(
    'placement',
    object<Placement>({
      constraints: field('constraints', plainTexts),
      preferences: field(
        'preferences',
        list(
          object<PlacementPreference>({ spread: field('spread', fullText, { isRequired: true }) }),
        ),
      ),
      maxReplicasPerNode: field('max_replicas_per_node', count),
    }),
    onlyCluster,
  ),
})

const hook = object<Hook>({
  command: field('command', command, { isRequired: true }),
  user: field('user', text),
  privileged: field('privileged', boolean),
  workingDir: field('working_dir', text),
  environment: field('environment', variables),
})

const develop = object<Develop>({
  watch: field(
    'watch',
    list(
      object<WatchRule>({
        path: field('path', hostPath, { isRequired: true }),
        action: field(
          'action',
          choice(['rebuild', 'sync', 'restart', 'sync+restart', 'sync+exec']),
          { isRequired: true },
        ),
        target: field('target', text),
        ignore: field('ignore', textOrTexts),
        include: field('include', textOrTexts),
        initialSync: field('initial_sync', boolean),
        exec: field('exec', hook),
      }),
    ),
  ),
})

const healthTest: Shape<readonly string[]> = shapeOf<readonly string[]>({
  expects: 'a string, or a list that begins with NONE, CMD or CMD-SHELL',
  parse: (value, at) => {
    if (!Array.isArray(value)) return ['CMD-SHELL', textOf(value, at, 'a string or a list')]
    const words = value.map((word, index) => textOf(word, at.to(index)))
    const [first] = words
    if (first !== undefined && !['NONE', 'CMD', 'CMD-SHELL'].includes(first)) {
      throw at.fault(
        'must begin with NONE, CMD or CMD-SHELL',
        'Put one of them first, or write the test as one string.',
      )
    }
    return words
  },
})

const healthcheck = object<Healthcheck>({
  test: field('test', healthTest),
  intervalNs: field('interval', durationNs),
  timeoutNs: field('timeout', durationNs),
  startPeriodNs: field('start_period', durationNs),
  startIntervalNs: field('start_interval', durationNs),
  retries: field('retries', count),
  disable: field('disable', boolean),
})

const logging = object<Logging>(
  { driver: field('driver', text), options: field('options', labels) },
  {
    // Options belong to a driver: another driver brings its own.
    merge: (before, after) => {
      const isOther =
        before.driver !== undefined && after.driver !== undefined && before.driver !== after.driver
      if (isOther) return after
      const options = { ...before.options, ...after.options }
      return {
        ...before,
        ...after,
        ...((before.options ?? after.options) !== undefined && { options }),
      }
    },
  },
)

const unaddressed = (what: string) =>
  refusedInStack(`Remove it: a task gets its ${what} from the cluster.`)

const serviceNetworks = record(
  object<ServiceNetwork>(
    {
      aliases: field('aliases', texts),
      interfaceName: field('interface_name', text, notInCluster),
      ipv4Address: field('ipv4_address', text, unaddressed('address')),
      ipv6Address: field('ipv6_address', text, unaddressed('address')),
      linkLocalIps: field('link_local_ips', texts, unaddressed('addresses')),
      macAddress: field('mac_address', text, unaddressed('address')),
      driverOpts: field('driver_opts', labels),
      priority: field('priority', number, idleInStack('a task joins all its networks at once')),
      gwPriority: field('gw_priority', number, idleInStack('a task leaves by its node')),
    },
    { isEmptyWhenNull: true },
  ),
  { names: () => ({}), isReplacedInStack: true },
)

const port = object<Port>(
  {
    name: field('name', text, idleInStack()),
    mode: field('mode', choice(['ingress', 'host'])),
    hostIp: field(
      'host_ip',
      text,
      idleInStack('a port is published on every address of every node'),
    ),
    target: field('target', targetPort, { isRequired: true }),
    published: field('published', publishedPorts),
    protocol: field('protocol', choice(['tcp', 'udp', 'sctp'])),
    appProtocol: field('app_protocol', text, idle('it is a note for readers of the file')),
  },
  {
    expects: 'a port or a mapping',
    finish: ({ published, ...rest }, at) => {
      if (published === undefined || published.first === 0) return rest
      if (at.reading.dialect === 'stack' && published.first !== published.last) {
        throw at.to('published').fault('is a range', 'A cluster publishes one port for a target.')
      }
      return { ...rest, published }
    },
  },
)

/** Where the port is reached: two of a service can't be the same. */
function portKey({ hostIp = '', target, published, protocol = 'tcp' }: Port): string {
  return `${hostIp}:${published?.first ?? ''}-${published?.last ?? ''}:${target}/${protocol}`
}

const serviceVolume = object<ServiceVolume>(
  {
    type: field('type', choice(['bind', 'volume', 'tmpfs', 'cluster', 'npipe', 'image']), {
      isRequired: true,
    }),
    source: field('source', text),
    target: field('target', containerPath(), { isRequired: true }),
    readOnly: field('read_only', boolean),
    consistency: field('consistency', text, { compose: warned(consistencyIsIdle) }),
    bind: field(
      'bind',
      object<BindOptions>({
        propagation: field('propagation', text),
        createHostPath: field(
          'create_host_path',
          boolean,
          idleInStack('a path has to be there on the node'),
        ),
        recursive: field(
          'recursive',
          choice(['enabled', 'disabled', 'writable', 'readonly']),
          notInCluster,
        ),
        selinux: field('selinux', choice(['z', 'Z']), idleInStack()),
      }),
    ),
    volume: field(
      'volume',
      object<VolumeOptions>({
        labels: field('labels', labels, idleInStack('write them at the top-level volume')),
        nocopy: field('nocopy', boolean),
        subpath: field('subpath', text),
      }),
    ),
    tmpfs: field(
      'tmpfs',
      object<TmpfsOptions>({
        sizeBytes: field('size', bytes),
        mode: field('mode', fileMode, notInCluster),
      }),
    ),
    image: field('image', object<ImageOptions>({ subpath: field('subpath', text) }), notInCluster),
  },
  {
    expects: 'source:/target or a mapping',
    short: shortVolume,
    finish: finishVolume,
  },
)

function containerPath(): Shape<string> {
  return shapeOf({
    expects: 'an absolute path in the container',
    parse: (value, at) => mountTarget(textOf(value, at), at),
  })
}

function finishVolume(volume: ServiceVolume, at: Place): ServiceVolume {
  const { type, source } = volume
  if (at.reading.isRaw) return volume
  for (const key of ['bind', 'volume', 'tmpfs', 'image'] as const) {
    if (volume[key] !== undefined && key !== type) {
      throw at.to(key).fault(`does not belong to a mount of type ${type}`)
    }
  }
  if (at.reading.dialect === 'stack' && !['bind', 'volume', 'tmpfs'].includes(type)) {
    throw at.to('type').fault(`is "${type}"`, 'Choose bind, volume or tmpfs in a stack.')
  }
  if ((type === 'bind' || type === 'image' || type === 'npipe') && !source) {
    throw at.fault(
      'has no source',
      type === 'image' ? 'Name an image.' : 'Name a path on the host.',
    )
  }
  if (type === 'tmpfs' && source) {
    throw at.to('source').fault('does not belong to a mount of type tmpfs')
  }
  return type === 'bind' && source ? { ...volume, source: absolutePath(source, at) } : volume
}

const envFile = object<EnvFile>(
  {
    path: field('path', hostPath, { isRequired: true }),
    required: field('required', boolean),
    format: field('format', choice(['raw'])),
  },
  {
    expects: 'a path or a mapping',
    isStrict: true,
    short: (value, at) =>
      typeof value === 'string' ? { path: hostPath.parse(value, at) } : undefined,
  },
)

const blkioLimits = list(
  object<BlkioLimit>({
    path: field('path', fullText, { isRequired: true }),
    rate: field('rate', bytes, { isRequired: true }),
  }),
)

const extendsField = object<Extends>(
  {
    service: field('service', fullText, { isRequired: true }),
    file: field('file', hostPath),
  },
  {
    expects: 'the name of a service or a mapping',
    isStrict: true,
    short: (value) => (typeof value === 'string' ? { service: value } : undefined),
  },
)

/** `80`, `53/udp` or a range. */
const exposedPort = pattern('a port as 80 or 53/udp', /^\d+(-\d+)?(\/(tcp|udp|sctp))?$/)

const gpus = list(deviceRequest, {
  expects: 'all or a list',
  short: (value) => (value === 'all' ? [{ count: -1 }] : undefined),
})

const names = { pattern: /^[a-zA-Z0-9._-]+$/, expects: 'Use letters, digits, ".", "_" and "-".' }
const serviceNames = {
  pattern: /^[a-zA-Z0-9][a-zA-Z0-9._-]*$/,
  expects: 'Use letters, digits, ".", "_" and "-", and begin with a letter or digit.',
}

export const serviceShape = object<ServiceModel>({
  annotations: field('annotations', labels, notInCluster),
  attach: field('attach', boolean, idleInStack('skep service logs shows what services write')),
  blkioConfig: field(
    'blkio_config',
    object<BlkioConfig>({
      deviceReadBps: field('device_read_bps', blkioLimits),
      deviceReadIops: field('device_read_iops', blkioLimits),
      deviceWriteBps: field('device_write_bps', blkioLimits),
      deviceWriteIops: field('device_write_iops', blkioLimits),
      weight: field('weight', whole(0, 1000)),
      weightDevice: field(
        'weight_device',
        list(
          object<BlkioWeight>({
            path: field('path', fullText, { isRequired: true }),
            weight: field('weight', whole(0, 1000), { isRequired: true }),
          }),
        ),
      ),
    }),
    notInCluster,
  ),
  build: field('build', serviceBuild, idleInStack('images are not built by a stack')),
  capAdd: field('cap_add', texts),
  capDrop: field('cap_drop', texts),
  cgroup: field('cgroup', choice(['host', 'private']), notInCluster),
  cgroupParent: field('cgroup_parent', text, idleInStack()),
  cgroupnsMode: field('cgroupns_mode', text, {
    compose: refused('Write it as cgroup.'),
    stack: warned(''),
  }),
  command: field('command', command),
  configs: field('configs', fileReferences),
  containerName: field(
    'container_name',
    pattern('a name of letters, digits, "_", "." and "-"', /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/),
    idleInStack('each task has a name of its own'),
  ),
  cpuCount: field('cpu_count', count, cpuLimit),
  cpuPercent: field('cpu_percent', whole(0, 100), cpuLimit),
  cpuPeriodUs: field('cpu_period', microseconds, cpuLimit),
  cpuQuotaUs: field('cpu_quota', microseconds, cpuLimit),
  cpuRtPeriodUs: field('cpu_rt_period', microseconds, cpuLimit),
  cpuRtRuntimeUs: field('cpu_rt_runtime', microseconds, cpuLimit),
  cpuShares: field('cpu_shares', count, cpuLimit),
  cpusNano: field('cpus', cpusNano, cpuLimit),
  cpuset: field('cpuset', text, cpuLimit),
  credentialSpec: field(
    'credential_spec',
    object<CredentialSpec>(
      {
        config: field('config', text),
        file: field('file', text),
        registry: field('registry', text),
      },
      {
        finish: (spec, at) => {
          const given = [spec.config, spec.file, spec.registry].filter((one) => one !== undefined)
          if (given.length === 1) return spec
          throw at.fault('needs exactly one of config, file and registry')
        },
      },
    ),
    { compose: refused('Remove it: it belongs to Windows.') },
  ),
  dependsOn: field('depends_on', dependencies),
  deploy: field('deploy', deploy),
  develop: field('develop', develop, idleInStack('skep compose watch is for one engine')),
  deviceCgroupRules: field('device_cgroup_rules', texts, notInCluster),
  devices: field(
    'devices',
    list(
      object<DeviceMapping>(
        {
          source: field('source', fullText, { isRequired: true }),
          target: field('target', text),
          permissions: field('permissions', pattern('letters of rwm', /^[rwm]+$/)),
        },
        { expects: '/dev/a:/dev/b or a mapping', short: shortDevice },
      ),
      { keyOf: ({ source, target }) => target ?? source },
    ),
    idleInStack(),
  ),
  dns: field('dns', textOrTexts),
  dnsOpt: field('dns_opt', texts),
  dnsSearch: field('dns_search', textOrTexts),
  domainname: field('domainname', text, idleInStack()),
  entrypoint: field('entrypoint', command),
  envFiles: field('env_file', list(envFile, { keyOf: ({ path }) => path, takesOne: true })),
  environment: field('environment', variables),
  expose: field(
    'expose',
    list(exposedPort, { keyOf: String }),
    idleInStack('services of one network reach all ports of each other'),
  ),
  extends: field('extends', extendsField),
  externalLinks: field('external_links', texts, idleInStack()),
  extraHosts: field('extra_hosts', extraHosts),
  gpus: field('gpus', gpus, refusedInStack('Name what nodes offer in generic_resources.')),
  groupAdd: field('group_add', texts),
  healthcheck: field('healthcheck', healthcheck),
  hostname: field('hostname', text),
  image: field('image', text),
  init: field('init', boolean),
  ipc: field('ipc', text, idleInStack()),
  isolation: field('isolation', text),
  labelFiles: field('label_file', list(hostPath, { keyOf: String, takesOne: true })),
  labels: field('labels', labels),
  links: field('links', texts, idleInStack('services of one network know each other by name')),
  logging: field('logging', logging),
  macAddress: field('mac_address', text, idleInStack()),
  memLimitBytes: field('mem_limit', bytes, memoryLimit),
  memReservationBytes: field(
    'mem_reservation',
    bytes,
    refusedInStack('Set deploy.resources.reservations.memory.'),
  ),
  memSwappiness: field('mem_swappiness', whole(0, 100), notInCluster),
  memswapLimitBytes: field('memswap_limit', bytesOrUnlimited, memoryLimit),
  models: field(
    'models',
    record(
      object<ModelReference>(
        { endpointVar: field('endpoint_var', text), modelVar: field('model_var', text) },
        { isEmptyWhenNull: true },
      ),
      { names: () => ({}) },
    ),
    {
      compose: refused('Run the model as a service: this engine runs no models itself.'),
      stack: refused('Run the model as a service: nodes run no models themselves.'),
    },
  ),
  networkMode: field('network_mode', text, idleInStack('name the network host in networks')),
  networks: field('networks', serviceNetworks),
  oomKillDisable: field('oom_kill_disable', boolean, notInCluster),
  oomScoreAdj: field('oom_score_adj', whole(-1000, 1000), idleInStack()),
  pid: field('pid', text, idleInStack()),
  pidsLimit: field('pids_limit', anyWhole, refusedInStack('Set deploy.resources.limits.pids.')),
  platform: field('platform', text),
  ports: field(
    'ports',
    list(port, {
      spread: shortPorts,
      keyOf: portKey,
      stackKeyOf: ({ published }) => String(published?.first ?? 0),
    }),
  ),
  postStart: field('post_start', list(hook), notInCluster),
  preStop: field('pre_stop', list(hook), notInCluster),
  privileged: field('privileged', boolean, idleInStack()),
  profiles: field('profiles', texts),
  provider: field(
    'provider',
    object<Provider>({
      type: field('type', text, { isRequired: true }),
      options: field('options', providerOptions()),
    }),
    {
      compose: refused(
        'Start what it stands for yourself: providers are programs of Docker Desktop.',
      ),
      stack: refused('Start what it stands for yourself.'),
    },
  ),
  pullPolicy: field(
    'pull_policy',
    pattern(
      'one of always, never, missing, if_not_present, build, refresh, daily, weekly, every_<duration>',
      /^(always|never|build|if_not_present|missing|refresh|daily|weekly|every_(\d+[wdhms])+)$/,
    ),
    idleInStack('a node pulls what it does not have'),
  ),
  pullRefreshAfter: field(
    'pull_refresh_after',
    text,
    idleInStack('a node pulls what it does not have'),
  ),
  readOnly: field('read_only', boolean),
  restart: field(
    'restart',
    shapeOf({
      expects: 'one of no, always, unless-stopped, on-failure, on-failure:<times>',
      parse: (value, at) => {
        const given = value === false ? 'no' : textOf(value, at)
        if (given === '' || /^(no|always|unless-stopped|on-failure(:\d+)?)$/.test(given)) {
          if (given === 'no' && at.reading.dialect === 'stack') {
            at.reading.onIdle(`${at.text()}: no`, 'write deploy.restart_policy.condition: none')
          }
          return given
        }
        if (given === 'none' && at.reading.dialect === 'stack') return given
        throw wrong(at, 'one of no, always, unless-stopped, on-failure, on-failure:<times>', value)
      },
    }),
  ),
  runtime: field('runtime', text, notInCluster),
  scale: field('scale', count),
  secrets: field('secrets', fileReferences),
  securityOpt: field('security_opt', texts, idleInStack()),
  shmSizeBytes: field('shm_size', bytes, idleInStack()),
  stdinOpen: field('stdin_open', boolean),
  stopGracePeriodNs: field('stop_grace_period', durationNs),
  stopSignal: field('stop_signal', text),
  storageOpt: field('storage_opt', labels, notInCluster),
  sysctls: field('sysctls', labels),
  tmpfs: field('tmpfs', textOrTexts, idleInStack('write it as a volume of type tmpfs')),
  tty: field('tty', boolean),
  ulimits: field('ulimits', record(ulimit)),
  useApiSocket: field('use_api_socket', boolean, notInCluster),
  user: field('user', text),
  usernsMode: field('userns_mode', text, idleInStack()),
  uts: field('uts', text, notInCluster),
  volumeDriver: field('volume_driver', text, {
    compose: refused("Set the volume's driver in the top-level volumes."),
    stack: refused("Set the volume's driver in the top-level volumes."),
  }),
  volumes: field(
    'volumes',
    list(serviceVolume, { keyOf: ({ target }) => target, stackKeyOf: ({ target }) => target }),
  ),
  volumesFrom: field('volumes_from', texts, refusedInStack('Name the volumes in both services.')),
  workingDir: field('working_dir', text),
})

function providerOptions(): Shape<RecordOf<string | readonly string[]>> {
  return shapeOf<RecordOf<string | readonly string[]>>({
    expects: 'a mapping',
    parse: (value, at) => {
      if (!isMapping(value)) throw wrong(at, 'a mapping', value)
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [
          key,
          Array.isArray(item)
            ? item.map((one, index) => textOrBoolean.parse(one, at.to(key).to(index)))
            : textOrBoolean.parse(item, at.to(key)),
        ]),
      )
    },
    merge: (before, after) => ({ ...before, ...after }),
  })
}

const external: Shape<External> = shapeOf<External>({
  expects: 'true or false',
  parse: (value, at) => {
    if (!isMapping(value)) return { isExternal: boolean.parse(value, at) }
    for (const key of Object.keys(value)) {
      if (key === 'name' || key.startsWith('x-')) continue
      throw at.to(key).fault('is not supported', 'external is true or false.')
    }
    const { name } = value
    const here = at.to('name')
    if (name === undefined || name === null) return { isExternal: true }
    at.reading.onDeprecated(
      `${here.text()} is deprecated: write ${at.text().replace(/external$/, 'name')}`,
    )
    return { isExternal: true, name: text.parse(name, here) }
  },
  write: ({ isExternal }) => isExternal,
  inside: { kind: 'fields', fields: [{ name: 'name', compose: supported, stack: supported }] },
})

/** What is there already is only named. */
function onlyNamed<T extends Outside>(value: T, at: Place): T {
  if (value.external?.isExternal !== true) return value
  if (value.external.name !== undefined && value.name !== undefined) {
    throw at.fault('has both name and external.name', 'Keep name.')
  }
  for (const [key, given] of Object.entries(value)) {
    if (['external', 'name', 'extensions'].includes(key) || given === undefined) continue
    throw at
      .to(key)
      .fault('does not belong to something external', 'Remove it, or remove external.')
  }
  const { name } = value.external
  return name === undefined ? value : { ...value, name, external: { isExternal: true } }
}

const networkShape = object<NetworkModel>(
  {
    name: field('name', text),
    external: field('external', external),
    driver: field('driver', text),
    driverOpts: field('driver_opts', labels),
    ipam: field(
      'ipam',
      object<Ipam>({
        driver: field('driver', text),
        config: field(
          'config',
          list(
            object<IpamPool>({
              subnet: field('subnet', text),
              ipRange: field('ip_range', text, notInCluster),
              gateway: field('gateway', text, notInCluster),
              auxAddresses: field('aux_addresses', labels, notInCluster),
            }),
            { keyOf: ({ subnet }) => subnet ?? '' },
          ),
        ),
        options: field('options', labels, notInCluster),
      }),
    ),
    internal: field('internal', boolean),
    attachable: field('attachable', boolean),
    enableIpv4: field('enable_ipv4', boolean, notInCluster),
    enableIpv6: field('enable_ipv6', boolean),
    labels: field('labels', labels),
  },
  { isEmptyWhenNull: true, finish: onlyNamed },
)

const volumeShape = object<VolumeModel>(
  {
    name: field('name', text),
    external: field('external', external),
    driver: field('driver', text),
    driverOpts: field('driver_opts', labels),
    labels: field('labels', labels),
  },
  { isEmptyWhenNull: true, finish: onlyNamed },
)

const drivers = {
  driver: field('driver', text, {
    compose: refused('A driver belongs to a cluster; name a file.'),
  }),
  driverOpts: field('driver_opts', labels, {
    compose: refused('A driver belongs to a cluster; name a file.'),
  }),
}

/** Several lines are no path: they are left to `withoutInlineText`. */
function pathOrText(): Shape<string> {
  return shapeOf({
    expects: 'a path',
    parse: (value, at) => {
      const given = textOf(value, at, 'a path')
      return given.includes('\n') ? given : hostPath.parse(given, at)
    },
  })
}

/** Takes lines under `file` for what they can only be meant as: the content. */
function withoutInlineText(object: FileObjectModel, at: Place): FileObjectModel {
  const { file, ...rest } = object
  if (file?.includes('\n') !== true || object.content !== undefined) return object
  const where = at.to('file').text()
  at.reading.onDeprecated(
    `${where} holds text, which is taken as the content: write ${at.text()}.content`,
  )
  return { ...rest, content: file }
}

const fileObjectFields = {
  name: field('name', text),
  external: field('external', external),
  file: field('file', pathOrText()),
  environment: field('environment', fullText),
  content: field('content', text),
  ...drivers,
  labels: field('labels', labels, { compose: warned('a file on one engine has no labels') }),
  templateDriver: field('template_driver', text, onlyCluster),
}

const fileObjectShape = object<FileObjectModel>(fileObjectFields, {
  isEmptyWhenNull: true,
  finish: (value, at) => {
    const named = withoutInlineText(onlyNamed(value, at), at)
    const kinds = ['file', 'environment', 'content'] as const
    const given = kinds.filter((key) => named[key] !== undefined)
    if (given.length > 1) {
      throw at.fault(`has both ${given.join(' and ')}`, 'Keep one of them.')
    }
    return named
  },
})

const modelShape = object<ModelModel>({
  name: field('name', text),
  model: field('model', fullText, { isRequired: true }),
  contextSize: field('context_size', count),
  runtimeFlags: field('runtime_flags', plainTexts),
})

const include = object<Include>(
  {
    paths: field('path', list(hostPath, { takesOne: true }), { isRequired: true }),
    projectDirectory: field('project_directory', hostPath),
    envFiles: field('env_file', list(hostPath, { takesOne: true })),
  },
  {
    expects: 'a path or a mapping',
    isStrict: true,
    short: (value, at) =>
      typeof value === 'string' ? { paths: [hostPath.parse(value, at)] } : undefined,
  },
)

/** Any version is read as today's format; one that a stack never had is refused. */
const version: Shape<string> = shapeOf({
  expects: 'a string',
  parse: (value, at) => {
    const given = textOf(value, at)
    if (at.reading.dialect === 'stack' && !/^3(\.\d+)?$/.test(given)) {
      throw at.fault(`is ${given}`, 'Leave version out, or write 3.8 or another 3.x.')
    }
    return given
  },
})

/**
 * Every key of a file: how it is read, merged and written, and what becomes of it on one engine (`compose`) and in a cluster
 * (`stack`). The loader does what stands here, and docs/compose.md is made from it. Source: Compose specification.
 */
export const fileShape = object<FileModel>({
  version: field('version', version),
  name: field('name', text, idleInStack('the stack is named on the command line')),
  include: field('include', list(include)),
  services: field('services', record(serviceShape, { key: serviceNames })),
  networks: field('networks', record(networkShape, { key: names, isReplacedInStack: true })),
  volumes: field('volumes', record(volumeShape, { key: names, isReplacedInStack: true })),
  secrets: field('secrets', record(fileObjectShape, { key: names, isReplacedInStack: true })),
  configs: field('configs', record(fileObjectShape, { key: names, isReplacedInStack: true })),
  models: field('models', record(modelShape, { key: names }), idle('no engine here runs models')),
})
