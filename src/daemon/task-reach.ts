import { chmod, mkdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import {
  type CallRecord,
  type ContainerCall,
  callerHeader,
  containerCallOf,
  type EngineProxy,
  recordOf,
  refuseCall,
} from '../api/proxy/index.ts'
import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import type { Engine } from '../engine/index.ts'
import type { TaskId } from '../model/index.ts'
import { openTaskDialer } from '../network/index.ts'
import { clusterLabel, taskIdLabel } from '../runtime/index.ts'

/** The ways into the tasks of this node that managers may take. Each call is recorded in the daemon's log. */
export interface TaskReach {
  /** A new connection that speaks the Engine API, for calls about containers of tasks and no others. */
  connectEngine(): Duplex
  /** A connection to a port of a task; `by` goes into the record. Rejects as `TaskDialer.dial` does, and `notFound`. */
  dial(taskId: TaskId, port: number, by: string): Promise<Duplex>
  close(): Promise<void>
}

export interface TaskReachOptions {
  readonly engine: Engine
  readonly proxy: EngineProxy
  readonly runDir: string
  readonly clock: Clock
  readonly log: Log
}

export async function openTaskReach(options: TaskReachOptions): Promise<TaskReach> {
  const { engine, proxy, runDir, clock, log } = options
  const folder = join(runDir, 'reach')
  const path = join(folder, 'engine.sock')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
  await rm(path, { force: true })
  const dialer = openTaskDialer({ clock, log })

  /** The task that the call is about. Throws `forbidden` for what is none's, and the engine's own refusals. */
  const taskOf = async ({ about, name }: ContainerCall): Promise<string> => {
    const container = about === 'container' ? name : (await engine.execs.inspect(name)).ContainerID
    const { Config } = await engine.containers.inspect(container)
    const { [taskIdLabel]: taskId, [clusterLabel]: cluster } = Config.Labels ?? {}
    if (taskId !== undefined && cluster !== undefined) return taskId
    throw new UserError('forbidden', `container ${name} belongs to no task`, {
      next: 'Run the command on its own node.',
    })
  }

  /** Lets a call through that is about a task, once it is recorded. */
  const admit = async (request: IncomingMessage): Promise<IncomingMessage> => {
    const call = containerCallOf(request)
    if (!call) {
      throw new UserError('forbidden', 'a manager may call the engine for containers of tasks only')
    }
    const taskId = await taskOf(call)
    const admitted = await recordOf(call, request)
    if (admitted.record) record(admitted.record, taskId, callerIn(request))
    return admitted.request
  }
  const record = (what: CallRecord, taskId: string, by: string): void =>
    log.info('a call into a task of this node', { ...what, taskId, by })

  const server = createServer({ requestTimeout: 0 }, (request, response) => {
    admit(request).then(
      (admitted) => proxy.handle(admitted, response),
      (error: unknown) => refuse(response, error),
    )
  })
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    // What is recorded with its body is never sent so: see `recordOf`.
    admit(request).then(
      (admitted) => proxy.checkContinue(admitted, response),
      (error: unknown) => refuse(response, error),
    )
  })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    admit(request).then(
      (admitted) => proxy.upgrade(admitted, socket, head),
      (error: unknown) => socket.end(refusalText(error)),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  await chmod(path, 0o600)
  server.unref()

  return {
    connectEngine: () => connect({ path, allowHalfOpen: true }),
    async dial(taskId, port, by) {
      record({ what: `forward port ${port}` }, taskId, by)
      const filters = { label: [clusterLabel, `${taskIdLabel}=${taskId}`] }
      const [container] = await engine.containers.list({ filters })
      if (!container) {
        throw new UserError('notFound', `no container of task ${taskId} runs here`)
      }
      const { State } = await engine.containers.inspect(container.Id)
      return dialer.dial(State.Pid, port)
    },
    close: () =>
      new Promise((resolve) => {
        dialer.close()
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** As the manager said who calls. */
function callerIn({ headers }: IncomingMessage): string {
  const by = headers[callerHeader.toLowerCase()]
  return typeof by === 'string' ? by : 'a manager'
}

const statusByCode: Readonly<Record<string, number>> = {
  forbidden: 403,
  notFound: 404,
  unavailable: 503,
}

function refusalOf(error: unknown): { readonly status: number; readonly message: string } {
  const status = (error instanceof UserError && statusByCode[error.code]) || 500
  const next = error instanceof UserError && error.next !== undefined ? `. ${error.next}` : ''
  return { status, message: `${messageOf(error)}${next}` }
}

function refuse(response: ServerResponse, error: unknown): void {
  const { status, message } = refusalOf(error)
  refuseCall(response, status, message)
}

/** The same for a call that was to become a connection of its own. */
function refusalText(error: unknown): string {
  const { status, message } = refusalOf(error)
  const body = `${JSON.stringify({ message })}\n`
  return `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`
}
