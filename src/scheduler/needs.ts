import type { Constraint, Platform, PortSpec, Revision } from '../model/index.ts'
import type { View } from '../store/store.ts'

/** What a task asks of a node, whatever its workload is. Tasks with equal needs share one set of candidates. */
export interface Needs {
  /** Equal for equal needs. */
  readonly key: string
  /** Equal where only what a node says of itself matters: plugins, constraints, platforms. */
  readonly staticKey: string
  readonly nanoCpus: number
  readonly memoryBytes: number
  readonly generic: readonly { readonly kind: string; readonly value: number }[]
  readonly plugins: readonly { readonly type: string; readonly name: string }[]
  readonly constraints: readonly Constraint[]
  readonly platforms: readonly Platform[]
  /** `58/tcp`: host-mode ports with a fixed number. */
  readonly hostPorts: readonly string[]
  /** `node.labels.X` and `engine.labels.X` keys, most important first. */
  readonly spread: readonly string[]
}

/** The needs of a revision's tasks. `hostPorts` are those of `declaredHostPorts`. */
export function needsOf(view: View, revision: Revision, hostPorts: readonly string[]): Needs {
  const { placement, reservations } = revision.template
  const plugins = pluginsOf(view, revision)
  // Most ask for nothing of a node but room: nothing to write down for those.
  const isAnywhere =
    plugins.length + placement.constraints.length + placement.platforms.length === 0
  const staticKey = isAnywhere
    ? ''
    : JSON.stringify([
        plugins.map(({ type, name }) => [type, name]),
        placement.constraints.map(({ key, operator, value }) => [key, operator, value]),
        placement.platforms.map(({ architecture, os }) => [architecture, os]),
      ])
  const generic = reservations.generic.map(({ kind, value }) => ({ kind, value }))
  const spread = placement.spread.filter((key) => spreadLabel.test(key))
  const { nanoCpus, memoryBytes } = reservations
  const isRoomOnly = isAnywhere && generic.length + hostPorts.length + spread.length === 0
  return {
    key: isRoomOnly
      ? `${nanoCpus} ${memoryBytes}`
      : JSON.stringify([staticKey, nanoCpus, memoryBytes, generic, hostPorts, spread]),
    staticKey,
    nanoCpus,
    memoryBytes,
    generic,
    plugins,
    constraints: placement.constraints,
    platforms: placement.platforms,
    hostPorts,
    spread,
  }
}

/** Keys that tasks can be spread over; others are ignored, as Swarm does. */
export const spreadLabel = /^(node|engine)\.labels\.(.+)$/i

/** What a node has to have for tasks on encrypted networks. It stands among the plugins, as it counts like one. */
export const encryptionPlugin = { type: 'Encryption', name: 'wireguard' } as const

/** Network drivers that need no plugin: Skep's own, and the engine's. */
const builtInNetworkDrivers: ReadonlySet<string> = new Set([
  'overlay',
  'bridge',
  'host',
  'none',
  'null',
  '',
])

function pluginsOf(view: View, { template }: Revision): Needs['plugins'] {
  // Most need none.
  let byKey: Map<string, { type: string; name: string }> | undefined
  const add = (type: string, name: string) => {
    byKey ??= new Map()
    byKey.set(`${type}/${name}`, { type, name })
  }
  for (const { networkId } of template.networks) {
    const spec = view.get('network', networkId)?.spec
    if (spec && !spec.predefined && !builtInNetworkDrivers.has(spec.driver)) {
      add('Network', spec.driver)
    }
    if (spec?.encrypted) add(encryptionPlugin.type, encryptionPlugin.name)
  }
  for (const { mounts } of template.containers) {
    for (const mount of mounts) {
      const driver = mount.type === 'volume' ? mount.volume.driver?.name : undefined
      if (driver !== undefined && driver !== '' && driver !== 'local') add('Volume', driver)
    }
  }
  const [cluster] = view.list('cluster')
  const log = (template.logDriver ?? cluster?.spec.logDriver)?.name
  if (log !== undefined && log !== '' && log !== 'none') add('Log', log)
  if (byKey === undefined) return noPlugins
  return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, plugin]) => plugin)
}
const noPlugins: Needs['plugins'] = []

/** Host-mode ports with a fixed number, of the endpoints in front of a workload: `58/tcp`. */
export function declaredHostPorts(
  view: View,
  workloadId: Parameters<View['endpointsOfWorkload']>[0],
): readonly string[] {
  let found: Set<string> | undefined
  for (const endpoint of view.endpointsOfWorkload(workloadId)) {
    for (const port of endpoint.spec.ports) {
      if (!isFixedHostPort(port)) continue
      found ??= new Set()
      found.add(portKey(port))
    }
  }
  return found === undefined ? noPorts : [...found].sort()
}
const noPorts: readonly string[] = []

export function isFixedHostPort(port: PortSpec): boolean {
  return port.publishMode === 'host' && port.publishedPort !== 0
}

export function portKey(port: {
  readonly protocol: string
  readonly publishedPort: number
}): string {
  return `${port.publishedPort}/${port.protocol}`
}
