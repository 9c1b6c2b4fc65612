import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom, type WorkloadMode } from '../model/index.ts'
import {
  buildContainer,
  buildNode,
  buildRevision,
  buildTask,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { MemoryView } from '../store/memory-view.ts'
import { observeDrain } from './drain.ts'

/** Two nodes and one workload with a task on the first. */
function viewOf(over: {
  readonly mode?: WorkloadMode
  readonly template?: Parameters<typeof buildTemplate>[0]
  readonly other?: Parameters<typeof buildNode>[0]
  readonly first?: Parameters<typeof buildNode>[0]
  readonly tasks?: readonly Parameters<typeof buildTask>[0][]
}): MemoryView {
  const view = new MemoryView()
  view.put(buildNode({ id: 'n1', ...over.first }))
  view.put(buildNode({ id: 'n2', ...over.other }))
  view.put(buildWorkload(over.mode ? { spec: { mode: over.mode } } : {}))
  view.put(buildRevision({ template: buildTemplate(over.template) }))
  for (const task of over.tasks ?? [{}]) view.put(buildTask({ nodeId: 'n1', ...task }))
  return view
}

const brief = (view: MemoryView) =>
  observeDrain(view, idFrom('n1'), 5000).map(({ how, because }) => `${how}: ${because}`)

const volume = buildContainer({
  mounts: [
    {
      type: 'volume',
      source: 'data',
      target: '/data',
      readOnly: false,
      volume: { noCopy: false, labels: {} },
    },
  ],
})
const reserved = { nanoCpus: 3e9, memoryBytes: 0, generic: [] }

describe('what a drain makes of a task', () => {
  const cases = [
    { name: 'it moves', over: {}, want: ['move: its successor serves before it stops'] },
    {
      name: 'with a volume it stops first',
      over: { template: { containers: [volume] } },
      want: ['moveStopFirst: two tasks must not write to the same volume or folder'],
    },
    {
      name: "a job's stops first",
      over: { mode: { type: 'replicatedJob' as const, maxConcurrent: 1, totalCompletions: 1 } },
      want: ['moveStopFirst: a job must not run twice'],
    },
    {
      name: 'a global one stops',
      over: { mode: { type: 'global' as const } },
      want: ['stop: it runs once on each node'],
    },
    {
      name: 'nobody else is there',
      over: { other: { state: 'down' as const } },
      want: ['strand: no other node may run it'],
    },
    {
      name: 'the other node is too small for both of them',
      over: {
        template: { reservations: reserved },
        tasks: [{ id: 't1' }, { id: 't2', slot: 2 }],
      },
      want: ['move: its successor serves before it stops', 'strand: no other node has room for it'],
    },
    {
      name: 'one that has ended is not there any more',
      over: { tasks: [{ status: { state: 'failed' as const } }] },
      want: [],
    },
    {
      name: 'on the way it says what it waits for',
      over: {
        first: { availability: 'drain' as const, hostname: 'host-1' },
        tasks: [{ id: 't1' }, { id: 't2', nodeId: 'n2', status: { state: 'starting' as const } }],
      },
      want: [
        'move: node host-1 is drained; it serves until its successor does: web.1 (task t2): starting. It is stopped in 9.9 min even so.',
      ],
    },
  ]
  for (const { name, over, want } of cases)
    test(name, () => assert.deepEqual(brief(viewOf(over)), want))
})
