import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dockerClients, run, sharedEngine, startDaemon, type TestDaemon } from './support/daemon.ts'
import { filesWith, textAt, unlessGone, untilRunning, untilTasks } from './support/look.ts'

test('nothing of what people declare lies on the disk in plain text', async () => {
  await using daemon = await startDaemon()
  const [client = 'docker'] = dockerClients()
  const needle = `needle-${process.pid}-in-the-haystack`
  await daemon.dockerWith(client, needle, 'secret', 'create', 'rest-secret', '-')
  await daemon.dockerWith(client, needle, 'config', 'create', 'rest-config', '-')
  await daemon.ok(
    ...['service', 'create', '-d', '--name', 'rest-web', '--env', `PASSWORD=${needle}`],
    ...['--label', `note=${needle}`, '--secret', 'rest-secret', '--config', 'rest-config'],
    'whoami:v1',
  )
  const [task] = await untilRunning(daemon, 'rest-web', 1)
  const data = join(daemon.folder, 'data')
  assert.deepEqual(filesWith(data, needle), [], 'while it runs')
  const memory = filesWith(join(daemon.folder, 'run'), needle)
  assert.equal(memory.length, 2, 'the secret and the config of the task, in memory')
  await daemon.stop()
  assert.deepEqual(filesWith(data, needle), [], 'once it is stopped')
  await daemon.start()
  const [same] = await untilRunning(daemon, 'rest-web', 1)
  assert.equal(same?.id, task?.id)
  const inspected = await daemon.ok('service', 'inspect', 'rest-web')
  assert(inspected.includes(`PASSWORD=${needle}`))
})

/** A swarm whose keys people hold, driven by the stock client. */
describe('a locked swarm', () => {
  const [client = 'docker'] = dockerClients()
  let daemon: TestDaemon
  let key = ''
  before(async () => {
    daemon = await startDaemon()
  })
  after(() => daemon[Symbol.asyncDispose]())

  /** Whether a private key of the node lies readable on its disk. */
  const isNodeKeyReadable = () => {
    const folder = join(daemon.folder, 'data/cluster/certificates')
    return readdirSync(folder).some((name) =>
      // Written anew under another name, which it has for a moment only.
      unlessGone(() => readFileSync(join(folder, name), 'utf8'), '').includes('PRIVATE KEY'),
    )
  }
  const keysFile = () => readFileSync(join(daemon.folder, 'data/cluster/data.keys'), 'utf8')
  const stateNow = async () =>
    textAt((await daemon.api('GET', '/info')).body, 'Swarm', 'LocalNodeState')

  test('gives its key when autolock is switched on, and has no data key in the clear', async () => {
    assert(keysFile().includes('"key"'))
    assert(isNodeKeyReadable())
    const shown = await daemon.ok('swarm', 'update', '--autolock=true')
    assert.match(shown, /Swarm updated\./)
    ;[key = ''] = /SWMKEY-1-[A-Za-z0-9+/]{43}/.exec(shown) ?? []
    assert.notEqual(key, '')
    assert.equal(await daemon.ok('swarm', 'unlock-key', '-q'), key)
    assert(!keysFile().includes('"key"'))
    assert(!isNodeKeyReadable())
    await daemon.dockerWith(client, 'geheim', 'secret', 'create', 'lock-secret', '-')
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'lock-web', '--secret', 'lock-secret', 'whoami:v1'],
    )
    await untilRunning(daemon, 'lock-web', 1)
  })

  test('starts locked, says so to every call, and leaves the tasks alone', async () => {
    const [task] = await untilRunning(daemon, 'lock-web', 1)
    const engine = ['-H', sharedEngine]
    const running = async () =>
      (
        await run(client, [
          ...[...engine, 'ps', '--no-trunc', '-q', '--filter'],
          `label=com.docker.swarm.task.id=${task?.id}`,
        ])
      ).stdout.trim()
    const container = await running()
    assert.match(container, /^[0-9a-f]{64}$/)

    await daemon.kill9()
    await daemon.start()
    assert.equal(await stateNow(), 'locked')
    for (const args of [
      ['node', 'ls'],
      ['service', 'ls'],
      ['service', 'create', 'whoami:v1'],
      ['secret', 'ls'],
      ['swarm', 'unlock-key'],
      ['swarm', 'update', '--autolock=false'],
    ]) {
      const { code, stderr } = await daemon.docker(...args)
      assert.notEqual(code, 0, args.join(' '))
      assert.match(
        stderr,
        /Swarm is encrypted and needs to be unlocked before it can be used\. Please use "docker swarm unlock" to unlock it\./,
        args.join(' '),
      )
    }
    assert.match((await daemon.docker('swarm', 'init')).stderr, /already part of a swarm/)
    assert.equal((await daemon.docker('ps', '-q')).code, 0)
    assert.equal(await running(), container)

    const wrong = `SWMKEY-1-${'A'.repeat(43)}`
    for (const [bad, message] of [
      [wrong, /invalid key provided/],
      ['hello', /invalid unlock key: it does not begin with SWMKEY-/],
    ] as const) {
      const refused = await daemon.dockerWith(client, `${bad}\n`, 'swarm', 'unlock')
      assert.notEqual(refused.code, 0)
      assert.match(refused.stderr, message)
    }
    assert.equal(await stateNow(), 'locked')

    const unlocked = await daemon.dockerWith(client, `${key}\n`, 'swarm', 'unlock')
    assert.equal(unlocked.code, 0, unlocked.stderr)
    assert.equal(await stateNow(), 'active')
    const [same] = await untilRunning(daemon, 'lock-web', 1)
    assert.equal(same?.id, task?.id)
    assert.equal(await running(), container)
    // Sealed before the lock, opened after it: the next task gets the secret.
    await daemon.ok('service', 'update', '-d', '--force', 'lock-web')
    await untilTasks(daemon, 'lock-web', 'the next task', (tasks) =>
      tasks.some(({ id, state }) => id !== task?.id && state === 'running'),
    )
    await untilRunning(daemon, 'lock-web', 1)
    const again = await daemon.dockerWith(client, `${key}\n`, 'swarm', 'unlock')
    assert.match(`${again.stdout}${again.stderr}`, /swarm is not locked/)
  })

  test('takes the rotated key only', async () => {
    const shown = await daemon.ok('swarm', 'unlock-key', '--rotate')
    assert.match(shown, /Successfully rotated manager unlock key\./)
    const next = await daemon.ok('swarm', 'unlock-key', '-q')
    assert.notEqual(next, key)
    await daemon.stop()
    await daemon.start()
    const old = await daemon.dockerWith(client, `${key}\n`, 'swarm', 'unlock')
    assert.match(old.stderr, /invalid key provided/)
    const own = await run(
      join(import.meta.dirname, '../bin/skep'),
      ['-H', daemon.host, 'swarm', 'unlock'],
      {
        input: `${next}\n`,
      },
    )
    assert.equal(own.code, 0, own.stderr)
    assert.equal(await daemon.ok('swarm', 'unlock-key', '-q'), next)
  })

  test('starts unlocked again once autolock is off', async () => {
    await daemon.ok('swarm', 'update', '--autolock=false')
    assert(keysFile().includes('"key"'))
    assert(isNodeKeyReadable())
    await daemon.kill9()
    await daemon.start()
    assert.equal(await stateNow(), 'active')
    assert.match((await daemon.docker('swarm', 'unlock-key')).stderr, /no unlock key is set/)
  })

  test('can be left by force while it is locked, and nothing of it stays', async () => {
    await daemon.ok('swarm', 'update', '--autolock=true')
    await daemon.kill9()
    await daemon.start()
    assert.equal(await stateNow(), 'locked')
    assert.notEqual((await daemon.docker('swarm', 'leave')).code, 0)
    await daemon.ok('swarm', 'leave', '--force')
    assert.equal(await stateNow(), 'inactive')
    const left = await run(client, [
      ...['-H', sharedEngine, 'ps', '-aq', '--filter'],
      'label=com.docker.swarm.service.name=lock-web',
    ])
    assert.equal(left.stdout.trim(), '')
    await daemon.ok('swarm', 'init', '--autolock')
    assert(!keysFile().includes('"key"'))
  })
})
