import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, UserError } from '../base/index.ts'
import { type EngineNetworks, NodeNetworks, networkBody, ownerLabel } from './engine-networks.ts'
import { buildNetwork } from './test-objects.ts'

type Stored = Awaited<ReturnType<EngineNetworks['inspect']>>

/** An engine's networks in memory. */
function fakeEngine() {
  const stored = new Map<string, Stored>()
  const used = new Set<string>()
  let created = 0
  const engine: EngineNetworks = {
    async list({ filters }) {
      const [label = ''] = Array.isArray(filters?.['label']) ? filters['label'] : []
      const [key = '', value] = label.split('=')
      return [...stored.values()].filter(
        ({ Labels }) =>
          Labels?.[key] !== undefined && (value === undefined || Labels[key] === value),
      )
    },
    async inspect(name) {
      const found = stored.get(name)
      if (!found) throw new UserError('notFound', `No such network: ${name}`)
      return found
    },
    async create(body) {
      if (stored.has(body.Name)) throw new UserError('conflict', `${body.Name} already exists`)
      const subnet = body.IPAM?.Config?.[0]?.Subnet
      const isTaken = [...stored.values()].some(({ IPAM }) => IPAM.Config?.[0]?.Subnet === subnet)
      if (isTaken) {
        throw new UserError('forbidden', 'Pool overlaps with other one on this address space')
      }
      created++
      stored.set(body.Name, {
        Id: body.Name,
        Name: body.Name,
        Driver: 'bridge',
        Scope: 'local',
        Internal: body.Internal ?? false,
        Attachable: false,
        Ingress: false,
        EnableIPv6: false,
        IPAM: { Driver: 'default', Config: body.IPAM?.Config ?? [] },
        Labels: body.Labels ?? {},
      })
      return { Id: body.Name }
    },
    async remove(id) {
      if (used.has(id)) throw new UserError('forbidden', `network ${id} has active endpoints`)
      stored.delete(id)
    },
  }
  return { engine, stored, used, count: () => created }
}

function open(engine: EngineNetworks) {
  let nowMs = 0
  const clock = { nowMs: () => nowMs, sleep: async () => {} }
  const networks = new NodeNetworks({
    engine,
    removeBridge: async () => {},
    owner: 'skep',
    mtu: async () => 1450,
    clock,
    log: silentLog,
  })
  return { networks, pass: (ms: number) => (nowMs += ms) }
}

const net = buildNetwork('app')
const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

describe('networks of a node', () => {
  test('many who ask at once make one', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await Promise.all(Array.from({ length: 5 }, () => networks.ensure(net)))
    assert.equal(fake.count(), 1)
  })

  test('one that an earlier daemon made is taken over', async () => {
    const fake = fakeEngine()
    await open(fake.engine).networks.ensure(net)
    assert.equal(await open(fake.engine).networks.ensure(net), 'app')
    assert.equal(fake.count(), 1)
  })

  test('a foreign network of the same name, and an overlapping one, are conflicts with a reason', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await fake.engine.create({ Name: 'app' })
    await assert.rejects(networks.ensure(net), { code: 'conflict', message: /not Skep's/ })
    fake.stored.clear()
    await fake.engine.create({
      Name: 'theirs',
      IPAM: { Driver: 'default', Config: [{ Subnet: net.subnet }] },
    })
    await assert.rejects(networks.ensure(net), { code: 'conflict', message: /overlaps/ })
  })

  test('an earlier network with the subnet that was given out again makes way once it is idle', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await networks.ensure(net)
    const other = { ...buildNetwork('other'), subnet: net.subnet }
    fake.used.add('app')
    // The task waits for it: it is not refused.
    await assert.rejects(networks.ensure(other), { code: 'unavailable' })
    fake.used.clear()
    assert.equal(await networks.ensure(other), 'other')
    assert.equal(fake.stored.has('app'), false)
  })

  test('an earlier network of the same name makes way once it is idle', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await networks.ensure(net)
    const again = { ...net, id: buildNetwork('again').id }
    fake.used.add('app')
    await assert.rejects(networks.ensure(again), { code: 'unavailable' })
    fake.used.clear()
    assert.equal(await networks.ensure(again), 'app')
  })

  test('what nobody wants goes when it is idle, but not what was just asked for, nor others’', async () => {
    const fake = fakeEngine()
    const { networks, pass } = open(fake.engine)
    await fake.engine.create({
      ...networkBody({ ...buildNetwork('theirs'), subnet: '10.7.0.0/24' }, 'other', 1450),
    })
    await networks.ensure(net)
    await networks.keepOnly(new Set())
    assert.ok(fake.stored.has('app'))
    pass(61_000)
    fake.used.add('app')
    await networks.keepOnly(new Set())
    assert.ok(fake.stored.has('app'))
    fake.used.clear()
    await networks.keepOnly(new Set([net.id]))
    assert.ok(fake.stored.has('app'))
    await networks.keepOnly(new Set())
    assert.deepEqual([...fake.stored.keys()], ['theirs'])
  })

  test('what was wanted and is not any more goes at once', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await networks.ensure(net)
    await networks.keepOnly(new Set([net.id]))
    await networks.keepOnly(new Set())
    assert.deepEqual([...fake.stored.keys()], [])
  })

  test('a task that comes while its network is removed gets a new one', async () => {
    const fake = fakeEngine()
    const { networks } = open({
      ...fake.engine,
      remove: async (id) => {
        await nextTurn()
        coming = networks.ensure(net)
        await nextTurn()
        await fake.engine.remove(id)
      },
    })
    let coming: Promise<string> | undefined
    await networks.ensure(net)
    await networks.keepOnly(new Set([net.id]))
    await networks.keepOnly(new Set())
    assert.equal(await coming, 'app')
    assert.ok(fake.stored.has('app'))
    assert.equal(fake.count(), 2)
  })

  test('what a task has asked for stays, though what is wanted was told before that task came', async () => {
    const fake = fakeEngine()
    const { networks, pass } = open(fake.engine)
    await networks.ensure(net)
    await networks.keepOnly(new Set([net.id]))
    await networks.ensure(net)
    await networks.keepOnly(new Set())
    assert.ok(fake.stored.has('app'))
    pass(61_000)
    await networks.keepOnly(new Set())
    assert.deepEqual([...fake.stored.keys()], [], 'the task never came')
  })

  test('one that was removed behind our back is made again, and said so', async () => {
    const fake = fakeEngine()
    const { networks } = open(fake.engine)
    await networks.ensure(net)
    assert.deepEqual(await networks.audit([net]), [])
    fake.stored.clear()
    assert.match((await networks.audit([net])).join(), /"app" was gone/)
    assert.ok(fake.stored.has('app'))
  })

  test('engine options are passed, but not the name of the bridge, which is ours', () => {
    const body = networkBody(
      {
        ...net,
        options: {
          'com.docker.network.driver.mtu': '1400',
          'com.docker.network.bridge.name': 'mine',
          encrypted: '',
        },
      },
      'skep',
      1450,
    )
    assert.deepEqual(body.Options, {
      'com.docker.network.driver.mtu': '1400',
      'com.docker.network.bridge.name': 'sk-app0000000',
    })
    assert.equal(body.Labels[ownerLabel], 'skep')
    const unasked = networkBody(net, 'skep', 1450).Options
    assert.equal(unasked['com.docker.network.driver.mtu'], '1450')
  })
})
