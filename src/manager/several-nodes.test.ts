import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Agent, startAgent } from '../agent/index.ts'
import { silentLog } from '../base/index.ts'
import { type Control, initialNetworks, openControl } from '../control/index.ts'
import {
  type Availability,
  type ClusterNode,
  idFrom,
  isTerminal,
  type NodeId,
  type Task,
  type TaskId,
  type WorkloadId,
} from '../model/index.ts'
import { buildClusterSpec, buildNode } from '../model/testing.ts'
import {
  openSimulatedRuntime,
  type SimulatedRuntime,
  simulatedDescription,
} from '../runtime/simulated-runtime.ts'
import { declare, RecordingDataPlane, seededRandom } from '../sim/one-node.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import { type LeaderEpoch, openMemoryStore, type Store } from '../store/index.ts'
import { type Manager, startManager } from './manager.ts'

const published = {
  mode: 'vip',
  networks: [],
  ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'ingress' }],
} as const

interface Host {
  readonly nodeId: NodeId
  readonly runtime: SimulatedRuntime
  readonly dataPlane: RecordingDataPlane
  agent: Agent | undefined
}

/** The real manager and the real agents of a few nodes, over a store in memory, virtual time and simulated containers. */
class SeveralNodes {
  readonly clock = new VirtualClock()
  readonly hosts = new Map<string, Host>()
  store!: Store & LeaderEpoch
  control!: Control
  manager!: Manager

  static async start(...names: readonly string[]): Promise<SeveralNodes> {
    const cluster = new SeveralNodes()
    const { clock } = cluster
    const random = seededRandom(7)
    cluster.store = await openMemoryStore({ clock })
    const sealed = { keyId: '', nonce: '', ciphertext: '' }
    await cluster.store.commit([
      {
        type: 'create',
        object: {
          ...buildNode(),
          kind: 'cluster',
          id: idFrom<'cluster'>('c1'),
          name: 'default',
          spec: buildClusterSpec(),
          status: {
            root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
            rootRotationInProgress: false,
            joinTokens: { worker: sealed, manager: sealed },
            addressPools: ['10.0.0.0/8'],
            subnetSize: 24,
            dataPathPort: 4789,
          },
        },
      },
      ...initialNetworks(random).map((object) => ({ type: 'create' as const, object })),
    ])
    cluster.control = openControl({
      store: cluster.store,
      clock,
      random,
      sealer: { seal: () => sealed, unseal: () => new Uint8Array() },
    })
    const epoch = await cluster.store.advanceEpoch()
    const unseal = () => new Uint8Array()
    cluster.manager = startManager({
      store: cluster.store,
      epoch,
      unseal,
      clock,
      random,
      log: silentLog,
    })
    for (const name of names) await cluster.join(name)
    return cluster
  }

  async join(name: string): Promise<void> {
    const object = buildNode({ id: name, hostname: name, state: 'unknown' })
    await this.store.commit([{ type: 'create', object }])
    const runtime = openSimulatedRuntime({
      clock: this.clock,
      random: seededRandom(this.hosts.size + 1),
      nodeId: object.id,
      description: simulatedDescription(name),
      behave: () => ({}),
    })
    const dataPlane = new RecordingDataPlane()
    this.hosts.set(name, { nodeId: object.id, runtime, dataPlane, agent: undefined })
    await this.powerOn(name)
  }

  async powerOn(name: string): Promise<void> {
    const host = this.host(name)
    host.agent = startAgent({
      nodeId: host.nodeId,
      runtime: host.runtime,
      dataPlane: host.dataPlane,
      link: this.manager.link,
      clock: this.clock,
      log: silentLog,
      describeHost: async () => ({ skepVersion: 'test', hostSubnets: [] }),
    })
    await this.clock.advance(1_000)
  }

  /** Its containers stay, as those of a host whose network was cut. */
  async cutOff(name: string): Promise<void> {
    await this.host(name).agent?.close()
    this.host(name).agent = undefined
    await this.clock.advance(60_000)
    assert.equal(this.node(name)?.status.state, 'down')
  }

  async setAvailability(name: string, availability: Availability): Promise<void> {
    const node = this.node(name)
    assert(node)
    const { labels, spec, source, specVersion } = node
    const declaration = { labels, role: spec.role, availability, source }
    await this.control.updateNode(node.id, specVersion, declaration)
  }

  host(name: string): Host {
    const host = this.hosts.get(name)
    assert(host)
    return host
  }

  node(name: string): ClusterNode | undefined {
    return this.store.view.get('node', name)
  }

  tasks(id: WorkloadId): readonly Task[] {
    return this.store.view.tasksOfWorkload(id)
  }

  running(id: WorkloadId): readonly Task[] {
    return this.tasks(id).filter(
      ({ status, desiredState }) => status.state === 'running' && desiredState === 'running',
    )
  }

  /** Tasks whose containers run on a host, whatever the managers know of it. */
  async containers(name: string): Promise<readonly TaskId[]> {
    const seen = await this.host(name).runtime.list()
    return seen.filter(({ state }) => state === 'running').map(({ taskId }) => taskId)
  }

  /** How many running tasks each node has. */
  spread(id: WorkloadId): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const { nodeId = '' } of this.running(id)) counts[nodeId] = (counts[nodeId] ?? 0) + 1
    return counts
  }

  /** The least and the most tasks that any node that is there sent connections to meanwhile. */
  async routedWhile(work: () => Promise<void>): Promise<{ least: number; most: number }> {
    const range = { least: Number.POSITIVE_INFINITY, most: 0 }
    const unsubscribe = this.store.subscribe(() => {
      for (const { agent, dataPlane } of this.hosts.values()) {
        if (!agent) continue
        const routed = dataPlane.desired.endpoints.flatMap(({ backends }) => backends)
        range.least = Math.min(range.least, routed.length)
        range.most = Math.max(range.most, routed.length)
        // Whoever is sent connections is up and not stopping.
        for (const { taskId } of routed) {
          const task = this.store.view.get('task', taskId)
          assert(task && !isTerminal(task.status.state), `${taskId} gets connections and is gone`)
        }
      }
    })
    await work()
    unsubscribe()
    return range
  }

  async stop(): Promise<void> {
    for (const { agent } of this.hosts.values()) await agent?.close()
    await this.manager.close()
    await this.store.close()
  }
}

describe('several nodes', () => {
  test('a drained node is left without one connection less to go to', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2', 'n3')
    const web = await cluster.control.createWorkload(declare('web', 6, { endpoint: published }))
    await cluster.clock.advance(30_000)
    assert.deepEqual(cluster.spread(web.id), { n1: 2, n2: 2, n3: 2 })
    const routed = await cluster.routedWhile(async () => {
      await cluster.setAvailability('n1', 'drain')
      await cluster.clock.advance(60_000)
    })
    assert.deepEqual(cluster.spread(web.id), { n2: 3, n3: 3 })
    assert.deepEqual(await cluster.containers('n1'), [])
    assert.equal(routed.least, 6)
    assert(routed.most <= 7, `one at a time, and not ${routed.most - 6}`)
    await cluster.stop()
  })

  test('a service of thousands is decided in parts, and what is asked meanwhile counts in the end', async () => {
    const cluster = await SeveralNodes.start()
    const { id } = await cluster.control.createWorkload(declare('web', 2_500))
    await cluster.clock.advance(5_000)
    const slots = new Set(cluster.tasks(id).map(({ slot }) => slot))
    assert.deepEqual([cluster.tasks(id).length, slots.size], [2_500, 2_500])
    const scale = async (count: number) => {
      const version = cluster.store.view.get('workload', id)?.specVersion ?? 0
      const request = { id, version, auth: { from: 'current' } } as const
      await cluster.control.updateWorkload(request, () => declare('web', count))
    }
    await scale(4_000)
    // The decision on that is under way when the next one is asked for.
    await scale(3)
    await cluster.clock.advance(60_000)
    assert.deepEqual(
      cluster.tasks(id).map(({ slot, desiredState }) => [slot, desiredState]),
      [1, 2, 3].map((slot) => [slot, 'running']),
    )
    await cluster.stop()
  })

  test('a node that joins gets its share, one successor after the other, where that is asked for', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2')
    const label = (word: string) => ({ labels: { 'skep.rebalance': word }, endpoint: published })
    const web = await cluster.control.createWorkload(declare('web', 6, label('on')))
    const still = await cluster.control.createWorkload(
      declare('still', 4, { labels: { 'skep.rebalance': 'off' } }),
    )
    await cluster.clock.advance(60_000)
    await cluster.join('n3')
    const routed = await cluster.routedWhile(async () => {
      await cluster.clock.advance(600_000)
    })
    assert.deepEqual(cluster.spread(web.id), { n1: 2, n2: 2, n3: 2 })
    assert.deepEqual(cluster.spread(still.id), { n1: 2, n2: 2 })
    assert.deepEqual([routed.least, routed.most], [6, 7])
    const { version } = [...cluster.store.view.list('workload')][0] ?? {}
    await cluster.clock.advance(600_000)
    assert.equal(cluster.store.view.get('workload', web.id)?.version, version)
    assert.deepEqual(cluster.spread(web.id), { n1: 2, n2: 2, n3: 2 })
    await cluster.stop()
  })

  test('a lost node: replaced, kept, or replaced later, as each service says', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2')
    const onN1 = {
      constraints: [{ key: 'node.id', operator: '==' as const, value: 'n1' }],
      spread: [],
      maxReplicasPerNode: 0,
      platforms: [],
    }
    const create = async (name: string, onNodeLoss: Parameters<typeof declare>[2]) => {
      const base = declare(name, 1)
      const pinned = { ...base.template, placement: onN1 }
      const { id } = await cluster.control.createWorkload(
        declare(name, 1, { template: pinned, ...onNodeLoss }),
      )
      await cluster.clock.advance(5_000)
      assert.deepEqual(cluster.spread(id), { n1: 1 })
      // Free to go anywhere from now on: a placement that its node satisfies moves nothing.
      const { specVersion } = cluster.store.view.get('workload', id) ?? {}
      await cluster.control.updateWorkload(
        { id, version: specVersion ?? 0, auth: { from: 'current' } },
        () => declare(name, 1, onNodeLoss),
      )
      await cluster.clock.advance(10_000)
      assert.deepEqual(cluster.spread(id), { n1: 1 })
      return id
    }
    const replaced = await create('replaced', {})
    const kept = await create('kept', { onNodeLoss: { type: 'keep' }, endpoint: published })
    const fenced = await create('fenced', { onNodeLoss: { type: 'stopAfter', afterMs: 300_000 } })

    const { id: global } = await cluster.control.createWorkload(
      declare('global', 1, { mode: { type: 'global' } }),
    )
    await cluster.clock.advance(10_000)
    const onEach = cluster.running(global).map(({ id }) => id)
    assert.deepEqual(cluster.spread(global), { n1: 1, n2: 1 })

    const [before] = cluster.running(kept)
    await cluster.cutOff('n1')
    assert.deepEqual(cluster.spread(replaced), { n2: 1 })
    assert.deepEqual(cluster.spread(global), { n1: 1, n2: 1 })
    assert.deepEqual(cluster.spread(kept), { n1: 1 })
    assert.equal(cluster.running(kept)[0]?.traffic, 'none', 'nobody is sent to a node that is down')
    assert.deepEqual(cluster.spread(fenced), { n1: 1 })
    const downSinceMs = cluster.node('n1')?.status.sinceMs ?? 0
    await cluster.clock.advance(downSinceMs + 300_000 + 20_000 - cluster.clock.nowMs() - 1)
    assert.equal(cluster.tasks(fenced).length, 1)
    await cluster.clock.advance(10_000)
    assert.deepEqual(cluster.spread(fenced), { n2: 1 })

    await cluster.powerOn('n1')
    await cluster.clock.advance(30_000)
    const [after] = cluster.running(kept)
    assert.deepEqual([after?.id, after?.traffic], [before?.id, 'routable'])
    const globalOnN1 = cluster.running(global).find(({ nodeId }) => nodeId === idFrom('n1'))?.id
    assert.deepEqual(
      (await cluster.containers('n1')).toSorted(),
      [before?.id ?? '', globalOnN1 ?? ''].toSorted(),
    )
    assert.deepEqual(
      cluster.running(global).map(({ id }) => id),
      onEach,
      'no other node could have taken it',
    )
    assert.deepEqual(cluster.spread(replaced), { n2: 1 })
    await cluster.stop()
  })

  test('what ended with its node is no failure of its own, and runs again when the node is back', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2')
    const base = declare('global', 1)
    const restart = { ...base.template.restart, condition: 'none' as const }
    const { id } = await cluster.control.createWorkload(
      declare('global', 1, {
        mode: { type: 'global' },
        template: { ...base.template, restart },
      }),
    )
    await cluster.clock.advance(10_000)
    const before = cluster.running(id).find(({ nodeId }) => nodeId === idFrom('n1'))
    assert(before)
    await cluster.cutOff('n1')
    cluster.host('n1').runtime.reboot()
    await cluster.powerOn('n1')
    await cluster.clock.advance(10_000)
    assert.deepEqual(cluster.spread(id), { n1: 1, n2: 1 })
    const old = cluster.tasks(id).find((task) => task.id === before.id)
    assert.equal(old?.status.state, 'shutdown')
    assert.match(old.status.error ?? '', /^it ended while node n1 was down: .*255/)

    // Once it is back, a failure is one again.
    const [again] = cluster.running(id).filter(({ nodeId }) => nodeId === idFrom('n1'))
    assert(again)
    cluster.host('n1').runtime.kill(again.id, 1)
    await cluster.clock.advance(10_000)
    assert.deepEqual(cluster.spread(id), { n2: 1 })
    await cluster.stop()
  })

  test('nothing is left of a removed service when its lost node is removed, too', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2')
    const web = await cluster.control.createWorkload(declare('web', 4))
    await cluster.clock.advance(10_000)
    await cluster.cutOff('n1')
    await cluster.control.removeWorkload(web.id)
    await cluster.clock.advance(30_000)
    assert(cluster.tasks(web.id).length > 0, 'nobody has told the lost node yet')
    const node = cluster.node('n1')
    assert(node)
    await cluster.control.removeNode(node.id, false)
    await cluster.clock.advance(5_000)
    assert.deepEqual(cluster.tasks(web.id), [])
    assert.equal(cluster.store.view.count('revision'), 0)
    await cluster.stop()
  })

  test('a node that is there is not removed, and its tasks go on', async () => {
    const cluster = await SeveralNodes.start('n1', 'n2')
    const web = await cluster.control.createWorkload(declare('web', 2))
    await cluster.clock.advance(10_000)
    await assert.rejects(cluster.control.removeNode(idFrom('n1'), false), /is not down/)
    assert.equal(cluster.running(web.id).length, 2)
    await cluster.control.removeNode(idFrom('n1'), true)
    await cluster.clock.advance(10_000)
    assert.deepEqual(cluster.spread(web.id), { n2: 2 })
    await cluster.stop()
  })
})
