import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { at, containersOf, numberAt, tasksOf, untilRunning, untilTasks } from './support/look.ts'

describe('the modes of a service', () => {
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon()
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('replicated: any number, and the highest slots go first', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'rep', '--replicas', '0', 'whoami:v1')
    assert.match(await daemon.ok('service', 'ls'), /rep\s+replicated\s+0\/0/)
    await daemon.ok('service', 'scale', '-d', 'rep=4')
    const four = await untilRunning(daemon, 'rep', 4)
    assert.deepEqual(
      four.map((task) => task.slot),
      [1, 2, 3, 4],
    )
    await daemon.ok('service', 'scale', '-d', 'rep=2')
    const two = await untilRunning(daemon, 'rep', 2)
    assert.deepEqual(
      two.map((task) => task.id),
      four.slice(0, 2).map((task) => task.id),
    )
    await eventually('two containers', async () => (await containersOf(daemon, 'rep')).length === 2)
    await daemon.ok('service', 'create', '-d', '--name', 'rep2', 'whoami:v1')
    await daemon.ok('service', 'scale', '-d', 'rep=1', 'rep2=2')
    await untilRunning(daemon, 'rep', 1)
    await untilRunning(daemon, 'rep2', 2)
    await daemon.ok('service', 'rm', 'rep', 'rep2')
  })

  test('global: one on each node, and no scale', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'glob', '--mode', 'global', 'whoami:v1')
    const [task] = await untilRunning(daemon, 'glob', 1)
    assert.equal(task?.slot, undefined)
    assert.match(await daemon.ok('service', 'ls'), /glob\s+global\s+1\/1/)
    const node = await daemon.ok('node', 'ls', '-q')
    assert.match(
      await daemon.ok('service', 'ps', '--no-trunc', 'glob'),
      new RegExp(`glob\\.${node}`),
    )
    const scale = await daemon.docker('service', 'scale', '-d', 'glob=2')
    assert.notEqual(scale.code, 0)
    await daemon.ok('service', 'rm', 'glob')
  })

  test('replicated-job: runs to completion so often, so many at once', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'job', '--mode', 'replicated-job'],
      ...['--replicas', '5', '--max-concurrent', '2', 'busybox', 'sleep', '0.3'],
    )
    let together = 0
    await untilTasks(daemon, 'job', 'five completions', (tasks) => {
      together = Math.max(together, tasks.filter(({ state }) => state === 'running').length)
      return tasks.filter(({ state }) => state === 'complete').length === 5
    })
    assert.ok(together <= 2, `${together} ran at once`)
    const tasks = await tasksOf(daemon, 'job')
    assert.equal(tasks.length, 5)
    assert.match(await daemon.ok('service', 'ls'), /job\s+replicated job\s+0\/2 \(5\/5 completed\)/)
    assert.match(await daemon.ok('service', 'ps', 'job'), /Complete\s+Complete/)
    // Every update runs the whole job again.
    await daemon.ok('service', 'update', '-d', '--force', 'job')
    await eventually('the second iteration to complete', async () => {
      const again = await tasksOf(daemon, 'job')
      const second = again.filter((task) => numberAt(task.whole, 'JobIteration', 'Index') > 0)
      return second.filter(({ state }) => state === 'complete').length === 5
    })
    await daemon.ok('service', 'rm', 'job')
  })

  test('replicated-job: the stock client waits for it', async () => {
    const output = await daemon.ok(
      ...['service', 'create', '--name', 'waited', '--mode', 'replicated-job', '--replicas', '2'],
      ...['busybox', 'true'],
    )
    assert.match(output, /job complete/)
    await daemon.ok('service', 'rm', 'waited')
  })

  test('a failing job gives up after max-attempts, in both modes', async () => {
    for (const mode of ['replicated-job', 'global-job']) {
      const name = `fails-${mode}`
      await daemon.ok(
        ...['service', 'create', '-d', '--name', name, '--mode', mode],
        ...[
          '--restart-max-attempts',
          '2',
          '--restart-delay',
          '50ms',
          '--restart-condition',
          'on-failure',
        ],
        ...['busybox', 'sh', '-c', 'exit 3'],
      )
      await untilTasks(
        daemon,
        name,
        'three failures',
        (tasks) => tasks.filter(({ state }) => state === 'failed').length === 3,
      )
      const failed = await tasksOf(daemon, name)
      assert.ok(failed.every(({ exitCode }) => exitCode === 3))
      assert.ok(failed.some(({ error }) => /non-zero exit \(3\)/.test(error)))
      await new Promise((done) => setTimeout(done, 1500))
      assert.equal((await tasksOf(daemon, name)).length, 3, `${mode} stopped trying`)
      await daemon.ok('service', 'rm', name)
    }
  })

  test('restart policy: none, on-failure and any', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'never', '--restart-condition', 'none'],
      ...['busybox', 'true'],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'failing', '--restart-condition', 'on-failure'],
      ...['--restart-delay', '50ms', '--restart-max-attempts', '1', 'busybox', 'false'],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'ended', '--restart-condition', 'on-failure'],
      ...['--restart-delay', '50ms', 'busybox', 'true'],
    )
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'always', '--restart-delay', '50ms'],
      ...['busybox', 'true'],
    )
    await untilTasks(daemon, 'always', 'a third start', (tasks) => tasks.length >= 3)
    await untilTasks(
      daemon,
      'failing',
      'two failures',
      (tasks) => tasks.filter(({ state }) => state === 'failed').length === 2,
    )
    await untilTasks(daemon, 'never', 'an end', (tasks) => tasks[0]?.state === 'complete')
    await untilTasks(daemon, 'ended', 'an end', (tasks) => tasks[0]?.state === 'complete')
    await new Promise((done) => setTimeout(done, 1000))
    assert.equal((await tasksOf(daemon, 'never')).length, 1)
    assert.equal((await tasksOf(daemon, 'ended')).length, 1)
    assert.equal((await tasksOf(daemon, 'failing')).length, 2)
    await daemon.ok('service', 'rm', 'never', 'failing', 'ended', 'always')
  })

  test('history keeps as many ended tasks of a slot as the cluster says', async () => {
    await daemon.ok('swarm', 'update', '--task-history-limit', '2')
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'hist', '--update-monitor', '1ms', 'whoami:v1'],
    )
    for (let turn = 0; turn < 4; turn++) {
      const [before] = await untilRunning(daemon, 'hist', 1)
      await daemon.ok('service', 'update', '-d', '--force', 'hist')
      await eventually('the next task', async () => {
        const [now] = await untilRunning(daemon, 'hist', 1)
        return now?.id !== before?.id
      })
    }
    await untilTasks(daemon, 'hist', 'two ended tasks', (tasks) => tasks.length === 3)
    assert.equal(at((await daemon.api('GET', '/services/hist')).body, 'Spec', 'Name'), 'hist')
    await daemon.ok('service', 'rm', 'hist')
  })
})
