import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually } from './support/daemon.ts'
import { etcdIsMissing } from './support/etcd-cluster.ts'

const skip = (await whyNoLab()) ?? etcdIsMissing

/** A cluster becomes one of three managers and loses its leader, on real hosts. */
describe('several managers', { skip, concurrency: false }, () => {
  let lab: Lab
  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
  })
  after(() => lab[Symbol.asyncDispose]())

  /** Containers of tasks on a host, by id: one that was restarted or replaced has another. */
  async function containers(host: LabHost): Promise<readonly string[]> {
    const ids = await host.dockerOk(
      'ps',
      '-q',
      '--no-trunc',
      '--filter',
      'label=com.docker.swarm.task.id',
    )
    return ids.split('\n').filter(Boolean).sort()
  }

  /** None of these tasks was restarted; there may be new ones. */
  async function goOn(host: LabHost, before: readonly string[]): Promise<void> {
    const now = new Set(await containers(host))
    assert.deepEqual(
      before.filter((id) => !now.has(id)),
      [],
    )
  }

  async function create(host: LabHost, name: string, ...flags: readonly string[]): Promise<void> {
    const how = ['-d', '--no-resolve-image', '--name', name, ...flags]
    await host.skepDockerOk('service', 'create', ...how, 'whoami:v1')
  }

  /** Hosts with their standing, as one manager has it: `node1 Ready Leader`. */
  async function nodes(host: LabHost): Promise<readonly string[]> {
    const format = '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
    const list = await host.skepDocker('node', 'ls', '--format', format)
    return list.stdout
      .split('\n')
      .map((line) => line.trim())
      .filter(Boolean)
      .sort()
  }

  async function running(host: LabHost, service: string): Promise<string> {
    return host.skepDockerOk(
      'service',
      'ls',
      '--filter',
      `name=${service}`,
      '--format',
      '{{.Replicas}}',
    )
  }

  test('join while services run, and none of their tasks is restarted', async (t) => {
    const one = lab.host(1)
    await formCluster(one, {})
    await create(one, 'web', '--replicas', '10')
    await eventually('all run', async () => (await running(one, 'web')) === '10/10')
    const before = await containers(one)
    assert.equal(before.length, 10)
    const token = await one.skepDockerOk('swarm', 'join-token', '-q', 'manager')

    // Somebody writes all the while.
    const stop = new AbortController()
    let slowestMs = 0
    let writes = 0
    const writing = (async () => {
      while (!stop.signal.aborted) {
        const startedAtMs = performance.now()
        const name = `c${writes}`
        await one.skepDockerOk('config', 'create', '--label', `n=${writes}`, name, '/etc/hostname')
        slowestMs = Math.max(slowestMs, performance.now() - startedAtMs)
        writes++
      }
    })()
    try {
      for (const number of [2, 3]) {
        const startedAtMs = performance.now()
        const host = lab.host(number)
        await host.skepDockerOk('swarm', 'join', '--token', token, `${one.address}:2377`)
        t.diagnostic(`join of manager ${number}: ${Math.round(performance.now() - startedAtMs)} ms`)
      }
    } finally {
      stop.abort()
      await writing
    }
    t.diagnostic(`writes meanwhile: ${writes}, the slowest ${Math.round(slowestMs)} ms`)

    assert.deepEqual(await containers(one), before)
    await eventually('three managers are in reach', async () => {
      const format = '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
      const list = await lab.host(3).skepDockerOk('node', 'ls', '--format', format)
      return (
        list.split('\n').sort().join() ===
        'node1 Ready Leader,node2 Ready Reachable,node3 Ready Reachable'
      )
    })
    const names = await lab.host(2).skepDockerOk('config', 'ls', '--format', '{{.Name}}')
    assert.equal(names.split('\n').length, writes)
  })

  test('serve reads and writes where they do not lead', async () => {
    const two = lab.host(2)
    await create(two, 'spread', '--replicas', '3')
    await eventually('all run', async () => (await running(two, 'spread')) === '3/3')
    assert.equal(await running(lab.host(3), 'spread'), '3/3')
    const logs = await two.skepDocker('service', 'logs', 'spread')
    assert.equal(logs.code, 0, logs.stderr)
  })

  test('go on when the host of the leader is lost', async (t) => {
    const [two, three] = [lab.host(2), lab.host(3)]
    const before = await Promise.all([containers(two), containers(three)])
    await lab.host(1).powerOff()
    const lostAtMs = performance.now()
    let tries = 0
    await eventually('writes are taken again', async () => {
      // A name of its own each time: one that was refused for want of an answer may be there all the same.
      return (
        (await two.skepDocker('config', 'create', `late${tries++}`, '/etc/hostname')).code === 0
      )
    })
    t.diagnostic(`writes are taken after ${Math.round(performance.now() - lostAtMs)} ms`)
    await create(two, 'late')
    await eventually('loops act again', async () => (await running(three, 'late')) === '1/1')
    t.diagnostic(`loops act after ${Math.round(performance.now() - lostAtMs)} ms`)
    const now = await Promise.all([containers(two), containers(three)])
    for (const [index, ids] of before.entries())
      for (const id of ids) assert.ok(now[index]?.includes(id), 'a task was restarted')
    await eventually('the lost one is out of reach', async () => {
      const list = await two.skepDockerOk(
        'node',
        'ls',
        '--format',
        '{{.Hostname}} {{.ManagerStatus}}',
      )
      return list.includes('node1 Unreachable') && list.includes('Leader')
    })
  })

  test('refuse what would cost the quorum, and say so when it is lost', async () => {
    const [two, three] = [lab.host(2), lab.host(3)]
    const refused = await two.skepDocker('node', 'demote', 'node3')
    assert.notEqual(refused.code, 0)
    assert.match(refused.stderr, /of 2 managers 2 have to be reachable, and 1 would be .*node1/)
    await two.skepDockerOk('node', 'demote', 'node1')
    await eventually('node1 is no manager any more', async () =>
      (await nodes(two)).includes('node1 Down'),
    )

    const before = await containers(two)
    await three.stopDaemon('SIGKILL')
    const said = /of 2 managers 2 have to agree, and only this one is in reach; missing: node3 /
    await eventually('each command says why it can not', async () => {
      const results = await Promise.all(
        [
          ...['service', 'node', 'secret', 'stack', 'network'].map((kind) => [kind, 'ls']),
          ['swarm', 'join-token', 'worker'],
          ['network', 'inspect', 'ingress'],
        ].map((words) => two.skepDocker(...words)),
      )
      return results.every(({ code, stderr }) => code !== 0 && said.test(stderr))
    })
    // What the host's own engine has can be told of.
    await two.skepDockerOk('network', 'inspect', 'bridge')
    await two.stopDaemon()
    await two.startDaemon()
    await eventually('it says so after a restart, too', async () => {
      const { stderr } = await two.skepDocker('service', 'ls')
      return /of 2 managers 2 have to agree/.test(stderr)
    })
    await goOn(two, before)
    await three.startDaemon()
    await eventually('both are back', async () => (await nodes(two)).join().includes('Leader'))
    await goOn(two, before)
  })

  test('one that was demoted while it was away comes back as a worker, and is promoted again', async () => {
    const [one, two] = [lab.host(1), lab.host(2)]
    await one.powerOn()
    await one.startDaemon()
    await eventually('node1 is ready', async () => (await nodes(two)).includes('node1 Ready'))
    await eventually('node1 is a worker', async () => {
      const { stderr } = await one.skepDocker('node', 'ls')
      return stderr.includes("Worker nodes can't be used")
    })
    await two.skepDockerOk('node', 'promote', 'node1')
    await eventually('node1 serves', async () => (await nodes(one)).length === 3)
    await one.skepDockerOk('swarm', 'leave', '--force')
    await eventually('node1 has left', async () => (await nodes(two)).includes('node1 Down'))
  })

  test('one that is left begins anew with what it has', async () => {
    const two = lab.host(2)
    const before = await containers(two)
    await lab.host(3).powerOff()
    await two.skepDockerOk('swarm', 'init', '--force-new-cluster')
    assert.deepEqual(await nodes(two), ['node1 Down', 'node2 Ready Leader', 'node3 Down'])
    await two.skepDockerOk('config', 'create', 'anew', '/etc/hostname')
    await goOn(two, before)
  })
})
