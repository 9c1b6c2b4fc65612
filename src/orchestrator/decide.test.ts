import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { unreachable } from '../base/index.ts'
import type {
  ClusterNode,
  Endpoint,
  Revision,
  Task,
  Workload,
  WorkloadSpec,
} from '../model/index.ts'
import { idFrom } from '../model/index.ts'
import {
  buildClusterSpec,
  buildContainer,
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildUpdatePolicy,
  buildWorkload,
} from '../model/testing.ts'
import type { Action, CreateTask } from './actions.ts'
import { decideInParts, decideWorkload } from './decide.ts'
import type { WorkloadSlice } from './slice.ts'

interface SliceParts {
  readonly workload?: Workload
  readonly spec?: Partial<WorkloadSpec>
  readonly revisions?: readonly Revision[]
  readonly tasks?: readonly Task[]
  readonly nodes?: readonly ClusterNode[]
  readonly endpoints?: readonly Endpoint[]
  readonly hasEndpoint?: boolean
  readonly taskHistoryLimit?: number
}

/** Revision 1 of a workload that has proven itself, on nodes n1 to n3. */
function slice(parts: SliceParts = {}): WorkloadSlice {
  const nodes = parts.nodes ?? ['n1', 'n2', 'n3'].map((id) => buildNode({ id }))
  const revisions = parts.revisions ?? [buildRevision({ healthyAtMs: 0 })]
  return {
    workload: parts.workload ?? buildWorkload(parts.spec ? { spec: parts.spec } : {}),
    revisions: new Map(revisions.map((revision) => [revision.id, revision])),
    tasks: parts.tasks ?? [],
    nodes: { get: (id) => nodes.find((node) => node.id === id), all: () => nodes },
    cluster: buildClusterSpec({ taskHistoryLimit: parts.taskHistoryLimit ?? 5 }),
    endpoints: parts.endpoints ?? [],
    hasEndpoint: parts.hasEndpoint ?? false,
  }
}

/** Actions in short: `+2` a new running task in slot 2, `+2@r2` of that revision, `?2` held, `t1>shutdown`. */
function brief(actions: readonly Action[]): string[] {
  return actions.map((action) => {
    switch (action.type) {
      case 'createTask':
        return `${action.desiredState === 'ready' ? '?' : '+'}${action.slot ?? action.pinnedNodeId}${action.revisionId === 'r1' ? '' : `@${action.revisionId}`}`
      case 'setDesired':
        return `${action.taskId}>${action.desiredState}`
      case 'orphanTask':
        return `${action.taskId}>orphaned`
      case 'deleteTask':
        return `-${action.taskId}`
      case 'setUpdate':
        return action.update.state
      case 'rollBack':
        return `rollBack ${action.revisionId}`
      case 'meetStartOrder':
        return 'startOrder'
      case 'markHealthy':
        return `healthy ${action.revisionId}`
      case 'deleteRevision':
        return `-${action.revisionId}`
      default:
        return unreachable(action)
    }
  })
}

const withMount = (readOnly: boolean) =>
  buildTemplate({
    containers: [
      buildContainer({
        mounts: [
          {
            type: 'volume',
            source: 'data',
            target: '/data',
            readOnly,
            volume: { noCopy: false, labels: {} },
          },
        ],
      }),
    ],
  })

const decide = (parts: SliceParts, nowMs = 1000) => {
  const { actions, wakeAtMs } = decideWorkload(slice(parts), nowMs)
  return { actions: brief(actions), raw: actions, wakeAtMs }
}
const created = (actions: readonly Action[]): CreateTask => {
  const found = actions.find((action) => action.type === 'createTask')
  assert(found?.type === 'createTask', 'a task is created')
  return found
}
const replicas = (count: number): Partial<WorkloadSpec> => ({
  mode: { type: 'replicated', replicas: count },
})
const running = (slot: number, over: Parameters<typeof buildTask>[0] = {}) =>
  buildTask({ id: `t${slot}`, slot, nodeId: `n${((slot - 1) % 3) + 1}`, ...over })
const ended = (state: Task['status']['state'], over: Parameters<typeof buildTask>[0] = {}) =>
  buildTask({ status: { state, atMs: 500, readyAtMs: 400 }, ...over })

describe('a replicated workload', () => {
  const cases: { name: string; parts: SliceParts; want: string[] }[] = [
    { name: 'starts its slots from 1', parts: { spec: replicas(2) }, want: ['+1', '+2'] },
    {
      name: 'rests when it is as declared',
      parts: { spec: replicas(2), tasks: [running(1), running(2)] },
      want: [],
    },
    {
      name: 'fills the lowest free slot',
      parts: { spec: replicas(3), tasks: [running(1), running(3)] },
      want: ['+2'],
    },
    {
      name: 'removes the task without a node first',
      parts: {
        spec: replicas(2),
        tasks: [running(1, { nodeId: undefined, state: 'assigned' }), running(2), running(3)],
      },
      want: ['t1>remove'],
    },
    {
      name: 'takes from the fullest node and keeps its lowest slots',
      parts: {
        spec: replicas(3),
        tasks: [
          running(1, { nodeId: 'n1' }),
          running(2, { nodeId: 'n1' }),
          running(3, { nodeId: 'n1' }),
          running(4, { nodeId: 'n2' }),
          running(5, { nodeId: 'n3' }),
        ],
      },
      want: ['t2>remove', 't3>remove'],
    },
    {
      name: 'drops those that are not up before those that are',
      parts: {
        spec: replicas(2),
        tasks: [
          running(1, { state: 'starting' }),
          running(2),
          running(3),
          running(4, { state: 'preparing' }),
        ],
      },
      want: ['t1>remove', 't4>remove'],
    },
    {
      name: 'keeps the lowest slots of more than twelve equal ones',
      parts: {
        spec: replicas(12),
        tasks: Array.from({ length: 15 }, (_, i) => running(15 - i, { nodeId: 'n1' })),
      },
      want: ['t15>remove', 't14>remove', 't13>remove'],
    },
    {
      name: 'forgets finished tasks of slots it no longer has',
      parts: {
        spec: replicas(1),
        tasks: [running(1), ended('failed', { id: 'old', slot: 2, desiredState: 'shutdown' })],
      },
      want: ['-old'],
    },
    {
      name: 'removes a task for good once it ended, or if it never got a node',
      parts: {
        spec: replicas(1),
        tasks: [
          running(1),
          ended('shutdown', { id: 'a', slot: 2, desiredState: 'remove' }),
          running(3, { id: 'b', nodeId: undefined, state: 'pending', desiredState: 'remove' }),
          running(4, { id: 'c', desiredState: 'remove' }),
        ],
      },
      want: ['-a', '-b'],
    },
    {
      name: 'replaces a lost task at once: node down',
      parts: {
        tasks: [running(1)],
        nodes: [buildNode({ state: 'down' }), buildNode({ id: 'n2' })],
      },
      want: ['t1>shutdown', '+1'],
    },
    {
      name: 'replaces a lost task at once: node removed',
      parts: { tasks: [running(1)], nodes: [buildNode({ id: 'n2' })] },
      want: ['t1>orphaned', 't1>shutdown', '+1'],
    },
    {
      name: 'keeps the task of a silent or disconnected node',
      parts: { tasks: [running(1)], nodes: [buildNode({ state: 'disconnected' })] },
      want: [],
    },
    {
      name: 'leaves a drained node: the old task serves until the new one is up, even if updates stop first',
      parts: {
        tasks: [running(1)],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: ['+1'],
    },
    {
      name: 'leaves a drained node at once when it serves nothing there',
      parts: {
        tasks: [running(1, { state: 'preparing' })],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: ['t1>shutdown', '+1'],
    },
    {
      name: 'leaves a drained node stop-first when two tasks must not write to the same volume',
      parts: {
        tasks: [running(1)],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
        revisions: [buildRevision({ healthyAtMs: 0, template: withMount(false) })],
      },
      want: ['t1>shutdown', '?1'],
    },
    {
      name: 'a volume that is only read does not stop it first',
      parts: {
        tasks: [running(1)],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
        revisions: [buildRevision({ healthyAtMs: 0, template: withMount(true) })],
      },
      want: ['+1'],
    },
    {
      name: 'moves as many tasks at once as an update would replace',
      parts: {
        spec: { mode: { type: 'replicated', replicas: 3 } },
        tasks: [running(1), running(2), running(3, { nodeId: 'n2' })],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: ['+1'],
    },
    {
      name: 'moves the next task only when the one before is up',
      parts: {
        spec: { mode: { type: 'replicated', replicas: 2 } },
        tasks: [
          running(1),
          running(1, { id: 'next', nodeId: 'n2', state: 'starting' }),
          running(2),
        ],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: [],
    },
    {
      name: 'moves a quarter of a large service at once',
      parts: {
        spec: { mode: { type: 'replicated', replicas: 8 } },
        tasks: [1, 2, 3, 4, 5, 6, 7, 8].map((slot) => running(slot, { nodeId: 'n1' })),
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: ['+1', '+2'],
    },
    {
      name: 'moves a task that is asked to make way, and never stops it before its successor is up',
      parts: { tasks: [running(1, { leaveBecause: 'n2 has fewer' })] },
      want: ['+1'],
    },
    {
      name: 'stays on a paused node',
      parts: { tasks: [running(1)], nodes: [buildNode({ availability: 'pause' })] },
      want: [],
    },
    {
      name: 'leaves a node whose labels no longer meet its constraints',
      parts: {
        tasks: [running(1)],
        revisions: [
          buildRevision({
            healthyAtMs: 0,
            template: buildTemplate({
              placement: {
                constraints: [{ key: 'node.labels.disk', operator: '==', value: 'ssd' }],
              },
            }),
          }),
        ],
      },
      want: ['+1'],
    },
    {
      name: 'keeps the better of two tasks in one slot',
      parts: { tasks: [running(1, { id: 'a', state: 'starting' }), running(1, { id: 'b' })] },
      want: ['a>shutdown'],
    },
  ]
  for (const { name, parts, want } of cases) {
    test(name, () => assert.deepEqual(decide(parts).actions, want))
  }

  describe('leaving a drained node', () => {
    const parts = (successor: Parameters<typeof buildTask>[0]) => ({
      tasks: [running(1), running(1, { id: 'next', nodeId: 'n2', ...successor })],
      nodes: [buildNode({ availability: 'drain', updatedAtMs: 1000 }), buildNode({ id: 'n2' })],
    })
    test('the old task goes once the new one is up', () => {
      assert.deepEqual(decide(parts({})).actions, ['t1>shutdown'])
    })
    test('the old task goes ten seconds after it is known that no other node takes the new one', () => {
      const error = 'no suitable node (1 node not available for new tasks)'
      const pending = { nodeId: undefined, status: { state: 'pending', error } } as const
      assert.deepEqual(decide(parts(pending)).actions, [])
      assert.equal(decide(parts(pending)).wakeAtMs, 10_000)
      assert.deepEqual(decide(parts(pending), 10_000).actions, ['t1>shutdown'])
    })
    test('the old task goes when the new one is not ready by the progress deadline', () => {
      const slow = parts({ state: 'starting' })
      assert.deepEqual(decide(slow).actions, [])
      assert.equal(decide(slow).wakeAtMs, 601_000)
      assert.deepEqual(decide(slow, 601_000).actions, ['t1>shutdown'])
    })
    test('the old task goes at the deadline although its successor failed and is not tried again', () => {
      const failed = parts({
        id: 'tried',
        desiredState: 'shutdown',
        status: { state: 'failed', error: 'task: non-zero exit (1)' },
      })
      const template = buildTemplate({ restart: { condition: 'none' } })
      const once = { ...failed, revisions: [buildRevision({ healthyAtMs: 0, template })] }
      assert.deepEqual(decide(once).actions, [])
      assert.deepEqual(decide(once, 601_000).actions, ['t1>shutdown'])
    })
    test('a task that only makes way stays however long the new one takes', () => {
      const tasks = [
        running(1, { leaveBecause: 'n2 has fewer' }),
        running(1, { id: 'next', nodeId: 'n2', state: 'starting' }),
      ]
      assert.deepEqual(decide({ tasks }, 1e12).actions, [])
    })
  })

  test('keeps or stops later the task of a lost node when told so', () => {
    const nodes = [buildNode({ state: 'down', updatedAtMs: 1000 })]
    const keep = { spec: { onNodeLoss: { type: 'keep' as const } }, tasks: [running(1)], nodes }
    assert.deepEqual(decide(keep, 1e12).actions, [])
    const later = { type: 'stopAfter' as const, afterMs: 5000 }
    const stopAfter = { spec: { onNodeLoss: later }, tasks: [running(1)], nodes }
    assert.deepEqual(decide(stopAfter, 2000).actions, [])
    // The agent is left its stop grace (10 s) and a margin (10 s) to have stopped the task by itself.
    assert.equal(decide(stopAfter, 2000).wakeAtMs, 26_000)
    assert.deepEqual(decide(stopAfter, 26_000).actions, ['t1>shutdown', '+1'])
  })

  test('counts a loss from when the node went down, whatever changed on the node since', () => {
    const node = buildNode({ state: 'down', updatedAtMs: 20_000 })
    const nodes = [{ ...node, status: { ...node.status, sinceMs: 1000 } }]
    const onNodeLoss = { type: 'stopAfter' as const, afterMs: 5000 }
    const parts = { spec: { onNodeLoss }, tasks: [running(1)], nodes }
    assert.deepEqual(decide(parts, 26_000).actions, ['t1>shutdown', '+1'])
  })

  test('gives a task up after its node was down for a day', () => {
    const parts = {
      tasks: [running(1, { id: 'old', desiredState: 'shutdown' }), running(1, { nodeId: 'n2' })],
      nodes: [buildNode({ state: 'down', updatedAtMs: 0 }), buildNode({ id: 'n2' })],
    }
    assert.deepEqual(decide(parts, 86_399_999).actions, [])
    assert.equal(decide(parts).wakeAtMs, 86_400_000)
    assert.deepEqual(decide(parts, 86_400_000).actions, ['old>orphaned'])
  })

  test('notes that its first revision proved healthy after the monitor period', () => {
    const parts = { tasks: [running(1)], revisions: [buildRevision()] }
    assert.equal(decide(parts, 4999).wakeAtMs, 5000)
    assert.deepEqual(decide(parts, 4999).actions, [])
    assert.deepEqual(decide(parts, 5000).actions, ['healthy r1'])
  })
})

describe('a restart', () => {
  const withRestart = (
    restart: Parameters<typeof buildTemplate>[0] & object,
    tasks: readonly Task[],
  ): SliceParts => ({
    tasks,
    revisions: [buildRevision({ healthyAtMs: 0, template: buildTemplate(restart) })],
  })
  const failed = (count = 0, timesMs: number[] = [], failuresInRow = count) =>
    ended('failed', { restarts: { count, timesMs, failuresInRow } })

  test('waits for the delay, then starts', () => {
    const { actions, raw } = decide({ tasks: [failed()] })
    assert.deepEqual(actions, ['t1>shutdown', '?1'])
    assert.deepEqual(created(raw).startNotBeforeMs, 6000)
    assert.deepEqual(created(raw).restarts, { count: 1, timesMs: [1000], failuresInRow: 1 })
    const held = running(1, { desiredState: 'ready', startNotBeforeMs: 6000, state: 'ready' })
    assert.deepEqual(decide({ tasks: [held] }, 5999), { actions: [], raw: [], wakeAtMs: 6000 })
    assert.deepEqual(decide({ tasks: [held] }, 6000).actions, ['t1>running'])
  })

  const conditions = [
    { condition: 'any', state: 'failed', restarts: true },
    { condition: 'any', state: 'complete', restarts: true },
    { condition: 'onFailure', state: 'failed', restarts: true },
    { condition: 'onFailure', state: 'rejected', restarts: true },
    { condition: 'onFailure', state: 'complete', restarts: false },
    { condition: 'none', state: 'failed', restarts: false },
    { condition: 'none', state: 'complete', restarts: false },
  ] as const
  for (const { condition, state, restarts } of conditions) {
    test(`on ${condition} after ${state}: ${restarts}, and then rests`, () => {
      const parts = withRestart({ restart: { condition } }, [ended(state)])
      assert.deepEqual(decide(parts).actions, ['t1>shutdown', ...(restarts ? ['?1'] : [])])
      const after = withRestart({ restart: { condition } }, [
        ended(state, { desiredState: 'shutdown' }),
      ])
      if (!restarts) assert.deepEqual(decide(after, 1e9).actions, [])
    })
  }

  test('happens at most max-attempts times, and says so', () => {
    const twice = (tasks: Task[]) => withRestart({ restart: { maxAttempts: 2 } }, tasks)
    assert.deepEqual(decide(twice([failed(1)])).actions, ['t1>shutdown', '?1'])
    const { actions, raw } = decide(twice([failed(2)]))
    assert.deepEqual(actions, ['t1>shutdown'])
    assert.match(JSON.stringify(raw), /gave up after 2 restarts \(max-attempts 2\)/)
    assert.deepEqual(
      decide(
        {
          ...twice([ended('failed', { desiredState: 'shutdown', restarts: failed(2).restarts })]),
          taskHistoryLimit: 0,
        },
        1e9,
      ).actions,
      [],
      'the task that the slot rests on is kept',
    )
  })

  test('attempts leave the window', () => {
    const restart = { maxAttempts: 2, windowMs: 300 }
    const verdict = (timesMs: number[]) =>
      decide(withRestart({ restart }, [failed(9, timesMs)])).actions.length
    assert.equal(verdict([199, 250]), 2, 'one of them is older than the window before 500')
    assert.equal(verdict([200, 250]), 1)
  })

  test('backs off for a crash loop, up to five minutes, and starts over once a task was stable', () => {
    const delay = (failuresInRow: number, status = {}) => {
      const task = buildTask({
        restarts: { count: failuresInRow, timesMs: [], failuresInRow },
        status: { state: 'failed', atMs: 500_000, readyAtMs: 499_000, ...status },
      })
      return (created(decide({ tasks: [task] }, 500_000).raw).startNotBeforeMs ?? 0) - 500_000
    }
    assert.deepEqual(
      [0, 1, 2, 3, 50].map((n) => delay(n)),
      [5000, 10_000, 20_000, 40_000, 300_000],
    )
    assert.equal(delay(5, { readyAtMs: 449_999 }), 5000)
    assert.equal(delay(5, { readyAtMs: 450_000 }), 160_000)
    assert.equal(delay(5, { state: 'complete' }), 5000, 'completing is no failure')
  })

  test('waits for the replaced task to stop, but not for ever nor for a node that is down', () => {
    const old = running(1, { id: 'old', desiredState: 'shutdown' })
    const next = running(1, {
      id: 'next',
      nodeId: undefined,
      state: 'pending',
      desiredState: 'ready',
      startAfterTaskId: idFrom('old'),
    })
    assert.deepEqual(decide({ tasks: [old, next] }).actions, [])
    assert.equal(decide({ tasks: [old, next] }).wakeAtMs, 60_000)
    assert.deepEqual(decide({ tasks: [old, next] }, 60_000).actions, ['next>running'])
    const down = [buildNode({ state: 'down', updatedAtMs: 1000 })]
    assert.deepEqual(decide({ tasks: [old, next], nodes: down }).actions, ['next>running'])
    const stopped = ended('shutdown', { id: 'old', desiredState: 'shutdown' })
    assert.deepEqual(decide({ tasks: [stopped, next] }).actions, ['next>running'])
  })

  test('of a slot whose old task still stops waits for it', () => {
    const { actions, raw } = decide({ tasks: [running(1, { desiredState: 'shutdown' })] })
    assert.deepEqual(actions, ['?1'])
    assert.equal(created(raw).startAfterTaskId, 't1')
  })
})

describe('task history', () => {
  const old = (count: number) =>
    Array.from({ length: count }, (_, i) =>
      ended('failed', { id: `old${i}`, desiredState: 'shutdown' }),
    )
  test('keeps the newest finished tasks per slot', () => {
    const tasks = [...old(4), running(1)]
    assert.deepEqual(decide({ tasks, taskHistoryLimit: 2 }).actions, ['-old1', '-old0'])
    assert.deepEqual(decide({ tasks, taskHistoryLimit: 0 }).actions.length, 4)
    assert.deepEqual(decide({ tasks, taskHistoryLimit: -1 }).actions, [])
  })
  test('revisions: the current, the previous, those in use and the last ten healthy ones stay', () => {
    const revisions = Array.from({ length: 20 }, (_, i) => {
      const number = i + 1
      return buildRevision({
        number,
        templateHash: 'same',
        ...(number > 4 ? { healthyAtMs: 1 } : {}),
      })
    })
    const parts = {
      revisions,
      spec: { revisionId: idFrom<'revision'>('r20'), previousRevisionId: idFrom<'revision'>('r3') },
      tasks: [running(1, { revisionId: 'r6' })],
    }
    assert.deepEqual(decide(parts).actions, [
      '-r10',
      '-r9',
      '-r8',
      '-r7',
      '-r5',
      '-r4',
      '-r2',
      '-r1',
    ])
  })
})

test('the newest revision stays, so that its number is not given out again', () => {
  const revisions = [1, 2, 3].map((number) => buildRevision({ number, healthyAtMs: 0 }))
  const failed = buildRevision({ number: 4 })
  const newest = buildRevision({ number: 5 })
  const { actions } = decide({ tasks: [running(1)], revisions: [...revisions, failed, newest] })
  assert.deepEqual(actions, ['-r4'])
})

describe('a global workload', () => {
  const spec = { mode: { type: 'global' as const } }
  const on = (node: string, over: Parameters<typeof buildTask>[0] = {}) =>
    buildTask({ id: `t-${node}`, nodeId: node, pinnedNodeId: node, slot: undefined, ...over })
  const node = (id: string, over: Parameters<typeof buildNode>[0] = {}) =>
    buildNode({ id, ...over })
  const cases: { name: string; parts: SliceParts; want: string[] }[] = [
    { name: 'has one task a node', parts: {}, want: ['+n1', '+n2', '+n3'] },
    {
      name: 'reaches a new node',
      parts: { tasks: [on('n1')], nodes: [node('n1'), node('n2')] },
      want: ['+n2'],
    },
    {
      name: 'skips nodes that are drained, paused, down, silent',
      parts: {
        nodes: [
          node('n1', { availability: 'drain' }),
          node('n2', { availability: 'pause' }),
          node('n3', { state: 'down' }),
          node('n4', { state: 'unknown' }),
        ],
      },
      want: [],
    },
    {
      name: 'stops on drained nodes, stays on paused and lost ones',
      parts: {
        tasks: [on('n1'), on('n2'), on('n3')],
        nodes: [
          node('n1', { availability: 'drain' }),
          node('n2', { availability: 'pause' }),
          node('n3', { state: 'down', updatedAtMs: 1000 }),
        ],
      },
      want: ['t-n1>shutdown'],
    },
    {
      name: 'stops on a lost node that is drained',
      parts: {
        tasks: [on('n1')],
        nodes: [node('n1', { availability: 'drain', state: 'down', updatedAtMs: 1000 })],
      },
      want: ['t-n1>shutdown'],
    },
    {
      name: 'does not restart on a lost node',
      parts: {
        tasks: [ended('failed', { id: 'x', nodeId: 'n1', pinnedNodeId: 'n1', slot: undefined })],
        nodes: [node('n1', { state: 'down', updatedAtMs: 1000 })],
      },
      want: [],
    },
    {
      name: 'does not restart on a paused node',
      parts: {
        tasks: [ended('failed', { id: 'x', nodeId: 'n1', pinnedNodeId: 'n1', slot: undefined })],
        nodes: [node('n1', { availability: 'pause' })],
      },
      want: ['x>shutdown'],
    },
    {
      name: 'comes back to a node that is active again',
      parts: {
        tasks: [on('n1', { state: 'shutdown', desiredState: 'shutdown' })],
        nodes: [node('n1')],
      },
      want: ['+n1'],
    },
    {
      name: 'drops a second task on a node',
      parts: { tasks: [on('n1', { id: 'a' }), on('n1', { id: 'b' })], nodes: [node('n1')] },
      want: ['b>shutdown'],
    },
    {
      name: 'restarts a failed one on its node',
      parts: {
        tasks: [ended('failed', { id: 'x', nodeId: 'n1', pinnedNodeId: 'n1', slot: undefined })],
        nodes: [node('n1')],
      },
      want: ['x>shutdown', '?n1'],
    },
    {
      name: 'forgets the tasks of a removed node',
      parts: { tasks: [on('n9')], nodes: [] },
      want: ['t-n9>orphaned', 't-n9>remove'],
    },
    {
      name: 'keeps to constraints and platforms',
      parts: {
        nodes: [
          node('n1', { role: 'manager' }),
          node('n2'),
          node('n3', { platform: { architecture: 'arm64', os: 'linux' } }),
        ],
        tasks: [on('n1')],
        revisions: [
          buildRevision({
            healthyAtMs: 0,
            template: buildTemplate({
              placement: {
                constraints: [{ key: 'node.role', operator: '==', value: 'worker' }],
                platforms: [{ architecture: 'amd64', os: 'linux' }],
              },
            }),
          }),
        ],
      },
      want: ['t-n1>shutdown', '+n2'],
    },
  ]
  for (const { name, parts, want } of cases) {
    test(name, () => assert.deepEqual(decide({ spec, ...parts }).actions.sort(), want.sort()))
  }
})

describe('a job', () => {
  const job = (maxConcurrent: number, totalCompletions: number, jobIteration = 0) => ({
    mode: { type: 'replicatedJob' as const, maxConcurrent, totalCompletions },
    jobIteration,
  })
  const at = (slot: number, over: Parameters<typeof buildTask>[0] = {}) =>
    buildTask({ id: `t${slot}`, slot, desiredState: 'complete', jobIteration: 0, ...over })
  const done = (slot: number) => at(slot, { state: 'complete' })
  const cases: { name: string; parts: SliceParts; want: string[] }[] = [
    { name: 'starts no more at once than it may', parts: { spec: job(2, 5) }, want: ['+0', '+1'] },
    { name: 'runs nothing when nothing is asked', parts: { spec: job(0, 0) }, want: [] },
    {
      name: 'goes on with the next slots',
      parts: { spec: job(2, 5), tasks: [done(0), at(1)] },
      want: ['+2'],
    },
    {
      name: 'stops at its total',
      parts: { spec: job(3, 4), tasks: [done(0), done(1), done(2), at(3)] },
      want: [],
    },
    {
      name: 'rests when complete',
      parts: { spec: job(1, 1), tasks: [done(0)], taskHistoryLimit: 0 },
      want: [],
    },
    {
      name: 'restarts a failed slot in the same slot',
      parts: { spec: job(1, 2), tasks: [at(0, { status: { state: 'failed' } })] },
      want: ['t0>shutdown', '?0'],
    },
    {
      name: 'removes the tasks of an earlier iteration',
      parts: { spec: job(1, 1, 1), tasks: [done(0), at(1)] },
      want: ['-t0', 't1>remove', '+0'],
    },
    {
      name: 'leaves a node that is down',
      parts: {
        spec: job(1, 1),
        tasks: [at(0)],
        nodes: [buildNode({ state: 'down' }), buildNode({ id: 'n2' })],
      },
      want: ['t0>shutdown', '+0'],
    },
    {
      name: 'leaves a drained node',
      parts: {
        spec: job(1, 1),
        tasks: [at(0)],
        nodes: [buildNode({ availability: 'drain' }), buildNode({ id: 'n2' })],
      },
      want: ['t0>shutdown', '?0'],
    },
  ]
  for (const { name, parts, want } of cases) {
    test(name, () => assert.deepEqual(decide(parts).actions.sort(), want.sort()))
  }

  test('is left alone within its iteration, whatever its revision', () => {
    const revisions = [buildRevision(), buildRevision({ number: 2 })]
    const spec = { ...job(1, 1), revisionId: idFrom<'revision'>('r2') }
    assert.deepEqual(decide({ spec, tasks: [at(0)], revisions }).actions, [])
  })

  for (const type of ['replicatedJob', 'globalJob'] as const) {
    test(`${type}: gives a place up after max-attempts`, () => {
      const place = type === 'globalJob' ? { slot: undefined, pinnedNodeId: 'n1' } : { slot: 0 }
      const task = ended('failed', {
        desiredState: 'complete',
        jobIteration: 0,
        restarts: { count: 2, timesMs: [], failuresInRow: 2 },
        ...place,
      })
      const mode = type === 'globalJob' ? { type } : { type, maxConcurrent: 1, totalCompletions: 1 }
      const { actions } = decide({
        spec: { mode },
        tasks: [task],
        nodes: [buildNode()],
        revisions: [buildRevision({ template: buildTemplate({ restart: { maxAttempts: 2 } }) })],
      })
      assert.deepEqual(actions, ['t1>shutdown'])
    })
  }

  test('a global one reaches new nodes, and leaves those that are done alone', () => {
    const task = at(0, { slot: undefined, pinnedNodeId: 'n1', state: 'complete' })
    const parts = { spec: { mode: { type: 'globalJob' as const } }, tasks: [task] }
    assert.deepEqual(decide(parts).actions, ['+n2', '+n3'])
  })
})

describe('an update', () => {
  const to2 = (
    over: Partial<WorkloadSpec> = {},
    state: 'updating' | 'paused' | 'rollbackStarted' | 'rollbackPaused' = 'updating',
    count = 3,
  ) =>
    buildWorkload({
      spec: {
        mode: { type: 'replicated', replicas: count },
        revisionId: idFrom('r2'),
        previousRevisionId: idFrom('r1'),
        ...over,
      },
      status: {
        update: { state, startedAtMs: 100, message: '', revisionId: idFrom('r2') },
      },
    })
  const revisions = [buildRevision({ healthyAtMs: 0 }), buildRevision({ number: 2 })]
  const fresh = (slot: number, over: Parameters<typeof buildTask>[0] = {}) =>
    running(slot, {
      id: `new${slot}`,
      revisionId: 'r2',
      createdAtMs: 200,
      status: { readyAtMs: 300 },
      ...over,
    })
  const gone = (slot: number) =>
    running(slot, { desiredState: 'shutdown', status: { state: 'shutdown', atMs: 250 } })
  const quiet = (actions: string[]) => actions.filter((text) => text !== 'updating')
  const update = (over: Parameters<typeof buildUpdatePolicy>[0]) => ({
    update: buildUpdatePolicy(over),
  })

  const cases: {
    name: string
    workload: Workload
    tasks: Task[]
    want: string[]
    nowMs?: number
    more?: SliceParts
  }[] = [
    {
      name: 'takes one slot at a time, stop-first',
      workload: to2(),
      tasks: [running(1), running(2), running(3)],
      want: ['t1>shutdown', '?1@r2'],
    },
    {
      name: 'takes as many as parallelism says',
      workload: to2(update({ parallelism: 2 })),
      tasks: [running(1), running(2), running(3)],
      want: ['t1>shutdown', '?1@r2', 't2>shutdown', '?2@r2'],
    },
    {
      name: 'parallelism 0 is all',
      workload: to2(update({ parallelism: 0, order: 'startFirst' })),
      tasks: [running(1), running(2), running(3)],
      want: ['+1@r2', '+2@r2', '+3@r2'],
    },
    {
      name: 'waits until the new task is up',
      workload: to2(),
      tasks: [gone(1), fresh(1, { state: 'starting', status: {} }), running(2), running(3)],
      want: [],
    },
    {
      name: 'goes on to the next slot once it is',
      workload: to2(),
      tasks: [gone(1), fresh(1), running(2), running(3)],
      want: ['t2>shutdown', '?2@r2'],
    },
    {
      name: 'where an overtaken one has left two, the later one is enough, whoever has the turn',
      workload: to2({}, 'updating', 2),
      tasks: [
        gone(1),
        fresh(1, { state: 'starting', status: {} }),
        running(2),
        running(2, { id: 'later2', createdAtMs: 50 }),
      ],
      want: ['t2>shutdown'],
    },
    {
      name: 'and the earlier one goes on until it is up',
      workload: to2({}, 'updating', 2),
      tasks: [
        gone(1),
        fresh(1, { state: 'starting', status: {} }),
        running(2),
        running(2, { id: 'later2', createdAtMs: 50, state: 'starting', status: {} }),
      ],
      want: [],
    },
    {
      name: 'both go when it is their turn',
      workload: to2({}, 'updating', 1),
      tasks: [running(1), running(1, { id: 'later1', createdAtMs: 50 })],
      want: ['t1>shutdown', 'later1>shutdown', '?1@r2'],
    },
    {
      name: 'what it began at a slot that is scaled away counts until that is told to go',
      workload: to2({}, 'updating', 2),
      tasks: [running(1), running(2), gone(3), fresh(3, { state: 'starting', status: {} })],
      want: ['-t3', 'new3>remove'],
    },
    {
      name: 'pauses between slots for the delay',
      workload: to2(update({ delayMs: 1000 })),
      tasks: [gone(1), fresh(1), running(2), running(3)],
      nowMs: 1299,
      want: [],
    },
    {
      name: 'goes on after the delay',
      workload: to2(update({ delayMs: 1000 })),
      tasks: [gone(1), fresh(1), running(2), running(3)],
      nowMs: 1300,
      want: ['t2>shutdown', '?2@r2'],
    },
    {
      name: 'start-first: the old task stays until the new one is up',
      workload: to2(update({ order: 'startFirst' }), 'updating', 1),
      tasks: [running(1), fresh(1, { state: 'starting', status: {} })],
      want: [],
    },
    {
      name: 'start-first: the old task goes once the new one is up',
      workload: to2(update({ order: 'startFirst' }), 'updating', 1),
      tasks: [running(1), fresh(1)],
      want: ['t1>shutdown'],
    },
    {
      name: 'start-first with an endpoint: ready is not enough, it must be routable',
      workload: to2(update({ order: 'startFirst' }), 'updating', 1),
      tasks: [running(1, { traffic: 'routable' }), fresh(1)],
      more: { hasEndpoint: true },
      want: [],
    },
    {
      name: 'start-first with an endpoint: the old one goes when the new one is routable',
      workload: to2(update({ order: 'startFirst' }), 'updating', 1),
      tasks: [running(1, { traffic: 'routable' }), fresh(1, { traffic: 'routable' })],
      more: { hasEndpoint: true },
      want: ['t1>shutdown'],
    },
    {
      name: 'start-first turns to stop-first when a host port is published',
      workload: to2(update({ order: 'startFirst' }), 'updating', 1),
      tasks: [running(1)],
      more: {
        endpoints: [
          buildEndpoint({
            spec: {
              ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'host' }],
            },
          }),
        ],
      },
      want: ['t1>shutdown', '?1@r2'],
    },
    {
      name: 'takes slots that serve nothing first',
      workload: to2(),
      tasks: [running(1), running(2), running(3, { state: 'starting' })],
      want: ['t3>shutdown', '?3@r2'],
    },
    {
      name: 'starts a failed slot at the new revision at once',
      workload: to2({}, 'updating', 1),
      tasks: [ended('failed', { desiredState: 'running' })],
      want: ['t1>shutdown', '+1@r2'],
    },
    {
      name: 'starts a slot that rested at the new revision',
      workload: to2({}, 'updating', 1),
      tasks: [
        ended('failed', {
          desiredState: 'shutdown',
          restarts: { count: 9, timesMs: [], failuresInRow: 9 },
        }),
      ],
      want: ['+1@r2'],
    },
    {
      name: 'pauses when a new task fails',
      workload: to2(),
      tasks: [
        gone(1),
        fresh(1, { status: { state: 'failed', atMs: 400, ready: false } }),
        running(2),
        running(3),
      ],
      want: ['paused'],
    },
    {
      name: 'pauses when a new task ends while it is watched',
      workload: to2(),
      tasks: [
        gone(1),
        fresh(1, { status: { state: 'failed', atMs: 5300, readyAtMs: 300 } }),
        running(2),
        running(3),
      ],
      want: ['paused'],
      nowMs: 5400,
    },
    {
      name: 'restarts a new task that ends later',
      workload: to2({}, 'updating', 1),
      tasks: [gone(1), fresh(1, { status: { state: 'failed', atMs: 5301, readyAtMs: 300 } })],
      want: ['new1>shutdown', '?1@r2'],
      nowMs: 5400,
    },
    {
      name: 'bears failures up to the ratio',
      workload: to2(update({ maxFailureRatio: 0.4 })),
      tasks: [
        gone(1),
        fresh(1, { status: { state: 'failed', atMs: 400, ready: false } }),
        running(2),
        running(3),
      ],
      want: ['new1>shutdown', '?1@r2'],
    },
    {
      name: 'goes on past a failed slot when told to',
      workload: to2(update({ onFailure: 'continue' })),
      tasks: [
        gone(1),
        fresh(1, {
          desiredState: 'shutdown',
          status: { state: 'failed', atMs: 400, ready: false },
        }),
        fresh(1, {
          id: 'again',
          desiredState: 'ready',
          state: 'ready',
          startNotBeforeMs: 9000,
          status: {},
        }),
        running(2),
        running(3),
      ],
      want: ['t2>shutdown', '?2@r2'],
    },
    {
      name: 'rolls back when told to',
      workload: to2(update({ onFailure: 'rollback' })),
      tasks: [
        gone(1),
        fresh(1, { status: { state: 'rejected', atMs: 400, ready: false } }),
        running(2),
        running(3),
      ],
      want: ['rollBack r1'],
    },
    {
      name: 'pauses a rollback that fails, and never rolls it back',
      workload: to2({ rollback: buildUpdatePolicy({ onFailure: 'rollback' }) }, 'rollbackStarted'),
      tasks: [
        gone(1),
        fresh(1, { status: { state: 'failed', atMs: 400, ready: false } }),
        running(2),
        running(3),
      ],
      want: ['rollbackPaused'],
    },
    {
      name: 'stays paused',
      workload: to2({}, 'paused'),
      tasks: [gone(1), fresh(1), running(2), running(3)],
      want: [],
    },
    {
      name: 'paused: an old task that fails comes back at its own revision',
      workload: to2({}, 'paused', 2),
      tasks: [fresh(1), ended('failed', { id: 't2', slot: 2 })],
      want: ['t2>shutdown', '?2'],
    },
    {
      name: 'a slot without progress past the deadline has failed',
      workload: to2(update({ progressDeadlineMs: 1000 })),
      tasks: [
        gone(1),
        fresh(1, { nodeId: undefined, state: 'pending', status: {} }),
        running(2),
        running(3),
      ],
      want: ['paused'],
      nowMs: 1251,
    },
    {
      name: 'being held back is not lacking progress',
      workload: to2(update({ progressDeadlineMs: 1000 })),
      tasks: [
        running(1, { desiredState: 'shutdown' }),
        fresh(1, {
          desiredState: 'ready',
          startAfterTaskId: idFrom('t1'),
          state: 'ready',
          status: {},
        }),
        running(2),
        running(3),
      ],
      want: [],
      nowMs: 9000,
    },
    {
      name: 'watches the last task before it is complete',
      workload: to2({}, 'updating', 1),
      tasks: [gone(1), fresh(1)],
      want: [],
      nowMs: 1299,
    },
    {
      name: 'is complete when the last task has stayed ready for a second, and not proven yet',
      workload: to2({}, 'updating', 1),
      tasks: [gone(1), fresh(1)],
      want: ['completed'],
      nowMs: 1300,
    },
    {
      name: 'is proven after the monitor period',
      workload: to2({}, 'updating', 1),
      tasks: [gone(1), fresh(1)],
      want: ['completed', 'healthy r2'],
      nowMs: 5300,
    },
    {
      name: 'that replaces nothing is complete at once',
      workload: to2({}, 'updating', 2),
      tasks: [running(1, { revisionId: 'r2' }), running(2, { revisionId: 'r2' })],
      want: ['completed'],
    },
    {
      name: 'a rollback completes as one',
      workload: to2({}, 'rollbackStarted', 1),
      tasks: [gone(1), fresh(1)],
      want: ['rollbackCompleted', 'healthy r2'],
      nowMs: 5300,
    },
  ]
  for (const { name, workload, tasks, want, nowMs, more } of cases) {
    test(name, () => {
      const { actions } = decide({ workload, tasks, revisions, ...more }, nowMs ?? 1000)
      assert.deepEqual(quiet(actions), want)
    })
  }

  test('goes back to what proved itself, not to another revision that failed', () => {
    const failing = [
      gone(1),
      fresh(1, { revisionId: 'r3', status: { state: 'failed', atMs: 400, ready: false } }),
    ]
    const target = (
      r2: Partial<Pick<Revision, 'healthyAtMs' | 'templateHash'>>,
      r3Hash = 'hash-3',
    ) => {
      const workload = buildWorkload({
        spec: {
          ...update({ onFailure: 'rollback' }),
          revisionId: idFrom('r3'),
          previousRevisionId: idFrom('r2'),
        },
        status: {
          update: { state: 'updating', startedAtMs: 100, message: '', revisionId: idFrom('r3') },
        },
      })
      const all = [
        buildRevision({ healthyAtMs: 0 }),
        buildRevision({ number: 2, ...r2 }),
        buildRevision({ number: 3, templateHash: r3Hash }),
      ]
      return decide({ workload, tasks: failing, revisions: all }).actions
    }
    assert.deepEqual(target({ healthyAtMs: 50 }), ['rollBack r2'])
    assert.deepEqual(target({}), ['rollBack r1'])
    assert.deepEqual(target({ templateHash: 'hash-1' }), ['rollBack r2'], 'only scaled since')
    assert.deepEqual(target({}, 'hash-2'), ['rollBack r1'], 'the same tasks are no way back')
    assert.deepEqual(target({ healthyAtMs: 50 }, 'hash-2'), ['rollBack r1'], 'even if once proven')
  })

  test('looks again when the progress deadline has passed', () => {
    const pending = fresh(1, { nodeId: undefined, state: 'pending', status: {} })
    const workload = to2(update({ progressDeadlineMs: 5000 }))
    const tasks = [gone(1), pending, running(2), running(3)]
    assert.equal(decide({ workload, tasks, revisions }).wakeAtMs, 5201)
  })

  test('bears failures of exactly the ratio', () => {
    const workload = to2(update({ maxFailureRatio: 0.5 }), 'updating', 2)
    const failed = { state: 'failed', atMs: 400, ready: false } as const
    const tasks = [gone(1), fresh(1, { status: failed }), running(2)]
    const { actions } = decide({ workload, tasks, revisions })
    assert.deepEqual(quiet(actions).slice(0, 2), ['new1>shutdown', '?1@r2'])
  })

  test('tries again where a try before it failed, whatever its restart policy', () => {
    const template = buildTemplate({ restart: { condition: 'none' } })
    const once = [buildRevision({ healthyAtMs: 0 }), buildRevision({ number: 2, template })]
    const tried = (createdAtMs: number) =>
      fresh(1, {
        id: 'tried',
        createdAtMs,
        desiredState: 'shutdown',
        status: { state: 'failed', atMs: createdAtMs, ready: false },
      })
    const workload = to2({ update: buildUpdatePolicy({ onFailure: 'continue' }) }, 'updating', 1)
    const decided = (createdAtMs: number) =>
      quiet(decide({ workload, tasks: [running(1), tried(createdAtMs)], revisions: once }).actions)
    assert.deepEqual(decided(50), ['t1>shutdown', '?1@r2'])
    assert.deepEqual(decided(200), [], 'its own tries bind it')
  })

  test('remembers what failed until it is over, however short the history', () => {
    const failed = { state: 'failed', atMs: 400, ready: false } as const
    const over = { desiredState: 'shutdown', status: failed } as const
    const workload = to2(update({ maxFailureRatio: 0.9, order: 'startFirst' }), 'updating', 1)
    const tasks = [running(1), fresh(1, { id: 'a', ...over }), fresh(1, { id: 'b', ...over })]
    const waiting = fresh(1, {
      id: 'c',
      desiredState: 'ready',
      state: 'ready',
      startNotBeforeMs: 9e9,
      status: {},
    })
    const bearing = {
      ...workload,
      spec: {
        ...workload.spec,
        update: buildUpdatePolicy({ onFailure: 'continue', order: 'startFirst' }),
      },
    }
    const { actions } = decide({
      workload: bearing,
      tasks: [...tasks, waiting],
      revisions,
      taskHistoryLimit: 0,
    })
    assert.deepEqual(quiet(actions), ['-a'], 'the newest failure stays')
  })

  test('begins by itself where tasks are out of date and nobody said so', () => {
    const workload = buildWorkload({ spec: { revisionId: idFrom('r2') } })
    assert.deepEqual(decide({ workload, tasks: [running(1)], revisions }).actions, ['updating'])
  })

  test('says what it waits for, and writes it only when it changes', () => {
    const workload = to2()
    const pending = fresh(1, {
      nodeId: undefined,
      status: {
        state: 'pending',
        ready: false,
        error: 'no suitable node (insufficient resources on 3 nodes)',
      },
    })
    const tasks = [gone(1), pending, running(2), running(3)]
    const [said] = decideWorkload(slice({ workload, tasks, revisions }), 1000).actions
    assert(said?.type === 'setUpdate', 'the status says it')
    assert.equal(
      said.update.waitingFor,
      '0 of 3 tasks updated; web.1 (task new1): pending: no suitable node (insufficient resources on 3 nodes)',
    )
    const written = { ...workload, status: { update: said.update } }
    assert.deepEqual(decide({ workload: written, tasks, revisions }, 2000).actions, [])
  })

  test('leaves tasks that differ only in a placement their node meets', () => {
    const constrained = (role: string) =>
      buildRevision({
        number: 2,
        template: buildTemplate({
          placement: { constraints: [{ key: 'node.role', operator: '==', value: role }] },
        }),
      })
    const tasks = [running(1)]
    const workload = to2({}, 'updating', 1)
    const of = (role: string) =>
      decide({ workload, tasks, revisions: [buildRevision(), constrained(role)] }).actions
    assert.deepEqual(of('worker'), ['completed'])
    assert.deepEqual(quiet(of('manager')), ['t1>shutdown', '?1@r2'])
  })

  test('that loosens a constraint keeps tasks whose node no longer meets the old one', () => {
    const placement = {
      constraints: [{ key: 'node.labels.a', operator: '==' as const, value: '1' }],
    }
    const strict = buildRevision({ template: buildTemplate({ placement }) })
    const workload = to2({}, 'updating', 1)
    const { actions } = decide({
      workload,
      tasks: [running(1)],
      revisions: [strict, buildRevision({ number: 2 })],
    })
    assert.deepEqual(actions, ['completed'])
  })
})

describe('a large decision', () => {
  test('lets others have the thread, and comes to the same', () => {
    const tasks = Array.from({ length: 3_000 }, (_, at) => running(at + 1))
    const large = slice({ spec: replicas(6_000), tasks })
    const parts = decideInParts(large, 1000)
    let pauses = 0
    for (;;) {
      const part = parts.next()
      if (part.done) {
        assert.deepEqual(part.value, decideWorkload(large, 1000))
        assert.equal(part.value.actions.length, 3_000)
        break
      }
      pauses += 1
    }
    assert(pauses >= 8, `${pauses} pauses`)
  })
})
