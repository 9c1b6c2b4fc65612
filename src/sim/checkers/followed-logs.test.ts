import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { idFrom, type TaskId } from '../../model/index.ts'
import { buildNode, buildRevision, buildTask, buildWorkload } from '../../model/testing.ts'
import { MemoryView } from '../../store/memory-view.ts'
import { FollowedLogs } from './followed-logs.ts'
import { lineOf } from './logs.ts'

const taskId: TaskId = idFrom('t1')
const details = `com.docker.swarm.node.id=n1,com.docker.swarm.task.id=${taskId}`
const lines = [1, 2, 3].map((nth) => lineOf(taskId, nth))
const written = () => [lines]
const warning = (why: string): string => `${details} warning: incomplete log stream: ${why}\n`

let view: MemoryView
let logs: FollowedLogs
beforeEach(() => {
  view = new MemoryView()
  view.put(buildNode({ id: 'n1', hostname: 'h1' }))
  view.put(buildWorkload({ id: 'w1', name: 'web', spec: { revisionId: idFrom('r1') } }))
  view.put(buildRevision({ id: 'r1', workloadId: 'w1' }))
  view.put(buildTask({ id: taskId, workloadId: 'w1', nodeId: 'n1' }))
  logs = new FollowedLogs('web', written)
})

const hear = (...texts: readonly string[]): readonly (string | undefined)[] =>
  texts.map((text) => logs.heard(`${details} ${text}`))

describe('the checker of logs that are followed', () => {
  test('takes each line once and in order, with a warning between', () => {
    const [first = '', ...rest] = lines
    assert.deepEqual(hear(first), [undefined])
    assert.equal(logs.heard(warning('node h1 is not available')), undefined)
    assert.deepEqual(hear(...rest), [undefined, undefined])
    assert.equal(logs.missing(view, written), undefined)
  })

  test('finds a line that comes twice, and one that is left out', () => {
    const [first = '', , third = ''] = lines
    assert.match(hear(first, first)[1] ?? '', /came after line 1 of container 1/)
    assert.match(hear(third)[0] ?? '', /"line 3 of .* came after line 1/)
  })

  test('takes up a container that was made anew, from its beginning', () => {
    logs = new FollowedLogs('web', () => [lines.slice(0, 2), lines])
    const [first = '', , third = ''] = lines
    assert.match([...hear(first), logs.missing(view, () => [[], lines])].at(-1) ?? '', /1 of the 3/)
    assert.deepEqual(hear(...lines), [undefined, undefined, undefined])
    assert.equal(
      logs.missing(view, () => [[], lines]),
      undefined,
    )
    assert.match(hear(third)[0] ?? '', /came after line 3 of container 2/)
  })

  test('finds lines that do not come though the node is there', () => {
    hear(...lines.slice(0, 2))
    assert.match(
      logs.missing(view, written) ?? '',
      /2 of the 3 lines .* on h1 .* without a warning/,
    )
    logs.heard(warning('node h1 is not available'))
    assert.match(logs.missing(view, written) ?? '', /2 of the 3 lines/)
    logs.heard(warning('node h1: its log is gone'))
    assert.equal(logs.missing(view, written), undefined)
  })

  test('finds logs that go on after the service, and that end before it', () => {
    assert.match(logs.goesOn(view) ?? '', /it ended, and web goes on/)
    view.delete('workload', idFrom('w1'))
    assert.equal(logs.goesOn(view), undefined)
    assert.match(logs.missing(view, written) ?? '', /web was removed/)
  })
})
