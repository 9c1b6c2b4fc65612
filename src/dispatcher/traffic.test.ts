import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { buildTask } from '../model/testing.ts'
import { decideTraffic } from './traffic.ts'

const running = {
  state: 'running',
  atMs: 0,
  message: 'started',
  ready: true,
  hostPorts: [],
} as const
const never = () => false
const always = () => true

describe('decideTraffic', () => {
  const cases = [
    {
      name: 'a ready task gets traffic',
      task: buildTask({ status: running }),
      served: true,
      want: 'routable',
    },
    {
      name: 'nobody routes to an unserved task',
      task: buildTask({ status: running }),
      served: false,
      want: 'none',
    },
    {
      name: 'a task that is not ready yet gets none',
      task: buildTask({ status: { ...running, state: 'starting', ready: false } }),
      served: true,
      want: 'none',
    },
    {
      name: 'a task that is to stop leaves the sets first',
      task: buildTask({ status: running, traffic: 'routable', desiredState: 'shutdown' }),
      served: true,
      want: 'draining',
    },
    {
      name: 'an unhealthy task leaves the sets',
      task: buildTask({ status: { ...running, ready: false }, traffic: 'routable' }),
      served: true,
      want: 'draining',
    },
    {
      name: 'a dead task is out at once',
      task: buildTask({
        status: { ...running, state: 'failed', ready: false },
        traffic: 'routable',
      }),
      served: true,
      want: 'none',
    },
  ] as const
  for (const { name, task, served, want } of cases) {
    test(name, () => assert.equal(decideTraffic(task, served, never), want))
  }

  test('a draining task may stop only after every node has acknowledged', () => {
    const task = buildTask({ status: running, traffic: 'draining', desiredState: 'shutdown' })
    assert.equal(decideTraffic(task, true, never), 'draining')
    assert.equal(decideTraffic(task, true, always), 'none')
  })

  test('a task that became healthy while draining gets traffic again', () => {
    assert.equal(
      decideTraffic(buildTask({ status: running, traffic: 'draining' }), true, never),
      'routable',
    )
  })
})
