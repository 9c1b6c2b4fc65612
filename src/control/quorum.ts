/** A manager as the others see it. */
export interface ManagerStanding {
  readonly id: string
  readonly name: string
  readonly isReachable: boolean
}

export type ManagerChange =
  | { readonly type: 'promote'; readonly manager: ManagerStanding }
  /** Demoted, removed, or leaving by itself. */
  | { readonly type: 'demote'; readonly id: string }

export type QuorumVerdict =
  | { readonly isKept: true }
  | { readonly isKept: false; readonly because: string; readonly next: string }

/** How many of so many managers have to agree. */
export function quorumOf(managerCount: number): number {
  return Math.floor(managerCount / 2) + 1
}

/**
 * Decides whether the managers can still agree on anything after one of them is added or taken away. Pure.
 *
 * The others count as they are now: a manager out of reach counts for the size of the group, not for its majority.
 */
export function decideQuorum(
  managers: readonly ManagerStanding[],
  change: ManagerChange,
): QuorumVerdict {
  const others = managers.filter(
    ({ id }) => id !== (change.type === 'demote' ? change.id : change.manager.id),
  )
  const after = change.type === 'promote' ? [...others, change.manager] : others
  if (after.length === 0) {
    return {
      isKept: false,
      because: 'attempting to demote the last manager of the swarm',
      next: 'Promote another node first, or use `docker swarm leave --force` to end this swarm.',
    }
  }
  const needed = quorumOf(after.length)
  const missing = after.filter(({ isReachable }) => !isReachable)
  const reachable = after.length - missing.length
  if (reachable >= needed) return { isKept: true }
  const verb = change.type === 'promote' ? 'with it' : 'without it'
  const names = missing.map(({ name }) => name).join(', ')
  return {
    isKept: false,
    because:
      `${verb} the swarm would lose its quorum: of ${after.length} managers ${needed} have to be ` +
      `reachable, and ${reachable === 1 ? '1 would be' : `${reachable} would be`} (out of reach: ${names})`,
    next:
      change.type === 'promote'
        ? 'Bring the node back before you promote it.'
        : `Bring ${names} back, or demote ${missing.length === 1 ? 'it' : 'one of them'} first.`,
  }
}
