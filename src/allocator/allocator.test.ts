import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  type AnyObject,
  type Cluster,
  type EndpointSpec,
  idFrom,
  type Network,
  type NetworkSpec,
  type PortSpec,
  type Task,
} from '../model/index.ts'
import {
  buildClusterSpec,
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import { Allocator, changesFor } from './index.ts'
import { countAddresses } from './usage.ts'

const meta = {
  namespace: 'default',
  labels: {},
  version: 0,
  specVersion: 0,
  createdAtMs: 0,
  updatedAtMs: 0,
}
const source = { dialect: 'docker', document: {} } as const
const sealed = { keyId: '', nonce: '', ciphertext: '' }

function buildCluster(addressPools = ['10.0.0.0/8'], subnetSize = 24): Cluster {
  return {
    ...meta,
    kind: 'cluster',
    id: idFrom('cluster'),
    name: 'default',
    source,
    spec: buildClusterSpec(),
    status: {
      root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
      rootRotationInProgress: false,
      joinTokens: { worker: sealed, manager: sealed },
      addressPools,
      subnetSize,
      dataPathPort: 4789,
    },
  }
}

function buildNetwork(id: string, spec: Partial<NetworkSpec> = {}): Network {
  return {
    ...meta,
    kind: 'network',
    id: idFrom(id),
    name: id,
    source,
    spec: {
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
      ...spec,
    },
    status: {},
  }
}
const ingress = buildNetwork('ingress', { ingress: true })

class Lab {
  readonly store: Store
  readonly allocator: Allocator
  #tasks = 0

  constructor(store: Store) {
    this.store = store
    this.allocator = Allocator.from(store.view)
    store.subscribe((commit) => this.allocator.apply(commit))
  }

  static async open(...objects: readonly AnyObject[]): Promise<Lab> {
    const lab = new Lab(await openMemoryStore({ clock: { nowMs: () => 0, sleep: async () => {} } }))
    await lab.add(buildNode(), ...objects)
    await lab.settle()
    return lab
  }

  async add(...objects: readonly AnyObject[]): Promise<void> {
    for (let at = 0; at < objects.length; at += 2000) {
      await this.store.commit(
        objects.slice(at, at + 2000).map((object) => ({ type: 'create', object })),
      )
    }
  }

  async change(object: AnyObject | undefined): Promise<void> {
    assert.ok(object)
    await this.store.commit([{ type: 'update', object }])
  }

  async remove(object: AnyObject | undefined): Promise<void> {
    assert.ok(object)
    const { kind, id, version } = object
    await this.store.commit([{ type: 'delete', kind, id, version }])
  }

  async settle(limit = 2000): Promise<void> {
    for (let round = 0; round < 1000; round++) {
      const decision = this.allocator.decide(7, limit)
      const changes = changesFor(this.store.view, decision)
      if (changes.length === 0) {
        assert.equal(decision.more, false)
        return
      }
      await this.store.commit(changes)
    }
    assert.fail('the allocator does not come to rest')
  }

  /** A workload with its endpoint and revision, on these networks. */
  async service(
    name: string,
    networks: readonly string[],
    ports: readonly PortSpec[] = [],
    mode: EndpointSpec['mode'] = 'vip',
  ): Promise<void> {
    await this.add(
      buildWorkload({ id: name, name, spec: { revisionId: idFrom(`${name}-1`) } }),
      buildRevision({
        id: `${name}-1`,
        workloadId: name,
        name: `${name}.1`,
        template: buildTemplate({
          networks: networks.map((id) => ({
            networkId: idFrom(id),
            aliases: [],
            driverOptions: {},
          })),
        }),
      }),
      buildEndpoint({
        id: `e-${name}`,
        name,
        workloadId: name,
        spec: {
          mode,
          ports,
          networks: networks.map((id) => ({ networkId: idFrom(id), aliases: [] })),
        },
        status: { vips: [], ports: [] },
      }),
    )
    await this.settle()
  }

  async tasks(name: string, count: number): Promise<readonly string[]> {
    const tasks = Array.from({ length: count }, () => {
      this.#tasks++
      return buildTask({
        id: `${name}-${this.#tasks}`,
        workloadId: name,
        revisionId: `${name}-1`,
        slot: this.#tasks,
        nodeId: undefined,
        state: 'new',
      })
    })
    await this.add(...tasks)
    await this.settle()
    return tasks.map(({ id }) => id)
  }

  network(id: string): Network {
    const network = this.store.view.get('network', id)
    assert.ok(network)
    return network
  }
  endpoint(name: string) {
    const endpoint = this.store.view.get('endpoint', `e-${name}`)
    assert.ok(endpoint)
    return endpoint
  }
  task(id: string | undefined): Task {
    const task = this.store.view.get('task', id ?? '')
    assert.ok(task)
    return task
  }
  addresses(id: string | undefined): readonly string[] {
    return this.task(id).addresses.map(({ address }) => address)
  }
}

const port = (publishedPort: number, targetPort = 80, over: Partial<PortSpec> = {}): PortSpec => ({
  protocol: 'tcp',
  targetPort,
  publishedPort,
  publishMode: 'ingress',
  ...over,
})

describe('networks', () => {
  test('ingress comes first, then one subnet after the other; VNIs from 4096', async () => {
    const lab = await Lab.open(buildCluster(), buildNetwork('a'), buildNetwork('b'), ingress)
    assert.deepEqual(lab.network('ingress').status, {
      subnet: '10.0.0.0/24',
      gateway: '10.0.0.1',
      vni: 4096,
      nodeAddresses: [{ nodeId: 'n1', address: '10.0.0.254', mac: '02:42:0a:00:00:fe' }],
    })
    assert.equal(lab.network('a').status.subnet, '10.0.1.0/24')
    assert.equal(lab.network('b').status.subnet, '10.0.2.0/24')
    assert.equal(lab.network('b').status.vni, 4098)
  })

  test('each node has an address on the ingress network from its end, until it is removed', async () => {
    const lab = await Lab.open(buildCluster(), ingress, buildNetwork('a'))
    const held = () =>
      lab.store.view
        .get('network', ingress.id)
        ?.status.nodeAddresses?.map(({ nodeId, address, mac }) => `${nodeId} ${address} ${mac}`)
    assert.deepEqual(held(), ['n1 10.0.0.254 02:42:0a:00:00:fe'])
    await lab.add(buildNode({ id: 'n2' }))
    await lab.settle()
    assert.deepEqual(held(), ['n1 10.0.0.254 02:42:0a:00:00:fe', 'n2 10.0.0.253 02:42:0a:00:00:fd'])
    await lab.service('s', ['a'], [port(80, 8080)])
    const [task] = await lab.tasks('s', 1)
    // A VIP, then the task: the nodes' do not move where the search goes on.
    assert.deepEqual(task && lab.addresses(task), ['10.0.1.3', '10.0.0.3'])
    await lab.remove(lab.store.view.get('node', 'n1'))
    await lab.settle()
    assert.deepEqual(held(), ['n2 10.0.0.253 02:42:0a:00:00:fd'])
    assert.equal(lab.store.view.get('network', 'a')?.status.nodeAddresses, undefined)
  })

  test('nodes have at most half of the ingress network', async () => {
    const small = buildNetwork('ingress', { ingress: true, ipam: [{ subnet: '10.9.0.0/28' }] })
    const nodes = Array.from({ length: 9 }, (_, index) => buildNode({ id: `m${index}` }))
    const lab = await Lab.open(buildCluster(), small, ...nodes)
    assert.equal(lab.store.view.get('network', small.id)?.status.nodeAddresses?.length, 6)
  })

  test('subnets of other networks and of hosts are left out', async () => {
    const lab = await Lab.open(
      buildCluster(),
      buildNode({ id: 'n2', hostSubnets: ['10.0.0.0/23', '10.0.3.128/25', 'fe80::/64'] }),
      buildNetwork('own', {
        ipam: [{ subnet: '10.0.2.0/24', range: '10.0.2.64/26', gateway: '10.0.2.200' }],
      }),
      buildNetwork('a'),
    )
    assert.deepEqual(lab.network('own').status, {
      subnet: '10.0.2.0/24',
      range: '10.0.2.64/26',
      gateway: '10.0.2.200',
      vni: 4096,
    })
    assert.equal(lab.network('a').status.subnet, '10.0.4.0/24')
  })

  test('a subnet that overlaps, and pools without room, are errors that end by themselves', async () => {
    const lab = await Lab.open(
      buildCluster(['10.9.0.0/25', '10.9.2.0/23'], 24),
      buildNetwork('a'),
      buildNetwork('b'),
      buildNetwork('c'),
      buildNetwork('d', { ipam: [{ subnet: '10.9.2.0/25' }] }),
    )
    assert.equal(lab.network('b').status.subnet, '10.9.3.0/24')
    assert.equal(
      lab.network('c').status.error,
      'no free /24 subnet is left in the address pools (10.9.0.0/25, 10.9.2.0/23): ' +
        'remove a network nobody uses, or name a subnet for this one',
    )
    assert.match(
      lab.network('d').status.error ?? '',
      /^subnet 10.9.2.0\/25 overlaps 10.9.2.0\/24 of network a/,
    )
    await lab.remove(lab.network('b'))
    await lab.settle()
    assert.equal(lab.network('c').status.subnet, '10.9.3.0/24')
    assert.equal(lab.network('c').status.error, undefined)
    await lab.remove(lab.network('a'))
    await lab.settle()
    assert.equal(lab.network('d').status.subnet, '10.9.2.0/25')
  })

  test('with IPv6 they have a /64 of the cluster besides, which none of them shares', async () => {
    const six = (id: string, ipam: NetworkSpec['ipam'] = []) =>
      buildNetwork(id, { ipv6: true, attachable: true, ipam })
    const lab = await Lab.open(buildCluster(), six('a'), six('b'), buildNetwork('c'))
    const [a, b] = [lab.network('a').status.ipv6, lab.network('b').status.ipv6]
    assert.match(a?.subnet ?? '', /^fd[0-9a-f:]+::\/64$/)
    assert.equal(a?.gateway, a?.subnet.replace('/64', '1'))
    assert.notEqual(a?.subnet, b?.subnet)
    assert.equal(lab.network('c').status.ipv6, undefined)
    // Whoever asks for an address of one family has that of the other.
    const asked = a?.subnet.replace('/64', '2a')
    assert.equal(lab.allocator.freeAddress(idFrom('a'), asked).address, '10.0.0.42')
    assert.throws(() => lab.allocator.freeAddress(idFrom('a'), asked), { code: 'conflict' })
    assert.throws(() => lab.allocator.freeAddress(idFrom('c'), asked), { code: 'invalidInput' })
    await lab.remove(lab.network('a'))
    await lab.settle()
    await lab.add(six('d'))
    await lab.settle()
    assert.equal(lab.network('d').status.ipv6?.subnet, a?.subnet)
  })

  describe('with an IPv6 block that was asked for', () => {
    const cases = [
      {
        name: 'it is that one',
        pool: { subnet: 'fd00:9::/64', range: 'fd00:9::8:0:0/80', gateway: 'fd00:9::ff:1' },
        want: { subnet: 'fd00:9::/64', range: 'fd00:9::8:0:0/80', gateway: 'fd00:9::ff:1' },
      },
      {
        name: 'it may be as small as the IPv4 one',
        pool: { subnet: 'fd00:9::100/120' },
        want: { subnet: 'fd00:9::100/120', gateway: 'fd00:9::101' },
      },
      { name: 'but not smaller', pool: { subnet: 'fd00:9::/121' }, error: /less addresses than/ },
      {
        name: "a task's address is no gateway",
        pool: { subnet: 'fd00:9::/64', gateway: 'fd00:9::7' },
        error: /gateway fd00:9::7 belongs to whoever has 10\.0\.1\.7/,
      },
      {
        name: 'it may not overlap',
        pool: { subnet: 'fd00:8::/48' },
        error: /overlaps fd00:8::\/64 of network first/,
      },
    ]
    for (const { name, pool, want, error } of cases) {
      test(name, async () => {
        const lab = await Lab.open(
          buildCluster(),
          buildNetwork('first', { ipv6: true, ipam: [{ subnet: 'fd00:8::/64' }] }),
        )
        await lab.add(buildNetwork('six', { ipv6: true, ipam: [pool] }))
        await lab.settle()
        const { status } = lab.network('six')
        assert.deepEqual(status.ipv6, want)
        if (error) assert.match(status.error ?? '', error)
      })
    }
  })

  test("the engine's own networks, and other drivers', get nothing", async () => {
    const lab = await Lab.open(
      buildCluster(),
      buildNetwork('host', { predefined: true, driver: 'host' }),
      buildNetwork('mac', { driver: 'macvlan' }),
    )
    await lab.service('s', ['host', 'mac'])
    const [id] = await lab.tasks('s', 1)
    assert.deepEqual([lab.network('host').status, lab.network('mac').status], [{}, {}])
    assert.deepEqual(lab.endpoint('s').status.vips, [])
    assert.deepEqual(lab.task(id).addresses, [])
    assert.equal(lab.task(id).status.state, 'pending')
  })
})

describe('endpoints', () => {
  test('a VIP per network, and one on ingress when a port is published there', async () => {
    const lab = await Lab.open(buildCluster(), ingress, buildNetwork('a'), buildNetwork('b'))
    await lab.service('web', ['a', 'b'], [port(8080)])
    await lab.service('inner', ['a'])
    await lab.service('rr', ['a'], [], 'dnsrr')
    await lab.service('host', ['a'], [port(8080, 80, { publishMode: 'host' })])
    assert.deepEqual(lab.endpoint('web').status.vips, [
      { networkId: 'a', address: '10.0.1.2' },
      { networkId: 'b', address: '10.0.2.2' },
      { networkId: 'ingress', address: '10.0.0.2' },
    ])
    assert.deepEqual(lab.endpoint('inner').status.vips, [{ networkId: 'a', address: '10.0.1.3' }])
    assert.deepEqual(lab.endpoint('rr').status.vips, [])
    assert.deepEqual(lab.endpoint('host').status.vips, [{ networkId: 'a', address: '10.0.1.4' }])
  })

  test('ports nobody named come from 30000 on, per protocol, and stick across updates', async () => {
    const lab = await Lab.open(buildCluster(), ingress)
    await lab.service('a', [], [port(30_000, 1), port(0, 2), port(0, 3, { protocol: 'udp' })])
    const numbers = () => lab.endpoint('a').status.ports.map(({ publishedPort }) => publishedPort)
    assert.deepEqual(numbers(), [30_000, 30_001, 30_000])
    const endpoint = lab.endpoint('a')
    await lab.change({ ...endpoint, spec: { ...endpoint.spec, ports: [port(0, 9), port(0, 2)] } })
    await lab.settle()
    assert.deepEqual(numbers(), [30_000, 30_001])
  })

  test('a port that is taken is an error naming its holder, and its tasks wait until it is free', async () => {
    const lab = await Lab.open(buildCluster(), ingress)
    await lab.service('a', [], [port(8080)])
    await lab.service('b', [], [port(8080), port(8081)])
    const [id] = await lab.tasks('b', 1)
    assert.equal(
      lab.endpoint('b').status.error,
      'port 8080/tcp is already published by a: publish another port, or remove it there',
    )
    assert.deepEqual(lab.endpoint('b').status.ports, [port(8081)])
    assert.equal(lab.task(id).status.state, 'new')
    assert.match(lab.task(id).status.error ?? '', /^waits for endpoint b: port 8080\/tcp/)
    await lab.remove(lab.endpoint('a'))
    await lab.settle()
    assert.deepEqual(lab.endpoint('b').status.ports, [port(8080), port(8081)])
    assert.equal(lab.endpoint('b').status.error, undefined)
    assert.equal(lab.task(id).status.state, 'pending')
    assert.equal(lab.task(id).status.error, undefined)
  })

  test('udp and tcp do not clash', async () => {
    const lab = await Lab.open(buildCluster(), ingress)
    await lab.service('a', [], [port(53)])
    await lab.service('b', [], [port(53, 53, { protocol: 'udp' })])
    assert.equal(lab.endpoint('b').status.error, undefined)
  })

  test('a published port without an ingress network says so', async () => {
    const lab = await Lab.open(buildCluster())
    await lab.service('a', [], [port(80)])
    assert.equal(
      lab.endpoint('a').status.error,
      'service needs ingress network, but no ingress network is present',
    )
    await lab.add(ingress)
    await lab.settle()
    assert.equal(lab.endpoint('a').status.error, undefined)
  })
})

describe('tasks', () => {
  test('get one address per network, and one on ingress behind a published port', async () => {
    const lab = await Lab.open(buildCluster(), ingress, buildNetwork('a'), buildNetwork('b'))
    await lab.service('web', ['a', 'b'], [port(80)])
    const [id] = await lab.tasks('web', 1)
    const task = lab.task(id)
    assert.deepEqual(task.addresses, [
      { networkId: 'a', address: '10.0.1.3', mac: '02:42:0a:00:01:03' },
      { networkId: 'b', address: '10.0.2.3', mac: '02:42:0a:00:02:03' },
      { networkId: 'ingress', address: '10.0.0.3', mac: '02:42:0a:00:00:03' },
    ])
    assert.equal(task.status.state, 'pending')
    assert.equal(task.status.message, 'pending task scheduling')
    assert.equal(task.status.atMs, 7)
  })

  test('an address is held until the task has ended, and used again as late as may be', async () => {
    const lab = await Lab.open(
      buildCluster(),
      buildNetwork('a', { ipam: [{ subnet: '10.1.0.0/29' }] }),
    )
    await lab.service('s', ['a'], [], 'dnsrr')
    const [one, two] = await lab.tasks('s', 2)
    assert.deepEqual(lab.addresses(one), ['10.1.0.2'])
    await lab.change({ ...lab.task(one), desiredState: 'shutdown' })
    await lab.tasks('s', 3)
    const [waits] = await lab.tasks('s', 1)
    assert.equal(lab.task(waits).status.state, 'new')
    assert.equal(
      lab.task(waits).status.error,
      'no free address in network a (10.1.0.0/29: 5 of 5 used): ' +
        'stop what is not needed on it, or use a network with a larger subnet',
    )
    const usage = () => {
      const network = lab.store.view.get('network', 'a')
      return network && countAddresses(lab.store.view, network)
    }
    assert.deepEqual(usage(), { size: 5, used: 5 })
    await lab.change({ ...lab.task(one), status: { ...lab.task(one).status, state: 'shutdown' } })
    assert.deepEqual(usage(), { size: 5, used: 4 })
    await lab.settle()
    assert.deepEqual(lab.addresses(waits), ['10.1.0.2'])
    assert.equal(lab.task(waits).status.error, undefined)
    await lab.remove(lab.task(two))
    const [next] = await lab.tasks('s', 1)
    assert.deepEqual(lab.addresses(next), ['10.1.0.3'])
  })

  test('a freed address is not the next one given', async () => {
    const lab = await Lab.open(buildCluster(), buildNetwork('a'))
    await lab.service('s', ['a'])
    const [one] = await lab.tasks('s', 1)
    await lab.remove(lab.task(one))
    const [two] = await lab.tasks('s', 1)
    assert.notDeepEqual(lab.addresses(two), ['10.0.0.3'])
  })

  test('one told to stop before it got an address has ended; one to be removed is left to the reaper', async () => {
    const lab = await Lab.open(buildCluster())
    await lab.service('s', ['missing'])
    const [stop, remove, waits] = await lab.tasks('s', 3)
    assert.equal(
      lab.task(waits).status.error,
      'waits for endpoint s: network missing no longer exists',
    )
    await lab.change({ ...lab.task(stop), desiredState: 'shutdown' })
    await lab.change({ ...lab.task(remove), desiredState: 'remove' })
    await lab.settle()
    assert.equal(lab.task(stop).status.state, 'shutdown')
    assert.equal(lab.task(stop).status.error, undefined)
    assert.equal(lab.task(remove).status.state, 'new')
  })
})

describe('plain containers', () => {
  const attach = (network: Network, address: { address: string; mac: string }, nodeId = 'n1') => ({
    ...network,
    status: {
      ...network.status,
      attachments: [
        ...(network.status.attachments ?? []),
        { nodeId: idFrom<'node'>(nodeId), container: 'c', createdAtMs: 0, ...address },
      ],
    },
  })

  test('a promised address is given to nobody else, before and after its commit', async () => {
    const lab = await Lab.open(
      buildCluster(),
      buildNetwork('a', { attachable: true, ipam: [{ subnet: '10.1.0.0/29' }] }),
    )
    await lab.service('s', ['a'], [], 'dnsrr')
    const taken = lab.allocator.freeAddress(idFrom('a'))
    assert.deepEqual(taken, { address: '10.1.0.2', mac: '02:42:0a:01:00:02' })
    assert.equal(lab.allocator.freeAddress(idFrom('a')).address, '10.1.0.3')
    await lab.change(attach(lab.network('a'), taken))
    const ids = await lab.tasks('s', 5)
    const given = ids.flatMap((id) => lab.addresses(id)).sort()
    assert.deepEqual(given, ['10.1.0.3', '10.1.0.4', '10.1.0.5', '10.1.0.6'])
    assert.throws(() => lab.allocator.freeAddress(idFrom('a')), /5 of 5 used/)
    assert.throws(() => lab.allocator.freeAddress(idFrom('a'), '10.1.0.2'), /is in use/)
    assert.throws(() => lab.allocator.freeAddress(idFrom('a'), '10.1.0.1'), /cannot give/)
    assert.throws(() => lab.allocator.freeAddress(idFrom('x')), /not found/)
  })

  test('they go with their node', async () => {
    const lab = await Lab.open(buildCluster(), buildNode({ id: 'n2' }), buildNetwork('a'))
    await lab.change(attach(lab.network('a'), lab.allocator.freeAddress(idFrom('a')), 'n1'))
    await lab.change(
      attach(lab.network('a'), lab.allocator.freeAddress(idFrom('a'), '10.0.0.9'), 'n2'),
    )
    await lab.remove(lab.store.view.get('node', 'n2'))
    await lab.settle()
    assert.deepEqual(
      lab.network('a').status.attachments?.map(({ nodeId }) => nodeId),
      ['n1'],
    )
    assert.equal(lab.allocator.freeAddress(idFrom('a'), '10.0.0.9').address, '10.0.0.9')
  })
})

test('sixty thousand addresses in one network, each once', async () => {
  const lab = await Lab.open(
    buildCluster(),
    buildNetwork('a', { ipam: [{ subnet: '10.1.0.0/16' }] }),
  )
  await lab.service('s', ['a'])
  const ids = await lab.tasks('s', 60_000)
  assert.equal(new Set(ids.flatMap((id) => lab.addresses(id))).size, 60_000)
})

const step = fc.oneof(
  fc.record({
    type: fc.constant('network' as const),
    id: fc.nat(3),
    subnet: fc.constantFrom(undefined, '10.1.0.0/29', '10.1.0.0/28'),
  }),
  fc.record({
    type: fc.constant('service' as const),
    id: fc.nat(3),
    networks: fc.uniqueArray(fc.nat(3), { maxLength: 3 }),
    ports: fc.array(fc.constantFrom(0, 80, 81, 30_000), { maxLength: 2 }),
    mode: fc.constantFrom('vip', 'dnsrr' as const),
  }),
  fc.record({
    type: fc.constant('ports' as const),
    id: fc.nat(3),
    ports: fc.array(fc.constantFrom(0, 80, 81, 30_000), { maxLength: 2 }),
  }),
  fc.record({
    type: fc.constant('tasks' as const),
    id: fc.nat(3),
    count: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ type: fc.constant('end' as const), pick: fc.nat() }),
  fc.record({
    type: fc.constant('remove' as const),
    kind: fc.constantFrom('task', 'task', 'endpoint', 'network' as const),
    pick: fc.nat(),
  }),
  fc.record({ type: fc.constant('attach' as const), id: fc.nat(3), isKept: fc.boolean() }),
  fc.record({ type: fc.constant('idle' as const), limit: fc.integer({ min: 1, max: 3 }) }),
)

test('any history: nothing is held twice, a rebuilt allocator knows the same, and in the end all is free', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.integer({ min: 1, max: 5 }),
      async (steps, limit) => {
        const lab = await Lab.open(buildCluster(['10.2.0.0/26'], 28), ingress)
        const { view } = lab.store
        const targets = (numbers: readonly number[]) =>
          [...new Set(numbers)].map((number, index) => port(number, index + 1))
        let isAllKept = true
        for (const each of steps) {
          switch (each.type) {
            case 'network':
              if (!view.get('network', `n${each.id}`)) {
                await lab.add(
                  buildNetwork(`n${each.id}`, {
                    attachable: true,
                    ipam: each.subnet ? [{ subnet: each.subnet }] : [],
                  }),
                )
              }
              break
            case 'service':
              if (!view.get('workload', `s${each.id}`)) {
                await lab.service(
                  `s${each.id}`,
                  each.networks.map((id) => `n${id}`),
                  each.mode === 'vip' ? targets(each.ports) : [],
                  each.mode,
                )
              }
              break
            case 'ports': {
              const endpoint = view.get('endpoint', `e-s${each.id}`)
              if (endpoint?.spec.mode === 'vip') {
                await lab.change({
                  ...endpoint,
                  spec: { ...endpoint.spec, ports: targets(each.ports) },
                })
              }
              break
            }
            case 'tasks':
              if (view.get('workload', `s${each.id}`)) await lab.tasks(`s${each.id}`, each.count)
              break
            case 'end': {
              const tasks = [...view.list('task')]
              const task = tasks[each.pick % Math.max(1, tasks.length)]
              if (task && task.status.state === 'pending') {
                await lab.change({ ...task, status: { ...task.status, state: 'failed' } })
              }
              break
            }
            case 'remove': {
              const objects = [...view.list(each.kind)]
              const object = objects[each.pick % Math.max(1, objects.length)]
              if (object) await lab.remove(object)
              break
            }
            case 'attach': {
              const network = view.get('network', `n${each.id}`)
              if (!network?.status.subnet) break
              try {
                const address = lab.allocator.freeAddress(network.id)
                if (!each.isKept) {
                  isAllKept = false
                  break
                }
                const attachments = [
                  ...(network.status.attachments ?? []),
                  {
                    nodeId: idFrom<'node'>('n1'),
                    container: address.address,
                    createdAtMs: 0,
                    ...address,
                  },
                ]
                await lab.change({ ...network, status: { ...network.status, attachments } })
              } catch (error) {
                assert.match(String(error), /no free address/)
              }
              break
            }
            default:
              lab.allocator.decide(0, each.limit)
          }
          if (each.type === 'idle') continue
          await lab.settle(limit)
          checkOnce(lab.store)
        }
        // Nobody waits for what is free.
        if (isAllKept) {
          const { more: _, ...missed } = Allocator.from(view).decide(0, 1_000)
          assert.deepEqual(missed, { networks: [], endpoints: [], tasks: [] })
        }
        // A commit of a network ends what was promised on it and never written.
        for (const network of view.list('network')) await lab.change(network)
        await lab.settle()
        assert.deepEqual(lab.allocator.describe(), Allocator.from(view).describe())
        const rest = Allocator.from(view).decide(0, 1000)
        assert.deepEqual(
          [rest.networks.length, rest.endpoints.length, rest.tasks.length],
          [0, 0, 0],
        )
        for (const kind of ['task', 'endpoint', 'network'] as const) {
          for (const object of Array.from<AnyObject>(view.list(kind))) await lab.remove(object)
        }
        await lab.settle()
        assert.deepEqual(lab.allocator.describe(), {
          pools: [],
          blocks: [],
          vnis: [],
          ports: [],
          hostPorts: [],
          newTasks: [],
        })
      },
    ),
    { numRuns: 200 },
  )
})

/** Judges by the view alone. */
function checkOnce({ view }: Store): void {
  const held: string[] = []
  const seenPorts: string[] = []
  for (const task of view.list('task')) {
    if (['failed', 'shutdown'].includes(task.status.state)) continue
    for (const { networkId, address } of task.addresses) held.push(`${networkId} ${address}`)
    assert.ok(task.status.state !== 'new' || task.status.error !== undefined)
  }
  for (const { status } of view.list('endpoint')) {
    for (const { networkId, address } of status.vips) held.push(`${networkId} ${address}`)
    for (const { protocol, publishedPort } of status.ports)
      seenPorts.push(`${protocol} ${publishedPort}`)
  }
  const vnis: number[] = []
  for (const { id, status } of view.list('network')) {
    for (const { address } of status.attachments ?? []) held.push(`${id} ${address}`)
    if (status.gateway) held.push(`${id} ${status.gateway}`)
    if (status.vni !== undefined) vnis.push(status.vni)
    assert.ok(status.subnet !== undefined || status.error !== undefined)
  }
  for (const list of [held, seenPorts, vnis])
    assert.equal(new Set<string | number>(list).size, list.length)
}
