import { createPublicKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { UserError } from '../base/index.ts'
import { Authority } from '../cluster/index.ts'
import { clusterOf } from '../control/index.ts'
import { updateMember } from '../etcd/index.ts'
import type { Keyring } from '../security/index.ts'
import { nextCommit, type Store } from '../store/index.ts'
import type { MemberWorld } from './host.ts'
import { type Identity, readIdentity, writeIdentity } from './identity.ts'
import type { MemberEtcd } from './member-etcd.ts'
import type { NodeCertificates } from './node-certificates.ts'
import { hostOf } from './own-address.ts'
import { peerUrlOf } from './peer-url.ts'

/**
 * Has the cluster know this manager by its address: the state, the certificate, etcd's list of members, and last the note
 * on its own disk. Each is looked at and put right where it differs, so that it may be cut short anywhere and begun again.
 *
 * Nobody else has to act: a member that the others can't find finds them, and etcd agrees over the connections that it
 * opens itself. Rejects with `conflict` where the address is another manager's.
 */
export async function settleAddress({
  world,
  identity,
  store,
  keyring,
  certificates,
  etcd,
}: {
  readonly world: Pick<MemberWorld, 'options' | 'clock' | 'random' | 'log'>
  readonly identity: Identity
  readonly store: Store
  readonly keyring: Keyring
  /** Absent: none were made yet. */
  readonly certificates: NodeCertificates | undefined
  /** Where the state is shared with other managers. */
  readonly etcd: Pick<MemberEtcd, 'client' | 'certificatesChanged'> | undefined
}): Promise<void> {
  const { options, clock, random, log } = world
  const { nodeId, address } = identity
  const host = hostOf(address)
  const before = await writeDown(identity, host, store, () => nextCommit(store, clock))
  if (certificates && isIP(host) > 0 && !isFor(certificates, host)) {
    const authority = new Authority({
      ...{ store, keyring, clock, random },
      managersRefused: () => undefined,
    })
    const key = createPublicKey(certificates.keyPem).export({ type: 'spki', format: 'pem' })
    const admission = await authority.renewOwn(nodeId, key.toString())
    await certificates.renew(admission, clusterOf(store.view).status.crossCertificates ?? [])
  }
  if (etcd) {
    await etcd.certificatesChanged()
    await updateMember({ client: etcd.client, name: nodeId, peerUrl: peerUrlOf(address) })
  }
  const noted = await readIdentity(options.dataRoot)
  if (noted?.address !== address || noted.interface !== identity.interface)
    await writeIdentity(options.dataRoot, identity)
  if (before !== undefined && before !== address)
    log.info('the cluster knows this manager by another address now', { address, before })
}

/** Writes the address into the state. Resolves with the one that was there. */
async function writeDown(
  { nodeId, address }: Identity,
  host: string,
  store: Store,
  otherCommit: () => Promise<unknown>,
): Promise<string | undefined> {
  for (;;) {
    const node = store.view.get('node', nodeId)
    const { manager } = node ?? {}
    if (!node || !manager) return undefined
    const other = [...store.view.list('node')].find(
      (one) => one.id !== nodeId && one.manager?.address === address,
    )
    if (other) throw belongsToAnother(address, other.name)
    if (manager.address === address && node.status.address === host) return address
    const object = {
      ...node,
      manager: { ...manager, address },
      status: { ...node.status, address: host },
    }
    try {
      await store.commit([{ type: 'update', object }])
      return manager.address
    } catch (error) {
      if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
      await otherCommit()
    }
  }
}

/** `other`: its name, where it is known. */
export function belongsToAnother(address: string, other?: string): UserError {
  const whose = other === undefined ? 'another manager' : `another manager, ${other}`
  return new UserError('conflict', `${address} belongs to ${whose}`, {
    next: 'Give this host an address of its own, and start its daemon again with --advertise-addr.',
  })
}

function isFor({ certificatePem }: NodeCertificates, host: string): boolean {
  return new X509Certificate(certificatePem).checkIP(host) !== undefined
}
