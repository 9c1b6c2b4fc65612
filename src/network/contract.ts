import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import type { DataPlane, DesiredNetwork, LocalTask } from './data-plane.ts'
import { backendOf, buildEndpoint, type Place } from './test-objects.ts'

export interface DataPlaneUnderTest {
  readonly plane: DataPlane
  /** `10.213.<third>.0/24`, named apart from others' networks. */
  network(name: string, third: number, extra?: Partial<NetworkAssignment>): NetworkAssignment
  /** Starts a container that listens on port 80. */
  task(name: string, places: readonly Place[]): Promise<LocalTask>
  /** Name of the task that took a connection to port 80, or that it was refused. */
  connect(from: LocalTask, address: string): Promise<string>
  resolve(from: LocalTask, name: string, type?: 'A' | 'AAAA'): Promise<readonly string[]>
  /** Does something behind the data plane's back that it notices. */
  sabotage(): Promise<void>
  close(): Promise<void>
}

/** What every data plane does. */
export function describeDataPlaneContract(
  name: string,
  open: () => Promise<DataPlaneUnderTest>,
  skip: string | false = false,
): void {
  describe(`data plane contract: ${name}`, { skip, concurrency: false }, () => {
    let subject: DataPlaneUnderTest
    let network: NetworkAssignment
    let one: LocalTask
    let two: LocalTask
    let asking: LocalTask
    const vip = '10.213.20.100'

    const desired = (endpoints: readonly EndpointAssignment[]): DesiredNetwork => ({
      networks: [network],
      endpoints,
      tasks: [one, two, asking],
    })
    const web = (tasks: readonly LocalTask[]) =>
      buildEndpoint('web', {
        networks: [{ networkId: network.id, vip, aliases: ['shop'] }],
        backends: tasks.map((task) => backendOf(task)),
      })

    /** Who answers there, sorted. A first packet that is sent again may take a turn of its own: each has more than one. */
    const inTurn = async (from: LocalTask, address: string): Promise<readonly string[]> => {
      const names = new Set<string>()
      for (let asked = 0; asked < 6; asked++) names.add(await subject.connect(from, address))
      return [...names].sort()
    }

    before(async () => {
      subject = await open()
      network = subject.network('net', 20)
      await subject.plane.ensureNetwork(network)
      one = await subject.task('one', [{ network, address: '10.213.20.11' }])
      two = await subject.task('two', [{ network, address: '10.213.20.12' }])
      asking = await subject.task('asking', [{ network, address: '10.213.20.13' }])
    })
    after(() => subject?.close())

    test('a network is made once, and has its name', async () => {
      const { plane } = subject
      assert.equal(await plane.ensureNetwork(network), network.name)
      assert.equal(await plane.ensureNetwork(network), network.name)
    })

    test('a subnet that a network in use still has is waited for', async () => {
      const other = subject.network('other', 20)
      await assert.rejects(subject.plane.ensureNetwork(other), { code: 'unavailable' })
    })

    test('tasks on a cluster network are told of the resolver there, others of none', () => {
      const ingress = { ...network, id: idFrom<'network'>('ingress'), ingress: true }
      assert.deepEqual(subject.plane.nameserversFor([ingress, network]), [network.gateway])
      assert.deepEqual(subject.plane.nameserversFor([ingress]), [])
      assert.deepEqual(subject.plane.nameserversFor([]), [])
    })

    test('connections to a VIP go to its backends in turn, and to them alone', async () => {
      await subject.plane.apply(desired([web([one, two])]))
      assert.deepEqual(await inTurn(asking, vip), [one.name, two.name].sort())
      await subject.plane.apply(desired([web([two])]))
      assert.equal(await subject.connect(asking, vip), two.name)
      assert.equal(await subject.connect(asking, vip), two.name)
    })

    test('a VIP without backends refuses', async () => {
      await subject.plane.apply(desired([web([])]))
      assert.equal(await subject.connect(asking, vip), 'refused')
    })

    test('a task that is no backend still has its own address', async () => {
      await subject.plane.apply(desired([web([])]))
      assert.equal(await subject.connect(asking, '10.213.20.11'), one.name)
    })

    test('names follow the desired state', async () => {
      await subject.plane.apply(desired([web([one, two])]))
      for (const asked of ['web', 'shop']) {
        assert.deepEqual(await subject.resolve(asking, asked), [vip])
      }
      const tasks = await subject.resolve(asking, 'tasks.web')
      assert.deepEqual(tasks.toSorted(), ['10.213.20.11', '10.213.20.12'])
      await subject.plane.apply(desired([]))
      assert.deepEqual(await subject.resolve(asking, 'shop'), [])
    })

    test('a network with IPv6 has all of it there too: names, VIPs, tasks', async () => {
      const dual = subject.network('six', 21, {
        ipv6: { subnet: 'fd00:213:21::/64', gateway: 'fd00:213:21::1' },
      })
      await subject.plane.ensureNetwork(dual)
      const here = await subject.task('here', [{ network: dual, address: '10.213.21.11' }])
      const there = await subject.task('there', [{ network: dual, address: '10.213.21.12' }])
      const six = (tasks: readonly LocalTask[]) => ({
        networks: [network, dual],
        endpoints: [
          buildEndpoint('six', {
            networks: [{ networkId: dual.id, vip: '10.213.21.100', aliases: [] }],
            backends: tasks.map((task) => backendOf(task)),
          }),
        ],
        tasks: [one, two, asking, here, there],
      })
      const wideVip = 'fd00:213:21::64'
      await subject.plane.apply(six([here, there]))
      assert.deepEqual(await subject.resolve(here, 'six', 'AAAA'), [wideVip])
      assert.deepEqual(await subject.resolve(here, 'six'), ['10.213.21.100'])
      const tasks = await subject.resolve(here, 'tasks.six', 'AAAA')
      assert.deepEqual(tasks.toSorted(), ['fd00:213:21::b', 'fd00:213:21::c'])
      // One of the two asks for itself.
      assert.deepEqual(await inTurn(here, wideVip), [here.name, there.name].sort())
      assert.equal(await subject.connect(here, 'fd00:213:21::c'), there.name)
      await subject.plane.apply(six([there]))
      assert.equal(await subject.connect(here, wideVip), there.name)
      assert.equal(await subject.connect(here, wideVip), there.name)
      await subject.plane.apply(six([]))
      assert.equal(await subject.connect(here, wideVip), 'refused')
      await subject.plane.apply(six([here]))
      await subject.sabotage()
      assert.notDeepEqual(await subject.plane.audit(), [])
      assert.deepEqual(await subject.plane.audit(), [])
      assert.equal(await subject.connect(there, wideVip), here.name)
      assert.deepEqual(await subject.resolve(asking, 'web', 'AAAA'), [])
    })

    test('of many changes at once the last one holds when its call ends', async () => {
      const rounds = [[one], [two], [one, two], [], [two], [one]]
      await Promise.all(rounds.map((tasks) => subject.plane.apply(desired([web(tasks)]))))
      assert.equal(await subject.connect(asking, vip), one.name)
    })

    test('the audit finds what was broken, once', async () => {
      await subject.plane.apply(desired([web([one])]))
      assert.deepEqual(await subject.plane.audit(), [])
      await subject.sabotage()
      assert.notDeepEqual(await subject.plane.audit(), [])
      assert.deepEqual(await subject.plane.audit(), [])
      assert.equal(await subject.connect(asking, vip), one.name)
    })

    test('a process that is gone has no open connections', async () => {
      assert.equal(await subject.plane.openConnections({ pid: 0 }), 0)
      assert.deepEqual(await subject.plane.silentPorts({ pid: 0 }, [{ port: 80 }]), [])
    })
  })
}
