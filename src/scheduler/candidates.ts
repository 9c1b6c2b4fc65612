import { type ClusterNode, tunnelKeyOf } from '../model/index.ts'
import { labelOf, matchesConstraints, platformFits } from '../model/placement.ts'
import { getOrMake } from './get-or-make.ts'
import { encryptionPlugin, type Needs } from './needs.ts'
import { type NodeState, type NodeTable, reasonCode, reasonCount } from './node-state.ts'

/** What a node says of itself, checked once per node and change of it for all tasks with such needs. */
export class StaticFilter {
  readonly #needs: Needs
  readonly #verdicts: number[] = []
  readonly #generations: number[] = []
  readonly #ids: string[] = []

  constructor(needs: Needs) {
    this.#needs = needs
  }

  /** A `reasonCode`: fits, plugin, constraint or platform. */
  check({ index, id, generation, node }: NodeState): number {
    if (this.#generations[index] !== generation || this.#ids[index] !== id) {
      this.#generations[index] = generation
      this.#ids[index] = id
      this.#verdicts[index] = node ? judge(node, this.#needs) : reasonCode.notReady
    }
    return this.#verdicts[index] ?? 0
  }
}

function judge(node: ClusterNode, needs: Needs): number {
  if (!needs.plugins.every((wanted) => hasPlugin(node, wanted))) return reasonCode.plugin
  if (!matchesConstraints(node, needs.constraints)) return reasonCode.constraint
  return platformFits(node, needs.platforms) ? reasonCode.fits : reasonCode.platform
}

function hasPlugin(node: ClusterNode, wanted: { type: string; name: string }): boolean {
  if (wanted.type === encryptionPlugin.type) return tunnelKeyOf(node) !== undefined
  const { plugins } = node.description.engine
  // Older engines list no log drivers at all: that says nothing about which ones they have.
  if (wanted.type === 'Log' && !plugins.some(({ type }) => type === 'Log')) return true
  return plugins.some(
    ({ type, name }) =>
      type === wanted.type && (name === wanted.name || name === `${wanted.name}:latest`),
  )
}

/** Why a node is refused for such needs, the workload's own limits aside: a `reasonCode`, 0 when it fits. */
export function refusalOf(state: NodeState, needs: Needs, filter: StaticFilter): number {
  if (!state.isReady) return reasonCode.notReady
  const short = state.shortOf(needs)
  if (short !== 'fits') return reasonCode[short]
  const said = filter.check(state)
  if (said !== reasonCode.fits) return said
  for (const port of needs.hostPorts) if (state.holdsPort(port)) return reasonCode.hostPort
  return reasonCode.fits
}

/** Nodes that agree on the label values a task is spread over: a tree, one level for each key. */
interface Branch {
  readonly parent: Branch | undefined
  readonly children: Map<string, Branch>
  /** Indexes of fitting nodes, a binary heap by rank. Used on the last level only. */
  readonly heap: number[]
  /** Fitting nodes in and below. */
  live: number
}

const newBranch = (parent?: Branch): Branch => ({ parent, children: new Map(), heap: [], live: 0 })

/** What is wanted of one choice beyond the rank of nodes. */
export interface Search {
  readonly skips: (index: number) => boolean
  /** Tasks of the workload by branch. */
  readonly counts: ReadonlyMap<unknown, number>
  /** Skips left; when they run out, the search ends without an answer. */
  budget: number
}

/** A workload's tasks by the index of their node. */
type Counts = Pick<ReadonlyMap<number, number>, 'get'>

const absent = 255
/** Tasks of one workload on one node, and tasks on one node, that the rank tells apart. */
const activeMax = 2 ** 20 - 1

/**
 * The nodes that fit certain needs, best first, kept up to date by changes: a node's change moves one entry. Without a
 * workload it ranks by how full nodes are, and tasks of any workload share it; with one, first by how many of its tasks
 * a node has.
 */
export class Candidates {
  readonly #table: NodeTable
  readonly #needs: Needs
  readonly #filter: StaticFilter
  readonly #workload: { readonly counts: Counts; readonly max: number } | undefined
  readonly #root = newBranch()
  #seen = -1
  #reasons = new Uint8Array(0)
  #generations = new Int32Array(0)
  #ranks = new Float64Array(0)
  #positions = new Int32Array(0)
  #branches: (Branch | undefined)[] = []
  #ids: (string | undefined)[] = []
  /** Nodes by reason code. */
  readonly refused: number[] = Array.from({ length: reasonCount }, () => 0)

  constructor(
    table: NodeTable,
    needs: Needs,
    filter: StaticFilter,
    workload?: { readonly counts: Counts; readonly max: number },
  ) {
    this.#table = table
    this.#needs = needs
    this.#filter = filter
    this.#workload = workload
  }

  /** How many nodes fit. */
  get live(): number {
    return this.#root.live
  }

  /** Takes in what changed since the last time. */
  catchUp(): void {
    const { slots, end } = this.#table
    if (this.#seen === end) return
    if (this.#reasons.length < slots.length) this.#grow(slots.length)
    // More changes than nodes: looking at every node is cheaper.
    const near = this.#seen >= 0 && end - this.#seen <= slots.length
    if (!near || !this.#table.changedSince(this.#seen, (index) => this.#look(index))) {
      for (let index = 0; index < slots.length; index++) this.#look(index)
    }
    this.#seen = end
  }

  #grow(least: number): void {
    const old = this.#reasons.length
    const size = Math.max(least, Math.min(2 * old, old + 65_536), 16)
    this.#reasons = grown(new Uint8Array(size).fill(absent), this.#reasons)
    this.#generations = grown(new Int32Array(size).fill(-1), this.#generations)
    this.#ranks = grown(new Float64Array(size), this.#ranks)
    this.#positions = grown(new Int32Array(size), this.#positions)
  }

  #look(index: number): void {
    const state = this.#table.slots[index]
    const before = this.#reasons[index] ?? absent
    const branchBefore = this.#branches[index]
    if (state?.node === undefined) {
      if (before === absent) return
      if (before === 0 && branchBefore) this.#take(branchBefore, index)
      this.#count(before, -1)
      this.#reasons[index] = absent
      this.#generations[index] = -1
      this.#branches[index] = undefined
      return
    }
    const now = this.#reason(state)
    let branch = branchBefore
    if (!branch || this.#generations[index] !== state.generation || this.#ids[index] !== state.id) {
      branch = this.#branchFor(state.node)
      this.#generations[index] = state.generation
      this.#ids[index] = state.id
    }
    if (before !== now) {
      if (before !== absent) this.#count(before, -1)
      this.#count(now, 1)
      this.#reasons[index] = now
    }
    if (before === 0 && branchBefore && (now !== 0 || branch !== branchBefore)) {
      this.#take(branchBefore, index)
    }
    this.#branches[index] = branch
    if (now !== 0) return
    const rank = this.#rank(state)
    if (before === 0 && branch === branchBefore) {
      this.#ranks[index] = rank
      this.#settle(branch.heap, this.#positions[index] ?? 0)
    } else {
      this.#ranks[index] = rank
      branch.heap.push(index)
      this.#positions[index] = branch.heap.length - 1
      this.#settle(branch.heap, branch.heap.length - 1)
      for (let up: Branch | undefined = branch; up; up = up.parent) up.live++
    }
  }

  #count(reason: number, by: number): void {
    this.refused[reason] = (this.refused[reason] ?? 0) + by
  }

  /** Why the node is refused: a `reasonCode`, 0 when it fits. */
  #reason(state: NodeState): number {
    const reason = refusalOf(state, this.#needs, this.#filter)
    if (reason !== reasonCode.fits) return reason
    const max = this.#workload?.max ?? 0
    return max > 0 && (this.#workload?.counts.get(state.index) ?? 0) >= max
      ? reasonCode.maxReplicas
      : reasonCode.fits
  }

  /** Fewer tasks of the workload, then less reserved, then fewer tasks: smaller is better. */
  #rank(state: NodeState): number {
    const own = Math.min(this.#workload?.counts.get(state.index) ?? 0, activeMax)
    const load = state.reservedTenths * 2 ** 20 + Math.min(state.active, activeMax)
    return own * 2 ** 24 + load
  }

  #branchFor(node: ClusterNode): Branch {
    let branch = this.#root
    for (const key of this.#needs.spread) {
      const value = labelOf(node, key) ?? ''
      const parent: Branch = branch
      branch = getOrMake(parent.children, value, () => newBranch(parent))
    }
    return branch
  }

  /** Adds to the counts of a branch and all it lies in. */
  countIn(counts: Map<unknown, number>, index: number, by: number): void {
    if (this.#needs.spread.length === 0) return
    for (let up = this.#branches[index]; up; up = up.parent)
      counts.set(up, (counts.get(up) ?? 0) + by)
  }

  get isSpread(): boolean {
    return this.#needs.spread.length > 0
  }

  /** The best node that the search does not skip: in the least used branch on each level, then by rank. */
  choose(search: Search): NodeState | undefined {
    const index = this.#best(this.#root, search)
    return index < 0 ? undefined : this.#table.slots[index]
  }

  fits(index: number): boolean {
    return this.#reasons[index] === reasonCode.fits
  }

  isBetter(a: number, b: number): boolean {
    return this.#before(a, b)
  }

  #best(branch: Branch, search: Search): number {
    if (branch.live === 0) return -1
    if (branch.children.size === 0) return this.#bestOfHeap(branch.heap, search)
    const byCount = new Map<number, Branch[]>()
    for (const child of branch.children.values()) {
      if (child.live === 0) continue
      const count = search.counts.get(child) ?? 0
      const same = byCount.get(count)
      if (same) same.push(child)
      else byCount.set(count, [child])
    }
    for (const count of [...byCount.keys()].sort((a, b) => a - b)) {
      let best = -1
      // Equally used branches: the one with the better node.
      for (const child of byCount.get(count) ?? []) {
        const found = this.#best(child, search)
        if (found >= 0 && (best < 0 || this.#before(found, best))) best = found
      }
      if (best >= 0 || search.budget <= 0) return best
    }
    return -1
  }

  /** Walks the heap best first, past what is to be skipped, without taking it apart. */
  #bestOfHeap(heap: readonly number[], search: Search): number {
    const first = heap[0]
    if (first === undefined) return -1
    if (!search.skips(first)) return first
    const frontier = [0]
    while (frontier.length > 0) {
      const at = frontier.shift() ?? 0
      const index = heap[at] ?? -1
      if (!search.skips(index)) return index
      if (--search.budget <= 0) return -1
      for (const child of [2 * at + 1, 2 * at + 2]) {
        const next = heap[child]
        if (next === undefined) continue
        let low = 0
        let high = frontier.length
        while (low < high) {
          const middle = (low + high) >> 1
          if (this.#before(heap[frontier[middle] ?? 0] ?? -1, next)) low = middle + 1
          else high = middle
        }
        frontier.splice(low, 0, child)
      }
    }
    return -1
  }

  #before(a: number, b: number): boolean {
    const difference = (this.#ranks[a] ?? 0) - (this.#ranks[b] ?? 0)
    if (difference !== 0) return difference < 0
    // Ids are random, so this favours no node over another, and is the same after a rebuild.
    return (this.#ids[a] ?? '') < (this.#ids[b] ?? '')
  }

  #take(branch: Branch, index: number): void {
    const { heap } = branch
    const at = this.#positions[index] ?? 0
    const last = heap.pop()
    if (last !== undefined && last !== index) {
      heap[at] = last
      this.#positions[last] = at
      this.#settle(heap, at)
    }
    for (let up: Branch | undefined = branch; up; up = up.parent) up.live--
  }

  /** Moves the entry at a place up or down to where its rank belongs. */
  #settle(heap: number[], from: number): void {
    let at = from
    const index = heap[at] ?? 0
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] ?? 0
      if (!this.#before(index, above)) break
      heap[at] = above
      this.#positions[above] = at
      at = parent
    }
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && this.#before(heap[child + 1] ?? 0, heap[child] ?? 0)) child++
      const below = heap[child] ?? 0
      if (!this.#before(below, index)) break
      heap[at] = below
      this.#positions[below] = at
      at = child
    }
    heap[at] = index
    this.#positions[index] = at
  }
}

function grown<T extends Uint8Array | Int32Array | Float64Array>(into: T, from: T): T {
  into.set(from)
  return into
}
