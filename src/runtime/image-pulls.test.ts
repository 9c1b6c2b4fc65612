import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { openEngine } from '../engine/index.ts'
import { buildAssignment, buildMaterials } from './contract.ts'
import { openDockerRuntime } from './docker-runtime.ts'

const opened: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

/** A runtime on an engine that has no image until a pull was answered well. */
async function serve(answerPull: (response: ServerResponse, auth: string | undefined) => void) {
  const folder = await mkdtemp(join(tmpdir(), 'skep-pulls-'))
  const counts = { pulls: 0, ended: 0 }
  let hasImage = false
  const server = createServer((request, response) => {
    if (request.url === '/_ping') response.setHeader('Api-Version', '1.41').end()
    else if (request.url?.includes('/images/create')) {
      counts.pulls++
      response.on('close', () => {
        if (!response.writableFinished) counts.ended++
        else hasImage ||= response.statusCode === 200
      })
      answerPull(response, request.headers['x-registry-auth']?.toString())
    } else if (hasImage) response.writeHead(201).end('{"Id":"c1"}')
    else response.writeHead(404).end('{"message":"No such image: nosuch:img"}')
  })
  const path = join(folder, 'engine.sock')
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const engine = openEngine({ address: `unix://${path}` })
  opened.push(async () => {
    engine.close()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await rm(folder, { recursive: true, force: true })
  })
  const runtime = openDockerRuntime({
    engine,
    clusterId: 'c',
    stateDir: folder,
    secretsDir: folder,
    clock: openRealClock(),
    log: silentLog,
  })
  const prepare = (signal = new AbortController().signal, registryAuth?: string) =>
    runtime.prepare(
      buildAssignment({
        container: { image: 'nosuch:img' },
        ...(registryAuth !== undefined && { assignment: { registryAuth } }),
      }),
      buildMaterials({ clusterId: 'c' }),
      signal,
    )
  return { prepare, counts }
}

const fail = (status: number, message: string) => (response: ServerResponse) =>
  response.writeHead(status).end(JSON.stringify({ message }))

describe('pulling an image', () => {
  for (const [what, answer, words] of [
    [
      'an unknown image',
      fail(404, 'manifest for nosuch:img not found'),
      /^No such image: nosuch:img$/,
    ],
    [
      'an image one may not have',
      fail(404, 'pull access denied for nosuch, repository does not exist'),
      /^No such image: nosuch:img \(the registry refuses: pull access denied/,
    ],
    [
      'bad credentials',
      fail(500, 'Get "https://r/v2/": unauthorized: authentication required'),
      /\(the registry refuses: .*unauthorized/,
    ],
    [
      'a registry out of reach',
      fail(500, 'Get "https://r/v2/": dial tcp: lookup r: no such host'),
      /\(the registry can't be reached: .*no such host/,
    ],
    [
      'a pull that fails midway',
      (response: ServerResponse) =>
        response.end('{"status":"Pulling"}\n{"error":"unexpected EOF"}\n'),
      /^No such image: nosuch:img \(.*unexpected EOF/,
    ],
  ] as const) {
    test(`says so about ${what}`, async () => {
      const { prepare } = await serve(answer)
      await assert.rejects(prepare(), { code: 'notFound', message: words, next: /./ })
    })
  }

  test('is done once for all tasks that want it, with their credentials', async () => {
    const waiting: ServerResponse[] = []
    const auths: unknown[] = []
    const { prepare, counts } = await serve((response, auth) => {
      auths.push(auth)
      waiting.push(response)
      response.write('{"status":"Pulling"}\n')
      setTimeout(() => response.end('{"status":"done"}\n'), 50)
    })
    await Promise.all([1, 2, 3].map(() => prepare(undefined, 'e30=')))
    assert.equal(counts.pulls, 1)
    assert.deepEqual(auths, ['e30='])
  })

  test('ends with the last task that waits for it', async () => {
    let begun = (): void => {}
    const isBegun = new Promise<void>((resolve) => {
      begun = resolve
    })
    const { prepare, counts } = await serve((response) => {
      response.write('{"status":"Pulling"}\n')
      response.on('close', () => isEnded())
      begun()
    })
    let isEnded = (): void => {}
    const end = new Promise<void>((resolve) => {
      isEnded = resolve
    })
    const [first, second] = [new AbortController(), new AbortController()]
    const prepared = [prepare(first.signal), prepare(second.signal)]
    await isBegun
    first.abort(new Error('first'))
    await assert.rejects(Promise.resolve(prepared[0]), { message: 'first' })
    assert.equal(counts.ended, 0)
    second.abort(new Error('second'))
    await assert.rejects(Promise.resolve(prepared[1]), { message: 'second' })
    await end
    assert.equal(counts.ended, 1)
  })
})
