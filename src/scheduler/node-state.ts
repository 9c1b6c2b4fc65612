import type { ClusterNode, GenericResource, NodeId, WorkloadId } from '../model/index.ts'
import { getOrMake } from './get-or-make.ts'
import type { Needs } from './needs.ts'

/** What one task takes from the node it is on, from its assignment until it has ended. */
export interface Holding {
  readonly node: NodeState
  readonly workloadId: WorkloadId
  readonly nanoCpus: number
  readonly memoryBytes: number
  readonly generic: readonly GenericResource[]
  readonly hostPorts: readonly string[]
  /** Counts for balance: not asked to stop. */
  readonly active: boolean
}

/** Why a node is refused, in the order the filters run: the first that applies is the reason. */
export const reasonCode = {
  fits: 0,
  notReady: 1,
  nanoCpus: 2,
  memory: 3,
  generic: 4,
  plugin: 5,
  constraint: 6,
  platform: 7,
  hostPort: 8,
  maxReplicas: 9,
} as const
export const reasonCount = Object.keys(reasonCode).length

/** A node as the scheduler sees it: what is free, and how much it runs. */
export class NodeState {
  readonly id: NodeId
  /** Place in the arrays of candidates. */
  readonly index: number
  /** Absent while only tasks know of the node. */
  node: ClusterNode | undefined
  /** Counted up with every change of the node object that placement looks at. */
  generation = 0
  nanoCpusHeld = 0
  memoryBytesHeld = 0
  /** Tasks that hold something here, ended ones excluded. */
  holders = 0
  /** Tasks that count for balance. */
  active = 0
  readonly #portHolders = new Map<string, number>()
  readonly #genericHeld = new Map<string, { count: number; readonly names: Map<string, number> }>()

  constructor(id: NodeId, index: number) {
    this.id = id
    this.index = index
  }

  get isReady(): boolean {
    return this.node?.status.state === 'ready' && this.node.spec.availability === 'active'
  }

  /** Adds (`sign` 1) or removes (-1) what a task holds. */
  hold(holding: Holding, sign: 1 | -1): void {
    this.holders += sign
    this.nanoCpusHeld += sign * holding.nanoCpus
    this.memoryBytesHeld += sign * holding.memoryBytes
    if (holding.active) this.active += sign
    for (const port of holding.hostPorts) addTo(this.#portHolders, port, sign)
    for (const { kind, value, names } of holding.generic) {
      const held = getOrMake(this.#genericHeld, kind, () => ({ count: 0, names: new Map() }))
      held.count += sign * value
      for (const name of names ?? []) addTo(held.names, name, sign)
      if (held.count === 0 && held.names.size === 0) this.#genericHeld.delete(kind)
    }
  }

  /** The first thing that is short here, or `fits`. */
  shortOf(needs: Needs): 'fits' | 'nanoCpus' | 'memory' | 'generic' {
    const total = this.node?.description.resources
    if (needs.nanoCpus > 0 && needs.nanoCpus > (total?.nanoCpus ?? 0) - this.nanoCpusHeld) {
      return 'nanoCpus'
    }
    if (
      needs.memoryBytes > 0 &&
      needs.memoryBytes > (total?.memoryBytes ?? 0) - this.memoryBytesHeld
    ) {
      return 'memory'
    }
    for (const { kind, value } of needs.generic) {
      if (this.freeOf(kind) < value) return 'generic'
    }
    return 'fits'
  }

  /** How much of a generic resource is free. */
  freeOf(kind: string): number {
    let free = 0
    for (const resource of this.node?.description.resources.generic ?? []) {
      if (resource.kind !== kind) continue
      free += resource.names ? this.#freeNames(resource.names, kind).length : resource.value
    }
    const held = this.#genericHeld.get(kind)
    if (!held) return free
    // Named ones were left out above; what is held without a name is taken from the count.
    let named = 0
    for (const count of held.names.values()) named += count
    return free - (held.count - named)
  }

  #freeNames(names: readonly string[], kind: string): readonly string[] {
    const held = this.#genericHeld.get(kind)?.names
    return held ? names.filter((name) => !held.has(name)) : names
  }

  /** Picks what a task gets: the first free names in the node's order, or a count. */
  pick(wanted: Needs['generic']): readonly GenericResource[] {
    return wanted.map(({ kind, value }) => {
      const offered = (this.node?.description.resources.generic ?? []).filter(
        (resource) => resource.kind === kind,
      )
      const names = offered.flatMap((resource) => this.#freeNames(resource.names ?? [], kind))
      return names.length >= value && value > 0
        ? { kind, value, names: names.slice(0, value) }
        : { kind, value }
    })
  }

  holdsPort(port: string): boolean {
    return this.#portHolders.has(port)
  }

  /** How full the node is by reservations, in tenths: coarse, so that balance by count still decides among similar ones. */
  get reservedTenths(): number {
    const total = this.node?.description.resources
    return Math.max(
      tenths(this.nanoCpusHeld, total?.nanoCpus ?? 0),
      tenths(this.memoryBytesHeld, total?.memoryBytes ?? 0),
    )
  }

  /** All of its state, for comparing with a rebuilt one. */
  describe(): unknown {
    return {
      id: this.id,
      known: this.node !== undefined,
      held: [this.nanoCpusHeld, this.memoryBytesHeld, this.holders, this.active],
      ports: sorted(this.#portHolders),
      generic: sorted(this.#genericHeld).map(([kind, { count, names }]) => [
        kind,
        count,
        sorted(names),
      ]),
    }
  }
}

function sorted<Value>(map: ReadonlyMap<string, Value>): readonly (readonly [string, Value])[] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
}

function tenths(held: number, total: number): number {
  if (held <= 0) return 0
  return total <= 0 ? 10 : Math.min(10, Math.floor((held * 10) / total))
}

function addTo<Key>(counts: Map<Key, number>, key: Key, by: number): void {
  const count = (counts.get(key) ?? 0) + by
  if (count === 0) counts.delete(key)
  else counts.set(key, count)
}

/** Every node, by a small number, with a log of which changed: readers catch up when they need to. */
export class NodeTable {
  readonly byId = new Map<NodeId, NodeState>()
  /** By index; a freed place is used again. */
  readonly slots: (NodeState | undefined)[] = []
  readonly #free: number[] = []
  #log: number[] = []
  #logFrom = 0

  /** The node's state, made when it is new: the caller gives it something to know, then calls `touch`. */
  get(id: NodeId): NodeState {
    let state = this.byId.get(id)
    if (!state) {
      const index = this.#free.pop() ?? this.slots.length
      state = new NodeState(id, index)
      this.slots[index] = state
      this.byId.set(id, state)
    }
    return state
  }

  /** Notes that the node, or what it holds, changed; forgets it when nothing is left to know. */
  touch(state: NodeState): void {
    if (!state.node && state.holders === 0 && this.slots[state.index] === state) {
      this.slots[state.index] = undefined
      this.byId.delete(state.id)
      this.#free.push(state.index)
    }
    if (this.#log.length > 4 * this.slots.length + 1024) {
      this.#logFrom += this.#log.length
      this.#log = []
    }
    this.#log.push(state.index)
  }

  /** Where a reader that has seen everything stands. */
  get end(): number {
    return this.#logFrom + this.#log.length
  }

  /** Calls back for what changed since `from`, with doubles; false: too long ago, look at everything. */
  changedSince(from: number, changed: (index: number) => void): boolean {
    if (from < this.#logFrom) return false
    for (let at = from - this.#logFrom; at < this.#log.length; at++) {
      const index = this.#log[at]
      if (index !== undefined) changed(index)
    }
    return true
  }
}
