import type { Duplex } from 'node:stream'
import { UserError } from '../base/index.ts'
import { Fields } from './read.ts'
import type { MessageStream } from './transport.ts'

/**
 * Carries bytes between a socket and a stream of messages, both ways and no faster than they are taken, until both
 * directions have ended or either side breaks. The end of one direction alone is passed on: it may be the end of a
 * program's input. The socket must allow that (`allowHalfOpen`). Rejects when something broke.
 */
export async function bridge(stream: MessageStream, socket: Duplex): Promise<void> {
  const over = new AbortController()
  const broken = Promise.withResolvers<never>()
  broken.promise.catch(() => {}) // Whoever waits below hears of it.
  const hangUp = (error: unknown) => {
    broken.reject(error)
    over.abort()
  }
  socket.on('error', hangUp)
  socket.once('close', () => {
    if (!socket.readableEnded) hangUp(new UserError('unavailable', 'the socket closed'))
  })
  const out = async () => {
    for await (const bytes of socket.iterator({ destroyOnReturn: false })) {
      if (bytes instanceof Uint8Array) await stream.send({ type: 'bytes', bytes })
    }
    await stream.send({ type: 'eof' })
  }
  const back = async () => {
    for (;;) {
      const message = await stream.receive(over.signal)
      if (message === undefined) throw new UserError('unavailable', 'the other end hung up')
      const fields = new Fields('bytes', message)
      if (fields.text('type', 20) === 'eof') {
        await ended(socket)
        return
      }
      if (!socket.write(fields.bytes('bytes'))) await drained(socket, over.signal)
    }
  }
  try {
    await Promise.race([Promise.all([out(), back()]), broken.promise])
  } finally {
    over.abort()
    socket.destroy()
    stream.close()
  }
}

/** Ends what is written, and waits until it is out: what is destroyed with it is lost. */
function ended(socket: Duplex): Promise<void> {
  return new Promise((resolve) => {
    socket.once('close', resolve)
    socket.end(resolve)
  })
}

function drained(socket: Duplex, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    socket.once('drain', done)
    socket.once('close', done)
    signal.addEventListener('abort', done)
  })
}
