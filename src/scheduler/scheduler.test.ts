import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  type AnyObject,
  type ClusterNode,
  idFrom,
  isLive,
  type Network,
  type Placement,
  type Task,
  type TaskState,
  type TaskTemplate,
} from '../model/index.ts'
import {
  buildContainer,
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import { changesFor, Scheduler } from './index.ts'

const GiB = 2 ** 30
const Cpu = 1_000_000_000

/** A store with a scheduler on it, and words for what tests do. */
class Lab {
  readonly store: Store
  readonly scheduler: Scheduler
  nowMs = 1_000_000
  #slots = 0

  constructor(store: Store) {
    this.store = store
    this.scheduler = Scheduler.from(store.view)
    store.subscribe((commit) => this.scheduler.apply(commit))
  }

  static async open(...objects: readonly AnyObject[]): Promise<Lab> {
    const store = await openMemoryStore({ clock: { nowMs: () => 0, sleep: async () => {} } })
    const lab = new Lab(store)
    await lab.add(...objects)
    return lab
  }

  async add(...objects: readonly AnyObject[]): Promise<void> {
    if (objects.length > 0) {
      await this.store.commit(objects.map((object) => ({ type: 'create', object })))
    }
  }

  /** A workload `name` with revision `name-1` of this template. */
  async workload(name: string, template: Parameters<typeof buildTemplate>[0] = {}): Promise<void> {
    await this.add(
      buildWorkload({ id: name, name, spec: { revisionId: idFrom(`${name}-1`) } }),
      buildRevision({
        id: `${name}-1`,
        name: `${name}.1`,
        workloadId: name,
        template: buildTemplate(template),
      }),
    )
  }

  /** `count` pending tasks of the workload. */
  async pending(
    name: string,
    count: number,
    over: Parameters<typeof buildTask>[0] = {},
  ): Promise<readonly string[]> {
    const tasks = Array.from({ length: count }, () => {
      this.#slots++
      return buildTask({
        id: `${name}-task-${String(this.#slots).padStart(5, '0')}`,
        workloadId: name,
        revisionId: `${name}-1`,
        slot: this.#slots,
        nodeId: undefined,
        state: 'pending',
        ...over,
      })
    })
    await this.add(...tasks)
    return tasks.map(({ id }) => id)
  }

  /** Lets it decide until nothing is left to say, checking that it then rests. */
  async settle(limit = 1000): Promise<void> {
    for (let round = 0; round < 1000; round++) {
      const decision = this.scheduler.decide(this.nowMs, limit)
      const changes = changesFor(this.store.view, decision, this.nowMs)
      if (changes.length === 0) {
        assert.equal(decision.more, false)
        return
      }
      await this.store.commit(changes)
    }
    assert.fail('the scheduler does not come to rest')
  }

  task(id: string): Task {
    const task = this.store.view.get('task', id)
    assert.ok(task, `task ${id} is there`)
    return task
  }

  async setTask(id: string, change: (task: Task) => Task): Promise<void> {
    await this.store.commit([{ type: 'update', object: change(this.task(id)) }])
  }

  async end(id: string, state: TaskState = 'failed'): Promise<void> {
    await this.setTask(id, (task) => ({
      ...task,
      status: { ...task.status, state, atMs: this.nowMs },
    }))
  }

  async setNode(id: string, change: (node: ClusterNode) => ClusterNode): Promise<void> {
    const node = this.store.view.get('node', id)
    assert.ok(node)
    await this.store.commit([{ type: 'update', object: change(node) }])
  }

  /** Active tasks by node, of one workload or all, for all nodes. */
  spread(workload?: string): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const { id } of this.store.view.list('node')) counts[id] = 0
    for (const task of this.store.view.list('task')) {
      if (task.nodeId === undefined || !isLive(task)) continue
      if (workload !== undefined && task.workloadId !== workload) continue
      counts[task.nodeId] = (counts[task.nodeId] ?? 0) + 1
    }
    return counts
  }

  heights(workload?: string): readonly number[] {
    return Object.values(this.spread(workload)).sort((a, b) => a - b)
  }

  errors(workload: string): readonly (string | undefined)[] {
    return [...this.store.view.list('task')]
      .filter((task) => task.workloadId === workload && task.status.state === 'pending')
      .map((task) => task.status.error)
  }
}

const nodes = (count: number, over: Parameters<typeof buildNode>[0] = {}) =>
  Array.from({ length: count }, (_, index) => buildNode({ id: `n${index + 1}`, ...over }))

describe('balance', () => {
  test('spreads a workload first, then all tasks (TestHA)', async () => {
    const lab = await Lab.open(...nodes(5))
    await lab.workload('s1')
    await lab.workload('s2')
    await lab.pending('s1', 18)
    await lab.settle()
    assert.deepEqual(lab.heights('s1'), [3, 3, 4, 4, 4])

    const low = Object.entries(lab.spread('s1')).filter(([, count]) => count === 3)
    await lab.pending('s2', 2)
    await lab.settle()
    for (const [id] of low) assert.equal(lab.spread('s2')[id], 1)

    await lab.pending('s1', 3)
    await lab.settle()
    assert.deepEqual(lab.heights('s1'), [4, 4, 4, 4, 5])
    const [full] = Object.entries(lab.spread('s1')).find(([, count]) => count === 5) ?? []
    await lab.pending('s2', 1)
    await lab.settle()
    const freeOfS2 = Object.entries(lab.spread('s2')).filter(([id]) => !low.some(([l]) => l === id))
    assert.equal(freeOfS2.find(([, count]) => count === 1)?.[0] === full, false)

    const emptied = full ?? ''
    for (const task of Array.from(lab.store.view.list('task'))) {
      if (task.nodeId === emptied) await lab.end(task.id, 'shutdown')
    }
    const before = lab.spread()
    await lab.pending('s1', 4)
    await lab.settle()
    assert.equal(lab.spread('s1')[emptied], 4)
    assert.equal(before[emptied], 0)
  })

  test('among nodes of equal count the less reserved one is taken', async () => {
    const lab = await Lab.open(...nodes(2))
    await lab.workload('big', { reservations: { nanoCpus: 0, memoryBytes: 6 * GiB, generic: [] } })
    await lab.workload('small')
    const [big] = await lab.pending('big', 1)
    await lab.settle()
    await lab.workload('other', {
      placement: {
        constraints: [{ key: 'node.id', operator: '!=', value: lab.task(big ?? '').nodeId ?? '' }],
      },
    })
    await lab.pending('other', 2)
    await lab.settle()
    const [small] = await lab.pending('small', 1)
    await lab.settle()
    assert.notEqual(lab.task(small ?? '').nodeId, lab.task(big ?? '').nodeId)
  })

  test('one-off tasks are spread, each a workload of its own', async () => {
    const lab = await Lab.open(...nodes(7))
    for (let index = 0; index < 21; index++) {
      await lab.workload(`one${index}`)
      await lab.pending(`one${index}`, 1)
    }
    await lab.settle()
    assert.deepEqual(lab.heights(), [3, 3, 3, 3, 3, 3, 3])
  })

  test('a large group does not keep others waiting', async () => {
    const lab = await Lab.open(...nodes(3))
    await lab.workload('large')
    await lab.workload('little')
    await lab.pending('large', 100)
    await lab.pending('little', 1)
    const decision = lab.scheduler.decide(lab.nowMs, 10)
    assert.equal(decision.placements.length, 10)
    assert.equal(decision.more, true)
    assert.ok(decision.placements.some(({ taskId }) => taskId.startsWith('little')))
  })
})

describe('spread preferences', () => {
  const inZone = (id: string, az: string, rack = '', memoryBytes = 64 * GiB) =>
    buildNode({ id, labels: { az, rack }, memoryBytes })

  test('balances over a label (TestPreferences)', async () => {
    const lab = await Lab.open(
      inZone('a', 'az1'),
      ...['b', 'c', 'd', 'e'].map((id) => inZone(id, 'az2')),
    )
    await lab.workload('s', { placement: { spread: ['node.labels.az'] } })
    await lab.pending('s', 8)
    await lab.settle()
    assert.deepEqual(lab.spread('s'), { a: 4, b: 1, c: 1, d: 1, e: 1 })
  })

  test('balances over two labels, past what does not fit (TestMultiplePreferences)', async () => {
    const lab = await Lab.open(
      inZone('small', 'az1', 'r1', GiB / 2),
      inZone('five', 'az1', 'r1', 5 * GiB),
      inZone('b1', 'az2', 'r1'),
      inZone('b2', 'az2', 'r1'),
      inZone('c1', 'az2', 'r2'),
    )
    await lab.workload('s', {
      placement: { spread: ['node.labels.az', 'node.labels.rack'] },
      reservations: { nanoCpus: 0, memoryBytes: GiB, generic: [] },
    })
    await lab.pending('s', 12)
    await lab.settle()
    const got = lab.spread('s')
    assert.equal(got['small'], 0)
    assert.equal(got['five'], 5)
    const racks = [(got['b1'] ?? 0) + (got['b2'] ?? 0), got['c1'] ?? 0].sort((a, b) => a - b)
    assert.deepEqual(racks, [3, 4])
    assert.ok(Math.abs((got['b1'] ?? 0) - (got['b2'] ?? 0)) <= 1)
  })

  test('scaling up evens out what is there (TestMultiplePreferencesScaleUp)', async () => {
    const lab = await Lab.open(
      inZone('a1', 'dc1', 'r1'),
      inZone('a2', 'dc1', 'r2'),
      inZone('b1', 'dc2', 'r1'),
    )
    await lab.workload('s', { placement: { spread: ['node.labels.az', 'node.labels.rack'] } })
    for (const slot of [1, 2]) {
      await lab.add(
        buildTask({ id: `old${slot}`, workloadId: 's', revisionId: 's-1', slot, nodeId: 'a1' }),
      )
    }
    await lab.pending('s', 4)
    await lab.settle()
    assert.deepEqual(lab.spread('s'), { a1: 2, a2: 1, b1: 3 })
  })

  test('one-off tasks do not all go to the same value', async () => {
    const lab = await Lab.open(inZone('a', 'az1'), inZone('b', 'az2'))
    for (const name of ['x', 'y', 'z', 'w']) {
      await lab.workload(name, { placement: { spread: ['node.labels.az'] } })
      await lab.pending(name, 1)
    }
    await lab.settle()
    assert.deepEqual(lab.spread(), { a: 2, b: 2 })
  })

  test('a task outside the fitting nodes still counts for its branch', async () => {
    const lab = await Lab.open(inZone('a1', 'az1'), inZone('a2', 'az1'), inZone('b1', 'az2'))
    await lab.workload('s', { placement: { spread: ['node.labels.az'] } })
    await lab.add(buildTask({ id: 'old', workloadId: 's', revisionId: 's-1', nodeId: 'a1' }))
    await lab.setNode('a1', (node) => ({ ...node, spec: { ...node.spec, availability: 'pause' } }))
    const [id] = await lab.pending('s', 1)
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'b1')
  })
})

describe('failures', () => {
  const failFive = async (lab: Lab, over: Parameters<typeof buildTask>[0]) => {
    for (let count = 0; count < 5; count++) {
      await lab.add(
        buildTask({
          id: `dead${count}`,
          workloadId: 's',
          revisionId: 's-1',
          slot: 100 + count,
          nodeId: 'n1',
          status: { state: 'failed', atMs: lab.nowMs },
          ...over,
        }),
      )
    }
  }
  const open = async () => {
    const lab = await Lab.open(...nodes(2))
    await lab.workload('s')
    await lab.workload('busy', {
      placement: { constraints: [{ key: 'node.id', operator: '==', value: 'n2' }] },
    })
    await lab.pending('busy', 3)
    await lab.settle()
    return lab
  }

  test('five failures make the emptier node the worse one, for five minutes', async () => {
    const lab = await open()
    await failFive(lab, {})
    const [id] = await lab.pending('s', 1)
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'n2')
    await lab.end(id ?? '', 'shutdown')
    lab.nowMs += 300_000
    const [later] = await lab.pending('s', 1)
    await lab.settle()
    assert.equal(lab.task(later ?? '').nodeId, 'n1')
  })

  test('a new revision starts without them', async () => {
    const lab = await open()
    await failFive(lab, {})
    await lab.add(buildRevision({ id: 's-2', name: 's.2', workloadId: 's', number: 2 }))
    const [id] = await lab.pending('s', 1, { revisionId: 's-2' })
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'n1')
  })

  test('failures of preassigned tasks do not count', async () => {
    const lab = await open()
    await failFive(lab, { pinnedNodeId: 'n1', slot: undefined })
    const [id] = await lab.pending('s', 1)
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'n1')
  })

  test('where every node fails, the one that fails least is taken', async () => {
    const lab = await Lab.open(...nodes(1))
    await lab.workload('s')
    await failFive(lab, {})
    const [id] = await lab.pending('s', 1)
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'n1')
  })
})

describe('filters', () => {
  const network = (id: string, driver: string): Network => ({
    kind: 'network',
    id: idFrom(id),
    namespace: 'default',
    name: id,
    labels: {},
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
    source: { dialect: 'docker', document: {} },
    spec: {
      driver,
      internal: false,
      attachable: false,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    status: {},
  })
  const overlay = network('sealed', 'overlay')
  const sealedNetwork = { ...overlay, spec: { ...overlay.spec, encrypted: true } }
  const sealed = {
    networks: [{ networkId: sealedNetwork.id, aliases: [], driverOptions: {} }],
  }
  const volume = (driver: string) =>
    buildContainer({
      mounts: [
        {
          type: 'volume',
          source: 'data',
          target: '/data',
          readOnly: false,
          volume: { noCopy: false, labels: {}, driver: { name: driver, options: {} } },
        },
      ],
    })
  const attached = {
    networks: [{ networkId: idFrom<'network'>('net'), aliases: [], driverOptions: {} }],
  }
  const reserve = (nanoCpus: number, memoryBytes: number, gpu = 0) => ({
    reservations: {
      nanoCpus,
      memoryBytes,
      generic: gpu > 0 ? [{ kind: 'gpu', value: gpu }] : [],
    },
  })
  const place = (placement: Partial<Placement>) => ({ placement })

  const cases: readonly {
    name: string
    nodes: readonly Parameters<typeof buildNode>[0][]
    template: Partial<Omit<TaskTemplate, 'placement' | 'restart'>> & {
      placement?: Partial<Placement>
    }
    tasks?: number
    want: string | undefined
  }[] = [
    { name: 'no nodes', nodes: [], template: {}, want: 'no suitable node (there are no nodes)' },
    {
      name: 'not ready, drained and paused nodes',
      nodes: [{ state: 'down' }, { availability: 'drain' }, { availability: 'pause' }],
      template: {},
      want: 'no suitable node (3 nodes not available for new tasks)',
    },
    {
      name: 'too little memory',
      nodes: [{ memoryBytes: GiB }, { memoryBytes: 2 * GiB }],
      template: reserve(0, 3 * GiB),
      want: 'no suitable node (insufficient resources on 2 nodes: memory)',
    },
    {
      name: 'each resource by its count',
      nodes: [{ memoryBytes: GiB }, { nanoCpus: 0 }, { memoryBytes: 1 }],
      template: reserve(Cpu, 3 * GiB),
      want: 'no suitable node (insufficient resources on 3 nodes: memory on 2 nodes, CPU on 1 node)',
    },
    {
      name: 'a generic resource nobody has',
      nodes: [{}],
      template: reserve(0, 0, 1),
      want: 'no suitable node (insufficient resources on 1 node: gpu)',
    },
    {
      name: 'a generic resource that is enough',
      nodes: [{ generic: [{ kind: 'gpu', value: 2 }] }],
      template: reserve(0, 0, 2),
      want: undefined,
    },
    {
      name: 'a constraint',
      nodes: [{ labels: { disk: 'hdd' } }, { labels: {} }],
      template: place({ constraints: [{ key: 'node.labels.disk', operator: '==', value: 'ssd' }] }),
      want: 'no suitable node (scheduling constraints not satisfied on 2 nodes: node.labels.disk==ssd)',
    },
    {
      name: 'x86_64 is amd64',
      nodes: [{ platform: { architecture: 'x86_64', os: 'linux' } }],
      template: place({ platforms: [{ architecture: 'amd64', os: 'linux' }] }),
      want: undefined,
    },
    {
      name: 'aarch64 is arm64',
      nodes: [{ platform: { architecture: 'aarch64', os: 'linux' } }],
      template: place({ platforms: [{ architecture: 'arm64', os: 'linux' }] }),
      want: undefined,
    },
    {
      name: 'another platform, and an unknown one',
      nodes: [{}, { platform: { architecture: '', os: '' } }],
      template: place({ platforms: [{ architecture: 'arm64', os: 'linux' }] }),
      want: 'no suitable node (unsupported platform on 2 nodes: linux/arm64)',
    },
    {
      name: 'a network driver nobody has',
      nodes: [{ plugins: [{ type: 'Network', name: 'bridge' }] }],
      template: attached,
      want: 'no suitable node (missing plugin on 1 node: network weave)',
    },
    {
      name: 'a network driver by its tagged name',
      nodes: [{ plugins: [{ type: 'Network', name: 'weave:latest' }] }],
      template: attached,
      want: undefined,
    },
    {
      name: 'nobody who can encrypt',
      nodes: [
        { encryption: { how: 'none', why: 'no wg' } },
        { encryption: { how: 'kernel', publicKey: 'k' }, availability: 'pause' },
      ],
      template: sealed,
      want: 'no suitable node (1 node not available for new tasks; missing plugin on 1 node: encryption wireguard)',
    },
    {
      name: 'somebody who can encrypt',
      nodes: [{}, { encryption: { how: 'userspace', publicKey: 'k' } }],
      template: sealed,
      want: undefined,
    },
    {
      name: 'a volume driver nobody has',
      nodes: [{}],
      template: { containers: [volume('nfs')] },
      want: 'no suitable node (missing plugin on 1 node: volume nfs)',
    },
    {
      name: 'the local volume driver',
      nodes: [{}],
      template: { containers: [volume('local')] },
      want: undefined,
    },
    {
      name: 'a log driver another than those listed',
      nodes: [{ plugins: [{ type: 'Log', name: 'json-file' }] }],
      template: { logDriver: { name: 'syslog', options: {} } },
      want: 'no suitable node (missing plugin on 1 node: log syslog)',
    },
    {
      name: 'a log driver on a node that lists none',
      nodes: [{}],
      template: { logDriver: { name: 'syslog', options: {} } },
      want: undefined,
    },
    {
      name: 'the log driver none',
      nodes: [{ plugins: [{ type: 'Log', name: 'json-file' }] }],
      template: { logDriver: { name: 'none', options: {} } },
      want: undefined,
    },
    {
      name: 'replicas per node',
      nodes: [{}, {}],
      template: place({ maxReplicasPerNode: 2 }),
      tasks: 5,
      want: 'no suitable node (max replicas per node limit exceed: 2 on 2 nodes)',
    },
    {
      name: 'several reasons, most frequent first',
      nodes: [{ state: 'down' }, { memoryBytes: 1 }, { memoryBytes: 2 }],
      template: reserve(0, GiB),
      want: 'no suitable node (insufficient resources on 2 nodes: memory; 1 node not available for new tasks)',
    },
  ]
  for (const { name, nodes: list, template, tasks = 1, want } of cases) {
    test(name, async () => {
      const lab = await Lab.open(
        network('net', 'weave'),
        sealedNetwork,
        ...list.map((over, index) => buildNode({ id: `n${index + 1}`, ...over })),
      )
      await lab.workload('s', template)
      await lab.pending('s', tasks)
      await lab.settle()
      assert.deepEqual(lab.errors('s'), want === undefined ? [] : [want])
    })
  }

  test('a task waits for a node that becomes ready, and its error goes (TestSchedulerNoReadyNodes)', async () => {
    const lab = await Lab.open()
    await lab.workload('s')
    const [id] = await lab.pending('s', 1)
    await lab.settle()
    assert.match(lab.task(id ?? '').status.error ?? '', /^no suitable node/)
    await lab.add(buildNode({ state: 'down' }))
    await lab.settle()
    assert.equal(lab.errors('s')[0], 'no suitable node (1 node not available for new tasks)')
    await lab.setNode('n1', (node) => ({ ...node, status: { ...node.status, state: 'ready' } }))
    await lab.settle()
    assert.equal(lab.task(id ?? '').nodeId, 'n1')
    assert.equal(lab.task(id ?? '').status.state, 'assigned')
    assert.equal(lab.task(id ?? '').status.message, 'scheduler assigned task to node')
    assert.equal(lab.task(id ?? '').status.error, undefined)
  })

  test('reservations are held until the task has ended (TestSchedulerResourceConstraintDeadTask)', async () => {
    const lab = await Lab.open(buildNode({ memoryBytes: GiB }))
    await lab.workload('s', reserve(0, GiB))
    const [one, two] = await lab.pending('s', 2)
    await lab.settle()
    const placed = [one, two].find((id) => lab.task(id ?? '').nodeId !== undefined) ?? ''
    const waits = [one, two].find((id) => id !== placed) ?? ''
    await lab.setTask(placed, (task) => ({ ...task, desiredState: 'shutdown' }))
    await lab.settle()
    assert.equal(lab.task(waits).nodeId, undefined)
    await lab.end(placed, 'shutdown')
    await lab.settle()
    assert.equal(lab.task(waits).nodeId, 'n1')
  })

  test('named resources are given by name, each to one task', async () => {
    const lab = await Lab.open(
      buildNode({ generic: [{ kind: 'gpu', value: 3, names: ['a', 'b', 'c'] }] }),
    )
    await lab.workload('s', reserve(0, 0, 2))
    await lab.workload('t', reserve(0, 0, 1))
    const [one] = await lab.pending('s', 1)
    await lab.settle()
    const [two] = await lab.pending('t', 1)
    const [three] = await lab.pending('s', 1)
    await lab.settle()
    assert.deepEqual(lab.task(one ?? '').genericResources, [
      { kind: 'gpu', value: 2, names: ['a', 'b'] },
    ])
    assert.deepEqual(lab.task(two ?? '').genericResources, [
      { kind: 'gpu', value: 1, names: ['c'] },
    ])
    assert.equal(lab.task(three ?? '').nodeId, undefined)
    await lab.end(one ?? '', 'complete')
    await lab.settle()
    assert.deepEqual(lab.task(three ?? '').genericResources, [
      { kind: 'gpu', value: 2, names: ['a', 'b'] },
    ])
  })

  test('a host port is one per node and protocol, also of a task that is stopping (TestSchedulerHostPort)', async () => {
    const lab = await Lab.open(...nodes(2))
    const port = (protocol: 'tcp' | 'udp') =>
      ({ protocol, targetPort: 58, publishedPort: 58, publishMode: 'host' }) as const
    const ports = { tcp: [port('tcp')], udp: [port('udp')], both: [port('tcp'), port('udp')] }
    const ids: Record<string, string> = {}
    for (const [name, list] of Object.entries(ports)) {
      await lab.workload(name)
      await lab.add(
        buildEndpoint({ id: `e-${name}`, name, workloadId: name, spec: { ports: list } }),
      )
      ids[name] = (await lab.pending(name, 1))[0] ?? ''
      await lab.settle()
    }
    assert.notEqual(lab.task(ids['tcp'] ?? '').nodeId, lab.task(ids['udp'] ?? '').nodeId)
    assert.deepEqual(lab.errors('both'), [
      'no suitable node (host-mode port already in use on 2 nodes: 58/tcp, 58/udp)',
    ])
    const tcp = ids['tcp'] ?? ''
    await lab.setTask(tcp, (task) => ({ ...task, desiredState: 'remove' }))
    await lab.settle()
    assert.equal(lab.task(ids['both'] ?? '').nodeId, undefined)
    await lab.end(tcp, 'shutdown')
    await lab.settle()
    assert.equal(lab.task(ids['both'] ?? '').nodeId, lab.task(tcp).nodeId)
  })

  test('a waiting task is placed when what it needs changes', async () => {
    const lab = await Lab.open(...nodes(1))
    const port = (number: number) =>
      ({ protocol: 'tcp', targetPort: 80, publishedPort: number, publishMode: 'host' }) as const
    for (const name of ['a', 'b']) {
      await lab.workload(name)
      await lab.add(
        buildEndpoint({ id: `e-${name}`, name, workloadId: name, spec: { ports: [port(58)] } }),
      )
      await lab.pending(name, 1)
      await lab.settle()
    }
    assert.equal(lab.errors('b').length, 1)
    await lab.settle()
    const endpoint = lab.store.view.get('endpoint', 'e-b')
    assert.ok(endpoint)
    await lab.store.commit([
      { type: 'update', object: { ...endpoint, spec: { ...endpoint.spec, ports: [port(59)] } } },
    ])
    await lab.settle()
    assert.equal(lab.errors('b').length, 0)
  })

  test('tasks of the former revision keep the ports they bound, not those of the new one', async () => {
    const lab = await Lab.open(...nodes(1))
    const port = (number: number) => ({
      ports: [
        { protocol: 'tcp', targetPort: 80, publishedPort: number, publishMode: 'host' } as const,
      ],
    })
    await lab.workload('s')
    await lab.add(buildEndpoint({ id: 'e', name: 's', workloadId: 's', spec: port(8080) }))
    const [old] = await lab.pending('s', 1)
    await lab.settle()
    await lab.setTask(old ?? '', (task) => ({
      ...task,
      status: {
        ...task.status,
        state: 'running',
        hostPorts: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080 }],
      },
    }))
    await lab.add(buildRevision({ id: 's-2', name: 's.2', workloadId: 's', number: 2 }))
    const view = lab.store.view
    const workload = view.get('workload', 's')
    const endpoint = view.get('endpoint', 'e')
    assert.ok(workload && endpoint)
    await lab.store.commit([
      {
        type: 'update',
        object: { ...workload, spec: { ...workload.spec, revisionId: idFrom('s-2') } },
      },
      { type: 'update', object: { ...endpoint, spec: { ...endpoint.spec, ...port(9090) } } },
    ])
    const [fresh] = await lab.pending('s', 1, { revisionId: 's-2' })
    await lab.settle()
    assert.equal(lab.task(fresh ?? '').nodeId, 'n1')
    await lab.workload('other')
    await lab.add(buildEndpoint({ id: 'o', name: 'other', workloadId: 'other', spec: port(8080) }))
    await lab.pending('other', 1)
    await lab.settle()
    assert.equal(lab.errors('other').length, 1)
    await lab.end(old ?? '', 'shutdown')
    await lab.settle()
    assert.equal(lab.errors('other').length, 0)
  })
})

describe('preassigned tasks', () => {
  test('are confirmed first; free tasks then take the other node (TestPreassignedTasks)', async () => {
    const lab = await Lab.open(...nodes(2))
    await lab.workload('s')
    await lab.workload('g')
    const [free] = await lab.pending('s', 1)
    const [pinned] = await lab.pending('g', 1, { pinnedNodeId: 'n1', slot: undefined })
    await lab.settle()
    assert.equal(lab.task(pinned ?? '').nodeId, 'n1')
    assert.equal(
      lab.task(pinned ?? '').status.message,
      'scheduler confirmed task can run on preassigned node',
    )
    assert.equal(lab.task(free ?? '').nodeId, 'n2')
  })

  test('wait with the bare reason, and are looked at again when their node changes', async () => {
    const lab = await Lab.open(buildNode({ availability: 'pause' }))
    await lab.workload('g')
    const [pinned] = await lab.pending('g', 1, { pinnedNodeId: 'n1', slot: undefined })
    const [lost] = await lab.pending('g', 1, { pinnedNodeId: 'gone', slot: undefined })
    await lab.settle()
    assert.equal(lab.task(pinned ?? '').status.error, '1 node not available for new tasks')
    assert.equal(lab.task(lost ?? '').status.error, 'node gone no longer exists')
    await lab.setNode('n1', (node) => ({ ...node, spec: { ...node.spec, availability: 'active' } }))
    await lab.settle()
    assert.equal(lab.task(pinned ?? '').nodeId, 'n1')
  })
})

describe('what is left alone or ended', () => {
  const cases: readonly {
    name: string
    over: Parameters<typeof buildTask>[0]
    state: TaskState
  }[] = [
    { name: 'a dead stored task', over: { state: 'failed', nodeId: 'n1' }, state: 'failed' },
    {
      name: 'a task without addresses yet',
      over: { state: 'new', nodeId: undefined },
      state: 'new',
    },
    {
      name: 'a task to be removed',
      over: { state: 'pending', nodeId: undefined, desiredState: 'remove' },
      state: 'pending',
    },
    {
      name: 'a task to be shut down',
      over: { state: 'pending', nodeId: undefined, desiredState: 'shutdown' },
      state: 'shutdown',
    },
    {
      name: 'a held-back task is placed',
      over: { state: 'pending', nodeId: undefined, desiredState: 'ready' },
      state: 'assigned',
    },
    {
      name: 'a job task is placed',
      over: { state: 'pending', nodeId: undefined, desiredState: 'complete' },
      state: 'assigned',
    },
  ]
  for (const { name, over, state } of cases) {
    test(name, async () => {
      const lab = await Lab.open(buildNode())
      await lab.workload('w1')
      await lab.add(buildTask({ ...over, revisionId: 'w1-1' }))
      await lab.settle()
      assert.equal(lab.task('t1').status.state, state)
    })
  }

  test('a dead stored task holds nothing at start (TestSchedulerPreexistingDeadTask)', async () => {
    const lab = await Lab.open(buildNode({ memoryBytes: GiB }))
    await lab.workload('s', { reservations: { nanoCpus: 0, memoryBytes: GiB, generic: [] } })
    await lab.add(buildTask({ id: 'dead', workloadId: 's', revisionId: 's-1', state: 'failed' }))
    const [id] = await lab.pending('s', 1)
    const again = Scheduler.from(lab.store.view)
    assert.deepEqual(
      again.decide(0, 10).placements.map(({ taskId }) => taskId),
      [id],
    )
  })

  test('a decision that was not committed is decided again the same', async () => {
    const lab = await Lab.open(...nodes(3))
    await lab.workload('s')
    await lab.pending('s', 5)
    const first = lab.scheduler.decide(0, 100)
    assert.deepEqual(lab.scheduler.decide(0, 100), first)
    await lab.setTask(first.placements[0]?.taskId ?? '', (task) => ({ ...task, name: 'changed' }))
    assert.equal(changesFor(lab.store.view, first, 0).length, 4)
    await lab.settle()
    assert.deepEqual(lab.heights(), [1, 2, 2])
  })

  const port = {
    ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'host' } as const],
  }
  const published = (workloadId: string) =>
    buildEndpoint({ id: `e-${workloadId}`, name: workloadId, workloadId, spec: port })

  test('what changed before a decision was committed counts for what its tasks hold', async () => {
    const lab = await Lab.open(...nodes(2))
    await lab.workload('s')
    await lab.pending('s', 1)
    const decision = lab.scheduler.decide(0, 100)
    await lab.add(published('s'))
    await lab.store.commit(changesFor(lab.store.view, decision, 0))
    assert.deepEqual(lab.scheduler.describe(), Scheduler.from(lab.store.view).describe())
    await lab.workload('other')
    await lab.add(published('other'))
    await lab.pending('other', 2)
    await lab.settle()
    assert.equal(lab.errors('other').length, 1)
  })

  test('a task of a former revision holds no port of the new one, though it waited for it', async () => {
    const lab = await Lab.open(...nodes(1))
    await lab.workload('s')
    await lab.add(published('s'))
    await lab.pending('s', 1)
    const workload = lab.store.view.get('workload', 's')
    assert.ok(workload)
    const spec = { ...workload.spec, revisionId: idFrom<'revision'>('s-2') }
    await lab.store.commit([{ type: 'update', object: { ...workload, spec } }])
    await lab.settle()
    assert.deepEqual(lab.scheduler.describe(), Scheduler.from(lab.store.view).describe())
  })
})

const template = fc.record({
  nanoCpus: fc.constantFrom(0, 0, Cpu),
  memoryBytes: fc.constantFrom(0, GiB, 3 * GiB),
  gpu: fc.constantFrom(0, 0, 1),
  max: fc.constantFrom(0, 0, 1, 2),
  spread: fc.constantFrom([], ['node.labels.zone']),
  constraint: fc.constantFrom(undefined, 'a', 'b'),
  port: fc.constantFrom(0, 0, 80),
})
const step = fc.oneof(
  fc.record({
    type: fc.constant('tasks' as const),
    workload: fc.nat(3),
    count: fc.integer({ min: 1, max: 6 }),
  }),
  fc.record({ type: fc.constant('end' as const), pick: fc.nat(), failed: fc.boolean() }),
  fc.record({ type: fc.constant('stop' as const), pick: fc.nat() }),
  fc.record({ type: fc.constant('delete' as const), pick: fc.nat() }),
  fc.record({
    type: fc.constant('node' as const),
    node: fc.nat(4),
    change: fc.constantFrom('down', 'ready', 'drain', 'active', 'a', 'b', 'gone', 'more' as const),
  }),
  fc.record({ type: fc.constant('pinned' as const), workload: fc.nat(3), node: fc.nat(4) }),
  fc.record({ type: fc.constant('forget' as const) }),
)

test('any history: nothing is over-reserved, refusals are true, and a rebuilt scheduler knows the same', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(template, { minLength: 4, maxLength: 4 }),
      fc.array(step, { maxLength: 25 }),
      async (templates, steps) => {
        const newNode = (index: number) =>
          buildNode({
            id: `n${index}`,
            labels: { zone: 'ab'[index % 2] ?? '' },
            generic: [{ kind: 'gpu', value: 2, names: ['x', 'y'] }],
          })
        const lab = await Lab.open(...[0, 1, 2].map(newNode))
        for (const [
          index,
          { nanoCpus, memoryBytes, gpu, max, spread, constraint, port },
        ] of templates.entries()) {
          await lab.workload(`w${index}`, {
            reservations: {
              nanoCpus,
              memoryBytes,
              generic: gpu > 0 ? [{ kind: 'gpu', value: gpu }] : [],
            },
            placement: {
              maxReplicasPerNode: max,
              spread,
              constraints: constraint
                ? [{ key: 'node.labels.zone', operator: '==', value: constraint }]
                : [],
            },
          })
          if (port > 0) {
            await lab.add(
              buildEndpoint({
                id: `e${index}`,
                name: `w${index}`,
                workloadId: `w${index}`,
                spec: {
                  ports: [
                    { protocol: 'tcp', targetPort: port, publishedPort: port, publishMode: 'host' },
                  ],
                },
              }),
            )
          }
        }
        const pickTask = (pick: number) => {
          const tasks = [...lab.store.view.list('task')]
          return tasks[pick % Math.max(1, tasks.length)]
        }
        for (const each of steps) {
          switch (each.type) {
            case 'tasks':
              await lab.pending(`w${each.workload}`, each.count)
              break
            case 'pinned':
              await lab.pending(`w${each.workload}`, 1, {
                pinnedNodeId: `n${each.node}`,
                slot: undefined,
              })
              break
            case 'end': {
              const task = pickTask(each.pick)
              if (task?.nodeId) await lab.end(task.id, each.failed ? 'failed' : 'complete')
              break
            }
            case 'stop': {
              const task = pickTask(each.pick)
              if (task) await lab.setTask(task.id, (old) => ({ ...old, desiredState: 'shutdown' }))
              break
            }
            case 'delete': {
              const task = pickTask(each.pick)
              if (task)
                await lab.store.commit([
                  { type: 'delete', kind: 'task', id: task.id, version: task.version },
                ])
              break
            }
            case 'forget':
              lab.scheduler.decide(lab.nowMs, 3)
              break
            case 'node': {
              const node = lab.store.view.get('node', `n${each.node}`)
              if (!node) await lab.add(newNode(each.node))
              else if (each.change === 'gone')
                await lab.store.commit([
                  { type: 'delete', kind: 'node', id: node.id, version: node.version },
                ])
              else
                await lab.setNode(node.id, (old) => {
                  switch (each.change) {
                    case 'down':
                    case 'ready':
                      return { ...old, status: { ...old.status, state: each.change } }
                    case 'drain':
                    case 'active':
                      return { ...old, spec: { ...old.spec, availability: each.change } }
                    case 'a':
                    case 'b':
                      return { ...old, labels: { zone: each.change } }
                    default:
                      return old
                  }
                })
              break
            }
            default:
              assert.fail('unexpected step')
          }
          if (each.type !== 'forget') await lab.settle(each.type === 'tasks' ? 2 : 100)
          const rebuilt = Scheduler.from(lab.store.view)
          assert.deepEqual(lab.scheduler.describe(), rebuilt.describe())
          // Both at rest: what waits for one waits for the other, for the same reason.
          const { placements, refusals, shutDown } = rebuilt.decide(lab.nowMs, 1000)
          if (each.type !== 'forget') {
            assert.deepEqual([placements.length, refusals.length, shutDown.length], [0, 0, 0])
          }
          checkNodes(lab, templates)
        }
      },
    ),
    { numRuns: 150 },
  )
})

/** Judges by the view alone. */
function checkNodes(
  lab: Lab,
  templates: readonly {
    nanoCpus: number
    memoryBytes: number
    gpu: number
    max: number
    port: number
  }[],
): void {
  const view = lab.store.view
  for (const node of view.list('node')) {
    const held = view
      .tasksOfNode(node.id)
      .filter((task) => !['complete', 'failed', 'shutdown'].includes(task.status.state))
    const of = (task: Task) => templates[Number(task.workloadId.slice(1))]
    const sum = (read: (template: NonNullable<ReturnType<typeof of>>) => number) =>
      held.reduce(
        (total, task) => total + ((template) => (template ? read(template) : 0))(of(task)),
        0,
      )
    assert.ok(sum(({ nanoCpus }) => nanoCpus) <= 4 * Cpu)
    assert.ok(sum(({ memoryBytes }) => memoryBytes) <= 8 * GiB)
    assert.ok(sum(({ port }) => (port > 0 ? 1 : 0)) <= 1)
    const names = held.flatMap((task) =>
      task.genericResources.flatMap(({ names: given }) => given ?? []),
    )
    assert.equal(new Set(names).size, names.length)
    for (const [index, { max }] of templates.entries()) {
      const active = held.filter(
        (task) =>
          task.workloadId === `w${index}` && isLive(task) && task.pinnedNodeId === undefined,
      )
      if (max > 0) assert.ok(active.length <= max)
    }
  }
}
