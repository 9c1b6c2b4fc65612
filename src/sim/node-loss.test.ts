import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { Dispatcher, type Predecessor } from '../dispatcher/index.ts'
import { idFrom, type NodeId } from '../model/index.ts'
import { buildNode } from '../model/testing.ts'
import { simulatedDescription } from '../runtime/simulated-runtime.ts'
import { openMemoryStore } from '../store/index.ts'
import { VirtualClock } from './virtual-clock.ts'

const description = { ...simulatedDescription('n'), skepVersion: 'test', hostSubnets: [] }
const [own, near, far]: readonly NodeId[] = [idFrom('own'), idFrom('near'), idFrom('far')]
const remote = { isRemote: true }

/** A leader with its own node and two others, of which each speaks as long as it is in `speaking`. */
async function openLeader(predecessor?: Predecessor) {
  assert.ok(own && near && far)
  const clock = new VirtualClock()
  const store = await openMemoryStore({ clock })
  const nodes = [own, near, far].map((id) => buildNode({ id, state: 'ready' }))
  await store.commit(nodes.map((object) => ({ type: 'create', object })))
  const fence = await store.advanceEpoch()
  const unseal = () => new Uint8Array()
  const localNodeId = own
  const dispatcher = new Dispatcher({
    store,
    unseal,
    clock,
    log: silentLog,
    fence,
    localNodeId,
    ...(predecessor && { predecessor }),
  })
  const speaking = new Set<NodeId>()
  const stop = new AbortController()
  const speak = async () => {
    while (!stop.signal.aborted) {
      for (const id of speaking) dispatcher.heard(id)
      await clock.sleep(500, stop.signal)
    }
  }
  void speak()
  return {
    clock,
    dispatcher,
    speaking,
    async open(id: NodeId) {
      speaking.add(id)
      const session = await dispatcher.open(id, description, stop.signal, undefined, remote)
      return session
    },
    stateOf: (id: NodeId) => store.view.get('node', id)?.status.state,
    async close() {
      stop.abort()
      dispatcher.close()
      await store.close()
    },
  }
}

describe('a leader', () => {
  test('calls a node down that falls silent, and no other', async () => {
    assert.ok(own && near && far)
    const leader = await openLeader()
    await leader.open(near)
    await leader.open(far)
    await leader.clock.advance(60_000)
    assert.deepEqual([own, near, far].map(leader.stateOf), ['ready', 'ready', 'ready'])
    leader.speaking.delete(far)
    await leader.clock.advance(2_000)
    assert.equal(leader.stateOf(far), 'ready')
    await leader.clock.advance(2_000)
    assert.deepEqual([own, near, far].map(leader.stateOf), ['ready', 'ready', 'down'])
    await leader.open(far)
    assert.equal(leader.stateOf(far), 'ready')
    await leader.close()
  })

  test('calls those down that never come, once they had time to', async () => {
    assert.ok(near && far)
    const leader = await openLeader()
    await leader.open(near)
    await leader.clock.advance(5_000)
    assert.equal(leader.stateOf(far), 'ready')
    await leader.clock.advance(10_000)
    assert.deepEqual([near, far].map(leader.stateOf), ['ready', 'down'])
    await leader.close()
  })

  test('places nothing on the leader before, and calls it down in its own time unless it is heard', async () => {
    assert.ok(near && far)
    const gone = await openLeader({ nodeId: near, sinceMs: 3_500, end: 'silent' })
    await gone.open(far)
    assert.deepEqual([near, far].map(gone.stateOf), ['unknown', 'ready'])
    await gone.clock.advance(3_000)
    assert.deepEqual([near, far].map(gone.stateOf), ['down', 'ready'])
    await gone.close()

    const alive = await openLeader({ nodeId: near, sinceMs: 3_500, end: 'silent' })
    await Promise.all([alive.open(near), alive.open(far)])
    assert.deepEqual([near, far].map(alive.stateOf), ['ready', 'ready'])
    await alive.clock.advance(10_000)
    assert.deepEqual([near, far].map(alive.stateOf), ['ready', 'ready'])
    await alive.close()
  })

  test('replaces the tasks of a node at once whose host goes down', async () => {
    assert.ok(near && far)
    const leader = await openLeader()
    await leader.open(near)
    await leader.open(far)
    await leader.clock.advance(20_000)
    await leader.dispatcher.hostStops(near)
    assert.deepEqual([near, far].map(leader.stateOf), ['down', 'ready'])
    await leader.close()
  })

  test('gives a node whose daemon was killed four seconds', async () => {
    assert.ok(near)
    const leader = await openLeader()
    const session = await leader.open(near)
    await leader.clock.advance(20_000)
    leader.speaking.delete(near)
    leader.dispatcher.ended(near, 'ended')
    session.close()
    await leader.clock.advance(3_700)
    assert.equal(leader.stateOf(near), 'ready')
    await leader.clock.advance(700)
    assert.equal(leader.stateOf(near), 'down')
    await leader.close()
  })

  test('gives a daemon that is started again the time of a restart, but once', async () => {
    assert.ok(near)
    const leader = await openLeader()
    const session = await leader.open(near)
    await leader.clock.advance(20_000)
    leader.speaking.delete(near)
    leader.dispatcher.ended(near, 'ended')
    session.close()
    for (let second = 0; second < 14; second++) {
      await leader.clock.advance(1_000)
      leader.dispatcher.returning(near)
      assert.equal(leader.stateOf(near), 'ready')
    }
    await leader.clock.advance(2_000)
    assert.equal(leader.stateOf(near), 'down')
    await leader.close()
  })

  test('gives a node whose daemon stops in order the time of a restart', async () => {
    assert.ok(near)
    const leader = await openLeader()
    const session = await leader.open(near)
    await leader.clock.advance(20_000)
    leader.speaking.delete(near)
    leader.dispatcher.ended(near, 'stopping')
    session.close()
    await leader.clock.advance(12_000)
    assert.equal(leader.stateOf(near), 'ready')
    await leader.clock.advance(6_000)
    assert.equal(leader.stateOf(near), 'down')
    await leader.close()
  })
})
