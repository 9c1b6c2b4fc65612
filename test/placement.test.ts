import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { textAt, untilRunning, untilTasks } from './support/look.ts'

describe('placement', () => {
  let daemon: TestDaemon
  let node = ''
  before(async () => {
    daemon = await startDaemon()
    node = await daemon.ok('node', 'ls', '-q')
    await daemon.ok('node', 'update', '--label-add', 'zone=a', node)
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('constraints on every key let a matching task run', async () => {
    const hostname = await daemon.ok('node', 'inspect', '-f', '{{.Description.Hostname}}', 'self')
    const keys = [
      `node.id==${node}`,
      `node.hostname==${hostname}`,
      'node.role==manager',
      'node.role!=worker',
      'node.labels.zone==a',
      'node.labels.zone!=b',
      'node.platform.os==linux',
      'node.ip==127.0.0.0/8',
    ]
    await daemon.ok(
      ...[
        'service',
        'create',
        '-d',
        '--name',
        'fits',
        '--placement-pref',
        'spread=node.labels.zone',
      ],
      ...keys.flatMap((key) => ['--constraint', key]),
      'whoami:v1',
    )
    await untilRunning(daemon, 'fits', 1)
    await daemon.ok('service', 'rm', 'fits')
  })

  const waits: readonly (readonly [string, readonly string[], RegExp])[] = [
    [
      'a role',
      ['--constraint', 'node.role==worker'],
      /scheduling constraints not satisfied on 1 node/,
    ],
    [
      'a label',
      ['--constraint', 'node.labels.zone==b'],
      /scheduling constraints not satisfied on 1 node/,
    ],
    [
      'an engine label',
      ['--constraint', 'engine.labels.gpu==yes'],
      /scheduling constraints not satisfied on 1 node/,
    ],
    [
      'memory',
      ['--reserve-memory', '900G'],
      /insufficient resources on 1 node|insufficient memory on 1 node/,
    ],
    [
      'cpu',
      ['--reserve-cpu', '500'],
      /insufficient resources on 1 node|insufficient cpu on 1 node/i,
    ],
    [
      'a generic resource',
      ['--generic-resource', 'gpu=1'],
      /insufficient resources on 1 node|insufficient .*gpu.* on 1 node/i,
    ],
    [
      'a volume plugin',
      ['--mount', 'type=volume,source=e,target=/e,volume-driver=portworx'],
      /plugin|portworx/,
    ],
    ['a log plugin', ['--log-driver', 'nosuchlogger'], /plugin|nosuchlogger/],
  ]
  for (const [what, flags, reason] of waits) {
    test(`a task that needs ${what} nobody has waits and says so`, async () => {
      await daemon.ok('service', 'create', '-d', '--name', 'waits', ...flags, 'whoami:v1')
      await untilTasks(
        daemon,
        'waits',
        `a reason like ${reason}`,
        (tasks) => tasks[0]?.state === 'pending' && reason.test(tasks[0].error),
      )
      assert.match(await daemon.ok('service', 'ls'), /waits\s+replicated\s+0\/1/)
      await daemon.ok('service', 'rm', 'waits')
    })
  }

  test('one that waits runs as soon as the node fits', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'later', '--constraint', 'node.labels.later==1'],
      'whoami:v1',
    )
    await untilTasks(daemon, 'later', 'a waiting task', (tasks) =>
      /no suitable/.test(tasks[0]?.error ?? ''),
    )
    await daemon.ok('node', 'update', '--label-add', 'later=1', node)
    await untilRunning(daemon, 'later', 1)
    await daemon.ok('node', 'update', '--label-rm', 'later', node)
    await untilTasks(daemon, 'later', 'none to run', (tasks) =>
      tasks.every(({ state }) => state !== 'running'),
    )
    await daemon.ok('service', 'rm', 'later')
  })

  test('max replicas per node holds', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'max', '--replicas', '3'],
      ...['--replicas-max-per-node', '2', 'whoami:v1'],
    )
    await untilTasks(
      daemon,
      'max',
      'two to run and one to wait',
      (tasks) =>
        tasks.filter(({ state }) => state === 'running').length === 2 &&
        tasks.some(({ error }) => /max replicas per node limit exceed/.test(error)),
    )
    assert.match(await daemon.ok('service', 'ls'), /2\/3 \(max 2 per node\)/)
    await daemon.ok('service', 'rm', 'max')
  })

  test('explain says in words why a service is not as declared, and when it is', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'why', '--constraint', 'node.labels.gpu==yes'],
      'whoami:v1',
    )
    const explain = async (id: string) => (await daemon.api('GET', `/skep/v1/explain/${id}`)).text
    await eventually('the reason', async () =>
      /scheduling constraints not satisfied on 1 node/.test(await explain('why')),
    )
    await daemon.ok('node', 'update', '--label-add', 'gpu=yes', node)
    const [task] = await untilRunning(daemon, 'why', 1)
    await eventually(
      'that all is well',
      async () =>
        !/not satisfied/.test(
          textAt(JSON.parse(await explain('why')), 'summary') || (await explain('why')),
        ),
    )
    assert.match(await explain(task?.id ?? ''), /running|started/i)
    const missing = await daemon.api('GET', '/skep/v1/explain/nosuch')
    assert.equal(missing.status, 404, missing.text)
    await daemon.ok('service', 'rm', 'why')
  })
})
