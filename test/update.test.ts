import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { at, tasksOf, textAt, untilRunning, untilTasks, updateState } from './support/look.ts'

describe('updates and rollbacks', () => {
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon()
  })
  after(() => daemon[Symbol.asyncDispose]())

  /** How long a new task is watched. A crash has to be seen within it, also on a busy machine; once seen, nobody waits. */
  const slow = ['--update-monitor', '60s']
  const quick = ['--update-monitor', '500ms']
  const create = (name: string, ...flags: string[]) =>
    daemon.ok('service', 'create', '-d', '--name', name, ...quick, ...flags)
  const until = (name: string, state: string) =>
    eventually(`${name} to be ${state}`, async () => (await updateState(daemon, name)) === state)
  const message = async (name: string) =>
    textAt((await daemon.api('GET', `/services/${name}`)).body, 'UpdateStatus', 'Message')

  test('go in steps of the asked width', async () => {
    await create('steps', '--replicas', '4', '--update-parallelism', '2', 'whoami:v1')
    await untilRunning(daemon, 'steps', 4)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:v2', 'steps')
    let fewest = 4
    await untilTasks(daemon, 'steps', 'the new image', (tasks) => {
      const up = tasks.filter(({ state, desired }) => state === 'running' && desired === 'running')
      fewest = Math.min(fewest, up.length)
      return up.length === 4 && up.every(({ image }) => image === 'whoami:v2')
    })
    assert.ok(fewest >= 2, `only ${fewest} of 4 ran`)
    await until('steps', 'completed')
    assert.equal(await message('steps'), 'update completed')
    await daemon.ok('service', 'rm', 'steps')
  })

  test('start-first starts the new one before the old one stops', async () => {
    await create('first', '--update-order', 'start-first', 'whoami:v1')
    await untilRunning(daemon, 'first', 1)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:slow', 'first')
    let fewest = 1
    await untilTasks(daemon, 'first', 'the new image', (tasks) => {
      const up = tasks.filter(({ state }) => state === 'running')
      fewest = Math.min(fewest, up.length)
      return up.length === 1 && up[0]?.image === 'whoami:slow'
    })
    assert.equal(fewest, 1)
    await daemon.ok('service', 'rm', 'first')
  })

  test('failure action pause: stops, says why, and goes on with the next update', async () => {
    await create('pause', '--replicas', '3', '--restart-delay', '100ms', 'whoami:v1')
    await untilRunning(daemon, 'pause', 3)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:crash', ...slow, 'pause')
    await until('pause', 'paused')
    assert.match(
      await message('pause'),
      /update paused due to failure or early termination of task \w+/,
    )
    const tasks = await tasksOf(daemon, 'pause')
    const old = tasks.filter((task) => task.image === 'whoami:v1' && task.state === 'running')
    assert.equal(old.length, 2, 'the others were left alone')
    assert.match(await daemon.ok('service', 'inspect', '--pretty', 'pause'), /State:\s+paused/)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:v3', ...quick, 'pause')
    await untilRunning(daemon, 'pause', 3, { image: 'whoami:v3' })
    await until('pause', 'completed')
    await daemon.ok('service', 'rm', 'pause')
  })

  test('failure action rollback: the former version comes back by itself', async () => {
    await create(
      'back',
      ...['--replicas', '3', '--update-failure-action', 'rollback', '--rollback-monitor', '300ms'],
      ...['--restart-delay', '100ms', 'whoami:v1'],
    )
    await untilRunning(daemon, 'back', 3)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:crash', ...slow, 'back')
    await until('back', 'rollback_completed')
    await untilRunning(daemon, 'back', 3, { image: 'whoami:v1' })
    const { body } = await daemon.api('GET', '/services/back')
    assert.equal(textAt(body, 'Spec', 'TaskTemplate', 'ContainerSpec', 'Image'), 'whoami:v1')
    await daemon.ok('service', 'rm', 'back')
  })

  test('failure action continue: all are replaced', async () => {
    await create(
      'on',
      ...['--replicas', '2', '--update-failure-action', 'continue', '--restart-delay', '100ms'],
      'whoami:v1',
    )
    await untilRunning(daemon, 'on', 2)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:crash', 'on')
    await untilTasks(daemon, 'on', 'both replaced', (tasks) =>
      tasks.every(({ image, state }) => image === 'whoami:crash' || state === 'shutdown'),
    )
    await daemon.ok('service', 'rm', 'on')
  })

  test('rollback by hand swaps the two specs, and again', async () => {
    await create('swap', '--env', 'A=1', '--rollback-monitor', '300ms', 'whoami:v1')
    await untilRunning(daemon, 'swap', 1)
    const none = await daemon.docker('service', 'rollback', '-d', 'swap')
    assert.match(none.stderr, /does not have a previous spec/)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:v2', '--env-add', 'A=2', 'swap')
    await untilRunning(daemon, 'swap', 1, { image: 'whoami:v2' })
    await until('swap', 'completed')
    await daemon.ok('service', 'rollback', '-d', 'swap')
    await untilRunning(daemon, 'swap', 1, { image: 'whoami:v1' })
    await until('swap', 'rollback_completed')
    const { body } = await daemon.api('GET', '/services/swap')
    assert.equal(
      textAt(body, 'PreviousSpec', 'TaskTemplate', 'ContainerSpec', 'Image'),
      'whoami:v2',
    )
    assert.deepEqual(at(body, 'Spec', 'TaskTemplate', 'ContainerSpec', 'Env'), ['A=1'])
    await daemon.ok('service', 'update', '-d', '--rollback', 'swap')
    await untilRunning(daemon, 'swap', 1, { image: 'whoami:v2' })
    await daemon.ok('service', 'rm', 'swap')
  })

  test('an update that cannot go on says what it waits for', async () => {
    await create(
      'stuck',
      ...['--replicas', '2', '--update-order', 'start-first', '--reserve-memory', '8M'],
      'whoami:v1',
    )
    await untilRunning(daemon, 'stuck', 2)
    await daemon.ok('service', 'update', '-d', '--constraint-add', 'node.labels.none==yes', 'stuck')
    const explain = await eventually('a reason', async () => {
      const output = await daemon.docker('service', 'ps', '--no-trunc', 'stuck')
      return /no suitable node|constraint/.test(output.stdout) && output.stdout
    })
    assert.match(explain, /scheduling constraints not satisfied|no suitable node/)
    await daemon.ok('service', 'rm', 'stuck')
  })

  test('a newer update replaces one on its way', async () => {
    await create('newer', '--replicas', '4', '--update-delay', '5s', 'whoami:v1')
    await untilRunning(daemon, 'newer', 4)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:v2', 'newer')
    await untilTasks(daemon, 'newer', 'a first v2', (tasks) =>
      tasks.some(({ image, state }) => image === 'whoami:v2' && state === 'running'),
    )
    await daemon.ok(
      ...['service', 'update', '-d', '--image', 'whoami:v3', '--update-delay', '0s'],
      ...['--update-parallelism', '0', 'newer'],
    )
    await untilRunning(daemon, 'newer', 4, { image: 'whoami:v3' })
    await daemon.ok('service', 'rm', 'newer')
  })
})
