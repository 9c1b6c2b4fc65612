import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, untilRunning, untilTasks } from './support/look.ts'

describe('self-healing', () => {
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon()
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'heal', '--replicas', '2'],
      ...['--restart-delay', '100ms', '--stop-grace-period', '1s', 'whoami:v1'],
    )
    await untilRunning(daemon, 'heal', 2)
  })
  after(() => daemon[Symbol.asyncDispose]())

  const behindItsBack: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['killed', ['kill'], /non-zero exit \(137\)/],
    ['stopped', ['stop', '-t', '1'], /./],
    ['removed by force', ['rm', '-f'], /./],
  ]
  for (const [what, args, story] of behindItsBack) {
    test(`a container that is ${what} is replaced, and service ps tells of it`, async () => {
      const [one, two] = await untilRunning(daemon, 'heal', 2)
      await onEngine(...args, one?.containerId ?? '')
      await untilTasks(daemon, 'heal', 'a successor', (tasks) =>
        tasks.some(({ id, slot, state }) => slot === 1 && id !== one?.id && state === 'running'),
      )
      const tasks = await untilRunning(daemon, 'heal', 2)
      assert.equal(tasks[1]?.id, two?.id, 'the other one was left alone')
      const former = (await tasksOf(daemon, 'heal')).find(({ id }) => id === one?.id)
      assert.match(former?.state ?? '', /failed|complete|shutdown/)
      assert.match(`${former?.state} ${former?.error}`, story)
      assert.match(await daemon.ok('service', 'ps', 'heal'), /\\_ heal\.1/)
    })
  }

  test('all at once', async () => {
    const before = await untilRunning(daemon, 'heal', 2)
    await onEngine('rm', '-f', ...before.map(({ containerId }) => containerId))
    await untilTasks(daemon, 'heal', 'two successors', (tasks) => {
      const up = tasks.filter(({ state, desired }) => state === 'running' && desired === 'running')
      return up.length === 2 && up.every(({ id }) => before.every((old) => old.id !== id))
    })
    await eventually('no container too many', async () => {
      const running = await onEngine(
        'ps',
        '-q',
        '--filter',
        'label=com.docker.swarm.service.name=heal',
      )
      return running.split('\n').length === 2
    })
  })

  test('while the daemon was away', async () => {
    const [one, two] = await untilRunning(daemon, 'heal', 2)
    await daemon.kill9()
    await onEngine('rm', '-f', one?.containerId ?? '')
    await daemon.start()
    await untilTasks(daemon, 'heal', 'a successor', (tasks) =>
      tasks.some(({ id, slot, state }) => slot === 1 && id !== one?.id && state === 'running'),
    )
    assert.equal((await untilRunning(daemon, 'heal', 2))[1]?.id, two?.id)
  })

  test('an image that was removed: the task waits, says why, and runs once it is back', async () => {
    await onEngine('tag', 'whoami:v1', 'e2e-heal:1')
    try {
      await daemon.ok(
        ...['service', 'create', '-d', '--name', 'image', '--restart-delay', '100ms', 'e2e-heal:1'],
      )
      const [task] = await untilRunning(daemon, 'image', 1)
      await onEngine('rmi', '-f', 'e2e-heal:1')
      await onEngine('rm', '-f', task?.containerId ?? '')
      await untilTasks(daemon, 'image', 'a reason', (tasks) =>
        tasks.some(({ state, error }) => state === 'rejected' && /e2e-heal:1/.test(error)),
      )
      await onEngine('tag', 'whoami:v1', 'e2e-heal:1')
      await untilRunning(daemon, 'image', 1)
    } finally {
      await daemon.docker('service', 'rm', 'image')
      await onEngine('rmi', '-f', 'e2e-heal:1').catch(() => '')
    }
  })

  test('containers of others are left alone', async () => {
    const own = `label=com.docker.swarm.service.id=${await daemon.ok('service', 'inspect', '-f', '{{.ID}}', 'heal')}`
    await onEngine('rm', '-f', 'e2e-foreign').catch(() => '')
    const id = await onEngine(
      ...['run', '-d', '--name', 'e2e-foreign', '--label', 'com.docker.swarm.service.name=heal'],
      ...['busybox', 'sleep', '6000'],
    )
    try {
      await daemon.ok('service', 'scale', '-d', 'heal=1')
      await untilRunning(daemon, 'heal', 1)
      await daemon.ok('service', 'rm', 'heal')
      await eventually('its own containers to be gone', async () => {
        return (await onEngine('ps', '-aq', '--filter', own)) === ''
      })
      assert.equal(await onEngine('inspect', '-f', '{{.State.Running}}', id), 'true')
    } finally {
      await onEngine('rm', '-f', 'e2e-foreign')
    }
  })
})
