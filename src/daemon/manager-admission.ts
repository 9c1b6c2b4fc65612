import { type Clock, type Log, Semaphore, UserError } from '../base/index.ts'
import type { ManagerMembers, MemberAdmission } from '../cluster/index.ts'
import { addMember, promoteMember } from '../etcd/index.ts'
import type { ClusterNode, NodeId } from '../model/index.ts'
import type { EtcdClient } from '../store/etcd/index.ts'
import { nextCommit, type Store } from '../store/index.ts'
import { peerUrlOf } from './peer-url.ts'

export interface ManagerAdmissionOptions {
  readonly store: Store
  /** The etcd that managers share; where there is none yet, the state moves there first. */
  readonly share: () => Promise<EtcdClient>
  /** The same, if there is one. */
  readonly shared: () => EtcdClient | undefined
  readonly clock: Clock
  readonly log: Log
}

/** Lets other managers keep the state too: each is a member of etcd, and its node says so. */
export class ManagerAdmission implements ManagerMembers {
  readonly #options: ManagerAdmissionOptions
  /** Managers are let in one at a time. */
  readonly #joining = new Semaphore(1)

  constructor(options: ManagerAdmissionOptions) {
    this.#options = options
  }

  /** Lets another manager in, by its node and the address of its cluster port. It does not count yet. */
  add(nodeId: NodeId, address: string): Promise<MemberAdmission> {
    const { store, share, clock, log } = this.#options
    return this.#joining.run(async () => {
      const client = await share()
      log.info('a manager is let in', { nodeId, address })
      const peerUrl = peerUrlOf(address)
      const { memberId, members } = await addMember({ client, name: nodeId, peerUrl, clock }).catch(
        (error: unknown) => {
          throw explainRefusal(error, store.view.list('node'))
        },
      )
      const joining = true
      const reachability = 'unknown'
      await this.#changeManager(nodeId, { address, leader: false, reachability, joining })
      const [cluster] = store.view.list('cluster')
      return { memberId, token: cluster?.id ?? '', members }
    })
  }

  /** It counts from now on. */
  async promote(nodeId: NodeId, memberId: string): Promise<void> {
    const { store, shared, clock } = this.#options
    const client = shared()
    if (!client) throw new UserError('failedPrecondition', 'this manager shares no state yet')
    await promoteMember({ client, memberId, clock })
    const manager = store.view.get('node', nodeId)?.manager
    if (!manager) return
    const { joining: _, ...taken } = manager
    await this.#changeManager(nodeId, { ...taken, reachability: 'reachable' })
  }

  async #changeManager(
    nodeId: NodeId,
    manager: NonNullable<ClusterNode['manager']>,
  ): Promise<void> {
    const { store, clock } = this.#options
    for (;;) {
      const node = store.view.get('node', nodeId)
      if (!node) throw new UserError('notFound', `node ${nodeId} is not part of this cluster`)
      try {
        await store.commit([{ type: 'update', object: { ...node, manager } }])
        return
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(store, clock)
      }
    }
  }
}

/** etcd takes nobody in while one of the managers is away: says which one that is. */
function explainRefusal(error: unknown, nodes: Iterable<ClusterNode>): unknown {
  if (!(error instanceof UserError && error.code === 'failedPrecondition')) return error
  const away = [...nodes].filter(({ manager }) => manager?.reachability === 'unreachable')
  if (away.length === 0) return error
  const names = away.map(({ name }) => name).join(', ')
  const isOne = away.length === 1
  return new UserError(
    'failedPrecondition',
    `no manager can be let in while ${isOne ? 'another is' : 'others are'} out of reach: ${names}`,
    {
      next: `Start ${isOne ? 'it' : 'them'} again; if lost for good, \`docker node demote\` and \`docker node rm\` ${isOne ? 'it' : 'them'}. Then join again.`,
      cause: error,
    },
  )
}
