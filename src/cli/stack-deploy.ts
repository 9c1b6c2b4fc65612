import { UserError } from '../base/index.ts'
import {
  type FileObjectBody,
  familiarImage,
  type ServiceSpecBody,
  type Stack,
  type StackObject,
  stackImageLabel,
  stackLabel,
} from '../compose/index.ts'
import type { ApiInfo, ApiNetwork, ApiSecret, ApiService } from './api.ts'
import { ApiError, type Client, filtersQuery } from './client.ts'
import { resolveImage } from './registry.ts'

export interface DeployOptions {
  readonly prune: boolean
  /** When a registry is asked for digests. */
  readonly resolveImage: 'always' | 'changed' | 'never'
  /** The registry login to send with a service, if any. */
  readonly authFor: (image: string) => Promise<string | undefined>
  readonly readFile: (path: string) => Promise<Buffer>
  /** Hears of each step, in the order they happen. */
  readonly onStep: (text: string) => void
  readonly warn: (text: string) => void
}

export const stackFilter = (name: string) => filtersQuery({ label: [`${stackLabel}=${name}`] })

/** Makes the cluster hold the stack, and gives the ids of its services. What is as the files say is left alone by the daemon. */
export async function deployStack(
  client: Client,
  stack: Stack,
  options: DeployOptions,
): Promise<readonly string[]> {
  const info = await client.call<ApiInfo>('/info')
  if (info.Swarm?.ControlAvailable !== true) {
    throw new UserError('notManager', 'this node is not a manager', {
      next: 'Begin a cluster with `skep swarm init`, or name a manager with -H.',
    })
  }
  await checkExternalNetworks(client, stack)
  if (options.prune) await prune(client, stack, options)
  await createNetworks(client, stack, options)
  await createObjects(client, 'secret', stack.secrets, options)
  await createObjects(client, 'config', stack.configs, options)
  return await deployServices(client, stack, options)
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
        {
          next: 'Use a network of the driver overlay.',
        },
      )
    }
  }
}

async function prune(client: Client, stack: Stack, { onStep }: DeployOptions): Promise<void> {
  const kept = new Set(stack.services.map(({ body }) => body.Name))
  const present = await client.call<ApiService[]>('/services', { query: stackFilter(stack.name) })
  for (const service of present) {
    if (kept.has(service.Spec.Name)) continue
    onStep(`Removing service ${service.Spec.Name}`)
    await client.call(`/services/${service.ID}`, { method: 'DELETE' })
  }
}

async function createNetworks(
  client: Client,
  stack: Stack,
  { onStep }: DeployOptions,
): Promise<void> {
  const present = await client.call<ApiNetwork[]>('/networks', { query: stackFilter(stack.name) })
  const names = new Set(present.map(({ Name }) => Name))
  for (const body of stack.networks) {
    if (names.has(body.Name)) continue
    onStep(`Creating network ${body.Name}`)
    await client.call('/networks/create', { method: 'POST', body })
  }
}

async function createObjects(
  client: Client,
  kind: 'secret' | 'config',
  objects: readonly StackObject[],
  { onStep, readFile }: DeployOptions,
): Promise<void> {
  for (const { body, file, content } of objects) {
    const data =
      content !== undefined
        ? Buffer.from(content)
        : file === undefined
          ? undefined
          : await readFile(file)
    const whole: FileObjectBody = {
      ...body,
      ...(data && { Data: data.toString('base64') }),
    }
    const path = `/${kind}s/${encodeURIComponent(body.Name)}`
    const present = await found(client.call<ApiSecret>(path))
    if (present === undefined) {
      onStep(`Creating ${kind} ${body.Name}`)
      await client.call(`/${kind}s/create`, { method: 'POST', body: whole })
      continue
    }
    try {
      await client.call(`/${kind}s/${present.ID}/update`, {
        method: 'POST',
        query: { version: present.Version.Index },
        body: whole,
      })
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 400) throw error
      throw new UserError(
        'conflict',
        `${kind} ${body.Name} is there with other content, which cannot be changed`,
        {
          next: `Give the new content a new name, as name: ${body.Name}_2 in the stack file.`,
          cause: error,
        },
      )
    }
  }
}

async function deployServices(
  client: Client,
  stack: Stack,
  options: DeployOptions,
): Promise<readonly string[]> {
  const { onStep, warn } = options
  const bodies = stack.services.map(({ body }) => body)
  const secretIds = await idsOf(
    client,
    'secret',
    bodies.flatMap(({ TaskTemplate }) =>
      (TaskTemplate.ContainerSpec.Secrets ?? []).map(({ SecretName }) => SecretName),
    ),
  )
  const configIds = await idsOf(
    client,
    'config',
    bodies.flatMap(({ TaskTemplate }) =>
      (TaskTemplate.ContainerSpec.Configs ?? []).map(({ ConfigName }) => ConfigName),
    ),
  )
  const present = await client.call<ApiService[]>('/services', { query: stackFilter(stack.name) })
  const byName = new Map(present.map((service) => [service.Spec.Name, service]))
  const ids: string[] = []
  for (const { body: lowered, image } of stack.services) {
    const known = byName.get(lowered.Name)
    const body = withIds(lowered, secretIds, configIds)
    const auth = await options.authFor(image)
    const isSame = known?.Spec.Labels[stackImageLabel] === image
    if (options.resolveImage === 'always' || (options.resolveImage === 'changed' && !isSame)) {
      const resolved = await resolveImage(client, image, auth)
      if (resolved.warning !== undefined) warn(resolved.warning)
      body.TaskTemplate.ContainerSpec.Image = resolved.image
      if (resolved.platforms && resolved.platforms.length > 0) {
        body.TaskTemplate.Placement = {
          ...body.TaskTemplate.Placement,
          Platforms: [...resolved.platforms],
        }
      }
    } else if (known !== undefined && isSame) {
      body.TaskTemplate.ContainerSpec.Image = known.Spec.TaskTemplate.ContainerSpec.Image
    } else {
      body.TaskTemplate.ContainerSpec.Image = familiarImage(image)
    }
    const headers = auth === undefined ? {} : { headers: { 'X-Registry-Auth': auth } }
    if (known === undefined) {
      onStep(`Creating service ${body.Name}`)
      const answer = await client.call<{ ID: string; Warnings?: string[] | null }>(
        '/services/create',
        { method: 'POST', body, ...headers },
      )
      for (const warning of answer.Warnings ?? []) warn(warning)
      ids.push(answer.ID)
      continue
    }
    // A forced restart of before must not be undone: that would restart the tasks again.
    body.TaskTemplate.ForceUpdate = known.Spec.TaskTemplate.ForceUpdate
    onStep(`Updating service ${body.Name}`)
    const answer = await client.call<{ Warnings?: string[] | null }>(
      `/services/${known.ID}/update`,
      {
        method: 'POST',
        query: {
          version: known.Version.Index,
          ...(auth === undefined && { registryAuthFrom: 'spec' }),
        },
        body,
        ...headers,
      },
    )
    for (const warning of answer.Warnings ?? []) warn(warning)
    ids.push(known.ID)
  }
  return ids
}

function withIds(
  body: ServiceSpecBody,
  secretIds: ReadonlyMap<string, string>,
  configIds: ReadonlyMap<string, string>,
): ServiceSpecBody {
  const copy = structuredClone(body)
  for (const secret of copy.TaskTemplate.ContainerSpec.Secrets ?? []) {
    secret.SecretID = secretIds.get(secret.SecretName) ?? ''
  }
  for (const config of copy.TaskTemplate.ContainerSpec.Configs ?? []) {
    config.ConfigID = configIds.get(config.ConfigName) ?? ''
  }
  return copy
}

/** Ids of secrets or configs by their exact names. Throws `notFound` naming the first that is missing. */
export async function idsOf(
  client: Client,
  kind: 'secret' | 'config',
  names: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const wanted = [...new Set(names)]
  if (wanted.length === 0) return new Map()
  const objects = await client.call<ApiSecret[]>(`/${kind}s`, {
    query: filtersQuery({ name: wanted }),
  })
  const ids = new Map(objects.map(({ ID, Spec }) => [Spec.Name, ID]))
  const missing = wanted.find((name) => !ids.has(name))
  if (missing !== undefined) {
    throw new UserError('notFound', `the ${kind} ${missing} is not there`, {
      next: `Create it: skep ${kind} create ${missing} FILE`,
    })
  }
  return ids
}

/** The answer, or `undefined` for 404. */
export async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined
    throw error
  }
}
