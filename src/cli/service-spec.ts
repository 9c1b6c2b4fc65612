import { UserError } from '../base/index.ts'
import {
  type ContainerSpecBody,
  type GenericResourceBody,
  lowerCapabilities,
  type MountBody,
  type NetworkAttachmentBody,
  type PortBody,
  parseBytes,
  parseDurationNs,
  parseNanoCpus,
  parseShortPort,
  type ServiceSpecBody,
  splitShellWords,
  type UpdateConfigBody,
} from '../compose/index.ts'

/** Flags of `service create` and `service update` as Commander collects them; create's lists are taken as `…Add`. */
export interface ServiceFlags {
  readonly name?: string
  readonly mode?: string
  readonly image?: string
  readonly args?: string
  readonly entrypoint?: string
  readonly replicas?: string
  readonly maxConcurrent?: string
  readonly replicasMaxPerNode?: string
  readonly hostname?: string
  readonly user?: string
  readonly workdir?: string
  readonly tty?: boolean
  readonly init?: boolean
  readonly readOnly?: boolean
  readonly isolation?: string
  readonly stopSignal?: string
  readonly stopGracePeriod?: string
  readonly endpointMode?: string
  readonly logDriver?: string
  readonly logOpt?: readonly string[]
  readonly oomScoreAdj?: string
  readonly limitCpu?: string
  readonly limitMemory?: string
  readonly limitPids?: string
  readonly reserveCpu?: string
  readonly reserveMemory?: string
  readonly restartCondition?: string
  readonly restartDelay?: string
  readonly restartMaxAttempts?: string
  readonly restartWindow?: string
  readonly updateParallelism?: string
  readonly updateDelay?: string
  readonly updateFailureAction?: string
  readonly updateMonitor?: string
  readonly updateMaxFailureRatio?: string
  readonly updateOrder?: string
  readonly rollbackParallelism?: string
  readonly rollbackDelay?: string
  readonly rollbackFailureAction?: string
  readonly rollbackMonitor?: string
  readonly rollbackMaxFailureRatio?: string
  readonly rollbackOrder?: string
  readonly healthCmd?: string
  readonly healthInterval?: string
  readonly healthTimeout?: string
  readonly healthStartPeriod?: string
  readonly healthStartInterval?: string
  readonly healthRetries?: string
  readonly healthcheck?: boolean
  readonly force?: boolean
  readonly envAdd?: readonly string[]
  readonly envRm?: readonly string[]
  readonly labelAdd?: readonly string[]
  readonly labelRm?: readonly string[]
  readonly containerLabelAdd?: readonly string[]
  readonly containerLabelRm?: readonly string[]
  readonly constraintAdd?: readonly string[]
  readonly constraintRm?: readonly string[]
  readonly placementPrefAdd?: readonly string[]
  readonly placementPrefRm?: readonly string[]
  readonly publishAdd?: readonly string[]
  readonly publishRm?: readonly string[]
  readonly mountAdd?: readonly string[]
  readonly mountRm?: readonly string[]
  readonly networkAdd?: readonly string[]
  readonly networkRm?: readonly string[]
  readonly secretAdd?: readonly string[]
  readonly secretRm?: readonly string[]
  readonly configAdd?: readonly string[]
  readonly configRm?: readonly string[]
  readonly capAdd?: readonly string[]
  readonly capDrop?: readonly string[]
  readonly dnsAdd?: readonly string[]
  readonly dnsRm?: readonly string[]
  readonly dnsOptionAdd?: readonly string[]
  readonly dnsOptionRm?: readonly string[]
  readonly dnsSearchAdd?: readonly string[]
  readonly dnsSearchRm?: readonly string[]
  readonly groupAdd?: readonly string[]
  readonly groupRm?: readonly string[]
  readonly hostAdd?: readonly string[]
  readonly hostRm?: readonly string[]
  readonly sysctlAdd?: readonly string[]
  readonly sysctlRm?: readonly string[]
  readonly ulimitAdd?: readonly string[]
  readonly ulimitRm?: readonly string[]
  readonly genericResourceAdd?: readonly string[]
  readonly genericResourceRm?: readonly string[]
}

export function emptySpec(image: string, args: readonly string[]): ServiceSpecBody {
  return {
    Name: '',
    Labels: {},
    TaskTemplate: {
      ContainerSpec: { Image: image, ...(args.length > 0 && { Args: [...args] }) },
      ForceUpdate: 0,
    },
    Mode: { Replicated: {} },
    EndpointSpec: { Mode: 'vip' },
  }
}

/**
 * A spec with the flags applied; the one given is not touched. New secrets and configs have no id yet; networks are told as written.
 * `env` is where `--env NAME` without a value looks. Throws `invalidInput`.
 */
export function applyServiceFlags(
  before: ServiceSpecBody,
  flags: ServiceFlags,
  env: Readonly<Record<string, string | undefined>>,
): ServiceSpecBody {
  const spec = structuredClone(before)
  const task = spec.TaskTemplate
  const container = task.ContainerSpec
  if (flags.name !== undefined) spec.Name = flags.name
  applyMode(spec, flags)
  spec.Labels = changeMap(spec.Labels, flags.labelAdd, flags.labelRm)

  if (flags.image !== undefined) container.Image = flags.image
  if (flags.args !== undefined) setList(container, 'Args', splitShellWords(flags.args))
  if (flags.entrypoint !== undefined)
    setList(container, 'Command', splitShellWords(flags.entrypoint))
  if (flags.hostname !== undefined) container.Hostname = flags.hostname
  if (flags.user !== undefined) container.User = flags.user
  if (flags.workdir !== undefined) container.Dir = flags.workdir
  if (flags.tty !== undefined) container.TTY = flags.tty
  if (flags.init !== undefined) container.Init = flags.init
  if (flags.readOnly !== undefined) container.ReadOnly = flags.readOnly
  if (flags.isolation !== undefined) container.Isolation = flags.isolation
  if (flags.stopSignal !== undefined) container.StopSignal = flags.stopSignal
  if (flags.stopGracePeriod !== undefined) {
    container.StopGracePeriod = parseDurationNs(flags.stopGracePeriod)
  }
  if (flags.oomScoreAdj !== undefined) {
    container.OomScoreAdj = integer('--oom-score-adj', flags.oomScoreAdj, -1000)
  }
  if (flags.envAdd || flags.envRm) {
    setList(
      container,
      'Env',
      changeEnv(container.Env ?? [], flags.envAdd ?? [], flags.envRm ?? [], env),
    )
  }
  if (flags.containerLabelAdd || flags.containerLabelRm) {
    container.Labels = changeMap(container.Labels, flags.containerLabelAdd, flags.containerLabelRm)
  }
  if (flags.sysctlAdd || flags.sysctlRm) {
    container.Sysctls = changeMap(container.Sysctls, flags.sysctlAdd, flags.sysctlRm)
  }
  if (flags.groupAdd || flags.groupRm) {
    setList(container, 'Groups', changeList(container.Groups, flags.groupAdd, flags.groupRm))
  }
  applyHosts(container, flags)
  applyDns(container, flags)
  applyCapabilities(container, flags)
  applyUlimits(container, flags)
  applyMounts(container, flags)
  applyFiles(container, flags)
  applyHealth(container, flags)

  applyResources(spec, flags)
  applyRestart(spec, flags)
  applyPlacement(spec, flags)
  applyUpdates(spec, flags)
  applyNetworks(spec, flags)
  applyPorts(spec, flags)
  if (flags.logDriver !== undefined || flags.logOpt !== undefined) {
    task.LogDriver = {
      ...(flags.logDriver === undefined ? task.LogDriver : { Name: flags.logDriver }),
      ...(flags.logOpt && { Options: pairs('--log-opt', flags.logOpt) }),
    }
  }
  if (flags.force) task.ForceUpdate = (task.ForceUpdate ?? 0) + 1
  return spec
}

function applyMode(spec: ServiceSpecBody, flags: ServiceFlags): void {
  switch (flags.mode) {
    case undefined:
      break
    case 'replicated':
      spec.Mode = { Replicated: {} }
      break
    case 'global':
      spec.Mode = { Global: {} }
      break
    case 'replicated-job':
      spec.Mode = { ReplicatedJob: {} }
      break
    case 'global-job':
      spec.Mode = { GlobalJob: {} }
      break
    default:
      throw new UserError('invalidInput', `the mode ${flags.mode} is unknown`, {
        next: 'Choose replicated, global, replicated-job or global-job.',
      })
  }
  if (flags.replicas !== undefined) setReplicas(spec, count('--replicas', flags.replicas))
  if (flags.maxConcurrent !== undefined) {
    if (!spec.Mode.ReplicatedJob) throw wrongMode('--max-concurrent', 'replicated-job')
    spec.Mode.ReplicatedJob.MaxConcurrent = count('--max-concurrent', flags.maxConcurrent)
  }
}

/** Throws `invalidInput` for a global service, which has no number of its own. */
export function setReplicas(spec: ServiceSpecBody, replicas: number): void {
  if (spec.Mode.Replicated) spec.Mode.Replicated.Replicas = replicas
  else if (spec.Mode.ReplicatedJob) spec.Mode.ReplicatedJob.TotalCompletions = replicas
  else throw wrongMode('A number of replicas', 'replicated or replicated-job')
}

function wrongMode(what: string, mode: string): UserError {
  return new UserError('invalidInput', `${what} goes with the mode ${mode} only`, {
    next: 'A global service runs once on every node.',
  })
}

function applyHosts(container: ContainerSpecBody, { hostAdd, hostRm }: ServiceFlags): void {
  if (!hostAdd && !hostRm) return
  const parse = (text: string) => {
    const match = /^([^:=]+)[:=](.+)$/.exec(text)
    if (!match) throw notA('--host', text, 'host:address', 'db:192.0.2.1')
    return `${match[2]} ${match[1]}`
  }
  const removed = (hostRm ?? []).map((text) => (/[:=]/.test(text) ? parse(text) : text))
  const kept = (container.Hosts ?? []).filter(
    (line) => !removed.some((one) => one === line || line.split(' ').slice(1).includes(one)),
  )
  setList(container, 'Hosts', [...new Set([...kept, ...(hostAdd ?? []).map(parse)])])
}

function applyDns(container: ContainerSpecBody, flags: ServiceFlags): void {
  const lists = {
    Nameservers: [flags.dnsAdd, flags.dnsRm],
    Search: [flags.dnsSearchAdd, flags.dnsSearchRm],
    Options: [flags.dnsOptionAdd, flags.dnsOptionRm],
  } as const
  for (const key of ['Nameservers', 'Search', 'Options'] as const) {
    const [add, rm] = lists[key]
    if (!add && !rm) continue
    const config = { ...container.DNSConfig }
    setList(config, key, changeList(config[key], add, rm))
    container.DNSConfig = config
  }
}

function applyCapabilities(container: ContainerSpecBody, { capAdd, capDrop }: ServiceFlags): void {
  if (!capAdd && !capDrop) return
  const { CapabilityAdd, CapabilityDrop } = lowerCapabilities(capAdd ?? [], capDrop ?? [])
  // As docker: a capability that is added now is no longer dropped, and the other way round.
  const { CapabilityAdd: addBefore = [], CapabilityDrop: dropBefore = [] } = container
  const add = new Set([
    ...addBefore.filter((name) => !CapabilityDrop?.includes(name)),
    ...(CapabilityAdd ?? []),
  ])
  const drop = new Set([
    ...dropBefore.filter((name) => !CapabilityAdd?.includes(name)),
    ...(CapabilityDrop ?? []),
  ])
  setList(container, 'CapabilityAdd', [...add].sort())
  setList(container, 'CapabilityDrop', [...drop].sort())
}

function applyUlimits(container: ContainerSpecBody, { ulimitAdd, ulimitRm }: ServiceFlags): void {
  if (!ulimitAdd && !ulimitRm) return
  const byName = new Map((container.Ulimits ?? []).map((limit) => [limit.Name, limit]))
  for (const name of ulimitRm ?? []) byName.delete(name)
  for (const text of ulimitAdd ?? []) {
    const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text)
    if (!match?.[1]) throw notA('--ulimit', text, 'name=soft[:hard]', 'nofile=1024:2048')
    const soft = Number(match[2])
    byName.set(match[1], { Name: match[1], Hard: Number(match[3] ?? soft), Soft: soft })
  }
  setList(
    container,
    'Ulimits',
    [...byName.values()].sort((a, b) => (a.Name < b.Name ? -1 : 1)),
  )
}

function applyMounts(container: ContainerSpecBody, { mountAdd, mountRm }: ServiceFlags): void {
  if (!mountAdd && !mountRm) return
  const byTarget = new Map((container.Mounts ?? []).map((mount) => [mount.Target, mount]))
  for (const target of mountRm ?? []) byTarget.delete(target)
  for (const text of mountAdd ?? []) {
    const mount = parseMount(text)
    byTarget.set(mount.Target, mount)
  }
  setList(container, 'Mounts', [...byTarget.values()])
}

function applyFiles(container: ContainerSpecBody, flags: ServiceFlags): void {
  if (flags.secretAdd || flags.secretRm) {
    const kept = (container.Secrets ?? []).filter(
      ({ SecretName }) => !flags.secretRm?.includes(SecretName),
    )
    const added = (flags.secretAdd ?? []).map((text) => {
      const { source, file } = parseFileReference('--secret', text)
      return { File: file, SecretID: '', SecretName: source }
    })
    setList(container, 'Secrets', [
      ...kept.filter((old) => !added.some(({ File }) => File.Name === old.File.Name)),
      ...added,
    ])
  }
  if (flags.configAdd || flags.configRm) {
    const kept = (container.Configs ?? []).filter(
      ({ ConfigName }) => !flags.configRm?.includes(ConfigName),
    )
    const added = (flags.configAdd ?? []).map((text) => {
      const { source, file } = parseFileReference('--config', text)
      return { File: file, ConfigID: '', ConfigName: source }
    })
    setList(container, 'Configs', [
      ...kept.filter((old) => !added.some(({ File }) => File.Name === old.File?.Name)),
      ...added,
    ])
  }
}

function applyHealth(container: ContainerSpecBody, flags: ServiceFlags): void {
  const {
    healthCmd,
    healthInterval,
    healthTimeout,
    healthStartPeriod,
    healthStartInterval,
    healthRetries,
  } = flags
  const isChanged = [
    healthCmd,
    healthInterval,
    healthTimeout,
    healthStartPeriod,
    healthStartInterval,
    healthRetries,
  ].some((value) => value !== undefined)
  if (flags.healthcheck === false) {
    if (isChanged) {
      throw new UserError(
        'invalidInput',
        '--no-healthcheck contradicts the other --health-… flags',
        {
          next: 'Remove one of them.',
        },
      )
    }
    container.Healthcheck = { Test: ['NONE'] }
    return
  }
  if (!isChanged) return
  const health = { ...container.Healthcheck }
  if (health.Test?.[0] === 'NONE') delete health.Test
  if (healthCmd !== undefined) health.Test = ['CMD-SHELL', healthCmd]
  if (healthInterval !== undefined) health.Interval = parseDurationNs(healthInterval)
  if (healthTimeout !== undefined) health.Timeout = parseDurationNs(healthTimeout)
  if (healthStartPeriod !== undefined) health.StartPeriod = parseDurationNs(healthStartPeriod)
  if (healthStartInterval !== undefined) health.StartInterval = parseDurationNs(healthStartInterval)
  if (healthRetries !== undefined) health.Retries = count('--health-retries', healthRetries)
  container.Healthcheck = health
}

function applyResources(spec: ServiceSpecBody, flags: ServiceFlags): void {
  const { TaskTemplate: task } = spec
  if (
    flags.limitCpu !== undefined ||
    flags.limitMemory !== undefined ||
    flags.limitPids !== undefined
  ) {
    const limits = { ...task.Resources?.Limits }
    if (flags.limitCpu !== undefined) limits.NanoCPUs = parseNanoCpus(flags.limitCpu)
    if (flags.limitMemory !== undefined) limits.MemoryBytes = parseBytes(flags.limitMemory)
    if (flags.limitPids !== undefined) limits.Pids = count('--limit-pids', flags.limitPids)
    task.Resources = { ...task.Resources, Limits: limits }
  }
  const { reserveCpu, reserveMemory, genericResourceAdd, genericResourceRm } = flags
  if (
    reserveCpu !== undefined ||
    reserveMemory !== undefined ||
    genericResourceAdd ||
    genericResourceRm
  ) {
    const reservations = { ...task.Resources?.Reservations }
    if (reserveCpu !== undefined) reservations.NanoCPUs = parseNanoCpus(reserveCpu)
    if (reserveMemory !== undefined) reservations.MemoryBytes = parseBytes(reserveMemory)
    if (genericResourceAdd || genericResourceRm) {
      const kept = (reservations.GenericResources ?? []).filter(
        (one) => !genericResourceRm?.includes(kindOf(one)),
      )
      reservations.GenericResources = [
        ...kept,
        ...(genericResourceAdd ?? []).map(parseGenericResource),
      ]
    }
    task.Resources = { ...task.Resources, Reservations: reservations }
  }
}

function kindOf(resource: GenericResourceBody): string {
  return resource.DiscreteResourceSpec?.Kind ?? resource.NamedResourceSpec?.Kind ?? ''
}

function parseGenericResource(text: string): GenericResourceBody {
  const match = /^([^=]+)=(.+)$/.exec(text)
  if (!match?.[1] || !match[2]) throw notA('--generic-resource', text, 'kind=value', 'gpu=2')
  const [, Kind, value] = match
  return /^\d+$/.test(value)
    ? { DiscreteResourceSpec: { Kind, Value: Number(value) } }
    : { NamedResourceSpec: { Kind, Value: value } }
}

function applyRestart(spec: ServiceSpecBody, flags: ServiceFlags): void {
  const { restartCondition, restartDelay, restartMaxAttempts, restartWindow } = flags
  if (
    [restartCondition, restartDelay, restartMaxAttempts, restartWindow].every(
      (value) => value === undefined,
    )
  )
    return
  const policy = { ...spec.TaskTemplate.RestartPolicy }
  if (restartCondition !== undefined) {
    policy.Condition = oneOf('--restart-condition', restartCondition, ['none', 'on-failure', 'any'])
  }
  if (restartDelay !== undefined) policy.Delay = parseDurationNs(restartDelay)
  if (restartMaxAttempts !== undefined) {
    policy.MaxAttempts = count('--restart-max-attempts', restartMaxAttempts)
  }
  if (restartWindow !== undefined) policy.Window = parseDurationNs(restartWindow)
  spec.TaskTemplate.RestartPolicy = policy
}

function applyPlacement(spec: ServiceSpecBody, flags: ServiceFlags): void {
  const { constraintAdd, constraintRm, placementPrefAdd, placementPrefRm, replicasMaxPerNode } =
    flags
  if (
    !constraintAdd &&
    !constraintRm &&
    !placementPrefAdd &&
    !placementPrefRm &&
    replicasMaxPerNode === undefined
  )
    return
  const placement = { ...spec.TaskTemplate.Placement }
  if (constraintAdd || constraintRm) {
    setList(
      placement,
      'Constraints',
      changeList(placement.Constraints, constraintAdd, constraintRm).sort(),
    )
  }
  if (placementPrefAdd || placementPrefRm) {
    const parse = (text: string) => {
      const match = /^spread=(.+)$/.exec(text)
      if (!match?.[1])
        throw notA('--placement-pref', text, 'spread=label', 'spread=node.labels.zone')
      return match[1]
    }
    const removed = (placementPrefRm ?? []).map(parse)
    const before = (placement.Preferences ?? []).map(({ Spread }) => Spread.SpreadDescriptor)
    const all = [
      ...before.filter((one) => !removed.includes(one)),
      ...(placementPrefAdd ?? []).map(parse),
    ]
    setList(
      placement,
      'Preferences',
      all.map((SpreadDescriptor) => ({ Spread: { SpreadDescriptor } })),
    )
  }
  if (replicasMaxPerNode !== undefined) {
    placement.MaxReplicas = count('--replicas-max-per-node', replicasMaxPerNode)
  }
  spec.TaskTemplate.Placement = placement
}

function applyUpdates(spec: ServiceSpecBody, flags: ServiceFlags): void {
  const update = updateConfig('update', spec.UpdateConfig, {
    parallelism: flags.updateParallelism,
    delay: flags.updateDelay,
    failureAction: flags.updateFailureAction,
    monitor: flags.updateMonitor,
    maxFailureRatio: flags.updateMaxFailureRatio,
    order: flags.updateOrder,
  })
  if (update) spec.UpdateConfig = update
  const rollback = updateConfig('rollback', spec.RollbackConfig, {
    parallelism: flags.rollbackParallelism,
    delay: flags.rollbackDelay,
    failureAction: flags.rollbackFailureAction,
    monitor: flags.rollbackMonitor,
    maxFailureRatio: flags.rollbackMaxFailureRatio,
    order: flags.rollbackOrder,
  })
  if (rollback) spec.RollbackConfig = rollback
}

function updateConfig(
  prefix: 'update' | 'rollback',
  before: UpdateConfigBody | undefined,
  flags: Readonly<
    Record<
      'parallelism' | 'delay' | 'failureAction' | 'monitor' | 'maxFailureRatio' | 'order',
      string | undefined
    >
  >,
): UpdateConfigBody | undefined {
  if (Object.values(flags).every((value) => value === undefined)) return undefined
  const config: UpdateConfigBody = before
    ? { ...before }
    : {
        Parallelism: 1,
        FailureAction: 'pause',
        Monitor: 5e9,
        MaxFailureRatio: 0,
        Order: 'stop-first',
      }
  const actions = prefix === 'update' ? ['pause', 'continue', 'rollback'] : ['pause', 'continue']
  if (flags.parallelism !== undefined)
    config.Parallelism = count(`--${prefix}-parallelism`, flags.parallelism)
  if (flags.delay !== undefined) config.Delay = parseDurationNs(flags.delay)
  if (flags.failureAction !== undefined) {
    config.FailureAction = oneOf(`--${prefix}-failure-action`, flags.failureAction, actions)
  }
  if (flags.monitor !== undefined) config.Monitor = parseDurationNs(flags.monitor)
  if (flags.maxFailureRatio !== undefined) {
    const ratio = Number(flags.maxFailureRatio)
    if (flags.maxFailureRatio.trim() === '' || !(ratio >= 0 && ratio <= 1)) {
      throw notA(
        `--${prefix}-max-failure-ratio`,
        flags.maxFailureRatio,
        'a number from 0 to 1',
        '0.1',
      )
    }
    config.MaxFailureRatio = ratio
  }
  if (flags.order !== undefined) {
    config.Order = oneOf(`--${prefix}-order`, flags.order, ['start-first', 'stop-first'])
  }
  return config
}

function applyNetworks(spec: ServiceSpecBody, { networkAdd, networkRm }: ServiceFlags): void {
  if (!networkAdd && !networkRm) return
  const byTarget = new Map((spec.TaskTemplate.Networks ?? []).map((one) => [one.Target, one]))
  for (const target of networkRm ?? []) byTarget.delete(target)
  for (const text of networkAdd ?? []) {
    const attachment = parseNetwork(text)
    byTarget.set(attachment.Target, attachment)
  }
  setList(spec.TaskTemplate, 'Networks', [...byTarget.values()])
}

function applyPorts(spec: ServiceSpecBody, flags: ServiceFlags): void {
  const { publishAdd, publishRm, endpointMode } = flags
  if (!publishAdd && !publishRm && endpointMode === undefined) return
  const endpoint = { ...spec.EndpointSpec }
  if (endpointMode !== undefined) {
    endpoint.Mode = oneOf('--endpoint-mode', endpointMode, ['vip', 'dnsrr'])
  }
  if (publishAdd || publishRm) {
    const removed = (publishRm ?? []).map(parseRemovedPort)
    const added = (publishAdd ?? []).flatMap(parsePublish)
    const kept = (endpoint.Ports ?? []).filter(
      (port) =>
        !removed.some(
          ({ target, protocol }) =>
            port.TargetPort === target && (port.Protocol ?? 'tcp') === protocol,
        ) &&
        !added.some(
          (one) =>
            one.PublishedPort !== undefined &&
            one.PublishedPort === port.PublishedPort &&
            one.Protocol === (port.Protocol ?? 'tcp'),
        ),
    )
    setList(endpoint, 'Ports', [...kept, ...added])
  }
  spec.EndpointSpec = endpoint
}

function parseRemovedPort(text: string): { target: number; protocol: string } {
  const match = /^(?:\d+:)?(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text)
  if (!match?.[1]) throw notA('--publish-rm', text, 'the port in the container', '80 or 53/udp')
  return { target: Number(match[1]), protocol: match[2] ?? 'tcp' }
}

/** Reads `8080:80`, or `published=8080,target=80,protocol=udp,mode=host`. Throws `invalidInput`. */
export function parsePublish(text: string): readonly PortBody[] {
  if (!text.includes('=')) {
    return parseShortPort('--publish', text, () => {
      throw new UserError(
        'invalidInput',
        `--publish ${text} names an address, which has no effect`,
        {
          next: 'A port is published on every address of every node: leave the address out.',
        },
      )
    })
  }
  const port: PortBody = { Protocol: 'tcp', PublishMode: 'ingress' }
  for (const { key, value } of fields('--publish', text)) {
    switch (key) {
      case 'target':
      case 'published': {
        const number = count(`--publish ${key}`, value)
        if (number > 65_535) throw notA(`--publish ${key}`, value, 'a port', '8080')
        if (key === 'target') port.TargetPort = number
        else port.PublishedPort = number
        break
      }
      case 'protocol':
        port.Protocol = oneOf('--publish protocol', value.toLowerCase(), ['tcp', 'udp', 'sctp'])
        break
      case 'mode':
        port.PublishMode = oneOf('--publish mode', value, ['ingress', 'host'])
        break
      default:
        throw unknownField('--publish', key, ['target', 'published', 'protocol', 'mode'])
    }
  }
  if (!port.TargetPort)
    throw notA('--publish', text, 'a port with target=', 'published=8080,target=80')
  return [port]
}

/** Reads `name`, or `name=net,alias=a,driver-opt=k=v`. Throws `invalidInput`. */
export function parseNetwork(text: string): NetworkAttachmentBody {
  if (!text.includes('=')) return { Target: text }
  const attachment: NetworkAttachmentBody = { Target: '' }
  for (const { key, value } of fields('--network', text)) {
    if (key === 'name') attachment.Target = value
    else if (key === 'alias') attachment.Aliases = [...(attachment.Aliases ?? []), value]
    else if (key === 'driver-opt') {
      attachment.DriverOpts = {
        ...attachment.DriverOpts,
        ...pairs('--network driver-opt', [value]),
      }
    } else throw unknownField('--network', key, ['name', 'alias', 'driver-opt'])
  }
  if (attachment.Target === '')
    throw notA('--network', text, 'a network with name=', 'name=net,alias=db')
  return attachment
}

/** Reads `type=volume,source=a,target=/a,readonly` and its like. Throws `invalidInput`. */
export function parseMount(text: string): MountBody {
  const mount: MountBody = { Type: 'volume' }
  const volume: NonNullable<MountBody['VolumeOptions']> = {}
  const bind: NonNullable<MountBody['BindOptions']> = {}
  const tmpfs: NonNullable<MountBody['TmpfsOptions']> = {}
  for (const { key, value, isBare } of fields('--mount', text)) {
    const on = () => (isBare ? true : boolean(`--mount ${key}`, value))
    switch (key) {
      case 'type':
        mount.Type = oneOf('--mount type', value.toLowerCase(), [
          'bind',
          'volume',
          'tmpfs',
          'npipe',
          'cluster',
        ])
        break
      case 'source':
      case 'src':
        mount.Source = value
        break
      case 'target':
      case 'dst':
      case 'destination':
        mount.Target = value
        break
      case 'readonly':
      case 'ro':
        mount.ReadOnly = on()
        break
      case 'consistency':
        mount.Consistency = value
        break
      case 'bind-propagation':
        bind.Propagation = value
        break
      case 'bind-nonrecursive':
        bind.NonRecursive = on()
        break
      case 'bind-create-src':
        bind.CreateMountpoint = on()
        break
      case 'volume-nocopy':
        volume.NoCopy = on()
        break
      case 'volume-subpath':
        volume.Subpath = value
        break
      case 'volume-label':
        volume.Labels = { ...volume.Labels, ...pairs('--mount volume-label', [value]) }
        break
      case 'volume-driver':
        volume.DriverConfig = { ...volume.DriverConfig, Name: value }
        break
      case 'volume-opt':
        volume.DriverConfig = {
          ...volume.DriverConfig,
          Options: { ...volume.DriverConfig?.Options, ...pairs('--mount volume-opt', [value]) },
        }
        break
      case 'tmpfs-size':
        tmpfs.SizeBytes = parseBytes(value)
        break
      case 'tmpfs-mode':
        if (!/^[0-7]+$/.test(value))
          throw notA('--mount tmpfs-mode', value, 'an octal mode', '1777')
        tmpfs.Mode = Number.parseInt(value, 8)
        break
      default:
        throw unknownField('--mount', key, mountFields)
    }
  }
  if (!mount.Target)
    throw notA('--mount', text, 'a mount with target=', 'type=volume,source=data,target=/data')
  const options = { volume, bind, tmpfs }
  for (const type of ['volume', 'bind', 'tmpfs'] as const) {
    if (Object.keys(options[type]).length === 0) continue
    if (type !== mount.Type) {
      throw new UserError(
        'invalidInput',
        `--mount ${text} mixes ${type} options with the type ${mount.Type}`,
        {
          next: `Write type=${type}, or remove them.`,
        },
      )
    }
  }
  if (mount.Type === 'bind' && !mount.Source) {
    throw notA('--mount', text, 'a bind with source=', 'type=bind,source=/host,target=/data')
  }
  return {
    ...mount,
    ...(Object.keys(volume).length > 0 && { VolumeOptions: volume }),
    ...(Object.keys(bind).length > 0 && { BindOptions: bind }),
    ...(Object.keys(tmpfs).length > 0 && { TmpfsOptions: tmpfs }),
  }
}

const mountFields = [
  'type',
  'source',
  'target',
  'readonly',
  'consistency',
  'bind-propagation',
  'bind-nonrecursive',
  'bind-create-src',
  'volume-nocopy',
  'volume-subpath',
  'volume-label',
  'volume-driver',
  'volume-opt',
  'tmpfs-size',
  'tmpfs-mode',
]

/** Reads `name`, or `source=name,target=path,uid=0,gid=0,mode=0444`. Throws `invalidInput`. */
export function parseFileReference(
  flag: string,
  text: string,
): { source: string; file: { Name: string; UID: string; GID: string; Mode: number } } {
  const file = { Name: '', UID: '0', GID: '0', Mode: 0o444 }
  if (!text.includes('=')) return { source: text, file: { ...file, Name: text } }
  let source = ''
  for (const { key, value } of fields(flag, text)) {
    switch (key) {
      case 'source':
      case 'src':
        source = value
        break
      case 'target':
        file.Name = value
        break
      case 'uid':
        file.UID = value
        break
      case 'gid':
        file.GID = value
        break
      case 'mode':
        if (!/^[0-7]+$/.test(value)) throw notA(`${flag} mode`, value, 'an octal mode', '0440')
        file.Mode = Number.parseInt(value, 8)
        break
      default:
        throw unknownField(flag, key, ['source', 'target', 'uid', 'gid', 'mode'])
    }
  }
  if (source === '') throw notA(flag, text, 'a reference with source=', 'source=name,target=file')
  return { source, file: { ...file, Name: file.Name || source } }
}

/** `a=b,c="d,e",flag`. */
function fields(
  flag: string,
  text: string,
): readonly { readonly key: string; readonly value: string; readonly isBare: boolean }[] {
  const parts = text.match(/(?:"(?:[^"]|"")*"|[^,])+/g) ?? []
  return parts.map((part) => {
    const bare = part.replace(/^"(.*)"$/s, '$1').replace(/""/g, '"')
    const at = bare.indexOf('=')
    if (at === 0) throw notA(flag, text, 'key=value,…', 'type=volume,target=/data')
    return at < 0
      ? { key: bare.trim().toLowerCase(), value: '', isBare: true }
      : { key: bare.slice(0, at).trim().toLowerCase(), value: bare.slice(at + 1), isBare: false }
  })
}

function changeEnv(
  before: readonly string[],
  add: readonly string[],
  rm: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  const nameOf = (text: string) => text.split('=', 1)[0] ?? ''
  const byName = new Map(before.map((text) => [nameOf(text), text]))
  for (const name of rm) byName.delete(name)
  for (const text of add) {
    const name = nameOf(text)
    if (name === '') throw notA('--env', text, 'NAME=value', 'NODE_ENV=production')
    const value = env[name]
    byName.set(name, text.includes('=') || value === undefined ? text : `${name}=${value}`)
  }
  return [...byName.values()]
}

function changeMap(
  before: Record<string, string> | undefined,
  add: readonly string[] | undefined,
  rm: readonly string[] | undefined,
): Record<string, string> {
  const after = { ...before }
  for (const key of rm ?? []) delete after[key]
  return { ...after, ...pairs('a label', add ?? []) }
}

function changeList(
  before: readonly string[] | undefined,
  add: readonly string[] | undefined,
  rm: readonly string[] | undefined,
): string[] {
  const kept = (before ?? []).filter((item) => !rm?.includes(item))
  return [...new Set([...kept, ...(add ?? [])])]
}

/** An empty list is left out. */
function setList<T, K extends keyof T>(
  target: T,
  key: K,
  items: NonNullable<T[K]> & readonly unknown[],
): void {
  if (items.length > 0) target[key] = items
  else delete target[key]
}

export function pairs(flag: string, texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=')
      if (at === 0) throw notA(flag, text, 'key=value', 'team=web')
      return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

/** A whole number, 0 or more. */
export function count(flag: string, text: string): number {
  return integer(flag, text, 0)
}

function integer(flag: string, text: string, least: number): number {
  const number = Number(text)
  if (/^-?\d+$/.test(text) && Number.isSafeInteger(number) && number >= least) return number
  throw new UserError('invalidInput', `${flag} "${text}" is not a whole number of ${least} or more`)
}

function boolean(flag: string, text: string): boolean {
  if (/^(true|1|t)$/i.test(text)) return true
  if (/^(false|0|f)$/i.test(text)) return false
  throw notA(flag, text, 'true or false', 'true')
}

export function oneOf(flag: string, text: string, choices: readonly string[]): string {
  if (choices.includes(text)) return text
  throw new UserError('invalidInput', `${flag} ${text} is unknown`, {
    next: `Choose one of ${choices.join(', ')}.`,
  })
}

function notA(flag: string, text: string, what: string, example: string): UserError {
  return new UserError('invalidInput', `${flag} "${text}" is not ${what}`, {
    next: `Write it as ${example}.`,
  })
}

function unknownField(flag: string, key: string, known: readonly string[]): UserError {
  return new UserError('invalidInput', `${flag} has the unknown field ${key}`, {
    next: `There are ${known.join(', ')}.`,
  })
}
