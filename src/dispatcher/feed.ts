import { usualPortions } from '../base/index.ts'
import type { EndpointId, TaskId } from '../model/index.ts'
import type {
  Backend,
  EndpointHead,
  FeedChange,
  FeedId,
  FeedPart,
  NeighbourAssignment,
} from '../wire/index.ts'

/** One thing that a feed says. */
export type Fact =
  | { readonly type: 'endpoint'; readonly endpoint: EndpointHead }
  | { readonly type: 'backend'; readonly endpointId: EndpointId; readonly backend: Backend }
  | { readonly type: 'neighbour'; readonly neighbour: NeighbourAssignment }

// What a fact is known by within its feed.
export const endpointKey = (id: EndpointId): string => `e/${id}`
export const backendKey = (id: EndpointId, taskId: TaskId): string => `b/${id}/${taskId}`
export const neighbourKey = (id: string): string => `n/${id}`

/** A fact with the sum that its feed's digest is made of: by its content, so that two leaders come to the same. */
export interface HashedFact {
  readonly fact: Fact
  readonly high: number
  readonly low: number
}

/** Two mixed 32-bit hashes of the fact's JSON text. */
export function hashed(fact: Fact): HashedFact {
  const text = JSON.stringify(fact)
  let high = 0xdeadbeef
  let low = 0x41c6ce57
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    high = Math.imul(high ^ code, 2_654_435_761)
    low = Math.imul(low ^ code, 1_597_334_677)
  }
  return { fact, high: mixed(high ^ (low >>> 15)), low: mixed(low ^ (high >>> 13)) }
}

/** Every bit of what goes in moves half of those that come out: sums of similar texts' hashes must differ. */
function mixed(hash: number): number {
  let bits = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}

interface Entry {
  readonly version: number
  readonly parts: readonly FeedPart[]
  readonly factCount: number
  /** Of the feed after it. */
  readonly digest: string
}

/** Of parts that were made here. */
const factCountOfPart = new WeakMap<FeedPart, number>()

/** How many facts a part tells. */
export function factCountOf(part: FeedPart): number {
  return factCountOfPart.get(part) ?? 0
}

/** Changes that are kept in any case, for those who are behind. */
const changesKeptMin = 1_000

/**
 * One feed as it is, with its latest differences. What is told is made once, whoever it is told to: who is a little behind gets the
 * same differences as everybody who is, and who has nothing the same whole.
 */
export class Feed {
  readonly id: FeedId
  readonly #factsPerPart: number
  readonly #facts = new Map<string, HashedFact>()
  readonly #backends = new Map<EndpointId, Set<TaskId>>()
  #high = 0
  #low = 0
  #version: number
  #log: Entry[] = []
  #logFactCount = 0
  /** Version and digest that the log begins after. */
  #base: { readonly version: number; readonly digest: string }
  #whole: { readonly version: number; readonly parts: readonly FeedPart[] } | undefined

  /** `version`: grows over all feeds, also when one is made anew. */
  constructor(id: FeedId, version: number, factsPerPart = usualPortions.factsPerPart) {
    this.id = id
    this.#factsPerPart = factsPerPart
    this.#version = version
    this.#base = { version, digest: this.digest }
  }

  get version(): number {
    return this.#version
  }

  get isEmpty(): boolean {
    return this.#facts.size === 0
  }

  get digest(): string {
    return `${this.#facts.size}-${this.#high.toString(16)}-${this.#low.toString(16)}`
  }

  get(key: string): HashedFact | undefined {
    return this.#facts.get(key)
  }

  /** The backends that it says an endpoint has. */
  backendsOf(endpointId: EndpointId): ReadonlySet<TaskId> {
    return this.#backends.get(endpointId) ?? noTasks
  }

  /** Takes changes in, by key; undefined: it is no more. They differ from what there is. */
  change(version: number, changes: ReadonlyMap<string, HashedFact | undefined>): void {
    const put: Fact[] = []
    const remove: Fact[] = []
    for (const [key, after] of changes) {
      const before = this.#facts.get(key)
      if (before) this.#count(before, -1)
      if (after) {
        this.#count(after, 1)
        this.#facts.set(key, after)
        this.#note(after.fact, true)
        put.push(after.fact)
      } else if (before) {
        this.#facts.delete(key)
        this.#note(before.fact, false)
        remove.push(before.fact)
      }
    }
    this.#version = version
    const factCount = put.length + remove.length
    const parts = partsOf(put, remove, this.#factsPerPart)
    this.#log.push({ version, parts, factCount, digest: this.digest })
    this.#logFactCount += factCount
    while (this.#logFactCount > Math.max(changesKeptMin, this.#facts.size)) {
      const first = this.#log.shift()
      if (!first) break
      this.#logFactCount -= first.factCount
      this.#base = first
    }
  }

  #count({ high, low }: HashedFact, by: 1 | -1): void {
    this.#high = (this.#high + by * high) >>> 0
    this.#low = (this.#low + by * low) >>> 0
  }

  #note(fact: Fact, isThere: boolean): void {
    if (fact.type !== 'backend') return
    const { endpointId, backend } = fact
    const tasks = this.#backends.get(endpointId)
    if (isThere && tasks) tasks.add(backend.taskId)
    else if (isThere) this.#backends.set(endpointId, new Set([backend.taskId]))
    else if (tasks?.delete(backend.taskId) && tasks.size === 0) this.#backends.delete(endpointId)
  }

  /** What to tell a node that was told the feed as of `version`; undefined: it has nothing of it. */
  since(version: number | undefined): FeedChange {
    const { id: feed, digest } = this
    const parts = version === undefined ? undefined : this.#partsSince(version)
    return parts
      ? { feed, digest, whole: false, parts }
      : { feed, digest, whole: true, parts: this.#wholeParts() }
  }

  /** The version that has this digest; undefined: none that is still known. */
  versionOf(digest: string | undefined): number | undefined {
    if (digest === this.digest) return this.#version
    return (
      this.#log.findLast((entry) => entry.digest === digest)?.version ??
      (digest === this.#base.digest ? this.#base.version : undefined)
    )
  }

  #partsSince(version: number): readonly FeedPart[] | undefined {
    if (version < this.#base.version) return undefined
    if (version === this.#version) return noParts
    return this.#log.flatMap((entry) => (entry.version > version ? entry.parts : []))
  }

  #wholeParts(): readonly FeedPart[] {
    const since = this.#whole && this.#partsSince(this.#whole.version)
    if (this.#whole && since) {
      const later = this.#log.filter(({ version }) => version > (this.#whole?.version ?? 0))
      const factCount = later.reduce((sum, entry) => sum + entry.factCount, 0)
      if (2 * factCount <= this.#facts.size) return [...this.#whole.parts, ...since]
    }
    const parts = partsOf(
      [...this.#facts.values()].map(({ fact }) => fact),
      [],
      this.#factsPerPart,
    )
    this.#whole = { version: this.#version, parts }
    return parts
  }
}

const noParts: readonly FeedPart[] = []
const noTasks: ReadonlySet<TaskId> = new Set()

/** Several where there is much: endpoints before what is behind them. */
function partsOf(
  put: readonly Fact[],
  remove: readonly Fact[],
  perPart: number,
): readonly FeedPart[] {
  const count = put.length + remove.length
  if (count <= perPart) return count === 0 ? noParts : [partOf(put, remove)]
  const gone = new Set<EndpointId>()
  for (const fact of remove) if (fact.type === 'endpoint') gone.add(fact.endpoint.id)
  // What is behind an endpoint goes with it.
  const isToTell = (fact: Fact) => fact.type !== 'backend' || !gone.has(fact.endpointId)
  const told = chunks(remove.filter(isToTell), perPart).map((facts) => partOf([], facts))
  const heads = put.filter(({ type }) => type === 'endpoint')
  const others = put.filter((fact) => fact.type !== 'endpoint' && isToTell(fact))
  return [...told, ...chunks([...heads, ...others], perPart).map((facts) => partOf(facts, []))]
}

function chunks(facts: readonly Fact[], perPart: number): (readonly Fact[])[] {
  const found: (readonly Fact[])[] = []
  for (let at = 0; at < facts.length; at += perPart) found.push(facts.slice(at, at + perPart))
  return found
}

function partOf(put: readonly Fact[], remove: readonly Fact[]): FeedPart {
  const backends = new Map<EndpointId, { readonly put: Backend[]; readonly remove: TaskId[] }>()
  const backendsOf = (id: EndpointId) => {
    const known = backends.get(id)
    if (known) return known
    const made = { put: [], remove: [] }
    backends.set(id, made)
    return made
  }
  const endpoints = { put: [] as EndpointHead[], remove: [] as EndpointId[] }
  const neighbours = { put: [] as NeighbourAssignment[], remove: [] as string[] }
  for (const fact of put) {
    if (fact.type === 'endpoint') endpoints.put.push(fact.endpoint)
    else if (fact.type === 'neighbour') neighbours.put.push(fact.neighbour)
    else backendsOf(fact.endpointId).put.push(fact.backend)
  }
  const goneEndpoints = new Set<EndpointId>()
  for (const fact of remove) {
    if (fact.type === 'endpoint') {
      goneEndpoints.add(fact.endpoint.id)
      endpoints.remove.push(fact.endpoint.id)
    } else if (fact.type === 'neighbour') neighbours.remove.push(fact.neighbour.id)
    else backendsOf(fact.endpointId).remove.push(fact.backend.taskId)
  }
  // They go with it.
  for (const id of goneEndpoints) backends.delete(id)
  const part = {
    endpoints,
    backends: [...backends].map(([endpointId, delta]) => ({ endpointId, ...delta })),
    neighbours,
  }
  factCountOfPart.set(part, put.length + remove.length)
  return part
}
