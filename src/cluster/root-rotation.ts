import {
  type Cluster,
  type ClusterNode,
  type ClusterStatus,
  crossCertificatesMax,
} from '../model/index.ts'
import {
  crossSign,
  describeRoot,
  type Keyring,
  type RootCa,
  rootHashOf,
} from '../security/index.ts'
import { withNewTokens } from './tokens.ts'

/**
 * A rotation of the root: the new one signs from now on, the old one stays trusted until every node in reach has a
 * certificate of the new one. A node that is off meanwhile follows the cross-signed chain when it comes back, and
 * renews by proof of its key; it holds nobody up.
 */
export async function beginRotation(
  keyring: Keyring,
  cluster: Cluster,
  old: RootCa,
  root: RootCa,
): Promise<(current: Cluster, nowMs: number) => ClusterStatus> {
  const described = await describeRoot(root.certificatePem)
  const crossed = await crossSign(root.certificatePem, old)
  const key = keyring.seal(new TextEncoder().encode(root.keyPem), `${cluster.id}/root`)
  return (current, nowMs) => {
    const { status } = current
    const next: ClusterStatus = {
      ...status,
      root: { ...described, key },
      rootRotationInProgress: true,
      retiringRoots: [old.certificatePem, ...(status.retiringRoots ?? [])],
      crossCertificates: [crossed, ...(status.crossCertificates ?? [])].slice(
        0,
        crossCertificatesMax,
      ),
    }
    // Tokens carry the root's digest, so both are new.
    return withNewTokens(keyring, { ...current, status: next }, ['worker', 'manager'], nowMs)
  }
}

/** Whether the old roots can go: every node that is not down has a certificate of the new one. */
export function isRotationDone({ status }: Cluster, nodes: Iterable<ClusterNode>): boolean {
  const wanted = rootHashOf(status.root.certificatePem)
  for (const { certificate, status: node } of nodes) {
    if (node.state !== 'down' && certificate?.rootHash !== wanted) return false
  }
  return true
}

/** The status once the old roots have gone. */
export function endRotation({ status }: Cluster): ClusterStatus {
  const { retiringRoots: _, ...rest } = status
  return { ...rest, rootRotationInProgress: false }
}
