import { type Clock, type Random, UserError } from '../base/index.ts'
import {
  isLive,
  mintId,
  type Network,
  type NetworkId,
  type NetworkSpec,
  type Source,
} from '../model/index.ts'
import type { View } from '../store/store.ts'
import { type Changes, type ControlWorld, emptyMeta } from './world.ts'

export interface NetworkDeclaration {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly spec: NetworkSpec
  readonly source: Source
}

/** A network object that is not stored yet. */
export function buildNetwork(
  random: Random,
  { name, labels, spec, source }: NetworkDeclaration,
): Network {
  const id: NetworkId = mintId(random)
  return { kind: 'network', id, ...emptyMeta(name, labels), source, spec, status: {} }
}

/**
 * The networks every cluster begins with: `ingress`, by which published ports come in, and the engines' own `host`,
 * `bridge` and `none`, so that services can name them.
 */
export function initialNetworks(random: Random): readonly Network[] {
  const plain: NetworkSpec = {
    driver: 'overlay',
    internal: false,
    attachable: false,
    ingress: false,
    ipv6: false,
    encrypted: false,
    options: {},
    ipam: [],
    predefined: false,
  }
  const source: Source = { dialect: 'skep', document: {} }
  const driverOf = { host: 'host', bridge: 'bridge', none: 'null' }
  return [
    buildNetwork(random, {
      name: 'ingress',
      labels: {},
      spec: { ...plain, ingress: true },
      source,
    }),
    ...Object.entries(driverOf).map(([name, driver]) =>
      buildNetwork(random, {
        name,
        labels: {},
        spec: { ...plain, driver, predefined: true },
        source,
      }),
    ),
  ]
}

export async function createNetwork(
  world: ControlWorld,
  changes: Changes,
  declaration: NetworkDeclaration,
): Promise<Network> {
  const network = buildNetwork(world.random, declaration)
  const { result } = await changes.run((view) => {
    if (view.byName('network', network.name).length > 0) {
      throw new UserError('conflict', `network with name ${network.name} already exists`)
    }
    if (network.spec.ingress) {
      for (const other of view.list('network')) {
        if (other.spec.ingress) {
          throw new UserError('conflict', `ingress network (${other.id}) is already present`)
        }
      }
    }
    if (network.spec.encrypted) refuseUnencrypted(view)
    return { changes: [{ type: 'create', object: network }], result: network }
  })
  return result
}

/** A network that some node would have to send in plain, or not at all, is not made. */
function refuseUnencrypted(view: View): void {
  const unable = [...view.list('node')].flatMap(({ name, status, description }) => {
    const { encryption } = description
    if (status.state !== 'ready' || (encryption && encryption.how !== 'none')) return []
    return [`${name} (${encryption?.why ?? 'its version of Skep does not know how'})`]
  })
  if (unable.length === 0) return
  const named = unable.slice(0, unableNamedMax).join(', ')
  const more = unable.length - unableNamedMax
  throw new UserError(
    'failedPrecondition',
    `an encrypted network needs WireGuard on every node, and these have none: ${named}${more > 0 ? ` and ${more} more` : ''}`,
    {
      next: 'Install wireguard-tools there, and wireguard-go where the kernel has no WireGuard, and restart the daemon; or leave --opt encrypted out.',
    },
  )
}

/** Nodes that are named where many lack something. */
const unableNamedMax = 10

export async function removeNetwork(changes: Changes, id: string): Promise<void> {
  await changes.run((view) => {
    const network = view.get('network', id)
    if (!network) throw new UserError('notFound', `network ${id} not found`)
    const why = whyKept(view, network)
    if (why) throw why
    return {
      changes: [{ type: 'delete', kind: 'network', id, version: network.version }],
      result: undefined,
    }
  })
}

/** Removes every network that nothing uses. Resolves with their names. */
export async function pruneNetworks(
  clock: Clock,
  changes: Changes,
  isWanted: (network: Network, nowMs: number) => boolean,
): Promise<readonly string[]> {
  const { result } = await changes.run((view) => {
    const unused: Network[] = []
    for (const network of view.list('network')) {
      if (network.spec.ingress || whyKept(view, network)) continue
      if (isWanted(network, clock.nowMs())) unused.push(network)
    }
    return {
      changes: unused.map(({ id, version }) => ({ type: 'delete', kind: 'network', id, version })),
      result: unused.map(({ name }) => name),
    }
  })
  return result
}

/** Why a network may not be removed; `undefined`: it may. */
function whyKept(view: View, network: Network): UserError | undefined {
  if (network.spec.predefined) {
    return new UserError(
      'forbidden',
      `${network.name} is a pre-defined network and cannot be removed`,
    )
  }
  if (network.spec.ingress) {
    for (const { spec } of view.list('endpoint')) {
      const owner = spec.backends[0]?.workloadId
      if (owner && spec.ports.some(({ publishMode }) => publishMode === 'ingress')) {
        return new UserError(
          'inUse',
          `ingress network cannot be removed because service ${owner} depends on it`,
        )
      }
    }
  }
  for (const workload of view.list('workload')) {
    const template = view.get('revision', workload.spec.revisionId)?.template
    if (template?.networks.some(({ networkId }) => networkId === network.id)) {
      return new UserError('inUse', `network ${network.id} is in use by service ${workload.id}`)
    }
  }
  for (const task of view.tasksOnNetwork(network.id)) {
    // Tasks of a service that was just removed go, though nobody has told them yet.
    if (isLive(task) && view.get('workload', task.workloadId)) {
      return new UserError('inUse', `network ${network.id} is in use by task ${task.id}`)
    }
  }
  const [attachment] = network.status.attachments ?? []
  if (attachment) {
    return new UserError(
      'inUse',
      `network ${network.id} is in use by container ${attachment.container}`,
    )
  }
  return undefined
}
