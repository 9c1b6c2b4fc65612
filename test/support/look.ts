import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isMissingFile } from '../../src/compose/missing-file.ts'
import { eventually, run, sharedEngine, type TestDaemon } from './daemon.ts'

/** What lies at a path of an answer; `undefined` where there is nothing. */
export function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  let here = value
  for (const key of path) {
    if (typeof here !== 'object' || here === null) return undefined
    here = Reflect.get(here, key)
  }
  return here
}

export function textAt(value: unknown, ...path: readonly (string | number)[]): string {
  const found = at(value, ...path)
  return typeof found === 'string' ? found : ''
}

export function numberAt(value: unknown, ...path: readonly (string | number)[]): number {
  const found = at(value, ...path)
  return typeof found === 'number' ? found : Number.NaN
}

export function listAt(value: unknown, ...path: readonly (string | number)[]): readonly unknown[] {
  const found = at(value, ...path)
  return Array.isArray(found) ? found : []
}

/** One task as `GET /tasks` shows it. */
export interface SeenTask {
  readonly id: string
  readonly slot: number | undefined
  readonly state: string
  readonly desired: string
  readonly error: string
  readonly message: string
  readonly image: string
  readonly containerId: string
  readonly exitCode: number
  readonly whole: unknown
}

export async function tasksOf(daemon: TestDaemon, service: string): Promise<readonly SeenTask[]> {
  const filters = encodeURIComponent(JSON.stringify({ service: [service] }))
  const { status, body, text } = await daemon.api('GET', `/tasks?filters=${filters}`)
  if (status !== 200) throw new Error(`tasks of ${service}: ${status} ${text}`)
  return listAt(body).map((task) => ({
    id: textAt(task, 'ID'),
    slot: typeof at(task, 'Slot') === 'number' ? numberAt(task, 'Slot') : undefined,
    state: textAt(task, 'Status', 'State'),
    desired: textAt(task, 'DesiredState'),
    error: textAt(task, 'Status', 'Err'),
    message: textAt(task, 'Status', 'Message'),
    image: textAt(task, 'Spec', 'ContainerSpec', 'Image'),
    containerId: textAt(task, 'Status', 'ContainerStatus', 'ContainerID'),
    exitCode: numberAt(task, 'Status', 'ContainerStatus', 'ExitCode'),
    whole: task,
  }))
}

const isUp = (task: SeenTask) => task.state === 'running' && task.desired === 'running'

/** Waits until exactly `count` tasks of a service run and no other is meant to. Slots in order. */
export async function untilRunning(
  daemon: TestDaemon,
  service: string,
  count: number,
  options: { readonly image?: string; readonly withinMs?: number } = {},
): Promise<readonly SeenTask[]> {
  let last: readonly SeenTask[] = []
  try {
    return await eventually(
      `${count} tasks of ${service}`,
      async () => {
        last = await tasksOf(daemon, service)
        const wanted = last.filter((task) => task.desired === 'running' || task.desired === 'ready')
        const up = wanted.filter(isUp)
        if (up.length !== count || wanted.length !== count) return undefined
        if (options.image !== undefined && !up.every(({ image }) => image === options.image)) {
          return undefined
        }
        return up.sort((one, other) => (one.slot ?? 0) - (other.slot ?? 0))
      },
      options.withinMs,
    )
  } catch (error) {
    const seen = last.map(
      (task) => `${task.slot} ${task.image} ${task.desired} ${task.state} ${task.error}`,
    )
    throw new Error(`${String(error)}\n${seen.join('\n')}\n${daemon.log().slice(-3000)}`, {
      cause: error,
    })
  }
}

/** Waits until `look` holds for the tasks of a service, and gives them. */
export async function untilTasks(
  daemon: TestDaemon,
  service: string,
  what: string,
  look: (tasks: readonly SeenTask[]) => boolean,
  withinMs?: number,
): Promise<readonly SeenTask[]> {
  let last: readonly SeenTask[] = []
  try {
    return await eventually(
      what,
      async () => {
        last = await tasksOf(daemon, service)
        return look(last) ? last : undefined
      },
      withinMs,
    )
  } catch (error) {
    const seen = last.map(
      (task) => `${task.slot} ${task.image} ${task.desired} ${task.state} ${task.error}`,
    )
    throw new Error(`${String(error)}\n${seen.join('\n')}`, { cause: error })
  }
}

/** The stock client against an engine itself, past Skep. Throws when it fails. */
export async function onEngine(...args: readonly string[]): Promise<string> {
  const output = await run('docker', ['-H', sharedEngine, ...args], { timeoutMs: 180_000 })
  if (output.code !== 0) throw new Error(`docker ${args.join(' ')}: ${output.stderr}`)
  return output.stdout.trim()
}

/** `docker inspect` of one container by the engine itself. */
export async function inspectContainer(id: string): Promise<unknown> {
  return at(JSON.parse(await onEngine('container', 'inspect', id)), 0)
}

/** Ids of the containers that a cluster's services have on the engine, ended ones too. */
export async function containersOf(daemon: TestDaemon, service: string): Promise<string[]> {
  const { body } = await daemon.api('GET', `/services/${service}`)
  const id = textAt(body, 'ID')
  if (id === '') throw new Error(`there is no service ${service}`)
  const label = `label=com.docker.swarm.service.id=${id}`
  const ids = await onEngine('ps', '-aq', '--no-trunc', '--filter', label)
  return ids === '' ? [] : ids.split('\n')
}

/** The state of a service's last update, or an empty text. */
export async function updateState(daemon: TestDaemon, service: string): Promise<string> {
  const { body } = await daemon.api('GET', `/services/${service}`)
  return textAt(body, 'UpdateStatus', 'State')
}

/** Files below a folder that hold the text, plain or in base64. What goes away during the walk counts as gone. */
export function filesWith(folder: string, text: string): readonly string[] {
  // In base64 a text looks different at each of three places; its first and last characters depend on what is around.
  const encoded = [0, 1, 2].map((at) =>
    Buffer.from(`${'x'.repeat(at)}${text}`)
      .toString('base64')
      .slice(4, -4),
  )
  return filesBelow(folder).filter((path) => {
    const bytes = unlessGone(() => readFileSync(path), Buffer.of())
    return [text, ...encoded].some((form) => bytes.includes(form))
  })
}

function filesBelow(folder: string): readonly string[] {
  const entries = unlessGone(() => readdirSync(folder, { withFileTypes: true }), [])
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return filesBelow(path)
    return entry.isFile() ? [path] : []
  })
}

/** What a read gives, or `gone` where the file or folder is not there any more. */
export function unlessGone<Value>(read: () => Value, gone: Value): Value {
  try {
    return read()
  } catch (error) {
    if (isMissingFile(error)) return gone
    throw error
  }
}
