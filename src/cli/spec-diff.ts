import type { ServiceSpecBody } from '../compose/index.ts'

/** One field that differs. `undefined`: it is not there. */
export interface FieldChange {
  /** In the words of stack files where they have one (`environment.DEBUG`), else the API's. */
  readonly field: string
  readonly before: string | undefined
  readonly after: string | undefined
  /** Whether a running task gets out of date by it. */
  readonly restarts: boolean
}

/** The words of stack files, by the API's path. Longer paths first. */
const words: readonly (readonly [prefix: string, word: string])[] = [
  ['TaskTemplate.ContainerSpec.Image', 'image'],
  ['TaskTemplate.ContainerSpec.Env', 'environment'],
  ['TaskTemplate.ContainerSpec.Args', 'command'],
  ['TaskTemplate.ContainerSpec.Command', 'entrypoint'],
  ['TaskTemplate.ContainerSpec.Hostname', 'hostname'],
  ['TaskTemplate.ContainerSpec.Dir', 'working_dir'],
  ['TaskTemplate.ContainerSpec.User', 'user'],
  ['TaskTemplate.ContainerSpec.Labels', 'labels'],
  ['TaskTemplate.ContainerSpec.Mounts', 'volumes'],
  ['TaskTemplate.ContainerSpec.Secrets', 'secrets'],
  ['TaskTemplate.ContainerSpec.Configs', 'configs'],
  ['TaskTemplate.ContainerSpec.Healthcheck', 'healthcheck'],
  ['TaskTemplate.ContainerSpec.StopGracePeriod', 'stop_grace_period'],
  ['TaskTemplate.ContainerSpec.StopSignal', 'stop_signal'],
  ['TaskTemplate.ContainerSpec', 'container'],
  ['TaskTemplate.Networks', 'networks'],
  ['TaskTemplate.LogDriver', 'logging'],
  ['TaskTemplate.Resources.Limits', 'deploy.resources.limits'],
  ['TaskTemplate.Resources.Reservations', 'deploy.resources.reservations'],
  ['TaskTemplate.RestartPolicy', 'deploy.restart_policy'],
  ['TaskTemplate.Placement', 'deploy.placement'],
  ['EndpointSpec.Ports', 'ports'],
  ['EndpointSpec.Mode', 'deploy.endpoint_mode'],
  ['Mode.Replicated.Replicas', 'deploy.replicas'],
  ['Mode', 'deploy.mode'],
  ['UpdateConfig', 'deploy.update_config'],
  ['RollbackConfig', 'deploy.rollback_config'],
  ['Labels', 'deploy.labels'],
]

/** What a declaration means when it does not say it. */
const defaults: ReadonlyMap<string, unknown> = new Map([
  ['TaskTemplate.Runtime', 'container'],
  ['TaskTemplate.ContainerSpec.Isolation', 'default'],
  ['EndpointSpec.Mode', 'vip'],
])

/**
 * What differs between two declarations of one service, field by field, in the order of the fields. What a file leaves out
 * equals what is empty. Networks are compared by what `networkName` makes of them: an answer may hold an id.
 */
export function diffSpecs(
  before: ServiceSpecBody,
  after: ServiceSpecBody,
  networkName: (target: string) => string = (target) => target,
): readonly FieldChange[] {
  const old = fieldsOf(before, networkName)
  const next = fieldsOf(after, networkName)
  const paths = [...new Set([...old.keys(), ...next.keys()])].sort()
  return paths.flatMap((path) => {
    const [was, is] = [old.get(path), next.get(path)]
    if (was === is) return []
    return [{ field: wordFor(path), before: was, after: is, restarts: isOfRunningTask(path) }]
  })
}

/**
 * Whether a running task is out of date when this differs. Where it may run is no reason: one that runs where it may goes
 * on. The daemon's own rule is `templateHash` (control/template-hash.ts).
 */
function isOfRunningTask(path: string): boolean {
  if (path.startsWith('EndpointSpec')) return true
  return path.startsWith('TaskTemplate.') && !path.startsWith('TaskTemplate.Placement')
}

function wordFor(path: string): string {
  const found = words.find(([prefix]) => path === prefix || path.startsWith(`${prefix}.`))
  return found ? found[1] + path.slice(found[0].length) : path
}

/** Every value of a declaration as text, by path. Lists of objects by what names an item. */
function fieldsOf(
  spec: ServiceSpecBody,
  networkName: (target: string) => string,
): ReadonlyMap<string, string> {
  const fields = new Map<string, string>()
  const put = (path: string, value: unknown): void => {
    if (value === undefined || value === null || value === '' || value === 0 || value === false) {
      return
    }
    if (Array.isArray(value)) putList(path, value)
    else if (isScalar(value)) {
      if (defaults.get(path) !== value) fields.set(path, String(value))
    } else if (typeof value === 'object') {
      for (const [key, item] of Object.entries(value)) put(`${path}.${key}`, item)
    }
  }
  const putList = (path: string, items: readonly unknown[]): void => {
    if (path.endsWith('.Env')) {
      for (const item of items) {
        const [key = '', ...rest] = String(item).split('=')
        fields.set(`${path}.${key}`, rest.join('='))
      }
      return
    }
    if (!items.every((item) => typeof item === 'object' && item !== null)) {
      if (items.length > 0) fields.set(path, items.map(String).join(' '))
      return
    }
    for (const item of items) {
      const name = nameOf(item, networkName)
      fields.set(name === undefined ? path : `${path}.${name}`, itemText(item))
    }
  }
  const { Name: _name, TaskTemplate, ...rest } = spec
  const { ForceUpdate: _forced, ...template } = TaskTemplate
  put('TaskTemplate', template)
  for (const [key, value] of Object.entries(rest)) put(key, value)
  // What one unit has when nothing is said: an explicit 1 is no difference.
  if (spec.Mode.Replicated) {
    fields.set('Mode.Replicated.Replicas', String(spec.Mode.Replicated.Replicas ?? 1))
  }
  return fields
}

/** An item of a list in one line, without what names it or follows from that. */
function itemText(item: object): string {
  const parts = (value: object, prefix: string): readonly string[] =>
    Object.entries(value).flatMap(([key, part]: [string, unknown]) => {
      if (/^(SecretID|ConfigID|Target|TargetPort|PublishedPort|Protocol|Name)$/.test(key)) return []
      if (part === undefined || part === null || part === '' || part === false) return []
      if (key === 'PublishMode' && part === 'ingress') return []
      if (Array.isArray(part)) return part.length === 0 ? [] : [`${prefix}${key}=${part.join(',')}`]
      if (typeof part === 'object') return parts(part, `${prefix}${key}.`)
      return isScalar(part) ? [`${prefix}${key}=${String(part)}`] : []
    })
  return parts(item, '').join(' ') || 'yes'
}

function isScalar(value: unknown): value is string | number | boolean {
  return ['string', 'number', 'boolean'].includes(typeof value)
}

function nameOf(item: object, networkName: (target: string) => string): string | undefined {
  const text = (key: string): string | undefined => {
    const value: unknown = Reflect.get(item, key)
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined
  }
  const file: unknown = Reflect.get(item, 'File')
  if (typeof file === 'object' && file !== null) {
    const name: unknown = Reflect.get(file, 'Name')
    if (typeof name === 'string') return name
  }
  const port = text('TargetPort')
  if (port !== undefined) {
    const published = text('PublishedPort')
    return `${published === undefined ? '' : `${published}:`}${port}/${text('Protocol') || 'tcp'}`
  }
  const target = text('Target')
  if (target === undefined) return undefined
  return 'Type' in item ? target : networkName(target)
}
