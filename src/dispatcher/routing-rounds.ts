import type { Clock, TurnBudget } from '../base/index.ts'
import type { EndpointId, NetworkId } from '../model/index.ts'

/** What many nodes know alike: an endpoint, or where an address of a network is. */
export type SharedPart =
  | { readonly type: 'endpoint'; readonly id: EndpointId }
  | { readonly type: 'neighbour'; readonly id: string; readonly networkId: NetworkId }

/** A node that may send to endpoints and neighbours. */
export interface Router {
  /** These may differ from what the node was last told, since the change with this revision. */
  touchShared(parts: readonly SharedPart[], sinceRevision: number): void
}

/** Whom a part concerns: every node, as with published ports, or those on one of some networks. */
export type Scope = 'everyone' | readonly NetworkId[]

export interface RoutingRoundsOptions {
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Shares the thread with everybody else. */
  readonly turns: TurnBudget
  readonly everyone: () => Iterable<Router>
  readonly onNetwork: (id: NetworkId) => Iterable<Router>
  /** What had to wait has been handed out. */
  readonly handedOut: () => void
}

interface Waiting {
  readonly part: SharedPart
  /** The first change that waits. */
  readonly sinceRevision: number
  isForEveryone: boolean
  readonly networks: Set<NetworkId>
}

/** Parts noted for a node in one unit of a turn. */
const partsPerUnit = 50
/** Pause after a round for each node told, in ms: what changes meanwhile goes out once. Half a second for 5,000 nodes. */
const pauseMsPerNode = 0.1

/**
 * Hands changes of endpoints and neighbours out to the nodes that send to them. One change concerns every router, so in
 * a large cluster the many changes of a moment must not be told one by one: they gather into rounds, and the pause
 * between two grows with the nodes told. With few nodes there is no pause, and a change is handed out as it comes.
 */
export class RoutingRounds {
  readonly #options: RoutingRoundsOptions
  /** By kind and id of the part. */
  #waiting = new Map<string, Waiting>()
  #underWaySinceRevision: number | undefined
  #isRunning = false

  constructor(options: RoutingRoundsOptions) {
    this.#options = options
  }

  /** The first change that somebody has not been told of yet. */
  get pendingSinceRevision(): number | undefined {
    if (this.#underWaySinceRevision !== undefined) return this.#underWaySinceRevision
    for (const { sinceRevision } of this.#waiting.values()) return sinceRevision
    return undefined
  }

  /** A part changed for the routers in scope. Revisions never go back. */
  mark(part: SharedPart, scope: Scope, revision: number): void {
    if (scope.length === 0) return
    const key = `${part.type}/${part.id}`
    let waiting = this.#waiting.get(key)
    if (!waiting) {
      const isForEveryone = false
      waiting = { part, sinceRevision: revision, isForEveryone, networks: new Set() }
      this.#waiting.set(key, waiting)
    }
    if (scope === 'everyone') waiting.isForEveryone = true
    else for (const networkId of scope) waiting.networks.add(networkId)
    if (this.#isRunning) return
    this.#isRunning = true
    void this.#run()
  }

  async #run(): Promise<void> {
    const { clock, signal, handedOut, turns } = this.#options
    while (!signal.aborted) {
      const sinceRevision = this.pendingSinceRevision
      if (sinceRevision === undefined) break
      this.#underWaySinceRevision = sinceRevision
      let told = 0
      for (const [router, groups] of this.#takeRound()) {
        const partCount = groups.reduce((sum, parts) => sum + parts.length, 0)
        const share = turns.take(1 + partCount / partsPerUnit)
        if (share) await share
        if (signal.aborted) return
        for (const parts of groups) router.touchShared(parts, sinceRevision)
        told += 1
      }
      this.#underWaySinceRevision = undefined
      handedOut()
      const pauseMs = Math.floor(told * pauseMsPerNode)
      if (pauseMs > 0) await clock.sleep(pauseMs, signal)
    }
    this.#isRunning = false
  }

  /** Who has to be told what: whoever is in the same scope shares one list of it. */
  #takeRound(): ReadonlyMap<Router, readonly (readonly SharedPart[])[]> {
    const forEveryone: SharedPart[] = []
    const byNetwork = new Map<NetworkId, SharedPart[]>()
    for (const { part, isForEveryone, networks } of this.#waiting.values()) {
      if (isForEveryone) forEveryone.push(part)
      else {
        for (const networkId of networks) {
          const parts = byNetwork.get(networkId)
          if (parts) parts.push(part)
          else byNetwork.set(networkId, [part])
        }
      }
    }
    this.#waiting = new Map()
    const groupsByRouter = new Map<Router, (readonly SharedPart[])[]>()
    const tell = (routers: Iterable<Router>, parts: readonly SharedPart[]) => {
      for (const router of routers) {
        const groups = groupsByRouter.get(router)
        if (groups) groups.push(parts)
        else groupsByRouter.set(router, [parts])
      }
    }
    if (forEveryone.length > 0) tell(this.#options.everyone(), forEveryone)
    for (const [networkId, parts] of byNetwork) tell(this.#options.onNetwork(networkId), parts)
    return groupsByRouter
  }
}
