import type { PortBody, ServiceSpecBody } from '../compose/index.ts'
import type { ApiService } from './api.ts'
import type { LsFlags } from './list-options.ts'
import { type Column, formatBytes, formatDurationNs, formatList, shortId } from './output.ts'
import { formatPort, shownImage } from './shown.ts'

/** Published ports, neighbours as one range. */
export function formatPorts(ports: readonly PortBody[]): string {
  const sorted = ports
    .filter(({ PublishMode = 'ingress' }) => PublishMode === 'ingress')
    .sort(
      (a, b) =>
        (a.Protocol ?? 'tcp').localeCompare(b.Protocol ?? 'tcp') ||
        (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0),
    )
  const ranges: { first: PortBody; last: PortBody }[] = []
  for (const port of sorted) {
    const range = ranges.at(-1)
    const isNext =
      range !== undefined &&
      range.last.Protocol === port.Protocol &&
      (port.PublishedPort ?? 0) === (range.last.PublishedPort ?? 0) + 1 &&
      (port.TargetPort ?? 0) === (range.last.TargetPort ?? 0) + 1
    if (isNext) range.last = port
    else ranges.push({ first: port, last: port })
  }
  return ranges
    .map(({ first, last }) =>
      first === last
        ? formatPort(first)
        : `*:${first.PublishedPort}-${last.PublishedPort}->${first.TargetPort}-${last.TargetPort}/${first.Protocol ?? 'tcp'}`,
    )
    .join(', ')
}

export function modeOf({ Mode }: ServiceSpecBody): string {
  if (Mode.Global) return 'global'
  if (Mode.ReplicatedJob) return 'replicated job'
  if (Mode.GlobalJob) return 'global job'
  return 'replicated'
}

/** `2/3`, `0/1 (max 3 per node)`, `1/2 (3/5 completed)`. */
export function formatReplicas({ Spec, ServiceStatus: status }: ApiService): string {
  if (status === undefined) return ''
  const base = `${status.RunningTasks}/${status.DesiredTasks}`
  const completed = status.CompletedTasks ?? 0
  if (Spec.Mode.ReplicatedJob) {
    const total =
      Spec.Mode.ReplicatedJob.TotalCompletions ?? Spec.Mode.ReplicatedJob.MaxConcurrent ?? 1
    return `${base} (${completed}/${total} completed)`
  }
  if (Spec.Mode.GlobalJob)
    return `${base} (${completed}/${completed + status.DesiredTasks} completed)`
  const most = Spec.TaskTemplate.Placement?.MaxReplicas ?? 0
  return Spec.Mode.Replicated && most > 0 ? `${base} (max ${most} per node)` : base
}

const columns: readonly Column<ApiService>[] = [
  { field: 'ID', header: 'ID', value: ({ ID }) => shortId(ID) },
  { field: 'Name', header: 'NAME', value: ({ Spec }) => Spec.Name },
  { field: 'Mode', header: 'MODE', value: ({ Spec }) => modeOf(Spec) },
  { field: 'Replicas', header: 'REPLICAS', value: formatReplicas },
  {
    field: 'Image',
    header: 'IMAGE',
    value: ({ Spec }) => shownImage(Spec.TaskTemplate.ContainerSpec.Image),
  },
  { field: 'Ports', header: 'PORTS', value: ({ Endpoint }) => formatPorts(Endpoint?.Ports ?? []) },
]

export function listServices(services: readonly ApiService[], flags: LsFlags): string {
  const sorted = [...services].sort((a, b) =>
    a.Spec.Name.localeCompare(b.Spec.Name, 'en', { numeric: true }),
  )
  const shown: readonly Column<ApiService>[] =
    flags.trunc === false
      ? [{ field: 'ID', header: 'ID', value: ({ ID }) => ID }, ...columns.slice(1)]
      : columns
  return formatList(sorted, shown, flags, { objects: sorted, quiet: ({ ID }) => ID })
}

/** `service inspect --pretty`. */
export function prettyService(service: ApiService): string {
  const { Spec, UpdateStatus, Endpoint } = service
  const { TaskTemplate: task } = Spec
  const container = task.ContainerSpec
  const lines: string[] = []
  const line = (label: string, value: string | number | undefined, indent = 0) => {
    if (value === undefined || value === '') return
    lines.push(`${`${' '.repeat(indent)}${label}:`.padEnd(15)} ${value}`)
  }
  const head = (text: string) => lines.push(`${text}:`)
  line('ID', service.ID)
  line('Name', Spec.Name)
  map('Labels', Spec.Labels)
  line(
    'Service Mode',
    modeOf(Spec).replace(/\b\w/g, (letter) => letter.toUpperCase()),
  )
  if (Spec.Mode.Replicated) line('Replicas', Spec.Mode.Replicated.Replicas ?? 1, 1)
  if (Spec.Mode.ReplicatedJob) {
    line('Max Concurrent', Spec.Mode.ReplicatedJob.MaxConcurrent, 1)
    line('Total Completions', Spec.Mode.ReplicatedJob.TotalCompletions, 1)
  }
  if (UpdateStatus?.State) {
    head('UpdateStatus')
    line('State', UpdateStatus.State, 1)
    line('Started', UpdateStatus.StartedAt, 1)
    line('Completed', UpdateStatus.CompletedAt, 1)
    line('Message', UpdateStatus.Message, 1)
  }
  if (task.Placement?.Constraints?.length || task.Placement?.Preferences?.length) {
    head('Placement')
    line('Constraints', task.Placement.Constraints?.join(', '), 1)
    line(
      'Preferences',
      task.Placement.Preferences?.map(({ Spread }) => `spread=${Spread.SpreadDescriptor}`).join(
        ', ',
      ),
      1,
    )
    line('Max Replicas Per Node', task.Placement.MaxReplicas, 1)
  }
  for (const [title, config] of [
    ['UpdateConfig', Spec.UpdateConfig],
    ['RollbackConfig', Spec.RollbackConfig],
  ] as const) {
    if (config === undefined) continue
    head(title)
    line('Parallelism', config.Parallelism, 1)
    if (config.Delay !== undefined) line('Delay', formatDurationNs(config.Delay), 1)
    line('On failure', config.FailureAction, 1)
    if (config.Monitor !== undefined) line('Monitoring Period', formatDurationNs(config.Monitor), 1)
    line('Max failure ratio', config.MaxFailureRatio, 1)
    line('Update order', config.Order, 1)
  }
  head('ContainerSpec')
  line('Image', container.Image, 1)
  line('Command', container.Command?.join(' '), 1)
  line('Args', container.Args?.join(' '), 1)
  line('Env', container.Env?.join(' '), 1)
  line('Dir', container.Dir, 1)
  line('User', container.User, 1)
  if (container.Init !== undefined) line('Init', String(container.Init), 1)
  if (container.Mounts?.length) {
    head('Mounts')
    for (const mount of container.Mounts) {
      line('Target', mount.Target, 1)
      line('Source', mount.Source, 2)
      line('ReadOnly', String(mount.ReadOnly ?? false), 2)
      line('Type', mount.Type, 2)
    }
  }
  for (const [title, references] of [
    [
      'Secrets',
      (container.Secrets ?? []).map(({ File, SecretName }) => [File.Name, SecretName] as const),
    ],
    [
      'Configs',
      (container.Configs ?? []).map(
        ({ File, ConfigName }) => [File?.Name ?? '', ConfigName] as const,
      ),
    ],
  ] as const) {
    if (references.length === 0) continue
    head(title)
    for (const [target, source] of references) {
      line('Target', target, 1)
      line('Source', source, 2)
    }
  }
  if (container.Healthcheck) {
    head('Healthcheck')
    line('Test', container.Healthcheck.Test?.join(' '), 1)
    for (const key of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
      const ns = container.Healthcheck[key]
      if (ns) line(key, formatDurationNs(ns), 1)
    }
    line('Retries', container.Healthcheck.Retries, 1)
  }
  const { Limits, Reservations } = task.Resources ?? {}
  if (Object.keys({ ...Limits, ...Reservations }).length > 0) {
    head('Resources')
    for (const [title, amounts] of [
      ['Reservations', Reservations],
      ['Limits', Limits],
    ] as const) {
      if (!amounts || Object.keys(amounts).length === 0) continue
      lines.push(` ${title}:`)
      if (amounts.NanoCPUs) line('CPU', amounts.NanoCPUs / 1e9, 2)
      if (amounts.MemoryBytes) line('Memory', formatBytes(amounts.MemoryBytes), 2)
    }
  }
  line('Networks', task.Networks?.map(({ Target }) => Target).join(' '))
  line('Endpoint Mode', Endpoint?.Spec?.Mode ?? 'vip')
  if (Endpoint?.Ports?.length) {
    head('Ports')
    for (const port of Endpoint.Ports) {
      line('PublishedPort', port.PublishedPort, 1)
      line('Protocol', port.Protocol, 2)
      line('TargetPort', port.TargetPort, 2)
      line('PublishMode', port.PublishMode, 2)
    }
  }
  return `${lines.join('\n')}\n`

  function map(title: string, values: Readonly<Record<string, string>>): void {
    const entries = Object.entries(values ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
    if (entries.length === 0) return
    head(title)
    for (const [key, value] of entries) lines.push(` ${key}=${value}`)
  }
}
