import {
  formatWide,
  type Ipv6Block,
  ipv4Of,
  ipv6Of,
  parseWide,
  parseWideBlock,
  type WideBlock,
} from '../model/index.ts'

/** Subnets of /64 in the cluster's /48. */
const subnetsMax = 2 ** 16

/**
 * The IPv6 block of a network: what was asked for, or the first free /64 of the cluster's own unique local /48 (RFC 4193),
 * which follows from its id. A sentence where that can't be.
 */
export function chooseIpv6(wish: {
  /** The network's IPv4 block and gateway. */
  readonly subnet: string
  readonly gateway: string
  readonly asked:
    | { readonly subnet?: string; readonly range?: string; readonly gateway?: string }
    | undefined
  /** Those of other networks. */
  readonly others: readonly {
    readonly block: WideBlock
    readonly name: string
    readonly subnet: string | undefined
  }[]
  readonly ofHosts: readonly WideBlock[]
  readonly clusterId: string
}): Ipv6Block | string {
  const { subnet, asked, others, ofHosts, clusterId } = wish
  const dual = (ipv6: { readonly subnet: string; readonly range?: string }) => {
    const block = { ...ipv6, gateway: '' }
    return { ...block, gateway: ipv6Of({ subnet, ipv6: block }, wish.gateway) }
  }
  if (asked?.subnet === undefined) {
    const free = freeSubnet(clusterId, [...others.map(({ block }) => block), ...ofHosts])
    return free === undefined
      ? 'no free IPv6 subnet is left: remove a network nobody uses, or name a subnet for this one'
      : dual({ subnet: free })
  }
  const block = parseWideBlock(asked.subnet)
  if (!block) return `subnet ${asked.subnet} is no IPv6 block such as fd00:1:2:3::/64`
  const taken = others.find((other) => overlap(block, other.block))
  if (taken) {
    return (
      `subnet ${asked.subnet} overlaps ${taken.subnet} of network ${taken.name}: ` +
      'choose another subnet, or leave it out to get a free one'
    )
  }
  const given = parseWideBlock(asked.range ?? asked.subnet) ?? block
  const hostBits = 32 - Number(subnet.split('/')[1])
  if (given.last - given.first + 1n < 2n ** BigInt(hostBits)) {
    return (
      `${asked.range ?? asked.subnet} has less addresses than ${subnet}, of which each needs one: ` +
      `make it a /${128 - hostBits} or larger, or the IPv4 subnet smaller`
    )
  }
  const chosen = dual({
    subnet: `${formatWide(block.first)}/${asked.subnet.split('/')[1]}`,
    ...(asked.range === undefined ? {} : { range: asked.range }),
  })
  if (asked.gateway === undefined) return chosen
  const gateway = parseWide(asked.gateway)
  if (gateway === undefined || gateway <= block.first || gateway > block.last) {
    return `gateway ${asked.gateway} is no address of ${asked.subnet} for a gateway`
  }
  const belongsTo = ipv4Of({ subnet, ipv6: chosen }, asked.gateway)
  if (belongsTo !== undefined && belongsTo !== wish.gateway) {
    return (
      `gateway ${asked.gateway} belongs to whoever has ${belongsTo}: ` +
      `leave it out (it is ${chosen.gateway} then), or name one further from the start of the block`
    )
  }
  return { ...chosen, gateway: formatWide(gateway) }
}

function freeSubnet(clusterId: string, used: readonly WideBlock[]): string | undefined {
  const prefix = (0xfdn << 120n) | (globalIdOf(clusterId) << 80n)
  const size = 1n << 64n
  for (let index = 0; index < subnetsMax; index++) {
    const first = prefix + BigInt(index) * size
    const block = { first, last: first + size - 1n }
    if (!used.some((other) => overlap(block, other))) return `${formatWide(first)}/64`
  }
  return undefined
}

/** 40 bits that differ from cluster to cluster, as their ids do: FNV-1a. */
function globalIdOf(clusterId: string): bigint {
  let hash = 0xcbf29ce484222325n
  for (let at = 0; at < clusterId.length; at++) {
    hash = ((hash ^ BigInt(clusterId.charCodeAt(at))) * 0x100000001b3n) & 0xffff_ffff_ffff_ffffn
  }
  return (hash ^ (hash >> 40n)) & 0xff_ffff_ffffn
}

function overlap(a: WideBlock, b: WideBlock): boolean {
  return a.first <= b.last && b.first <= a.last
}
