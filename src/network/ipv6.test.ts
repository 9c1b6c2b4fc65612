import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import type { NeighbourAssignment } from '../wire/index.ts'
import { changeAddresses, parseBridgeAddresses, planBridgeAddresses } from './bridge-addresses.ts'
import { planBridgeSettings } from './bridge-settings.ts'
import { renderHostRules } from './host-rules.ts'
import { Ipv6View } from './ipv6-view.ts'
import { planOverlay } from './overlay-plan.ts'
import { indexState, lookUp } from './resolver/lookup.ts'
import { encodeAddresses, parseQuery } from './resolver/message.ts'
import { buildZones } from './resolver/zones.ts'
import { elementsBySet, isPlausibleListing } from './ruleset.ts'
import { backendOf, buildEndpoint, buildNetwork, buildTask } from './test-objects.ts'

const six = buildNetwork('six', {
  subnet: '10.0.6.0/24',
  gateway: '10.0.6.1',
  ipv6: { subnet: 'fd00:6::/64', gateway: 'fd00:6::1' },
})
const four = buildNetwork('four', { subnet: '10.0.4.0/24', gateway: '10.0.4.1' })
const task = buildTask('web.1', [
  { network: six, address: '10.0.6.5' },
  { network: four, address: '10.0.4.5' },
])
const web = buildEndpoint('web', {
  networks: [
    { networkId: six.id, vip: '10.0.6.9', aliases: [] },
    { networkId: four.id, vip: '10.0.4.9', aliases: [] },
  ],
  backends: [backendOf(task)],
  ports: [{ publishedPort: 8080 }],
})
const state = { networks: [six, four], endpoints: [web] }
const bridge = 'sk-six0000000'

describe('what networks with IPv6 have besides', () => {
  test('it is the same again, with their other addresses', () => {
    const view = new Ipv6View()
    const seen = view.of(state)
    assert.deepEqual(
      seen?.networks.map(({ subnet, gateway }) => [subnet, gateway]),
      [['fd00:6::/64', 'fd00:6::1']],
    )
    assert.deepEqual(seen?.endpoints[0]?.networks, [
      { networkId: six.id, vip: 'fd00:6::9', aliases: [] },
    ])
    assert.deepEqual(seen?.endpoints[0]?.backends[0]?.addresses, { [six.id]: 'fd00:6::5' })
    // What is known of an endpoint is worked out once.
    assert.equal(view.of(state)?.endpoints[0], seen?.endpoints[0])
    assert.equal(view.of({ networks: [four], endpoints: [web] }), undefined)
  })

  test('a table of its own translates VIPs and published ports', () => {
    const view = new Ipv6View().of(state)
    assert(view)
    const rules = renderHostRules({ table: 'skep', family: 'ip6', ...view })
    const all = rules.pages.flatMap(({ chains }) => [...chains.values()].flat())
    assert.ok(all.includes('ip6 daddr fd00:6::9 dnat to fd00:6::5'))
    assert.ok(all.includes('tcp dport 8080 dnat to [fd00:6::5]:80'))
    const balanced = [...(elementsBySet(rules.pages).get('balanced') ?? [])]
    assert.match(balanced.join(), new RegExp(`^"${bridge}" . fd00:6::9 : goto vips-`))
    const text = rules.hooks.flatMap((hook) => hook.rules).join('\n')
    assert.doesNotMatch(text, /\bip [sd]addr/)
  })

  test('networks are apart, and packets within one are its own affair', () => {
    const inner = { ...six, id: idFrom<'network'>('inner'.padEnd(25, '0')), internal: true }
    const view = new Ipv6View().of({ networks: [six, inner], endpoints: [] })
    assert(view)
    const { pages, hooks } = renderHostRules({ table: 'skep', family: 'ip6', ...view })
    const set = (name: string) => [...(elementsBySet(pages).get(name) ?? [])]
    assert.deepEqual(set('within'), [
      `"${bridge}" . "${bridge}"`,
      '"sk-inner00000" . "sk-inner00000"',
    ])
    assert.deepEqual(set('internal'), ['"sk-inner00000"'])
    assert.ok(hooks.some(({ name }) => name === 'apart'))
  })

  test('connections to addresses of nodes that fell silent are reset', () => {
    const view = new Ipv6View()
    const seen = view.of(state)
    const neighbour = {
      id: `${six.id}/10.0.6.5`,
      networkId: six.id,
      address: '10.0.6.5',
      mac: '02:42:0a:00:06:05',
      nodeId: idFrom<'node'>('n2'),
      nodeAddress: '192.0.2.2',
    }
    const neighbours = new Map<string, NeighbourAssignment>([
      ['lost', { ...neighbour, isLost: true }],
      ['there', { ...neighbour, address: '10.0.6.7' }],
    ])
    const lost = view.lostNeighbours(neighbours)
    assert(seen)
    const { pages } = renderHostRules({ table: 'skep', family: 'ip6', ...seen, neighbours: lost })
    assert.deepEqual([...(elementsBySet(pages).get('lost') ?? [])], ['fd00:6::5'])
    assert.equal(view.lostNeighbours(neighbours), lost)
  })

  test("the kernel's listing is held against it, word by word", () => {
    const view = new Ipv6View().of(state)
    assert(view)
    const ruleset = {
      ...renderHostRules({ table: 'skep', family: 'ip6', ...view }),
      hooks: [],
      pages: [
        {
          chains: new Map([['vips-1', ['dnat to numgen inc mod 1 map { 0 : fd00:6::5 }']]]),
          elements: new Map([['vips', new Set(['fd00:6::9'])]]),
          udpBackends: new Map(),
        },
      ],
    }
    const listing = (address: string) =>
      [
        'table ip6 skep {',
        '\tset vips {',
        '\t\telements = { fd00:6::9 }',
        '\t}',
        ' chain vips-1 {',
        `  dnat to numgen inc mod 1 map { 0 : ${address} }`,
        ' }',
        '}',
      ].join('\n')
    assert.equal(isPlausibleListing(listing('fd00:6::5'), ruleset), true)
    assert.equal(isPlausibleListing(listing('fd00:6::7'), ruleset), false)
  })

  test('bridges have the gateway and the VIPs as their own addresses', () => {
    const view = new Ipv6View().of(state)
    assert(view)
    const wanted = planBridgeAddresses(view.networks, view.endpoints)
    assert.deepEqual([...wanted], [`fd00:6::1/64 dev ${bridge}`, `fd00:6::9/128 dev ${bridge}`])
    const device = (...addresses: readonly object[]) =>
      JSON.stringify([
        { ifname: bridge, addr_info: addresses },
        { ifname: 'eth0', addr_info: [] },
      ])
    const present = parseBridgeAddresses(
      device(
        { family: 'inet', local: '10.0.6.1', prefixlen: 24, scope: 'global' },
        { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link' },
        { family: 'inet6', local: 'fd00:6::1', prefixlen: 64, scope: 'global', tentative: true },
        { family: 'inet6', local: 'fd00:6::7', prefixlen: 128, scope: 'global' },
      ),
      new Set([bridge]),
    )
    assert.deepEqual(changeAddresses(present, wanted), [
      `address delete fd00:6::7/128 dev ${bridge}`,
      `address replace fd00:6::1/64 dev ${bridge} nodad`,
      `address replace fd00:6::9/128 dev ${bridge} nodad noprefixroute preferred_lft 0`,
    ])
    assert.deepEqual(changeAddresses(wanted, wanted), [])
  })

  test("the host's rules are asked of what crosses their bridges", () => {
    const devices = (ipv6: number) =>
      JSON.stringify([
        {
          ifname: bridge,
          linkinfo: { info_data: { nf_call_iptables: 1, nf_call_ip6tables: ipv6 } },
        },
      ])
    const plan = (ipv6: number, dual: readonly string[]) =>
      planBridgeSettings(devices(ipv6), new Set([bridge]), new Set(dual)).bridges
    assert.deepEqual(plan(0, []), [])
    assert.deepEqual(plan(1, [bridge]), [])
    assert.deepEqual(plan(0, [bridge]), [
      `link set dev ${bridge} type bridge nf_call_iptables 1 nf_call_ip6tables 1`,
    ])
  })

  test('who asks for a neighbour on another node is answered by the bridge, in both families', () => {
    const place = { mac: '02:42:0a:00:06:05', node: '192.0.2.2' }
    const plan = planOverlay({
      networks: [six],
      neighbours: [
        {
          id: `${six.id}/10.0.6.5`,
          networkId: six.id,
          address: '10.0.6.5',
          mac: place.mac,
          nodeId: idFrom('n2'),
          nodeAddress: place.node,
        },
      ],
      dataPath: { address: '192.0.2.1', port: 4789 },
      devices: [],
    }).get(six.id)
    assert.deepEqual(
      [...(plan?.places ?? [])],
      [
        ['10.0.6.5', place],
        ['fd00:6::5', place],
      ],
    )
  })

  describe('names', () => {
    const directory = indexState(buildZones({ ...state, tasks: [task] }))
    const ask = (name: string, type: string, gateway: string) =>
      lookUp(directory, { name, type, class: 'IN' }, '10.0.6.5', gateway)
    const nibbles = 'fd000006000000000000000000000009'.split('').reverse()
    const arpa = `${nibbles.join('.')}.ip6.arpa`
    const cases = [
      ['web', 'AAAA', { type: 'addresses', addresses: ['fd00:6::9'] }],
      ['web', 'A', { type: 'addresses', addresses: ['10.0.6.9'] }],
      ['tasks.web', 'AAAA', { type: 'addresses', addresses: ['fd00:6::5'] }],
      ['web.1', 'AAAA', { type: 'addresses', addresses: ['fd00:6::5'] }],
      ['web', 'MX', { type: 'empty' }],
      [arpa, 'PTR', { type: 'name', name: 'web' }],
    ] as const
    for (const [name, type, answer] of cases) {
      test(`${type} of ${name.slice(0, 20)}`, () =>
        assert.deepEqual(ask(name, type, six.gateway), answer))
    }

    test('a network without IPv6 has none to tell', () => {
      const narrow = indexState(buildZones({ networks: [four], endpoints: [web], tasks: [] }))
      const question = { name: 'web', type: 'AAAA', class: 'IN' }
      assert.deepEqual(lookUp(narrow, question, '10.0.4.7', four.gateway), { type: 'empty' })
    })

    test('an answer holds sixteen bytes of each address', () => {
      const head = Buffer.from('000101000001000000000000', 'hex')
      const question = Buffer.from('037765620000 1c0001'.replace(' ', ''), 'hex')
      const query = parseQuery(Buffer.concat([head, question]))
      assert(typeof query === 'object')
      const answer = encodeAddresses(query, ['fd00:6::9'], 512)
      assert.equal(answer.subarray(-16).toString('hex'), 'fd000006000000000000000000000009')
    })
  })
})
