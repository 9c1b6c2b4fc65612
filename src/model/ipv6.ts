import ipaddr from 'ipaddr.js'
import { blockContains, formatIpv4, type Ipv4Block, parseIpv4, parseIpv4Block } from './ipv4.ts'

/** The IPv6 part of a cluster network. */
export interface Ipv6Block {
  /** CIDR: `fd12:3456:789a::/64`. */
  readonly subnet: string
  /** Addresses are counted from its start, CIDR within the subnet. Absent: from the subnet's. */
  readonly range?: string
  readonly gateway: string
}

/** A network whose addresses exist in both families. */
export interface DualStack {
  /** IPv4, CIDR. */
  readonly subnet: string
  readonly ipv6: Ipv6Block
}

/** A block of IPv6 addresses, as numbers. */
export interface WideBlock {
  readonly first: bigint
  readonly last: bigint
}

/**
 * The IPv6 address that belongs to an IPv4 address of the same network: as far from the start of its block as that is from
 * its own. So who holds the one holds the other, and both are free together. `10.0.1.7` on `10.0.1.0/24` and `fd00::/64` is
 * `fd00::7`.
 */
export function ipv6Of({ subnet, ipv6 }: DualStack, address: string): string {
  const start = parseWideBlock(ipv6.range ?? ipv6.subnet)?.first ?? 0n
  return formatWide(start + BigInt((parseIpv4(address) ?? 0) - blockOf(subnet).first))
}

/** The IPv4 address that an IPv6 address of the network belongs to; `undefined` when it belongs to none. */
export function ipv4Of({ subnet, ipv6 }: DualStack, address: string): string | undefined {
  const at = parseWide(address)
  const start = parseWideBlock(ipv6.range ?? ipv6.subnet)?.first
  if (at === undefined || start === undefined) return undefined
  const block = blockOf(subnet)
  const counterpart = block.first + Number(at - start)
  return blockContains(block, counterpart) ? formatIpv4(counterpart) : undefined
}

/** Reads an IPv6 address; `undefined` for anything else. */
export function parseWide(text: string): bigint | undefined {
  if (!text.includes(':') || !ipaddr.IPv6.isValid(text)) return undefined
  return ipaddr.IPv6.parse(text)
    .toByteArray()
    .reduce((number, byte) => number * 256n + BigInt(byte), 0n)
}

/** Reads `fd00::/64`; `undefined` when it is no IPv6 block. Bits past the prefix are ignored. */
export function parseWideBlock(text: string): WideBlock | undefined {
  const [address = '', prefix = '', more] = text.split('/')
  const at = parseWide(address)
  if (at === undefined || more !== undefined || !/^\d{1,3}$/.test(prefix)) return undefined
  if (Number(prefix) > 128) return undefined
  const size = 2n ** BigInt(128 - Number(prefix))
  const first = (at / size) * size
  return { first, last: first + size - 1n }
}

/** As RFC 5952 has it, which is how the kernel's tools print it. */
export function formatWide(address: bigint): string {
  const bytes = Array.from({ length: 16 }, (_, at) =>
    Number((address >> BigInt(8 * (15 - at))) & 255n),
  )
  return new ipaddr.IPv6(bytes).toRFC5952String()
}

function blockOf(subnet: string): Ipv4Block {
  return parseIpv4Block(subnet) ?? { first: 0, last: -1 }
}
