import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Command } from 'commander'
import { messageOf, UserError } from '../base/index.ts'
import { type Client, openClient } from './client.ts'
import { type CliContext, collect, flag, newCommand, usageError } from './command.ts'
import type { Io } from './io.ts'
import { findRunningTask, type RunningTask } from './running-task.ts'

/** Connections that are open at the same time; more are refused. */
const connectionsMax = 2_000

interface PortPair {
  /** 0: a free one. */
  readonly local: number
  readonly remote: number
}

interface ForwardFlags {
  readonly address?: readonly string[]
}

export async function buildCommand(context: CliContext): Promise<Command> {
  return newCommand('port-forward', 'Reach TCP ports of a task, on whichever node it is, from here')
    .argument('<task>', 'Service, service.slot, or beginning of a task’s id')
    .argument('<ports...>', '[local:]remote; :80 takes a free local port')
    .option(
      '--address <address>',
      'Address to listen on (may be repeated; default: 127.0.0.1)',
      collect,
    )
    .action((task: string, ports: string[], { address = ['127.0.0.1'] }: ForwardFlags) =>
      portForward(context, task, ports.map(flag(parsePair)), address),
    )
}

/** Reads `80`, `8080:80`, `:80`. Throws a usage error. */
export function parsePair(text: string): PortPair {
  const match = /^(?:(\d{0,5}):)?(\d{1,5})$/.exec(text)
  const remote = Number(match?.[2] ?? 0)
  const local = match?.[1] === undefined ? remote : Number(match[1] || 0)
  if (match && remote >= 1 && remote <= 65_535 && local <= 65_535) return { local, remote }
  throw usageError(`"${text}" is no port: write 80, 8080:80 or :80`)
}

async function portForward(
  context: CliContext,
  name: string,
  pairs: readonly PortPair[],
  addresses: readonly string[],
): Promise<void> {
  const { io } = context
  const client = await openClient(context)
  const task = await findRunningTask(client, name)
  const over = new AbortController()
  const signal = AbortSignal.any([io.signal, over.signal])
  const sockets = new Set<Duplex>()
  const servers: Server[] = []
  try {
    for (const { local, remote } of pairs) {
      for (const address of addresses) {
        const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
          if (sockets.size >= connectionsMax) {
            io.stderr.write(`skep: ${connectionsMax} connections are open; one is refused\n`)
            socket.destroy()
            return
          }
          void carry({ client, io, task, remote, socket, sockets, signal })
        })
        servers.push(server)
        const port = await listen(server, local, address)
        const at = address.includes(':') ? `[${address}]` : address
        const { Name, Node } = task
        io.stdout.write(
          `Forwarding ${at}:${port} to port ${remote} of ${Name} on ${Node.Hostname}\n`,
        )
      }
    }
    throw await endOf(client, task, signal)
  } catch (error) {
    throw io.signal.aborted ? io.signal.reason : error
  } finally {
    over.abort()
    for (const server of servers) server.close()
    for (const socket of sockets) socket.destroy()
  }
}

/** Waits until the task has ended, and says so. */
async function endOf(
  client: Client,
  { ID, Name }: RunningTask,
  signal: AbortSignal,
): Promise<Error> {
  const path = `/skep/v1/tasks/${ID}/end`
  const end = await client.call<{ readonly State: string; readonly Error: string }>(path, {
    signal,
  })
  const why = end.Error === '' ? '' : ` (${end.Error})`
  return new UserError('unavailable', `${Name} has ended: ${end.State}${why}`, {
    next: 'Run the command again to reach another task of the service.',
  })
}

/** One connection: opens the way to the task's port and carries both directions, each to its own end. */
async function carry({
  client,
  io,
  task,
  remote,
  socket,
  sockets,
  signal,
}: {
  readonly client: Client
  readonly io: Io
  readonly task: RunningTask
  readonly remote: number
  readonly socket: Socket
  readonly sockets: Set<Duplex>
  readonly signal: AbortSignal
}): Promise<void> {
  const gone = new AbortController()
  keep(sockets, socket)
  socket.on('error', () => {}) // Its close says all.
  socket.once('close', () => gone.abort())
  try {
    const path = `/skep/v1/tasks/${task.ID}/forward?port=${remote}`
    const inside = await client.upgrade(path, AbortSignal.any([signal, gone.signal]))
    if (gone.signal.aborted || signal.aborted) {
      inside.destroy()
      return
    }
    keep(sockets, inside)
    join(socket, inside)
  } catch (error) {
    if (!gone.signal.aborted && !signal.aborted) {
      io.stderr.write(`skep: port ${remote}: ${messageOf(error)}\n`)
    }
    socket.resetAndDestroy()
  }
}

function keep(sockets: Set<Duplex>, socket: Duplex): void {
  sockets.add(socket)
  socket.once('close', () => sockets.delete(socket))
}

function join(outside: Socket, inside: Duplex): void {
  outside.pipe(inside)
  inside.pipe(outside)
  inside.on('error', () => outside.resetAndDestroy())
  inside.once('close', () => {
    if (!inside.readableEnded) outside.resetAndDestroy()
  })
  outside.once('close', () => {
    if (!outside.readableEnded) inside.destroy()
  })
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new UserError('failedPrecondition', `cannot listen on ${host}:${port}: ${cause.message}`, {
          next: 'Choose another local port, as in 8080:80, or :80 for a free one.',
          cause,
        }),
      ),
    )
    server.listen(port, host, () => resolve(portOf(server.address())))
  })
}

function portOf(address: AddressInfo | string | null): number {
  return typeof address === 'object' && address ? address.port : 0
}
