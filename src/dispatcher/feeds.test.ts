import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Clock, TurnBudget, usualPortions } from '../base/index.ts'
import { idFrom, type NetworkId } from '../model/index.ts'
import { buildEndpoint, buildNode, buildTask, buildWorkload } from '../model/testing.ts'
import { openMemoryStore } from '../store/index.ts'
import { Feeds, type Listener } from './feeds.ts'
import { RoutingIndex } from './routing-index.ts'

/** Time that goes on in the order of waiting, one wait at a time. */
class SteppedClock implements Clock {
  readonly #waiting: { readonly ms: number; readonly wake: () => void }[] = []
  nowMs(): number {
    return 0
  }
  sleep(ms: number): Promise<void> {
    return new Promise((wake) => this.#waiting.push({ ms, wake }))
  }
  async step(): Promise<number | undefined> {
    const next = this.#waiting.shift()
    next?.wake()
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
    return next?.ms
  }
}

class TestNode implements Listener {
  readonly told: number[] = []
  touchFeeds(sinceRevision: number): void {
    this.told.push(sinceRevision)
  }
}

const networkId: NetworkId = idFrom('x')

/** An endpoint that everybody is told of, with so many tasks, and one on a network of two nodes. */
async function open(count: number, tasks = 1) {
  const clock = new SteppedClock()
  const store = await openMemoryStore({ clock })
  const port = {
    protocol: 'tcp',
    targetPort: 80,
    publishedPort: 80,
    publishMode: 'ingress',
  } as const
  const behind = (id: string) => [{ workloadId: idFrom<'workload'>(id), weight: 1 }]
  await store.commit(
    [
      buildNode({ id: 'n1' }),
      buildWorkload({ id: 'w1', name: 'w1' }),
      buildWorkload({ id: 'w2', name: 'w2' }),
      buildEndpoint({ id: 'e1', name: 'w1', spec: { ports: [port], backends: behind('w1') } }),
      buildEndpoint({
        id: 'e2',
        name: 'w2',
        spec: { networks: [{ networkId, aliases: [] }], backends: behind('w2') },
      }),
      ...['w1', 'w2'].map((workloadId) =>
        buildTask({ id: `t-${workloadId}`, workloadId, nodeId: 'n1', traffic: 'routable' }),
      ),
      ...Array.from({ length: tasks - 1 }, (_, at) =>
        buildTask({ id: `t-${at}`, workloadId: 'w1', nodeId: 'n1', traffic: 'routable' }),
      ),
    ].map((object) => ({ type: 'create', object })),
  )
  const nodes = Array.from({ length: count }, () => new TestNode())
  const routing = RoutingIndex.from(store.view)
  const feeds = new Feeds({
    view: store.view,
    clock,
    signal: new AbortController().signal,
    turns: new TurnBudget(clock),
    factsPerPart: usualPortions.factsPerPart,
    everyone: () => nodes,
    onNetwork: (id) => (id === networkId ? nodes.slice(0, 2) : []),
    handedOut: () => {},
  })
  while (feeds.pendingSinceRevision !== undefined) await clock.step()
  await clock.step()
  for (const node of nodes) node.told.length = 0
  store.subscribe(({ changes, revision }) => {
    for (const change of changes) feeds.learn(change, routing.learn(change), revision)
    feeds.handOut()
  })
  /** Answers the revision of the change. */
  const setTraffic = async (id: string, traffic: 'routable' | 'draining') => {
    const task = store.view.get('task', id)
    assert.ok(task)
    await store.commit([{ type: 'update', object: { ...task, traffic } }])
    return store.view.revision
  }
  return { clock, store, nodes, feeds, setTraffic }
}

describe('rounds of feeds', () => {
  test('a few nodes are told at once, each time, and only those that a change concerns', async () => {
    const { feeds, nodes, setTraffic } = await open(3)
    const first = await setTraffic('t-w1', 'draining')
    assert.equal(feeds.pendingSinceRevision, undefined)
    const second = await setTraffic('t-w2', 'draining')
    assert.deepEqual(
      nodes.map(({ told }) => told),
      [[first, second], [first, second], [first]],
    )
  })

  test('what comes to the same is told to nobody', async () => {
    const { clock, feeds, nodes, setTraffic } = await open(1_500)
    const version = feeds.get('published')?.version
    await setTraffic('t-w1', 'draining')
    assert.notEqual(feeds.get('published')?.version, version)
    await setTraffic('t-w1', 'routable')
    await setTraffic('t-w1', 'draining')
    while (feeds.pendingSinceRevision !== undefined) await clock.step()
    assert.deepEqual(
      nodes.map(({ told }) => told.length),
      nodes.map(() => 1),
    )
  })

  test('an endpoint with thousands of tasks is looked at in parts, and told when all of it was', async () => {
    const { clock, store, nodes, feeds, setTraffic } = await open(1, 1_900)
    const endpointId = idFrom<'endpoint'>('e1')
    const told = () => feeds.get('published')?.backendsOf(endpointId)
    assert.equal(told()?.size, 1_900)
    const before = store.view.get('endpoint', endpointId)
    assert.ok(before)
    const object = { ...before, name: 'renamed' }
    await store.commit([{ type: 'update', object }])
    const renamed = store.view.revision
    assert.equal(feeds.pendingSinceRevision, renamed)
    assert.deepEqual(nodes[0]?.told, [], 'it is being looked at')
    // One that was looked at already, and one that was not.
    const first = await setTraffic('t-w1', 'draining')
    await setTraffic('t-1898', 'draining')
    while (nodes[0]?.told.length === 0) await clock.step()
    assert.equal(told()?.has(idFrom('t-1898')), false)
    while (feeds.pendingSinceRevision !== undefined) await clock.step()
    assert.deepEqual(nodes[0]?.told, [renamed, first])
    assert.equal(told()?.has(idFrom('t-w1')), false)
    assert.equal(told()?.size, 1_898)
  })

  test('many nodes are told in parts, and what changes meanwhile goes out as one', async () => {
    const { clock, feeds, nodes, setTraffic } = await open(1_500)
    const toldCount = () => nodes.filter(({ told }) => told.length > 0).length
    const first = await setTraffic('t-w1', 'draining')
    assert.ok(toldCount() > 0 && toldCount() < 1_500)
    assert.equal(feeds.pendingSinceRevision, first)
    while (toldCount() < 1_500) assert.equal(await clock.step(), 0)
    assert.equal(feeds.pendingSinceRevision, undefined, 'everybody was told')
    const second = await setTraffic('t-w1', 'routable')
    await setTraffic('t-w2', 'draining')
    assert.equal(feeds.pendingSinceRevision, second, 'the oldest change that waits')
    assert.equal(await clock.step(), 150, 'the pause after 1,500 nodes')
    const last = nodes[1_499]
    while (last?.told.length === 1) await clock.step()
    assert.deepEqual(nodes[0]?.told, [first, second])
    assert.deepEqual(last?.told, [first, second])
    assert.equal(feeds.pendingSinceRevision, undefined)
  })
})
