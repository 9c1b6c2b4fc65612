import { UserError } from '../base/index.ts'
import type { TokenSummary, TokenWish } from '../control/index.ts'
import {
  type Cluster,
  type ClusterStatus,
  issuedTokensMax,
  type NodeRole,
  rotatedTokensMax,
} from '../model/index.ts'
import { createJoinToken, type Keyring, tokenHashOf } from '../security/index.ts'

type Owner = Pick<Cluster, 'id'> & { readonly status: Pick<ClusterStatus, 'root'> }

/** A new join token for a role, sealed as the cluster keeps it. */
export function sealedToken(
  keyring: Keyring,
  cluster: Owner,
  role: NodeRole,
): ClusterStatus['joinTokens']['worker'] {
  const token = createJoinToken(cluster.status.root.certificatePem)
  return keyring.seal(new TextEncoder().encode(token), `${cluster.id}/join/${role}`)
}

/** The cluster's join token for a role, in plain. */
export function openToken(keyring: Keyring, { id, status }: Cluster, role: NodeRole): string {
  return new TextDecoder().decode(keyring.unseal(status.joinTokens[role], `${id}/join/${role}`))
}

/** The status with new join tokens for these roles; the old ones are remembered as rotated. */
export function withNewTokens(
  keyring: Keyring,
  cluster: Cluster,
  roles: readonly NodeRole[],
  nowMs: number,
): ClusterStatus {
  const { status } = cluster
  const rotated = roles.map((role) => ({
    hash: tokenHashOf(openToken(keyring, cluster, role)),
    role,
    atMs: nowMs,
  }))
  const fresh = roles.map((role) => [role, sealedToken(keyring, cluster, role)] as const)
  return {
    ...status,
    joinTokens: { ...status.joinTokens, ...Object.fromEntries(fresh) },
    rotatedTokens: [...rotated, ...(status.rotatedTokens ?? [])].slice(0, rotatedTokensMax),
  }
}

/** Adds a token with bounds. Throws `invalidInput` and `tooLarge`. */
export function issueToken(
  keyring: Keyring,
  cluster: Cluster,
  id: string,
  { role, labels, lifeMs, usesMax }: TokenWish,
  nowMs: number,
): { readonly status: ClusterStatus; readonly token: string; readonly summary: TokenSummary } {
  if (usesMax !== undefined && (!Number.isInteger(usesMax) || usesMax < 1)) {
    throw new UserError('invalidInput', 'a join token can be used once or more often')
  }
  if (lifeMs !== undefined && !(lifeMs > 0)) {
    throw new UserError('invalidInput', 'a join token lives for some time')
  }
  const known = cluster.status.issuedTokens ?? []
  if (known.length >= issuedTokensMax) {
    throw new UserError('tooLarge', `there are ${issuedTokensMax} join tokens already`, {
      next: 'Remove some with `skep token rm`.',
    })
  }
  const token = createJoinToken(cluster.status.root.certificatePem)
  const summary: TokenSummary = {
    id,
    role,
    labels,
    createdAtMs: nowMs,
    ...(lifeMs === undefined ? {} : { expiresAtMs: nowMs + lifeMs }),
    ...(usesMax === undefined ? {} : { usesLeft: usesMax }),
  }
  const sealed = keyring.seal(new TextEncoder().encode(token), `${cluster.id}/token/${id}`)
  return {
    status: { ...cluster.status, issuedTokens: [...known, { ...summary, sealed }] },
    token,
    summary,
  }
}

/** Without the token of this id. Throws `notFound`. */
export function withoutToken({ status }: Cluster, id: string): ClusterStatus {
  const known = status.issuedTokens ?? []
  if (!known.some((token) => token.id === id)) {
    throw new UserError('notFound', `there is no join token ${id}`, {
      next: 'List them with `skep token ls`.',
    })
  }
  return { ...status, issuedTokens: known.filter((token) => token.id !== id) }
}
