import { UserError } from '../base/index.ts'
import type { ClusterNode } from '../model/index.ts'
import type { CallName } from './messages.ts'
import type { Peer } from './transport.ts'

/**
 * Who may make a call on the cluster port:
 * - `anyone`: no certificate is asked for. What the call gives away is public, or a join token pays for it.
 * - `keyHolder`: proved the key that the cluster knows the node by, whatever became of its certificate.
 * - `node`: that key, and a valid certificate. It only ever speaks for itself: no call names another node.
 * - `manager`: a node that is a manager, by its certificate and by the cluster's word.
 */
type Standing = 'anyone' | 'keyHolder' | 'node' | 'manager'

/** The one table of what may be called by whom. */
export const standingByCall: Readonly<Record<CallName, Standing>> = {
  root: 'anyone',
  join: 'anyone',
  renew: 'keyHolder',
  session: 'node',
  answer: 'node',
  leave: 'node',
  returning: 'node',
  leader: 'node',
  keys: 'manager',
  addManager: 'manager',
  promoteManager: 'manager',
  relay: 'manager',
  attach: 'node',
  detach: 'node',
  attachments: 'node',
}

/**
 * Decides whether a call is refused, and in what words. `known` is what the cluster knows of the node that the peer
 * says it is.
 */
export function decideRefusal(
  call: CallName,
  peer: Peer,
  known: ClusterNode | undefined,
): UserError | undefined {
  const standing = standingByCall[call]
  if (standing === 'anyone') return undefined
  if (peer.type === 'anonymous') {
    return new UserError('forbidden', `"${call}" takes the certificate of a node`, {
      next: 'Join the cluster first, with `docker swarm join`.',
    })
  }
  if (!known) {
    return new UserError('notFound', `node ${peer.nodeId} is not part of this cluster`, {
      next: 'It was removed: make it leave with `docker swarm leave --force` and join again.',
    })
  }
  if (known.certificate?.publicKeyHash !== peer.publicKeyHash) {
    return new UserError('forbidden', `node ${peer.nodeId} is known by another key`, {
      next: 'Has the node joined again since? Use its new certificate, or remove the node.',
    })
  }
  if (standing === 'keyHolder') return undefined
  if (peer.type === 'keyHolder') {
    return new UserError(
      'forbidden',
      `the certificate of node ${peer.nodeId} has ended, or its root was replaced`,
      { next: 'The node renews it by itself; see its log if it does not.' },
    )
  }
  if (standing === 'node') return undefined
  if (peer.role === 'manager' && known.spec.role === 'manager') return undefined
  return new UserError('forbidden', `"${call}" is for managers, and node ${peer.nodeId} is none`, {
    next: 'Promote the node, if it shall be one.',
  })
}
