import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type IngressPolicy, idFrom, type NodeId } from '../model/index.ts'
import { bridgeName } from './bridge-name.ts'
import { publishedSubnets, renderHostRules } from './host-rules.ts'
import { elementsBySet, type Ruleset } from './ruleset.ts'
import { backendOf, buildEndpoint, buildNetwork, buildTask } from './test-objects.ts'

const ingress = buildNetwork('ingress', {
  ingress: true,
  subnet: '10.0.0.0/24',
  gateway: '10.0.0.1',
})
const front = buildNetwork('front', { subnet: '10.0.1.0/24', gateway: '10.0.1.1' })
const inner = buildNetwork('inner', {
  internal: true,
  subnet: '10.0.2.0/24',
  gateway: '10.0.2.1',
})
const networks = [ingress, front, inner]
const published = buildTask('a', [
  { network: front, address: '10.0.1.5' },
  { network: ingress, address: '10.0.0.5' },
])
const hidden = buildTask('b', [{ network: inner, address: '10.0.2.6' }])

function render(...tasks: readonly (typeof published)[]) {
  const endpoint = buildEndpoint('web', {
    backends: tasks.map((task) => backendOf(task)),
    ports: [{ publishedPort: 8080 }],
  })
  const ruleset = renderHostRules({ table: 'skep', networks, endpoints: [endpoint] })
  const set = (name: string) => [...(elementsBySet(ruleset.pages).get(name) ?? [])]
  return { ruleset, set, subnets: publishedSubnets(networks, [endpoint]) }
}

/** The rules that a map sends its key to. */
function chainOf(ruleset: Ruleset, map: string, key: string): readonly string[] | undefined {
  const elements = [...(elementsBySet(ruleset.pages).get(map) ?? [])]
  const element = elements.find((text) => text.startsWith(`${key} : goto `))
  const chain = element?.split(' goto ')[1] ?? ''
  return ruleset.pages.flatMap(({ chains }) => chains.get(chain) ?? [])
}

/** What ends every chain: for packets that met the rules of before a change, and look into the map of after. */
const firstPort = 'dnat to tcp dport . numgen inc mod 1 map @tcp-targets'
const firstNear = 'dnat to iifname . tcp dport . numgen inc mod 1 map @near-tcp-targets'
const firstVip = 'dnat to ip daddr . numgen inc mod 1 map @vip-targets'

describe('rules of the host', () => {
  test('a published port goes to the ingress address, and to who shares a network by that one', () => {
    const { ruleset, set, subnets } = render(published)
    const chain = chainOf(ruleset, 'ports', 'tcp . 8080')
    assert.deepEqual(chain, ['tcp dport 8080 dnat to 10.0.0.5:80', firstPort])
    const bridge = `"${bridgeName(front.id)}"`
    assert.deepEqual(chainOf(ruleset, 'near', `${bridge} . tcp . 8080`), [
      `iifname ${bridge} tcp dport 8080 dnat to 10.0.1.5:80`,
      firstNear,
    ])
    assert.equal(set('near').length, 1)
    // Who is answered directly keeps its address, but for a task that asks itself.
    assert.deepEqual(set('neighbours'), ['10.0.1.0/24 . 10.0.1.0/24', '10.0.2.0/24 . 10.0.2.0/24'])
    assert.deepEqual(set('loops').toSorted(), [
      '10.0.0.5 . 10.0.0.5 : 10.0.0.1',
      '10.0.1.5 . 10.0.1.5 : 10.0.1.1',
    ])
    assert.deepEqual(set('unrouted'), [])
    assert.deepEqual(subnets, ['10.0.0.0/24'])
    const rules = ruleset.hooks.find(({ name }) => name === 'postrouting')?.rules ?? []
    const inOrder = ['@loops', '@neighbours accept', '@unrouted masquerade']
    const found = rules.flatMap((rule) => inOrder.filter((words) => rule.includes(words)))
    assert.deepEqual(found, inOrder)
  })

  test('a port of tasks on several nodes is chosen for who shares a network as for all others', () => {
    const here: NodeId = idFrom('here')
    const on = (name: string, nodeId: NodeId, last: number) => ({
      ...backendOf(
        buildTask(name, [
          { network: front, address: `10.0.1.${last}` },
          { network: ingress, address: `10.0.0.${last}` },
        ]),
      ),
      nodeId,
    })
    const backends = [
      on('a', here, 5),
      on('b', here, 6),
      on('c', idFrom('there'), 7),
      // It has just been taken off the network.
      { ...on('d', here, 8), addresses: { [ingress.id]: '10.0.0.8' } },
    ]
    const endpoint = buildEndpoint('web', { backends, ports: [{ publishedPort: 8080 }] })
    const render = (nodeId: NodeId) =>
      renderHostRules({ table: 'skep', networks, endpoints: [endpoint], nodeId })
    const bridge = `"${bridgeName(front.id)}"`
    const key = `${bridge} . tcp . 8080`
    const own = render(here)
    assert.deepEqual(chainOf(own, 'near', key), [
      `iifname ${bridge} tcp dport 8080 dnat to iifname . tcp dport . numgen inc mod 2 map @near-tcp-targets`,
      firstNear,
    ])
    assert.deepEqual(
      [...(elementsBySet(own.pages).get('near-tcp-targets') ?? [])],
      [`${bridge} . 8080 . 0 : 10.0.1.5 . 80`, `${bridge} . 8080 . 1 : 10.0.1.6 . 80`],
    )
    assert.deepEqual(chainOf(render(idFrom('there')), 'near', key), [
      `iifname ${bridge} tcp dport 8080 dnat to 10.0.1.7:80`,
      firstNear,
    ])
  })

  test('a task without an ingress address is reached on what network it has', () => {
    const { ruleset, set, subnets } = render(hidden)
    const chain = chainOf(ruleset, 'ports', 'tcp . 8080')
    assert.deepEqual(chain, ['tcp dport 8080 dnat to 10.0.2.6:80', firstPort])
    assert.deepEqual(set('unrouted'), ['10.0.2.6'])
    assert.deepEqual(subnets, ['10.0.0.0/24', '10.0.2.0/24'])
  })

  test('whoever takes connections has a first place in the map of targets, also alone', () => {
    const { set } = render(published)
    assert.deepEqual(set('tcp-targets'), ['8080 . 0 : 10.0.0.5 . 80'])
  })

  test('a port with no task refuses', () => {
    const { set } = render()
    assert.deepEqual(set('ports'), [])
    assert.deepEqual(set('refused'), ['tcp . 8080'])
  })

  test('the resolver is reached although a service publishes its port', () => {
    const { ruleset, set } = render()
    assert.deepEqual(set('resolvers'), ['10.0.0.1', '10.0.1.1', '10.0.2.1'])
    assert.match(
      ruleset.pages[0]?.chains.get('published')?.[0] ?? '',
      /@resolvers .* dport 53 return/,
    )
  })
})

describe('rules of the host where tasks are on several nodes', () => {
  const here: NodeId = idFrom('here')
  const there: NodeId = idFrom('there')
  const own = { address: '10.0.0.254', mac: '02:42:0a:00:00:fe' }
  const on = (name: string, nodeId: NodeId, address: string) => ({
    ...backendOf(buildTask(name, [{ network: ingress, address }])),
    nodeId,
  })
  const local = on('a', here, '10.0.0.5')
  const remote = on('b', there, '10.0.0.6')

  function renderOn(
    backends: readonly ReturnType<typeof on>[],
    options: { readonly policy?: IngressPolicy; readonly hasAddress?: boolean } = {},
  ) {
    const { policy, hasAddress = true } = options
    const endpoint = buildEndpoint('web', {
      backends,
      ports: [{ publishedPort: 8080 }],
      ...(policy === undefined ? {} : { ingress: policy }),
    })
    const ruleset = renderHostRules({
      table: 'skep',
      networks: hasAddress ? [{ ...ingress, nodeAddress: own }] : [ingress],
      endpoints: [endpoint],
      nodeId: here,
    })
    const set = (name: string) => [...(elementsBySet(ruleset.pages).get(name) ?? [])]
    return {
      set,
      rule: chainOf(ruleset, 'ports', 'tcp . 8080')?.[0],
      sources: ruleset.hooks.flatMap(({ rules }) => rules).filter((rule) => /@own snat/.test(rule)),
    }
  }

  test("a node's own tasks come first, and see the client's address", () => {
    const { rule, set } = renderOn([local, remote])
    assert.equal(rule, 'tcp dport 8080 dnat to 10.0.0.5:80')
    assert.deepEqual(set('own'), ['10.0.0.5'])
  })

  test("without a task of its own it sends from its own address to others'", () => {
    const { rule, set, sources } = renderOn([remote])
    assert.equal(rule, 'tcp dport 8080 dnat to 10.0.0.6:80')
    assert.deepEqual(set('own'), [])
    assert.deepEqual(sources, [
      'ct status dnat ip daddr 10.0.0.0/24 ip daddr != @own snat to 10.0.0.254',
    ])
  })

  test('spread takes the tasks of all nodes', () => {
    const { rule, set } = renderOn([local, remote], { policy: 'spread' })
    assert.equal(rule, 'tcp dport 8080 dnat to tcp dport . numgen inc mod 2 map @tcp-targets')
    assert.deepEqual(set('tcp-targets'), ['8080 . 0 : 10.0.0.5 . 80', '8080 . 1 : 10.0.0.6 . 80'])
    assert.deepEqual(set('own'), ['10.0.0.5'])
  })

  test('a node without an address of its own serves its own tasks alone', () => {
    assert.equal(
      renderOn([local, remote], { policy: 'spread', hasAddress: false }).rule,
      'tcp dport 8080 dnat to 10.0.0.5:80',
    )
    const { rule, set, sources } = renderOn([remote], { hasAddress: false })
    assert.deepEqual([rule, set('refused'), sources], [undefined, ['tcp . 8080'], []])
  })
})

describe('VIPs', () => {
  const here: NodeId = idFrom('here')
  const vip = '10.0.1.200'
  const on = (name: string, nodeId: NodeId, address: string) => ({
    ...backendOf(buildTask(name, [{ network: front, address }])),
    nodeId,
  })
  const renderVip = (backends: readonly ReturnType<typeof on>[]) => {
    const ruleset = renderHostRules({
      table: 'skep',
      networks,
      endpoints: [
        buildEndpoint('web', {
          networks: [{ networkId: front.id, vip, aliases: [] }],
          backends,
        }),
      ],
      nodeId: here,
    })
    return {
      rule: chainOf(ruleset, 'balanced', `"${bridgeName(front.id)}" . ${vip}`),
      set: (name: string) => [...(elementsBySet(ruleset.pages).get(name) ?? [])],
    }
  }

  test('a VIP is balanced on the bridge of its network over the tasks of all nodes', () => {
    const { rule, set } = renderVip([
      on('a', here, '10.0.1.5'),
      on('b', idFrom('there'), '10.0.1.6'),
    ])
    assert.deepEqual(rule, [
      `ip daddr ${vip} dnat to ip daddr . numgen inc mod 2 map @vip-targets`,
      firstVip,
    ])
    // Whose turn is first differs from node to node.
    const targets = set('vip-targets').map((element) => element.split(' : ')[1] ?? '')
    assert.deepEqual(targets.toSorted(), ['10.0.1.5', '10.0.1.6'])
    // Its own answers have to come back by the host, and only a task of this node can reach itself here.
    assert.deepEqual(set('loops'), ['10.0.1.5 . 10.0.1.5 : 10.0.1.1'])
  })

  test('a VIP with no backend is still known, so that it refuses', () => {
    const { rule, set } = renderVip([])
    assert.deepEqual([rule, set('balanced'), set('vips')], [[], [], [vip]])
  })
})
