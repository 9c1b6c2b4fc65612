import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type AnyObject,
  type ClusterNode,
  idFrom,
  type Network,
  type NetworkId,
  type NodeId,
} from '../model/index.ts'
import { buildNode, buildTask } from '../model/testing.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import type { NeighbourAssignment } from '../wire/index.ts'
import { Neighbourhood, NeighbourTable } from './neighbours.ts'

const a: NetworkId = idFrom('a')
const b: NetworkId = idFrom('b')
const n1: NodeId = idFrom('n1')
const n2: NodeId = idFrom('n2')
const on = (networkId: NetworkId, address: string) => ({
  networkId,
  address,
  mac: `mac-${address}`,
})
const running = { state: 'running', atMs: 0, message: '', ready: true, hostPorts: [] } as const

async function openStore(...objects: readonly AnyObject[]): Promise<Store> {
  const store = await openMemoryStore({ clock: { nowMs: () => 0, sleep: async () => {} } })
  const nodes = [
    buildNode({ id: 'n1', address: '192.0.2.1' }),
    buildNode({ id: 'n2', address: '192.0.2.2' }),
  ]
  await store.commit([...nodes, ...objects].map((object) => ({ type: 'create', object })))
  return store
}

function buildNetwork(
  id: string,
  nodeAddresses: NonNullable<Network['status']['nodeAddresses']>,
): Network {
  return {
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
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: true,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    status: { nodeAddresses },
  }
}

const placed = (id: string, nodeId: NodeId, ...addresses: ReturnType<typeof on>[]) =>
  buildTask({ id, nodeId, addresses, status: running })

const told = ({
  put,
  remove,
}: {
  put: readonly NeighbourAssignment[]
  remove: readonly string[]
}) => [
  ...put.map(({ id, mac, nodeAddress }) => `+ ${id} ${mac} ${nodeAddress}`),
  ...remove.map((id) => `- ${id}`),
]

/** What node `n1` is told, with the table kept up by the store's commits. */
function openNeighbourhood(store: Store): Neighbourhood {
  const table = NeighbourTable.from(store.view)
  const neighbourhood = new Neighbourhood(n1, table)
  store.subscribe(({ changes }) => {
    for (const change of changes)
      for (const moved of table.learn(change)) neighbourhood.touch(moved)
  })
  return neighbourhood
}
const yes = () => true
const no = () => false

describe('what a node is told of its neighbours', () => {
  test('addresses on its networks that are on other nodes, once', async () => {
    const store = await openStore(
      placed('far', n2, on(a, '10.0.0.2'), on(b, '10.0.1.2')),
      placed('own', n1, on(a, '10.0.0.3')),
    )
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    assert.deepEqual(told(neighbourhood.difference(networks, [a], [], yes)), [
      '+ a/10.0.0.2 mac-10.0.0.2 192.0.2.2',
    ])
    const far = store.view.get('task', 'far')
    assert.ok(far)
    await store.commit([{ type: 'update', object: { ...far, traffic: 'routable' } }])
    assert.deepEqual(told(neighbourhood.difference(networks, [], [], yes)), [])
  })

  test('a plain container, with the names that resolve to it', async () => {
    const tool = { nodeId: n2, container: 'tool', createdAtMs: 0, ...on(a, '10.0.0.9') }
    const network = buildNetwork('a', [])
    const status = { ...network.status, attachments: [{ ...tool, names: ['tool', 'alias'] }] }
    const store = await openStore({ ...network, status })
    const { put } = openNeighbourhood(store).difference(new Set([a]), [a], [], yes)
    assert.deepEqual(
      put.map(({ address, nodeId, names }) => [address, nodeId, names]),
      [['10.0.0.9', n2, ['tool', 'alias']]],
    )
  })

  test('on an encrypted network, the key of the node, as soon as it has one', async () => {
    const network = buildNetwork('a', [])
    const sealed = { ...network, spec: { ...network.spec, encrypted: true } }
    const store = await openStore(sealed, placed('far', n2, on(a, '10.0.0.2')))
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    const keys = ({ put }: { put: readonly NeighbourAssignment[] }) =>
      put.map(({ address, publicKey }) => [address, publicKey])
    assert.deepEqual(keys(neighbourhood.difference(networks, [a], [], yes)), [
      ['10.0.0.2', undefined],
    ])
    const node = store.view.get('node', n2)
    assert.ok(node)
    const encryption = { how: 'kernel', publicKey: 'k' } as const
    const description = { ...node.description, encryption }
    await store.commit([{ type: 'update', object: { ...node, description } }])
    assert.deepEqual(keys(neighbourhood.difference(networks, [], [], yes)), [['10.0.0.2', 'k']])
  })

  test('that a node is lost, and that it is back', async () => {
    const store = await openStore(placed('far', n2, on(a, '10.0.0.2')))
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    const lost = ({ put }: { put: readonly NeighbourAssignment[] }) =>
      put.map(({ address, isLost }) => [address, isLost])
    neighbourhood.difference(networks, [a], [], yes)
    const become = async (status: Partial<ClusterNode['status']>) => {
      const node = store.view.get('node', n2)
      assert.ok(node)
      const { isSilent: _, ...before } = node.status
      const object = { ...node, status: { ...before, ...status } }
      await store.commit([{ type: 'update', object }])
      return lost(neighbourhood.difference(networks, [], [], yes))
    }
    assert.deepEqual(await become({ state: 'down', isSilent: true }), [['10.0.0.2', true]])
    assert.deepEqual(await become({ state: 'ready' }), [['10.0.0.2', undefined]])
    assert.deepEqual(await become({ state: 'down' }), [])
  })

  test('an address that moves to another holder is changed, not taken away', async () => {
    const store = await openStore(placed('old', n2, on(a, '10.0.0.2')))
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    neighbourhood.difference(networks, [a], [], yes)
    const n3 = buildNode({ id: 'n3', address: '192.0.2.3' })
    const old = store.view.get('task', 'old')
    assert.ok(old)
    const ended = { ...old.status, state: 'failed' as const }
    await store.commit([{ type: 'update', object: { ...old, status: ended } }])
    await store.commit([
      { type: 'create', object: n3 },
      { type: 'create', object: placed('new', n3.id, on(a, '10.0.0.2')) },
    ])
    const late = store.view.get('task', 'old')
    assert.ok(late)
    await store.commit([{ type: 'delete', kind: 'task', id: 'old', version: late.version }])
    assert.deepEqual(told(neighbourhood.difference(networks, [], [], yes)), [
      '+ a/10.0.0.2 mac-10.0.0.2 192.0.2.3',
    ])
  })

  test('an ended task is taken away', async () => {
    const store = await openStore(
      placed('one', n2, on(a, '10.0.0.2')),
      placed('two', n2, on(b, '10.0.1.2')),
    )
    const neighbourhood = openNeighbourhood(store)
    neighbourhood.difference(new Set([a, b]), [a, b], [], yes)
    const one = store.view.get('task', 'one')
    assert.ok(one)
    const ended = { ...one.status, state: 'failed' as const }
    await store.commit([{ type: 'update', object: { ...one, status: ended } }])
    assert.deepEqual(told(neighbourhood.difference(new Set([a, b]), [], [], yes)), ['- a/10.0.0.2'])
  })

  test("other nodes' own addresses only while it has a task there itself", async () => {
    const network = buildNetwork('a', [
      { nodeId: n1, ...on(a, '10.0.0.8') },
      { nodeId: n2, ...on(a, '10.0.0.9') },
    ])
    const store = await openStore(network)
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    assert.deepEqual(told(neighbourhood.difference(networks, [a], [], no)), [])
    assert.deepEqual(told(neighbourhood.difference(networks, [], [], yes)), [
      '+ a/10.0.0.9 mac-10.0.0.9 192.0.2.2',
    ])
    assert.deepEqual(told(neighbourhood.difference(networks, [], [], no)), ['- a/10.0.0.9'])
  })

  test('one whose node has no address yet is told once it has', async () => {
    const store = await openStore(
      buildNode({ id: 'n4', address: '' }),
      placed('lost', idFrom('n4'), on(a, '10.0.0.9')),
    )
    const neighbourhood = openNeighbourhood(store)
    const networks = new Set([a])
    assert.deepEqual(told(neighbourhood.difference(networks, [a], [], yes)), [])
    const node = store.view.get('node', 'n4')
    assert.ok(node)
    const status = { ...node.status, address: '192.0.2.4' }
    await store.commit([{ type: 'update', object: { ...node, status } }])
    assert.deepEqual(told(neighbourhood.difference(networks, [], [], yes)), [
      '+ a/10.0.0.9 mac-10.0.0.9 192.0.2.4',
    ])
  })
})
