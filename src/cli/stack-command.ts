import { resolve } from 'node:path'
import type { Command } from 'commander'
import { stringify } from 'yaml'
import { messageOf } from '../base/index.ts'
import {
  loadStack,
  raiseStackFile,
  readStackFiles,
  type StackSources,
  stackLabel,
} from '../compose/index.ts'
import type { ApiNetwork, ApiSecret, ApiService, ApiTask } from './api.ts'
import { ApiError, type Client, filtersQuery, openClient, parseFilters } from './client.ts'
import { type CliContext, checked, collect, Exit, newCommand, usageError } from './command.ts'
import type { Io } from './io.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { formatList } from './output.ts'
import { requestedAuth } from './registry.ts'
import { addWaitOptions, isWaiting } from './service-command.ts'
import { listServices } from './services.ts'
import { deployStack } from './stack-deploy.ts'
import { planStack, type StackPlan, stackFilter } from './stack-plan.ts'
import { isChange, planJson, planText } from './stack-plan-text.ts'
import { listTasks } from './tasks.ts'
import { timeoutMsOf, type WaitFlags, waitForRemoval, waitForServices } from './wait.ts'

interface PlanFlags {
  readonly composeFile?: readonly string[]
  readonly service?: readonly string[]
  readonly prune?: boolean
  readonly resolveImage: string
  readonly withRegistryAuth?: boolean
  readonly json?: boolean
}
interface DeployFlags extends PlanFlags, WaitFlags {
  readonly dryRun?: boolean
  readonly detach?: boolean
  readonly quiet?: boolean
}

/** `skep stack`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const stack = newCommand('stack', 'Stacks: services that are deployed together')

  addWaitOptions(
    addPlanOptions(
      stack
        .command('deploy')
        .alias('up')
        .argument('<stack>')
        .description('Deploy a stack, or change one to what its files say'),
    )
      .option('--dry-run', 'Show what would change; change nothing')
      .option('--json', 'With --dry-run: as JSON'),
  ).action(async (name: string, flags: DeployFlags) => {
    const timeoutMs = checked(() => timeoutMsOf(flags))
    const waits = isWaiting(flags)
    const client = await openClient(context)
    const plan = await planned(client, io, name, flags)
    if (flags.dryRun) {
      io.stdout.write(flags.json ? planJson(plan) : planText(plan))
      return
    }
    if (flags.json) throw usageError('--json shows a plan: it goes with --dry-run.')
    const ids = await deployStack(client, plan, {
      onStep: (text) => io.stdout.write(`${text}\n`),
      warn: (text) => io.stderr.write(`skep: warning: ${text}\n`),
    })
    if (waits) {
      await waitForServices(client, io, ids, {
        timeoutMs,
        quiet: flags.quiet ?? false,
        staleById: new Map(
          plan.steps.flatMap((step) =>
            step.kind === 'service' && step.action !== 'remove' && step.current
              ? [[step.current.ID, JSON.stringify(step.current.UpdateStatus)] as const]
              : [],
          ),
        ),
      })
    }
  })

  addPlanOptions(
    stack
      .command('diff')
      .argument('<stack>')
      .description('Show what deploying would change: exit code 0 for nothing, 2 for something'),
  )
    .option('--json', 'As JSON')
    .action(async (name: string, flags: PlanFlags) => {
      const plan = await planned(await openClient(context), io, name, flags)
      io.stdout.write(flags.json ? planJson(plan) : planText(plan))
      if (isChange(plan)) throw new Exit(2)
    })

  addListOptions(stack.command('ls').alias('list').description('List stacks'), {
    filters: false,
  }).action(async (flags: LsFlags) => {
    const client = await openClient(context)
    const services = await client.call<ApiService[]>('/services', {
      query: filtersQuery({ label: [stackLabel] }),
    })
    const counts = new Map<string, number>()
    for (const { Spec } of services) {
      const name = Spec.Labels[stackLabel]
      if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    const rows = [...counts]
      .map(([name, count]) => ({ name, count }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
    io.stdout.write(
      checked(() =>
        formatList(
          rows,
          [
            { field: 'Name', header: 'NAME', value: ({ name }) => name },
            { field: 'Services', header: 'SERVICES', value: ({ count }) => String(count) },
          ],
          flags,
          {
            objects: rows.map(({ name, count }) => ({ Name: name, Services: count })),
            quiet: ({ name }) => name,
          },
        ),
      ),
    )
  })

  addListOptions(
    stack.command('services').argument('<stack>').description('List the services of a stack'),
  ).action(async (name: string, flags: LsFlags) => {
    const client = await openClient(context)
    const services = await client.call<ApiService[]>('/services', {
      query: { ...ofStack(name, flags), status: true },
    })
    if (services.length === 0 && !flags.json && !flags.quiet) {
      io.stderr.write(`Nothing found in stack: ${name}\n`)
      return
    }
    io.stdout.write(checked(() => listServices(services, flags)))
  })

  addListOptions(stack.command('ps').argument('<stack>').description('List the tasks of a stack'))
    .option('--no-resolve', 'Show ids in place of names')
    .action(async (name: string, flags: LsFlags & { resolve?: boolean }) => {
      const client = await openClient(context)
      const tasks = await client.call<ApiTask[]>('/tasks', { query: ofStack(name, flags) })
      if (tasks.length === 0) {
        io.stderr.write(`nothing found in stack: ${name}\n`)
        throw new Exit(1)
      }
      io.stdout.write(await listTasks(client, tasks, flags, io.nowMs()))
    })

  stack
    .command('config')
    .description('Show stack files merged and checked; nothing is deployed')
    .option('-c, --compose-file <file>', 'Stack file; may be repeated', collect)
    .option('--json', 'As JSON')
    .option('--bodies <stack>', 'Show what deploying as this stack sends, in place of the files')
    .action(async (flags: { composeFile?: readonly string[]; json?: boolean; bodies?: string }) => {
      const paths = filesOf(io, flags.composeFile)
      const document =
        flags.bodies === undefined
          ? raiseStackFile(await readStackFiles(paths, sources(io)))
          : await loadStack(flags.bodies, paths, sources(io))
      const plain: unknown = JSON.parse(JSON.stringify(document))
      io.stdout.write(
        flags.json
          ? `${JSON.stringify(plain, null, 2)}\n`
          : stringify(plain, { aliasDuplicateObjects: false }),
      )
    })

  stack
    .command('rm')
    .aliases(['remove', 'down'])
    .argument('<stack...>')
    .description('Remove stacks')
    .option('--wait', 'Wait until their tasks have ended')
    .option('--timeout <duration>', 'Longest wait (default: 5m)')
    .action(async (names: string[], flags: WaitFlags) => {
      const timeoutMs = checked(() => timeoutMsOf(flags))
      const client = await openClient(context)
      let isFailed = false
      for (const name of names) {
        if (!(await removeStack(client, io, name, flags.wait ? timeoutMs : undefined)))
          isFailed = true
      }
      if (isFailed) throw new Exit(1)
    })

  return stack
}

function addPlanOptions(command: Command): Command {
  return command
    .option(
      '-c, --compose-file <file>',
      'Stack file; may be repeated, later ones go over earlier ones',
      collect,
    )
    .option('--service <name>', 'Only this service and what it uses; may be repeated', collect)
    .option('--prune', 'Remove services that the files no longer have')
    .option(
      '--resolve-image <when>',
      'Ask the registry for digests: always, changed or never',
      'always',
    )
    .option('--with-registry-auth', "Send this user's registry login to the nodes")
}

async function planned(client: Client, io: Io, name: string, flags: PlanFlags): Promise<StackPlan> {
  const when = (['always', 'changed', 'never'] as const).find((one) => one === flags.resolveImage)
  if (when === undefined) {
    throw usageError(
      `--resolve-image ${flags.resolveImage} is unknown. Choose always, changed or never.`,
    )
  }
  if (flags.service && flags.prune) {
    throw usageError('--prune looks at the whole stack: it does not go with --service.')
  }
  const loaded = await loadStack(name, filesOf(io, flags.composeFile), sources(io))
  return await planStack(client, loaded, {
    prune: flags.prune ?? false,
    ...(flags.service && { only: flags.service }),
    resolveImage: when,
    authFor: async (image) => (flags.withRegistryAuth ? await requestedAuth(io, image) : undefined),
    readFile: (path) => io.readFile(path),
    warn: (text) => io.stderr.write(`skep: warning: ${text}\n`),
  })
}

function filesOf(io: Io, files: readonly string[] | undefined): readonly string[] {
  if (files === undefined || files.length === 0) {
    throw usageError('which file? Name one with -c stack.yml.')
  }
  return files.map((file) => (file === '-' ? '/dev/stdin' : resolve(io.directory, file)))
}

function sources(io: Io): StackSources {
  return {
    readFile: (path) => io.readFile(path),
    env: io.env,
    directory: io.directory,
    warn: (text) => io.stderr.write(`skep: warning: ${text}\n`),
  }
}

function ofStack(name: string, flags: LsFlags): { filters?: string } {
  const filters = checked(() => parseFilters(flags.filter))
  return filtersQuery({
    ...filters,
    label: [...(filters['label'] ?? []), `${stackLabel}=${name}`],
  })
}

/** Services go first, then what they used. A network that tasks still leave is tried again until they have. */
async function removeStack(
  client: Client,
  io: Io,
  name: string,
  timeoutMs: number | undefined,
): Promise<boolean> {
  const query = stackFilter(name)
  const [services, secrets, configs, networks] = await Promise.all([
    client.call<ApiService[]>('/services', { query }),
    client.call<ApiSecret[]>('/secrets', { query }),
    client.call<ApiSecret[]>('/configs', { query }),
    client.call<ApiNetwork[]>('/networks', { query }),
  ])
  if (services.length + secrets.length + configs.length + networks.length === 0) {
    io.stderr.write(`Nothing found in stack: ${name}\n`)
    return true
  }
  let isWhole = true
  const remove = async (
    kind: string,
    objects: readonly { readonly id: string; readonly name: string }[],
  ) => {
    for (const object of [...objects].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      io.stdout.write(`Removing ${kind} ${object.name}\n`)
      try {
        await client.call(`/${kind}s/${object.id}`, { method: 'DELETE' })
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        isWhole = false
        io.stderr.write(`skep: the ${kind} ${object.name} stays: ${messageOf(error)}\n`)
      }
    }
  }
  const named = (objects: readonly (ApiService | ApiSecret)[]) =>
    objects.map(({ ID, Spec }) => ({ id: ID, name: Spec.Name }))
  await remove('service', named(services))
  await remove('secret', named(secrets))
  await remove('config', named(configs))
  await remove(
    'network',
    networks.map(({ Id, Name }) => ({ id: Id, name: Name })),
  )
  if (timeoutMs !== undefined) {
    await waitForRemoval(
      client,
      io,
      services.map(({ ID }) => ID),
      { timeoutMs },
    )
  }
  return isWhole
}
