import type { TaskId } from '../model/index.ts'
import type { SimulatedBehaviour } from '../runtime/simulated-runtime.ts'
import type { TaskAssignment } from '../wire/index.ts'
import { Chance } from './chance.ts'
import { lineOf, outputOf } from './checkers/logs.ts'

/** Programs that a simulated image may hold, by how often they are chosen. */
const programs = [
  [60, 'good'],
  [10, 'slow'],
  [10, 'checked'],
  [4, 'crashing'],
  [4, 'sickening'],
  [4, 'deaf'],
  [4, 'missing'],
  [4, 'ending'],
] as const

const nsPerMs = 1_000_000
/** Lines that a container writes after its first ones. */
const linesMax = 40

/** What a person may refer to in a service. */
export interface Surroundings {
  readonly networkIds: readonly string[]
  readonly secrets: readonly { readonly id: string; readonly name: string }[]
  readonly configs: readonly { readonly id: string; readonly name: string }[]
}

export type ServiceMode = 'replicated' | 'global' | 'replicatedJob' | 'globalJob'

/** A service document as the stock client sends it, drawn at random. */
export function drawService(
  chance: Chance,
  name: string,
  mark: string,
  mode: ServiceMode,
  { networkIds, secrets, configs }: Surroundings,
): Record<string, unknown> {
  const isJob = mode === 'replicatedJob' || mode === 'globalJob'
  const some = <T>(items: readonly T[]): T[] => {
    const item = chance.oneIn(3) ? chance.pick(items) : undefined
    return item === undefined ? [] : [item]
  }
  const networks = some(networkIds).map((Target) => ({ Target }))
  const mountFile = (target: string) => ({
    File: { Name: target, UID: '0', GID: '0', Mode: 0o444 },
  })
  return {
    Name: name,
    Labels: { mark, ...(chance.oneIn(6) ? { 'skep.drain': '2s' } : {}) },
    TaskTemplate: {
      ContainerSpec: {
        Image: drawImage(chance, isJob),
        Env: [`mark=${mark}`],
        StopGracePeriod: chance.between(1, 8) * 1000 * nsPerMs,
        Secrets: some(secrets).map(({ id, name: SecretName }) => ({
          SecretID: id,
          SecretName,
          ...mountFile(SecretName),
        })),
        Configs: some(configs).map(({ id, name: ConfigName }) => ({
          ConfigID: id,
          ConfigName,
          ...mountFile(`/${ConfigName}`),
        })),
      },
      Resources: drawReservations(chance),
      RestartPolicy: {
        Condition: chance.weighted([
          [6, 'any'],
          [2, 'on-failure'],
          [1, 'none'],
        ]),
        Delay: chance.oneOf(0, 500, 1_000, 2_000) * nsPerMs,
        MaxAttempts: chance.oneIn(5) ? chance.between(1, 4) : 0,
        Window: chance.oneIn(5) ? 20_000 * nsPerMs : 0,
      },
      Placement: drawPlacement(chance),
      ...(networks.length > 0 ? { Networks: networks } : {}),
    },
    Mode: drawMode(chance, mode),
    ...(isJob ? {} : { UpdateConfig: drawUpdate(chance), RollbackConfig: drawUpdate(chance) }),
    EndpointSpec: drawEndpoint(chance, isJob, networks.length > 0),
  }
}

function drawImage(chance: Chance, isJob: boolean): string {
  if (isJob)
    return `app/job:${chance.weighted([
      [5, 'good'],
      [1, 'crashing'],
      [1, 'slow'],
    ])}`
  return `app/web:${chance.weighted(programs)}`
}

export function drawMode(chance: Chance, mode: ServiceMode): Record<string, unknown> {
  switch (mode) {
    case 'replicated':
      return {
        Replicated: {
          Replicas: chance.weighted([
            [1, 0],
            [3, 1],
            [4, 2],
            [4, 3],
            [2, 5],
            [1, 8],
          ]),
        },
      }
    case 'global':
      return { Global: {} }
    case 'replicatedJob': {
      const MaxConcurrent = chance.between(1, 3)
      return { ReplicatedJob: { MaxConcurrent, TotalCompletions: MaxConcurrent + chance.below(4) } }
    }
    case 'globalJob':
      return { GlobalJob: {} }
  }
}

function drawReservations(chance: Chance): Record<string, unknown> {
  if (chance.oneIn(2)) return {}
  const Reservations = {
    NanoCPUs: chance.below(5) * 250_000_000,
    MemoryBytes: chance.below(5) * 256 * 1024 ** 2,
    ...(chance.oneIn(5)
      ? { GenericResources: [{ DiscreteResourceSpec: { Kind: 'gpu', Value: 1 } }] }
      : {}),
  }
  return { Reservations }
}

function drawPlacement(chance: Chance): Record<string, unknown> {
  const constraints = [
    'node.labels.zone==a',
    'node.labels.zone!=b',
    'node.role==worker',
    'node.hostname!=h3',
  ]
  const Constraints = chance.oneIn(4) ? [chance.pick(constraints)] : []
  const Preferences = chance.oneIn(4) ? [{ Spread: { SpreadDescriptor: 'node.labels.zone' } }] : []
  return { Constraints, Preferences, MaxReplicas: chance.oneIn(6) ? chance.between(1, 2) : 0 }
}

function drawUpdate(chance: Chance): Record<string, unknown> {
  return {
    Parallelism: chance.below(4),
    Delay: chance.oneIn(3) ? chance.between(100, 2_000) * nsPerMs : 0,
    FailureAction: chance.oneOf('pause', 'continue', 'rollback'),
    Monitor: chance.between(0, 4) * 1000 * nsPerMs,
    MaxFailureRatio: chance.oneOf(0, 0, 0.3, 0.5),
    Order: chance.oneOf('stop-first', 'start-first'),
  }
}

function drawEndpoint(
  chance: Chance,
  isJob: boolean,
  hasNetwork: boolean,
): Record<string, unknown> {
  if (isJob) return {}
  if (hasNetwork && chance.oneIn(5)) return { Mode: 'dnsrr' }
  const Ports: Record<string, unknown>[] = []
  if (chance.oneIn(3))
    Ports.push({
      Protocol: 'tcp',
      TargetPort: 80,
      PublishedPort: chance.oneIn(2) ? 0 : 8_000 + chance.below(6),
      PublishMode: 'ingress',
    })
  if (chance.oneIn(8))
    Ports.push({
      Protocol: 'tcp',
      TargetPort: 81,
      PublishedPort: 9_000 + chance.below(4),
      PublishMode: 'host',
    })
  return { Mode: 'vip', Ports }
}

/** How one container of an image behaves; `isHealed`: nothing goes wrong any more. */
export function behaviourOf(
  chance: Chance,
  { template, task }: TaskAssignment,
  isHealed: boolean,
): SimulatedBehaviour {
  const [, program] = (template.containers[0]?.image ?? '').split(':')
  const isJob = task.desiredState === 'complete' || task.jobIteration !== undefined
  const base: SimulatedBehaviour = {
    prepareMs: chance.between(5, 300),
    startMs: chance.between(5, 200),
    stopMs: chance.between(0, 400),
    output: outputOf(task.id),
    ...writingOf(task.id),
  }
  if (isJob) {
    const fails = !isHealed && program === 'crashing' && chance.oneIn(2)
    const afterMs = chance.between(200, program === 'slow' ? 8_000 : 3_000)
    return { ...base, exits: { afterMs, code: fails ? 1 : 0 } }
  }
  const health = { healthyAfterMs: chance.between(100, 3_000) }
  if (isHealed) return program === 'checked' || program === 'sickening' ? { ...base, health } : base
  switch (program) {
    case 'slow':
      return { ...base, prepareMs: chance.between(1_000, 20_000), startMs: 1_000 }
    case 'checked':
      return { ...base, health }
    case 'crashing':
      return {
        ...base,
        exits: { afterMs: chance.between(100, 6_000), code: 1, oomKilled: chance.oneIn(4) },
      }
    case 'sickening':
      return {
        ...base,
        health: {
          ...health,
          unhealthyAfterMs: health.healthyAfterMs + chance.between(500, 20_000),
        },
      }
    case 'deaf':
      return { ...base, stopMs: 100_000 }
    case 'missing':
      return { ...base, pullFails: 'simulated: not in the registry' }
    case 'ending':
      return { ...base, exits: { afterMs: chance.between(200, 10_000), code: 0 } }
    default:
      return { ...base, ...misfortune(chance) }
  }
}

/** Half of the containers go on writing; whether one does follows from its task, so that all else is drawn as before. */
function writingOf(taskId: TaskId): SimulatedBehaviour {
  const chance = Chance.of(0, taskId)
  if (chance.oneIn(2)) return {}
  const everyMs = chance.between(500, 15_000)
  return { writes: { everyMs, times: linesMax, text: (nth) => lineOf(taskId, nth) } }
}

/** What may befall any container. */
function misfortune(chance: Chance): SimulatedBehaviour {
  if (!chance.oneIn(12)) return {}
  return chance.weighted<SimulatedBehaviour>([
    [3, { exits: { afterMs: chance.between(100, 60_000), code: chance.between(1, 137) } }],
    [2, { prepareMs: chance.between(2_000, 30_000) }],
    [1, { pullFails: 'simulated: the registry does not answer' }],
    [1, { startFails: 'simulated: no space left on device' }],
    [1, { stopMs: 60_000 }],
    [2, { health: { healthyAfterMs: 500, unhealthyAfterMs: chance.between(1_000, 60_000) } }],
  ])
}
