import { parseMounts } from './parse-mounts.ts'
import { parsePorts } from './parse-ports.ts'
import {
  booleanAt,
  checkKeys,
  countAt,
  fault,
  isMapping,
  labelsAt,
  listAt,
  type Mapping,
  mappingAt,
  numberAt,
  pairsAt,
  parsedAt,
  requiredTextAt,
  textAt,
  textOrTextsAt,
  textsAt,
} from './reader.ts'
import type {
  HealthcheckBody,
  LimitsBody,
  PlacementBody,
  ReservationsBody,
  RestartPolicyBody,
  UpdateConfigBody,
} from './service-spec.ts'
import { splitShellWords } from './shell-words.ts'
import type { Pairs, StackFileReference, StackService, StackServiceNetwork } from './stack-file.ts'
import { parseBytes, parseDurationNs, parseNanoCpus } from './units.ts'

/** Keys that a cluster has no use for, with what to say of them. Told, not refused, as the stock CLI does. */
const ignoredKeys: Readonly<Record<string, string>> = {
  build: 'images are not built by a stack',
  cgroup_parent: '',
  cgroupns_mode: '',
  container_name: 'each task has a name of its own',
  depends_on: 'a stack has no start order; let a service wait or retry',
  devices: '',
  domainname: '',
  expose: 'services of one network reach all ports of each other',
  external_links: '',
  ipc: '',
  links: '',
  mac_address: '',
  network_mode: '',
  oom_score_adj: '',
  pid: '',
  privileged: '',
  security_opt: '',
  shm_size: '',
  tmpfs: 'write it as a volume of type tmpfs',
  userns_mode: '',
}

/** Keys of Compose that change what runs: leaving them out would run something else, so they are refused. */
const refusedKeys: Readonly<Record<string, string>> = {
  extends: 'Write the service out, or give several files with -c.',
  volume_driver: "Set the volume's driver in the top-level volumes.",
  volumes_from: 'Name the volumes in both services.',
  cpu_quota: 'Set deploy.resources.limits.cpus.',
  cpu_shares: 'Set deploy.resources.limits.cpus.',
  cpuset: 'Set deploy.resources.limits.cpus.',
  mem_limit: 'Set deploy.resources.limits.memory.',
  memswap_limit: 'Set deploy.resources.limits.memory.',
  profiles: 'Put the service into a file of its own and leave that out.',
}

const serviceKeys: readonly string[] = [
  'cap_add',
  'cap_drop',
  'command',
  'configs',
  'credential_spec',
  'deploy',
  'dns',
  'dns_search',
  'entrypoint',
  'env_file',
  'environment',
  'extra_hosts',
  'healthcheck',
  'hostname',
  'image',
  'init',
  'isolation',
  'labels',
  'logging',
  'networks',
  'ports',
  'read_only',
  'restart',
  'secrets',
  'stdin_open',
  'stop_grace_period',
  'stop_signal',
  'sysctls',
  'tty',
  'ulimits',
  'user',
  'volumes',
  'working_dir',
]

export interface ServiceSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Directory of the file, absolute: relative paths start there. */
  readonly directory: string
  /** Variables of the service's `env_file`, already read. */
  readonly fileEnvironment: Pairs<string | undefined>
  readonly warn: (text: string) => void
}

/** Reads one service of a stack file. Source: Compose file format 3.13. Throws `invalidInput` with the key's path. */
export function parseService(
  path: string,
  json: unknown,
  around: ServiceSurroundings,
): StackService {
  const value = mappingAt(path, json)
  for (const key of Object.keys(value)) {
    const next = refusedKeys[key]
    if (next !== undefined) throw fault(`${path}.${key}`, 'is not supported in a stack', next)
    const why = ignoredKeys[key]
    if (why !== undefined) {
      around.warn(`${path}.${key} has no effect${why === '' ? '' : `: ${why}`}`)
    }
  }
  if (value['restart'] === 'no') {
    around.warn(`${path}.restart: no has no effect: write deploy.restart_policy.condition: none`)
  }
  checkKeys(path, value, [...serviceKeys, ...Object.keys(ignoredKeys)])
  const at = (key: string) => [`${path}.${key}`, value[key]] as const
  return {
    image: textAt(...at('image')),
    command: commandAt(...at('command')),
    entrypoint: commandAt(...at('entrypoint')),
    environment: environmentAt(...at('environment'), around),
    labels: labelsAt(...at('labels')),
    hostname: textAt(...at('hostname')),
    user: textAt(...at('user')),
    workingDir: textAt(...at('working_dir')),
    tty: booleanAt(...at('tty')),
    stdinOpen: booleanAt(...at('stdin_open')),
    readOnly: booleanAt(...at('read_only')),
    init: booleanAt(...at('init')),
    isolation: textAt(...at('isolation')),
    stopSignal: textAt(...at('stop_signal')),
    stopGracePeriodNs: parsedAt(...at('stop_grace_period'), parseDurationNs),
    dns: textOrTextsAt(...at('dns')),
    dnsSearch: textOrTextsAt(...at('dns_search')),
    extraHosts: extraHostsAt(...at('extra_hosts')),
    capAdd: textsAt(...at('cap_add')),
    capDrop: textsAt(...at('cap_drop')),
    sysctls: labelsAt(...at('sysctls')),
    ulimits: ulimitsAt(...at('ulimits')),
    logging: loggingAt(...at('logging')),
    healthcheck: healthcheckAt(...at('healthcheck')),
    credentialSpec: credentialSpecAt(...at('credential_spec')),
    restart: textAt(...at('restart')),
    ports: parsePorts(...at('ports'), around.warn),
    volumes: parseMounts(...at('volumes'), around),
    secrets: referencesAt(...at('secrets')),
    configs: referencesAt(...at('configs')),
    networks: networksAt(...at('networks')),
    ...parseDeploy(...at('deploy')),
  }
}

function parseDeploy(path: string, json: unknown): Partial<StackService> {
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'mode',
    'replicas',
    'labels',
    'endpoint_mode',
    'update_config',
    'rollback_config',
    'resources',
    'restart_policy',
    'placement',
  ])
  const resources = mappingAt(`${path}.resources`, value['resources'])
  checkKeys(`${path}.resources`, resources, ['limits', 'reservations'])
  return {
    mode: textAt(`${path}.mode`, value['mode']),
    replicas: countAt(`${path}.replicas`, value['replicas']),
    endpointMode: textAt(`${path}.endpoint_mode`, value['endpoint_mode']),
    deployLabels: labelsAt(`${path}.labels`, value['labels']),
    updateConfig: updateConfigAt(`${path}.update_config`, value['update_config']),
    rollbackConfig: updateConfigAt(`${path}.rollback_config`, value['rollback_config']),
    limits: limitsAt(`${path}.resources.limits`, resources['limits']),
    reservations: reservationsAt(`${path}.resources.reservations`, resources['reservations']),
    restartPolicy: restartPolicyAt(`${path}.restart_policy`, value['restart_policy']),
    placement: placementAt(`${path}.placement`, value['placement']),
  }
}

function commandAt(path: string, value: unknown): readonly string[] | undefined {
  return typeof value === 'string' ? parsedAt(path, value, splitShellWords) : textsAt(path, value)
}

/** The file's variables under the service's own; one named without a value takes that of this shell. */
function environmentAt(
  path: string,
  value: unknown,
  { env, fileEnvironment }: ServiceSurroundings,
): Pairs<string | undefined> | undefined {
  const own = pairsAt(path, value)
  if (own === undefined && Object.keys(fileEnvironment).length === 0) return undefined
  return Object.fromEntries(
    Object.entries({ ...fileEnvironment, ...own }).map(([key, text]) => [key, text ?? env[key]]),
  )
}

/** `{host: address}`, `[host:address]` or `[host=address]`, as `address host`. */
function extraHostsAt(path: string, value: unknown): readonly string[] | undefined {
  if (value === undefined || value === null) return undefined
  if (isMapping(value)) {
    return Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([host, address]) => `${requiredTextAt(`${path}.${host}`, address)} ${host}`)
  }
  return (textsAt(path, value) ?? []).map((text, index) => {
    const match = /^([^:=]+)[:=](.+)$/.exec(text)
    if (!match) throw fault(`${path}[${index}]`, `"${text}" is not host:address`)
    return `${match[2]} ${match[1]}`
  })
}

function ulimitsAt(path: string, value: unknown): StackService['ulimits'] {
  if (value === undefined || value === null) return undefined
  return Object.fromEntries(
    Object.entries(mappingAt(path, value)).map(([name, limit]) => {
      const here = `${path}.${name}`
      if (!isMapping(limit)) {
        const both = numberAt(here, limit)
        if (both === undefined) throw fault(here, 'is missing')
        return [name, { soft: both, hard: both }]
      }
      checkKeys(here, limit, ['soft', 'hard'])
      const soft = numberAt(`${here}.soft`, limit['soft'])
      const hard = numberAt(`${here}.hard`, limit['hard'])
      if (soft === undefined || hard === undefined) throw fault(here, 'needs both soft and hard')
      return [name, { soft, hard }]
    }),
  )
}

function loggingAt(path: string, json: unknown): StackService['logging'] {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, ['driver', 'options'])
  return {
    driver: textAt(`${path}.driver`, value['driver']),
    options: labelsAt(`${path}.options`, value['options']),
  }
}

function healthcheckAt(path: string, json: unknown): StackService['healthcheck'] {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'test',
    'interval',
    'timeout',
    'start_period',
    'start_interval',
    'retries',
    'disable',
  ])
  const body: HealthcheckBody & { disable?: boolean } = {}
  const test = value['test']
  if (typeof test === 'string') body.Test = ['CMD-SHELL', test]
  else if (test !== undefined && test !== null) {
    const words = textsAt(`${path}.test`, test) ?? []
    if (words.length > 0) body.Test = [...words]
    const [first] = words
    if (first !== undefined && !['NONE', 'CMD', 'CMD-SHELL'].includes(first)) {
      throw fault(
        `${path}.test`,
        'must begin with NONE, CMD or CMD-SHELL',
        'Or write it as one string.',
      )
    }
  }
  const durations = {
    Interval: 'interval',
    Timeout: 'timeout',
    StartPeriod: 'start_period',
    StartInterval: 'start_interval',
  } as const
  for (const key of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
    const name = durations[key]
    const ns = parsedAt(`${path}.${name}`, value[name], parseDurationNs)
    if (ns !== undefined) body[key] = ns
  }
  const retries = countAt(`${path}.retries`, value['retries'])
  if (retries !== undefined) body.Retries = retries
  const disable = booleanAt(`${path}.disable`, value['disable'])
  if (disable !== undefined) body.disable = disable
  return body
}

function credentialSpecAt(path: string, json: unknown): StackService['credentialSpec'] {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, ['config', 'file', 'registry'])
  const given = Object.keys(value).filter((key) => !key.startsWith('x-'))
  if (given.length !== 1) throw fault(path, 'needs exactly one of config, file and registry')
  const config = textAt(`${path}.config`, value['config'])
  const file = textAt(`${path}.file`, value['file'])
  const registry = textAt(`${path}.registry`, value['registry'])
  return {
    ...(config !== undefined && { Config: config }),
    ...(file !== undefined && { File: file }),
    ...(registry !== undefined && { Registry: registry }),
  }
}

function referencesAt(path: string, json: unknown): readonly StackFileReference[] | undefined {
  if (json === undefined || json === null) return undefined
  return listAt(path, json).map((item, index) => {
    const here = `${path}[${index}]`
    if (typeof item === 'string') return { source: item }
    const value = mappingAt(here, item)
    checkKeys(here, value, ['source', 'target', 'uid', 'gid', 'mode'])
    return {
      source: requiredTextAt(`${here}.source`, value['source']),
      target: textAt(`${here}.target`, value['target']),
      uid: textAt(`${here}.uid`, value['uid']),
      gid: textAt(`${here}.gid`, value['gid']),
      mode: countAt(`${here}.mode`, value['mode']),
    }
  })
}

function networksAt(path: string, json: unknown): Pairs<StackServiceNetwork> | undefined {
  if (json === undefined || json === null) return undefined
  if (Array.isArray(json)) {
    return Object.fromEntries((textsAt(path, json) ?? []).map((name) => [name, { aliases: [] }]))
  }
  return Object.fromEntries(
    Object.entries(mappingAt(path, json)).map(([name, item]) => {
      const here = `${path}.${name}`
      const value = mappingAt(here, item)
      checkKeys(here, value, ['aliases', 'driver_opts', 'ipv4_address', 'ipv6_address'])
      for (const key of ['ipv4_address', 'ipv6_address']) {
        if (value[key] === undefined) continue
        throw fault(
          `${here}.${key}`,
          'is not supported in a stack',
          'A task gets its address from the cluster.',
        )
      }
      return [
        name,
        {
          aliases: textsAt(`${here}.aliases`, value['aliases']) ?? [],
          driverOpts: labelsAt(`${here}.driver_opts`, value['driver_opts']),
        },
      ]
    }),
  )
}

/** Drops what was not given. */
function given<T extends object>(value: { [Key in keyof T]?: T[Key] | undefined }): Partial<T> {
  return Object.fromEntries(
    Object.entries(value).filter(([, item]) => item !== undefined),
  ) as Partial<T>
}

function updateConfigAt(path: string, json: unknown): Partial<UpdateConfigBody> | undefined {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, [
    'parallelism',
    'delay',
    'failure_action',
    'monitor',
    'max_failure_ratio',
    'order',
  ])
  return given<UpdateConfigBody>({
    Parallelism: countAt(`${path}.parallelism`, value['parallelism']),
    Delay: parsedAt(`${path}.delay`, value['delay'], parseDurationNs),
    FailureAction: oneOf(`${path}.failure_action`, value['failure_action'], [
      'pause',
      'continue',
      'rollback',
    ]),
    Monitor: parsedAt(`${path}.monitor`, value['monitor'], parseDurationNs),
    MaxFailureRatio: numberAt(`${path}.max_failure_ratio`, value['max_failure_ratio']),
    Order: oneOf(`${path}.order`, value['order'], ['start-first', 'stop-first']),
  })
}

function oneOf(path: string, value: unknown, choices: readonly string[]): string | undefined {
  const text = textAt(path, value)
  if (text === undefined || choices.includes(text)) return text
  throw fault(path, `is "${text}", which is none of ${choices.join(', ')}`)
}

function limitsAt(path: string, json: unknown): LimitsBody | undefined {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, ['cpus', 'memory', 'pids'])
  return given<LimitsBody>({
    NanoCPUs: parsedAt(`${path}.cpus`, value['cpus'], parseNanoCpus),
    MemoryBytes: parsedAt(`${path}.memory`, value['memory'], parseBytes),
    Pids: countAt(`${path}.pids`, value['pids']),
  })
}

function reservationsAt(path: string, json: unknown): ReservationsBody | undefined {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, ['cpus', 'memory', 'generic_resources'])
  const generic = value['generic_resources']
  return given<ReservationsBody>({
    NanoCPUs: parsedAt(`${path}.cpus`, value['cpus'], parseNanoCpus),
    MemoryBytes: parsedAt(`${path}.memory`, value['memory'], parseBytes),
    GenericResources:
      generic === undefined
        ? undefined
        : listAt(`${path}.generic_resources`, generic).map((item, index) => {
            const here = `${path}.generic_resources[${index}]`
            const outer = mappingAt(here, item)
            checkKeys(here, outer, ['discrete_resource_spec'])
            const inner = mappingAt(
              `${here}.discrete_resource_spec`,
              outer['discrete_resource_spec'],
            )
            checkKeys(`${here}.discrete_resource_spec`, inner, ['kind', 'value'])
            return {
              DiscreteResourceSpec: {
                Kind: requiredTextAt(`${here}.discrete_resource_spec.kind`, inner['kind']),
                Value: countAt(`${here}.discrete_resource_spec.value`, inner['value']) ?? 0,
              },
            }
          }),
  })
}

function restartPolicyAt(path: string, json: unknown): RestartPolicyBody | undefined {
  if (json === undefined || json === null) return undefined
  const value = mappingAt(path, json)
  checkKeys(path, value, ['condition', 'delay', 'max_attempts', 'window'])
  return given<RestartPolicyBody>({
    Condition: oneOf(`${path}.condition`, value['condition'], ['none', 'on-failure', 'any']),
    Delay: parsedAt(`${path}.delay`, value['delay'], parseDurationNs),
    MaxAttempts: countAt(`${path}.max_attempts`, value['max_attempts']),
    Window: parsedAt(`${path}.window`, value['window'], parseDurationNs),
  })
}

function placementAt(path: string, json: unknown): PlacementBody | undefined {
  if (json === undefined || json === null) return undefined
  const value: Mapping = mappingAt(path, json)
  checkKeys(path, value, ['constraints', 'preferences', 'max_replicas_per_node'])
  const constraints = textsAt(`${path}.constraints`, value['constraints'])
  const preferences = value['preferences']
  return given<PlacementBody>({
    Constraints: constraints && [...constraints],
    Preferences:
      preferences === undefined
        ? undefined
        : listAt(`${path}.preferences`, preferences).map((item, index) => {
            const here = `${path}.preferences[${index}]`
            const preference = mappingAt(here, item)
            checkKeys(here, preference, ['spread'])
            return {
              Spread: { SpreadDescriptor: requiredTextAt(`${here}.spread`, preference['spread']) },
            }
          }),
    MaxReplicas: countAt(`${path}.max_replicas_per_node`, value['max_replicas_per_node']),
  })
}
