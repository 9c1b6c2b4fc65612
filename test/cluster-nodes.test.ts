import assert from 'node:assert/strict'
import { join as pathOf } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { formCluster, joinCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

const skip = (await whyNoLab()) ?? false
const passphrase = 'correct horse battery staple'

/** Nodes that are emptied, cut off, evened out and lost, on real hosts: each with an engine and a daemon of its own. */
describe('the nodes of a cluster', { skip }, () => {
  let lab: Lab
  let manager: LabHost
  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    manager = lab.host(1)
    await formCluster(manager, { worker: [lab.host(2), lab.host(3)] })
  })
  after(() => lab[Symbol.asyncDispose]())

  async function create(name: string, ...flags: readonly string[]): Promise<void> {
    await manager.skepDockerOk('service', 'create', '-d', '--name', name, ...flags, 'whoami:v1')
  }

  /** Host names of the tasks that are wanted and run, as the managers know it. */
  async function placesOf(service: string): Promise<readonly string[]> {
    const format = '{{.Node}} {{.CurrentState}}'
    const flags = ['--filter', 'desired-state=running', '--format', format]
    const lines = await manager.skepDockerOk('service', 'ps', service, ...flags)
    return lines
      .split('\n')
      .filter((line) => line.includes(' Running '))
      .map((line) => line.split(' ')[0] ?? '')
      .sort()
  }

  async function untilPlaces(
    service: string,
    what: string,
    look: (places: readonly string[]) => boolean,
  ): Promise<void> {
    let last: readonly string[] = []
    await eventually(`${service}: ${what}`, async () => {
      last = await placesOf(service)
      return look(last)
    }).catch((error: unknown) => {
      throw new Error(`${service} runs on ${last.join(', ')}`, { cause: error })
    })
  }

  /** Containers of a service that run on a host, whatever the managers know of it. */
  async function containers(host: LabHost, service: string): Promise<number> {
    const filter = `label=com.docker.swarm.service.name=${service}`
    return (await host.dockerOk('ps', '-q', '--filter', filter)).split('\n').filter(Boolean).length
  }

  test('a drained node is empty, and each task ran elsewhere before it stopped', async () => {
    await create('web', '--replicas', '6', '--publish', '8080:80')
    await untilPlaces(
      'web',
      'two on each node',
      (places) => places.join() === lab.hosts.flatMap((host) => [host.name, host.name]).join(),
    )
    const { name } = lab.host(2)
    let fewest = 6
    let isOver = false
    const watching = (async () => {
      while (!isOver) {
        let count = 0
        // Those that are to go are counted first: what took the place of one that has gone by then runs later, too.
        for (const number of [2, 1, 3]) count += await containers(lab.host(number), 'web')
        fewest = Math.min(fewest, count)
      }
    })()
    const drained = await manager.skep('node', 'drain', name, '--wait').finally(() => {
      isOver = true
    })
    await watching
    assert.equal(drained.code, 0, drained.stderr)
    assert.match(drained.stdout, /is empty\.$/m)
    assert.match(drained.stderr, /it serves until its successor does/)
    assert.equal(await containers(lab.host(2), 'web'), 0)
    assert(fewest >= 6, `at one time ${fewest} ran`)
    assert.equal((await placesOf('web')).length, 6)
    assert.equal((await manager.skep('node', 'activate', name)).code, 0)
  })

  test('evens out on request, and then has nothing to move', async () => {
    const planned = await manager.skep('cluster', 'rebalance', '--dry-run')
    assert.match(
      planned.stdout,
      /^web\.\d: \S+ -> \S+, moved to even out web: \S+ has 3 tasks of it/m,
    )
    const done = await manager.skep('cluster', 'rebalance', '--once')
    assert.equal(done.code, 0, done.stderr)
    const places = await placesOf('web')
    for (const place of new Set(places))
      assert.equal(places.filter((one) => one === place).length, 2, places.join())
    const again = await manager.skep('cluster', 'rebalance', '--once')
    assert.match(again.stdout, /^Nothing to move\.$/m)
  })

  test('a node that is cut off: its tasks are replaced, kept, or stop there before they start elsewhere', async () => {
    const lost = lab.host(3)
    const name = lost.name
    const there = ['--constraint', `node.hostname==${name}`]
    await create('kept', '--label', 'skep.failure=keep', ...there)
    await create('single', '--label', 'skep.failure=stop-after 12s', ...there)
    for (const service of ['kept', 'single'])
      await untilPlaces(service, 'there', (places) => places.join() === name)
    await manager.skepDockerOk(
      'service',
      'update',
      '-d',
      '--constraint-rm',
      `node.hostname==${name}`,
      'single',
    )

    await lab.cut(3)
    await untilPlaces(
      'web',
      'all elsewhere',
      (places) => places.length === 6 && !places.includes(name),
    )
    const row = await manager.skepDockerOk(
      ...[
        'service',
        'ps',
        'kept',
        '--no-trunc',
        '--format',
        '{{.DesiredState}} {{.CurrentState}} {{.Error}}',
      ],
    )
    assert.match(
      row,
      /^Running Running .*"node \S+ is down since \S+: this is the last state it told"$/,
    )
    // Never two: while one runs elsewhere, none runs here.
    await eventually('the single task to run elsewhere', async () => {
      const elsewhere = (await placesOf('single')).filter((place) => place !== name).length
      // Looked at second: what runs here then has run here all the while.
      assert(elsewhere === 0 || (await containers(lost, 'single')) === 0, 'two at once')
      return elsewhere === 1
    })
    assert.equal(await containers(lost, 'kept'), 1)

    const [before] = (await lost.dockerOk('ps', '-q', '--filter', 'name=kept')).split('\n')
    await lab.heal()
    await eventually('the node to be back', async () =>
      /Ready/.test(await manager.skepDockerOk('node', 'ls', '--filter', `name=${name}`)),
    )
    await eventually(
      'what was replaced to be gone there',
      async () => (await containers(lost, 'web')) === 0,
    )
    assert.equal(await lost.dockerOk('ps', '-q', '--filter', 'name=kept'), before)
    assert.equal(await containers(lost, 'single'), 0)
    await manager.skepDockerOk('service', 'rm', 'kept', 'single')
  })

  test('a node is removed when it is down, and not before', async () => {
    const name = lab.host(3).name
    const refused = await manager.skepDocker('node', 'rm', name)
    assert.match(refused.stderr, /is not down and can't be removed/)
    await lab.host(3).skepDockerOk('swarm', 'leave')
    await eventually('the node to be down', async () =>
      /Down/.test(await manager.skepDockerOk('node', 'ls', '--filter', `name=${name}`)),
    )
    await manager.skepDockerOk('node', 'rm', name)
    await untilPlaces('web', 'on the two that are left', (places) => places.length === 6)
    await joinCluster(lab.host(3), manager, 'worker')
  })

  test('the cluster begins anew on another host from a backup, when its only manager has burnt down', async () => {
    const file = pathOf(lab.host(2).folder, 'cluster.backup')
    const bin = pathOf(import.meta.dirname, '../bin/skep')
    const made = await run(bin, ['-H', manager.api, 'backup', 'create', file], {
      input: `${passphrase}\n`,
    })
    assert.equal(made.code, 0, made.stderr)
    await manager.powerOff()
    const second = lab.host(2)
    await second.skepDockerOk('swarm', 'leave', '--force')
    await second.stopDaemon()
    const phrase = pathOf(second.folder, 'phrase')
    await second.must('sh', '-c', `echo '${passphrase}' > ${phrase}`)
    const restored = await second.run(
      ...[bin, 'backup', 'restore', file, '--passphrase-file', phrase],
      ...['--data-root', pathOf(second.folder, 'skep'), '--advertise-addr', second.address],
    )
    assert.equal(restored.code, 0, restored.stderr)
    assert.match(restored.stdout, /Counted as down until they join again: /)
    await second.startDaemon()
    manager = second
    await lab.host(3).skepDockerOk('swarm', 'leave', '--force')
    await joinCluster(lab.host(3), manager, 'worker')
    await untilPlaces('web', 'all on the two hosts that are left', (places) => places.length === 6)
  })
})
