import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { messageOf, UserError } from '../../base/index.ts'
import { nameOfTask, pickTask } from '../../control/index.ts'
import { isTerminal, type Task } from '../../model/index.ts'
import { callerOf } from '../proxy/index.ts'
import { type Answer, type Call, json, type Route } from './call.ts'
import { type ApiContext, commonHeaders } from './context.ts'
import { refusalOf } from './errors.ts'

/** The ways into a task that runs, on any node: where it is, when it ends, and connections to its ports. */
export function reachRoutes(api: ApiContext): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/skep/v1/tasks/:name/place',
      handle(call) {
        const { view } = api.requireControl().store
        const { task, name, node, containerId } = pickTask(view, call.param('name'))
        const template = view.get('revision', task.revisionId)?.template
        return json({
          ID: task.id,
          Name: name,
          Node: { ID: node.id, Hostname: node.name },
          ContainerID: containerId,
          Tty: template?.containers[0]?.tty ?? false,
        })
      },
    },
    { method: 'GET', path: '/skep/v1/tasks/:id/end', handle: (call) => untilEnd(api, call) },
    {
      method: 'POST',
      path: '/skep/v1/tasks/:id/forward',
      handle() {
        throw new UserError('invalidInput', 'a connection to a task takes "Upgrade: tcp"')
      },
    },
  ]
}

/** Answers once the task has ended, with how. The status comes at once. */
async function untilEnd(api: ApiContext, call: Call): Promise<Answer> {
  const { store } = api.requireControl()
  const id = call.param('id')
  const task = store.view.get('task', id)
  if (!task) throw new UserError('notFound', `task ${id} not found`)
  const name = nameOfTask(store.view, task)
  const headers = commonHeaders(await api.identity())
  const { response, signal } = call.stream()
  response.writeHead(200, { ...headers, 'Content-Type': 'application/json' })
  response.flushHeaders()
  const answer = (ended: Task | undefined): void => {
    const state = ended?.status.state ?? 'removed'
    const why = ended?.status.error ?? ended?.desiredBecause ?? ''
    response.end(`${JSON.stringify({ Name: name, State: state, Error: why })}\n`)
  }
  const now = store.view.get('task', id)
  if (!now || isTerminal(now.status.state)) answer(now)
  else {
    const stop = store.subscribe(({ changes }) => {
      const change = changes.find((one) => one.kind === 'task' && one.id === id)
      if (!change) return
      const after = change.after?.kind === 'task' ? change.after : undefined
      if (after && !isTerminal(after.status.state)) return
      stop()
      answer(after)
    })
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
  }
  return { type: 'streamed' }
}

const forwardPath = /^(?:\/v[\d.]+)?\/skep\/v1\/tasks\/([0-9a-z]{25})\/forward\?port=(\d{1,5})$/

/** Whether this upgrade is for a task's port, and so not the engine's. */
export function isForward({ url = '' }: IncomingMessage): boolean {
  return /^(?:\/v[\d.]+)?\/skep\/v1\/tasks\/[^/?]+\/forward(\?|$)/.test(url)
}

/** Joins the caller's connection with a port of a task. What is refused is refused before the upgrade. */
export async function forward(
  api: ApiContext,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const gone = new AbortController()
  socket.on('error', () => gone.abort())
  socket.once('close', () => gone.abort())
  // Half-close is the end of what the caller has to say, and no more.
  if ('allowHalfOpen' in socket) socket.allowHalfOpen = true
  try {
    const { view } = api.requireControl().store
    const [, id = '', portText = ''] = forwardPath.exec(request.url ?? '') ?? []
    const port = Number(portText)
    const task = view.get('task', id)
    if (!task) throw new UserError('notFound', `task ${id} not found`)
    if (port < 1 || port > 65_535) {
      throw new UserError('invalidInput', `${portText} is no port`, { next: 'Give 1 to 65535.' })
    }
    const { nodeId } = task
    if (nodeId === undefined || task.status.state !== 'running' || !api.forward) {
      throw new UserError('failedPrecondition', `${nameOfTask(view, task)} does not run any more`)
    }
    const by = callerOf(request)
    api.log.info('a call into a task', { what: `forward port ${port}`, taskId: id, nodeId, by })
    const connection = await api.forward({ taskId: task.id, nodeId, port, by }, gone.signal)
    if (gone.signal.aborted) {
      connection.close()
      return
    }
    if (head.length > 0) socket.unshift(head)
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
    await connection
      .join(socket)
      .catch((error: unknown) =>
        api.log.debug('a connection to a task broke', { taskId: id, error: messageOf(error) }),
      )
  } catch (error) {
    const { status, message } = refusalOf(error)
    const body = `${JSON.stringify({ message })}\n`
    socket.end(
      `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    )
  }
}
