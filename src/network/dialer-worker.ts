/**
 * A process inside the network namespace of a task, which connects to the task's own ports for the process that started
 * it. A connection stays in the network it was made in, and is handed over whole: bytes do not pass through here.
 *
 * `nsenter --net=… node dialer-worker.ts`, with a channel for messages and connections.
 */
import { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'

/** Addresses that a program of the task may listen on: most take all, some the loopback, some its own alone. */
function ownAddresses(): readonly string[] {
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, scopeid }) => !internal && !scopeid)
    .map(({ address }) => address)
  return ['127.0.0.1', '::1', ...own]
}

async function dial(id: number, port: number): Promise<void> {
  let firstCode = ''
  for (const host of ownAddresses()) {
    try {
      const socket = await open(host, port)
      process.send?.({ id }, socket)
      return
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'EINVAL'
      if (firstCode === '') firstCode = code
    }
  }
  process.send?.({ id, code: firstCode })
}

function open(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // Nothing may be read here of what the other process is to read.
    const socket = new Socket({ allowHalfOpen: true }).pause()
    socket.once('error', reject)
    socket.connect({ host, port }, () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

process.on('message', (message) => {
  if (typeof message !== 'object' || message === null) return
  if ('id' in message && 'port' in message) void dial(Number(message.id), Number(message.port))
})
process.on('disconnect', () => process.exit(0))
process.send?.({ id: 0 })
