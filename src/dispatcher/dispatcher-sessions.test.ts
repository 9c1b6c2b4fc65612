import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type Clock, silentLog } from '../base/index.ts'
import {
  type AnyObject,
  idFrom,
  isTerminal,
  type Network,
  type Task,
  type TaskState,
} from '../model/index.ts'
import {
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTask,
  buildWorkload,
} from '../model/testing.ts'
import { type Change, openMemoryStore, type Store } from '../store/index.ts'
import {
  type AssignmentChange,
  type Assignments,
  applyChange,
  type Session,
} from '../wire/index.ts'
import { Dispatcher } from './dispatcher.ts'

/** Enough that rounds of endpoints have a pause between them. */
const nodeCount = 24
const workloads = ['w0', 'w1', 'w2']
const networks = ['x', 'y']
/** Few, so that much happens to each. */
const taskIds = ['t0', 't1']

/** Time that goes on when the test says so. */
class SteppedClock implements Clock {
  #waiting: (() => void)[] = []
  #nowMs = 0
  nowMs(): number {
    return this.#nowMs
  }
  async sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve)
      signal?.addEventListener('abort', () => resolve(), { once: true })
    })
  }
  goOn(passedMs = 0): void {
    this.#nowMs += passedMs
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }
}

function buildNetwork(id: string, status: Network['status']): Network {
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
      attachable: true,
      ingress: false,
      ipv6: false,
      encrypted: false,
      options: {},
      ipam: [],
      predefined: false,
    },
    status,
  }
}

/** A node that takes every message at once, and acknowledges when told to. */
class TestNode {
  readonly id: string
  session: Session | undefined
  assignments: Assignments | undefined
  acknowledged: Assignments | undefined
  readonly changes: AssignmentChange[] = []
  readonly #stop = new AbortController()

  constructor(id: string) {
    this.id = id
  }

  async open(dispatcher: Dispatcher): Promise<void> {
    const { description } = buildNode({ id: this.id })
    const { feeds } = this.assignments ?? {}
    const session = await dispatcher.open(idFrom(this.id), description, this.#stop.signal, feeds)
    this.session = session
    void (async () => {
      while (!this.#stop.signal.aborted) {
        const change = await session.next(this.#stop.signal)
        this.changes.push(change)
        this.assignments = applyChange(this.assignments, change)
      }
    })().catch(() => {})
  }

  acknowledge(): void {
    if (!this.assignments) return
    this.acknowledged = this.assignments
    this.session?.acknowledge(this.assignments.sequence)
  }

  close(): void {
    this.#stop.abort()
  }
}

async function openStore(): Promise<Store> {
  const store = await openMemoryStore({ clock: new SteppedClock() })
  const objects: AnyObject[] = [
    ...networks.map((id, at) =>
      buildNetwork(id, { subnet: `10.0.${at}.0/24`, gateway: `10.0.${at}.1`, vni: 4096 + at }),
    ),
    ...Array.from({ length: nodeCount }, (_, at) => buildNode({ id: `n${at}` })),
    ...workloads.flatMap((id, at) => [
      buildWorkload({ id, name: id, spec: { revisionId: idFrom(`r${at}`) } }),
      buildRevision({ id: `r${at}`, workloadId: id, name: `${id}.1` }),
      buildEndpoint({
        id: `e${at}`,
        name: id,
        // The first is published, the others are on a network each.
        spec: {
          networks: at === 0 ? [] : [{ networkId: idFrom(networks[at - 1] ?? ''), aliases: [] }],
          ports:
            at === 0
              ? [{ protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'ingress' }]
              : [],
          backends: [{ workloadId: idFrom(id), weight: 1 }],
        },
      }),
    ]),
  ]
  await store.commit(objects.map((object) => ({ type: 'create', object })))
  return store
}

const anyTask = fc.constantFrom(...taskIds)
const anyNode = fc.nat(nodeCount - 1)
const anyWorkload = fc.nat(workloads.length - 1)
const anyStep = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('place' as const),
      task: anyTask,
      workload: anyWorkload,
      node: anyNode,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('traffic' as const),
      task: anyTask,
      traffic: fc.constantFrom('none' as const, 'routable' as const, 'draining' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('state' as const),
      task: anyTask,
      state: fc.constantFrom('running' as const, 'failed' as const),
    }),
  },
  fc.record({ type: fc.constantFrom('stop' as const, 'delete' as const), task: anyTask }),
  fc.record({
    type: fc.constantFrom('rename' as const, 'reweigh' as const),
    workload: anyWorkload,
  }),
  fc.record({
    type: fc.constant('attach' as const),
    network: fc.nat(networks.length - 1),
    node: anyNode,
  }),
  fc.record({ type: fc.constant('acknowledge' as const), node: anyNode }),
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constantFrom('everyoneAcknowledges' as const, 'timeGoesOn' as const),
    }),
  },
)
type Step = typeof anyStep extends fc.Arbitrary<infer T> ? T : never

function changesFor({ view }: Store, step: Step, count: number): readonly Change[] {
  const update = (id: string, change: (task: Task) => Task): readonly Change[] => {
    const task = view.get('task', id)
    return task ? [{ type: 'update', object: change(task) }] : []
  }
  switch (step.type) {
    case 'place': {
      if (view.get('task', step.task)) return []
      const networkId = networks[step.workload - 1]
      const task = buildTask({
        id: step.task,
        workloadId: workloads[step.workload] ?? '',
        revisionId: `r${step.workload}`,
        nodeId: `n${step.node}`,
        state: 'assigned',
      })
      const addresses =
        networkId === undefined
          ? []
          : [{ networkId: idFrom<'network'>(networkId), address: `10.0.0.${count}`, mac: '' }]
      return [{ type: 'create', object: { ...task, addresses } }]
    }
    case 'traffic':
      return update(step.task, (task) => ({ ...task, traffic: step.traffic }))
    case 'state':
      return update(step.task, (task) => {
        const state: TaskState = isTerminal(task.status.state) ? task.status.state : step.state
        return { ...task, status: { ...task.status, state } }
      })
    case 'stop':
      return update(step.task, (task) => ({ ...task, desiredState: 'shutdown' }))
    case 'delete': {
      const task = view.get('task', step.task)
      return task ? [{ type: 'delete', kind: 'task', id: task.id, version: task.version }] : []
    }
    case 'rename': {
      const workload = view.get('workload', workloads[step.workload] ?? '')
      return workload ? [{ type: 'update', object: { ...workload, name: `renamed${count}` } }] : []
    }
    case 'reweigh': {
      const endpoint = view.get('endpoint', `e${step.workload}`)
      if (!endpoint) return []
      const backends = endpoint.spec.backends.map((backend) => ({ ...backend, weight: count }))
      return [{ type: 'update', object: { ...endpoint, spec: { ...endpoint.spec, backends } } }]
    }
    case 'attach': {
      const network = view.get('network', networks[step.network] ?? '')
      if (!network) return []
      const attachment = {
        nodeId: idFrom<'node'>(`n${step.node}`),
        container: 'c',
        address: '10.0.9.9',
        mac: '',
        createdAtMs: 0,
      }
      const isThere = (network.status.attachments ?? []).length > 0
      const status = { ...network.status, attachments: isThere ? [] : [attachment] }
      return [{ type: 'update', object: { ...network, status } }]
    }
    default:
      return []
  }
}

/** What a node acts on, without what it reported itself or what may be said once only. */
function essence(assignments: Assignments | undefined): unknown {
  const byId = (a: { readonly id: string }, b: { readonly id: string }) => (a.id < b.id ? -1 : 1)
  return {
    tasks: [...(assignments?.tasks.values() ?? [])]
      .map(({ name, task }) => ({
        id: task.id,
        name,
        desired: task.desiredState,
        traffic: task.traffic,
        hasEnded: isTerminal(task.status.state),
      }))
      .sort(byId),
    networks: [...(assignments?.networks.values() ?? [])].sort(byId),
    endpoints: [...(assignments?.endpoints.values() ?? [])]
      .map((endpoint) => ({
        ...endpoint,
        backends: endpoint.backends.toSorted((a, b) => (a.taskId < b.taskId ? -1 : 1)),
      }))
      .sort(byId),
    neighbours: [...(assignments?.neighbours.values() ?? [])].sort(byId),
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe('sessions with nodes', () => {
  async function open() {
    const store = await openStore()
    const clock = new SteppedClock()
    const options = { store, unseal: () => new Uint8Array(), clock, log: silentLog, fence: 0 }
    const dispatcher = new Dispatcher(options)
    const nodes = Array.from({ length: nodeCount }, (_, at) => new TestNode(`n${at}`))
    for (const node of nodes) await node.open(dispatcher)
    await settle()
    const acknowledge = () => {
      for (const node of nodes) node.acknowledge()
    }
    const commit = async (...steps: readonly Step[]) => {
      for (const step of steps) {
        const changes = changesFor(store, step, store.view.revision)
        assert.ok(changes.length > 0)
        await store.commit(changes)
        await settle()
      }
    }
    /** A round to all nodes, which a pause follows: the published endpoint has another name. */
    const tellEveryone = async () => {
      const endpoint = store.view.get('endpoint', 'e0')
      assert.ok(endpoint)
      await store.commit([{ type: 'update', object: { ...endpoint, name: `${endpoint.name}-` } }])
      await settle()
    }
    const close = () => {
      for (const node of nodes) node.close()
      dispatcher.close()
    }
    acknowledge()
    return { store, clock, options, dispatcher, nodes, acknowledge, commit, tellEveryone, close }
  }

  test('a node that leaves a network before it is told of a drain there is waited for', async () => {
    const { store, clock, dispatcher, nodes, acknowledge, commit, tellEveryone, close } =
      await open()
    await commit(
      { type: 'attach', network: 0, node: 7 },
      { type: 'place', task: 't0', workload: 1, node: 3 },
      { type: 'traffic', task: 't0', traffic: 'routable' },
    )
    await settle()
    clock.goOn()
    await settle()
    acknowledge()
    await tellEveryone()
    await settle()
    acknowledge()
    await commit({ type: 'traffic', task: 't0', traffic: 'draining' })
    await commit({ type: 'attach', network: 0, node: 7 })
    await settle()
    clock.goOn()
    await settle()
    for (const node of nodes) if (node.id !== 'n7') node.acknowledge()
    const draining = store.view.get('task', 't0')?.version ?? 0
    assert.ok(dispatcher.acknowledgedRevision < draining)
    acknowledge()
    assert.equal(dispatcher.acknowledgedRevision, Number.POSITIVE_INFINITY)
    close()
  })

  test('of two changes at once the older is waited for as well', async () => {
    const { store, clock, dispatcher, acknowledge, commit, close } = await open()
    await commit(
      { type: 'place', task: 't0', workload: 1, node: 3 },
      { type: 'traffic', task: 't0', traffic: 'routable' },
    )
    await settle()
    clock.goOn()
    await settle()
    acknowledge()
    const changes = [
      changesFor(store, { type: 'traffic', task: 't0', traffic: 'draining' }, 1),
      changesFor(store, { type: 'place', task: 't1', workload: 1, node: 3 }, 2),
    ]
    await Promise.all(changes.map((change) => store.commit(change)))
    const draining = store.view.get('task', 't0')?.version ?? 0
    assert.ok(dispatcher.acknowledgedRevision < draining)
    await settle()
    assert.ok(dispatcher.acknowledgedRevision < draining)
    acknowledge()
    assert.equal(dispatcher.acknowledgedRevision, Number.POSITIVE_INFINITY)
    close()
  })

  test('differences add up to what a new session is told, and no drain is called done too early', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { minLength: 20, maxLength: 60 }), async (steps) => {
        const { store, clock, options, dispatcher, nodes, acknowledge, close } = await open()
        for (const [count, step] of steps.entries()) {
          if (step.type === 'timeGoesOn') clock.goOn()
          else if (step.type === 'acknowledge') nodes[step.node]?.acknowledge()
          else if (step.type === 'everyoneAcknowledges') acknowledge()
          else {
            const changes = changesFor(store, step, count)
            if (changes.length > 0) await store.commit(changes)
          }
          await settle()
          for (const task of store.view.list('task')) {
            if (task.traffic !== 'draining' || task.version > dispatcher.acknowledgedRevision)
              continue
            for (const node of nodes) {
              const backends = [...(node.acknowledged?.endpoints.values() ?? [])].flatMap(
                (endpoint) => endpoint.backends,
              )
              assert.ok(
                !backends.some(({ taskId }) => taskId === task.id),
                `${node.id} still routes to ${task.id}`,
              )
            }
          }
        }
        for (let round = 0; round < 4; round++) {
          clock.goOn()
          await settle()
        }
        acknowledge()
        assert.equal(dispatcher.acknowledgedRevision, Number.POSITIVE_INFINITY)
        const fresh = new Dispatcher(options)
        for (const node of nodes) {
          const again = new TestNode(node.id)
          await again.open(fresh)
          await settle()
          assert.deepEqual(essence(node.assignments), essence(again.assignments), node.id)
          again.close()
          node.changes.length = 0
          await node.open(fresh)
          await settle()
          assert.deepEqual(essence(node.assignments), essence(again.assignments), node.id)
          const parts = node.changes.flatMap(({ feeds }) => feeds.put.flatMap((feed) => feed.parts))
          assert.deepEqual(parts, [], 'it had it all from the leader before')
        }
        close()
        fresh.close()
      }),
      { numRuns: 200, endOnFailure: true },
    )
  })

  test('a node that comes back is told what it missed, and what it missed much of whole', async () => {
    const { clock, dispatcher, nodes, commit, close } = await open()
    const place = { type: 'place', task: 't0', workload: 1, node: 3 } as const
    await commit({ type: 'attach', network: 0, node: 7 }, place)
    const node = nodes[7]
    assert.ok(node?.assignments)
    node.session?.close()
    await commit({ type: 'traffic', task: 't0', traffic: 'routable' })
    clock.goOn()
    await settle()
    node.changes.length = 0
    await node.open(dispatcher)
    await settle()
    const backends = () =>
      [...(node.assignments?.endpoints.values() ?? [])].flatMap((endpoint) =>
        endpoint.backends.map(({ taskId }) => taskId),
      )
    assert.deepEqual(backends(), ['t0'])
    const ofEndpoints = node.changes[0]?.feeds.put.find(({ feed }) => feed === 'endpoints/x')
    assert.equal(ofEndpoints?.whole, false)
    assert.equal(ofEndpoints.parts.length, 1)
    // What it holds by its own account was never so.
    node.session?.close()
    node.assignments = { ...node.assignments, feeds: new Map([['endpoints/x', 'other']]) }
    node.changes.length = 0
    await node.open(dispatcher)
    await settle()
    assert.deepEqual(backends(), ['t0'])
    assert.ok(node.changes[0]?.feeds.put.every(({ whole }) => whole))
    close()
  })

  test('a node is told that its task counts as not ready any more', async () => {
    const { store, nodes, commit, close } = await open()
    await commit({ type: 'place', task: 't0', workload: 1, node: 3 })
    const task = store.view.get('task', 't0')
    assert.ok(task)
    const status = { ...task.status, unreadyCount: 1 }
    await store.commit([{ type: 'update', object: { ...task, status } }])
    await settle()
    const told = nodes[3]?.assignments?.tasks.get(idFrom('t0'))
    assert.equal(told?.task.status.unreadyCount, 1)
    close()
  })

  // Found by the property above: the endpoint waited for its round while the node acknowledged a later state.
  test('a drain is not done before the round that tells of it', async () => {
    const { store, clock, dispatcher, nodes, acknowledge, commit, tellEveryone, close } =
      await open()
    await commit(
      { type: 'place', task: 't1', workload: 1, node: 4 },
      { type: 'traffic', task: 't1', traffic: 'routable' },
    )
    await settle()
    acknowledge()
    await tellEveryone()
    await commit({ type: 'traffic', task: 't1', traffic: 'draining' })
    await settle()
    acknowledge()
    const { version = 0 } = store.view.get('task', 't1') ?? {}
    const routesTo = () =>
      [...(nodes[4]?.acknowledged?.endpoints.values() ?? [])].some(({ backends }) =>
        backends.some(({ taskId }) => taskId === 't1'),
      )
    assert.ok(routesTo())
    assert.ok(dispatcher.acknowledgedRevision < version, 'the round waits')
    clock.goOn()
    await settle()
    assert.ok(dispatcher.acknowledgedRevision < version, 'the node has yet to follow')
    acknowledge()
    assert.ok(!routesTo())
    assert.ok(dispatcher.acknowledgedRevision >= version)
    close()
  })
})

describe('a leader that has just begun', () => {
  test('waits for its own node, which still routes as the leader before said, but not for ever', async () => {
    const clock = new SteppedClock()
    const store = await openMemoryStore({ clock })
    await store.commit(['n1', 'n2'].map((id) => ({ type: 'create', object: buildNode({ id }) })))
    const begin = async (ids: readonly string[]) => {
      const leader = new Dispatcher({
        store,
        unseal: () => new Uint8Array(),
        clock,
        log: silentLog,
        fence: 0,
        localNodeId: idFrom('n1'),
      })
      const nodes = ids.map((id) => new TestNode(id))
      for (const node of nodes) await node.open(leader)
      await new Promise((resolve) => setImmediate(resolve))
      for (const node of nodes) node.acknowledge()
      return leader
    }
    const whole = await begin(['n2', 'n1'])
    assert.ok(whole.acknowledgedRevision >= 0, 'both have followed')
    whole.close()
    const leader = await begin(['n2'])
    assert.equal(leader.acknowledgedRevision, -1)
    clock.goOn()
    await new Promise((resolve) => setImmediate(resolve))
    assert.ok(leader.acknowledgedRevision >= 0, 'it is late, and nobody waits for it')
    leader.close()
  })
})

describe('a session that is being opened', () => {
  async function opening() {
    const clock = new SteppedClock()
    const store = await openMemoryStore({ clock })
    await store.commit([{ type: 'create', object: buildNode({ id: 'n1' }) }])
    const isWriting = Promise.withResolvers<void>()
    const isWritten = Promise.withResolvers<void>()
    const slow: Store = {
      view: store.view,
      subscribe: (listener) => store.subscribe(listener),
      close: () => store.close(),
      async commit(changes, options) {
        isWriting.resolve()
        await isWritten.promise
        return store.commit(changes, options)
      },
    }
    const options = { store: slow, unseal: () => new Uint8Array(), clock, log: silentLog, fence: 0 }
    const dispatcher = new Dispatcher(options)
    const asker = new AbortController()
    const { description } = buildNode({ id: 'n1' })
    const node = { ...description, hostname: 'renamed' }
    const session = dispatcher.open(idFrom('n1'), node, asker.signal)
    await isWriting.promise
    return { dispatcher, asker, session, written: () => isWritten.resolve() }
  }

  test('is refused when this manager leads no longer: it would never end', async () => {
    const { dispatcher, session, written } = await opening()
    dispatcher.close()
    written()
    await assert.rejects(session, { code: 'unavailable', message: 'this manager no longer leads' })
  })

  test('is refused when who asked for it has gone meanwhile', async () => {
    const { dispatcher, asker, session, written } = await opening()
    asker.abort()
    written()
    await assert.rejects(session, { code: 'unavailable' })
    assert.equal(dispatcher.isInSession(idFrom('n1')), false)
    dispatcher.close()
  })
})

describe('nodes that are down', () => {
  test('one of which nothing is heard is told from one whose daemon has ended', async () => {
    const clock = new SteppedClock()
    const store = await openMemoryStore({ clock })
    await store.commit(['n1', 'n2'].map((id) => ({ type: 'create', object: buildNode({ id }) })))
    const options = { store, unseal: () => new Uint8Array(), clock, log: silentLog, fence: 0 }
    const dispatcher = new Dispatcher(options)
    const { signal } = new AbortController()
    const comeUp = async (id: string) => {
      const { description } = buildNode({ id })
      await dispatcher.open(idFrom(id), description, signal, undefined, { isRemote: true })
    }
    const stateOf = (id: string) => {
      const { state, isSilent } = store.view.get('node', id)?.status ?? {}
      return [state, isSilent]
    }
    const passTime = async () => {
      for (let look = 0; look < 80; look++) {
        await settle()
        clock.goOn(250)
      }
      await settle()
    }
    await comeUp('n1')
    await comeUp('n2')
    dispatcher.ended(idFrom('n2'), 'ended')
    await passTime()
    assert.deepEqual(
      [stateOf('n1'), stateOf('n2')],
      [
        ['down', true],
        ['down', undefined],
      ],
    )
    await comeUp('n1')
    assert.deepEqual(stateOf('n1'), ['ready', undefined])
    dispatcher.ended(idFrom('n1'), 'ended')
    await passTime()
    assert.deepEqual(stateOf('n1'), ['down', undefined])
    dispatcher.close()
  })
})
