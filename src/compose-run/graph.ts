import { UserError } from '../base/index.ts'
import type { ComposeService } from '../compose/index.ts'

/** Which services each needs, by name. */
export type Graph = Readonly<Record<string, readonly string[]>>

/** The other services of which this one shares a namespace or volumes: it holds their containers' ids. */
export function sharedWith(service: ComposeService): readonly string[] {
  const modes = [service.networkMode, service.pid, service.ipc]
  const named = modes.flatMap((mode) => (mode?.startsWith('service:') ? [mode.slice(8)] : []))
  const volumes = (service.volumesFrom ?? [])
    .filter((text) => !text.startsWith('container:'))
    .map((text) => text.split(':')[0] ?? '')
  return [...new Set([...named, ...volumes])]
}

/** Everything that has to be there before a service starts. */
export function needsOf(service: ComposeService): readonly string[] {
  const links = (service.links ?? []).map((text) => text.split(':')[0] ?? '')
  return [...new Set([...Object.keys(service.dependsOn ?? {}), ...sharedWith(service), ...links])]
}

/** The graph of these services; what a service needs outside of them is left out. */
export function graphOf(services: Readonly<Record<string, ComposeService>>): Graph {
  return Object.fromEntries(
    Object.entries(services).map(([name, service]) => [
      name,
      needsOf(service).filter((other) => Object.hasOwn(services, other)),
    ]),
  )
}

/** The names and, transitively, all they need; in the order of the graph. */
export function withNeeds(graph: Graph, names: readonly string[]): readonly string[] {
  const found = new Set<string>()
  const waiting = [...names]
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (found.has(name)) continue
    found.add(name)
    waiting.push(...(graph[name] ?? []))
  }
  return Object.keys(graph).filter((name) => found.has(name))
}

/** The graph with its arrows turned: who needs each. */
export function reversed(graph: Graph): Graph {
  const needers: Record<string, string[]> = {}
  for (const name of Object.keys(graph)) needers[name] = []
  for (const [name, needs] of Object.entries(graph)) {
    for (const other of needs) needers[other]?.push(name)
  }
  return needers
}

/** Throws `invalidInput` naming a circle of dependencies, if there is one. */
export function checkNoCircle(graph: Graph): void {
  const done = new Set<string>()
  const path: string[] = []
  const visit = (name: string): void => {
    if (done.has(name)) return
    const at = path.indexOf(name)
    if (at >= 0) {
      const circle = [...path.slice(at), name].join(' -> ')
      throw new UserError('invalidInput', `services depend on each other in a circle: ${circle}`, {
        next: 'Take one of these out of depends_on (or links, volumes_from, network_mode).',
      })
    }
    path.push(name)
    for (const other of graph[name] ?? []) visit(other)
    path.pop()
    done.add(name)
  }
  for (const name of Object.keys(graph)) visit(name)
}

/**
 * Runs the work of each as soon as that of all it needs is done; those that do not need each other run at the same time.
 * After a failure nothing new begins, what runs is awaited, and the first failure is thrown. The graph has no circle.
 */
export async function runInOrder(
  graph: Graph,
  work: (name: string) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = []
  const running = new Map<string, Promise<void>>()
  const begin = (name: string): Promise<void> => {
    const known = running.get(name)
    if (known) return known
    const needs = (graph[name] ?? []).filter((other) => Object.hasOwn(graph, other))
    const promise = (async () => {
      await Promise.all(needs.map(begin))
      if (failures.length > 0) return
      try {
        await work(name)
      } catch (error) {
        failures.push(error)
      }
    })()
    running.set(name, promise)
    return promise
  }
  await Promise.all(Object.keys(graph).map(begin))
  if (failures.length > 0) throw failures[0]
}
