import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { openFileJournal } from '../src/daemon/node-journal.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually, run } from './support/daemon.ts'

const why = await whyNoLab()

/** A cut that is no loss yet: a second less than the silence after which a node is down, in ms. */
const cutMsMax = 2_000
/** A daemon that was killed says in time that it is back: a second less than it is waited for, in ms. */
const awayMsMax = 3_000

/** A manager and two workers, each a host of its own with engine and daemon. */
describe('a cluster of three hosts', { skip: why ?? false }, () => {
  let lab: Lab
  let manager: LabHost
  let worker: LabHost
  let other: LabHost

  before(async () => {
    lab = await openLab({ hosts: 3, daemons: true })
    ;[manager, worker, other] = [lab.host(1), lab.host(2), lab.host(3)]
    await manager.skepDockerOk('swarm', 'init', '--advertise-addr', manager.address)
  })
  after(async () => {
    await lab.down()
  })

  const token = (role = 'worker') => manager.skepDockerOk('swarm', 'join-token', '-q', role)
  const stateOf = (host: LabHost) =>
    manager.skepDockerOk('node', 'inspect', host.name, '--format', '{{.Status.State}}')
  const untilState = (host: LabHost, state: string) =>
    settles('a nodes state', async () => assert.equal(await stateOf(host), state))
  /** The managers are in session with a host's agent: a call about a container there comes back. */
  const isHeard = (host: LabHost, service: string) =>
    eventually(`${host.name} is in session`, async () => {
      const [id = ''] = (await host.dockerOk('ps', '-q', '--filter', `name=${service}`)).split('\n')
      return id !== '' && (await manager.skepDocker('logs', '--tail', '1', id)).code === 0
    })
  const taskIds = async (service: string) =>
    (
      await manager.skepDockerOk(
        'service',
        'ps',
        '-q',
        '--filter',
        'desired-state=running',
        service,
      )
    )
      .split('\n')
      .sort()
  const placesOf = async (service: string) =>
    (
      await manager.skepDockerOk(
        ...['service', 'ps', '--filter', 'desired-state=running', '--format'],
        ...['{{.Node}} {{.CurrentState}}', service],
      )
    ).split('\n')
  const untilRunning = (
    service: string,
    count: number,
    on: (node: string) => boolean = () => true,
  ) =>
    settles('running where they should', async () => {
      const running = (await placesOf(service)).filter((place) => / Running/.test(place))
      assert.equal(running.length, count)
      assert.ok(
        running.every((place) => on(place.split(' ')[0] ?? '')),
        running.join(', '),
      )
    })

  test('hosts join with the stock command, and bad tokens are told apart', async () => {
    const address = `${manager.address}:2377`
    const rotated = await token()
    await manager.skepDockerOk('swarm', 'join-token', '--rotate', '-q', 'worker')
    const join = async (host: LabHost, text: string, to = address) =>
      (await host.skepDocker('swarm', 'join', '--token', text, to)).stderr
    assert.match(await join(worker, rotated), /was rotated at .* and is no longer taken/)
    const good = await token()
    assert.match(await join(worker, `${good.slice(0, -4)}0000`), /is wrong/)
    assert.match(await join(worker, good, `${manager.address}:2399`), /nobody listens on/)
    assert.match(
      await join(worker, good, `${manager.address}:7780`),
      /is no manager of Skep|can't be reached/,
    )
    const made = await manager.skep('token', 'create', '-q', '--label', 'zone=a', '--max-uses', '1')
    const labelled = made.stdout.trim()
    assert.equal(await join(worker, labelled), '')
    assert.match(await join(other, labelled), /is used up/)
    assert.match(await join(worker, good), /already part of a swarm/)
    assert.equal(await join(other, good), '')
    await untilState(worker, 'ready')
    await untilState(other, 'ready')
    const labels = await manager.skepDockerOk(
      ...['node', 'inspect', worker.name, '--format', '{{.Spec.Labels.zone}}'],
    )
    assert.equal(labels, 'a')
  })

  test('a worker says that it is one', async () => {
    const refused = await worker.skepDocker('service', 'ls')
    assert.match(refused.stderr, /Worker nodes can't be used to view or modify cluster state/)
    const info = await worker.skepDockerOk('info', '--format', '{{json .Swarm}}')
    assert.match(info, /"LocalNodeState":"active","ControlAvailable":false/)
    assert.ok(info.includes(`"NodeAddr":"${worker.address}"`))
    assert.ok(info.includes(`"Addr":"${manager.address}:2377"`))
  })

  test('services run on all hosts, and their logs come from all of them', async () => {
    await manager.skepDockerOk(
      ...['service', 'create', '-q', '--name', 'talk', '--mode', 'global', 'busybox'],
      ...['sh', '-c', 'echo hello from $(hostname); sleep 100000'],
    )
    await manager.skepDockerOk(
      'service',
      'create',
      '-q',
      '--name',
      'web',
      '--replicas',
      '6',
      'whoami:v1',
    )
    await untilRunning('web', 6)
    await settles('logs of all hosts', async () => {
      const logs = await manager.skepDockerOk('service', 'logs', 'talk')
      for (const { name } of lab.hosts) assert.match(logs, new RegExp(`@${name}\\s+\\| hello from`))
    })
    const spread = new Set((await placesOf('web')).map((place) => place.split(' ')[0]))
    assert.equal(spread.size, 3)
  })

  test('docker exec, cp, inspect and logs on the manager find containers of other hosts', async () => {
    const id = await worker.dockerOk('ps', '-q', '--filter', 'name=talk')
    const name = await other.dockerOk('ps', '--format', '{{.Names}}', '--filter', 'name=talk')
    assert.equal(
      await manager.skepDockerOk('inspect', id, '--format', '{{.State.Status}}'),
      'running',
    )
    const exec = await manager.skepDocker('exec', id, 'sh', '-c', 'hostname; exit 3')
    assert.equal(exec.stdout.trim(), id)
    assert.equal(exec.code, 3)
    const input = 'x'.repeat(300_000)
    const piped = await run(
      'docker',
      ['-H', manager.api, 'exec', '-i', name, 'sh', '-c', 'cat; echo end'],
      { input },
    )
    assert.ok(piped.stdout === `${input}end\n`, `${piped.stdout.length} characters came back`)
    assert.match(await manager.skepDockerOk('logs', name), /hello from/)
    const copied = await run('docker', ['-H', manager.api, 'cp', `${name}:/etc/hostname`, '-'])
    assert.match(copied.stdout, /^hostname\0/)
    const missing = await manager.skepDocker('exec', 'f'.repeat(12), 'true')
    assert.match(missing.stderr, /No such container/)
  })

  test('a flapping link, a stopped leader and a killed daemon move no task', async (t) => {
    const before = await taskIds('web')
    const cutMs = await lasted(async () => {
      await lab.cut(other.number)
      await pause(1_000)
      await lab.heal()
    })
    await manager.signalDaemon('SIGSTOP')
    await pause(8_000)
    await manager.signalDaemon('SIGCONT')
    const awayMs = await lasted(async () => {
      await worker.stopDaemon('SIGKILL')
      await pause(1_000)
      await worker.startDaemon()
    })
    await manager.stopDaemon('SIGKILL')
    await manager.startDaemon()
    // A fresh leader calls nobody down for 8 s: what it is to lose, it would have lost by then.
    await pause(10_000)
    for (const host of lab.hosts) await untilState(host, 'ready')
    for (const host of [worker, other]) await isHeard(host, 'web')
    t.diagnostic(`cut for ${cutMs} ms, the daemon away for ${awayMs} ms`)
    // On a machine so busy that they are away for longer than nodes are waited for, it is right to replace their tasks.
    if (cutMs < cutMsMax && awayMs < awayMsMax) assert.deepEqual(await taskIds('web'), before)
    await untilRunning('web', 6)
  })

  test('the root is rotated while tasks run', async () => {
    const before = await taskIds('web')
    const root = await manager.skepDockerOk('swarm', 'ca')
    await manager.skepDockerOk('swarm', 'ca', '--rotate', '--quiet')
    assert.notEqual(await manager.skepDockerOk('swarm', 'ca'), root)
    await settles('every node trusts the new root', async () => {
      for (const host of lab.hosts) {
        const trusted = await manager.skepDockerOk(
          ...['node', 'inspect', host.name, '--format', '{{.Description.TLSInfo.TrustRoot}}'],
        )
        assert.equal(trusted, await manager.skepDockerOk('swarm', 'ca'))
      }
    })
    assert.deepEqual(await taskIds('web'), before)
  })

  test('tasks of a host that is cut off run elsewhere, and its own end when it is back', async () => {
    const followed = manager.skepDocker('service', 'logs', '--follow', 'talk')
    // Time to begin; where that takes longer, it is told of the lost node at its beginning.
    await pause(1_000)
    await lab.cut(other.number)
    await untilState(other, 'down')
    await untilRunning('web', 6, (node) => node !== other.name)
    const logs = await manager.skepDocker('service', 'logs', 'talk')
    assert.match(logs.stdout, new RegExp(`@${worker.name}`))
    assert.match(
      logs.stderr,
      new RegExp(`incomplete log stream.*node ${other.name} is not available`),
    )
    await manager.skepDockerOk('service', 'rm', 'talk')
    await lab.heal()
    await untilState(other, 'ready')
    assert.match((await followed).stderr, /incomplete log stream: node node3 is not available/)
    await settles('its tasks have ended', async () => {
      const left = await other.dockerOk('ps', '-q', '--filter', 'name=web')
      assert.equal(left, '')
    })
  })

  test('a host goes on alone, also after a reboot, and is taken as it is by the managers', async () => {
    await manager.skepDockerOk('service', 'update', '-q', '--force', 'web')
    await untilRunning('web', 6)
    const before = await taskIds('web')
    await hasWrittenDown(worker)
    const containers = async () =>
      (await worker.dockerOk('ps', '-q', '--no-trunc')).split('\n').sort()
    const own = await containers()
    assert.ok(own.length >= 2)
    await manager.stopDaemon('SIGKILL')
    await worker.powerOff()
    await worker.powerOn()
    await worker.startDaemon()
    await settles('the tasks run again', async () => {
      assert.deepEqual(await containers(), own)
    })
    await manager.startDaemon()
    for (const host of [worker, other]) await isHeard(host, 'web')
    await untilState(worker, 'ready')
    await untilRunning('web', 6)
    assert.deepEqual(await taskIds('web'), before)
  })

  test('a host that was removed while it was off is told so, leaves, and joins again', async () => {
    const refused = await manager.skepDocker('node', 'rm', other.name)
    assert.match(refused.stderr, /is not down and can't be removed/)
    await manager.skepDockerOk('node', 'rm', '--force', other.name)
    await settles('the node knows that it was removed', async () => {
      const error = await other.skepDockerOk('info', '--format', '{{.Swarm.Error}}')
      assert.match(error, /is not part of this cluster\. It was removed/)
    })
    await other.skepDockerOk('swarm', 'leave')
    assert.equal(await other.dockerOk('ps', '-aq'), '')
    await other.skepDockerOk('swarm', 'join', '--token', await token(), manager.address)
    await untilState(other, 'ready')
    // Leaving says goodbye: nobody has to wait for silence.
    await other.skepDockerOk('swarm', 'leave')
    assert.equal(await stateOf(other), 'down')
    await manager.skepDockerOk('node', 'rm', other.name)
    await untilRunning('web', 6, (node) => node !== other.name)
  })
})

/** Waits until the assertions hold. */
async function settles(what: string, check: () => Promise<void>): Promise<void> {
  let last: unknown
  const look = () =>
    check().then(
      () => true,
      (error: unknown) => {
        last = error
        return false
      },
    )
  await eventually(what, look).catch((error: unknown) => {
    throw last ?? error
  })
}

/** How long something took, in ms. */
async function lasted(work: () => Promise<void>): Promise<number> {
  const beganAtMs = performance.now()
  await work()
  return Math.round(performance.now() - beganAtMs)
}

/** Waits until a worker's journal has the tasks that run there, and no others as running. */
async function hasWrittenDown(host: LabHost): Promise<void> {
  const folder = join(host.folder, 'skep/cluster')
  const credentials = await readFile(join(folder, 'certificates/node.pem'), 'utf8')
  const [keyPem = ''] = /-----BEGIN PRIVATE KEY-----[\s\S]*/.exec(credentials) ?? []
  const journal = openFileJournal({ path: join(folder, 'node.journal'), keyPem })
  await eventually(`the journal of ${host.name} has its tasks`, async () => {
    const format = '{{.Label "com.docker.swarm.task.id"}}'
    const ids = (await host.dockerOk('ps', '--format', format)).split('\n').sort()
    const statuses = [...((await journal.read())?.statuses ?? [])]
    const noted = statuses.filter(([, { state }]) => state === 'running').map(([id]) => id)
    return noted.sort().join() === ids.join()
  })
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
