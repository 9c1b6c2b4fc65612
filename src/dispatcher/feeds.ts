import type { Clock, TurnBudget } from '../base/index.ts'
import type { Endpoint, EndpointId, NetworkId, TaskId } from '../model/index.ts'
import type { AppliedChange, View } from '../store/store.ts'
import {
  type FeedId,
  feedOfAddresses,
  feedOfEndpoint,
  feedOfNodes,
  isOfEndpoints,
  publishedFeed,
} from '../wire/index.ts'
import { backendOf, endpointHead, isPublished } from './assignments.ts'
import {
  backendKey,
  endpointKey,
  type Fact,
  Feed,
  type HashedFact,
  hashed,
  neighbourKey,
} from './feed.ts'
import { NeighbourTable } from './neighbours.ts'
import type { RoutingChange } from './routing-index.ts'

/** A node that is told feeds. */
export interface Listener {
  /** Feeds may differ from what the node was last told, since the change with this revision. */
  touchFeeds(sinceRevision: number): void
}

export interface FeedsOptions {
  readonly view: View
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Shares the thread with everybody else. */
  readonly turns: TurnBudget
  /** Of `Portions`. */
  readonly factsPerPart: number
  readonly everyone: () => Iterable<Listener>
  readonly onNetwork: (id: NetworkId) => Iterable<Listener>
  /** What had to wait has been handed out. */
  readonly handedOut: () => void
}

/** What may differ since the round before. */
class Marks {
  /** Tasks whose place behind it may differ; `all`: the endpoint itself may. */
  readonly endpoints = new Map<EndpointId, Set<TaskId> | 'all'>()
  readonly neighbours = new Map<NetworkId, Set<string>>()

  get isEmpty(): boolean {
    return this.endpoints.size === 0 && this.neighbours.size === 0
  }

  addEndpoint(id: EndpointId, taskId: TaskId | undefined): void {
    const known = this.endpoints.get(id)
    if (known === 'all') return
    if (taskId === undefined) this.endpoints.set(id, 'all')
    else if (known) known.add(taskId)
    else this.endpoints.set(id, new Set([taskId]))
  }

  addNeighbour(networkId: NetworkId, id: string): void {
    const known = this.neighbours.get(networkId)
    if (known) known.add(id)
    else this.neighbours.set(networkId, new Set([id]))
  }
}

/** Changes of one round, by feed and key. */
type RoundChanges = Map<FeedId, Map<string, HashedFact | undefined>>

/** One piece of what a round looks at, and what it takes of a turn. */
interface Look {
  readonly units: number
  begin(): void
}

/** Facts looked at in one unit of a turn. */
const factsPerUnit = 2
/** Tasks behind an endpoint that are looked at in one go. */
const backendsPerLook = 500
/** Facts that a new leader takes into a feed in one unit of a turn. */
const factsTakenPerUnit = 5
/** To look at a task or network when a leader begins. */
const unitsPerLoaded = 0.3
/** Pause after a round for each node told, in ms: what changes meanwhile goes out once. Half a second for 5,000 nodes. */
const pauseMsPerNode = 0.1

/**
 * All feeds, derived from the view and kept up to date by changes. One change concerns every node that sends there, so in a large
 * cluster the many changes of a moment must not be told one by one: they gather into rounds, and the pause between two grows
 * with the nodes told. With few nodes there is no pause, and a change is handed out as it comes.
 */
export class Feeds {
  readonly #options: FeedsOptions
  readonly #neighbours: NeighbourTable
  readonly #feeds = new Map<FeedId, Feed>()
  readonly #feedOfEndpoint = new Map<EndpointId, FeedId>()
  /** Feeds of endpoints on a network, but for published ones. */
  readonly #endpointFeeds = new Map<NetworkId, Set<FeedId>>()
  /** Whom each feed concerns: every node, or those on one of these networks. */
  readonly #scopes = new Map<FeedId, 'everyone' | readonly NetworkId[]>()
  #marks = new Marks()
  #waitingSinceRevision: number | undefined
  #underWaySinceRevision: number | undefined
  #version = 0
  #isRunning = false
  readonly #begun = Promise.withResolvers<void>()
  #hasBegun = false

  /** What is in the view is made into feeds in parts: nothing can be told before `begun`. */
  constructor(options: FeedsOptions) {
    this.#options = options
    const { view } = options
    this.#neighbours = new NeighbourTable(view)
    for (const { id } of view.list('endpoint')) this.#marks.addEndpoint(id, undefined)
    this.#waitingSinceRevision = 0
    options.signal.addEventListener('abort', () => this.#begun.resolve(), { once: true })
    this.#isRunning = true
    void this.#begin()
  }

  async #begin(): Promise<void> {
    const { signal, turns } = this.#options
    for (const changes of this.#neighbours.load()) {
      const share = turns.take(unitsPerLoaded)
      if (share) await share
      if (signal.aborted) return
      for (const { networkId, id } of changes) this.#marks.addNeighbour(networkId, id)
    }
    await this.#run()
  }

  /** Resolves once feeds can be told, or never will be. Undefined: they can. */
  begun(): Promise<void> | undefined {
    return this.#hasBegun ? undefined : this.#begun.promise
  }

  get(id: FeedId): Feed | undefined {
    return this.#feeds.get(id)
  }

  /** Feeds for a node that is on these networks, and has tasks on some of them. */
  *wantedBy(networks: Iterable<NetworkId>, hasTaskOn: (id: NetworkId) => boolean): Iterable<Feed> {
    const ids = new Set<FeedId>([publishedFeed])
    for (const networkId of networks) {
      ids.add(feedOfAddresses(networkId))
      for (const id of this.#endpointFeeds.get(networkId) ?? []) ids.add(id)
      if (hasTaskOn(networkId)) ids.add(feedOfNodes(networkId))
    }
    for (const id of ids) {
      const feed = this.#feeds.get(id)
      if (feed) yield feed
    }
  }

  /** The first change that somebody has not been told of yet. */
  get pendingSinceRevision(): number | undefined {
    return this.#underWaySinceRevision ?? this.#waitingSinceRevision
  }

  /** Takes a change in, once it is in the view. `endpoints`: what of it concerns those. It is told at the next `handOut`. */
  learn(change: AppliedChange, endpoints: readonly RoutingChange[], revision: number): void {
    const neighbours = this.#neighbours.learn(change)
    if (endpoints.length === 0 && neighbours.length === 0) return
    for (const { id, taskId } of endpoints) this.#marks.addEndpoint(id, taskId)
    for (const { networkId, id } of neighbours) this.#marks.addNeighbour(networkId, id)
    this.#waitingSinceRevision ??= revision
  }

  /** Begins a round, if there is something to tell and none is under way. */
  handOut(): void {
    if (this.#isRunning || this.#waitingSinceRevision === undefined) return
    this.#isRunning = true
    void this.#run()
  }

  async #run(): Promise<void> {
    const { clock, signal, handedOut, turns } = this.#options
    while (!signal.aborted && this.#waitingSinceRevision !== undefined) {
      const sinceRevision = this.#waitingSinceRevision
      this.#underWaySinceRevision = sinceRevision
      this.#waitingSinceRevision = undefined
      const marks = this.#marks
      this.#marks = new Marks()
      const changes: RoundChanges = new Map()
      for (const look of this.#looks(marks, changes)) {
        const share = turns.take(look.units)
        if (share) await share
        if (signal.aborted) return
        look.begin()
      }
      let told = 0
      if (!this.#hasBegun) await this.#makeFeeds(changes)
      if (signal.aborted) return
      for (const listener of this.#apply(changes)) {
        const share = turns.take(1)
        if (share) await share
        if (signal.aborted) return
        listener.touchFeeds(sinceRevision)
        told += 1
      }
      this.#underWaySinceRevision = undefined
      if (!this.#hasBegun) {
        this.#hasBegun = true
        this.#begun.resolve()
      }
      handedOut()
      const pauseMs = Math.floor(told * pauseMsPerNode)
      if (pauseMs > 0) await clock.sleep(pauseMs, signal)
    }
    this.#isRunning = false
  }

  /** What a round has to look at. It is told in one go when all of it was looked at. */
  *#looks(marks: Marks, changes: RoundChanges): Iterable<Look> {
    for (const [id, tasks] of marks.endpoints) yield* this.#looksAtEndpoint(id, tasks, changes)
    for (const [networkId, ids] of marks.neighbours) {
      for (const id of ids) {
        yield {
          units: 1 / factsPerUnit,
          begin: () => this.#lookAtNeighbour(networkId, id, changes),
        }
      }
    }
  }

  /** Of an endpoint with thousands of tasks some at a time: one that changes meanwhile is looked at again in the next round. */
  *#looksAtEndpoint(
    id: EndpointId,
    tasks: ReadonlySet<TaskId> | 'all',
    changes: RoundChanges,
  ): Iterable<Look> {
    const { view } = this.#options
    const count =
      tasks === 'all'
        ? (view.get('endpoint', id)?.spec.backends ?? []).reduce(
            (sum, { workloadId }) => sum + view.tasksOfWorkload(workloadId).length,
            1,
          )
        : tasks.size
    const looked: TaskId[] = []
    const lookAtSome = (from: number) => {
      const [endpoint, feed] = [at.endpoint, this.#feedOfEndpoint.get(id)]
      if (!endpoint || feed === undefined) return
      for (const taskId of looked.slice(from, from + backendsPerLook))
        this.#lookAtBackend(feed, endpoint, taskId, changes)
    }
    const at: { endpoint?: Endpoint | undefined } = {}
    yield {
      units: 1 + Math.min(count, backendsPerLook) / factsPerUnit,
      begin: () => {
        at.endpoint = view.get('endpoint', id)
        for (const taskId of this.#lookAtHead(id, at.endpoint, tasks, changes)) looked.push(taskId)
        lookAtSome(0)
      },
    }
    for (let from = backendsPerLook; from < looked.length; from += backendsPerLook)
      yield { units: backendsPerLook / factsPerUnit, begin: () => lookAtSome(from) }
  }

  /** Answers the tasks that may be behind it, or may not be any more. */
  #lookAtHead(
    id: EndpointId,
    endpoint: Endpoint | undefined,
    tasks: ReadonlySet<TaskId> | 'all',
    changes: RoundChanges,
  ): Iterable<TaskId> {
    const { view } = this.#options
    const head = endpoint && isRouted(endpoint) ? endpointHead(endpoint) : undefined
    const before = this.#feedOfEndpoint.get(id)
    const now = head && feedOfEndpoint(head)
    if (before !== undefined && before !== now) {
      const known = this.#feeds.get(before)
      this.#differ(changes, before, endpointKey(id), undefined)
      for (const taskId of known?.backendsOf(id) ?? [])
        this.#differ(changes, before, backendKey(id, taskId), undefined)
      this.#feedOfEndpoint.delete(id)
    }
    if (!endpoint || !head || now === undefined) return []
    this.#feedOfEndpoint.set(id, now)
    const networks = head.networks.map(({ networkId }) => networkId)
    this.#scopes.set(now, head.published ? 'everyone' : networks)
    if (tasks !== 'all' && before === now) return tasks
    const looked = new Set(this.#feeds.get(now)?.backendsOf(id))
    this.#differ(changes, now, endpointKey(id), { type: 'endpoint', endpoint: head })
    for (const { workloadId } of endpoint.spec.backends)
      for (const task of view.tasksOfWorkload(workloadId)) looked.add(task.id)
    return looked
  }

  #lookAtBackend(feed: FeedId, endpoint: Endpoint, taskId: TaskId, changes: RoundChanges): void {
    const { view } = this.#options
    const backend = backendOf(view, endpoint, view.get('task', taskId))
    const fact = backend && ({ type: 'backend', endpointId: endpoint.id, backend } as const)
    this.#differ(changes, feed, backendKey(endpoint.id, taskId), fact)
  }

  #lookAtNeighbour(networkId: NetworkId, id: string, changes: RoundChanges): void {
    const neighbour = this.#neighbours.on(networkId).get(id)?.neighbour
    const fact = neighbour && ({ type: 'neighbour', neighbour } as const)
    const isOfNode = neighbour?.isOfNode === true
    const key = neighbourKey(id)
    const [addresses, nodes] = [feedOfAddresses(networkId), feedOfNodes(networkId)]
    for (const feed of [addresses, nodes]) this.#scopes.set(feed, [networkId])
    this.#differ(changes, addresses, key, isOfNode ? undefined : fact)
    this.#differ(changes, nodes, key, isOfNode ? fact : undefined)
  }

  #differ(changes: RoundChanges, feed: FeedId, key: string, fact: Fact | undefined): void {
    const before = this.#feeds.get(feed)?.get(key)
    const after = fact && hashed(fact)
    const isSame = before?.high === after?.high && before?.low === after?.low
    const ofFeed = changes.get(feed)
    if (isSame) return
    if (ofFeed) ofFeed.set(key, after)
    else changes.set(feed, new Map([[key, after]]))
  }

  /**
   * Takes in what a new leader begins with, in parts: nobody is told anything before all of it is there. What is left of the round
   * is whom it concerns.
   */
  async #makeFeeds(changes: RoundChanges): Promise<void> {
    const { signal, turns, factsPerPart } = this.#options
    for (const [id, ofFeed] of changes) {
      const feed = this.#feeds.get(id) ?? this.#make(id)
      const all = [...ofFeed]
      ofFeed.clear()
      for (let at = 0; at < all.length; at += factsPerPart) {
        const part = new Map(all.slice(at, at + factsPerPart))
        const share = turns.take(part.size / factsTakenPerUnit)
        if (share) await share
        if (signal.aborted) return
        this.#version += 1
        feed.change(this.#version, part)
      }
    }
  }

  /** Feeds are as this round says from here on. Answers who is to be told. */
  #apply(changes: RoundChanges): ReadonlySet<Listener> {
    const { everyone, onNetwork } = this.#options
    const listeners = new Set<Listener>()
    this.#version += 1
    for (const [id, ofFeed] of changes) {
      const feed = this.#feeds.get(id) ?? this.#make(id)
      if (ofFeed.size > 0) feed.change(this.#version, ofFeed)
      const scope = this.#scopes.get(id) ?? []
      if (scope === 'everyone') for (const listener of everyone()) listeners.add(listener)
      else
        for (const networkId of scope)
          for (const listener of onNetwork(networkId)) listeners.add(listener)
      if (feed.isEmpty) this.#drop(feed)
    }
    return listeners
  }

  #make(id: FeedId): Feed {
    const feed = new Feed(id, this.#version - 1, this.#options.factsPerPart)
    this.#feeds.set(id, feed)
    for (const networkId of this.#endpointNetworksOf(id)) {
      const known = this.#endpointFeeds.get(networkId)
      if (known) known.add(id)
      else this.#endpointFeeds.set(networkId, new Set([id]))
    }
    return feed
  }

  /** Nothing is in it: nodes forget it as one that they no longer want. */
  #drop({ id }: Feed): void {
    this.#feeds.delete(id)
    for (const networkId of this.#endpointNetworksOf(id)) {
      const known = this.#endpointFeeds.get(networkId)
      known?.delete(id)
      if (known?.size === 0) this.#endpointFeeds.delete(networkId)
    }
    this.#scopes.delete(id)
  }

  #endpointNetworksOf(id: FeedId): readonly NetworkId[] {
    const scope = isOfEndpoints(id) ? this.#scopes.get(id) : undefined
    return scope === undefined || scope === 'everyone' ? [] : scope
  }
}

/** Whether any node routes to the endpoint. */
function isRouted(endpoint: Endpoint): boolean {
  return isPublished(endpoint) || endpoint.spec.networks.length > 0
}
