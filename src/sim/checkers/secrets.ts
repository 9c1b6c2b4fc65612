import { isStopWanted, isTerminal } from '../../model/index.ts'
import type { Checker } from '../judge.ts'

/** Part of every secret's plain bytes in a simulation, and of nothing else. */
export const canary = 'kn1ghtsw00d'

/** Plain secrets are on the nodes of the tasks that refer to them, and nowhere else. */
export function secrets(): Checker {
  return {
    name: 'secrets are only where a task needs them',
    assigned(nodeId, assignments, view) {
      const needed = new Set<string>()
      if (assignments.secrets.size > 0)
        for (const { task, template } of assignments.tasks.values())
          if (!isTerminal(task.status.state))
            for (const { secrets } of template.containers)
              for (const { id } of secrets) needed.add(id)
      for (const { id, name, data } of assignments.secrets.values()) {
        if (!Buffer.from(data.buffer, data.byteOffset, data.byteLength).includes(canary))
          return `node ${nodeId} got other bytes than those of secret ${name}`
        if (!needed.has(id))
          return `node ${nodeId} has secret ${name}, which no unfinished task of its needs`
      }
      for (const { task, template } of assignments.tasks.values()) {
        if (task.nodeId !== nodeId)
          return `node ${nodeId} was given task ${task.id} of another node`
        // One that is to stop needs no more than it has: its secret may be gone already.
        if (isTerminal(task.status.state) || isStopWanted(task)) continue
        // People may remove what only tasks of a revision before refer to.
        for (const { secrets } of template.containers)
          for (const { id, name } of secrets)
            if (!assignments.secrets.has(id) && view.get('secret', id))
              return `node ${nodeId} was given task ${task.id} without its secret ${name}`
      }
      return undefined
    },
    change({ after }) {
      if (after?.kind !== 'secret' && after?.kind !== 'task') return undefined
      return JSON.stringify(after).includes(canary)
        ? `${after.kind} ${after.id} holds the plain bytes of a secret in the store`
        : undefined
    },
    logged(line) {
      return line.includes(canary) ? `a secret was logged: ${line.slice(0, 200)}` : undefined
    },
  }
}
