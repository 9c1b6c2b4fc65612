import { type Clock, type Log, messageOf, UserError, WakeUp } from '../base/index.ts'
import { removeMember } from '../etcd/index.ts'
import type { ClusterNode, NodeId } from '../model/index.ts'
import type { EtcdClient } from '../store/etcd/index.ts'
import { nextCommit, type Store } from '../store/index.ts'
import { peerUrlOf } from './peer-url.ts'

export interface RosterOptions {
  readonly store: Store
  readonly client: EtcdClient
  /** The leader's own node. */
  readonly nodeId: NodeId
  readonly epoch: number
  readonly isInSession: (nodeId: NodeId) => boolean
  /** The leader itself is to be no manager any more: another one has to take over and remove it. */
  readonly resign: () => void
  readonly clock: Clock
  readonly log: Log
  /** Aborts when it leads no longer. */
  readonly signal: AbortSignal
}

/** How often sessions are looked at, which come and go without a word in the store, in ms. */
const lookMs = 1_000
/** Time that managers have to find a new leader before they count as out of reach, in ms. */
const graceMs = 5_000
/** How often members are looked for that began to join and never came, in ms. */
const learnersLookMs = 10_000

/** A leader's duty: writes down who leads and who is in reach, and takes those out that are no managers any more. */
export async function keepRoster(options: RosterOptions): Promise<void> {
  const { store, clock, log, signal } = options
  const wake = new WakeUp()
  const unsubscribe = store.subscribe(({ changes }) => {
    if (changes.some(({ kind }) => kind === 'node')) wake.ring()
  })
  const beganAtMs = clock.nowMs()
  let learnersLookedAtMs = beganAtMs
  try {
    while (!signal.aborted) {
      const nowMs = clock.nowMs()
      try {
        await look(options, nowMs - beganAtMs < graceMs)
        if (nowMs - learnersLookedAtMs >= learnersLookMs) {
          learnersLookedAtMs = nowMs
          await removeStrayLearners(options)
        }
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof UserError && error.code === 'outOfSequence')
          await nextCommit(store, clock)
        else log.warn('the managers could not be looked after', { error: messageOf(error) })
      }
      await wake.wait(clock, signal, clock.nowMs() + lookMs)
    }
  } finally {
    unsubscribe()
  }
}

async function look(options: RosterOptions, isEarly: boolean): Promise<void> {
  const { store, client, nodeId, epoch, isInSession, resign, log } = options
  const nodes = [...store.view.list('node')]
  const { changed, leaving } = decideRoster(nodes, { leaderId: nodeId, isEarly, isInSession })
  if (changed.length > 0) {
    const changes = changed.map((object) => ({ type: 'update', object }) as const)
    await store.commit(changes, { fence: epoch })
  }
  for (const { id, manager } of leaving) {
    if (!manager) continue
    if (id === nodeId) {
      resign()
      return
    }
    await removeMember({ client, name: id, peerUrl: peerUrlOf(manager.address) })
    const node = store.view.get('node', id)
    if (node?.spec.role === 'worker') {
      const { manager: _, ...object } = node
      await store.commit([{ type: 'update', object }], { fence: epoch })
    }
    log.info('a node is no manager any more', { nodeId: id })
  }
}

/** Decides what is to be written down of the managers, and who of them is to be none any more. Pure. */
export function decideRoster(
  nodes: readonly ClusterNode[],
  {
    leaderId,
    isEarly,
    isInSession,
  }: {
    readonly leaderId: NodeId
    /** Managers may still be looking for this leader. */
    readonly isEarly: boolean
    readonly isInSession: (nodeId: NodeId) => boolean
  },
): { readonly changed: readonly ClusterNode[]; readonly leaving: readonly ClusterNode[] } {
  const changed: ClusterNode[] = []
  for (const node of nodes) {
    const { manager } = node
    if (!manager) continue
    const leader = node.id === leaderId
    const isReachable = leader || isInSession(node.id)
    const reachability = isReachable
      ? 'reachable'
      : isEarly
        ? manager.reachability
        : ('unreachable' as const)
    if (manager.leader === leader && manager.reachability === reachability) continue
    changed.push({ ...node, manager: { ...manager, leader, reachability } })
  }
  return {
    changed,
    leaving: nodes.filter(({ spec, manager }) => manager && spec.role === 'worker'),
  }
}

/** One that was let in and never came holds the next one up. */
async function removeStrayLearners({ store, client, log }: RosterOptions): Promise<void> {
  for (const { learner, peerUrls } of await client.memberList()) {
    if (!learner) continue
    const node = [...store.view.list('node')].find(
      ({ manager }) => manager && peerUrls.includes(peerUrlOf(manager.address)),
    )
    if (node?.spec.role === 'manager' && node.status.state !== 'down') continue
    const [peerUrl = ''] = peerUrls
    await removeMember({ client, name: node?.id ?? peerUrl, peerUrl })
    log.warn('a manager that never came was taken off the list', { peerUrl })
  }
}
