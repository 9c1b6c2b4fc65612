import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { TaskState } from '../model/index.ts'
import { buildAssignment } from '../runtime/contract.ts'
import { decideLocalRestart } from './local-restart.ts'

const restart = { scope: 'task', delayMs: 0, maxAttempts: 0, windowMs: 0 } as const

function decide(
  condition: 'none' | 'onFailure' | 'any',
  state: TaskState,
  more: { restarts?: number; maxAttempts?: number; desiredState?: 'running' | 'complete' } = {},
): number | undefined {
  const { restarts = 0, maxAttempts = 0, desiredState = 'running' } = more
  const assignment = buildAssignment({
    template: { restart: { ...restart, condition, maxAttempts } },
    task: { desiredState },
  })
  const ended = { state, atMs: 0, message: '', ready: false, hostPorts: [] }
  return decideLocalRestart(assignment, ended, restarts)?.delayMs
}

describe('decideLocalRestart', () => {
  test('follows the restart policy', () => {
    assert.equal(decide('any', 'failed'), 0)
    assert.equal(decide('any', 'complete'), 0)
    assert.equal(decide('onFailure', 'failed'), 0)
    assert.equal(decide('onFailure', 'complete'), undefined)
    assert.equal(decide('none', 'failed'), undefined)
    assert.equal(decide('any', 'failed', { maxAttempts: 2, restarts: 1 }), 1_000)
    assert.equal(decide('any', 'failed', { maxAttempts: 2, restarts: 2 }), undefined)
  })

  test('leaves jobs and what was stopped to the managers', () => {
    assert.equal(decide('any', 'failed', { desiredState: 'complete' }), undefined)
    assert.equal(decide('any', 'shutdown'), undefined)
    assert.equal(decide('any', 'rejected'), undefined)
  })

  test('waits longer each time, up to a minute', () => {
    const delays = [1, 2, 3, 20].map((restarts) => decide('any', 'failed', { restarts }))
    assert.deepEqual(delays, [1_000, 2_000, 4_000, 60_000])
  })
})
