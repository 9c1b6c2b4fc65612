import type { Clock } from '../base/index.ts'
import type { EndpointId, NetworkId } from '../model/index.ts'

/** A node that may route to endpoints. */
export interface Router {
  /** Endpoints may differ from what the node was last told, since `revision`. */
  touchEndpoints(ids: readonly EndpointId[], revision: number): void
}

/** Who routes to an endpoint: every node, where ports are published, or those on one of its networks. */
export type Scope = 'everyone' | readonly NetworkId[]

export interface EndpointRoundsOptions {
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly everyone: () => Iterable<Router>
  readonly onNetwork: (id: NetworkId) => Iterable<Router>
  /** What had to wait has been handed out. */
  readonly handedOut: () => void
}

interface Waiting {
  /** The first and the last change that waits. */
  readonly sinceRevision: number
  revision: number
  isForEveryone: boolean
  readonly networks: Set<NetworkId>
}

/** Nodes told in one go: telling one costs tens of microseconds, and others wait for the thread too. */
const nodesAtOnceMax = 200
/** Pause after a round for each node told, in ms: what changes meanwhile goes out once. Half a second for 5,000 nodes. */
const pauseMsPerNode = 0.1

/**
 * Hands changes of endpoints out to the nodes that route to them. One change concerns every router, so in a large
 * cluster the many changes of a moment must not be told one by one: they gather into rounds, and the pause between two
 * grows with the nodes told. With few nodes there is no pause, and a change is handed out as it comes.
 */
export class EndpointRounds {
  readonly #options: EndpointRoundsOptions
  #waiting = new Map<EndpointId, Waiting>()
  #underWaySinceRevision: number | undefined
  #isRunning = false

  constructor(options: EndpointRoundsOptions) {
    this.#options = options
  }

  /** The first change that somebody has not been told of yet. */
  get pendingSinceRevision(): number | undefined {
    if (this.#underWaySinceRevision !== undefined) return this.#underWaySinceRevision
    for (const { sinceRevision } of this.#waiting.values()) return sinceRevision
    return undefined
  }

  /** An endpoint changed for the routers in scope. Revisions never go back. */
  mark(id: EndpointId, scope: Scope, revision: number): void {
    let waiting = this.#waiting.get(id)
    if (!waiting) {
      waiting = { sinceRevision: revision, revision, isForEveryone: false, networks: new Set() }
      this.#waiting.set(id, waiting)
    }
    waiting.revision = revision
    if (scope === 'everyone') waiting.isForEveryone = true
    else for (const networkId of scope) waiting.networks.add(networkId)
    if (this.#isRunning) return
    this.#isRunning = true
    void this.#run()
  }

  async #run(): Promise<void> {
    const { clock, signal, handedOut } = this.#options
    while (this.#waiting.size > 0 && !signal.aborted) {
      this.#underWaySinceRevision = this.pendingSinceRevision
      const { idsByRouter, revision } = this.#takeRound()
      let told = 0
      for (const [router, ids] of idsByRouter) {
        router.touchEndpoints(ids, revision)
        if (++told % nodesAtOnceMax === 0) await clock.sleep(0, signal)
      }
      this.#underWaySinceRevision = undefined
      handedOut()
      const pauseMs = Math.floor(told * pauseMsPerNode)
      if (pauseMs > 0) await clock.sleep(pauseMs, signal)
    }
    this.#isRunning = false
  }

  /** Who has to be told what. */
  #takeRound(): {
    readonly idsByRouter: ReadonlyMap<Router, readonly EndpointId[]>
    readonly revision: number
  } {
    const round = this.#waiting
    this.#waiting = new Map()
    const idsByRouter = new Map<Router, EndpointId[]>()
    const tell = (routers: Iterable<Router>, id: EndpointId) => {
      for (const router of routers) {
        const ids = idsByRouter.get(router)
        if (!ids) idsByRouter.set(router, [id])
        else if (ids.at(-1) !== id) ids.push(id)
      }
    }
    let revision = 0
    for (const [id, waiting] of round) {
      revision = Math.max(revision, waiting.revision)
      if (waiting.isForEveryone) tell(this.#options.everyone(), id)
      else for (const networkId of waiting.networks) tell(this.#options.onNetwork(networkId), id)
    }
    return { idsByRouter, revision }
  }
}
