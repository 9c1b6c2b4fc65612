import { type Clock, UserError } from '../base/index.ts'
import {
  type Availability,
  type ClusterNode,
  isTerminal,
  type NodeId,
  type NodeRole,
  orphanedTask,
  type Source,
} from '../model/index.ts'
import { type Change, changesPerCommitMax, type View } from '../store/store.ts'
import { decideQuorum, type ManagerStanding } from './quorum.ts'
import { stableJson } from './template-hash.ts'
import { type Changes, type ControlWorld, checkVersion } from './world.ts'

export interface NodeDeclaration {
  readonly name?: string
  readonly labels: Readonly<Record<string, string>>
  readonly role: NodeRole
  readonly availability: Availability
  readonly source: Source
}

export async function updateNode(
  clock: Clock,
  changes: Changes,
  id: NodeId,
  version: number,
  declaration: NodeDeclaration,
): Promise<void> {
  await changes.run((view) => {
    const node = view.get('node', id)
    if (!node) throw new UserError('notFound', `node ${id} not found`)
    checkVersion(node, version)
    const { name, labels, role, availability, source } = declaration
    checkRole(view, node, role)
    const sinceMs =
      node.spec.availability === availability ? node.spec.availabilitySinceMs : clock.nowMs()
    const spec = {
      ...(name ? { name } : {}),
      role,
      availability,
      ...(sinceMs === undefined ? {} : { availabilitySinceMs: sinceMs }),
    }
    if (stableJson([node.labels, node.spec]) === stableJson([labels, spec])) {
      return { changes: [], result: undefined }
    }
    const next: ClusterNode = { ...node, labels, spec, source }
    return { changes: [{ type: 'update', object: next, specChanged: true }], result: undefined }
  })
}

function checkRole(view: View, node: ClusterNode, role: NodeRole): void {
  if (role === node.spec.role) return
  const managers = [...view.list('node')].filter(({ spec }) => spec.role === 'manager')
  const verdict = decideQuorum(
    managers.map(standingOf),
    role === 'manager'
      ? { type: 'promote', manager: standingOf(node) }
      : { type: 'demote', id: node.id },
  )
  if (verdict.isKept) return
  throw new UserError('failedPrecondition', verdict.because, { next: verdict.next })
}

/** A worker that is to become a manager counts as in reach while it is ready. */
function standingOf(node: ClusterNode): ManagerStanding {
  const { id, name, manager, status } = node
  const isReachable = manager ? manager.reachability !== 'unreachable' : status.state === 'ready'
  return { id, name, isReachable }
}

/** Forgets a node. What ran on it counts as lost. */
export async function removeNode(
  world: ControlWorld,
  changes: Changes,
  id: NodeId,
  force: boolean,
): Promise<void> {
  const nowMs = world.clock.nowMs()
  // The node goes with the first batch, so that nothing new is placed on it meanwhile.
  for (let left = true; left; ) {
    const { result } = await changes.run((view) => {
      const node = view.get('node', id)
      const plan: Change[] = []
      if (node) {
        checkRemoval(node, force)
        plan.push({ type: 'delete', kind: 'node', id, version: node.version })
      } else if (view.tasksOfNode(id).length === 0) {
        throw new UserError('notFound', `node ${id} not found`)
      }
      const lost = view.tasksOfNode(id).filter(({ status }) => !isTerminal(status.state))
      for (const task of lost.slice(0, changesPerCommitMax - plan.length)) {
        const object = orphanedTask(task, 'its node was removed from the cluster', nowMs)
        plan.push({ type: 'update', object })
      }
      return { changes: plan, result: lost.length > changesPerCommitMax - 1 }
    })
    left = result
  }
}

function checkRemoval(node: ClusterNode, force: boolean): void {
  if (node.spec.role === 'manager' || node.manager) {
    throw new UserError(
      'failedPrecondition',
      `node ${node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    )
  }
  if (!force && node.status.state !== 'down') {
    throw new UserError('failedPrecondition', `node ${node.id} is not down and can't be removed`, {
      next: 'Let it leave with `docker swarm leave` there, or use --force.',
    })
  }
}
