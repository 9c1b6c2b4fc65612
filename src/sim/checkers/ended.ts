import { isTerminal, type TaskState } from '../../model/index.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Checker } from '../judge.ts'

/**
 * Of a task that its node said had ended no container runs, on any machine and whether or not that is in reach: what takes its
 * place may run by now.
 */
export function ended(cluster: SimulatedCluster): Checker {
  const states = new Map<string, TaskState>()
  return {
    name: 'what has ended does not run again',
    change({ after }) {
      // Orphaned is what others say of it.
      if (after?.kind === 'task' && isTerminal(after.status.state))
        if (after.status.state !== 'orphaned') states.set(after.id, after.status.state)
      return undefined
    },
    second() {
      for (const host of cluster.hosts) {
        for (const taskId of host.engine.runningTasks()) {
          const state = states.get(taskId)
          if (state !== undefined) return `task ${taskId} is ${state}, and runs on ${host.name}`
        }
      }
      return undefined
    },
  }
}
