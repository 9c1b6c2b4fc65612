import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom, type Revision, type Task, type Workload } from '../model/index.ts'
import {
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { explainTask, explainWorkload } from './explain.ts'
import type { WorkloadSlice } from './slice.ts'

function slice(
  tasks: readonly Task[],
  workload: Workload = buildWorkload(),
  revisions: readonly Revision[] = [buildRevision()],
): WorkloadSlice {
  const nodes = [buildNode()]
  return {
    workload,
    revisions: new Map(revisions.map((revision) => [revision.id, revision])),
    tasks,
    nodes: { get: (id) => nodes.find((node) => node.id === id), all: () => nodes },
    cluster: undefined,
    endpoints: [],
    hasEndpoint: false,
  }
}

describe('explaining a workload', () => {
  test('as declared: no reasons', () => {
    const { summary, reasons } = explainWorkload(slice([buildTask()]), 1000)
    assert.equal(summary, 'web has 1 of 1 task up.')
    assert.deepEqual(reasons, [])
  })

  const cases: { name: string; slice: WorkloadSlice; reason: string }[] = [
    {
      name: 'a task that fits no node',
      slice: slice([
        buildTask({
          nodeId: undefined,
          status: {
            state: 'pending',
            message: 'pending task scheduling',
            error: 'no suitable node (insufficient resources on 1 node)',
          },
        }),
      ]),
      reason: 'web.1 (task t1): pending: no suitable node (insufficient resources on 1 node)',
    },
    {
      name: 'a crash loop',
      slice: slice([
        buildTask({
          id: 'old',
          desiredState: 'shutdown',
          status: { state: 'failed', error: 'task: non-zero exit (3)' },
        }),
        buildTask({
          state: 'ready',
          desiredState: 'ready',
          startNotBeforeMs: 21_000,
          restarts: { count: 3, timesMs: [], failuresInRow: 3 },
        }),
      ]),
      reason:
        'web.1 (task t1): ready, held back; starts in 20 s: the restart delay after 3 failures in a row; before it: web.1 (task old): failed: task: non-zero exit (3)',
    },
    {
      name: 'a slot that was given up',
      slice: slice(
        [
          buildTask({
            desiredState: 'shutdown',
            restarts: { count: 3, timesMs: [], failuresInRow: 3 },
            status: { state: 'failed', error: 'task: non-zero exit (3)' },
          }),
        ],
        buildWorkload(),
        [buildRevision({ template: buildTemplate({ restart: { maxAttempts: 3 } }) })],
      ),
      reason:
        'web.1 (task t1): failed: task: non-zero exit (3); not restarted: gave up after 3 restarts (max-attempts 3)',
    },
    {
      name: 'a paused update',
      slice: slice(
        [buildTask()],
        buildWorkload({
          status: {
            update: {
              state: 'paused',
              startedAtMs: 0,
              message: 'update paused due to failure or early termination of task x',
              revisionId: idFrom('r1'),
            },
          },
        }),
      ),
      reason:
        'update paused due to failure or early termination of task x; nothing more is replaced until it is updated or rolled back',
    },
    {
      name: 'nothing asked for',
      slice: slice([], buildWorkload({ spec: { mode: { type: 'replicated', replicas: 0 } } })),
      reason: 'it is scaled to 0: scale it up to run it',
    },
    {
      name: 'a missing revision',
      slice: slice([], buildWorkload({ spec: { revisionId: idFrom('r9') } })),
      reason: 'Declare it again with an update.',
    },
  ]
  for (const { name, slice: observed, reason } of cases) {
    test(name, () => assert.deepEqual(explainWorkload(observed, 1000).reasons, [reason]))
  }

  test('tells what happened in order', () => {
    const failed = buildTask({
      id: 'old',
      desiredState: 'shutdown',
      status: { state: 'failed', atMs: 500, readyAtMs: 300, error: 'task: non-zero exit (1)' },
    })
    const { timeline } = explainWorkload(slice([failed, buildTask({ createdAtMs: 600 })]), 1000)
    const times = timeline.map(({ atMs }) => atMs)
    assert.deepEqual(
      times,
      times.toSorted((a, b) => a - b),
    )
    assert(
      timeline.some(({ text }) => text === 'web.1 (task old) is failed: task: non-zero exit (1)'),
    )
  })
})

describe('explaining a task', () => {
  test('says where it is, where it should be and why', () => {
    const task = buildTask({ desiredState: 'shutdown', desiredBecause: 'scaled down to 0' })
    const told = explainTask(slice([task]), task.id, 1000)
    assert.equal(told?.summary, 'Task t1 (web) is running on node host-n1; it should be stopped.')
    assert.deepEqual(told?.reasons, ['it is to stop: scaled down to 0'])
  })
  test('names an unmet health check', () => {
    const task = buildTask({ status: { state: 'running', ready: false } })
    assert.deepEqual(explainTask(slice([task]), task.id, 1000)?.reasons, [
      'its health check has not passed',
    ])
  })
  test('knows nothing of a task that is not there', () => {
    assert.equal(explainTask(slice([]), idFrom('nope'), 0), undefined)
  })
})
