import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { startDaemon, type TestDaemon } from './support/daemon.ts'
import { textAt, untilRunning, untilTasks } from './support/look.ts'

/** Emptying a node by skep's own command line, and what services say about lost nodes, on one real node. */
describe('draining and failure policies', () => {
  let daemon: TestDaemon
  let node = ''
  before(async () => {
    daemon = await startDaemon()
    node = await daemon.ok('node', 'ls', '--format', '{{.Hostname}}')
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('a task with nowhere to go keeps its node, unless it is drained by force', async () => {
    await daemon.ok('service', 'create', '-d', '--name', 'drain-web', 'whoami:v1')
    await daemon.ok(
      'service',
      'create',
      '-d',
      '--name',
      'drain-all',
      '--mode',
      'global',
      'whoami:v1',
    )
    await untilRunning(daemon, 'drain-web', 1)
    await untilRunning(daemon, 'drain-all', 1)

    const dry = await daemon.skep('node', 'drain', 'self', '--dry-run')
    assert.equal(dry.code, 0, dry.stderr)
    assert.match(dry.stdout, /^drain-web\.1 stops: no other node may run it$/m)
    assert.match(dry.stdout, /^drain-all\.\w+ stops: it runs once on each node$/m)
    assert.match(dry.stdout, /2 tasks on \S+\. Nothing was changed\./)

    const refused = await daemon.skep('node', 'drain', 'self')
    assert.equal(refused.code, 1)
    assert.match(
      refused.stderr,
      /^skep: 1 task would stop for want of another node: drain-web\.1 \(no other node may run it\)\. Make room elsewhere, or drain all the same with --force\.$/m,
    )
    assert.match(await daemon.ok('node', 'ls'), /Ready\s+Active/)
  })

  test('the deadline tells what is left and why; waiting on empties the node', async () => {
    // The other one goes at once, and the reason why this one stays is known a moment later.
    assert.equal((await daemon.skep('node', 'drain', 'self', '--force')).code, 0)
    await untilTasks(daemon, 'drain-all', 'none to run', (tasks) =>
      tasks.every(({ state }) => state !== 'running'),
    )
    await untilTasks(daemon, 'drain-web', 'a successor that waits', (tasks) =>
      tasks.some(({ error }) => /no suitable node/.test(error)),
    )
    const late = await daemon.skep('node', 'drain', 'self', '--force', '--wait', '--deadline', '2s')
    assert.equal(late.code, 1, late.stdout)
    assert.match(late.stderr, /skep: 1 task still on \S+ after 2s:/)
    assert.match(
      late.stderr,
      / - drain-web\.1 is running: node \S+ is drained; it serves until its successor does: .*no suitable node.* It is stopped in \S+ s even so\./,
    )
    assert.match(late.stderr, /Take it back with: skep node activate/)
    const done = await daemon.skep('node', 'drain', 'self', '--wait')
    assert.equal(done.code, 0, done.stderr)
    assert.match(done.stdout, /is empty\.$/m)
    const back = await daemon.skep('node', 'activate', node)
    assert.equal(back.stdout, `${node}\n`)
    await untilRunning(daemon, 'drain-web', 1)
    await untilRunning(daemon, 'drain-all', 1)
    await daemon.ok('service', 'rm', 'drain-web', 'drain-all')
  })

  test('roles say what cannot be', async () => {
    const demote = await daemon.skep('node', 'demote', 'self')
    assert.equal(demote.code, 1)
    assert.match(
      demote.stderr,
      /attempting to demote the last manager of the swarm\. Promote another/,
    )
    assert.match((await daemon.skep('node', 'promote', 'self')).stdout, /is already a manager/)
  })

  test('a failure policy is taken from its label, shown by inspect, and refused when it is none', async () => {
    const create = ['service', 'create', '-d', '--name', 'drain-policy', '--label']
    await daemon.ok(...create, 'skep.failure=stop-after 5m', 'whoami:v1')
    assert.match(
      await daemon.ok('service', 'inspect', '--pretty', 'drain-policy'),
      /skep\.failure=stop-after 5m/,
    )
    const wrong = await daemon.docker(
      ...['service', 'update', '-d', '--label-add', 'skep.failure=sometimes', 'drain-policy'],
    )
    assert.notEqual(wrong.code, 0)
    assert.match(
      wrong.stderr,
      /label skep\.failure: "sometimes" is no failure policy\. Use replace, keep, or stop-after/,
    )
    await daemon.ok('service', 'rm', 'drain-policy')
  })

  test('rebalancing is switched in the swarm, and a single node has nothing to move', async () => {
    for (const word of ['on', 'off']) {
      const { code, stderr } = await daemon.skep('cluster', 'rebalance', word)
      assert.equal(code, 0, stderr)
      const { body } = await daemon.api('GET', '/swarm')
      assert.equal(textAt(body, 'Spec', 'Labels', 'skep.rebalance'), word)
    }
    for (const flag of ['--dry-run', '--once'])
      assert.match((await daemon.skep('cluster', 'rebalance', flag)).stdout, /^Nothing to move\.$/m)
    const both = await daemon.skep('cluster', 'rebalance', 'on', '--once')
    assert.equal(both.code, 2)
  })
})
