import { isStopWanted, isTerminal, type Task, type Traffic } from '../model/index.ts'
import type { View } from '../store/store.ts'

/**
 * Whether endpoints send the task traffic at all: its workload has names on a network, or published ports, and its node is
 * not down. A task may be kept on a lost node, but nobody can reach it there.
 */
export function isServed(view: View, task: Task): boolean {
  if (task.nodeId !== undefined && view.get('node', task.nodeId)?.status.state === 'down')
    return false
  return view
    .endpointsOfWorkload(task.workloadId)
    .some(
      ({ spec }) =>
        spec.networks.length > 0 || spec.ports.some(({ publishMode }) => publishMode === 'ingress'),
    )
}

/**
 * Decides whether a task should get traffic. Pure.
 *
 * A task gets it only while ready and wanted. On its way out it is `draining` until `isAcknowledged` says that every
 * node that routes has taken it out of its sets; only then is it `none`, and only then may its node stop it.
 */
export function decideTraffic(
  task: Task,
  served: boolean,
  isAcknowledged: (revision: number) => boolean,
): Traffic {
  if (isTerminal(task.status.state)) return 'none'
  const wanted =
    served &&
    task.status.state === 'running' &&
    task.status.ready &&
    !isStopWanted(task) &&
    task.desiredState !== 'ready'
  if (wanted) return 'routable'
  if (task.traffic === 'routable') return 'draining'
  if (task.traffic === 'draining' && !isAcknowledged(task.version)) return 'draining'
  return 'none'
}
