import { UserError } from '../base/index.ts'
import type { ServiceSpecBody } from '../compose/index.ts'
import type { ApiSecret } from './api.ts'
import { ApiError, type Client, filtersQuery } from './client.ts'
import type { ObjectStep, ServiceStep, StackPlan } from './stack-plan.ts'

export interface DeployOptions {
  /** Hears of each step, in the order they happen. */
  readonly onStep: (text: string) => void
  readonly warn: (text: string) => void
}

/**
 * Makes the cluster hold what was planned, and gives the ids of the services. A service that is as declared is sent all the
 * same: its paused update goes on.
 */
export async function deployStack(
  client: Client,
  plan: StackPlan,
  { onStep, warn }: DeployOptions,
): Promise<readonly string[]> {
  const ids: string[] = []
  let objectIds: ObjectIds | undefined
  for (const step of plan.steps) {
    if (step.action === 'remove') {
      onStep(`Removing service ${step.name}`)
      await client.call(`/services/${step.id}`, { method: 'DELETE' })
    } else if (step.kind === 'network') {
      if (step.action === 'keep') continue
      onStep(`Creating network ${step.name}`)
      await client.call('/networks/create', { method: 'POST', body: step.body })
    } else if (step.kind === 'service') {
      objectIds ??= await idsOfObjects(client, plan)
      ids.push(await deployService(client, step, objectIds, { onStep, warn }))
    } else await deployObject(client, step, onStep)
  }
  for (const { kind, id, name } of plan.outdated) {
    try {
      await client.call(`/${kind}s/${id}`, { method: 'DELETE' })
      onStep(`Removing ${kind} ${name}, which nothing uses any more`)
    } catch (error) {
      // Something outside of the stack uses it, or somebody was faster: both are well.
      if (!(error instanceof ApiError) || error.status >= 500) throw error
    }
  }
  return ids
}

async function deployObject(
  client: Client,
  { kind, action, name, replaces, body, current }: ObjectStep,
  onStep: (text: string) => void,
): Promise<void> {
  if (action === 'create') {
    const why = replaces === undefined ? '' : `: its content is not that of ${replaces}`
    onStep(`Creating ${kind} ${name}${why}`)
    await client.call(`/${kind}s/create`, { method: 'POST', body })
  } else if (action === 'relabel' && current) {
    await client.call(`/${kind}s/${current.ID}/update`, {
      method: 'POST',
      query: { version: current.Version.Index },
      body,
    })
  }
}

interface ObjectIds {
  readonly secret: ReadonlyMap<string, string>
  readonly config: ReadonlyMap<string, string>
}

async function idsOfObjects(client: Client, { steps }: StackPlan): Promise<ObjectIds> {
  const containers = steps.flatMap((step) =>
    step.kind === 'service' && step.action !== 'remove'
      ? [step.body.TaskTemplate.ContainerSpec]
      : [],
  )
  return {
    secret: await idsOf(
      client,
      'secret',
      containers.flatMap(({ Secrets }) => (Secrets ?? []).map(({ SecretName }) => SecretName)),
    ),
    config: await idsOf(
      client,
      'config',
      containers.flatMap(({ Configs }) => (Configs ?? []).map(({ ConfigName }) => ConfigName)),
    ),
  }
}

async function deployService(
  client: Client,
  { body: planned, auth, current, name }: ServiceStep,
  ids: ObjectIds,
  { onStep, warn }: DeployOptions,
): Promise<string> {
  const body = withIds(planned, ids)
  const headers = auth === undefined ? {} : { headers: { 'X-Registry-Auth': auth } }
  if (current === undefined) {
    onStep(`Creating service ${name}`)
    const answer = await client.call<{ ID: string; Warnings?: string[] | null }>(
      '/services/create',
      { method: 'POST', body, ...headers },
    )
    for (const warning of answer.Warnings ?? []) warn(warning)
    return answer.ID
  }
  onStep(`Updating service ${name}`)
  const answer = await client.call<{ Warnings?: string[] | null }>(
    `/services/${current.ID}/update`,
    {
      method: 'POST',
      query: {
        version: current.Version.Index,
        ...(auth === undefined && { registryAuthFrom: 'spec' }),
      },
      body,
      ...headers,
    },
  )
  for (const warning of answer.Warnings ?? []) warn(warning)
  return current.ID
}

function withIds(body: ServiceSpecBody, ids: ObjectIds): ServiceSpecBody {
  const copy = structuredClone(body)
  for (const secret of copy.TaskTemplate.ContainerSpec.Secrets ?? []) {
    secret.SecretID = ids.secret.get(secret.SecretName) ?? ''
  }
  for (const config of copy.TaskTemplate.ContainerSpec.Configs ?? []) {
    config.ConfigID = ids.config.get(config.ConfigName) ?? ''
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
