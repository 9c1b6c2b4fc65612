import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { idFrom } from '../model/index.ts'
import type { NeighbourAssignment } from '../wire/index.ts'
import {
  changeOverlay,
  type OverlayPlan,
  type OverlayState,
  overlayMtu,
  planOverlay,
  shapeOf,
} from './overlay-plan.ts'
import { parseDevices, parseOverlay } from './overlay-state.ts'
import { buildNetwork } from './test-objects.ts'

const eth0 = { name: 'eth0', mtu: 1500, mac: '02:00:00:00:00:01', addresses: ['192.0.2.1'] }
const dataPath = { address: '192.0.2.1', port: 4789 }
const net = buildNetwork('net')

function neighbour(address: string, nodeAddress: string): NeighbourAssignment {
  const mac = `02:42:${address
    .split('.')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join(':')}`
  const id = `${net.id}/${address}`
  return { id, networkId: net.id, address, mac, nodeId: idFrom(nodeAddress), nodeAddress }
}

function planOf(neighbours: readonly NeighbourAssignment[]): OverlayPlan | undefined {
  return planOverlay({ networks: [net], neighbours, dataPath, devices: [eth0] }).get(net.id)
}

/** A kernel as far as these commands go. */
class Kernel {
  state: OverlayState | undefined

  tell({ links, entries, forwarding }: ReturnType<typeof changeOverlay>): void {
    const neighbours = new Map(this.state?.neighbours)
    let destinations = new Map(this.state?.destinations)
    let forwarded = new Set(this.state?.forwarded)
    let { shape, mtu, isUp } = this.state ?? { shape: '', mtu: 0, isUp: false }
    for (const line of [...links, ...entries, ...forwarding]) {
      const word = line.split(' ')
      const after = (key: string) => word[word.indexOf(key) + 1] ?? ''
      if (line.startsWith('link add')) {
        shape = shapeOf({
          vni: Number(after('id')),
          port: Number(after('dstport')),
          local: word.includes('local') ? after('local') : '',
          bridge: '',
        })
        mtu = Number(after('mtu'))
        destinations = new Map()
        forwarded = new Set()
      } else if (line.includes(' master sk-')) shape += after('master')
      else if (line.includes(' mtu ')) mtu = Number(after('mtu'))
      if (line.endsWith(' up')) isUp = true
      if (line.startsWith('neigh delete')) assert.ok(neighbours.delete(word[2] ?? ''))
      if (line.startsWith('neigh replace')) neighbours.set(word[2] ?? '', after('lladdr'))
      if (line.startsWith('fdb delete') && word.includes('self')) {
        assert.equal(destinations.get(word[2] ?? ''), after('dst'))
        destinations.delete(word[2] ?? '')
      } else if (line.startsWith('fdb delete')) assert.ok(forwarded.delete(word[2] ?? ''))
      if (line.startsWith('fdb add')) {
        assert.ok(!destinations.has(word[2] ?? ''), 'a second destination would be added')
        destinations.set(word[2] ?? '', after('dst'))
      }
      if (line.startsWith('fdb replace')) forwarded.add(word[2] ?? '')
    }
    this.state = { shape, mtu, isUp, neighbours, destinations, forwarded }
  }
}

describe('the plan of an overlay', () => {
  test('a network that is nowhere else has no device', () => {
    assert.equal(planOf([]), undefined)
  })

  test('nothing is planned while nobody knows where this node takes packets', () => {
    const neighbours = [neighbour('10.0.1.5', '192.0.2.2')]
    const options = { networks: [net], neighbours, dataPath: undefined, devices: [eth0] }
    assert.equal(planOverlay(options).size, 0)
  })

  test('packets leave from the data path address, unless it is no address of this host', () => {
    const neighbours = [neighbour('10.0.1.5', '192.0.2.2')]
    assert.equal(planOf(neighbours)?.local, '192.0.2.1')
    const translated = { address: '203.0.113.9', port: 4789 }
    const options = { networks: [net], neighbours, dataPath: translated, devices: [eth0] }
    assert.equal(planOverlay(options).get(net.id)?.local, '')
  })

  const jumbo = { ...eth0, name: 'eth1', mtu: 9000, addresses: ['198.51.100.1'] }
  const bridge = { ...eth0, name: 'sk-abc', mtu: 500, addresses: ['10.0.1.1'] }
  const cases = [
    { name: 'of the device with the data path address', address: '198.51.100.1', mtu: 8950 },
    { name: 'the least of all where that is unknown', address: undefined, mtu: 1450 },
  ]
  for (const { name, address, mtu } of cases) {
    test(`packets are as large as fits: ${name}`, () => {
      assert.equal(overlayMtu([bridge, eth0, jumbo], address), mtu)
    })
  }
  test('packets are as large as usual where there is no device', () => {
    assert.equal(overlayMtu([bridge], undefined), 1450)
  })
})

describe('the change of an overlay', () => {
  const places = fc.uniqueArray(
    fc.record({
      address: fc.integer({ min: 2, max: 12 }).map((last) => `10.0.1.${last}`),
      node: fc.integer({ min: 2, max: 4 }).map((last) => `192.0.2.${last}`),
    }),
    { selector: ({ address }) => address, minLength: 1, maxLength: 8 },
  )

  test('any plan after any other is reached, and then nothing is left to do', () => {
    fc.assert(
      fc.property(places, places, (first, second) => {
        const kernel = new Kernel()
        for (const each of [first, second]) {
          const plan = planOf(each.map(({ address, node }) => neighbour(address, node)))
          assert.ok(plan)
          kernel.tell(changeOverlay(plan, kernel.state, 'skep:test'))
          const { state } = kernel
          const nodeByMac = new Map([...plan.places.values()].map(({ mac, node }) => [mac, node]))
          assert.deepEqual(
            state?.neighbours,
            new Map([...plan.places].map(([address, { mac }]) => [address, mac])),
          )
          assert.deepEqual(state.destinations, nodeByMac)
          assert.deepEqual(state.forwarded, new Set(nodeByMac.keys()))
          const rest = changeOverlay(plan, state, 'skep:test')
          assert.deepEqual(rest, { links: [], entries: [], forwarding: [], found: [] })
        }
      }),
    )
  })

  test('one more address is told alone', () => {
    const one = neighbour('10.0.1.5', '192.0.2.2')
    const two = neighbour('10.0.1.6', '192.0.2.3')
    const [before, after] = [planOf([one]), planOf([one, two])]
    assert.ok(before && after)
    const kernel = new Kernel()
    kernel.tell(changeOverlay(before, undefined, 'skep:test'))
    const { links, entries, forwarding } = changeOverlay(after, kernel.state, 'skep:test')
    assert.deepEqual([links.length, entries.length, forwarding.length], [0, 1, 2])
  })
})

describe('what the kernel says of it', () => {
  test('a device, its entries and who made it', () => {
    const links = JSON.stringify([
      {
        ifname: 'sv-a',
        flags: ['BROADCAST', 'UP'],
        mtu: 1450,
        master: 'sk-a',
        ifalias: 'skep:skep',
        linkinfo: { info_kind: 'vxlan', info_data: { id: 4097, local: '192.0.2.1', port: 4789 } },
      },
    ])
    const neighbours = JSON.stringify([
      { dst: '10.0.1.5', dev: 'sk-a', lladdr: '02:42:0a:00:01:05', state: ['PERMANENT'] },
    ])
    const forwarding = JSON.stringify([
      { mac: '02:42:0a:00:01:05', ifname: 'sv-a', master: 'sk-a', state: 'static' },
      { mac: '6e:f6:1c:93:d0:29', ifname: 'sv-a', master: 'sk-a', state: 'permanent' },
      { mac: '02:42:0a:00:01:05', ifname: 'sv-a', dst: '192.0.2.2', state: 'permanent' },
    ])
    const seen = parseOverlay([links, neighbours, forwarding]).get('sv-a')
    assert.deepEqual(seen, {
      device: 'sv-a',
      owner: 'skep:skep',
      shape: '4097 4789 192.0.2.1 sk-a',
      mtu: 1450,
      isUp: true,
      neighbours: new Map([['10.0.1.5', '02:42:0a:00:01:05']]),
      destinations: new Map([['02:42:0a:00:01:05', '192.0.2.2']]),
      forwarded: new Set(['02:42:0a:00:01:05']),
    })
  })

  test('nothing where nothing was printed, and no device for one that is down', () => {
    assert.equal(parseOverlay(['', '', '']).size, 0)
    assert.deepEqual(parseDevices('[{},{}]'), [])
  })
})
