/** A block of IPv4 addresses, as numbers: `first` is the network's own address, `last` its broadcast address. */
export interface Ipv4Block {
  readonly first: number
  readonly last: number
}

/** Reads `10.0.1.7`; `undefined` when it is no IPv4 address. */
export function parseIpv4(text: string): number | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  let address = 0
  for (const part of parts) {
    if (!/^\d{1,3}$/.test(part) || Number(part) > 255) return undefined
    address = address * 256 + Number(part)
  }
  return address
}

/** Reads `10.0.1.0/24`; `undefined` when it is no IPv4 block. Bits past the prefix are ignored. */
export function parseIpv4Block(text: string): Ipv4Block | undefined {
  const [address, prefix, more] = text.split('/')
  const at = parseIpv4(address ?? '')
  if (at === undefined || more !== undefined || !/^\d{1,2}$/.test(prefix ?? '')) return undefined
  const bits = Number(prefix)
  if (bits > 32) return undefined
  const size = 2 ** (32 - bits)
  const first = Math.floor(at / size) * size
  return { first, last: first + size - 1 }
}

/** `10.0.1.7` */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}

/** `10.0.1.0/24`, for a block whose size is a power of two. */
export function formatIpv4Block({ first, last }: Ipv4Block): string {
  return `${formatIpv4(first)}/${32 - Math.log2(last - first + 1)}`
}

/** The link-layer address that an engine gives to a container with this address: `02:42:0a:00:01:07`. */
export function macOf(address: string): string {
  const bytes = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'))
  return ['02', '42', ...bytes].join(':')
}

export function blocksOverlap(a: Ipv4Block, b: Ipv4Block): boolean {
  return a.first <= b.last && b.first <= a.last
}

export function blockContains(block: Ipv4Block, address: number): boolean {
  return block.first <= address && address <= block.last
}
