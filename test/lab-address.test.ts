import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { formCluster } from './lab/form-cluster.ts'
import type { LabHost } from './lab/host.ts'
import { type Lab, openLab, whyNoLab } from './lab/open-lab.ts'
import { eventually } from './support/daemon.ts'
import { etcdIsMissing } from './support/etcd-cluster.ts'

const skip = (await whyNoLab()) ?? etcdIsMissing

/** Hosts get other addresses, and managers other parts, while nodes that have to find them are away. */
describe('addresses that change', { skip, concurrency: false }, () => {
  let lab: Lab
  let one: LabHost
  let two: LabHost
  let three: LabHost
  let four: LabHost

  before(async () => {
    lab = await openLab({ hosts: 4, daemons: true })
    one = lab.host(1)
    two = lab.host(2)
    three = lab.host(3)
    four = lab.host(4)
    await formCluster(one, { worker: [two, three, four] })
    await one.skepDockerOk('network', 'create', '-d', 'overlay', 'net')
    const how = ['service', 'create', '-d', '--no-resolve-image', '--name', 'there']
    const what = ['--mode', 'global', '--network', 'net', 'busybox:latest', 'sleep', '100000']
    await one.skepDockerOk(...how, ...what)
    await settle(one)
    await allReach()
  })
  after(() => lab[Symbol.asyncDispose]())

  const container = (host: LabHost): Promise<string> =>
    host.dockerOk('ps', '-q', '--filter', 'name=there')
  const containers = (): Promise<readonly string[]> => Promise.all(lab.hosts.map(container))

  /** Every host has the container of the task that is to run there, and no other. */
  async function settle(by: LabHost): Promise<void> {
    await eventually('every host has its task', async () => {
      const wanted = ['service', 'ps', '-q', '--no-trunc', '-f', 'desired-state=running', 'there']
      const ids = (await by.skepDockerOk(...wanted)).split('\n').sort()
      const format = '{{.Label "com.docker.swarm.task.id"}}'
      const own = await Promise.all(
        lab.hosts.map((host) => host.dockerOk('ps', '--filter', 'name=there', '--format', format)),
      )
      return ids.length === lab.hosts.length && own.sort().join() === ids.join()
    })
  }

  /** Each task reaches each other one over the cluster's network. */
  async function allReach(): Promise<void> {
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
    for (const from of lab.hosts) {
      const asker = await container(from)
      for (const to of lab.hosts) {
        const address = await to.dockerOk('inspect', '-f', format, await container(to))
        await eventually(`${from.name} reaches ${to.name}`, async () => {
          const ping = ['exec', asker, 'ping', '-c', '1', '-W', '1', address]
          return (await from.docker(...ping)).code === 0
        })
      }
    }
  }

  /** `node2 Ready Reachable`, as one manager has it. */
  async function nodes(host: LabHost): Promise<readonly string[]> {
    const format = '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
    const list = await host.skepDocker('node', 'ls', '--format', format)
    return list.stdout.split('\n').map((line) => line.trim())
  }

  const managersAre = (by: LabHost, ...managers: readonly LabHost[]) =>
    eventually(`${managers.map(({ name }) => name).join(', ')} manage`, async () => {
      const found = (await nodes(by)).filter((line) => /^\S+ Ready (Leader|Reachable)$/.test(line))
      const names = found.map((line) => line.split(' ')[0] ?? '').sort()
      const isLed = found.some((line) => line.endsWith('Leader'))
      return isLed && names.join() === managers.map(({ name }) => name).join()
    })

  const workerIsReady = (by: LabHost, worker: LabHost) =>
    eventually(`${worker.name} is ready`, async () => {
      return (await nodes(by)).includes(`${worker.name} Ready`)
    })

  async function managersKnownTo(host: LabHost): Promise<readonly string[]> {
    const format = '{{range .Swarm.RemoteManagers}}{{.Addr}} {{end}}'
    return (await host.skepDockerOk('info', '-f', format)).split(' ').filter((one) => one !== '')
  }

  const addressOf = (by: LabHost, node: LabHost): Promise<string> =>
    by.skepDockerOk('node', 'inspect', '-f', '{{.Status.Addr}}', node.name)
  const managerAddressOf = (by: LabHost, node: LabHost): Promise<string> =>
    by.skepDockerOk('node', 'inspect', '-f', '{{.ManagerStatus.Addr}}', node.name)

  /** A manager's address is what others have of it: it tells them a little after it is there. */
  const isKnownByItsAddress = (by: LabHost, node: LabHost) =>
    eventually(`${by.name} has the address of ${node.name}`, async () => {
      return (await managerAddressOf(by, node)) === `${node.address}:2377`
    })

  test('a node that was away while its managers became workers is sent on by them', async () => {
    await four.stopDaemon()
    await one.skepDockerOk('node', 'promote', 'node2')
    await managersAre(two, one, two)
    await two.skepDockerOk('node', 'demote', 'node1')
    const said = new Set<string>()
    await eventually('node1 is a worker', async () => {
      const { stderr } = await one.skepDocker('node', 'ls')
      said.add(stderr)
      return stderr.includes("Worker nodes can't be used")
    })
    assert.doesNotMatch(
      [...said].join(),
      /Use "docker swarm init"/,
      'it is in a cluster all the while',
    )
    await managersAre(two, two)
    // The first one still knows after a restart of its own.
    await one.stopDaemon()
    await one.startDaemon()
    await four.startDaemon()
    await eventually('node4 has met its manager', async () => {
      return (await managersKnownTo(four)).includes(`${two.address}:2377`)
    })
    await workerIsReady(two, four)
    await two.skepDockerOk('node', 'promote', 'node1')
    await managersAre(two, one, two)
    await two.skepDockerOk('node', 'promote', 'node3')
    await managersAre(one, one, two, three)
    await settle(one)
  })

  test('a worker is found by its new address, without being told', async () => {
    const before = await containers()
    await four.changeAddress(104)
    await eventually('the others know', async () => (await addressOf(two, four)) === four.address)
    await allReach()
    assert.deepEqual(await containers(), before)
  })

  test('a manager is found by its new address once its daemon is started again', async () => {
    const before = await containers()
    await three.stopDaemon()
    await three.changeAddress(103)
    await three.startDaemon()
    await managersAre(one, one, two, three)
    await isKnownByItsAddress(one, three)
    await eventually('its node has the address, too', async () => {
      return (await addressOf(three, three)) === three.address
    })
    // A majority that needs it: etcd finds it there.
    await one.stopDaemon()
    let tries = 0
    await eventually('two of three agree', async () => {
      // A name of its own each time: one that was refused for want of an answer may be there all the same.
      const create = ['config', 'create', `agreed${tries++}`, '/etc/hostname']
      return (await three.skepDocker(...create)).code === 0
    })
    await one.startDaemon()
    await managersAre(three, one, two, three)
    await eventually('a worker knows where it is', async () => {
      return (await managersKnownTo(four)).includes(`${three.address}:2377`)
    })
    await allReach()
    assert.deepEqual(await containers(), before)
  })

  test('the address of another manager is refused', async () => {
    await three.stopDaemon()
    const taken = three.startDaemon(['--advertise-addr', two.address])
    await assert.rejects(taken, /198\.18\.\d+\.2:2377 belongs to another manager/)
    await three.startDaemon()
    await managersAre(one, one, two, three)
    await isKnownByItsAddress(one, three)
  })

  test('one of two managers comes back by itself', async () => {
    await one.skepDockerOk('node', 'demote', 'node2')
    await managersAre(one, one, three)
    await one.stopDaemon()
    await one.changeAddress(101)
    await one.startDaemon()
    await managersAre(three, one, three)
    await workerIsReady(three, four)
    await settle(three)
    await isKnownByItsAddress(three, one)
    await allReach()
  })

  test('the only manager does, and a worker finds it where it is told of it', async () => {
    for (const name of ['node2', 'node3']) await one.skepDockerOk('node', 'demote', name)
    await managersAre(one, one)
    // To become a worker takes a certificate of the one that is about to be away.
    for (const host of [two, three]) {
      await eventually(`${host.name} is a worker`, async () => {
        const { stderr } = await host.skepDocker('node', 'ls')
        return stderr.includes("Worker nodes can't be used")
      })
    }
    await one.stopDaemon()
    await one.changeAddress(91)
    await one.startDaemon()
    await managersAre(one, one)
    const says = /start this daemon with --manager/
    await eventually('a worker says what to do', async () => {
      return says.test((await four.skepDocker('info')).stdout)
    })
    for (const host of [two, three, four]) {
      await host.stopDaemon()
      await host.startDaemon(['--manager', one.address])
      // A fresh leader holds nodes for ready for a while before it has heard them: this says that they have met.
      await eventually(`${host.name} knows no manager but this one`, async () => {
        return (await managersKnownTo(host)).join() === `${one.address}:2377`
      })
      await workerIsReady(one, host)
    }
    // It knows now: nobody has to tell it again.
    await four.stopDaemon()
    await four.startDaemon()
    await workerIsReady(one, four)
    // Nobody could tell of the tasks there meanwhile: others took their places.
    await settle(one)
    await allReach()
  })
})
