import { UserError } from '../base/index.ts'
import {
  type FileObjectBody,
  familiarImage,
  type NetworkCreateBody,
  type ServiceSpecBody,
  type Stack,
  type StackObject,
  type StackServiceBody,
  stackImageLabel,
  stackLabel,
} from '../compose/index.ts'
import type { ApiInfo, ApiNetwork, ApiSecret, ApiService } from './api.ts'
import { type Client, filtersQuery, found } from './client.ts'
import { resolveImage } from './registry.ts'
import { diffSpecs, type FieldChange } from './spec-diff.ts'

export interface PlanOptions {
  readonly prune: boolean
  /** Services to deploy by their names in the files; absent: all. */
  readonly only?: readonly string[]
  /** When a registry is asked for digests. */
  readonly resolveImage: 'always' | 'changed' | 'never'
  /** The registry login to send with a service, if any. */
  readonly authFor: (image: string) => Promise<string | undefined>
  readonly readFile: (path: string) => Promise<Buffer>
  readonly warn: (text: string) => void
}

/** What deploying a stack changes, in the order in which it is done. What is as the files say is counted. */
export interface StackPlan {
  readonly stack: string
  readonly steps: readonly StackStep[]
  /** Secrets and configs of an earlier content that nothing will need afterwards: API paths by name. */
  readonly outdated: readonly {
    readonly kind: 'secret' | 'config'
    readonly id: string
    readonly name: string
  }[]
  /** Services of the stack that the files no longer have and that stay. */
  readonly unwanted: readonly string[]
}

export type StackStep =
  | {
      readonly kind: 'network'
      readonly action: 'create' | 'keep'
      readonly name: string
      readonly body: NetworkCreateBody
    }
  | ObjectStep
  | ServiceStep
  | {
      readonly kind: 'service'
      readonly action: 'remove'
      readonly name: string
      readonly id: string
    }

export interface ObjectStep {
  readonly kind: 'secret' | 'config'
  /** `relabel`: the same content under other labels. */
  readonly action: 'create' | 'relabel' | 'keep'
  readonly name: string
  /** The name of the version before, whose content differs. */
  readonly replaces?: string
  readonly body: FileObjectBody
  readonly current?: ApiSecret
}

export interface ServiceStep {
  readonly kind: 'service'
  readonly action: 'create' | 'update' | 'keep'
  readonly name: string
  /** Without the ids of secrets and configs, which may not be there yet. */
  readonly body: ServiceSpecBody
  readonly auth: string | undefined
  readonly current?: ApiService
  readonly changes: readonly FieldChange[]
  /** Tasks that are replaced by it. */
  readonly restarts: number
}

/** On a version of a secret or config: the name that the files know it by. */
export const objectLabel = 'skep.object'

export const stackFilter = (name: string) => filtersQuery({ label: [`${stackLabel}=${name}`] })

/** Compares the files with the cluster. Nothing is changed. Throws what deploying would throw for what can be known before. */
export async function planStack(
  client: Client,
  whole: Stack,
  options: PlanOptions,
): Promise<StackPlan> {
  const info = await client.call<ApiInfo>('/info')
  if (info.Swarm?.ControlAvailable !== true) {
    throw new UserError('notManager', 'this node is not a manager', {
      next: 'Begin a cluster with `skep swarm init`, or name a manager with -H.',
    })
  }
  const stack = options.only === undefined ? whole : partOf(whole, options.only)
  const query = stackFilter(stack.name)
  await checkExternalNetworks(client, stack)
  const [networks, services] = await Promise.all([
    client.call<ApiNetwork[]>('/networks', { query }),
    client.call<ApiService[]>('/services', { query: { ...query, status: true } }),
  ])
  const present = new Set(networks.map(({ Name }) => Name))
  const objects = new Objects(client, stack.name, options)
  const secrets = await objects.plan('secret', stack.secrets)
  const configs = await objects.plan('config', stack.configs)
  const kept = new Set(whole.services.map(({ body }) => body.Name))
  const unwanted = services.filter(({ Spec }) => !kept.has(Spec.Name))
  const removed = options.prune ? unwanted : []
  const networkNames = new Map(networks.map(({ Id, Name }) => [Id, Name]))
  const serviceSteps: ServiceStep[] = []
  for (const service of stack.services) {
    serviceSteps.push(
      await planService(client, objects.rename(service), services, networkNames, options),
    )
  }
  return {
    stack: stack.name,
    steps: [
      ...removed.map(({ ID, Spec }) => ({
        kind: 'service' as const,
        action: 'remove' as const,
        name: Spec.Name,
        id: ID,
      })),
      ...stack.networks.map((body) => ({
        kind: 'network' as const,
        action: present.has(body.Name) ? ('keep' as const) : ('create' as const),
        name: body.Name,
        body,
      })),
      ...secrets,
      ...configs,
      ...serviceSteps,
    ],
    outdated: objects.outdated(
      services.filter((service) => !removed.includes(service)),
      serviceSteps,
    ),
    unwanted: options.prune ? [] : unwanted.map(({ Spec }) => Spec.Name),
  }
}

/** Those services, and what they use. */
function partOf(stack: Stack, only: readonly string[]): Stack {
  const names = stack.services.map(({ body }) => body.Name.slice(stack.name.length + 1))
  const unknown = only.find((name) => !names.includes(name))
  if (unknown !== undefined) {
    throw new UserError('invalidInput', `the files have no service ${unknown}`, {
      next: `They have ${names.join(', ')}.`,
    })
  }
  const services = stack.services.filter(({ body }) =>
    only.includes(body.Name.slice(stack.name.length + 1)),
  )
  const containers = services.map(({ body }) => body.TaskTemplate.ContainerSpec)
  const used = new Set([
    ...services.flatMap(({ body }) =>
      (body.TaskTemplate.Networks ?? []).map(({ Target }) => Target),
    ),
    ...containers.flatMap(({ Secrets }) => (Secrets ?? []).map(({ SecretName }) => SecretName)),
    ...containers.flatMap(({ Configs }) => (Configs ?? []).map(({ ConfigName }) => ConfigName)),
  ])
  return {
    ...stack,
    services,
    networks: stack.networks.filter(({ Name }) => used.has(Name)),
    externalNetworks: stack.externalNetworks.filter((name) => used.has(name)),
    secrets: stack.secrets.filter(({ body }) => used.has(body.Name)),
    configs: stack.configs.filter(({ body }) => used.has(body.Name)),
  }
}

async function checkExternalNetworks(client: Client, stack: Stack): Promise<void> {
  for (const name of stack.externalNetworks) {
    if (['host', 'bridge', 'none'].includes(name)) continue
    const network = await found(client.call<ApiNetwork>(`/networks/${encodeURIComponent(name)}`))
    if (network === undefined) {
      throw new UserError('notFound', `the external network ${name} is not there`, {
        next: `Create it: skep network create --driver overlay ${name}`,
      })
    }
    if (network.Scope !== 'swarm') {
      throw new UserError(
        'failedPrecondition',
        `the external network ${name} reaches this node only (scope ${network.Scope})`,
        { next: 'Use a network of the driver overlay.' },
      )
    }
  }
}

/**
 * The secrets and configs of a stack. They never change, so other content is another version, `<name>-2` and so on, which
 * the services refer to from then on. What a file names itself (`name:`) is kept to that name.
 */
class Objects {
  readonly #client: Client
  readonly #stack: string
  readonly #options: PlanOptions
  /** Names of the versions to be used, by the name in the files. */
  readonly #names = { secret: new Map<string, string>(), config: new Map<string, string>() }
  readonly #versions: { readonly kind: 'secret' | 'config'; readonly object: ApiSecret }[] = []

  constructor(client: Client, stack: string, options: PlanOptions) {
    this.#client = client
    this.#stack = stack
    this.#options = options
  }

  async plan(
    kind: 'secret' | 'config',
    objects: readonly StackObject[],
  ): Promise<readonly ObjectStep[]> {
    if (objects.length === 0) return []
    const present = await this.#client.call<ApiSecret[]>(`/${kind}s`, { query: {} })
    const steps: ObjectStep[] = []
    for (const object of objects) steps.push(await this.#planOne(kind, object, present))
    return steps
  }

  async #planOne(
    kind: 'secret' | 'config',
    { body, file, content, isNamed }: StackObject,
    present: readonly ApiSecret[],
  ): Promise<ObjectStep> {
    const data =
      content !== undefined
        ? Buffer.from(content)
        : file === undefined
          ? undefined
          : await this.#options.readFile(file)
    const whole: FileObjectBody = { ...body, ...(data && { Data: data.toString('base64') }) }
    const versions = present
      .filter(
        ({ Spec }) =>
          Spec.Name === body.Name ||
          (Spec.Labels?.[objectLabel] === body.Name && Spec.Labels[stackLabel] === this.#stack),
      )
      .sort((a, b) => b.Version.Index - a.Version.Index)
    for (const object of versions) this.#versions.push({ kind, object })
    for (const current of versions) {
      if (!(await this.#isSame(kind, current, whole))) continue
      const name = current.Spec.Name
      const labels = name === body.Name ? body.Labels : { ...body.Labels, [objectLabel]: body.Name }
      this.#names[kind].set(body.Name, name)
      const isLabelled =
        JSON.stringify(sorted(labels)) === JSON.stringify(sorted(current.Spec.Labels ?? {}))
      return {
        kind,
        action: isLabelled ? 'keep' : 'relabel',
        name,
        body: { ...whole, Name: name, Labels: labels },
        current,
      }
    }
    const [latest] = versions
    if (latest === undefined) {
      this.#names[kind].set(body.Name, body.Name)
      return { kind, action: 'create', name: body.Name, body: whole }
    }
    if (isNamed) {
      throw new UserError(
        'conflict',
        `${kind} ${body.Name} is there with other content, which cannot be changed`,
        {
          next: `Give the new content a new name, as name: ${body.Name}_2 in the stack file, or leave name: out.`,
        },
      )
    }
    const numbers = versions.map(({ Spec }) =>
      Number(/-(\d+)$/.exec(Spec.Name.slice(body.Name.length))?.[1] ?? 1),
    )
    const name = `${body.Name}-${Math.max(...numbers) + 1}`
    this.#names[kind].set(body.Name, name)
    return {
      kind,
      action: 'create',
      name,
      replaces: latest.Spec.Name,
      body: { ...whole, Name: name, Labels: { ...body.Labels, [objectLabel]: body.Name } },
    }
  }

  /** Whether an object that is there holds what is declared, labels and name apart. */
  async #isSame(
    kind: 'secret' | 'config',
    { ID, Spec }: ApiSecret,
    body: FileObjectBody,
  ): Promise<boolean> {
    if ((Spec.Templating?.Name ?? '') !== (body.Templating?.Name ?? '')) return false
    if (kind === 'config') return Spec.Data === body.Data
    // A secret is never told; the manager compares.
    const { Same } = await this.#client.call<{ Same: boolean }>(`/skep/v1/secrets/${ID}/compare`, {
      method: 'POST',
      body: { Data: body.Data ?? '' },
    })
    return Same
  }

  /** The service with the versions of its secrets and configs that are to be used. */
  rename(service: StackServiceBody): StackServiceBody {
    const body = structuredClone(service.body)
    for (const secret of body.TaskTemplate.ContainerSpec.Secrets ?? []) {
      secret.SecretName = this.#names.secret.get(secret.SecretName) ?? secret.SecretName
    }
    for (const config of body.TaskTemplate.ContainerSpec.Configs ?? []) {
      config.ConfigName = this.#names.config.get(config.ConfigName) ?? config.ConfigName
    }
    return { ...service, body }
  }

  /** Versions that no service needs once the steps are done, for going back neither. */
  outdated(services: readonly ApiService[], steps: readonly ServiceStep[]): StackPlan['outdated'] {
    const updated = steps.filter(({ action }) => action === 'update').map(({ name }) => name)
    const specs = [
      ...services.flatMap(({ Spec, PreviousSpec }) =>
        // An update makes the current declaration the one before.
        PreviousSpec && !updated.includes(Spec.Name) ? [Spec, PreviousSpec] : [Spec],
      ),
      ...steps.map(({ body }) => body),
    ]
    const used = new Set(
      specs.flatMap(({ TaskTemplate: { ContainerSpec } }) => [
        ...(ContainerSpec.Secrets ?? []).map(({ SecretName }) => `secret ${SecretName}`),
        ...(ContainerSpec.Configs ?? []).map(({ ConfigName }) => `config ${ConfigName}`),
      ]),
    )
    const current = new Set([
      ...[...this.#names.secret.values()].map((name) => `secret ${name}`),
      ...[...this.#names.config.values()].map((name) => `config ${name}`),
    ])
    return this.#versions.flatMap(({ kind, object: { ID, Spec } }) => {
      const key = `${kind} ${Spec.Name}`
      const isOurs = Spec.Labels?.[stackLabel] === this.#stack
      if (!isOurs || used.has(key) || current.has(key)) return []
      return [{ kind, id: ID, name: Spec.Name }]
    })
  }
}

async function planService(
  client: Client,
  { body, image }: StackServiceBody,
  services: readonly ApiService[],
  networkNames: ReadonlyMap<string, string>,
  options: PlanOptions,
): Promise<ServiceStep> {
  const current = services.find(({ Spec }) => Spec.Name === body.Name)
  const container = body.TaskTemplate.ContainerSpec
  const auth = await options.authFor(image)
  const isSame = current?.Spec.Labels[stackImageLabel] === image
  if (options.resolveImage === 'always' || (options.resolveImage === 'changed' && !isSame)) {
    const resolved = await resolveImage(client, image, auth)
    if (resolved.warning !== undefined) options.warn(resolved.warning)
    container.Image = resolved.image
    if (resolved.platforms && resolved.platforms.length > 0) {
      body.TaskTemplate.Placement = {
        ...body.TaskTemplate.Placement,
        Platforms: [...resolved.platforms],
      }
    }
  } else if (current !== undefined && isSame) {
    container.Image = current.Spec.TaskTemplate.ContainerSpec.Image
  } else {
    container.Image = familiarImage(image)
  }
  const base = { kind: 'service', name: body.Name, body, auth } as const
  if (current === undefined) return { ...base, action: 'create', changes: [], restarts: 0 }
  // A forced restart of before must not be undone: that would restart the tasks again.
  body.TaskTemplate.ForceUpdate = current.Spec.TaskTemplate.ForceUpdate
  const nameOf = (target: string) => networkNames.get(target) ?? target
  const changes = diffSpecs(current.Spec, body, nameOf)
  return {
    ...base,
    action: changes.length === 0 ? 'keep' : 'update',
    current,
    changes,
    restarts: changes.some(({ restarts }) => restarts)
      ? (current.ServiceStatus?.RunningTasks ?? 0)
      : 0,
  }
}

function sorted(labels: Readonly<Record<string, string>>): readonly (readonly [string, string])[] {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))
}
