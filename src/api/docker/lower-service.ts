import { UserError } from '../../base/index.ts'
import type { WorkloadDeclaration } from '../../control/index.ts'
import { drainLabel } from '../../dispatcher/index.ts'
import {
  type Constraint,
  type DeclaredWorkload,
  type GenericResource,
  type IngressPolicy,
  isJob,
  type Network,
  type NetworkAttachmentSpec,
  type NodeLossPolicy,
  type Placement,
  type PortSpec,
  type Reservations,
  type RestartPolicy,
  type TaskTemplate,
  type UpdatePolicy,
  type WorkloadMode,
} from '../../model/index.ts'
import { parseConstraint } from '../../model/placement.ts'
import { parseStartAfter, rebalanceLabel, startAfterLabel } from '../../orchestrator/index.ts'
import { checkAmounts } from './amounts.ts'
import type {
  ServiceSpecDocument,
  TaskTemplateDocument,
  UpdateConfigDocument,
} from './documents.ts'
import { DockerError } from './errors.ts'
import { checkTemplates, lowerContainer } from './lower-container.ts'
import { checkDnsName } from './names.ts'

/** Throws UserError on a text that is no template. A `payload` is a secret's or config's data, which may do more. */
export type CheckTemplate = (text: string, kind: 'text' | 'payload') => void

/** What lowering needs to know beside the document. */
export interface Lowering {
  /** By id, name or beginning of the id. */
  readonly findNetwork: (target: string) => Network | undefined
  readonly checkTemplate: CheckTemplate
}

/** Labels by which the service spec says what Docker's has no field for. */
export const progressDeadlineLabel = 'skep.update.progress-deadline'
/** What happens to a task whose node is lost: `replace`, `keep`, `stop-after 5m`. */
const failureLabel = 'skep.failure'
/** Longest that a stop waits for open connections, in ms. */
const drainMsMax = 600_000
/** Less than this and a short break between a node and the managers would stop tasks that are fine, in ms. */
const stopAfterMsMin = 10_000
/** How long a slot may take to come up during an update, in ms, unless a label says otherwise. */
const progressDeadlineMs = 600_000

const nsPerMs = 1e6
const defaultRestartDelayMs = 5_000
const defaultMonitorMs = 5_000

/** Makes a service spec, normalised, into what the cluster works on. Throws UserError on what cannot be. */
export function lowerService(
  document: ServiceSpecDocument,
  lowering: Lowering,
): WorkloadDeclaration {
  const name = document.Name ?? ''
  checkDnsName(name)
  checkRuntime(document.TaskTemplate)
  const mode = lowerMode(document)
  const endsByItself = isJob({ mode })
  if (endsByItself && (document.UpdateConfig || document.RollbackConfig)) {
    throw new UserError('invalidInput', 'Jobs may not have an update config')
  }
  const template = lowerTemplate(name, document, endsByItself, lowering)
  checkRebalance(document.Labels[rebalanceLabel])
  parseStartAfter(document.Labels[startAfterLabel])
  checkDrain(document.Labels[drainLabel])
  const deadlineMs = lowerDeadline(document.Labels[progressDeadlineLabel])
  return {
    name,
    labels: document.Labels,
    mode,
    update: lowerUpdate(document.UpdateConfig, deadlineMs),
    rollback: lowerUpdate(document.RollbackConfig, deadlineMs),
    onNodeLoss: lowerNodeLoss(document.Labels[failureLabel]),
    template,
    endpoint: lowerEndpoint(document, template, lowering),
    source: { dialect: 'docker', document },
  }
}

/** The document as the Engine stores it: defaults of creation filled in, networks named by id. */
export function normaliseService(
  document: ServiceSpecDocument,
  findNetwork: Lowering['findNetwork'],
): ServiceSpecDocument {
  const { Networks: serviceNetworks, TaskTemplate, Mode, ...rest } = document
  const { ContainerSpec, Networks: taskNetworks } = TaskTemplate
  const networks = (taskNetworks?.length ? taskNetworks : serviceNetworks)?.map((attachment) => ({
    ...attachment,
    ...(attachment.Target
      ? { Target: findNetwork(attachment.Target)?.id ?? attachment.Target }
      : {}),
  }))
  return {
    ...rest,
    TaskTemplate: {
      ...TaskTemplate,
      ...(ContainerSpec
        ? { ContainerSpec: { ...ContainerSpec, Isolation: ContainerSpec.Isolation ?? 'default' } }
        : {}),
      ...(networks ? { Networks: networks } : {}),
      Runtime: TaskTemplate.Runtime ?? 'container',
    },
    Mode: normaliseMode(Mode),
  }
}

type ModeDocument = ServiceSpecDocument['Mode']

function normaliseMode(mode: ModeDocument): ModeDocument {
  const given = [mode.Replicated, mode.Global, mode.ReplicatedJob, mode.GlobalJob]
  if (given.filter((one) => one !== undefined).length > 1) {
    throw new UserError('invalidInput', 'must specify only one service mode')
  }
  if (mode.Global || mode.GlobalJob) return mode
  if (mode.ReplicatedJob) {
    const MaxConcurrent = mode.ReplicatedJob.MaxConcurrent ?? 1
    const TotalCompletions = mode.ReplicatedJob.TotalCompletions ?? MaxConcurrent
    return { ReplicatedJob: { MaxConcurrent, TotalCompletions } }
  }
  return { Replicated: { Replicas: mode.Replicated?.Replicas ?? 1 } }
}

function lowerMode({ Mode }: ServiceSpecDocument): WorkloadMode {
  if (Mode.Global) return { type: 'global' }
  if (Mode.GlobalJob) return { type: 'globalJob' }
  if (Mode.ReplicatedJob) {
    const { MaxConcurrent: maxConcurrent = 1, TotalCompletions } = Mode.ReplicatedJob
    return {
      type: 'replicatedJob',
      maxConcurrent,
      totalCompletions: TotalCompletions ?? maxConcurrent,
    }
  }
  if (Mode.Replicated) return { type: 'replicated', replicas: Mode.Replicated.Replicas ?? 1 }
  throw new UserError('invalidInput', 'Unrecognized service mode')
}

function checkRuntime(task: TaskTemplateDocument): void {
  const runtime = task.Runtime ?? 'container'
  if (runtime === 'plugin' || runtime === 'attachment') {
    throw new UserError('unsupported', `services of Runtime "${runtime}" are not supported`, {
      next: 'Use Runtime "container".',
    })
  }
  if (
    runtime !== 'container' ||
    !task.ContainerSpec ||
    task.PluginSpec ||
    task.NetworkAttachmentSpec
  ) {
    throw new UserError('invalidInput', 'mismatched Runtime and *Spec fields')
  }
}

function lowerTemplate(
  name: string,
  document: ServiceSpecDocument,
  isJob: boolean,
  lowering: Lowering,
): TaskTemplate {
  const task = document.TaskTemplate
  const container = lowerContainer(name, task.ContainerSpec ?? {}, task.Resources?.Limits)
  checkTemplates(container, (text) => lowering.checkTemplate(text, 'text'))
  return {
    containers: [container],
    restart: lowerRestart(task, isJob),
    placement: lowerPlacement(task),
    reservations: lowerReservations(task),
    networks: lowerNetworks(task, lowering),
    forceUpdate: task.ForceUpdate,
    ...(task.LogDriver?.Name
      ? { logDriver: { name: task.LogDriver.Name, options: task.LogDriver.Options ?? {} } }
      : {}),
  }
}

function lowerRestart({ RestartPolicy }: TaskTemplateDocument, isJob: boolean): RestartPolicy {
  const { Condition = 'any', Delay, MaxAttempts = 0, Window = 0 } = RestartPolicy ?? {}
  const condition = { none: 'none', 'on-failure': 'onFailure', any: 'any' } as const
  if (!isKeyOf(condition, Condition)) {
    throw new UserError('invalidInput', `invalid RestartCondition: "${Condition}"`, {
      next: 'Use none, on-failure or any.',
    })
  }
  if ((Delay ?? 0) < 0) {
    throw new UserError('invalidInput', 'TaskSpec: restart-delay cannot be negative')
  }
  if (Window < 0) {
    throw new UserError('invalidInput', 'TaskSpec: restart-window cannot be negative')
  }
  return {
    scope: 'task',
    // A job that has ended well is done: `any` means `on-failure` for it.
    condition: isJob && Condition === 'any' ? 'onFailure' : condition[Condition],
    delayMs: Delay === undefined ? defaultRestartDelayMs : Delay / nsPerMs,
    maxAttempts: MaxAttempts,
    windowMs: Window / nsPerMs,
  }
}

function lowerPlacement({ Placement: placement }: TaskTemplateDocument): Placement {
  return {
    constraints: (placement?.Constraints ?? []).map(lowerConstraint),
    spread: (placement?.Preferences ?? []).flatMap(({ Spread }) =>
      Spread ? [Spread.SpreadDescriptor] : [],
    ),
    maxReplicasPerNode: placement?.MaxReplicas ?? 0,
    platforms: (placement?.Platforms ?? []).map(({ Architecture = '', OS = '' }) => ({
      architecture: Architecture,
      os: OS,
    })),
  }
}

function lowerConstraint(text: string): Constraint {
  try {
    return parseConstraint(text)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    // The Engine answers this one with 500.
    const next = error.next ? `. ${error.next}` : ''
    throw new DockerError(500, `rpc error: code = Unknown desc = ${error.message}${next}`, {
      cause: error,
    })
  }
}

function lowerReservations({ Resources }: TaskTemplateDocument): Reservations {
  const { NanoCPUs = 0, MemoryBytes = 0, GenericResources = [] } = Resources?.Reservations ?? {}
  checkAmounts(NanoCPUs, MemoryBytes)
  const generic: GenericResource[] = GenericResources.map((resource, index) => {
    const { Kind = '', Value = 0 } = resource.DiscreteResourceSpec ?? {}
    if (resource.NamedResourceSpec || Kind === '' || Value < 1) {
      throw new UserError(
        'invalidInput',
        `invalid generic-resource request GenericResources[${index}]: a reservation needs a kind and a count of at least 1`,
        { next: 'Reserve by count, as in --generic-resource gpu=2.' },
      )
    }
    return { kind: Kind, value: Value }
  })
  return { nanoCpus: NanoCPUs, memoryBytes: MemoryBytes, generic }
}

function lowerNetworks(
  task: TaskTemplateDocument,
  lowering: Lowering,
): readonly NetworkAttachmentSpec[] {
  const networks = new Map<string, NetworkAttachmentSpec>()
  for (const { Target = '', Aliases = [], DriverOpts = {} } of task.Networks ?? []) {
    const network = lowering.findNetwork(Target)
    if (!network) throw new UserError('notFound', `network ${Target} not found`)
    networks.set(network.id, {
      networkId: network.id,
      aliases: Aliases,
      driverOptions: DriverOpts,
    })
  }
  return [...networks.values()]
}

function lowerUpdate(
  config: UpdateConfigDocument | undefined,
  progressDeadlineMs: number,
): UpdatePolicy {
  const { Delay = 0, FailureAction = 'pause', Monitor, MaxFailureRatio = 0 } = config ?? {}
  const Order = config?.Order || 'stop-first'
  const order = { 'stop-first': 'stopFirst', 'start-first': 'startFirst' } as const
  const refuse = (what: string): never => {
    throw new UserError('invalidInput', what)
  }
  if (Delay < 0) refuse('TaskSpec: update-delay cannot be negative')
  if ((Monitor ?? 0) < 0) refuse('TaskSpec: update-monitor cannot be negative')
  if (MaxFailureRatio < 0 || MaxFailureRatio > 1) {
    refuse('TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1')
  }
  if (FailureAction !== 'pause' && FailureAction !== 'continue' && FailureAction !== 'rollback') {
    return refuse(`unrecognized update failure action ${FailureAction}`)
  }
  if (!isKeyOf(order, Order)) return refuse(`unrecognized update order ${Order}`)
  return {
    parallelism: config ? config.Parallelism : 1,
    delayMs: Delay / nsPerMs,
    onFailure: FailureAction,
    monitorMs: Monitor === undefined ? defaultMonitorMs : Monitor / nsPerMs,
    maxFailureRatio: MaxFailureRatio,
    order: order[Order],
    progressDeadlineMs,
  }
}

function lowerNodeLoss(text: string | undefined): NodeLossPolicy {
  if (text === undefined || text === 'replace') return { type: 'replace' }
  if (text === 'keep') return { type: 'keep' }
  const [, duration] = /^stop-after[ =](\S+)$/.exec(text) ?? []
  const afterMs = durationMs(duration ?? '')
  if (afterMs >= stopAfterMsMin) return { type: 'stopAfter', afterMs }
  throw new UserError('invalidInput', `label ${failureLabel}: "${text}" is no failure policy`, {
    next: 'Use replace, keep, or stop-after with a time of at least 10s, such as "stop-after 5m".',
  })
}

/** Label: who gets what comes in by a node's published ports; see `EndpointSpec.ingress`. */
const ingressLabel = 'skep.ingress'

function lowerIngress(text: string | undefined): IngressPolicy | undefined {
  if (text === undefined || text === 'preserve' || text === 'spread') return text
  throw new UserError(
    'invalidInput',
    `label ${ingressLabel}: "${text}" is neither preserve nor spread`,
    {
      next: "Use preserve (a node's own tasks first, and the client's address kept) or spread (the tasks of all nodes).",
    },
  )
}

/** How long open connections may take is decided where tasks are handed out; a mistake is told here. */
function checkDrain(text: string | undefined): void {
  if (text === undefined) return
  const isTime = /^\d+(\.\d+)?(ms|s|m)$/.test(text)
  if (isTime && durationMs(text) <= drainMsMax) return
  throw new UserError('invalidInput', `label ${drainLabel}: "${text}" is no time from 0s to 10m`, {
    next: 'Write it as 500ms, 30s or 2m.',
  })
}

function checkRebalance(text: string | undefined): void {
  if (text === undefined || text === 'on' || text === 'off') return
  throw new UserError('invalidInput', `label ${rebalanceLabel}: "${text}" is neither on nor off`)
}

/** `90s`, `10m`, `1.5h` in ms; 0 for what is none. */
function durationMs(text: string): number {
  const [, count, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? []
  const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }
  return unit && isKeyOf(unitMs, unit) ? Number(count) * unitMs[unit] : 0
}

function lowerDeadline(text: string | undefined): number {
  if (text === undefined) return progressDeadlineMs
  const deadlineMs = durationMs(text)
  if (deadlineMs > 0) return deadlineMs
  throw new UserError(
    'invalidInput',
    `label ${progressDeadlineLabel}: "${text}" is not a duration`,
    { next: 'Write it as 90s, 10m or 1h.' },
  )
}

function lowerEndpoint(
  document: ServiceSpecDocument,
  template: TaskTemplate,
  lowering: Lowering,
): DeclaredWorkload['endpoint'] {
  const mode = document.EndpointSpec?.Mode ?? 'vip'
  if (mode !== 'vip' && mode !== 'dnsrr') {
    throw new UserError('invalidInput', `unrecognized endpoint mode: "${mode}"`, {
      next: 'Use vip or dnsrr.',
    })
  }
  const ports = (document.EndpointSpec?.Ports ?? []).map(lowerPort)
  const seen = new Set<string>()
  for (const port of ports) {
    if (mode === 'dnsrr' && port.publishMode === 'ingress') {
      throw new UserError(
        'invalidInput',
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
      )
    }
    if (port.publishedPort === 0) continue
    const key = `${port.publishedPort}/${port.protocol}`
    if (seen.has(key)) {
      throw new UserError('invalidInput', 'EndpointSpec: duplicate published ports provided')
    }
    seen.add(key)
  }
  const ingress = lowerIngress(document.Labels[ingressLabel])
  const networks = template.networks.filter(
    ({ networkId }) => !lowering.findNetwork(networkId)?.spec.predefined,
  )
  const isOnHost = template.networks.some(
    ({ networkId }) => lowering.findNetwork(networkId)?.spec.driver === 'host',
  )
  if (isOnHost && ports.length > 0) {
    throw new UserError(
      'invalidInput',
      "EndpointSpec: ports can't be published by a service on the host network",
      {
        next: 'Leave the ports out: on the host network its processes listen on the host themselves.',
      },
    )
  }
  return {
    mode,
    networks: networks.map(({ networkId, aliases }) => ({ networkId, aliases })),
    ports,
    ...(ingress === undefined ? {} : { ingress }),
  }
}

type PortDocument = NonNullable<NonNullable<ServiceSpecDocument['EndpointSpec']>['Ports']>[number]

function lowerPort(port: PortDocument): PortSpec {
  const { Name, Protocol = 'tcp', TargetPort = 0, PublishedPort = 0, PublishMode } = port
  if (Protocol !== 'tcp' && Protocol !== 'udp' && Protocol !== 'sctp') {
    throw new UserError('invalidInput', `invalid protocol value "${Protocol}"`, {
      next: 'Use tcp, udp or sctp.',
    })
  }
  const publishMode = PublishMode ?? 'ingress'
  if (publishMode !== 'ingress' && publishMode !== 'host') {
    throw new UserError('invalidInput', `invalid PublishMode value "${publishMode}"`, {
      next: 'Use ingress or host.',
    })
  }
  if (TargetPort < 1 || TargetPort > 65_535 || PublishedPort > 65_535) {
    throw new UserError(
      'invalidInput',
      `EndpointSpec: port ${PublishedPort}:${TargetPort} is out of range`,
      { next: 'Ports go from 1 to 65535.' },
    )
  }
  return {
    ...(Name ? { name: Name } : {}),
    protocol: Protocol,
    targetPort: TargetPort,
    publishedPort: PublishedPort,
    publishMode,
  }
}

export function isKeyOf<T extends object>(table: T, key: PropertyKey): key is keyof T {
  return Object.hasOwn(table, key)
}

/** What is accepted but has no effect, in words for the answer's `Warnings`. */
export function warningsOf(declaration: WorkloadDeclaration): readonly string[] {
  return declaration.template.placement.spread
    .filter((key) => !/^(node|engine)\.labels\../i.test(key))
    .map(
      (key) =>
        `placement preference spread=${key} has no effect: only node.labels.<name> and engine.labels.<name> can be spread over`,
    )
}
