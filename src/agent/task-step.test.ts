import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { buildTask, buildTemplate } from '../model/testing.ts'
import type { ObservedContainer } from '../runtime/runtime.ts'
import type { TaskAssignment } from '../wire/index.ts'
import { decideStep, type Step } from './task-step.ts'

function assignmentOf(task = buildTask()): TaskAssignment {
  return {
    task,
    template: buildTemplate(),
    workload: { id: task.workloadId, name: 'web', labels: {} },
    name: `web.1.${task.id}`,
    engineNetworks: [],
    hostPorts: [],
    endpointPorts: [],
    drainMs: 0,
  }
}

function container(over: Partial<ObservedContainer> = {}): ObservedContainer {
  return {
    taskId: buildTask().id,
    containerId: 'c1',
    state: 'running',
    pid: 42,
    exitCode: 0,
    oomKilled: false,
    error: '',
    health: 'none',
    healthOutput: '',
    startedAtMs: 1,
    finishedAtMs: undefined,
    hostPorts: [],
    ...over,
  }
}

const stepOf = (task: ReturnType<typeof buildTask>, observed?: ObservedContainer): Step =>
  decideStep(assignmentOf(task), task.status, observed, 1000)

/** What a step leads to, in one word. */
function shortOf(step: Step): string {
  if (step.type === 'become') return step.status.state
  return step.type === 'stop' ? `stop, then ${step.outcome}` : step.type
}

describe('decideStep', () => {
  const held = (state: 'preparing' | 'ready') => buildTask({ state, desiredState: 'ready' })
  const cases = [
    {
      name: 'an assigned task is accepted',
      step: stepOf(buildTask({ state: 'assigned' })),
      want: 'accepted',
    },
    { name: 'preparing makes the container', step: stepOf(held('preparing')), want: 'prepare' },
    {
      name: 'a held task waits when it is prepared',
      step: stepOf(held('ready'), container({ state: 'created' })),
      want: 'wait',
    },
    {
      name: 'a wanted one goes on',
      step: stepOf(buildTask({ state: 'ready' }), container({ state: 'created' })),
      want: 'starting',
    },
    {
      name: 'starting starts it',
      step: stepOf(buildTask({ state: 'starting' }), container({ state: 'created' })),
      want: 'start',
    },
    {
      name: 'without a check it runs',
      step: stepOf(buildTask({ state: 'starting' }), container()),
      want: 'running',
    },
    {
      name: 'with a check it is probed first',
      step: stepOf(buildTask({ state: 'starting' }), container({ health: 'starting' })),
      want: 'probe',
    },
    {
      name: 'a running container is adopted though its start was never stored',
      step: stepOf(buildTask({ state: 'starting' }), container({ health: 'healthy' })),
      want: 'running',
    },
    {
      name: 'exit 0 completes',
      step: stepOf(buildTask(), container({ state: 'exited', pid: 0 })),
      want: 'complete',
    },
    {
      name: 'another exit fails',
      step: stepOf(buildTask(), container({ state: 'exited', exitCode: 3 })),
      want: 'failed',
    },
    { name: 'a vanished container fails', step: stepOf(buildTask()), want: 'failed' },
    {
      name: 'a task in traffic is not stopped',
      step: stepOf(buildTask({ desiredState: 'shutdown', traffic: 'draining' }), container()),
      want: 'wait',
    },
    {
      name: 'a drained one is',
      step: stepOf(buildTask({ desiredState: 'shutdown' }), container()),
      want: 'stop, then shutdown',
    },
    {
      name: 'nothing is left to stop',
      step: stepOf(buildTask({ desiredState: 'remove', state: 'assigned' })),
      want: 'shutdown',
    },
    {
      name: 'a task that has ended is left alone',
      step: stepOf(buildTask({ state: 'failed' }), container({ state: 'exited' })),
      want: 'wait',
    },
    {
      name: 'but for a container of its that runs all the same',
      step: stepOf(buildTask({ state: 'failed' }), container()),
      want: 'endAgain',
    },
  ]
  for (const { name, step, want } of cases) test(name, () => assert.equal(shortOf(step), want))

  test('an unhealthy task leaves traffic before it is stopped', () => {
    const sick = container({ health: 'unhealthy', healthOutput: 'connection refused\n' })
    const routed = buildTask({ traffic: 'routable' })
    const first = stepOf(routed, sick)
    assert.ok(first.type === 'become' && first.status.state === 'running' && !first.status.ready)
    const unready = { ...routed, status: first.status }
    assert.equal(shortOf(stepOf(unready, sick)), 'wait')
    const out = stepOf({ ...unready, traffic: 'none' }, sick)
    assert.equal(shortOf(out), 'stop, then failed')
    assert.match(
      out.type === 'stop' ? (out.error ?? '') : '',
      /unhealthy container \(last probe: connection refused\)/,
    )
  })

  test('an unhealthy task is stopped only once its traffic was decided on that', () => {
    const sick = container({ health: 'unhealthy' })
    const known = assignmentOf(buildTask({ traffic: 'none' }))
    const served = { ...known, endpointPorts: [{ protocol: 'tcp', port: 80 }] } as const
    const first = decideStep(served, known.task.status, sick, 1000)
    assert.ok(first.type === 'become' && !first.status.ready)
    // The report of its readiness may be on its way still, and make it routable.
    assert.equal(shortOf(decideStep(served, first.status, sick, 1000)), 'wait')
    const told = { ...served, task: { ...known.task, status: first.status } }
    assert.equal(shortOf(decideStep(told, first.status, sick, 1000)), 'stop, then failed')
    // Well, and sick again: what was told of the first time says nothing of the second.
    const well = decideStep(told, first.status, container({ health: 'healthy' }), 1000)
    assert.ok(well.type === 'become' && well.status.ready)
    const again = decideStep(told, well.status, sick, 1000)
    assert.ok(again.type === 'become' && !again.status.ready)
    assert.equal(shortOf(decideStep(told, again.status, sick, 1000)), 'wait')
    assert.equal(
      shortOf(decideStep(known, first.status, sick, 1000)),
      'stop, then failed',
      'nobody can be sent to it',
    )
  })

  test('a task that was started again in place becomes ready again, whoever saw its start', () => {
    const again = buildTask({ status: { state: 'running', ready: false } })
    const step = stepOf(again, container())
    assert.ok(step.type === 'become' && step.status.ready)
    assert.equal(stepOf(again, container({ health: 'starting' })).type, 'probe')
    assert.equal(shortOf(stepOf(again, container({ health: 'healthy' }))), 'running')
  })

  test('what was seen as it started is said of a task that runs', () => {
    const task = buildTask({ state: 'starting' })
    const remark = 'nothing listens on port 80/tcp'
    const step = decideStep(assignmentOf(task), task.status, container(), 1000, { remark })
    assert(step.type === 'become')
    assert.equal(step.status.message, `started; ${remark}`)
  })

  test('an exit says why: memory, or the engine’s own words', () => {
    const oom = stepOf(buildTask(), container({ state: 'exited', exitCode: 137, oomKilled: true }))
    assert.match(
      oom.type === 'become' ? (oom.status.error ?? '') : '',
      /^task: non-zero exit \(137\): killed: out of memory/,
    )
  })
})
