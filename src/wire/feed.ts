import type { EndpointId, NetworkId, NodeId, TaskId } from '../model/index.ts'
import type { Backend, Delta, EndpointAssignment, NeighbourAssignment } from './assignment.ts'

/**
 * Facts that many nodes are told alike, by what they are about: `published` (endpoints that every node routes to),
 * `endpoints/<network ids, joined by +>`, `addresses/<network id>` (of tasks and plain containers), `nodes/<network id>`
 * (the nodes' own). Each fact is in one feed.
 */
export type FeedId = string

/** Endpoints that every node routes to. */
export const publishedFeed: FeedId = 'published'

export function feedOfEndpoint({
  published,
  networks,
}: Pick<EndpointAssignment, 'published' | 'networks'>): FeedId {
  if (published) return publishedFeed
  const ids = networks.map(({ networkId }) => networkId)
  return `endpoints/${ids.toSorted().join('+')}`
}

/** Whether it is one of endpoints on networks. */
export function isOfEndpoints(feed: FeedId): boolean {
  return feed.startsWith('endpoints/')
}

export function feedOfAddresses(networkId: NetworkId): FeedId {
  return `addresses/${networkId}`
}

export function feedOfNodes(networkId: NetworkId): FeedId {
  return `nodes/${networkId}`
}

export function feedOfNeighbour({
  networkId,
  isOfNode,
}: Pick<NeighbourAssignment, 'networkId' | 'isOfNode'>): FeedId {
  return isOfNode ? feedOfNodes(networkId) : feedOfAddresses(networkId)
}

/** An endpoint without the tasks behind it: they change far more often. */
export type EndpointHead = Omit<EndpointAssignment, 'backends'>

/** A difference of one feed. One object for all nodes that are told of it: never mutated. */
export interface FeedPart {
  /** One that is put keeps the backends that the feed said it has. */
  readonly endpoints: Delta<EndpointId, EndpointHead>
  readonly backends: readonly ({ readonly endpointId: EndpointId } & Delta<TaskId, Backend>)[]
  readonly neighbours: Delta<string, NeighbourAssignment>
}

/** What a node is told of one feed. */
export interface FeedChange {
  readonly feed: FeedId
  /** Of the feed as it is then. A node gives it back when it opens a session: what it holds is not told again. */
  readonly digest: string
  /** Forget what this feed said before. */
  readonly whole: boolean
  /** To be applied in order. */
  readonly parts: readonly FeedPart[]
}

/** Digests of the feeds that a node holds. */
export type HeldFeeds = ReadonlyMap<FeedId, string>

/** What a node knows from its feeds. */
export interface FeedFacts {
  readonly feeds: HeldFeeds
  readonly endpoints: ReadonlyMap<EndpointId, EndpointAssignment>
  readonly neighbours: ReadonlyMap<string, NeighbourAssignment>
}

/**
 * The facts after a change of feeds. `full`: feeds that are not put are forgotten. What a feed says of the node itself is
 * left out: it knows where its own addresses are.
 */
export function applyFeeds(
  before: FeedFacts | undefined,
  full: boolean,
  { put, remove }: Delta<FeedId, FeedChange>,
  ownId: NodeId,
): FeedFacts {
  if (before && !full && put.length === 0 && remove.length === 0) return before
  const facts = new Draft(before, ownId)
  const kept = new Set(put.flatMap(({ feed, whole }) => (whole ? [] : [feed])))
  const told = new Set(put.map(({ feed }) => feed))
  const gone = new Set(remove)
  // Most changes go on from what is known, and forget nothing.
  if (full || gone.size > 0 || kept.size < told.size)
    facts.forget((feed) =>
      full ? !kept.has(feed) : gone.has(feed) || (told.has(feed) && !kept.has(feed)),
    )
  const feeds = new Map(full ? [] : before?.feeds)
  for (const feed of remove) feeds.delete(feed)
  for (const change of put) {
    feeds.set(change.feed, change.digest)
    for (const part of change.parts) facts.apply(change.feed, part)
  }
  return { feeds, ...facts.changed() }
}

/**
 * Facts being changed. A fact moves between feeds, and may come back: each feed is followed by itself, from what it said before
 * to what it says now, whichever is told first. What they all say in the end has each fact once.
 */
class Draft {
  readonly #endpoints: DraftOf<EndpointId, EndpointAssignment>
  readonly #neighbours: DraftOf<string, NeighbourAssignment>
  readonly #ownId: NodeId

  constructor(before: FeedFacts | undefined, ownId: NodeId) {
    this.#endpoints = new DraftOf<EndpointId, EndpointAssignment>(
      before?.endpoints ?? new Map(),
      feedOfEndpoint,
    )
    this.#neighbours = new DraftOf<string, NeighbourAssignment>(
      before?.neighbours ?? new Map(),
      feedOfNeighbour,
    )
    this.#ownId = ownId
  }

  forget(isGone: (feed: FeedId) => boolean): void {
    this.#endpoints.forget(isGone)
    this.#neighbours.forget(isGone)
  }

  apply(feed: FeedId, { endpoints, backends, neighbours }: FeedPart): void {
    for (const id of endpoints.remove) this.#endpoints.set(feed, id, undefined)
    for (const head of endpoints.put) {
      const known = this.#endpoints.get(feed, head.id)?.backends ?? []
      this.#endpoints.set(feed, head.id, { ...head, backends: known })
    }
    for (const { endpointId, put, remove } of backends) {
      const endpoint = this.#endpoints.get(feed, endpointId)
      if (!endpoint) continue
      const byTask = new Map(endpoint.backends.map((backend) => [backend.taskId, backend]))
      for (const taskId of remove) byTask.delete(taskId)
      for (const backend of put) byTask.set(backend.taskId, backend)
      this.#endpoints.set(feed, endpointId, { ...endpoint, backends: [...byTask.values()] })
    }
    for (const id of neighbours.remove) this.#neighbours.set(feed, id, undefined)
    for (const neighbour of neighbours.put) {
      const isOwn = neighbour.nodeId === this.#ownId
      this.#neighbours.set(feed, neighbour.id, isOwn ? undefined : neighbour)
    }
  }

  changed(): Pick<FeedFacts, 'endpoints' | 'neighbours'> {
    return { endpoints: this.#endpoints.changed(), neighbours: this.#neighbours.changed() }
  }
}

/** Facts of one kind, by feed; the map of all is copied before its first change. */
class DraftOf<Id, Value> {
  readonly #before: ReadonlyMap<Id, Value>
  readonly #feedOf: (value: Value) => FeedId
  #now: Map<Id, Value> | undefined
  /** What each feed says otherwise by now; undefined: it no longer says it. */
  readonly #changes = new Map<FeedId, Map<Id, Value | undefined>>()

  constructor(before: ReadonlyMap<Id, Value>, feedOf: (value: Value) => FeedId) {
    this.#before = before
    this.#feedOf = feedOf
  }

  forget(isGone: (feed: FeedId) => boolean): void {
    for (const [id, value] of this.#before)
      if (isGone(this.#feedOf(value))) this.#changing().delete(id)
  }

  get(feed: FeedId, id: Id): Value | undefined {
    const changes = this.#changes.get(feed)
    return changes?.has(id) ? changes.get(id) : this.#keptOf(feed, id)
  }

  set(feed: FeedId, id: Id, value: Value | undefined): void {
    const changes = this.#changes.get(feed)
    if (changes) changes.set(id, value)
    else this.#changes.set(feed, new Map([[id, value]]))
  }

  changed(): ReadonlyMap<Id, Value> {
    for (const [feed, changes] of this.#changes)
      for (const [id, value] of changes)
        if (value === undefined && this.#keptOf(feed, id)) this.#changing().delete(id)
    for (const changes of this.#changes.values())
      for (const [id, value] of changes) if (value !== undefined) this.#changing().set(id, value)
    return this.#now ?? this.#before
  }

  #keptOf(feed: FeedId, id: Id): Value | undefined {
    const value = (this.#now ?? this.#before).get(id)
    return value !== undefined && this.#feedOf(value) === feed ? value : undefined
  }

  #changing(): Map<Id, Value> {
    this.#now ??= new Map(this.#before)
    return this.#now
  }
}
