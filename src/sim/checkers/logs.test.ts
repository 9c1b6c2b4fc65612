import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { idFrom, type NodeId, type TaskId } from '../../model/index.ts'
import { buildTask, buildWorkload } from '../../model/testing.ts'
import { MemoryView } from '../../store/memory-view.ts'
import type { LogSource } from '../../wire/index.ts'
import { outputOf, writtenBy, wrongWithLogs } from './logs.ts'

const nodeId: NodeId = idFrom('n1'.padEnd(25, '0'))
const ids: readonly TaskId[] = [idFrom('t1'.padEnd(25, '0')), idFrom('t2'.padEnd(25, '0'))]
const whole = ids.flatMap(outputOf).join('')
const [first = ''] = ids.map((id) => outputOf(id).join(''))

let view: MemoryView
let containers: Set<TaskId>
const engine: LogSource = {
  async *logs(taskId) {
    if (!containers.has(taskId)) return
    for (const text of outputOf(taskId)) {
      yield {
        taskId,
        nodeId,
        stream: 'stdout',
        timestamp: '2026-01-01T00:00:00.000000000Z',
        details: {},
        data: Buffer.from(text),
      }
    }
  },
}
const machines = { hosts: [{ name: 'h1', nodeId, engine }] }

/** What is wrong with logs of which `answer` is the text, and while which `happens`. */
async function judge(answer: string, happens = (): void => {}): Promise<string | undefined> {
  const before = await writtenBy(machines, view, 'web')
  happens()
  return wrongWithLogs(view, before, answer)
}

describe('the checker of logs', () => {
  beforeEach(() => {
    view = new MemoryView()
    containers = new Set(ids)
    view.put(buildWorkload({ id: 'w1', name: 'web' }))
    for (const id of ids)
      view.put(buildTask({ id, workloadId: 'w1', nodeId, status: { state: 'running' } }))
  })

  test('takes whole logs of all tasks, in whichever order the tasks come', async () => {
    assert.equal(await judge(whole), undefined)
    assert.equal(await judge(ids.toReversed().flatMap(outputOf).join('')), undefined)
  })

  test('finds lines that are missing, doubled or out of order', async () => {
    assert.match((await judge(first)) ?? '', /t20+ on h1 had written 3 lines, and its logs told 0/)
    assert.match((await judge(`${first}${whole}`)) ?? '', /told 6 of them/)
    const lines = ids.flatMap(outputOf)
    assert.match((await judge(lines.toReversed().join(''))) ?? '', /told 3 of them/)
  })

  test('takes less where the node that is missing is told, by its name or its id', async () => {
    for (const name of ['h1', nodeId]) {
      const warning = `warning: incomplete log stream. reasons: node ${name} is not available`
      assert.equal(await judge(first + warning), undefined)
    }
    const other = 'warning: incomplete log stream. reasons: node h10 is not available'
    assert.match((await judge(first + other)) ?? '', /had written 3 lines/)
  })

  test('takes less of a task whose container was removed, or that was forgotten, meanwhile', async () => {
    const [, gone] = ids
    assert.ok(gone)
    assert.equal(await judge(first, () => view.delete('task', gone)), undefined)
    view.put(buildTask({ id: gone, workloadId: 'w1', nodeId, status: { state: 'running' } }))
    assert.equal(await judge(first, () => containers.delete(gone)), undefined)
  })
})
