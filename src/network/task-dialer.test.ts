import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { openTaskDialer, type TaskDialer } from './task-dialer.ts'

const inOwn = spawnSync('nsenter', ['--net=/proc/self/ns/net', 'true'])
const skip = inOwn.status === 0 ? false : 'needs root and nsenter'

/** This process stands for the container: its network is the host's. */
describe('a dialer', { skip, concurrency: false }, () => {
  let dialer: TaskDialer
  let server: Server
  let port: number
  before(async () => {
    dialer = openTaskDialer({ clock: openRealClock(), log: silentLog })
    server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  })
  after(async () => {
    dialer.close()
    await new Promise((resolve) => server.close(resolve))
  })

  async function echo(socket: Socket, bytes: Buffer): Promise<Buffer> {
    socket.end(bytes)
    const parts: Buffer[] = []
    for await (const part of socket) parts.push(part)
    return Buffer.concat(parts)
  }

  test('reaches what listens on the loopback, and passes the end of one direction on', async () => {
    const bytes = Buffer.from('\n\0 all of it')
    assert.deepEqual(await echo(await dialer.dial(process.pid, port), bytes), bytes)
  })

  test('carries many connections and much data, each to its own end', async () => {
    const sizes = [0, 1, 65_536, 3_000_001, ...Array.from({ length: 60 }, (_, i) => i * 997)]
    await Promise.all(
      sizes.map(async (size, index) => {
        const bytes = Buffer.alloc(size, index)
        assert.ok((await echo(await dialer.dial(process.pid, port), bytes)).equals(bytes))
      }),
    )
  })

  test('says that nothing listens, and that a container has ended', async () => {
    await assert.rejects(dialer.dial(process.pid, 1), {
      code: 'failedPrecondition',
      message: 'nothing in the task listens on port 1',
    })
    await assert.rejects(dialer.dial(0, port), /has ended/)
  })
})
