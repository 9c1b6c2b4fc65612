import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { buildTask } from '../model/testing.ts'
import { inLeaderTime } from './node-time.ts'

describe('times that a node reports', () => {
  const task = buildTask({ createdAtMs: 1_000, state: 'starting', status: { atMs: 2_000 } })
  const running = (atMs: number) => ({
    ...task.status,
    state: 'running' as const,
    message: 'started',
    ready: true,
    atMs,
    readyAtMs: atMs,
  })

  const cases = [
    { name: 'stay as they are when they can be', atMs: 2_500, want: 2_500 },
    { name: 'of a clock that is fast are now', atMs: 3_600_000, want: 3_000 },
    { name: 'of a clock that is slow are those of its last word', atMs: 5, want: 2_000 },
  ]
  for (const { name, atMs, want } of cases) {
    test(name, () => {
      const status = inLeaderTime(task, running(atMs), 3_000)
      assert.deepEqual([status.atMs, status.readyAtMs], [want, want])
    })
  }

  test('do not change when the same is reported again', () => {
    const first = inLeaderTime(task, running(3_600_000), 3_000)
    const again = inLeaderTime({ ...task, status: first }, running(3_600_000), 9_000)
    assert.deepEqual(again, first)
  })

  test('never are before the task was made, be the leader clock set back', () => {
    const status = inLeaderTime({ ...task, createdAtMs: 9_000 }, running(10_000), 3_000)
    assert.equal(status.atMs, 3_000)
  })
})
