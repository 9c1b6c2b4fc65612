import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { UserError } from '../base/index.ts'
import type { Task, Workload } from '../model/index.ts'
import { buildTask, buildWorkload } from '../model/testing.ts'
import type { View } from '../store/store.ts'
import { decideWorkload } from './decide.ts'
import { observeStartOrder, parseStartAfter, startAfterLabel } from './start-order.ts'

function viewOf(
  workloads: readonly Workload[],
  tasks: readonly Task[],
): Pick<View, 'byName' | 'tasksOfWorkload'> {
  const named = (name: string) => workloads.filter((workload) => workload.name === name)
  const byName: View['byName'] = (kind, name) => {
    assert.equal(kind, 'workload')
    return named(name) as never
  }
  return { byName, tasksOfWorkload: (id) => tasks.filter(({ workloadId }) => workloadId === id) }
}

const waiting = (label: string) =>
  buildWorkload({ id: 'late', name: 'late', labels: { [startAfterLabel]: label } })
const db = buildWorkload({
  id: 'db',
  name: 'db',
  spec: { mode: { type: 'replicated', replicas: 2 } },
})
const job = buildWorkload({
  id: 'job',
  name: 'job',
  spec: { mode: { type: 'replicatedJob', maxConcurrent: 1, totalCompletions: 2 }, jobIteration: 1 },
})
const dbTask = (slot: number, status: Partial<Task['status']>) =>
  buildTask({ id: `db${slot}`, workloadId: 'db', slot, status })
const jobTask = (slot: number, status: Partial<Task['status']>, jobIteration = 1) =>
  buildTask({ id: `job${slot}-${jobIteration}`, workloadId: 'job', slot, jobIteration, status })
const running = { state: 'running', ready: true } as const

describe('the order of first starts', () => {
  const cases: readonly (readonly [string, string, readonly Task[], readonly string[]])[] = [
    ['nothing runs', 'db:started', [], ['it waits for db to be started: 0 of 2']],
    [
      'one of two is healthy, the other only runs',
      'db:healthy',
      [dbTask(1, running), dbTask(2, { state: 'starting', ready: false })],
      ['it waits for db to be healthy: 1 of 2'],
    ],
    [
      'that counts as started',
      'db:started',
      [dbTask(1, running), dbTask(2, { state: 'starting', ready: false })],
      [],
    ],
    ['all are healthy', 'db:healthy', [dbTask(1, running), dbTask(2, running)], []],
    [
      'a task that failed is none, and says why',
      'db:started',
      [dbTask(1, running), dbTask(2, { state: 'failed', ready: false, error: 'no disk' })],
      ['it waits for db to be started: 1 of 2; its last task said: no disk'],
    ],
    [
      'a job is over when all of it is',
      'job:completed',
      [jobTask(0, { state: 'complete' })],
      ['it waits for job to complete: 1 of 2'],
    ],
    [
      'what an earlier run of a job did counts for nothing',
      'job:completed',
      [jobTask(0, { state: 'complete' }, 0), jobTask(1, { state: 'complete' }, 0)],
      ['it waits for job to complete: 0 of 2'],
    ],
    [
      'a job that is over',
      'job:completed',
      [jobTask(0, { state: 'complete' }), jobTask(1, { state: 'complete' })],
      [],
    ],
    ['a job has started with its first task', 'job:started', [jobTask(0, running)], []],
    [
      'all that are named count',
      'db:healthy,job:started',
      [dbTask(1, running), dbTask(2, running)],
      ['it waits for job to be started: 0 of 1'],
    ],
    ['one that is not there', 'nope:started', [], ['it waits for nope, which is not there']],
    ['unless it need not be', 'nope:started?', [], []],
  ]
  for (const [what, label, tasks, sentences] of cases) {
    test(what, () => {
      const seen = observeStartOrder(viewOf([db, job], tasks), waiting(label))
      assert.deepEqual(
        seen?.map(({ because }) => because),
        sentences,
      )
    })
  }

  test('counts for the first start only', () => {
    const own = buildTask({ id: 't', workloadId: 'late', status: { state: 'failed' } })
    assert.deepEqual(observeStartOrder(viewOf([db], [own]), waiting('db:healthy')), [])
    const met = buildWorkload({
      id: 'late',
      name: 'late',
      labels: { [startAfterLabel]: 'db:healthy' },
      status: { isStartOrderMet: true },
    })
    assert.equal(observeStartOrder(viewOf([db], []), met), undefined)
    assert.equal(observeStartOrder(viewOf([db], []), db), undefined)
  })

  test('nothing is decided while something is waited for', () => {
    const workload = waiting('db:healthy')
    const decision = decideWorkload(
      {
        workload,
        revisions: new Map(),
        tasks: [],
        nodes: { get: () => undefined, all: () => [] },
        cluster: undefined,
        endpoints: [],
        hasEndpoint: false,
        startOrder: [{ name: 'db', because: 'it waits for db' }],
      },
      0,
    )
    assert.deepEqual(decision, { actions: [] })
  })

  test('what is no condition is refused', () => {
    for (const label of ['db', 'db:up', 'db:healthy,,', ':healthy', 'db:healthy!']) {
      assert.throws(() => parseStartAfter(label), UserError, label)
    }
  })
})
