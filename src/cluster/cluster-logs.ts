import { UserError } from '../base/index.ts'
import type { NodeId, TaskId } from '../model/index.ts'
import type { View } from '../store/index.ts'
import type { LogLine, LogOptions, LogSource } from '../wire/index.ts'
import type { ClusterPort } from './cluster-port.ts'
import { errorOf, parseLogLine, parseRefusal } from './messages.ts'
import { Fields } from './read.ts'

/** Logs of tasks wherever they are: from this node's engine, or over the session of the node that has them. */
export function openClusterLogs(options: {
  readonly view: () => View
  readonly nodeId: NodeId
  readonly local: LogSource
  readonly port: () => Pick<ClusterPort, 'ask'> | undefined
}): LogSource {
  return {
    async *logs(taskId: TaskId, wish: LogOptions, signal: AbortSignal): AsyncGenerator<LogLine> {
      const nodeId = options.view().get('task', taskId)?.nodeId
      if (nodeId === undefined || nodeId === options.nodeId) {
        yield* options.local.logs(taskId, wish, signal)
        return
      }
      const port = options.port()
      if (!port) throw new UserError('unavailable', 'the cluster port of this manager is closed')
      // Only what is asked for: the API's own fields stay here.
      const { stdout, stderr, follow, tail, sinceMs, untilMs } = wish
      const bounds = {
        ...(sinceMs === undefined ? {} : { sinceMs }),
        ...(untilMs === undefined ? {} : { untilMs }),
      }
      const request = {
        kind: 'logs' as const,
        taskId,
        options: { stdout, stderr, follow, tail, ...bounds },
      }
      const { stream, over } = await port.ask(nodeId, request, signal)
      const ended = AbortSignal.any([signal, over])
      try {
        for (;;) {
          const message = await stream.receive(ended)
          const type = message === undefined ? '' : new Fields('answer', message).text('type', 100)
          if (type === 'end') return
          if (type === 'refused') throw errorOf(parseRefusal(message))
          if (type !== 'line') {
            throw new UserError('unavailable', `node ${nodeId} broke off its answer`)
          }
          yield parseLogLine(message)
        }
      } finally {
        stream.close()
      }
    },
  }
}
