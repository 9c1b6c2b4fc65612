import type { Ipv6Block, NetworkId } from '../../model/index.ts'
import type {
  EndpointAssignment,
  NeighbourAssignment,
  NetworkAssignment,
} from '../../wire/index.ts'
import type { DesiredNetwork } from '../data-plane.ts'
import { onShelves } from '../shelves.ts'

/** All that the resolver answers from. Written to files, so that a restarted resolver answers by itself. */
export interface ResolverState {
  readonly version: typeof stateVersion
  readonly networks: readonly Zone[]
  /** By address: containers on this node. */
  readonly clients: Readonly<Record<string, Client>>
}
export const stateVersion = 5

/** What the containers of one network can ask for. */
export interface Zone {
  readonly id: string
  readonly subnet: string
  /** Every address has one here too. Pages name IPv4 ones alone: the others follow from them. */
  readonly ipv6?: Ipv6Block
  /** The resolver listens there. */
  readonly gateway: string
  /** Its containers have no way out, for questions neither. */
  readonly internal: boolean
  /** Together its names. A change of one endpoint changes one page. */
  readonly pages: readonly ZonePage[]
}

/** Addresses by name, lower case, without a closing dot. None: a known name that nobody answers for now. */
type NamesByTier = Readonly<
  Record<(typeof tiers)[number], Readonly<Record<string, readonly string[]>>>
>

/** A name has the addresses of the first tier that knows it, in all pages. */
export const tiers = ['declared', 'derived', 'hosts'] as const

export interface ZonePage extends NamesByTier {
  /** Name by address. */
  readonly reverse: Readonly<Record<string, string>>
  /**
   * By VIP: the traffic it is due where a name has other addresses too. It is the sum of its backends' weights, so that a task's
   * part does not depend on what it is behind.
   */
  readonly weights: Readonly<Record<string, number>>
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

/** Endpoints share this many pages of a zone. */
const pageCount = 32

function buildZone(
  network: NetworkAssignment,
  desired: DesiredNetwork,
  neighbours: readonly NeighbourAssignment[],
): Zone {
  const { id, subnet, ipv6, gateway, internal } = network
  // Nobody declares names on the ingress network, and published services are many.
  const named = network.ingress
    ? []
    : desired.endpoints.filter(({ networks }) => networks.some(({ networkId }) => networkId === id))
  const own = emptyPage()
  for (const task of desired.tasks) {
    const address = task.addresses.find(({ networkId }) => networkId === id)?.address
    if (address === undefined) continue
    put(own.hosts, task.name.toLowerCase(), [address])
    if (task.hostname !== '' && !task.hostname.includes('.')) {
      put(own.hosts, task.hostname.toLowerCase(), [address])
    }
    own.reverse[address] = task.name
  }
  for (const { address, names = [] } of neighbours) {
    for (const name of new Set(names)) put(own.hosts, name.toLowerCase(), [address])
    if (names[0] !== undefined) own.reverse[address] = names[0]
  }
  const pages = onShelves(named, pageCount).flatMap((endpoints) => pageOf(endpoints, id) ?? [])
  return { id, subnet, ...(ipv6 ? { ipv6 } : {}), gateway, internal, pages: [own, ...pages] }
}

/** By the first endpoint of each: a page is made again only when one of its endpoints is another. */
const knownPages = new WeakMap<
  EndpointAssignment,
  Map<NetworkId, { readonly endpoints: readonly EndpointAssignment[]; readonly page: ZonePage }>
>()

function pageOf(
  endpoints: readonly EndpointAssignment[],
  networkId: NetworkId,
): ZonePage | undefined {
  const [first] = endpoints
  if (!first) return undefined
  const ofFirst = knownPages.get(first) ?? new Map()
  knownPages.set(first, ofFirst)
  const known = ofFirst.get(networkId)
  if (
    known?.endpoints.length === endpoints.length &&
    known.endpoints.every((endpoint: EndpointAssignment, at: number) => endpoint === endpoints[at])
  ) {
    return known.page
  }
  const page = emptyPage()
  for (const endpoint of endpoints) {
    const part = partOf(endpoint, networkId)
    if (!part) continue
    for (const tier of tiers) {
      for (const [name, addresses] of part[tier]) put(page[tier], name, addresses)
    }
    for (const [address, name] of part.reverse) page.reverse[address] = name
    if (part.vip !== undefined) page.weights[part.vip] = part.weight
  }
  ofFirst.set(networkId, { endpoints, page })
  return page
}

type Names = Record<string, readonly string[]>

function emptyPage() {
  const empty = <Value>(): Record<string, Value> => Object.create(null)
  return {
    declared: empty<readonly string[]>(),
    derived: empty<readonly string[]>(),
    hosts: empty<readonly string[]>(),
    reverse: empty<string>(),
    weights: empty<number>(),
  } satisfies ZonePage
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
  const known = names[name]
  names[name] = known ? mergeAddresses([known, addresses]) : addresses
}

/** In order, each once. */
export function mergeAddresses(lists: readonly (readonly string[])[]): readonly string[] {
  return [...new Set(lists.flat())].sort()
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
