import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { listAt, tasksOf, textAt, untilRunning, untilTasks } from './support/look.ts'
import { openPrivateEngine, type PrivateEngine } from './support/private-engine.ts'

const isRoot = process.getuid?.() === 0

describe('an engine that restarts, a host that reboots', {
  skip: isRoot ? false : 'needs root',
}, () => {
  let engine: PrivateEngine
  let daemon: TestDaemon
  before(async () => {
    engine = await openPrivateEngine()
    await engine.load('whoami:v1')
    daemon = await startDaemon({ engine: engine.address, within: engine.inside })
    await daemon.ok('network', 'create', '-d', 'overlay', 'back')
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'keeps', '--replicas', '2', '--network', 'back'],
      ...['--restart-delay', '100ms', 'whoami:v1'],
    )
    await untilRunning(daemon, 'keeps', 2)
  })
  after(async () => {
    await Promise.resolve(daemon?.[Symbol.asyncDispose]()).catch(() => {})
    await engine?.[Symbol.asyncDispose]()
  })

  /** Containers that run on the engine, and whether each serves by the service's name. */
  async function serving(): Promise<readonly string[]> {
    const ids = (await engine.ok('ps', '-q', '--no-trunc')).split('\n').filter(Boolean)
    for (const id of ids) {
      await engine.ok('exec', id, '/whoami', 'get', 'http://keeps/health')
    }
    return ids
  }

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    test(`the engine ends by ${signal} and comes back`, async () => {
      await engine.stopEngine(signal)
      const during = await daemon.api('GET', '/services')
      assert.equal(during.status, 200, 'the swarm part answers without an engine')
      assert.equal(listAt(during.body).length, 1)
      const passed = await daemon.api('GET', '/containers/json')
      assert.ok(passed.status >= 500, `${passed.status}`)
      assert.ok(textAt(passed.body, 'message') !== '')
      await engine.startEngine()
      await untilRunning(daemon, 'keeps', 2)
      await eventually('both to serve', async () => {
        const ids = await serving().catch(() => [])
        return ids.length === 2
      })
      await daemon.ok('service', 'scale', '-d', 'keeps=3')
      await untilRunning(daemon, 'keeps', 3)
      await daemon.ok('service', 'scale', '-d', 'keeps=2')
      await untilRunning(daemon, 'keeps', 2)
    })
  }

  for (const kept of [true, false]) {
    test(`the host reboots, the engine's containers ${kept ? 'kept' : 'lost'}`, async () => {
      const before = await tasksOf(daemon, 'keeps')
      await engine.powerOff()
      await daemon.stop()
      if (!kept) {
        await rm(join(engine.folder, 'data/containers'), { recursive: true, force: true })
        await rm(join(engine.folder, 'data/network'), { recursive: true, force: true })
      }
      await engine.powerOn()
      await daemon.start()
      const after = await untilRunning(daemon, 'keeps', 2)
      assert.ok(after.length === 2 && before.length >= 2)
      await untilTasks(daemon, 'keeps', 'the story', (tasks) => tasks.length >= 2)
      await eventually('both to serve', async () => {
        const ids = await serving().catch(() => [])
        return ids.length === 2
      })
      // A container serves before its task is reported to run.
      await eventually('both to be told of', async () =>
        /keeps\s+replicated\s+2\/2/.test(await daemon.ok('service', 'ls')),
      )
    })
  }
})
