import { blocksOverlap, type Ipv4Block } from '../model/index.ts'

/**
 * The first block of the asked size within the pools that overlaps nothing used. Pools smaller than that have none.
 */
export function freeBlock(
  pools: readonly Ipv4Block[],
  prefixLength: number,
  used: readonly Ipv4Block[],
): Ipv4Block | undefined {
  const size = 2 ** (32 - prefixLength)
  const sorted = used.toSorted((a, b) => a.first - b.first)
  for (const pool of pools) {
    let first = Math.ceil(pool.first / size) * size
    for (const taken of sorted) {
      if (taken.last < first) continue
      if (taken.first > first + size - 1) break
      first = Math.ceil((taken.last + 1) / size) * size
    }
    if (first + size - 1 <= pool.last) return { first, last: first + size - 1 }
  }
  return undefined
}

/** The first of the blocks that the given one overlaps. */
export function findOverlap<Named extends { readonly block: Ipv4Block }>(
  block: Ipv4Block,
  others: Iterable<Named>,
): Named | undefined {
  for (const other of others) if (blocksOverlap(block, other.block)) return other
  return undefined
}
