import type { Command } from 'commander'
import type { ApiInfo, ApiNode, ApiTask } from './api.ts'
import { type Client, filtersQuery, openClient, parseFilters } from './client.ts'
import { type CliContext, checked, collect, Exit, newCommand, usageError } from './command.ts'
import { addListOptions, type LsFlags } from './list-options.ts'
import { type DrainFlags, drainNode, setAvailability } from './node-drain.ts'
import { type Column, formatBytes, formatInspect, formatList } from './output.ts'
import { inspectAll } from './service-command.ts'
import { oneOf, pairs } from './service-spec.ts'
import { listTasks } from './tasks.ts'

interface NodeRow {
  readonly node: ApiNode
  readonly isSelf: boolean
}

const columns: readonly Column<NodeRow>[] = [
  { field: 'ID', header: 'ID', value: ({ node, isSelf }) => (isSelf ? `${node.ID} *` : node.ID) },
  { field: 'Hostname', header: 'HOSTNAME', value: ({ node }) => node.Description.Hostname },
  { field: 'Status', header: 'STATUS', value: ({ node }) => capital(node.Status.State) },
  {
    field: 'Availability',
    header: 'AVAILABILITY',
    value: ({ node }) => capital(node.Spec.Availability),
  },
  { field: 'ManagerStatus', header: 'MANAGER STATUS', value: ({ node }) => managerStatus(node) },
  {
    field: 'EngineVersion',
    header: 'ENGINE VERSION',
    value: ({ node }) => node.Description.Engine.EngineVersion,
  },
  { field: 'Self', header: 'SELF', value: ({ isSelf }) => String(isSelf), hidden: true },
]

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function managerStatus({ ManagerStatus: status }: ApiNode): string {
  if (status === undefined) return ''
  return status.Leader ? 'Leader' : capital(status.Reachability)
}

/** `skep node`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const node = newCommand('node', 'Nodes: the machines of the cluster')

  addListOptions(node.command('ls').alias('list').description('List nodes')).action(
    async (flags: LsFlags) => {
      const query = filtersQuery(checked(() => parseFilters(flags.filter)))
      const client = await openClient(context)
      const [nodes, info] = await Promise.all([
        client.call<ApiNode[]>('/nodes', { query }),
        client.call<ApiInfo>('/info'),
      ])
      const rows = nodes
        .map((one) => ({ node: one, isSelf: one.ID === info.Swarm?.NodeID }))
        .sort((a, b) =>
          a.node.Description.Hostname.localeCompare(b.node.Description.Hostname, 'en', {
            numeric: true,
          }),
        )
      io.stdout.write(
        checked(() =>
          formatList(rows, columns, flags, {
            objects: rows.map((row) => row.node),
            quiet: (row) => row.node.ID,
          }),
        ),
      )
    },
  )

  addListOptions(
    node
      .command('ps')
      .argument('[node...]')
      .description('List the tasks on nodes (default: this one)'),
  )
    .option('--no-resolve', 'Show ids in place of names')
    .action(async (names: string[], flags: LsFlags & { resolve?: boolean }) => {
      const filters = checked(() => parseFilters(flags.filter))
      const client = await openClient(context)
      const ids: string[] = []
      for (const name of names.length > 0 ? names : ['self']) {
        const id = await resolveSelf(client, name)
        ids.push((await client.call<ApiNode>(`/nodes/${encodeURIComponent(id)}`)).ID)
      }
      const tasks = await client.call<ApiTask[]>('/tasks', {
        query: filtersQuery({ ...filters, node: ids }),
      })
      io.stdout.write(await listTasks(client, tasks, flags, io.nowMs()))
    })

  node
    .command('inspect')
    .argument('<node...>')
    .description('Show nodes whole')
    .option('--pretty', 'For people')
    .option('-f, --format <template>', "json, or '{{.Spec.Role}}'")
    .option('--json', 'One JSON document, which is the default')
    .action(async (names: string[], flags: { pretty?: boolean; format?: string }) => {
      const client = await openClient(context)
      const ids = await Promise.all(names.map((name) => resolveSelf(client, name)))
      const { objects, missing } = await inspectAll<ApiNode>(client, io, ids, 'nodes')
      io.stdout.write(
        flags.pretty
          ? objects.map(prettyNode).join('\n')
          : checked(() => formatInspect(objects, flags)),
      )
      if (missing) throw new Exit(1)
    })

  node
    .command('update')
    .argument('<node>')
    .description('Change a node')
    .option('--availability <availability>', 'active, pause (no new tasks) or drain (no tasks)')
    .option('--role <role>', 'worker or manager')
    .option('--label-add <label>', 'Label, key=value (may be repeated)', collect)
    .option('--label-rm <key>', 'Remove a label (may be repeated)', collect)
    .action(
      async (
        name: string,
        flags: {
          availability?: string
          role?: string
          labelAdd?: readonly string[]
          labelRm?: readonly string[]
        },
      ) => {
        const { availability, role, labelAdd = [], labelRm = [] } = flags
        checked(() => {
          if (availability) oneOf('--availability', availability, ['active', 'pause', 'drain'])
          if (role) oneOf('--role', role, ['worker', 'manager'])
        })
        const added = checked(() => pairs('--label-add', labelAdd))
        const client = await openClient(context)
        const id = await resolveSelf(client, name)
        const known = await client.call<ApiNode>(`/nodes/${encodeURIComponent(id)}`)
        const kept = Object.entries(known.Spec.Labels ?? {}).filter(
          ([key]) => !labelRm.includes(key),
        )
        await client.call(`/nodes/${known.ID}/update`, {
          method: 'POST',
          query: { version: known.Version.Index },
          body: {
            ...known.Spec,
            Labels: { ...Object.fromEntries(kept), ...added },
            ...(availability && { Availability: availability }),
            ...(role && { Role: role }),
          },
        })
        io.stdout.write(`${name}\n`)
      },
    )

  node
    .command('drain')
    .argument('<node>')
    .description('Move all tasks off a node, successors first, and give it no new ones')
    .option('--wait', 'Show what still runs there and why, until the node is empty')
    .option('--deadline <duration>', 'Wait no longer than this (default: 5m)')
    .option('--dry-run', 'Say what would become of each task, and change nothing')
    .option('--force', 'Although a task has no other node to go to')
    .action(async (name: string, flags: DrainFlags) => {
      if (flags.deadline !== undefined && !flags.wait) throw usageError('--deadline needs --wait.')
      const client = await openClient(context)
      await drainNode(client, io, await nodeOf(client, name), flags)
    })

  for (const [verb, availability, description] of [
    ['activate', 'active', 'Let nodes take tasks again'],
    ['pause', 'pause', 'Give nodes no new tasks; those there stay'],
  ] as const) {
    node
      .command(verb)
      .argument('<node...>')
      .description(description)
      .action(async (names: string[]) => {
        const client = await openClient(context)
        for (const name of names) {
          await setAvailability(client, await nodeOf(client, name), availability)
          io.stdout.write(`${name}\n`)
        }
      })
  }

  for (const [verb, role, other] of [
    ['promote', 'manager', 'worker'],
    ['demote', 'worker', 'manager'],
  ] as const) {
    node
      .command(verb)
      .argument('<node...>')
      .description(`Make ${other}s ${role}s`)
      .action(async (names: string[]) => {
        const client = await openClient(context)
        for (const name of names) {
          const known = await nodeOf(client, name)
          if (known.Spec.Role === role) {
            io.stdout.write(`Node ${name} is already a ${role}.\n`)
            continue
          }
          await client.call(`/nodes/${known.ID}/update`, {
            method: 'POST',
            query: { version: known.Version.Index },
            body: { ...known.Spec, Role: role },
          })
          io.stdout.write(
            role === 'manager'
              ? `Node ${name} promoted to a manager in the swarm.\n`
              : `Manager ${name} demoted in the swarm.\n`,
          )
        }
      })
  }

  node
    .command('rm')
    .alias('remove')
    .argument('<node...>')
    .description('Forget nodes that left')
    .option('-f, --force', 'Even one that is still there')
    .action(async (names: string[], flags: { force?: boolean }) => {
      const client = await openClient(context)
      for (const name of names) {
        await client.call(`/nodes/${encodeURIComponent(name)}`, {
          method: 'DELETE',
          query: { ...(flags.force && { force: 1 }) },
        })
        io.stdout.write(`${name}\n`)
      }
    })

  return node
}

async function nodeOf(client: Client, name: string): Promise<ApiNode> {
  const id = await resolveSelf(client, name)
  return await client.call<ApiNode>(`/nodes/${encodeURIComponent(id)}`)
}

async function resolveSelf(
  client: { call<T>(path: string): Promise<T> },
  name: string,
): Promise<string> {
  if (name !== 'self') return name
  return (await client.call<ApiInfo>('/info')).Swarm?.NodeID || name
}

function prettyNode(node: ApiNode): string {
  const { Description, Spec, Status, ManagerStatus } = node
  const labels = Object.entries(Spec.Labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  const lines = [
    ['ID', node.ID],
    ['Hostname', Description.Hostname],
    ['Labels', labels.map(([key, value]) => `${key}=${value}`).join(', ')],
    ['Joined at', node.CreatedAt],
    ['State', capital(Status.State)],
    ['Message', Status.Message ?? ''],
    ['Availability', capital(Spec.Availability)],
    ['Address', Status.Addr],
    ['Role', capital(Spec.Role)],
    ['Manager', managerStatus(node)],
    ['Manager address', ManagerStatus?.Addr ?? ''],
    ['Platform', `${Description.Platform.OS} ${Description.Platform.Architecture}`],
    ['CPUs', String(Description.Resources.NanoCPUs / 1e9)],
    ['Memory', formatBytes(Description.Resources.MemoryBytes)],
    ['Engine', Description.Engine.EngineVersion],
  ] as const
  return lines
    .filter(([, value]) => value !== '')
    .map(([label, value]) => `${`${label}:`.padEnd(18)}${value}\n`)
    .join('')
}
