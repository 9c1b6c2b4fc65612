import { rankOf, type TaskId } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { SimulatedCluster } from '../cluster.ts'

/** What a container writes when it starts; each line tells whose it is. */
export function outputOf(taskId: TaskId): readonly string[] {
  return [1, 2, 3].map((number) => `line ${number} of task ${taskId}\n`)
}

const wish = { stdout: true, stderr: true, follow: false, tail: 'all' } as const

/** What the containers of a service have written, by task, and where each is. */
type Written = ReadonlyMap<TaskId, { readonly node: string; readonly lines: readonly string[] }>

/** Everything that the tasks of a service have written so far, as their machines have it. */
export async function writtenBy(
  cluster: SimulatedCluster,
  view: View,
  service: string,
): Promise<Written> {
  const written = new Map<TaskId, { readonly node: string; readonly lines: readonly string[] }>()
  const workload = [...view.list('workload')].find(({ name }) => name === service)
  if (!workload) return written
  for (const { id, nodeId, status } of view.tasksOfWorkload(workload.id)) {
    const host = cluster.hosts.find((one) => one.nodeId === nodeId)
    if (!host || rankOf(status.state) < rankOf('starting')) continue
    written.set(id, { node: host.name, lines: await linesOf(cluster, id, host.name) })
  }
  return written
}

async function linesOf(
  cluster: SimulatedCluster,
  taskId: TaskId,
  hostName: string,
): Promise<readonly string[]> {
  const lines: string[] = []
  const { engine } = cluster.host(hostName)
  for await (const { data } of engine.logs(taskId, wish, new AbortController().signal))
    lines.push(Buffer.from(data).toString())
  return lines
}

/**
 * Logs of a service hold what its tasks had written when they were asked for: all of it, each task's in order and once,
 * unless they say which node it is that could not be asked.
 */
export async function wrongWithLogs(
  cluster: SimulatedCluster,
  before: Written,
  answer: string,
): Promise<string | undefined> {
  for (const [taskId, { node, lines }] of before) {
    const told = answer.match(new RegExp(`line \\d+ of task ${taskId}\\n`, 'g')) ?? []
    const now = await linesOf(cluster, taskId, node)
    // Its container was removed meanwhile, and all that it wrote.
    if (now.length < lines.length) continue
    const isRight = told.length >= lines.length && told.every((line, at) => line === now[at])
    // A node that was removed has no name any more.
    const names = `(${node}|${cluster.host(node).nodeId})`
    if (isRight || new RegExp(`incomplete log stream.*node ${names}\\b`, 's').test(answer)) continue
    return `task ${taskId} on ${node} had written ${lines.length} lines, and its logs told ${told.length} of them without a warning: ${JSON.stringify(told.join(''))}`
  }
  return undefined
}
