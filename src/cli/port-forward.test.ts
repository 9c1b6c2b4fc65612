import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { after, before, describe, test } from 'node:test'
import type { TaskForward } from '../api/docker/index.ts'
import { type Harness, openHarness } from '../api/docker/testing.ts'
import { UserError } from '../base/index.ts'
import { buildNode, buildTask, buildWorkload } from '../model/testing.ts'
import type { Io } from './io.ts'
import { Interrupted } from './io.ts'
import { parsePair } from './port-forward-command.ts'
import { runCommandLine } from './program.ts'

const taskId = 't1'.padEnd(25, '0')

/** From the command line through a real manager's API, to a program that says back what it hears. */
describe('skep port-forward', { concurrency: false }, () => {
  let harness: Harness
  let program: Server
  const asked: { readonly port: number; readonly by: string }[] = []

  before(async () => {
    program = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
    await new Promise<void>((resolve) => program.listen(0, '127.0.0.1', resolve))
    const { port: inside } = program.address() as AddressInfo
    const forward: TaskForward = async ({ port, by }) => {
      asked.push({ port, by })
      if (port !== 80) {
        throw new UserError('failedPrecondition', `nothing in the task listens on port ${port}`)
      }
      const socket = connect({ port: inside, host: '127.0.0.1', allowHalfOpen: true })
      await once(socket, 'connect')
      return {
        async join(outside) {
          outside.pipe(socket).pipe(outside)
          outside.on('close', () => socket.destroy())
        },
        close: () => socket.destroy(),
      }
    }
    harness = await openHarness({ parts: { forward } })
    await harness.store().commit(
      [
        buildNode({ id: 'n1', hostname: 'host1' }),
        buildWorkload({ id: 'w1'.padEnd(25, '0'), name: 'web' }),
        buildTask({
          ...{ id: taskId, workloadId: 'w1'.padEnd(25, '0') },
          status: { state: 'running', container: { containerId: 'c1', pid: 1 } },
        }),
      ].map((object) => ({ type: 'create', object })),
    )
  })
  after(async () => {
    await harness.close()
    await new Promise((resolve) => program.close(resolve))
  })

  interface Run {
    readonly ports: readonly number[]
    readonly code: Promise<number>
    text(): string
    interrupt(): void
  }

  async function start(...args: readonly string[]): Promise<Run> {
    const [stdout, stderr, stdin] = [new PassThrough(), new PassThrough(), new PassThrough()]
    const interrupted = new AbortController()
    let text = ''
    let heard = (): void => {}
    for (const stream of [stdout, stderr]) {
      stream.on('data', (part: Buffer) => {
        text += part.toString()
        heard()
      })
    }
    const io: Io = {
      ...{ stdin, stdout, stderr, directory: '/', nowMs: () => 0 },
      env: { SKEP_HOST: harness.host },
      readFile: () => Promise.reject(new Error('no file')),
      signal: interrupted.signal,
    }
    const code = runCommandLine(['port-forward', ...args], io)
    const wanted = args.length - 1
    const found = (): number[] =>
      [...text.matchAll(/^Forwarding 127\.0\.0\.1:(\d+) /gm)].map(([, port]) => Number(port))
    await Promise.race([
      code,
      new Promise<void>((resolve) => {
        heard = () => {
          if (found().length === wanted) resolve()
        }
        heard()
      }),
    ])
    return {
      ports: found(),
      code,
      text: () => text,
      interrupt: () => interrupted.abort(new Interrupted()),
    }
  }

  async function echo(port: number | undefined, bytes: Buffer): Promise<Buffer> {
    const socket: Socket = connect({ port: port ?? 0, host: '127.0.0.1', allowHalfOpen: true })
    socket.end(bytes)
    const parts: Buffer[] = []
    for await (const part of socket) parts.push(part)
    return Buffer.concat(parts)
  }

  test('carries connections, each direction to its own end, until Ctrl-C', async () => {
    const run = await start('web', ':80', ':81')
    assert.match(run.text(), /Forwarding 127\.0\.0\.1:\d+ to port 80 of web\.1 on host1\n/)
    const sizes = [0, 1, 3_000_000, ...Array.from({ length: 40 }, (_, index) => index * 100)]
    await Promise.all(
      sizes.map(async (size) => {
        const bytes = Buffer.alloc(size, size)
        assert.ok((await echo(run.ports[0], bytes)).equals(bytes))
      }),
    )
    await assert.rejects(echo(run.ports[1], Buffer.from('x')))
    assert.match(run.text(), /skep: port 81: nothing in the task listens on port 81/)
    assert.deepEqual(asked[0], { port: 80, by: 'the local socket' })
    const held = connect({ port: run.ports[0] ?? 0, host: '127.0.0.1' })
    await once(held, 'connect')
    held.on('error', () => {}) // It is cut.
    const cut = new Promise((resolve) => held.once('close', resolve))
    run.interrupt()
    assert.equal(await run.code, 130)
    await cut
    await assert.rejects(echo(run.ports[0], Buffer.from('x')), { code: 'ECONNREFUSED' })
  })

  test('says so when a local port is taken, or the task is none', async () => {
    const { port } = program.address() as AddressInfo
    const taken = await start('web', `${port}:80`)
    assert.equal(await taken.code, 1)
    assert.match(taken.text(), /cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE.*Choose another/)
    const none = await start('nosuch', '80')
    assert.equal(await none.code, 1)
    assert.match(none.text(), /there is no service or task nosuch\. List them/)
    assert.equal(await (await start('web', '0:0')).code, 2)
  })

  test('ends with the task', async () => {
    const run = await start(taskId, ':80')
    const task = harness.store().view.get('task', taskId)
    assert.ok(task)
    const status = { ...task.status, state: 'failed' as const, error: 'exit 3' }
    await harness.store().commit([{ type: 'update', object: { ...task, status } }])
    assert.equal(await run.code, 1)
    assert.match(run.text(), /skep: web\.1 has ended: failed \(exit 3\)\. Run the command again/)
  })
})

test('parsePair reads ports, and refuses what is none', () => {
  assert.deepEqual(parsePair('80'), { local: 80, remote: 80 })
  assert.deepEqual(parsePair('8080:80'), { local: 8080, remote: 80 })
  assert.deepEqual(parsePair(':80'), { local: 0, remote: 80 })
  for (const text of ['', 'a', '0', '80:', '65536', '70000:80', '1:2:3', '-1'])
    assert.throws(() => parsePair(text), /is no port: write 80, 8080:80 or :80/)
})
