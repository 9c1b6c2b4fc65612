import assert from 'node:assert/strict'
import { test } from 'node:test'
import { idFrom } from '../model/index.ts'
import { buildContainer, buildTask, buildTemplate } from '../model/testing.ts'
import type { AssignmentChange, TaskAssignment } from '../wire/index.ts'
import { encodeFrame, FrameReader } from './frames.ts'
import { assignmentsMessage } from './messages.ts'

const template = buildTemplate({ containers: [buildContainer({ env: ['A="},{', 'ü=\u0000'] })] })

function assignment(id: string): TaskAssignment {
  return {
    task: buildTask({ id }),
    template,
    workload: { id: idFrom('w1'), name: 'web', labels: { 'a"b': '\\' } },
    name: `web.1.${id}`,
    engineNetworks: [],
    hostPorts: [],
    endpointPorts: [],
    drainMs: 0,
  }
}

test('assignments say in bytes what their fields say, whatever of them was at hand as text', () => {
  const nothing = { put: [], remove: [] }
  const change = (tasks: AssignmentChange['tasks']): AssignmentChange => ({
    full: false,
    sequence: 7,
    node: {
      id: idFrom('n1'),
      clusterId: 'c1',
      hostname: 'one',
      platform: { architecture: 'x86_64', os: 'linux' },
    },
    tasks,
    secrets: { put: [{ id: idFrom('s1'), name: 's', data: Uint8Array.of(1, 2) }], remove: [] },
    configs: nothing,
    networks: nothing,
    feeds: nothing,
  })
  for (const tasks of [
    nothing,
    { put: [assignment('t1'), assignment('t2')], remove: [idFrom<'task'>('t0')] },
  ]) {
    const message = assignmentsMessage(3, change(tasks))
    const read = new FrameReader(1_000_000).take(Buffer.concat([...encodeFrame(message)]))
    assert.deepEqual(read, [JSON.parse(JSON.stringify(message))])
  }
})
