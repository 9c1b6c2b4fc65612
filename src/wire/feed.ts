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
  const facts = new Draft(before)
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
    for (const part of change.parts) facts.apply(change.feed, part, ownId)
  }
  return { feeds, endpoints: facts.endpoints, neighbours: facts.neighbours }
}

/** Facts being changed; a map is copied before its first change. */
class Draft {
  endpoints: ReadonlyMap<EndpointId, EndpointAssignment>
  neighbours: ReadonlyMap<string, NeighbourAssignment>
  #newEndpoints: Map<EndpointId, EndpointAssignment> | undefined
  #newNeighbours: Map<string, NeighbourAssignment> | undefined

  constructor(before: FeedFacts | undefined) {
    this.endpoints = before?.endpoints ?? new Map()
    this.neighbours = before?.neighbours ?? new Map()
  }

  forget(isGone: (feed: FeedId) => boolean): void {
    for (const [id, endpoint] of this.endpoints)
      if (isGone(feedOfEndpoint(endpoint))) this.#changeEndpoints().delete(id)
    for (const [id, neighbour] of this.neighbours)
      if (isGone(feedOfNeighbour(neighbour))) this.#changeNeighbours().delete(id)
  }

  /** A fact that has moved to another feed is no longer this one's to change. */
  apply(feed: FeedId, { endpoints, backends, neighbours }: FeedPart, ownId: NodeId): void {
    for (const id of endpoints.remove)
      if (this.#endpointOf(feed, id)) this.#changeEndpoints().delete(id)
    for (const head of endpoints.put) {
      const known = this.#endpointOf(feed, head.id)?.backends ?? []
      this.#changeEndpoints().set(head.id, { ...head, backends: known })
    }
    for (const { endpointId, put, remove } of backends) {
      const endpoint = this.#endpointOf(feed, endpointId)
      if (!endpoint) continue
      const byTask = new Map(endpoint.backends.map((backend) => [backend.taskId, backend]))
      for (const taskId of remove) byTask.delete(taskId)
      for (const backend of put) byTask.set(backend.taskId, backend)
      this.#changeEndpoints().set(endpointId, { ...endpoint, backends: [...byTask.values()] })
    }
    for (const id of neighbours.remove)
      if (this.#neighbourOf(feed, id)) this.#changeNeighbours().delete(id)
    for (const neighbour of neighbours.put) {
      if (neighbour.nodeId !== ownId) this.#changeNeighbours().set(neighbour.id, neighbour)
      else if (this.neighbours.has(neighbour.id)) this.#changeNeighbours().delete(neighbour.id)
    }
  }

  #endpointOf(feed: FeedId, id: EndpointId): EndpointAssignment | undefined {
    const endpoint = this.endpoints.get(id)
    return endpoint && feedOfEndpoint(endpoint) === feed ? endpoint : undefined
  }

  #neighbourOf(feed: FeedId, id: string): NeighbourAssignment | undefined {
    const neighbour = this.neighbours.get(id)
    return neighbour && feedOfNeighbour(neighbour) === feed ? neighbour : undefined
  }

  #changeEndpoints(): Map<EndpointId, EndpointAssignment> {
    this.#newEndpoints ??= new Map(this.endpoints)
    this.endpoints = this.#newEndpoints
    return this.#newEndpoints
  }

  #changeNeighbours(): Map<string, NeighbourAssignment> {
    this.#newNeighbours ??= new Map(this.neighbours)
    this.neighbours = this.#newNeighbours
    return this.#newNeighbours
  }
}
