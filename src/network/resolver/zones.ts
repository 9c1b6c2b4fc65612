import type { NetworkId } from '../../model/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../../wire/index.ts'
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
 * 3. tasks' names, and hostnames without a dot (one with a dot may be a real domain).
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
  return {
    version: stateVersion,
    networks: desired.networks.map((network) => buildZone(network, desired)),
    clients,
  }
}

function buildZone(network: NetworkAssignment, desired: DesiredNetwork): Zone {
  const declared = new Map<string, Set<string>>()
  const derived = new Map<string, Set<string>>()
  const hosts = new Map<string, Set<string>>()
  const reverse = new Map<string, string>()
  const weights = new Map<string, number>()

  for (const endpoint of desired.endpoints) {
    const place = endpoint.networks.find(({ networkId }) => networkId === network.id)
    if (!place) continue
    const tasks = backendAddresses(endpoint, network.id)
    const addresses = place.vip === undefined ? tasks : [place.vip]
    for (const name of [endpoint.name, ...place.aliases]) {
      put(declared, name, addresses)
      put(declared, `tasks.${name}`, tasks)
    }
    for (const name of stackNames(endpoint.name)) {
      put(derived, name, addresses)
      put(derived, `tasks.${name}`, tasks)
    }
    if (place.vip !== undefined) {
      reverse.set(place.vip, endpoint.name)
      weights.set(place.vip, weightOf(endpoint, network.id))
    }
    for (const { taskName, addresses: byNetwork } of endpoint.backends) {
      const address = byNetwork[network.id]
      if (address === undefined) continue
      put(hosts, taskName, [address])
      reverse.set(address, taskName)
    }
  }
  for (const task of desired.tasks) {
    const address = task.addresses.find(({ networkId }) => networkId === network.id)?.address
    if (address === undefined) continue
    put(hosts, task.name, [address])
    if (task.hostname !== '' && !task.hostname.includes('.')) put(hosts, task.hostname, [address])
    reverse.set(address, task.name)
  }

  const names: Record<string, readonly string[]> = Object.create(null)
  const shares: Record<string, readonly number[]> = Object.create(null)
  for (const tier of [hosts, derived, declared]) {
    for (const [name, known] of tier) {
      const addresses = [...known].sort()
      names[name] = addresses
      delete shares[name]
      if (addresses.length > 1 && addresses.some((address) => weights.has(address))) {
        shares[name] = addresses.map((address) => weights.get(address) ?? 1)
      }
    }
  }
  return {
    id: network.id,
    subnet: network.subnet,
    gateway: network.gateway,
    internal: network.internal,
    names,
    shares,
    reverse: Object.fromEntries(reverse),
  }
}

function put(names: Map<string, Set<string>>, name: string, addresses: readonly string[]): void {
  const key = name.toLowerCase()
  const known = names.get(key) ?? new Set()
  for (const address of addresses) known.add(address)
  names.set(key, known)
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
