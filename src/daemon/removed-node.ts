import { type Clock, type Log, UserError } from '../base/index.ts'
import type { NodeDescription, NodeId } from '../model/index.ts'
import type { AssignmentChange, ManagerLink, Session } from '../wire/index.ts'

/** Times in a row that managers have to say so: one of them may not have heard of a node that has just joined. */
const saidMin = 3
/** Before a manager is asked again, in ms. */
const againMs = 60_000

export interface RemovalOptions {
  readonly clusterId: string
  readonly clock: Clock
  readonly log: Log
  /** Called once the managers' word is taken for it. */
  readonly removed: () => void
}

/**
 * The way to the managers, for a node that heeds its removal: when they say again and again that it is not part of their
 * cluster, its agent is assigned nothing, and so stops every task. Managers prove themselves before they say anything;
 * one that is out of reach says nothing.
 */
export function heedRemoval(link: ManagerLink, options: RemovalOptions): ManagerLink {
  let said = 0
  return {
    async open(nodeId, description, signal, held) {
      try {
        const session = await link.open(nodeId, description, signal, held)
        said = 0
        return session
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'notFound')) throw error
        said += 1
        if (said < saidMin) throw error
        if (said === saidMin) {
          options.log.warn('this node was removed from the cluster: its tasks are stopped', {
            nodeId,
          })
        }
        options.removed()
        return new Farewell(nodeId, description, options)
      }
    },
  }
}

const nothing = { put: [], remove: [] } as const

/** A session that assigns nothing, and ends by itself so that a manager is asked again. */
class Farewell implements Session {
  readonly #change: AssignmentChange
  readonly #clock: Clock
  readonly #over = new AbortController()
  #isTold = false

  constructor(
    id: NodeId,
    { hostname, platform }: NodeDescription,
    { clusterId, clock }: RemovalOptions,
  ) {
    this.#clock = clock
    this.#change = {
      full: true,
      sequence: 1,
      node: { id, clusterId, hostname, platform },
      tasks: nothing,
      secrets: nothing,
      configs: nothing,
      networks: nothing,
      feeds: nothing,
    }
  }

  async next(signal: AbortSignal): Promise<AssignmentChange> {
    if (!this.#isTold) {
      this.#isTold = true
      return this.#change
    }
    await this.#clock.sleep(againMs, AbortSignal.any([signal, this.#over.signal]))
    throw new UserError('unavailable', 'this node was removed from the cluster')
  }

  acknowledge(): void {}

  async report(): Promise<void> {}

  async describe(): Promise<void> {}

  close(): void {
    this.#over.abort()
  }
}
