import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { type Engine, isOlderApi, openEngine, splitReference } from './engine.ts'

const opened: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of opened.splice(0)) await close()
})

/** An engine of our own making on a unix socket. */
async function serve(
  listener: RequestListener,
  apiVersion = '1.44',
): Promise<{ engine: Engine; server: Server; address: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'skep-engine-'))
  const server = createServer((request, response) => {
    if (request.url === '/_ping') response.setHeader('Api-Version', apiVersion).end('OK')
    else listener(request, response)
  })
  const address = `unix://${join(folder, 'e.sock')}`
  await new Promise<void>((resolve) => server.listen(join(folder, 'e.sock'), resolve))
  const engine = openEngine({ address })
  opened.push(async () => {
    engine.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await rm(folder, { recursive: true })
  })
  return { engine, server, address }
}

describe('openEngine', () => {
  for (const [answered, used] of [
    ['1.41', '1.41'],
    ['1.44', '1.44'],
    ['1.99', '1.50'],
  ] as const) {
    test(`speaks API ${used} to an engine that answers ${answered}`, async () => {
      const { engine } = await serve((request, response) => {
        response.end(JSON.stringify({ Version: request.url }))
      }, answered)
      assert.equal((await engine.version()).Version, `/v${used}/version`)
    })
  }

  test('refuses an engine that is too old', async () => {
    const { engine } = await serve(() => {}, '1.40')
    await assert.rejects(engine.version(), { code: 'unsupported', next: /20\.10/ })
  })

  for (const [status, code] of [
    [400, 'invalidInput'],
    [403, 'forbidden'],
    [404, 'notFound'],
    [409, 'conflict'],
    [500, 'internal'],
    [503, 'unavailable'],
  ] as const) {
    test(`turns ${status} into ${code} with the engine's sentence`, async () => {
      const { engine } = await serve((_request, response) => {
        response.writeHead(status).end('{"message":"No such container: x"}\n')
      })
      await assert.rejects(engine.containers.inspect('x'), {
        code,
        message: 'No such container: x',
      })
      await assert.rejects(engine.containers.logs('x', {}), { code })
    })
  }

  test('says unavailable when nobody listens, and works again once somebody does', async () => {
    const { engine, server, address } = await serve((_request, response) => response.end('[]'))
    assert.deepEqual(await engine.containers.list({}), [])
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await assert.rejects(engine.containers.list({}), { code: 'unavailable', next: /--engine/ })
    await new Promise<void>((resolve) => server.listen(address.slice(7), resolve))
    assert.deepEqual(await engine.containers.list({}), [])
  })

  test('says unavailable when a stream breaks off, and the reason when it was aborted', async () => {
    const { engine, server } = await serve((_request, response) => {
      response.write('{"Type":"container"}\n')
    })
    const events = await engine.events({})
    await assert.rejects(
      (async () => {
        for await (const event of events) {
          assert.equal(event.Type, 'container')
          server.closeAllConnections()
        }
      })(),
      { code: 'unavailable' },
    )
    const abort = new AbortController()
    const aborted = await engine.events({}, abort.signal)
    await assert.rejects(
      (async () => {
        for await (const _event of aborted) abort.abort(new Error('enough'))
      })(),
      { message: 'enough' },
    )
  })

  test('sends filters, bodies and names so that no name can change the route', async () => {
    const seen: string[] = []
    const { engine } = await serve((request, response) => {
      let body = ''
      request.on('data', (chunk) => {
        body += chunk
      })
      request.on('end', () => {
        seen.push(`${request.method} ${request.url} ${body}`)
        response.end('{}')
      })
    })
    await engine.containers.list({ all: true, filters: { label: ['a=b'] } })
    await engine.containers.start('../images/x?y')
    await engine.images.inspect('reg:5000/a/b:1')
    await engine.containers.create('n', { Image: 'i', Env: ['A=ü'] })
    assert.deepEqual(seen, [
      'GET /v1.44/containers/json?all=true&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D ',
      'POST /v1.44/containers/..%2Fimages%2Fx%3Fy/start ',
      'GET /v1.44/images/reg%3A5000/a/b%3A1/json ',
      'POST /v1.44/containers/create?name=n {"Image":"i","Env":["A=ü"]}',
    ])
  })

  test('a pull that fails midway rejects with the reason', async () => {
    const { engine } = await serve((_request, response) => {
      response.write('{"status":"Pulling from x"}\r\n')
      response.end('{"errorDetail":{"message":"m"},"error":"manifest unknown: manifest unknown"}\n')
    })
    await assert.rejects(engine.images.pull('x', {}), {
      code: 'notFound',
      message: 'manifest unknown: manifest unknown',
    })
  })
})

describe('words of the Engine API', () => {
  test('versions are compared by number', () => {
    assert.equal(isOlderApi('1.9', '1.41'), true)
    assert.equal(isOlderApi('1.41', '1.41'), false)
    assert.equal(isOlderApi('2.0', '1.41'), false)
  })
  for (const [name, fromImage, tag] of [
    ['nginx', 'nginx', 'latest'],
    ['nginx:1.25', 'nginx', '1.25'],
    ['reg:5000/a/b', 'reg:5000/a/b', 'latest'],
    ['reg:5000/a/b:2', 'reg:5000/a/b', '2'],
    ['a:1@sha256:ff', 'a', 'sha256:ff'],
  ] as const) {
    test(`${name} is ${fromImage} at ${tag}`, () => {
      assert.deepEqual(splitReference(name), { fromImage, tag })
    })
  }
})
