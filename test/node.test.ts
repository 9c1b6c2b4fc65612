import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { tasksOf, textAt, untilRunning, untilTasks } from './support/look.ts'

describe('the node', () => {
  let daemon: TestDaemon
  let node = ''
  before(async () => {
    daemon = await startDaemon()
    node = await daemon.ok('node', 'ls', '-q')
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('is listed and inspected', async () => {
    assert.match(await daemon.ok('node', 'ls'), /\*\s+\S+\s+Ready\s+Active\s+Leader/)
    const pretty = await daemon.ok('node', 'inspect', '--pretty', 'self')
    for (const line of [
      /Role:\s+Manager|Raft Status:\s+Reachable|Manager Status:/,
      /State:\s+Ready/,
      /Availability:\s+Active/,
      /Leader:\s+Yes/,
      /Operating System:\s+linux/,
      /Architecture:\s+x86_64|Architecture:\s+\w+/,
      /CPUs:\s+\d+/,
      /Memory:\s+[\d.]+GiB/,
      /Network:.*bridge/,
      /Engine Version:\s+\d+/,
      /-----BEGIN CERTIFICATE-----/,
    ]) {
      assert.match(pretty, line)
    }
  })

  test('takes labels, and gives them up', async () => {
    await daemon.ok(...['node', 'update', '--label-add', 'zone=a', '--label-add', 'disk=ssd', node])
    const labels = await daemon.ok('node', 'inspect', '-f', '{{json .Spec.Labels}}', 'self')
    assert.deepEqual(JSON.parse(labels), { zone: 'a', disk: 'ssd' })
    assert.match(await daemon.ok('node', 'ls', '--filter', 'node.label=zone=a'), /Ready/)
    await daemon.ok('node', 'update', '--label-rm', 'disk', node)
    const left = await daemon.ok('node', 'inspect', '-f', '{{json .Spec.Labels}}', 'self')
    assert.deepEqual(JSON.parse(left), { zone: 'a' })
  })

  test('keeps its tasks when paused, loses them when drained, and gets them back', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'stays', '--replicas', '2', 'whoami:v1')
    await daemon.ok('service', 'create', '-d', '--name', 'every', '--mode', 'global', 'whoami:v1')
    const first = await untilRunning(daemon, 'stays', 2)
    await untilRunning(daemon, 'every', 1)
    assert.match(await daemon.ok('node', 'ps'), /stays\.1.*Running/)

    await daemon.ok('node', 'update', '--availability', 'pause', node)
    await daemon.ok('service', 'scale', '-d', 'stays=3')
    await untilTasks(daemon, 'stays', 'a waiting task', (tasks) =>
      tasks.some((task) => task.state === 'pending' && /no suitable node/.test(task.error)),
    )
    const paused = await tasksOf(daemon, 'stays')
    for (const task of first) {
      assert.equal(paused.find(({ id }) => id === task.id)?.state, 'running')
    }

    await daemon.ok('node', 'update', '--availability', 'drain', node)
    for (const service of ['stays', 'every']) {
      await untilTasks(daemon, service, 'none to run', (tasks) =>
        tasks.every((task) => task.state !== 'running'),
      )
    }
    assert.match(await daemon.ok('node', 'ls'), /Ready\s+Drain/)

    await daemon.ok('node', 'update', '--availability', 'active', node)
    await untilRunning(daemon, 'stays', 3)
    await untilRunning(daemon, 'every', 1)
    await daemon.ok('service', 'rm', 'stays', 'every')
  })

  test('can be neither demoted nor removed while it is the only manager', async () => {
    const demote = await daemon.docker('node', 'demote', node)
    assert.notEqual(demote.code, 0)
    assert.match(demote.stderr, /attempting to demote the last manager of the swarm/)
    const promote = await daemon.docker('node', 'promote', node)
    assert.match(`${promote.stdout}${promote.stderr}`, /already a manager/)
    for (const force of [[], ['--force']]) {
      const remove = await daemon.docker('node', 'rm', ...force, node)
      assert.notEqual(remove.code, 0)
      assert.match(remove.stderr, /is a cluster manager|can't be removed|last manager/)
    }
    assert.match(await daemon.ok('node', 'ls'), /Ready\s+Active\s+Leader/)
  })

  test('is found by filters and unknown ones are named', async () => {
    assert.match(await daemon.ok('node', 'ls', '-q', '--filter', 'role=manager'), /^\w{25}$/)
    assert.equal(await daemon.ok('node', 'ls', '-q', '--filter', 'role=worker'), '')
    const unknown = await daemon.docker('node', 'ls', '--filter', 'bogus=1')
    assert.match(unknown.stderr, /[Ii]nvalid filter 'bogus'/)
    const missing = await daemon.docker('node', 'inspect', 'nosuchnode')
    assert.match(missing.stderr, /no such node|not found/i)
  })

  test('is ready again at once when its daemon is', async () => {
    await daemon.kill9()
    await daemon.start()
    await eventually('the node to be ready', async () => {
      const { body: nodes } = await daemon.api('GET', '/nodes')
      return textAt(nodes, 0, 'Status', 'State') === 'ready'
    })
  })
})
