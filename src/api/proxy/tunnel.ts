import type { IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** Taken from the engine at once. One buffer a tunnel, used again and again: memory stays flat at any rate. */
const readBytesMax = 128 * 1024
/** Of a body that the engine has not taken yet: more makes the caller wait. */
const unsentBytesMax = 1024 * 1024
/** Longest head (status line and headers) of an answer. */
const headBytesMax = 64 * 1024

/**
 * Connects to the engine and passes what it answers to `client` byte for byte, as fast as the client takes it. What
 * is written to the tunnel goes to the engine. Both directions end by themselves (half-close). An answer that is not
 * an upgrade is told to be the last of its connection, for nobody parses what would follow. `refuse` is called
 * instead, once, when the engine does not answer at all.
 */
export function openTunnel(
  target: { socketPath: string } | { host: string; port: number },
  client: Duplex,
  refuse: (error: unknown) => void,
): Socket {
  let head: Buffer | undefined = Buffer.alloc(0)
  let answered = false
  let waiting = false
  const goOn = (): void => {
    if (!waiting) return
    waiting = false
    engine.resume()
  }
  const send = (bytes: Buffer): boolean => {
    client.write(bytes, goOn)
    // All in the kernel's hands: the buffer is free again. Else not before the write is done.
    if (client.writableLength === 0) return true
    waiting = true
    return false
  }
  const engine = connect({
    ...('socketPath' in target ? { path: target.socketPath } : target),
    allowHalfOpen: true,
    onread: {
      buffer: Buffer.allocUnsafe(readBytesMax),
      callback(count, buffer) {
        const bytes = Buffer.from(buffer.buffer, buffer.byteOffset, count)
        if (head === undefined) return send(bytes)
        head = Buffer.concat([head, bytes])
        const end = head.indexOf('\r\n\r\n')
        if (end < 0 && head.length < headBytesMax) return true
        const whole = /^HTTP\/1\.[01] 101/.test(head.toString('latin1', 0, 12))
          ? head
          : closeAfter(head, end)
        head = undefined
        answered = true
        return send(whole)
      },
    },
  })
  const giveUp = (error: unknown): void => {
    engine.destroy()
    // What was answered so far is still delivered; an answer that is cut short shows by its framing.
    if (answered) client.end()
    else {
      answered = true
      refuse(error)
    }
  }
  engine.on('error', giveUp)
  engine.on('end', () => {
    if (answered) client.end()
  })
  engine.on('close', () => {
    if (!answered) giveUp(new Error('it closed the connection without an answer'))
    else if (!client.writableEnded) client.end()
  })
  client.on('error', () => engine.destroy())
  client.on('close', () => engine.destroy())
  return engine
}

function closeAfter(bytes: Buffer, headEnd: number): Buffer {
  if (headEnd < 0) return bytes
  const head = bytes
    .toString('latin1', 0, headEnd)
    .replace(/\r\n(Connection|Keep-Alive):[^\r]*/gi, '')
  return Buffer.concat([
    Buffer.from(`${head}\r\nConnection: close`, 'latin1'),
    bytes.subarray(headEnd),
  ])
}

/** Sends the body of `request` on, in chunks again if it came so; waits when the engine is over the bound behind. */
export function sendBody(request: IncomingMessage, engine: Socket): void {
  const isChunked = request.headers['content-length'] === undefined
  request.on('data', (chunk: Buffer) => {
    if (engine.destroyed) return
    if (isChunked) {
      // Corked: the three pieces leave in one call to the kernel.
      engine.cork()
      engine.write(`${chunk.length.toString(16)}\r\n`)
      engine.write(chunk)
      engine.write('\r\n')
      engine.uncork()
    } else engine.write(chunk)
    if (engine.writableLength > unsentBytesMax) request.pause()
  })
  engine.on('drain', () => request.resume())
  request.once('end', () => {
    if (!isChunked || engine.destroyed) return
    let end = '0\r\n'
    const { rawTrailers } = request
    for (let at = 0; at + 1 < rawTrailers.length; at += 2) {
      end += `${rawTrailers[at]}: ${rawTrailers[at + 1]}\r\n`
    }
    engine.write(`${end}\r\n`)
  })
}
