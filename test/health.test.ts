import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, textAt, untilRunning, untilTasks } from './support/look.ts'

describe('health', () => {
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon()
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('a task is running only when it is healthy', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'slow', '--health-cmd', 'test -e /healthy'],
      ...['--health-interval', '300ms', '--health-retries', '100000', 'busybox', 'sleep', '6000'],
    )
    const [task] = await untilTasks(
      daemon,
      'slow',
      'a starting task',
      ([task]) => task?.state === 'starting' && task.containerId !== '',
    )
    const id = task?.containerId ?? ''
    const health = () => onEngine('inspect', '-f', '{{.State.Health.FailingStreak}}', id)
    await eventually('some probes to have failed', async () => Number(await health()) > 2)
    assert.match(await daemon.ok('service', 'ls'), /slow\s+replicated\s+0\/1/)
    await onEngine('exec', id, 'touch', '/healthy')
    const [same] = await untilRunning(daemon, 'slow', 1)
    assert.equal(same?.id, task?.id)
    await daemon.ok('service', 'rm', 'slow')
  })

  test('a first probe does not wait for its interval', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'eager', '--health-interval', '1h'],
      ...['--health-cmd', 'true', '--health-retries', '3', 'busybox', 'sleep', '600'],
    )
    // Long before the hour is over.
    await untilRunning(daemon, 'eager', 1)
    await daemon.ok('service', 'rm', 'eager')
  })

  test('one without a check is running when it listens where its image says it does', async () => {
    await daemon.ok('network', 'create', '-d', 'overlay', 'inner')
    const create = (name: string, env: string) =>
      daemon.ok(
        ...['service', 'create', '-d', '--name', name, '--network', 'inner', '--env', env],
        'whoami:v1',
      )
    // Half of the time that such a port is waited for: as long to be seen as to be in time.
    await create('late', 'START_DELAY_MS=5000')
    await untilTasks(daemon, 'late', 'a task that is waited for', ([task]) =>
      /^starting: nothing listens on port 80\/tcp yet$/.test(task?.message ?? ''),
    )
    const [late] = await untilRunning(daemon, 'late', 1)
    assert.equal(late?.message, 'started')
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
    const address = await onEngine('inspect', '-f', format, late?.containerId ?? '')
    assert.match((await run('curl', ['-s', '-m', '30', `http://${address}/`])).stdout, /^hostname/m)
    // One that never does is not waited for without end.
    await create('elsewhere', 'PORTS=8081')
    const [elsewhere] = await untilRunning(daemon, 'elsewhere', 1)
    assert.equal(
      elsewhere?.message,
      'started; nothing listens on port 80/tcp, which its image exposes',
    )
    await daemon.ok('service', 'rm', 'late', 'elsewhere')
  })

  test('one that never gets healthy fails, says so, and is tried again', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'sick', '--restart-delay', '100ms'],
      ...['--health-interval', '500ms', '--health-retries', '2', 'whoami:sick'],
    )
    await untilTasks(
      daemon,
      'sick',
      'a second try',
      (tasks) =>
        tasks.some(({ state, error }) => state === 'failed' && /unhealthy/.test(error)) &&
        tasks.length >= 2,
    )
    assert.ok((await tasksOf(daemon, 'sick')).every(({ state }) => state !== 'running'))
    await daemon.ok('service', 'rm', 'sick')
  })

  test('a healthy one that falls ill is replaced', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'ill', '--restart-delay', '100ms'],
      ...[
        '--health-interval',
        '500ms',
        '--health-retries',
        '2',
        '--health-cmd',
        'test ! -e /tmp/ill',
      ],
      ...['busybox', 'sh', '-c', 'mkdir -p /tmp; sleep 600'],
    )
    const [first] = await untilRunning(daemon, 'ill', 1)
    await onEngine('exec', first?.containerId ?? '', 'touch', '/tmp/ill')
    await untilTasks(daemon, 'ill', 'a healthy successor', (tasks) =>
      tasks.some(({ id, state }) => id !== first?.id && state === 'running'),
    )
    assert.match(await daemon.ok('service', 'ps', '--no-trunc', 'ill'), /unhealthy/)
    await daemon.ok('service', 'rm', 'ill')
  })

  test('a crash loop waits longer each time and tells the exit code', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'crash', '--restart-delay', '200ms'],
      ...['--env', 'CRASH_CODE=7', 'whoami:crash'],
    )
    const tasks = await untilTasks(
      daemon,
      'crash',
      'four failures',
      (seen) => seen.filter(({ state }) => state === 'failed').length >= 4,
    )
    assert.ok(tasks.some(({ error }) => /non-zero exit \(7\)/.test(error)))
    const ends = tasks
      .filter(({ state }) => state === 'failed')
      .map(({ whole }) => Date.parse(textAt(whole, 'Status', 'Timestamp')))
      .sort((one, other) => one - other)
    const gaps = ends.slice(1).map((end, index) => end - (ends[index] ?? 0))
    // Doubled with each failure. What the machine needs to start a container comes on top.
    for (const [index, least] of [200, 400, 800].entries()) {
      assert.ok((gaps[index] ?? 0) >= least, `gaps of ${gaps.join(', ')} ms grow`)
    }
    const explained = await daemon.api('GET', '/services/crash')
    assert.equal(explained.status, 200)
    await daemon.ok('service', 'rm', 'crash')
  })

  test('--no-healthcheck runs what never gets healthy', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'un', '--no-healthcheck', 'whoami:sick')
    await untilRunning(daemon, 'un', 1)
    await daemon.ok('service', 'rm', 'un')
  })
})
