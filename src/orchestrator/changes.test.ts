import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom, type Task } from '../model/index.ts'
import {
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildUpdatePolicy,
  buildWorkload,
} from '../model/testing.ts'
import { MemoryView } from '../store/memory-view.ts'
import type { Change } from '../store/store.ts'
import { changesFor } from './changes.ts'
import { decideNode, decideOrphans } from './housekeeping.ts'
import { observeWorkload } from './slice.ts'
import { seededRandom } from './small-world.ts'

function viewOf(...objects: Parameters<MemoryView['put']>[0][]): MemoryView {
  const view = new MemoryView()
  for (const object of objects) view.put(object)
  return view
}

function sliceOf(view: MemoryView) {
  const slice = observeWorkload(view, idFrom('w1'))
  assert(slice)
  return slice
}
const brief = (changes: readonly Change[]) =>
  changes.map((change) =>
    change.type === 'delete'
      ? `-${change.id}`
      : `${change.object.id}${change.object.kind === 'task' ? `>${change.object.desiredState},${change.object.status.state}` : ''}`,
  )
const objectOf = <K extends 'task' | 'workload' | 'endpoint'>(
  changes: readonly Change[],
  kind: K,
) => {
  for (const change of changes)
    if (change.type !== 'delete' && change.object.kind === kind) return change
  throw new Error(`no change of a ${kind}`)
}

describe('changes', () => {
  test('several wishes for one task are one change, and desired never goes back', () => {
    const view = viewOf(buildWorkload(), buildRevision(), buildTask())
    const taskId = idFrom<'task'>('t1')
    const changes = changesFor(
      sliceOf(view),
      [
        { type: 'orphanTask', taskId, error: 'gone' },
        { type: 'setDesired', taskId, desiredState: 'remove', because: 'a' },
        { type: 'setDesired', taskId, desiredState: 'shutdown', because: 'b' },
      ],
      1000,
      seededRandom(1),
    )
    assert.deepEqual(brief(changes), ['t1>remove,orphaned'])
  })

  const created = (view: MemoryView): Task => {
    const changes = changesFor(
      sliceOf(view),
      [
        {
          type: 'createTask',
          slot: 3,
          revisionId: idFrom('r1'),
          desiredState: 'ready',
          because: 'wanted',
          restarts: { count: 1, timesMs: [5], failuresInRow: 1 },
          startNotBeforeMs: 6000,
        },
      ],
      1000,
      seededRandom(1),
    )
    const { object } = objectOf(changes, 'task')
    assert(object.kind === 'task')
    return object
  }

  test('a new task begins without a node, named for its place', () => {
    const object = created(viewOf(buildWorkload(), buildRevision()))
    assert.match(object.id, /^[0-9a-z]{25}$/)
    assert.equal(object.name, `web.3.${object.id}`)
    assert.deepEqual(
      [object.nodeId, object.desiredState, object.startNotBeforeMs],
      [undefined, 'ready', 6000],
    )
    assert.deepEqual(object.restarts, { count: 1, timesMs: [5], failuresInRow: 1 })
  })

  const networks = [{ networkId: idFrom<'network'>('n'), aliases: [], driverOptions: {} }]
  const ports = [
    { protocol: 'tcp', targetPort: 80, publishedPort: 0, publishMode: 'ingress' },
  ] as const
  const beginnings = [
    { name: 'one that needs no address', objects: [buildEndpoint()], state: 'pending' },
    {
      name: 'one on a network',
      objects: [buildRevision({ template: buildTemplate({ networks }) })],
      state: 'new',
    },
    {
      name: 'one with published ports',
      objects: [buildEndpoint({ spec: { ports } })],
      state: 'new',
    },
    {
      name: 'one whose endpoint can not have what it asks for',
      objects: [buildEndpoint({ status: { error: 'no subnet' } })],
      state: 'new',
    },
  ]
  for (const { name, objects, state } of beginnings) {
    test(`${name} begins as ${state}: ${state === 'new' ? 'the allocator' : 'the scheduler'} is next`, () => {
      const task = created(viewOf(buildWorkload(), buildRevision(), ...objects))
      assert.equal(task.status.state, state)
    })
  }

  test('a rollback restores all that was declared: mode, policies, labels, source and endpoint', () => {
    const source = { dialect: 'docker' as const, document: { Name: 'web', v: 1 } }
    const ports = [
      { protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' },
    ] as const
    const declared = {
      labels: { a: '1' },
      mode: { type: 'replicated', replicas: 7 },
      update: buildUpdatePolicy({ parallelism: 4 }),
      rollback: buildUpdatePolicy({ parallelism: 5 }),
      onNodeLoss: { type: 'keep' },
      endpoint: { mode: 'vip', networks: [], ports },
    } as const
    const workload = buildWorkload({
      spec: { revisionId: idFrom('r2'), previousRevisionId: idFrom('r1') },
    })
    const view = viewOf(
      workload,
      buildEndpoint(),
      buildRevision({ source, declared }),
      buildRevision({ number: 2 }),
    )
    const update = {
      state: 'rollbackStarted',
      startedAtMs: 1000,
      revisionId: idFrom<'revision'>('r1'),
      message: 'back',
    } as const
    const changes = changesFor(
      sliceOf(view),
      [{ type: 'rollBack', revisionId: idFrom('r1'), update }],
      1000,
      seededRandom(1),
    )
    const changed = objectOf(changes, 'workload')
    assert.equal(changed.type === 'update' && changed.specChanged, true)
    const after = changed.object
    assert(after.kind === 'workload')
    assert.deepEqual(after.spec, {
      mode: declared.mode,
      update: declared.update,
      rollback: declared.rollback,
      onNodeLoss: declared.onNodeLoss,
      revisionId: 'r1',
      jobIteration: 0,
    })
    assert.deepEqual(
      [after.labels, after.source, after.status.update],
      [{ a: '1' }, source, update],
    )
    const endpoint = objectOf(changes, 'endpoint').object
    assert(endpoint.kind === 'endpoint')
    assert.deepEqual(endpoint.spec.ports, ports)
  })
})

describe('what a removed workload leaves', () => {
  const id = idFrom<'workload'>('w1')
  test('its tasks stop, and go once they have', () => {
    const view = viewOf(
      buildNode(),
      buildRevision(),
      buildTask({ id: 'up' }),
      buildTask({ id: 'stopping', desiredState: 'remove' }),
      buildTask({ id: 'never', nodeId: undefined, state: 'pending' }),
      buildTask({ id: 'over', state: 'failed', desiredState: 'shutdown' }),
    )
    assert.deepEqual(brief(decideOrphans(view, id, 0).changes), [
      'up>remove,running',
      '-never',
      '-over',
    ])
  })
  test('its revisions go last', () => {
    const view = viewOf(buildRevision(), buildRevision({ number: 2 }))
    assert.deepEqual(brief(decideOrphans(view, id, 0).changes), ['-r1', '-r2'])
  })
  test('nothing of a workload that is there is touched', () => {
    const view = viewOf(buildWorkload(), buildRevision(), buildTask(), buildNode())
    assert.deepEqual(decideOrphans(view, id, 0), { changes: [] })
  })
  test('a task on a removed node is given up and then goes', () => {
    const view = viewOf(buildRevision(), buildTask())
    const { changes } = decideOrphans(view, id, 0)
    assert.deepEqual(brief(changes), ['t1>remove,orphaned'])
  })
})

describe('a node with fewer resources', () => {
  const reserving = (memoryBytes: number, tasks: Task[], over: Parameters<typeof buildNode>[0]) =>
    viewOf(
      buildNode({ memoryBytes: 1000, ...over }),
      buildWorkload(),
      buildRevision({
        template: buildTemplate({ reservations: { nanoCpus: 0, memoryBytes, generic: [] } }),
      }),
      ...tasks,
    )
  const three = ['a', 'b', 'c'].map((id, i) => buildTask({ id, slot: i + 1 }))
  const n1 = idFrom<'node'>('n1')

  test('loses its newest tasks, only as many as needed', () => {
    assert.deepEqual(decideNode(reserving(300, three, {}), n1).changes, [])
    assert.deepEqual(brief(decideNode(reserving(400, three, {}), n1).changes), [
      'c>shutdown,running',
    ])
  })
  test('keeps its tasks while it is not active', () => {
    assert.deepEqual(decideNode(reserving(400, three, { availability: 'pause' }), n1).changes, [])
  })
  test('finished job tasks hold nothing', () => {
    const done = [buildTask({ id: 'done', state: 'complete', desiredState: 'complete' }), ...three]
    assert.deepEqual(decideNode(reserving(300, done, {}), n1).changes, [])
  })
  test('a vanished named resource takes its holder along', () => {
    const gpu = (names: string[]) => [{ kind: 'gpu', value: names.length, names }]
    const view = viewOf(
      buildNode({ generic: gpu(['g2']) }),
      buildWorkload(),
      buildRevision({
        template: buildTemplate({
          reservations: { nanoCpus: 0, memoryBytes: 0, generic: [{ kind: 'gpu', value: 1 }] },
        }),
      }),
      buildTask({ id: 'a', genericResources: gpu(['g1']) }),
      buildTask({ id: 'b', genericResources: gpu(['g2']) }),
    )
    assert.deepEqual(brief(decideNode(view, n1).changes), ['a>shutdown,running'])
  })
})
