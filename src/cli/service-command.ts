import { type Command, Option } from 'commander'
import { messageOf, UserError } from '../base/index.ts'
import { parseEnvFile, type ServiceSpecBody } from '../compose/index.ts'
import type { ApiNetwork, ApiService } from './api.ts'
import { type Client, filtersQuery, openClient, parseFilters } from './client.ts'
import { type CliContext, checked, Exit, newCommand, usageError } from './command.ts'
import type { Io } from './io.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { ago, formatInspect, formatList } from './output.ts'
import { requestedAuth, resolveImage } from './registry.ts'
import { type LogFlags, printLogs } from './service-logs.ts'
import { addCreateOptions, addUpdateOptions, asUpdateFlags } from './service-options.ts'
import {
  applyServiceFlags,
  count,
  emptySpec,
  parseNetwork,
  type ServiceFlags,
  setReplicas,
} from './service-spec.ts'
import { listServices, prettyService } from './services.ts'
import { shownImage } from './shown.ts'
import { idsOf } from './stack-deploy.ts'
import { listTasks, tasksOfServices } from './tasks.ts'
import {
  timeoutMsOf,
  type WaitFlags,
  type WaitOptions,
  waitForRemoval,
  waitForServices,
} from './wait.ts'

interface ChangeFlags extends WaitFlags {
  readonly quiet?: boolean
  readonly detach?: boolean
  readonly withRegistryAuth?: boolean
  readonly resolveImage?: boolean
  readonly envFile?: readonly string[]
  readonly rollback?: boolean
}

/** Adds `--wait`, `--timeout` and docker's `-d` and `-q`, which scripts give. */
export function addWaitOptions(command: Command, { quiet = true } = {}): Command {
  command
    .option('--wait', 'Wait until it is as declared; fail with the reason if it will not be')
    .option('--timeout <duration>', 'Longest wait (default: 5m)')
    .option('-d, --detach', 'Do not wait, which is the default')
    .addOption(new Option('--no-detach').hideHelp())
  return quiet ? command.option('-q, --quiet', 'Show no progress') : command
}

/** Whether to wait: `--wait`, or docker's `--detach=false`. */
export function isWaiting(flags: WaitFlags & { readonly detach?: boolean }): boolean {
  if (flags.wait && flags.detach) {
    throw usageError('--wait and --detach contradict each other. Remove one of them.')
  }
  return flags.wait === true || flags.detach === false
}

/** `skep service`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const service = newCommand('service', 'Services: what should run')

  addListOptions(service.command('ls').alias('list').description('List services')).action(
    async (flags: LsFlags) => {
      const query = filtersQuery(checked(() => parseFilters(flags.filter)))
      const client = await openClient(context)
      const services = await client.call<ApiService[]>('/services', {
        query: { ...query, status: true },
      })
      io.stdout.write(checked(() => listServices(services, flags)))
    },
  )

  addListOptions(
    service.command('ps').argument('<service...>').description('List the tasks of services'),
  )
    .option('--no-resolve', 'Show ids in place of names')
    .action(async (names: string[], flags: LsFlags & { resolve?: boolean }) => {
      const filters = checked(() => parseFilters(flags.filter))
      const client = await openClient(context)
      const tasks = await tasksOfServices(client, names, filters)
      io.stdout.write(await listTasks(client, tasks, flags, io.nowMs()))
    })

  service
    .command('inspect')
    .argument('<service...>')
    .description('Show services whole')
    .option('--pretty', 'For people')
    .option('-f, --format <template>', "json, or '{{.Spec.Name}}'")
    .option('--json', 'One JSON document, which is the default')
    .action(async (names: string[], flags: { pretty?: boolean; format?: string }) => {
      if (flags.pretty && flags.format !== undefined) {
        throw usageError('--pretty and --format contradict each other. Remove one of them.')
      }
      const client = await openClient(context)
      const services = await inspectAll<ApiService>(client, io, names, 'services', {
        insertDefaults: true,
      })
      io.stdout.write(
        flags.pretty
          ? services.objects.map(prettyService).join('\n')
          : checked(() => formatInspect(services.objects, flags)),
      )
      if (services.missing) throw new Exit(1)
    })

  addWaitOptions(
    addCreateOptions(
      service
        .command('create')
        .argument('<image>')
        .argument('[command...]')
        .description('Create a service'),
    ).passThroughOptions(),
  ).action(async (image: string, args: string[], flags: ChangeFlags & Record<string, unknown>) => {
    const wait = waitOptions(flags)
    const client = await openClient(context)
    const serviceFlags = asUpdateFlags({ ...flags, env: await withEnvFiles(io, flags) })
    const spec = checked(() => applyServiceFlags(emptySpec(image, args), serviceFlags, io.env))
    await fillIds(client, spec)
    const auth = await authOf(io, flags, image)
    await pin(client, io, spec, image, auth, flags)
    const answer = await client.call<{ ID: string; Warnings?: string[] | null }>(
      '/services/create',
      {
        method: 'POST',
        body: spec,
        ...(auth !== undefined && { headers: { 'X-Registry-Auth': auth } }),
      },
    )
    tellWarnings(io, answer.Warnings)
    io.stdout.write(`${answer.ID}\n`)
    if (wait) await waitForServices(client, io, [answer.ID], wait)
  })

  addWaitOptions(
    addUpdateOptions(
      service.command('update').argument('<service>').description('Change a service'),
    ),
  ).action(async (name: string, flags: ChangeFlags & ServiceFlags) => {
    const wait = waitOptions(flags)
    const client = await openClient(context)
    if (flags.rollback) {
      await rollback(client, io, name, undefined, wait)
      return
    }
    const known = await client.call<ApiService>(`/services/${encodeURIComponent(name)}`, {
      query: { insertDefaults: false },
    })
    const named = await withNetworkIds(client, flags)
    const spec = checked(() => applyServiceFlags(known.Spec, named, io.env))
    await fillIds(client, spec)
    const image = flags.image ?? known.Spec.TaskTemplate.ContainerSpec.Image
    const auth = await authOf(io, flags, image)
    if (flags.image !== undefined) await pin(client, io, spec, flags.image, auth, flags)
    await postUpdate(client, io, known, spec, auth)
    io.stdout.write(`${name}\n`)
    if (wait)
      await waitForServices(client, io, [known.ID], { ...wait, staleById: staleOf([known]) })
  })

  addWaitOptions(
    service
      .command('scale')
      .argument('<service=replicas...>')
      .description('Change the number of tasks'),
  ).action(async (texts: string[], flags: ChangeFlags) => {
    const wait = waitOptions(flags)
    const wishes = texts.map((text) => {
      const at = text.lastIndexOf('=')
      if (at <= 0) throw usageError(`"${text}" is not service=replicas. Write it as web=3.`)
      return {
        name: text.slice(0, at),
        replicas: checked(() => count(text.slice(0, at), text.slice(at + 1))),
      }
    })
    const client = await openClient(context)
    const scaled: ApiService[] = []
    for (const { name, replicas } of wishes) {
      const known = await client.call<ApiService>(`/services/${encodeURIComponent(name)}`, {
        query: { insertDefaults: false },
      })
      const spec = structuredClone(known.Spec)
      setReplicas(spec, replicas)
      await postUpdate(client, io, known, spec, undefined)
      io.stdout.write(`${name} scaled to ${replicas}\n`)
      scaled.push(known)
    }
    if (wait) {
      const ids = scaled.map(({ ID }) => ID)
      await waitForServices(client, io, ids, { ...wait, staleById: staleOf(scaled) })
    }
  })

  addWaitOptions(
    service
      .command('rollback')
      .argument('<service>')
      .description('Go back to an earlier version')
      .option(
        '--to <revision>',
        'Its number, from `skep service revisions` (default: the one before)',
      ),
  ).action(async (name: string, flags: ChangeFlags & { to?: string }) => {
    if (flags.to !== undefined && !/^[1-9]\d*$/.test(flags.to)) {
      throw usageError(
        `--to "${flags.to}" is no revision. List them with \`skep service revisions\`.`,
      )
    }
    const wait = waitOptions(flags)
    await rollback(await openClient(context), io, name, flags.to, wait)
  })

  addListOptions(
    service
      .command('revisions')
      .argument('<service>')
      .description('List the versions that can be gone back to'),
    { filters: false },
  ).action(async (name: string, flags: LsFlags) => {
    const client = await openClient(context)
    const revisions = await client.call<Revision[]>(
      `/skep/v1/services/${encodeURIComponent(name)}/revisions`,
    )
    io.stdout.write(
      checked(() =>
        formatList(
          revisions,
          [
            { field: 'Number', header: 'NUMBER', value: (revision) => String(revision.Number) },
            {
              field: 'Image',
              header: 'IMAGE',
              value: ({ Image }) => shownImage(Image, flags.trunc === false),
            },
            {
              field: 'CreatedAt',
              header: 'CREATED',
              value: ({ CreatedAt }) => ago(CreatedAt, io.nowMs()),
            },
            {
              field: 'Healthy',
              header: 'HEALTHY',
              value: ({ HealthyAt }) => (HealthyAt ? 'yes' : 'no'),
            },
            {
              field: 'Use',
              header: 'USE',
              value: ({ Current, Previous }) => (Current ? 'current' : Previous ? 'previous' : ''),
            },
          ],
          flags,
          { objects: revisions, quiet: (revision) => String(revision.Number) },
        ),
      ),
    )
  })

  service
    .command('rm')
    .alias('remove')
    .argument('<service...>')
    .description('Remove services')
    .option('--wait', 'Wait until their tasks have ended')
    .option('--timeout <duration>', 'Longest wait (default: 5m)')
    .action(async (names: string[], flags: ChangeFlags) => {
      const wait = waitOptions(flags)
      const client = await openClient(context)
      const removed: string[] = []
      let isFailed = false
      for (const name of names) {
        try {
          const path = `/services/${encodeURIComponent(name)}`
          if (wait) removed.push((await client.call<ApiService>(path)).ID)
          await client.call(path, { method: 'DELETE' })
          io.stdout.write(`${name}\n`)
        } catch (error) {
          isFailed = true
          io.stderr.write(`skep: ${messageOf(error)}\n`)
        }
      }
      if (wait && removed.length > 0) await waitForRemoval(client, io, removed, wait)
      if (isFailed) throw new Exit(1)
    })

  service
    .command('logs')
    .argument('<service|task>')
    .description('Show what its tasks write')
    .option('-f, --follow', 'Go on as more is written')
    .option('-n, --tail <lines>', 'Only the last lines of each task')
    .option('--since <time>', 'Only after a time, or as long ago as 10m')
    .option('-t, --timestamps', 'Show times')
    .option('--raw', 'Leave the lines as they are')
    .option('--details', 'Show extra details of the log driver')
    .option('--no-trunc', 'Show ids whole')
    .option('--no-resolve', 'Show ids in place of names')
    .option('--no-task-ids', 'Show no task ids')
    .action(async (name: string, flags: LogFlags) => {
      if (flags.tail !== undefined && flags.tail !== 'all' && !/^\d+$/.test(flags.tail)) {
        throw usageError(`--tail "${flags.tail}" is not a number of lines. Write it as --tail 100.`)
      }
      await printLogs(await openClient(context), io, name, flags)
    })

  return service
}

interface Revision {
  readonly Number: number
  readonly Image: string
  readonly CreatedAt: string
  readonly HealthyAt?: string
  readonly Current: boolean
  readonly Previous: boolean
}

function waitOptions(flags: ChangeFlags): WaitOptions | undefined {
  const timeoutMs = checked(() => timeoutMsOf(flags))
  return isWaiting(flags) ? { timeoutMs, quiet: flags.quiet ?? false } : undefined
}

function staleOf(services: readonly ApiService[]): ReadonlyMap<string, string | undefined> {
  return new Map(services.map(({ ID, UpdateStatus }) => [ID, JSON.stringify(UpdateStatus)]))
}

async function rollback(
  client: Client,
  io: Io,
  name: string,
  to: string | undefined,
  wait: WaitOptions | undefined,
): Promise<void> {
  const path = `/services/${encodeURIComponent(name)}`
  const known = await client.call<ApiService>(path, { query: { insertDefaults: false } })
  if (to === undefined) {
    await client.call(`/services/${known.ID}/update`, {
      method: 'POST',
      query: { version: known.Version.Index, rollback: 'previous' },
      body: known.Spec,
    })
  } else {
    await client.call(`/skep/v1/services/${known.ID}/rollback`, { method: 'POST', query: { to } })
  }
  io.stdout.write(`${name}\n`)
  if (wait) {
    await waitForServices(client, io, [known.ID], {
      ...wait,
      isRollback: true,
      staleById: staleOf([known]),
    })
  }
}

async function postUpdate(
  client: Client,
  io: Io,
  known: ApiService,
  spec: ServiceSpecBody,
  auth: string | undefined,
): Promise<void> {
  const answer = await client.call<{ Warnings?: string[] | null } | undefined>(
    `/services/${known.ID}/update`,
    {
      method: 'POST',
      query: {
        version: known.Version.Index,
        ...(auth === undefined && { registryAuthFrom: 'spec' }),
      },
      body: spec,
      ...(auth !== undefined && { headers: { 'X-Registry-Auth': auth } }),
    },
  )
  tellWarnings(io, answer?.Warnings)
}

function tellWarnings(io: Io, warnings: readonly string[] | null | undefined): void {
  for (const warning of warnings ?? []) io.stderr.write(`skep: warning: ${warning}\n`)
}

async function authOf(io: Io, flags: ChangeFlags, image: string): Promise<string | undefined> {
  return flags.withRegistryAuth ? await requestedAuth(io, image) : undefined
}

async function pin(
  client: Client,
  io: Io,
  spec: ServiceSpecBody,
  image: string,
  auth: string | undefined,
  flags: ChangeFlags,
): Promise<void> {
  if (flags.resolveImage === false) return
  const resolved = await resolveImage(client, image, auth)
  if (resolved.warning !== undefined) io.stderr.write(`skep: warning: ${resolved.warning}\n`)
  spec.TaskTemplate.ContainerSpec.Image = resolved.image
  if (resolved.platforms && resolved.platforms.length > 0) {
    spec.TaskTemplate.Placement = {
      ...spec.TaskTemplate.Placement,
      Platforms: [...resolved.platforms],
    }
  }
}

/** Gives new secrets and configs their ids. */
async function fillIds(client: Client, spec: ServiceSpecBody): Promise<void> {
  const { Secrets = [], Configs = [] } = spec.TaskTemplate.ContainerSpec
  const newSecrets = Secrets.filter(({ SecretID }) => SecretID === '')
  const newConfigs = Configs.filter(({ ConfigID }) => ConfigID === '')
  const [secretIds, configIds] = await Promise.all([
    idsOf(
      client,
      'secret',
      newSecrets.map(({ SecretName }) => SecretName),
    ),
    idsOf(
      client,
      'config',
      newConfigs.map(({ ConfigName }) => ConfigName),
    ),
  ])
  for (const secret of newSecrets) secret.SecretID = secretIds.get(secret.SecretName) ?? ''
  for (const config of newConfigs) config.ConfigID = configIds.get(config.ConfigName) ?? ''
}

/** Specs hold ids of networks: names in the flags are looked up. */
async function withNetworkIds(client: Client, flags: ServiceFlags): Promise<ServiceFlags> {
  const idOf = async (name: string) =>
    (
      await client.call<ApiNetwork>(`/networks/${encodeURIComponent(name)}`, {
        query: { scope: 'swarm' },
      })
    ).Id
  const { networkAdd, networkRm } = flags
  return {
    ...flags,
    ...(networkAdd && {
      networkAdd: await Promise.all(
        networkAdd.map(async (text) => {
          const { Target } = checked(() => parseNetwork(text))
          const id = await idOf(Target)
          return text === Target ? id : text.replace(`name=${Target}`, `name=${id}`)
        }),
      ),
    }),
    ...(networkRm && { networkRm: await Promise.all(networkRm.map(idOf)) }),
  }
}

async function withEnvFiles(
  io: Io,
  flags: ChangeFlags & Record<string, unknown>,
): Promise<readonly string[] | undefined> {
  const own = Array.isArray(flags['env']) ? flags['env'].map(String) : []
  const texts: string[] = []
  for (const path of flags.envFile ?? []) {
    const text = await io.readFile(path).catch((cause: unknown) => {
      throw new UserError('invalidInput', `cannot read ${path}: ${messageOf(cause)}`, { cause })
    })
    for (const [name, value] of Object.entries(parseEnvFile(text.toString()))) {
      texts.push(value === undefined ? name : `${name}=${value}`)
    }
  }
  const all = [...texts, ...own]
  return all.length > 0 ? all : undefined
}

/** Reads several objects by name or id; those that are missing are told, and the others still shown. */
export async function inspectAll<T>(
  client: Client,
  io: Io,
  names: readonly string[],
  kind: string,
  query: Readonly<Record<string, string | boolean>> = {},
): Promise<{ readonly objects: readonly T[]; readonly missing: boolean }> {
  const objects: T[] = []
  let missing = false
  for (const name of names) {
    try {
      objects.push(await client.call<T>(`/${kind}/${encodeURIComponent(name)}`, { query }))
    } catch (error) {
      if (error instanceof UserError) throw error
      missing = true
      io.stderr.write(`skep: ${messageOf(error)}\n`)
    }
  }
  return { objects, missing }
}
