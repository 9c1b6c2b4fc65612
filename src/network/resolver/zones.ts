import type { NetworkId } from '../../model/index.ts'
import type {
  EndpointAssignment,
  NeighbourAssignment,
  NetworkAssignment,
} from '../../wire/index.ts'
import type { DesiredNetwork } from '../data-plane.ts'

/** All that the resolver answers from. Written to a file, so that a restarted resolver answers by itself. */
export interface ResolverState {
  readonly version: typeof stateVersion
  readonly networks: readonly Zone[]
  /** By address: containers on this node. */
  readonly clients: Readonly<Record<string, Client>>
}
export const stateVersion = 2

/** What the containers of one network can ask for. */
export interface Zone {
  readonly id: string
  readonly subnet: string
  /** The resolver listens there. */
  readonly gateway: string
  /** Its containers have no way out, for questions neither. */
  readonly internal: boolean
  /** Addresses by name, lower case, without a closing dot. None: a known name that nobody answers for now. */
  readonly names: Readonly<Record<string, readonly string[]>>
  /**
   * Names that several endpoints have, one with a VIP among them: the traffic each address is due, in the order of
   * `names`. A VIP is due the sum of its backends' weights, so that a task's part does not depend on what it is behind.
   */
  readonly shares: Readonly<Record<string, readonly number[]>>
  /** Name by address. */
  readonly reverse: Readonly<Record<string, string>>
}

export interface Client {
  /** Zones it sees, in the order in which they are searched. */
  readonly networks: readonly string[]
  /** Where its other names are asked for; empty: the host's resolvers. */
  readonly nameservers: readonly string[]
}

/**
 * Builds what the resolver answers. In each network resolve, the earlier before the later:
 * 1. an endpoint's name and its aliases there, and `tasks.` before either;
 * 2. `<service>.<stack>` for an endpoint named `<stack>_<service>`, and `tasks.` before it;
 * 3. tasks' names, and hostnames without a dot (one with a dot may be a real domain); names of plain containers on
 *    attachable networks, those on other nodes too.
 * Where several endpoints have one name, it has the addresses of all, each with its share of the traffic.
 */
export function buildZones(desired: DesiredNetwork): ResolverState {
  const clients: Record<string, Client> = {}
  // Nobody declares names on the ingress network, so it is searched last.
  const rank = new Map(desired.networks.map(({ id, ingress }) => [id, ingress ? 1 : 0]))
  for (const task of desired.tasks) {
    const networks = task.addresses
      .map(({ networkId }) => networkId)
      .sort((a, b) => (rank.get(a) ?? 0) - (rank.get(b) ?? 0))
    for (const { address } of task.addresses) {
      clients[address] = { networks, nameservers: task.nameservers }
    }
  }
  const named = new Map<NetworkId, NeighbourAssignment[]>()
  for (const neighbour of desired.neighbours?.values() ?? []) {
    if (!neighbour.names) continue
    const known = named.get(neighbour.networkId)
    if (known) known.push(neighbour)
    else named.set(neighbour.networkId, [neighbour])
  }
  return {
    version: stateVersion,
    networks: desired.networks.map((network) =>
      buildZone(network, desired, named.get(network.id) ?? []),
    ),
    clients,
  }
}

/** Addresses by name, lower case. */
type Names = Map<string, readonly string[]>

function buildZone(
  network: NetworkAssignment,
  desired: DesiredNetwork,
  neighbours: readonly NeighbourAssignment[],
): Zone {
  const declared: Names = new Map()
  const derived: Names = new Map()
  const hosts: Names = new Map()
  const reverse: Record<string, string> = Object.create(null)
  const weights = new Map<string, number>()

  // Nobody declares names on the ingress network, and published services are many.
  for (const endpoint of network.ingress ? [] : desired.endpoints) {
    const part = partOf(endpoint, network.id)
    if (!part) continue
    for (const [name, addresses] of part.declared) put(declared, name, addresses)
    for (const [name, addresses] of part.derived) put(derived, name, addresses)
    for (const [name, addresses] of part.hosts) put(hosts, name, addresses)
    for (const [address, name] of part.reverse) reverse[address] = name
    if (part.vip !== undefined) weights.set(part.vip, part.weight)
  }
  for (const task of desired.tasks) {
    const address = task.addresses.find(({ networkId }) => networkId === network.id)?.address
    if (address === undefined) continue
    put(hosts, task.name.toLowerCase(), [address])
    if (task.hostname !== '' && !task.hostname.includes('.')) {
      put(hosts, task.hostname.toLowerCase(), [address])
    }
    reverse[address] = task.name
  }
  for (const { address, names = [] } of neighbours) {
    for (const name of new Set(names)) put(hosts, name.toLowerCase(), [address])
    if (names[0] !== undefined) reverse[address] = names[0]
  }

  const names: Record<string, readonly string[]> = Object.create(null)
  const shares: Record<string, readonly number[]> = Object.create(null)
  for (const tier of [hosts, derived, declared]) {
    for (const [name, addresses] of tier) {
      names[name] = addresses
      delete shares[name]
      if (addresses.length > 1 && addresses.some((address) => weights.has(address))) {
        shares[name] = addresses.map((address) => weights.get(address) ?? 1)
      }
    }
  }
  const { id, subnet, gateway, internal } = network
  return { id, subnet, gateway, internal, names, shares, reverse }
}

/** What one endpoint adds to one network's zone. Addresses are in order, each once. */
interface ZonePart {
  readonly declared: readonly (readonly [string, readonly string[]])[]
  readonly derived: readonly (readonly [string, readonly string[]])[]
  readonly hosts: readonly (readonly [string, readonly string[]])[]
  /** Name by address. */
  readonly reverse: readonly (readonly [string, string])[]
  readonly vip: string | undefined
  readonly weight: number
}

/** An endpoint is never changed, so what it adds is worked out once; one that nobody has any more is forgotten. */
const knownParts = new WeakMap<EndpointAssignment, Map<NetworkId, ZonePart>>()

/** Undefined: it is not on the network. */
function partOf(endpoint: EndpointAssignment, networkId: NetworkId): ZonePart | undefined {
  const place = endpoint.networks.find((candidate) => candidate.networkId === networkId)
  if (!place) return undefined
  const parts = knownParts.get(endpoint) ?? new Map<NetworkId, ZonePart>()
  knownParts.set(endpoint, parts)
  const known = parts.get(networkId)
  if (known) return known
  const tasks = [...new Set(backendAddresses(endpoint, networkId))].sort()
  const addresses = place.vip === undefined ? tasks : [place.vip]
  const both = (name: string): (readonly [string, readonly string[]])[] => [
    [name.toLowerCase(), addresses],
    [`tasks.${name}`.toLowerCase(), tasks],
  ]
  const backends = endpoint.backends.flatMap(({ taskName, addresses: byNetwork }) => {
    const address = byNetwork[networkId]
    return address === undefined ? [] : [{ taskName, address }]
  })
  const part: ZonePart = {
    declared: [endpoint.name, ...place.aliases].flatMap(both),
    derived: stackNames(endpoint.name).flatMap(both),
    hosts: backends.map(({ taskName, address }) => [taskName.toLowerCase(), [address]]),
    reverse: [
      ...(place.vip === undefined ? [] : [[place.vip, endpoint.name] as const]),
      ...backends.map(({ taskName, address }) => [address, taskName] as const),
    ],
    vip: place.vip,
    weight: weightOf(endpoint, networkId),
  }
  parts.set(networkId, part)
  return part
}

function put(names: Names, name: string, addresses: readonly string[]): void {
  const known = names.get(name)
  names.set(name, known ? [...new Set([...known, ...addresses])].sort() : addresses)
}

function backendAddresses(endpoint: EndpointAssignment, networkId: NetworkId): readonly string[] {
  return endpoint.backends.flatMap(({ addresses, weight }) => {
    const address = addresses[networkId]
    return address === undefined || weight <= 0 ? [] : [address]
  })
}

function weightOf(endpoint: EndpointAssignment, networkId: NetworkId): number {
  return endpoint.backends
    .filter(({ addresses }) => addresses[networkId] !== undefined)
    .reduce((sum, { weight }) => sum + Math.max(0, weight), 0)
}

/** `<service>.<stack>` at each underscore: either part may hold one, and nothing here says which it is. */
function stackNames(name: string): readonly string[] {
  return [...name.matchAll(/_/g)].flatMap(({ index }) => {
    const stack = name.slice(0, index)
    const service = name.slice(index + 1)
    return stack === '' || service === '' ? [] : [`${service}.${stack}`]
  })
}
