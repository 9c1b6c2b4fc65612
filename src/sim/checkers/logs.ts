import { type NodeId, rankOf, type TaskId } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { LogSource } from '../../wire/index.ts'

/** What a container writes when it starts; each line tells whose it is. */
export function outputOf(taskId: TaskId): readonly string[] {
  return [1, 2, 3].map((nth) => lineOf(taskId, nth))
}

/** The `nth` line of a task. */
export function lineOf(taskId: TaskId, nth: number): string {
  return `line ${nth} of task ${taskId}\n`
}

const wish = { stdout: true, stderr: true, follow: false, tail: 'all' } as const

/** Machines by name, with the node that each is and the engine that holds what its containers wrote. */
interface Machines {
  readonly hosts: readonly {
    readonly name: string
    readonly nodeId: NodeId
    readonly engine: LogSource
  }[]
}

/** What the containers of a service have written, by task, and the machine of each. */
type Written = ReadonlyMap<
  TaskId,
  { readonly host: Machines['hosts'][number]; readonly lines: readonly string[] }
>

/** Everything that the tasks of a service have written so far, as their machines have it. */
export async function writtenBy(
  { hosts }: Machines,
  view: View,
  service: string,
): Promise<Written> {
  const written = new Map<
    TaskId,
    { readonly host: Machines['hosts'][number]; readonly lines: readonly string[] }
  >()
  const workload = [...view.list('workload')].find(({ name }) => name === service)
  if (!workload) return written
  for (const { id, nodeId, status } of view.tasksOfWorkload(workload.id)) {
    const host = hosts.find((one) => one.nodeId === nodeId)
    if (!host || rankOf(status.state) < rankOf('starting')) continue
    written.set(id, { host, lines: await linesOf(host.engine, id) })
  }
  return written
}

async function linesOf(engine: LogSource, taskId: TaskId): Promise<readonly string[]> {
  const lines: string[] = []
  for await (const { data } of engine.logs(taskId, wish, new AbortController().signal))
    lines.push(Buffer.from(data).toString())
  return lines
}

/**
 * Logs of a service hold what its tasks had written when they were asked for: all of it, each task's in order and once,
 * unless they say which node it is that could not be asked. `view` is the state when they had come.
 */
export async function wrongWithLogs(
  view: View,
  before: Written,
  answer: string,
): Promise<string | undefined> {
  for (const [taskId, { host, lines }] of before) {
    const told = answer.match(new RegExp(`line \\d+ of task ${taskId}\\n`, 'g')) ?? []
    const now = await linesOf(host.engine, taskId)
    // Its container was removed meanwhile, and all that it wrote.
    if (now.length < lines.length) continue
    // It was forgotten meanwhile; its container goes when its node hears of it, which may take long.
    if (told.length === 0 && !view.get('task', taskId)) continue
    const isRight = told.length >= lines.length && told.every((line, at) => line === now[at])
    // A node that was removed has no name any more.
    const names = `(${host.name}|${host.nodeId})`
    if (isRight || new RegExp(`incomplete log stream.*node ${names}\\b`, 's').test(answer)) continue
    return `task ${taskId} on ${host.name} had written ${lines.length} lines, and its logs told ${told.length} of them without a warning: ${JSON.stringify(told.join(''))}`
  }
  return undefined
}
