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
import { NeighbourTable } from './neighbours.ts'

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

const told = (table: NeighbourTable, ...networks: readonly NetworkId[]) =>
  networks.flatMap((id) =>
    [...table.on(id).values()].map(
      ({ neighbour }) => `${neighbour.id} ${neighbour.mac} ${neighbour.nodeAddress}`,
    ),
  )

/** The table, kept up by the store's commits, and the ids of what it says is elsewhere now. */
function openTable(store: Store) {
  const table = new NeighbourTable(store.view)
  for (const _ of table.load());
  const changed: string[] = []
  store.subscribe(({ changes }) => {
    for (const change of changes) changed.push(...table.learn(change).map(({ id }) => id))
  })
  return { table, changed }
}

describe('where the addresses of networks are', () => {
  test('every address of a network, and news only of what is elsewhere', async () => {
    const store = await openStore(
      placed('far', n2, on(a, '10.0.0.2'), on(b, '10.0.1.2')),
      placed('own', n1, on(a, '10.0.0.3')),
    )
    const { table, changed } = openTable(store)
    assert.deepEqual(told(table, a), [
      'a/10.0.0.2 mac-10.0.0.2 192.0.2.2',
      'a/10.0.0.3 mac-10.0.0.3 192.0.2.1',
    ])
    const far = store.view.get('task', 'far')
    assert.ok(far)
    await store.commit([{ type: 'update', object: { ...far, traffic: 'routable' } }])
    assert.deepEqual(changed, [])
  })

  test('a plain container, with the names that resolve to it', async () => {
    const tool = { nodeId: n2, container: 'tool', createdAtMs: 0, ...on(a, '10.0.0.9') }
    const network = buildNetwork('a', [])
    const status = { ...network.status, attachments: [{ ...tool, names: ['tool', 'alias'] }] }
    const { table } = openTable(await openStore({ ...network, status }))
    const held = [...table.on(a).values()].map(({ neighbour }) => neighbour)
    assert.deepEqual(
      held.map(({ address, nodeId, names, isOfNode }) => [address, nodeId, names, isOfNode]),
      [['10.0.0.9', n2, ['tool', 'alias'], undefined]],
    )
  })

  test('on an encrypted network, the key of the node, as soon as it has one', async () => {
    const network = buildNetwork('a', [])
    const sealed = { ...network, spec: { ...network.spec, encrypted: true } }
    const store = await openStore(sealed, placed('far', n2, on(a, '10.0.0.2')))
    const { table, changed } = openTable(store)
    const key = () => table.on(a).get('a/10.0.0.2')?.neighbour.publicKey
    assert.equal(key(), undefined)
    const node = store.view.get('node', n2)
    assert.ok(node)
    const encryption = { how: 'kernel', publicKey: 'k' } as const
    const description = { ...node.description, encryption }
    await store.commit([{ type: 'update', object: { ...node, description } }])
    assert.equal(key(), 'k')
    assert.deepEqual(changed, ['a/10.0.0.2'])
  })

  test('that a node is lost, and that it is back', async () => {
    const store = await openStore(placed('far', n2, on(a, '10.0.0.2')))
    const { table, changed } = openTable(store)
    const become = async (status: Partial<ClusterNode['status']>) => {
      const node = store.view.get('node', n2)
      assert.ok(node)
      const { isSilent: _, ...before } = node.status
      const object = { ...node, status: { ...before, ...status } }
      changed.length = 0
      await store.commit([{ type: 'update', object }])
      return [changed.length, table.on(a).get('a/10.0.0.2')?.neighbour.isLost]
    }
    assert.deepEqual(await become({ state: 'down', isSilent: true }), [1, true])
    assert.deepEqual(await become({ state: 'ready' }), [1, undefined])
    assert.deepEqual(await become({ state: 'down' }), [0, undefined])
  })

  test('an address that moves to another holder is changed, not taken away', async () => {
    const store = await openStore(placed('old', n2, on(a, '10.0.0.2')))
    const { table } = openTable(store)
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
    assert.deepEqual(told(table, a), ['a/10.0.0.2 mac-10.0.0.2 192.0.2.3'])
  })

  test('an ended task is taken away', async () => {
    const store = await openStore(
      placed('one', n2, on(a, '10.0.0.2')),
      placed('two', n2, on(b, '10.0.1.2')),
    )
    const { table } = openTable(store)
    const one = store.view.get('task', 'one')
    assert.ok(one)
    const ended = { ...one.status, state: 'failed' as const }
    await store.commit([{ type: 'update', object: { ...one, status: ended } }])
    assert.deepEqual(told(table, a, b), ['b/10.0.1.2 mac-10.0.1.2 192.0.2.2'])
  })

  test("nodes' own addresses are marked", async () => {
    const network = buildNetwork('a', [{ nodeId: n2, ...on(a, '10.0.0.9') }])
    const { table } = openTable(await openStore(network))
    assert.equal(table.on(a).get('a/10.0.0.9')?.neighbour.isOfNode, true)
  })

  test('one whose node has no address yet is told once it has', async () => {
    const store = await openStore(
      buildNode({ id: 'n4', address: '' }),
      placed('lost', idFrom('n4'), on(a, '10.0.0.9')),
    )
    const { table } = openTable(store)
    assert.deepEqual(told(table, a), [])
    const node = store.view.get('node', 'n4')
    assert.ok(node)
    const status = { ...node.status, address: '192.0.2.4' }
    await store.commit([{ type: 'update', object: { ...node, status } }])
    assert.deepEqual(told(table, a), ['a/10.0.0.9 mac-10.0.0.9 192.0.2.4'])
  })
})
