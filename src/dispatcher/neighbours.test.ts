import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type AnyObject, idFrom, type NetworkId, type NodeId } from '../model/index.ts'
import { buildNode, buildTask } from '../model/testing.ts'
import { openMemoryStore, type Store } from '../store/index.ts'
import type { NeighbourAssignment } from '../wire/index.ts'
import { Neighbourhood, NeighbourMaker } from './neighbours.ts'

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

describe('what a node is told of its neighbours', () => {
  test('addresses on its networks that are on other nodes, once', async () => {
    const store = await openStore(
      placed('far', n2, on(a, '10.0.0.2'), on(b, '10.0.1.2')),
      placed('own', n1, on(a, '10.0.0.3')),
    )
    const neighbourhood = new Neighbourhood(n1, new NeighbourMaker())
    const networks = new Set([a])
    assert.deepEqual(told(neighbourhood.difference(store.view, networks, [a], [])), [
      '+ a/10.0.0.2 mac-10.0.0.2 192.0.2.2',
    ])
    neighbourhood.touchTask(idFrom('far'))
    assert.deepEqual(told(neighbourhood.difference(store.view, networks, [], [])), [])
  })

  test('an address that moves to another holder is changed, not taken away', async () => {
    const store = await openStore(placed('old', n2, on(a, '10.0.0.2')))
    const neighbourhood = new Neighbourhood(n1, new NeighbourMaker())
    const networks = new Set([a])
    neighbourhood.difference(store.view, networks, [a], [])
    const n3 = buildNode({ id: 'n3', address: '192.0.2.3' })
    const old = store.view.get('task', 'old')
    assert.ok(old)
    await store.commit([
      { type: 'delete', kind: 'task', id: 'old', version: old.version },
      { type: 'create', object: n3 },
      { type: 'create', object: placed('new', n3.id, on(a, '10.0.0.2')) },
    ])
    neighbourhood.touchTask(idFrom('new'))
    neighbourhood.touchTask(idFrom('old'))
    assert.deepEqual(told(neighbourhood.difference(store.view, networks, [], [])), [
      '+ a/10.0.0.2 mac-10.0.0.2 192.0.2.3',
    ])
  })

  test('an ended task, and all of a network that the node has no more, are taken away', async () => {
    const store = await openStore(
      placed('one', n2, on(a, '10.0.0.2')),
      placed('two', n2, on(b, '10.0.1.2')),
    )
    const neighbourhood = new Neighbourhood(n1, new NeighbourMaker())
    neighbourhood.difference(store.view, new Set([a, b]), [a, b], [])
    const one = store.view.get('task', 'one')
    assert.ok(one)
    const ended = { ...one.status, state: 'failed' as const }
    await store.commit([{ type: 'update', object: { ...one, status: ended } }])
    neighbourhood.touchTask(one.id)
    assert.deepEqual(told(neighbourhood.difference(store.view, new Set([a, b]), [], [])), [
      '- a/10.0.0.2',
    ])
    assert.deepEqual(told(neighbourhood.difference(store.view, new Set([a]), [], [b])), [
      '- b/10.0.1.2',
    ])
  })

  test('one whose node has no address yet is left out', async () => {
    const store = await openStore(
      buildNode({ id: 'n4', address: '' }),
      placed('lost', idFrom('n4'), on(a, '10.0.0.9')),
    )
    const neighbourhood = new Neighbourhood(n1, new NeighbourMaker())
    assert.deepEqual(told(neighbourhood.difference(store.view, new Set([a]), [a], [])), [])
  })
})
