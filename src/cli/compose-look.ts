import { UserError } from '../base/index.ts'
import { inspectImage, label, type Observed, observe } from '../compose-run/index.ts'
import { version } from '../daemon/version.ts'
import { type ContainerListItem, readJsonLines } from '../engine/index.ts'
import { collect, usageError } from './command.ts'
import { type AddCommand, type ComposeContext, openComposeEngine } from './compose-files.ts'
import {
  parseIndex,
  pickContainer,
  pickContainers,
  type Session,
  withSession,
} from './compose-session.ts'
import { sinceOf } from './compose-since.ts'
import { ago, type Column, formatBytes, formatList, shortId, table } from './output.ts'

/** `0.0.0.0:8080->80/tcp, 443/tcp`, as docker lists ports. */
export function formatPorts(ports: ContainerListItem['Ports']): string {
  const texts = (ports ?? []).map(({ IP, PrivatePort, PublicPort, Type }) => {
    if (PublicPort === undefined) return `${PrivatePort}/${Type}`
    const address = IP?.includes(':') ? `[${IP}]` : IP
    return `${address === undefined ? '' : `${address}:`}${PublicPort}->${PrivatePort}/${Type}`
  })
  return [...new Set(texts)].sort().join(', ')
}

const healthOf = ({ status }: Observed): string =>
  /\((healthy|unhealthy|health: starting)\)/.exec(status)?.[1]?.replace('health: ', '') ?? ''
const exitCodeOf = ({ status }: Observed): number =>
  Number(/^Exited \((\d+)\)/.exec(status)?.[1] ?? 0)

export const addLookCommands: AddCommand = (parent, compose) => {
  const { io } = compose
  parent
    .command('ps')
    .argument('[service...]')
    .description('List the containers of the project')
    .option('-a, --all', 'Also those that do not run')
    .option('--filter <status=state>', 'Only those in a state', collect)
    .option('--status <state>', 'Only those in this state (may be repeated)', collect)
    .option('--format <format>', 'table, json, or a template')
    .option('--no-trunc', 'Show everything whole')
    .option('--no-orphans', 'Without those of services that the files no longer have')
    .option('-q, --quiet', 'Only ids')
    .option('--services', 'Only names of services')
    .action((services: string[], flags: PsFlags) =>
      withSession(compose, { files: 'optional', services }, (session) =>
        listContainersOf(session, services, flags),
      ),
    )

  parent
    .command('ls')
    .description('List the projects on this engine')
    .option('-a, --all', 'Also those without running containers')
    .option('--filter <name=text>', 'Only those whose name contains this', collect)
    .option('--format <format>', 'table or json')
    .option('-q, --quiet', 'Only names')
    .action((flags: { all?: boolean; filter?: string[]; format?: string; quiet?: boolean }) =>
      listProjects(compose, flags),
    )

  parent
    .command('top')
    .argument('[service...]')
    .description('Show the processes of containers')
    .action((services: string[]) =>
      withSession(compose, { files: 'optional', services }, async (session) => {
        for (const container of await pickContainers(session, services)) {
          if (container.state !== 'running') continue
          const { signal } = session.world
          const found = await session.world.engine.containers.processes(container.id, signal)
          io.stdout.write(`${container.name}\n`)
          io.stdout.write(`${table([found.Titles, ...(found.Processes ?? [])])}\n`)
        }
      }),
    )

  parent
    .command('port')
    .argument('<service>')
    .argument('<private-port>')
    .description('Show where a port of a service is published')
    .option('--index <number>', 'Number of the container', parseIndex)
    .option('--protocol <protocol>', 'tcp or udp', 'tcp')
    .action((service: string, port: string, flags: { index?: number; protocol: string }) =>
      withSession(compose, { files: 'optional', services: [service] }, async (session) => {
        const [number = '', protocol = flags.protocol] = port.split('/')
        const container = await pickContainer(session, service, flags.index)
        const { signal } = session.world
        const { NetworkSettings } = await session.world.engine.containers.inspect(
          container.id,
          signal,
        )
        const [binding] = NetworkSettings.Ports?.[`${number}/${protocol}`] ?? []
        if (binding === undefined) {
          throw new UserError(
            'notFound',
            `port ${number}/${protocol} of ${container.name} is not published`,
            {
              next: `Publish it below ports of ${service}.`,
            },
          )
        }
        const { HostIp = '', HostPort = '' } = binding
        io.stdout.write(`${HostIp.includes(':') ? `[${HostIp}]` : HostIp}:${HostPort}\n`)
      }),
    )

  parent
    .command('images')
    .argument('[service...]')
    .description('List the images that containers were made from')
    .option('--format <format>', 'table or json')
    .option('-q, --quiet', 'Only ids')
    .action((services: string[], flags: { format?: string; quiet?: boolean }) =>
      withSession(compose, { files: 'optional', services }, (session) =>
        listImages(session, services, flags),
      ),
    )

  parent
    .command('events')
    .argument('[service...]')
    .description('Show what happens to containers, as it happens')
    .option('--json', 'One JSON object an event')
    .option('--since <time>', 'From this time on')
    .option('--until <time>', 'Up to this time')
    .action((services: string[], flags: { json?: boolean; since?: string; until?: string }) =>
      withSession(compose, { files: 'optional', services }, (session) =>
        printEvents(session, services, flags),
      ),
    )

  parent
    .command('stats')
    .argument('[service]')
    .description('Show what containers use of the machine')
    .option('-a, --all', 'Also those that do not run')
    .option('--format <format>', 'table or json')
    .option('--no-stream', 'Once')
    .option('--no-trunc', 'Show ids whole')
    .action((service: string | undefined, flags: StatsFlags) => {
      const services = service === undefined ? [] : [service]
      return withSession(compose, { files: 'optional', services }, (session) =>
        printStats(session, services, flags),
      )
    })

  parent
    .command('version')
    .description('Print the version')
    .option('-f, --format <format>', 'pretty or json')
    .option('--short', 'Only the number')
    .action(({ format, short }: { format?: string; short?: boolean }) => {
      if (format === 'json') io.stdout.write(`${JSON.stringify({ version })}\n`)
      else io.stdout.write(short ? `${version}\n` : `Skep Compose version ${version}\n`)
    })
}

interface PsFlags {
  readonly all?: boolean
  readonly filter?: readonly string[]
  readonly status?: readonly string[]
  readonly format?: string
  readonly trunc?: boolean
  readonly orphans?: boolean
  readonly quiet?: boolean
  readonly services?: boolean
}

const states = [
  'created',
  'running',
  'restarting',
  'paused',
  'removing',
  'exited',
  'dead',
  'stopped',
]

function statesOf({ filter = [], status = [] }: PsFlags): readonly string[] {
  const ofFilters = filter.map((text) => {
    const [key, value = ''] = text.split('=')
    if (key !== 'status') throw usageError(`--filter ${text}: only status=… is known`)
    return value
  })
  return [...ofFilters, ...status].map((state) => {
    if (!states.includes(state)) {
      throw usageError(`"${state}" is no state: choose of ${states.join(', ')}`)
    }
    return state === 'stopped' ? 'exited' : state
  })
}

async function listContainersOf(
  session: Session,
  services: readonly string[],
  flags: PsFlags,
): Promise<void> {
  const { io, project } = session
  const wanted = statesOf(flags)
  const all = await pickContainers(session, services, { oneOff: flags.all === true })
  const known = project && { ...project.services, ...project.disabledServices }
  const rows = all.filter(({ state, service }) => {
    if (flags.orphans === false && known && !Object.hasOwn(known, service)) return false
    if (wanted.length > 0) return wanted.includes(state)
    return flags.all || ['running', 'paused', 'restarting'].includes(state)
  })
  if (flags.services) {
    io.stdout.write([...new Set(rows.map(({ service }) => `${service}\n`))].join(''))
    return
  }
  const short = flags.trunc !== false
  const columns: readonly Column<Observed>[] = [
    { field: 'Name', header: 'NAME', value: ({ name }) => name },
    { field: 'Image', header: 'IMAGE', value: ({ image }) => image },
    {
      field: 'Command',
      header: 'COMMAND',
      value: ({ item }) => `"${cut(item.Command ?? '', short ? 20 : 1e6)}"`,
    },
    { field: 'Service', header: 'SERVICE', value: ({ service }) => service },
    {
      field: 'RunningFor',
      header: 'CREATED',
      value: ({ item }) => ago(new Date((item.Created ?? 0) * 1000).toISOString(), io.nowMs()),
    },
    { field: 'Status', header: 'STATUS', value: ({ status }) => status },
    { field: 'Ports', header: 'PORTS', value: ({ item }) => formatPorts(item.Ports) },
    { field: 'ID', header: 'ID', value: ({ id }) => shortId(id, !short), hidden: true },
    { field: 'State', header: 'STATE', value: ({ state }) => state, hidden: true },
    { field: 'Health', header: 'HEALTH', value: healthOf, hidden: true },
    { field: 'ExitCode', header: 'EXIT CODE', value: (row) => `${exitCodeOf(row)}`, hidden: true },
    { field: 'Project', header: 'PROJECT', value: () => session.name, hidden: true },
  ]
  if (flags.format === 'json') {
    for (const row of rows) io.stdout.write(`${JSON.stringify(jsonRow(session, row))}\n`)
    return
  }
  io.stdout.write(
    formatList(rows, columns, listFlags(flags), { objects: rows, quiet: ({ id }) => id }),
  )
}

function listFlags(flags: { readonly format?: string; readonly quiet?: boolean }): {
  format?: string
  quiet?: boolean
} {
  return {
    ...(flags.format !== undefined && { format: flags.format }),
    ...(flags.quiet !== undefined && { quiet: flags.quiet }),
  }
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text
}

/** The fields that scripts read of Docker Compose's `ps --format json`. */
function jsonRow(session: Session, row: Observed): Record<string, unknown> {
  const { item } = row
  return {
    Command: `"${cut(item.Command ?? '', 20)}"`,
    CreatedAt: new Date((item.Created ?? 0) * 1000).toISOString(),
    ExitCode: exitCodeOf(row),
    Health: healthOf(row),
    ID: row.id,
    Image: row.image,
    Labels: Object.entries(item.Labels ?? {})
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    Name: row.name,
    Names: row.name,
    Networks: Object.keys(row.networkIdByName).join(','),
    Ports: formatPorts(item.Ports),
    Project: session.name,
    Publishers: (item.Ports ?? []).map(({ IP = '', PrivatePort, PublicPort = 0, Type }) => ({
      URL: IP,
      TargetPort: PrivatePort,
      PublishedPort: PublicPort,
      Protocol: Type,
    })),
    RunningFor: ago(new Date((item.Created ?? 0) * 1000).toISOString(), session.io.nowMs()),
    Service: row.service,
    State: row.state,
    Status: row.status,
  }
}

async function listProjects(
  compose: ComposeContext,
  flags: { all?: boolean; filter?: string[]; format?: string; quiet?: boolean },
): Promise<void> {
  const { io } = compose
  const names = (flags.filter ?? []).map((text) => {
    const [key, value = ''] = text.split('=')
    if (key !== 'name') throw usageError(`--filter ${text}: only name=… is known`)
    return value
  })
  const engine = await openComposeEngine(compose)
  try {
    const items = await engine.containers.list(
      { all: true, filters: { label: [label.project] } },
      io.signal,
    )
    const byProject = new Map<string, ContainerListItem[]>()
    for (const item of items) {
      if (observe(item)?.isOneOff !== false) continue
      if (!flags.all && item.State !== 'running') continue
      const name = item.Labels?.[label.project] ?? ''
      byProject.set(name, [...(byProject.get(name) ?? []), item])
    }
    const rows = [...byProject]
      .filter(([name]) => names.every((text) => name.includes(text)))
      .map(([name, own]) => ({ name, status: countStates(own), files: filesOf(own) }))
      .sort((one, other) => (one.name < other.name ? -1 : 1))
    if (flags.format === 'json') {
      const json = rows.map(({ name, status, files }) => ({
        Name: name,
        Status: status,
        ConfigFiles: files,
      }))
      io.stdout.write(`${JSON.stringify(json)}\n`)
    } else if (flags.quiet) io.stdout.write(rows.map(({ name }) => `${name}\n`).join(''))
    else {
      const cells = rows.map(({ name, status, files }) => [name, status, files])
      io.stdout.write(table([['NAME', 'STATUS', 'CONFIG FILES'], ...cells]))
    }
  } finally {
    engine.close()
  }
}

function countStates(items: readonly ContainerListItem[]): string {
  const counts = new Map<string, number>()
  for (const { State } of items) counts.set(State, (counts.get(State) ?? 0) + 1)
  return [...counts]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([state, count]) => `${state}(${count})`)
    .join(', ')
}

function filesOf(items: readonly ContainerListItem[]): string {
  const files = items.flatMap(({ Labels }) => Labels?.[label.files]?.split(',') ?? [])
  return [...new Set(files)].join(',')
}

async function listImages(
  session: Session,
  services: readonly string[],
  flags: { readonly format?: string; readonly quiet?: boolean },
): Promise<void> {
  const { io, world } = session
  const containers = await pickContainers(session, services)
  const rows = await Promise.all(
    containers.map(async ({ name, item, image }) => {
      const id = item.ImageID ?? ''
      const found = await inspectImage(world, id)
      const colon = image.lastIndexOf(':')
      const hasTag = colon > image.lastIndexOf('/')
      return {
        container: name,
        repository: image.startsWith('sha256:') ? '<none>' : hasTag ? image.slice(0, colon) : image,
        tag: image.startsWith('sha256:') ? '<none>' : hasTag ? image.slice(colon + 1) : 'latest',
        platform: found ? `${found.Os}/${found.Architecture}` : '',
        id: id.replace(/^sha256:/, ''),
        size: found?.Size ?? 0,
        created: found?.Created ?? '',
      }
    }),
  )
  if (flags.quiet) {
    io.stdout.write([...new Set(rows.map(({ id }) => `${id}\n`))].join(''))
    return
  }
  if (flags.format === 'json') {
    const json = rows.map((row) => ({
      ID: `sha256:${row.id}`,
      ContainerName: row.container,
      Repository: row.repository,
      Tag: row.tag,
      Platform: row.platform,
      Size: row.size,
    }))
    io.stdout.write(`${JSON.stringify(json)}\n`)
    return
  }
  const cells = rows.map((row) => [
    row.container,
    row.repository,
    row.tag,
    row.platform,
    row.id.slice(0, 12),
    formatBytes(row.size),
    row.created === '' ? '' : ago(row.created, io.nowMs()),
  ])
  io.stdout.write(
    table([
      ['CONTAINER', 'REPOSITORY', 'TAG', 'PLATFORM', 'IMAGE ID', 'SIZE', 'CREATED'],
      ...cells,
    ]),
  )
}

async function printEvents(
  session: Session,
  services: readonly string[],
  flags: { readonly json?: boolean; readonly since?: string; readonly until?: string },
): Promise<void> {
  const { world, io, name } = session
  const nowMs = io.nowMs()
  const events = await world.engine.events(
    {
      filters: { type: ['container'], label: [`${label.project}=${name}`] },
      ...(flags.since !== undefined && { since: await sinceOf(flags.since, nowMs) }),
      ...(flags.until !== undefined && { until: await sinceOf(flags.until, nowMs) }),
    },
    world.signal,
  )
  for await (const { Action, Actor, timeNano } of events) {
    const attributes = Actor.Attributes ?? {}
    const service = attributes[label.service] ?? ''
    if (services.length > 0 && !services.includes(service)) continue
    const time = new Date(timeNano / 1e6).toISOString()
    const own = Object.fromEntries(
      Object.entries(attributes).filter(([key]) => !key.startsWith('com.docker.compose.')),
    )
    if (flags.json) {
      const event = {
        action: Action,
        attributes: own,
        id: Actor.ID,
        service,
        time,
        type: 'container',
      }
      io.stdout.write(`${JSON.stringify(event)}\n`)
    } else {
      const shown = Object.entries(own).map(([key, value]) => `${key}=${value}`)
      io.stdout.write(`${time} container ${Action} ${Actor.ID} (${shown.join(', ')})\n`)
    }
  }
}

interface StatsFlags {
  readonly all?: boolean
  readonly format?: string
  readonly stream?: boolean
  readonly trunc?: boolean
}

/** What of the engine's statistics is shown. */
interface Stats {
  readonly cpu_stats?: CpuStats
  readonly precpu_stats?: CpuStats
  readonly memory_stats?: {
    readonly usage?: number
    readonly limit?: number
    readonly stats?: Readonly<Record<string, number>>
  }
  readonly networks?: Readonly<Record<string, { rx_bytes: number; tx_bytes: number }>>
  readonly blkio_stats?: {
    readonly io_service_bytes_recursive?: readonly { op: string; value: number }[] | null
  }
  readonly pids_stats?: { readonly current?: number }
}
interface CpuStats {
  readonly cpu_usage?: { readonly total_usage?: number; readonly percpu_usage?: readonly number[] }
  readonly system_cpu_usage?: number
  readonly online_cpus?: number
}

async function printStats(
  session: Session,
  services: readonly string[],
  flags: StatsFlags,
): Promise<void> {
  const { world, io } = session
  const isStream = flags.stream !== false
  const containers = (await pickContainers(session, services)).filter(
    ({ state }) => flags.all || state === 'running',
  )
  const latest = new Map<string, Stats>()
  const read = async ({ id }: Observed): Promise<void> => {
    const body = await world.engine.containers.stats(id, { stream: isStream }, world.signal)
    for await (const line of readJsonLines(body)) {
      latest.set(id, parseStats(line))
      // All of a second are shown together, on the word of the first container.
      if (isStream && id === containers[0]?.id) show(true)
    }
  }
  const show = (clear: boolean): void => {
    const rows = containers.map((container) => statsRow(container, latest.get(container.id), flags))
    const screen = clear && io.stdout.isTTY ? '\u001b[H\u001b[J' : ''
    if (flags.format === 'json') {
      io.stdout.write(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
      return
    }
    const header = [
      'CONTAINER ID',
      'NAME',
      'CPU %',
      'MEM USAGE / LIMIT',
      'MEM %',
      'NET I/O',
      'BLOCK I/O',
      'PIDS',
    ]
    const cells = rows.map((row) => [
      row.ID,
      row.Name,
      row.CPUPerc,
      row.MemUsage,
      row.MemPerc,
      row.NetIO,
      row.BlockIO,
      row.PIDs,
    ])
    io.stdout.write(`${screen}${table([header, ...cells])}`)
  }
  await Promise.all(containers.map(read))
  if (!isStream) show(false)
}

/** The engine's answer is taken as its API documents it: every part is optional. */
function parseStats(line: unknown): Stats {
  return typeof line === 'object' && line !== null ? (line as Stats) : {}
}

function statsRow(
  { id, name }: Observed,
  stats: Stats | undefined,
  flags: StatsFlags,
): Record<
  'ID' | 'Name' | 'CPUPerc' | 'MemUsage' | 'MemPerc' | 'NetIO' | 'BlockIO' | 'PIDs',
  string
> {
  const { cpu_stats: now, precpu_stats: before, memory_stats: memory } = stats ?? {}
  const cpu = (now?.cpu_usage?.total_usage ?? 0) - (before?.cpu_usage?.total_usage ?? 0)
  const system = (now?.system_cpu_usage ?? 0) - (before?.system_cpu_usage ?? 0)
  const cpus = now?.online_cpus ?? now?.cpu_usage?.percpu_usage?.length ?? 1
  const share = system > 0 && cpu > 0 ? (cpu / system) * cpus * 100 : 0
  // The page cache that can be taken back is no use of the container's.
  const cache = memory?.stats?.['total_inactive_file'] ?? memory?.stats?.['inactive_file'] ?? 0
  const used = Math.max(0, (memory?.usage ?? 0) - cache)
  const limit = memory?.limit ?? 0
  const networks = Object.values(stats?.networks ?? {})
  const sum = (key: 'rx_bytes' | 'tx_bytes') =>
    networks.reduce((total, network) => total + network[key], 0)
  const blocks = stats?.blkio_stats?.io_service_bytes_recursive ?? []
  const moved = (op: string) =>
    blocks
      .filter((one) => one.op.toLowerCase() === op)
      .reduce((total, { value }) => total + value, 0)
  return {
    ID: shortId(id, flags.trunc === false),
    Name: name,
    CPUPerc: `${share.toFixed(2)}%`,
    MemUsage: `${formatBytes(used)} / ${formatBytes(limit)}`,
    MemPerc: `${(limit > 0 ? (used / limit) * 100 : 0).toFixed(2)}%`,
    NetIO: `${formatBytes(sum('rx_bytes'))} / ${formatBytes(sum('tx_bytes'))}`,
    BlockIO: `${formatBytes(moved('read'))} / ${formatBytes(moved('write'))}`,
    PIDs: `${stats?.pids_stats?.current ?? 0}`,
  }
}
