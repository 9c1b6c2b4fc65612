import type { ApiNode, ApiService, ApiTask } from './api.ts'
import { type Client, filtersQuery } from './client.ts'
import type { LsFlags } from './list-options.ts'
import { ago, type Column, formatList, shortId } from './output.ts'
import { formatPort, shownImage } from './shown.ts'

export interface TaskRow {
  readonly task: ApiTask
  readonly name: string
  readonly node: string
  readonly nowMs: number
  readonly noTrunc: boolean
}

const columns: readonly Column<TaskRow>[] = [
  { field: 'ID', header: 'ID', value: ({ task, noTrunc }) => shortId(task.ID, noTrunc) },
  { field: 'Name', header: 'NAME', value: ({ name }) => name },
  {
    field: 'Image',
    header: 'IMAGE',
    value: ({ task, noTrunc }) => shownImage(task.Spec.ContainerSpec?.Image ?? '', noTrunc),
  },
  { field: 'Node', header: 'NODE', value: ({ node }) => node },
  {
    field: 'DesiredState',
    header: 'DESIRED STATE',
    value: ({ task }) => capital(task.DesiredState),
  },
  {
    field: 'CurrentState',
    header: 'CURRENT STATE',
    value: ({ task, nowMs }) =>
      `${capital(task.Status.State)} ${ago(task.Status.Timestamp, nowMs).replace(/^[A-Z]/, (letter) => letter.toLowerCase())}`,
  },
  {
    field: 'Error',
    header: 'ERROR',
    value: ({ task, noTrunc }) => {
      const error = task.Status.Err ?? ''
      if (error === '') return ''
      return noTrunc || error.length <= 70 ? `"${error}"` : `"${error.slice(0, 69)}…"`
    },
  },
  {
    field: 'Ports',
    header: 'PORTS',
    value: ({ task }) => (task.Status.PortStatus?.Ports ?? []).map(formatPort).join(','),
  },
]

/** Tasks as `service ps` lists them: by name, the newest of a slot first, older ones marked. */
export async function listTasks(
  client: Client,
  tasks: readonly ApiTask[],
  flags: LsFlags & { readonly resolve?: boolean },
  nowMs: number,
): Promise<string> {
  const isNamed = flags.resolve !== false && !flags.quiet
  const [services, nodes] = isNamed
    ? await Promise.all([client.call<ApiService[]>('/services'), client.call<ApiNode[]>('/nodes')])
    : [[], []]
  const serviceNames = new Map(services.map(({ ID, Spec }) => [ID, Spec.Name]))
  const nodeNames = new Map(nodes.map(({ ID, Description }) => [ID, Description.Hostname]))
  const noTrunc = flags.trunc === false
  const sorted = sortTasks(tasks, (task) => taskName(task, serviceNames))
  const rows = sorted.map((task, index): TaskRow => {
    const name = taskName(task, serviceNames)
    const before = sorted[index - 1]
    const isOlder = before !== undefined && taskName(before, serviceNames) === name
    return {
      task,
      name: isNamed && isOlder && flags.format === undefined ? ` \\_ ${name}` : name,
      node: nodeNames.get(task.NodeID ?? '') ?? task.NodeID ?? '',
      nowMs,
      noTrunc,
    }
  })
  return formatList(rows, columns, flags, { objects: sorted, quiet: ({ task }) => task.ID })
}

/** `web.1`, or `web.<node>` for a global service. */
export function taskName(task: ApiTask, serviceNames: ReadonlyMap<string, string>): string {
  const service = serviceNames.get(task.ServiceID ?? '') ?? task.ServiceID ?? ''
  const isGlobal = task.Slot === undefined && task.NodeID !== undefined && task.NodeID !== ''
  return service === '' ? task.ID : `${service}.${isGlobal ? task.NodeID : (task.Slot ?? 0)}`
}

export function sortTasks(tasks: readonly ApiTask[], nameOf: (task: ApiTask) => string): ApiTask[] {
  return [...tasks].sort(
    (a, b) =>
      nameOf(a).localeCompare(nameOf(b), 'en', { numeric: true }) ||
      (a.CreatedAt < b.CreatedAt ? 1 : a.CreatedAt > b.CreatedAt ? -1 : 0),
  )
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** Tasks of one or several services, by name or id. Throws for a name that is not there. */
export async function tasksOfServices(
  client: Client,
  names: readonly string[],
  filters: Record<string, string[]>,
): Promise<ApiTask[]> {
  const services = await Promise.all(
    names.map((name) => client.call<ApiService>(`/services/${encodeURIComponent(name)}`)),
  )
  return await client.call<ApiTask[]>('/tasks', {
    query: filtersQuery({ ...filters, service: services.map(({ ID }) => ID) }),
  })
}
