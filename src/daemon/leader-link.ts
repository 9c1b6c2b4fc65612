import { UserError } from '../base/index.ts'
import type { NodeDescription, NodeId } from '../model/index.ts'
import type { View } from '../store/index.ts'
import type { HeldFeeds, ManagerLink, Session } from '../wire/index.ts'
import type { Leading } from './leading.ts'

/**
 * The way of a manager's own agent to whoever leads: within this process while that is this manager, and over the
 * network otherwise.
 */
export class LeaderLink implements ManagerLink {
  readonly #leading: Pick<Leading, 'manager'>
  readonly #remote: ManagerLink
  /** Aborts when another one leads. */
  #leaderIsAnother = new AbortController()
  #isClosed = false

  constructor(leading: Pick<Leading, 'manager'>, remote: ManagerLink) {
    this.#leading = leading
    this.#remote = remote
  }

  async open(
    nodeId: NodeId,
    description: NodeDescription,
    signal: AbortSignal,
    held?: HeldFeeds,
  ): Promise<Session> {
    if (this.#isClosed) throw new UserError('unavailable', 'this node is shutting down')
    const until = AbortSignal.any([signal, this.#leaderIsAnother.signal])
    const { manager } = this.#leading
    const link = manager ? manager.link : this.#remote
    return link.open(nodeId, description, until, held)
  }

  /** No session is begun any more: one would say that this node is there. */
  close(): void {
    this.#isClosed = true
  }

  /** The agent's session is with the leader that was. */
  leaderChanged(): void {
    this.#leaderIsAnother.abort()
    this.#leaderIsAnother = new AbortController()
  }
}

/** Cluster ports of the other managers, the leader's first. */
export function otherManagersOf(
  view: View,
  { leader }: Pick<Leading, 'leader'>,
  nodeId: NodeId,
): readonly string[] {
  const others = [...view.list('node')].flatMap(({ id, manager }) =>
    manager && id !== nodeId ? [manager.address] : [],
  )
  const isOther = leader !== undefined && leader.id !== nodeId
  return isOther ? [...new Set([leader.address, ...others])] : others
}
