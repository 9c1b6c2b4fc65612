import type { Duplex } from 'node:stream'
import type { TaskConnection, TaskForward } from '../api/docker/index.ts'
import { UserError } from '../base/index.ts'
import { bridge, parseAnswer } from '../cluster/index.ts'
import type { Member } from './member.ts'
import type { TaskReach } from './task-reach.ts'

/** Connections to ports of tasks: on this node directly, elsewhere over the session of the node that has the task. */
export function openTaskForward(options: {
  readonly reach: TaskReach
  /** Throws where this node is no manager. */
  readonly member: () => Member
}): TaskForward {
  return async ({ taskId, nodeId, port, by }, signal): Promise<TaskConnection> => {
    const { identity, port: managerPort } = options.member()
    if (nodeId === identity.nodeId) {
      const inside = await options.reach.dial(taskId, port, by)
      return { join: (outside) => splice(outside, inside), close: () => inside.destroy() }
    }
    const clusterPort = managerPort.port
    if (!clusterPort) {
      throw new UserError('unavailable', 'the cluster port of this manager is closed')
    }
    const request = {
      kind: 'forward' as const,
      taskId,
      port,
      by: `${by}, through manager ${identity.nodeId}`,
    }
    const { stream, over } = await clusterPort.ask(nodeId, request, signal)
    try {
      parseAnswer(await stream.receive(AbortSignal.any([signal, over])), 'connected')
    } catch (error) {
      stream.close()
      throw error
    }
    return {
      join(outside) {
        over.addEventListener('abort', () => outside.destroy(), { once: true })
        return bridge(stream, outside)
      },
      close: () => stream.close(),
    }
  }
}

/** Joins two sockets; each direction ends by itself, and what breaks one breaks the other. */
function splice(outside: Duplex, inside: Duplex): Promise<void> {
  return new Promise((resolve) => {
    outside.pipe(inside)
    inside.pipe(outside)
    let open = 2
    const closed = (one: Duplex, other: Duplex) => () => {
      if (!one.readableEnded) other.destroy()
      open -= 1
      if (open === 0) resolve()
    }
    for (const [one, other] of [
      [outside, inside],
      [inside, outside],
    ] as const) {
      one.on('error', () => other.destroy())
      one.once('close', closed(one, other))
    }
  })
}
