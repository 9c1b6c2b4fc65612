import { UserError } from '../base/index.ts'
import { parseDurationNs } from '../compose/index.ts'
import { FrameReader, readLines } from '../engine/index.ts'
import type { ApiNode, ApiService, ApiTask } from './api.ts'
import { type Client, found } from './client.ts'
import type { Io } from './io.ts'
import { taskName } from './tasks.ts'

export interface LogFlags {
  readonly follow?: boolean
  readonly tail?: string
  readonly since?: string
  readonly timestamps?: boolean
  readonly raw?: boolean
  readonly details?: boolean
  readonly trunc?: boolean
  readonly resolve?: boolean
  readonly taskIds?: boolean
}

/** Longest log line taken. */
const lineBytesMax = 16 * 1024 * 1024
const ownDetails = [
  'com.docker.swarm.node.id',
  'com.docker.swarm.service.id',
  'com.docker.swarm.task.id',
]

/** Prints the logs of a service or task, each line with its task's name unless `--raw`. */
export async function printLogs(
  client: Client,
  io: Io,
  target: string,
  flags: LogFlags,
): Promise<void> {
  const id = encodeURIComponent(target)
  const service = await found(client.call<ApiService>(`/services/${id}`))
  const task = service ? undefined : await found(client.call<ApiTask>(`/tasks/${id}`))
  if (!service && !task) {
    throw new UserError('notFound', `there is no service or task ${target}`, {
      next: 'List them with `skep service ls`.',
    })
  }
  const container = service?.Spec.TaskTemplate.ContainerSpec ?? task?.Spec.ContainerSpec
  if (container?.TTY && !flags.raw) {
    throw new UserError(
      'invalidInput',
      `${target} has a terminal, so its lines can't be told apart`,
      {
        next: 'Add --raw.',
      },
    )
  }
  const path = service ? `/services/${service.ID}/logs` : `/tasks/${task?.ID}/logs`
  const { signal } = io
  const response = await client.open(path, {
    signal,
    query: {
      stdout: 1,
      stderr: 1,
      tail: flags.tail ?? 'all',
      ...(flags.follow && { follow: 1 }),
      ...(flags.timestamps && { timestamps: 1 }),
      ...(!flags.raw && { details: 1 }),
      ...(flags.since !== undefined && { since: sinceOf(flags.since, io.nowMs()) }),
    },
  })
  try {
    if (container?.TTY) {
      for await (const chunk of response) await write(io.stdout, chunk)
      return
    }
    const nameOf = flags.raw ? undefined : await namer(client, flags)
    const reader = new FrameReader()
    const print = async (line: string, stream: 'stdout' | 'stderr') =>
      await write(io[stream], nameOf ? await nameOf(line) : line)
    for await (const chunk of response) {
      for (const { stream, data } of reader.push(chunk)) {
        for await (const line of readLines(once(data), lineBytesMax))
          await print(`${line.toString()}\n`, stream)
      }
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : error
  }
}

async function* once(data: Buffer): AsyncGenerator<Buffer> {
  yield data
}

async function write(stream: Io['stdout'] | Io['stderr'], data: string | Buffer): Promise<void> {
  if (!stream.write(data)) await new Promise<void>((resolve) => stream.once('drain', resolve))
}

/** A time, `10m` (that long ago) or seconds since 1970. Throws `invalidInput`. */
export function sinceOf(text: string, nowMs: number): string {
  if (/^\d+(\.\d+)?$/.test(text)) return text
  if (/^\d{4}-\d\d-\d\d/.test(text)) {
    const ms = Date.parse(text)
    if (!Number.isNaN(ms)) return String(ms / 1000)
  }
  return String((nowMs - parseDurationNs(text) / 1e6) / 1000)
}

/** Puts `web.1.<task>@host    | ` before a line, in place of the details it carries. Names are asked for once each. */
async function namer(client: Client, flags: LogFlags): Promise<(line: string) => Promise<string>> {
  const names = new Map<string, Promise<string>>()
  let width = 0
  return async (line) => {
    const parsed = parseDetails(line, flags.timestamps ?? false)
    if (parsed === undefined) return line
    const { time, own, others, text } = parsed
    const taskId = own['com.docker.swarm.task.id'] ?? ''
    const known = names.get(taskId)
    const name = known ?? nameTask(client, own, flags)
    if (!known) names.set(taskId, name)
    const shown = await name
    width = Math.max(width, shown.length)
    const details = flags.details && others !== '' ? `${others} ` : ''
    return `${time}${shown.padEnd(width)}    | ${details}${text}`
  }
}

async function nameTask(
  client: Client,
  own: Readonly<Record<string, string>>,
  flags: LogFlags,
): Promise<string> {
  const taskId = own['com.docker.swarm.task.id'] ?? ''
  const serviceId = own['com.docker.swarm.service.id'] ?? ''
  const nodeId = own['com.docker.swarm.node.id'] ?? ''
  const shortTask = flags.trunc === false ? taskId : taskId.slice(0, 12)
  if (flags.resolve === false) return `${serviceId}.${shortTask}@${nodeId}`
  const [task, service, node] = await Promise.all([
    found(client.call<ApiTask>(`/tasks/${taskId}`)),
    found(client.call<ApiService>(`/services/${serviceId}`)),
    found(client.call<ApiNode>(`/nodes/${nodeId}`)),
  ])
  const name = task
    ? taskName(task, new Map([[serviceId, service?.Spec.Name ?? serviceId]]))
    : serviceId
  const end = flags.taskIds === false ? '' : `.${shortTask}`
  return `${name}${end}@${node?.Description.Hostname ?? nodeId}`
}

/** Takes `[time ]k=v,k=v text` apart. `undefined` where the line carries no details of a task. */
export function parseDetails(
  line: string,
  hasTime: boolean,
):
  | {
      readonly time: string
      readonly own: Readonly<Record<string, string>>
      readonly others: string
      readonly text: string
    }
  | undefined {
  const match = (hasTime ? /^(\S+ )(\S+=\S*) ([\s\S]*)$/ : /^()(\S+=\S*) ([\s\S]*)$/).exec(line)
  if (!match?.[2]?.includes('com.docker.swarm.task.id=')) return undefined
  const own: Record<string, string> = {}
  const others: string[] = []
  for (const part of match[2].split(',')) {
    const [key = '', value = ''] = part.split('=')
    const name = decodeURIComponent(key)
    if (ownDetails.includes(name)) own[name] = decodeURIComponent(value)
    else others.push(part)
  }
  return { time: match[1] ?? '', own, others: others.join(','), text: match[3] ?? '' }
}
