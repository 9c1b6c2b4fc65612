import {
  blockContains,
  type Ipv4Block,
  ipv4Of,
  ipv6Of,
  parseIpv4,
  parseIpv4Block,
} from '../../model/index.ts'
import { type Client, mergeAddresses, type ResolverState, tiers, type Zone } from './zones.ts'

/** What to do with a question. */
export type Answer =
  | {
      readonly type: 'addresses'
      readonly addresses: readonly string[]
      /** What each is due, where not all are due the same: one is answered, by its share. */
      readonly shares?: readonly number[]
    }
  | { readonly type: 'name'; readonly name: string }
  /** The name is known, but has nothing of that type. */
  | { readonly type: 'empty' }
  | { readonly type: 'unknown' }
  | { readonly type: 'forward'; readonly nameservers: readonly string[] }
  | { readonly type: 'refused' }

/** A state, indexed for lookups. */
export interface Directory {
  readonly zoneById: ReadonlyMap<string, Zone>
  readonly zoneByGateway: ReadonlyMap<string, Zone>
  readonly clients: ReadonlyMap<string, Client>
  readonly subnets: readonly Ipv4Block[]
}

export function indexState(state: ResolverState): Directory {
  return {
    zoneById: new Map(state.networks.map((zone) => [zone.id, zone])),
    zoneByGateway: new Map(state.networks.map((zone) => [zone.gateway, zone])),
    clients: new Map(Object.entries(state.clients)),
    subnets: state.networks.flatMap(({ subnet }) => parseIpv4Block(subnet) ?? []),
  }
}

/**
 * Decides the answer to one question from `source`, asked at `gateway`. A container sees the names of its own networks;
 * one that is not known by address (a plain container, the host) those of the network it asks on. Others are refused: the
 * resolver serves its networks, not whoever reaches it. A container that is only on internal networks is told nothing of
 * the world: a question that leaves the host can carry data out. It may have a nameserver on its own networks.
 */
export function lookUp(
  directory: Directory,
  question: { readonly name: string; readonly type: string; readonly class: string },
  source: string,
  gateway: string,
): Answer {
  const number = parseIpv4(source)
  // The host asks its own resolver.
  const isHost = source.startsWith('127.') && directory.zoneByGateway.has(gateway)
  const isOwn = number !== undefined && (isHost || isWithin(number, directory.subnets))
  if (!isOwn) return { type: 'refused' }
  const client = directory.clients.get(source)
  const own = directory.zoneByGateway.get(gateway)
  const zones = client
    ? client.networks.flatMap((id) => directory.zoneById.get(id) ?? [])
    : own
      ? [own]
      : []
  const name = question.name.toLowerCase().replace(/\.$/, '')
  const forward = decideForward(zones, client?.nameservers ?? [])
  if (question.class !== 'IN' && question.class !== 'ANY') return forward
  for (const zone of zones) {
    const addresses = addressesOf(zone, name)
    if (!addresses) continue
    const { subnet, ipv6 } = zone
    const isWide = question.type === 'AAAA' && ipv6 !== undefined
    const isAsked = isWide || question.type === 'A' || question.type === 'ANY'
    if (!isAsked || addresses.length === 0) return { type: 'empty' }
    const shares = sharesOf(zone, addresses)
    return {
      type: 'addresses',
      addresses: isWide ? addresses.map((address) => ipv6Of({ subnet, ipv6 }, address)) : addresses,
      ...(shares && { shares }),
    }
  }
  const address = reverseAddress(name) ?? reverseWide(directory, name)
  if (address === undefined) return forward
  for (const { pages } of zones) {
    const page = pages.find(({ reverse }) => Object.hasOwn(reverse, address))
    if (!page) continue
    return question.type === 'PTR' || question.type === 'ANY'
      ? { type: 'name', name: page.reverse[address] ?? '' }
      : { type: 'empty' }
  }
  // Nobody outside knows the cluster's addresses, nor has to hear of them.
  const asked = parseIpv4(address)
  return asked !== undefined && isWithin(asked, directory.subnets) ? { type: 'unknown' } : forward
}

/** Undefined: the zone does not know the name. */
export function addressesOf({ pages }: Zone, name: string): readonly string[] | undefined {
  for (const tier of tiers) {
    const lists = pages.flatMap((page) => {
      const names = page[tier]
      return Object.hasOwn(names, name) ? [names[name] ?? []] : []
    })
    if (lists.length > 0) return lists.length === 1 ? lists[0] : mergeAddresses(lists)
  }
  return undefined
}

/** What each address is due, where there are several and one is a VIP. */
function sharesOf({ pages }: Zone, addresses: readonly string[]): readonly number[] | undefined {
  if (addresses.length < 2) return undefined
  const weights = addresses.map(
    (address) => pages.find((page) => Object.hasOwn(page.weights, address))?.weights[address],
  )
  return weights.some((weight) => weight !== undefined)
    ? weights.map((weight) => weight ?? 1)
    : undefined
}

function decideForward(zones: readonly Zone[], nameservers: readonly string[]): Answer {
  if (zones.length === 0 || zones.some(({ internal }) => !internal)) {
    return { type: 'forward', nameservers }
  }
  const subnets = zones.flatMap(({ subnet }) => parseIpv4Block(subnet) ?? [])
  const within = nameservers.filter((server) => {
    const number = parseIpv4(server)
    return number !== undefined && isWithin(number, subnets)
  })
  return within.length > 0 ? { type: 'forward', nameservers: within } : { type: 'unknown' }
}

/** One address, by its share; any of them while none is due anything. `below(n)` draws an integer from 0 to n - 1. */
export function pickByShare(
  addresses: readonly string[],
  shares: readonly number[],
  below: (limit: number) => number,
): string | undefined {
  const sum = shares.reduce((total, share) => total + share, 0)
  if (sum === 0) return addresses[below(addresses.length)]
  let drawn = below(sum)
  return addresses.find((_, index) => {
    drawn -= shares[index] ?? 0
    return drawn < 0
  })
}

/** `3.2.1.10.in-addr.arpa` -> `10.1.2.3` */
function reverseAddress(name: string): string | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name)
  return match ? match.slice(1).reverse().join('.') : undefined
}

const nibblesPattern = /^((?:[0-9a-f]\.){32})ip6\.arpa$/

/** The same for an IPv6 address: the IPv4 address that it belongs to on a network of this node. */
function reverseWide({ zoneById }: Directory, name: string): string | undefined {
  const nibbles = nibblesPattern.exec(name)?.[1]?.split('.').reverse().join('')
  if (nibbles === undefined) return undefined
  const address = nibbles.match(/.{4}/g)?.join(':') ?? ''
  for (const { subnet, ipv6 } of zoneById.values()) {
    const narrow = ipv6 && ipv4Of({ subnet, ipv6 }, address)
    if (narrow !== undefined) return narrow
  }
  return undefined
}

function isWithin(address: number, subnets: readonly Ipv4Block[]): boolean {
  return subnets.some((subnet) => blockContains(subnet, address))
}
