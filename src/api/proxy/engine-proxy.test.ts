import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  request,
  type Server,
} from 'node:http'
import { connect, createServer as createSocketServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { silentLog } from '../../base/index.ts'
import { createEngineProxy } from './engine-proxy.ts'

const opened: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

interface Place {
  /** Socket of the proxy. */
  readonly proxySocket: string
  readonly engineSocket: string
}

async function serveProxy(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), 'skep-proxy-'))
  opened.push(() => rm(folder, { recursive: true }))
  const engineSocket = join(folder, 'engine.sock')
  const proxySocket = join(folder, 'proxy.sock')
  const proxy = createEngineProxy({ engineAddress: `unix://${engineSocket}`, log: silentLog })
  const server = createServer(proxy.handle)
  server.on('upgrade', proxy.upgrade)
  server.on('checkContinue', proxy.checkContinue)
  await new Promise<void>((resolve) => server.listen(proxySocket, resolve))
  opened.push(async () => {
    proxy.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return { proxySocket, engineSocket }
}

/** An engine that is spoken to in HTTP. */
async function serveEngine(place: Place, listener: RequestListener): Promise<Server> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(place.engineSocket, resolve))
  opened.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return server
}

/** An engine that is spoken to in bytes. */
async function serveRawEngine(place: Place, onSocket: (socket: Socket) => void): Promise<void> {
  const sockets = new Set<Socket>()
  const server = createSocketServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    onSocket(socket)
  })
  await new Promise<void>((resolve) => server.listen(place.engineSocket, resolve))
  opened.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
}

interface Answer {
  readonly response: IncomingMessage
  readonly body: string
}
async function call(
  { proxySocket }: Place,
  path: string,
  options: { method?: string; headers?: string[]; body?: readonly string[] } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({
      socketPath: proxySocket,
      path,
      method: options.method ?? 'GET',
      ...(options.headers && { headers: options.headers }),
    })
    sent.on('error', reject)
    sent.on('response', (response) => {
      let body = ''
      response.on('data', (chunk) => {
        body += chunk
      })
      response.on('error', reject)
      response.on('end', () => resolve({ response, body }))
    })
    for (const part of options.body ?? []) sent.write(part)
    sent.end()
  })
}

/** Bytes of the proxy's answer until it closes. */
async function callRaw({ proxySocket }: Place, bytes: string, end = false): Promise<string> {
  const socket = connect({ path: proxySocket, allowHalfOpen: true })
  socket.on('error', () => {})
  if (end) socket.end(bytes)
  else socket.write(bytes)
  let text = ''
  for await (const chunk of socket) text += chunk
  return text
}

// A call of the common kind, and one whose answer is passed unparsed.
const paths = ['/v1.41/info?x=%2F', '/v1.41/containers/a/archive?path=/x']

describe('createEngineProxy', () => {
  for (const path of paths) {
    test(`${path}: passes method, path, headers and body as they are, both ways`, async () => {
      const place = await serveProxy()
      await serveEngine(place, (incoming, outgoing) => {
        let body = ''
        incoming.on('data', (chunk) => {
          body += chunk
        })
        incoming.on('end', () => {
          outgoing.sendDate = false
          outgoing.writeHead(418, 'I am a Teapot', ['X-b', '2', 'x-A', '1', 'x-A', '3'])
          const { method, url, rawHeaders } = incoming
          outgoing.end(JSON.stringify({ method, url, rawHeaders, body }))
        })
      })
      const headers = ['hOst', 'h', 'X-Registry-Auth', 'e30=', 'x-Twice', 'a', 'x-Twice', 'b']
      const { response, body } = await call(place, path, {
        method: 'PUT',
        headers,
        body: ['first ', 'second'],
      })
      assert.equal(response.statusCode, 418)
      assert.equal(response.statusMessage, 'I am a Teapot')
      assert.deepEqual(response.rawHeaders.slice(0, 6), ['X-b', '2', 'x-A', '1', 'x-A', '3'])
      assert.ok(!response.headers.date)
      const seen = JSON.parse(body)
      assert.deepEqual([seen.method, seen.url, seen.body], ['PUT', path, 'first second'])
      assert.deepEqual(seen.rawHeaders.slice(0, 8), headers)
    })

    test(`${path}: the status comes at once, and pieces as they are written`, async () => {
      const place = await serveProxy()
      await serveEngine(place, (_incoming, outgoing) => {
        outgoing.flushHeaders()
        opened.push(async () => outgoing.end())
      })
      const sent = request({ socketPath: place.proxySocket, path }).end()
      sent.on('error', () => {})
      const [response] = await once(sent, 'response')
      assert.equal(response.statusCode, 200)
      sent.destroy()
    })

    test(`${path}: the engine waits while the caller does not read`, async () => {
      const place = await serveProxy()
      let written = 0
      let stalled: (() => void) | undefined
      const isStalled = new Promise<void>((resolve) => {
        stalled = resolve
      })
      await serveEngine(place, (_incoming, outgoing) => {
        const piece = Buffer.alloc(64 * 1024)
        const more = (): void => {
          while (written < 256 * 1024 * 1024) {
            written += piece.length
            if (!outgoing.write(piece)) break
          }
        }
        outgoing.on('drain', () => {
          clearTimeout(quiet)
          quiet = setTimeout(() => stalled?.(), 100)
          more()
        })
        let quiet = setTimeout(() => stalled?.(), 100)
        more()
      })
      const sent = request({ socketPath: place.proxySocket, path }).end()
      sent.on('error', () => {})
      const [response] = await once(sent, 'response')
      await isStalled
      assert.ok(written < 16 * 1024 * 1024, `the engine could write ${written} bytes`)
      response.destroy()
    })

    test(`${path}: a caller that goes ends the engine's call`, async () => {
      const place = await serveProxy()
      const closed = new Promise<void>((resolve) => {
        void serveEngine(place, (_incoming, outgoing) => {
          outgoing.on('close', resolve)
          outgoing.write('a line\n')
        })
      })
      const sent = request({ socketPath: place.proxySocket, path }).end()
      sent.on('error', () => {})
      const [response] = await once(sent, 'response')
      await once(response, 'data')
      sent.destroy()
      await closed
    })

    test(`${path}: an engine that breaks off breaks the answer off`, async () => {
      const place = await serveProxy()
      await serveEngine(place, (_incoming, outgoing) => {
        outgoing.write('half')
        setImmediate(() => outgoing.destroy())
      })
      await assert.rejects(call(place, path))
    })

    test(`${path}: an engine that is not there is a 502 in words`, async () => {
      const place = await serveProxy()
      const { response, body } = await call(place, path)
      assert.equal(response.statusCode, 502)
      assert.match(JSON.parse(body).message, /^The Docker Engine of this node \(unix:.*ENOENT.*\./)
    })

    test(`${path}: trailers come through`, async () => {
      const place = await serveProxy()
      await serveEngine(place, (incoming, outgoing) => {
        incoming.resume().on('end', () => {
          outgoing.writeHead(200, { Trailer: 'X-End' })
          outgoing.write('body')
          outgoing.addTrailers({ 'X-End': incoming.trailers['x-sent'] ?? 'none' })
          outgoing.end()
        })
      })
      const text = await callRaw(
        place,
        `PUT ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sent\r\n\r\n2\r\nab\r\n0\r\nX-Sent: t1\r\n\r\n`,
      )
      assert.match(text, /X-End: t1\r\n\r\n$/)
    })
  }

  test('HEAD keeps the length it would have, and sends nothing', async () => {
    const place = await serveProxy()
    await serveEngine(place, (_incoming, outgoing) =>
      outgoing.writeHead(200, { 'Content-Length': 42 }).end(),
    )
    const { response, body } = await call(place, '/_ping', { method: 'HEAD' })
    assert.equal(response.headers['content-length'], '42')
    assert.equal(body, '')
  })

  test('a POST without a body stays without one', async () => {
    const place = await serveProxy()
    await serveEngine(place, (incoming, outgoing) => outgoing.end(JSON.stringify(incoming.headers)))
    const text = await callRaw(
      place,
      'POST /containers/a/start HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    )
    assert.match(text, /"content-length":"0"/)
    assert.doesNotMatch(text, /transfer-encoding":/)
  })

  test('with Expect the engine decides before the body is sent', async () => {
    const place = await serveProxy()
    const server = await serveEngine(place, () => assert.fail('the body was sent'))
    server.on('checkContinue', (_incoming, outgoing) => outgoing.writeHead(413).end('too big'))
    const text = await callRaw(
      place,
      'PUT /containers/a/archive HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\nConnection: close\r\n\r\n',
    )
    assert.match(text, /^HTTP\/1\.1 413 /)
    assert.match(text, /too big/)
  })

  test('a connection the engine has closed meanwhile costs a caller nothing', async () => {
    const place = await serveProxy()
    const server = await serveEngine(place, (_incoming, outgoing) => outgoing.end('ok'))
    assert.equal((await call(place, '/info')).body, 'ok')
    server.closeIdleConnections()
    assert.equal((await call(place, '/info')).body, 'ok')
  })

  describe('upgrades', () => {
    const head =
      'POST /exec/1/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}'

    test('are spliced: body, stdin, its end, and output after that', async () => {
      const place = await serveProxy()
      let seen = ''
      await serveRawEngine(place, (socket) => {
        socket.on('data', (chunk) => {
          if (seen === '') socket.write('HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst ')
          seen += chunk
        })
        socket.on('end', () => socket.end(`and after stdin ended`))
      })
      const text = await callRaw(place, `${head}stdin bytes`, true)
      assert.equal(seen, `${head}stdin bytes`)
      assert.equal(text, 'HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst and after stdin ended')
    })

    test('that the engine refuses give its answer and end', async () => {
      const place = await serveProxy()
      await serveRawEngine(place, (socket) => {
        socket.once('data', () => {
          socket.write('HTTP/1.1 404 Not Found\r\nContent-')
          setImmediate(() => socket.end('Length: 4\r\n\r\nnone'))
        })
      })
      assert.equal(
        await callRaw(place, head),
        'HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone',
      )
    })

    test('to an engine that is not there are a 502 in words', async () => {
      const place = await serveProxy()
      assert.match(await callRaw(place, head), /^HTTP\/1\.1 502 [\s\S]*does not answer/)
    })

    test('end when the caller is gone', async () => {
      const place = await serveProxy()
      const gone = new Promise<void>((resolve) => {
        void serveRawEngine(place, (socket) => {
          socket.once('data', () => socket.write('HTTP/1.1 101 UPGRADED\r\n\r\n'))
          socket.on('end', resolve)
        })
      })
      const socket = connect(place.proxySocket)
      socket.write(head)
      await once(socket, 'data')
      socket.destroy()
      await gone
    })
  })
})
