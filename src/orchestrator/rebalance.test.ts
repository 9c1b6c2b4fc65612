import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { idFrom, type Task, type Workload } from '../model/index.ts'
import {
  buildClusterSpec,
  buildContainer,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { MemoryView } from '../store/memory-view.ts'
import { decideRebalance, planRebalance } from './rebalance.ts'

const nowMs = 1_000_000
const on = { 'skep.rebalance': 'on' }

interface Service {
  readonly name: string
  /** The node of each task. */
  readonly at: readonly string[]
  readonly labels?: Readonly<Record<string, string>>
  readonly template?: Parameters<typeof buildTemplate>[0]
  readonly task?: Partial<Pick<Task, 'createdAtMs' | 'leaveBecause' | 'traffic'>>
  readonly status?: Workload['status']
}

function viewOf(
  nodes: readonly Parameters<typeof buildNode>[0][],
  services: readonly Service[],
  clusterLabels: Readonly<Record<string, string>> = {},
): MemoryView {
  const view = new MemoryView()
  const sealed = { keyId: '', nonce: '', ciphertext: '' }
  view.put({
    ...buildWorkload(),
    kind: 'cluster',
    id: idFrom<'cluster'>('c1'),
    labels: clusterLabels,
    spec: buildClusterSpec(),
    status: {
      root: { certificatePem: '', key: sealed, issuerSubject: '', issuerPublicKey: '' },
      rootRotationInProgress: false,
      joinTokens: { worker: sealed, manager: sealed },
      addressPools: [],
      subnetSize: 24,
      dataPathPort: 4789,
    },
  })
  for (const node of nodes) view.put(buildNode(node))
  for (const { name, at, labels = on, template, task, status } of services) {
    const workloadId = idFrom<'workload'>(name)
    const revisionId = idFrom<'revision'>(`${name}-r`)
    view.put({
      ...buildWorkload({ name, labels, ...(status ? { status } : {}) }),
      id: workloadId,
      spec: {
        ...buildWorkload().spec,
        mode: { type: 'replicated', replicas: at.length },
        revisionId,
      },
    })
    view.put({
      ...buildRevision({ template: buildTemplate(template) }),
      id: revisionId,
      workloadId,
    })
    for (const [index, nodeId] of at.entries())
      view.put({
        ...buildTask({ slot: index + 1, nodeId }),
        id: idFrom<'task'>(`${name}.${index + 1}`),
        name: `${name}.${index + 1}`,
        workloadId,
        revisionId,
        ...task,
      })
  }
  return view
}

const nodes = (...ids: readonly string[]) => ids.map((id) => ({ id }))
const scope = { everything: false, atOnce: false }
const plan = (view: MemoryView, over = {}) => planRebalance(view, nowMs, { ...scope, ...over })
const brief = (view: MemoryView, over = {}) =>
  plan(view, over).moves.map(({ name, from, to }) => `${name}:${from}>${to}`)

describe('a plan to rebalance', () => {
  test('fills a node that joined, one move after the other', () => {
    const view = viewOf(nodes('n1', 'n2', 'n3'), [
      { name: 'web', at: ['n1', 'n1', 'n1', 'n2', 'n2', 'n2'] },
    ])
    assert.deepEqual(brief(view), ['web.1:n1>n3', 'web.4:n2>n3'])
  })

  test('moves services of one task off the node that carries the most', () => {
    const view = viewOf(
      nodes('n1', 'n2'),
      ['a', 'b', 'c', 'd'].map((name) => ({ name, at: ['n1'] })),
    )
    assert.deepEqual(brief(view), ['a.1:n1>n2', 'b.1:n1>n2'])
  })

  test('evens out zones before nodes', () => {
    const view = viewOf(
      [
        { id: 'a1', labels: { zone: 'a' } },
        { id: 'b1', labels: { zone: 'b' } },
        { id: 'b2', labels: { zone: 'b' } },
      ],
      [
        {
          name: 'web',
          at: ['b1', 'b1', 'b2', 'b2'],
          template: { placement: { spread: ['node.labels.zone'] } },
        },
      ],
    )
    assert.deepEqual(brief(view), ['web.1:b1>a1', 'web.3:b2>a1'])
  })

  const alone: readonly (Service & { readonly why: RegExp })[] = [
    {
      name: 'db',
      at: ['n1', 'n1', 'n1'],
      template: {
        containers: [
          buildContainer({
            mounts: [
              {
                type: 'volume',
                source: 'data',
                target: '/data',
                readOnly: false,
                volume: { noCopy: false, labels: {} },
              },
            ],
          }),
        ],
      },
      why: /write to a volume/,
    },
    {
      name: 'fresh',
      at: ['n1', 'n1', 'n1'],
      task: { createdAtMs: nowMs - 1_000 },
      why: /a moment ago/,
    },
    {
      name: 'rolling',
      at: ['n1', 'n1', 'n1'],
      status: {
        update: {
          state: 'updating',
          startedAtMs: 0,
          message: '',
          revisionId: idFrom<'revision'>('rolling-r'),
        },
      },
      why: /being updated/,
    },
  ]
  for (const { why, ...service } of alone) {
    test(`leaves ${service.name} alone, and says why`, () => {
      const { moves, skipped } = plan(viewOf(nodes('n1', 'n2'), [service]))
      assert.deepEqual(moves, [])
      assert.match(skipped[0]?.because ?? '', why)
    })
  }

  test('goes by the label of the service, then by that of the cluster', () => {
    const at = ['n1', 'n1']
    const services = [
      { name: 'no', at, labels: { 'skep.rebalance': 'off' } },
      { name: 'silent', at, labels: {} },
    ]
    const two = nodes('n1', 'n2')
    assert.deepEqual(brief(viewOf(two, services)), [])
    assert.deepEqual(brief(viewOf(two, services, on)), ['silent.1:n1>n2'])
    assert.deepEqual(brief(viewOf(two, services), { everything: true }), ['silent.1:n1>n2'])
  })

  test('moves nothing to a node that is not there, paused, full or excluded', () => {
    const service = {
      name: 'web',
      at: ['n1', 'n1', 'n1'],
      template: {
        reservations: { nanoCpus: 1e9, memoryBytes: 0, generic: [] },
        placement: {
          constraints: [{ key: 'node.labels.no', operator: '!=' as const, value: 'yes' }],
        },
      },
    }
    const others = [
      { id: 'down', state: 'down' as const },
      { id: 'paused', availability: 'pause' as const },
      { id: 'small', nanoCpus: 5e8 },
      { id: 'excluded', labels: { no: 'yes' } },
      { id: 'young', updatedAtMs: nowMs - 1_000 },
    ]
    assert.deepEqual(brief(viewOf([{ id: 'n1' }, ...others], [service])), [])
  })

  test('ends, and once carried out leaves nothing to move', () => {
    const anyService = fc.record({
      at: fc.array(fc.constantFrom('n1', 'n2', 'n3', 'n4'), { minLength: 1, maxLength: 9 }),
      nanoCpus: fc.constantFrom(0, 1e8, 2e8),
      spread: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(anyService, { maxLength: 8 }), (parts) => {
        const zones = { n1: 'a', n2: 'a', n3: 'b', n4: 'b' }
        const view = viewOf(
          Object.entries(zones).map(([id, zone]) => ({ id, labels: { zone } })),
          parts.map(({ at, nanoCpus, spread }, index) => ({
            name: `s${index}`,
            at,
            template: {
              reservations: { nanoCpus, memoryBytes: 0, generic: [] },
              placement: { spread: spread ? ['node.labels.zone'] : [] },
            },
          })),
        )
        // Each plan moves a task once at most, so what one leaves the next may still improve.
        let rounds = 0
        for (let moves = plan(view).moves; moves.length > 0; moves = plan(view).moves) {
          rounds += 1
          assert(rounds < 20, 'goes on and on')
          for (const { taskId, to } of moves) {
            const task = view.get('task', taskId)
            if (task) view.put({ ...task, nodeId: to })
          }
        }
        for (const { id, name } of view.list('workload')) {
          const counts = Object.keys(zones).map(
            (node) => view.tasksOfWorkload(id).filter(({ nodeId }) => nodeId === node).length,
          )
          assert(Math.max(...counts) - Math.min(...counts) <= 2, `${name}: ${counts.join()}`)
        }
      }),
      { numRuns: 100 },
    )
  })
})

describe('a decision to rebalance', () => {
  const uneven = (task: Service['task'] = {}) =>
    viewOf(nodes('n1', 'n2'), [
      { name: 'a', at: ['n1', 'n1', 'n1', 'n1', 'n1', 'n1'], task },
      { name: 'b', at: ['n1', 'n1', 'n1'] },
    ])

  test('begins one move of a workload at a time, and says why on the task', () => {
    const { moves, changes } = decideRebalance(uneven(), nowMs)
    assert.deepEqual(
      moves.map(({ name }) => name),
      ['a.1'],
    )
    const [change] = changes
    assert(change?.type === 'update' && change.object.kind === 'task')
    assert.match(change.object.leaveBecause ?? '', /host-n1 has 6 tasks of it, host-n2 0/)
  })

  test('begins none while one is under way', () => {
    const decision = decideRebalance(uneven({ leaveBecause: 'a reason' }), nowMs)
    assert.deepEqual([decision.moves, decision.changes, decision.underWay], [[], [], 6])
  })

  test('begins none before the task that left has stopped, unless its node is down', () => {
    for (const [state, want] of [
      ['ready', []],
      ['down', ['a.1']],
    ] as const) {
      const view = uneven()
      view.put(buildNode({ id: 'old', state }))
      const left = buildTask({ slot: 9, nodeId: 'old', desiredState: 'shutdown' })
      view.put({
        ...left,
        id: idFrom<'task'>('left'),
        workloadId: idFrom<'workload'>('b'),
        leaveBecause: 'a reason',
      })
      const { moves } = decideRebalance(view, nowMs)
      assert.deepEqual(
        moves.map(({ name }) => name),
        want,
      )
    }
  })

  test('calls a move off when the successor does not come up', () => {
    const view = viewOf(nodes('n1', 'n2'), [
      { name: 'a', at: ['n1'], task: { leaveBecause: 'a reason' } },
    ])
    const successor = {
      ...buildTask({ slot: 1, status: { state: 'pending', ready: false } }),
      id: idFrom<'task'>('next'),
      workloadId: idFrom<'workload'>('a'),
      createdAtMs: nowMs - 60_000,
    }
    view.put(successor)
    assert.equal(decideRebalance(view, nowMs).changes.length, 0)
    const [change] = decideRebalance(view, nowMs + 60_000).changes
    assert(change?.type === 'update' && change.object.kind === 'task')
    assert.deepEqual([change.object.id, change.object.leaveBecause], ['a.1', undefined])
  })
})
