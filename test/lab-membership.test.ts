import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { joinCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { dockerClients, eventually, run } from './support/daemon.ts'
import { etcdIsMissing } from './support/etcd-cluster.ts'
import { filesWith } from './support/look.ts'

const skip = (await whyNoLab()) ?? etcdIsMissing
const skep = resolve(import.meta.dirname, '../bin/skep')
const taskLabel = 'label=com.docker.swarm.task.id'

/** How nodes go, come back, and become something else; the swarm is locked all the while. */
describe('membership', { skip, concurrency: false }, () => {
  let lab: Lab
  let one: LabHost
  let two: LabHost
  let three: LabHost
  let unlockKey = ''
  const needle = `needle-${process.pid}-in-the-haystack`
  const running: ChildProcess[] = []

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    one = lab.host(1)
    two = lab.host(2)
    three = lab.host(3)
    await one.skepDockerOk('swarm', 'init', '--autolock', '--advertise-addr', one.address)
    await eventually('its node is ready', async () =>
      (await nodes()).includes('node1 Ready Leader'),
    )
    unlockKey = await one.skepDockerOk('swarm', 'unlock-key', '-q')
    // Moves into etcd with the rest.
    await told(one, needle, 'config', 'create', 'rest-config', '-')
    await joinCluster(two, one, 'manager')
    await joinCluster(three, one, 'worker')
  })
  after(async () => {
    for (const child of running) child.kill('SIGKILL')
    await lab[Symbol.asyncDispose]()
  })

  /** The stock client against a host's daemon, with something on its standard input. */
  async function told(host: LabHost, input: string, ...args: readonly string[]): Promise<void> {
    const [client = 'docker'] = dockerClients()
    const { code, stderr } = await run(client, ['-H', host.api, ...args], { input })
    assert.equal(code, 0, stderr)
  }

  /** `node3 Ready Reachable`, as the first manager has it. */
  async function nodes(): Promise<readonly string[]> {
    const format = '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
    const list = await one.skepDocker('node', 'ls', '--format', format)
    return list.stdout.split('\n').map((line) => line.trim())
  }

  async function containers(host: LabHost): Promise<string> {
    return host.dockerOk('ps', '-q', '--filter', taskLabel)
  }

  test('what people declare lies on no disk in plain text, and an unlocked manager has it again', async () => {
    await told(one, needle, 'secret', 'create', 'rest-secret', '-')
    await one.skepDockerOk(
      ...['service', 'create', '-d', '--no-resolve-image', '--name', 'rest', '--mode', 'global'],
      ...['--env', `PASSWORD=${needle}`, '--secret', 'rest-secret', '--config', 'rest-config'],
      'whoami:v1',
    )
    for (const host of [one, two, three]) {
      await eventually(`it runs on ${host.name}`, async () => (await containers(host)) !== '')
      assert.deepEqual(filesWith(join(host.folder, 'skep'), needle), [], host.name)
    }
    await two.stopDaemon()
    await two.startDaemon()
    const state = () => two.skepDockerOk('info', '-f', '{{.Swarm.LocalNodeState}}')
    assert.equal(await state(), 'locked')
    await told(two, `${unlockKey}\n`, 'swarm', 'unlock')
    await eventually('it serves', async () => (await two.skepDocker('node', 'ls')).code === 0)
    const spec = await two.skepDockerOk('service', 'inspect', 'rest')
    assert(spec.includes(`PASSWORD=${needle}`))
    assert.deepEqual(filesWith(join(two.folder, 'skep'), needle), [])
    await two.skepDockerOk('service', 'rm', 'rest')
    for (const host of [one, two, three]) {
      await eventually(`it ends on ${host.name}`, async () => (await containers(host)) === '')
    }
  })

  test('logs that are followed go on when their node is back', async () => {
    await one.skepDockerOk(
      ...['service', 'create', '-d', '--no-resolve-image', '--name', 'talk', '--init'],
      ...['--label', 'skep.failure=keep', '--constraint', 'node.hostname==node3', 'busybox'],
      ...['sh', '-c', 'n=0; while true; do echo line $n; n=$((n+1)); sleep 1; done'],
    )
    const child = spawn(skep, ['service', 'logs', '--raw', '-f', 'talk'], {
      env: { ...process.env, SKEP_HOST: two.api },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.push(child)
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
    }
    const numbers = (): readonly number[] =>
      [...text.matchAll(/line (\d+)/g)].map(([, n]) => Number(n))
    await eventually('it talks', async () => numbers().length >= 3)
    await lab.cut(3)
    await eventually('the break is told', async () => text.includes('node node3 is not available'))
    const before = numbers().length
    await lab.heal()
    // It says a line a second.
    await eventually('it goes on', async () => numbers().length > before + 20, 240_000)
    const told = numbers()
    assert.deepEqual(
      told,
      told.map((_, index) => index),
      'each line once, in order',
    )
    child.kill('SIGKILL')
  })

  test('a node that was removed stops its tasks, says so, and can join again', async () => {
    assert.notEqual(await containers(three), '')
    await one.skepDockerOk('node', 'rm', '--force', 'node3')
    await eventually('its tasks stop', async () => (await containers(three)) === '')
    await eventually('it says why', async () => {
      const info = await three.skepDocker('info')
      return /this node was removed from the cluster, and its tasks are stopped/.test(info.stdout)
    })
    assert.match(three.log('daemon'), /this node was removed from the cluster/)
    await three.skepDockerOk('swarm', 'leave')
    await joinCluster(three, one, 'worker')
    await eventually('its task runs again', async () => (await containers(three)) !== '')
    await three.skepDockerOk('swarm', 'leave')
    await eventually('it is down', async () => (await nodes()).includes('node3 Down'))
    await one.skepDockerOk('node', 'rm', 'node3')
  })

  /** Takes the port of a host's etcd, so that it can't become a manager. Resolves with what gives it back. */
  async function blockEtcd(host: LabHost): Promise<() => Promise<void>> {
    const script = "require('net').createServer().listen(2380)"
    const [command = '', ...inside] = host.inside()
    const blocker = spawn(command, [...inside, process.execPath, '-e', script], { stdio: 'ignore' })
    running.push(blocker)
    await eventually('the port is taken', async () => {
      return (await host.must('ss', '-ltn')).includes(':2380')
    })
    const kill = "kill $(ss -ltnpH 'sport = :2380' | grep -o 'pid=[0-9]*' | cut -d= -f2)"
    return async () => {
      await host.run('bash', '-c', kill)
    }
  }

  test('a host that can not become a manager leaves nothing of its join', async () => {
    const unblock = await blockEtcd(three)
    const token = await one.skepDockerOk('swarm', 'join-token', '-q', 'manager')
    const how = ['swarm', 'join', '--token', token, `${one.address}:2377`]
    const refused = await three.skepDocker(...how)
    assert.notEqual(refused.code, 0)
    assert.match(
      refused.stderr,
      /this host did not become a manager: .*nothing of this attempt is left/s,
    )
    assert.ok((await nodes()).every((line) => !line.startsWith('node3')))
    const state = await three.skepDockerOk('info', '-f', '{{.Swarm.LocalNodeState}}')
    assert.equal(state, 'inactive')
    await unblock()
    await eventually('it joins', async () => (await three.skepDocker(...how)).code === 0)
    await eventually('it counts', async () => (await nodes()).includes('node3 Ready Reachable'))
  })

  test('a manager of a locked swarm that becomes a worker starts without the key', async () => {
    await one.skepDockerOk('node', 'demote', 'node3')
    await eventually('it is a worker', async () => (await nodes()).includes('node3 Ready'))
    await eventually('it knows', async () => {
      const { stderr } = await three.skepDocker('node', 'ls')
      return stderr.includes("Worker nodes can't be used")
    })
    // A change of the swarm may not seal it again.
    unlockKey = await one.skepDockerOk('swarm', 'unlock-key', '-q', '--rotate')
    await three.stopDaemon()
    await three.startDaemon()
    const state = await three.skepDockerOk('info', '-f', '{{.Swarm.LocalNodeState}}')
    assert.equal(state, 'active')
    await eventually('its task runs', async () => (await containers(three)) !== '')
    assert.match(unlockKey, /^SWMKEY-1-/)
  })

  test('a worker that is demoted before it could become a manager gives that up', async () => {
    const unblock = await blockEtcd(three)
    await one.skepDockerOk('node', 'promote', 'node3')
    const says = (what: string) =>
      eventually(what, async () => three.log('daemon').includes(what), 240_000)
    await says('this node could not take the role it is given')
    await one.skepDockerOk('node', 'demote', 'node3')
    await says('this node stays a worker: it was demoted before it had become a manager')
    await unblock()
    await eventually('it is a worker', async () => (await nodes()).includes('node3 Ready'))
    assert.notEqual(await containers(three), '')
  })
})
