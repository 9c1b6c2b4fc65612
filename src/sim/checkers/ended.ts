import { isTerminal, type TaskState } from '../../model/index.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Host } from '../host.ts'
import type { Checker } from '../judge.ts'

/** In which a sound daemon has stopped what runs all the same: an engine goes on with what it was told to start, in ms. */
const stoppedMs = 15_000

/**
 * Of a task that its node said had ended no container is begun again, on any machine and whether or not that is in reach: what
 * takes its place may run by now. What is begun all the same is stopped.
 */
export function ended(cluster: SimulatedCluster): {
  readonly checker: Checker
  /** What is wrong with a daemon's wish to start a task's container. */
  wrongStart(host: Host, taskId: string): string | undefined
} {
  const states = new Map<string, TaskState>()
  let sinceMs = new Map<string, number>()
  const checker: Checker = {
    name: 'what has ended does not run again',
    change({ after }) {
      // Orphaned is what others say of it.
      if (after?.kind === 'task' && isTerminal(after.status.state))
        if (after.status.state !== 'orphaned') states.set(after.id, after.status.state)
      return undefined
    },
    second() {
      const { nowMs } = cluster.time
      const running = new Map<string, number>()
      for (const host of cluster.hosts) {
        // Nobody there to stop it.
        if (host.isEngineAway || !cluster.daemons.get(host.name)?.process.isRunning) continue
        for (const taskId of host.engine.runningTasks()) {
          const state = states.get(taskId)
          if (state === undefined) continue
          const beganMs = sinceMs.get(taskId) ?? nowMs
          if (nowMs - beganMs > stoppedMs)
            return `task ${taskId} is ${state}, and runs on ${host.name}`
          running.set(taskId, beganMs)
        }
      }
      sinceMs = running
      return undefined
    },
  }
  return {
    checker,
    wrongStart(host, taskId) {
      const state = states.get(taskId)
      return state && `task ${taskId} is ${state}, and ${host.name} starts it again`
    },
  }
}
