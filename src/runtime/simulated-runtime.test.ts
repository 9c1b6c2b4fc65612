import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Clock } from '../base/index.ts'
import { idFrom } from '../model/index.ts'
import {
  buildAssignment,
  buildMaterials,
  type ContractBehaviour,
  collectEvents,
  describeRuntimeContract,
  ended,
} from './contract.ts'
import {
  openSimulatedRuntime,
  type SimulatedBehaviour,
  simulatedDescription,
} from './simulated-runtime.ts'

/** Time that jumps to the next timer as soon as nothing else is to be done. */
function openJumpingClock(): Clock {
  let nowMs = 1_700_000_000_000
  let timers: { atMs: number; wake: () => void }[] = []
  let scheduled = false
  const jump = (): void => {
    scheduled = false
    timers.sort((a, b) => a.atMs - b.atMs)
    const [first] = timers
    if (!first) return
    timers = timers.slice(1)
    nowMs = Math.max(nowMs, first.atMs)
    first.wake()
    schedule()
  }
  const schedule = (): void => {
    if (scheduled || timers.length === 0) return
    scheduled = true
    setImmediate(() => setImmediate(jump))
  }
  return {
    nowMs: () => nowMs,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve()
        const timer = { atMs: nowMs + ms, wake: resolve }
        timers.push(timer)
        signal?.addEventListener(
          'abort',
          () => {
            timers = timers.filter((other) => other !== timer)
            resolve()
          },
          { once: true },
        )
        schedule()
      }),
  }
}

function open(
  clock: Clock,
  behave?: (image: string, nth: number) => SimulatedBehaviour,
): ReturnType<typeof openSimulatedRuntime> {
  return openSimulatedRuntime({
    clock,
    random: { below: () => 7 },
    nodeId: idFrom<'node'>('n1'),
    description: simulatedDescription('host-1'),
    ...(behave && {
      behave: (assignment, nth) => behave(assignment.template.containers[0]?.image ?? '', nth),
    }),
  })
}

const behaviours: Record<ContractBehaviour, SimulatedBehaviour> = {
  runs: { startMs: 5 },
  'exits with 3': { exits: { afterMs: 10, code: 3 } },
  'writes "hello" to stdout and ends with 0': {
    output: ['hello\n'],
    exits: { afterMs: 10, code: 0 },
  },
  'ignores its stop signal': { stopMs: 60_000 },
  'has no image': { prepareMs: 10, pullFails: 'the registry is not there' },
  'cannot start': { startFails: 'no such file or directory' },
  'is healthy': { health: { healthyAfterMs: 0 } },
  'is not healthy': { health: { healthyAfterMs: 1e9 } },
}

describeRuntimeContract('the simulated runtime', async () => ({
  runtime: open(
    openJumpingClock(),
    (image) => Object.entries(behaviours).find(([key]) => key === image)?.[1] ?? {},
  ),
  materials: buildMaterials({ clusterId: 'c1' }),
  container: (behaviour) => ({ image: behaviour }),
  close: async () => {},
}))

describe('the simulated runtime', () => {
  const materials = buildMaterials({ clusterId: 'c1' })
  const { signal } = new AbortController()

  test('an engine that is away answers nothing, and asks for a new look when it is back', async () => {
    const runtime = open(openJumpingClock())
    const events = collectEvents(runtime, signal)
    await events.until(({ type }) => type === 'resync')
    const assignment = buildAssignment()
    await runtime.prepare(assignment, materials, signal)
    await runtime.start(assignment.task.id, signal)
    runtime.setReachable(false)
    await events.until(({ type }) => type === 'unreachable')
    await assert.rejects(runtime.list(), { code: 'unavailable' })
    runtime.kill(assignment.task.id, 9)
    runtime.setReachable(true)
    assert.equal((await runtime.inspect(assignment.task.id))?.exitCode, 9)
  })

  test('after a reboot the containers are there and have ended', async () => {
    const runtime = open(openJumpingClock())
    const assignment = buildAssignment()
    await runtime.prepare(assignment, materials, signal)
    await runtime.start(assignment.task.id, signal)
    assert.equal(runtime.runningCount(), 1)
    runtime.reboot()
    assert.equal(runtime.runningCount(), 0)
    assert.equal((await runtime.list())[0]?.state, 'exited')
  })

  test('a container that turns unhealthy says so', async () => {
    const health = { healthyAfterMs: 100, unhealthyAfterMs: 5000 }
    const runtime = open(openJumpingClock(), () => ({ health }))
    const events = collectEvents(runtime, signal)
    const assignment = buildAssignment()
    await runtime.prepare(assignment, materials, signal)
    await runtime.start(assignment.task.id, signal)
    for (const action of ['health_status: healthy', 'health_status: unhealthy']) {
      await events.until((event) => event.type === 'changed' && event.action === action)
    }
    assert.equal((await runtime.probe(assignment.task.id, undefined, signal))?.healthy, false)
  })

  test('one removed behind our back is gone', async () => {
    const runtime = open(openJumpingClock(), () => ({ exits: { afterMs: 50, code: 1 } }))
    const assignment = buildAssignment()
    await runtime.prepare(assignment, materials, signal)
    await runtime.start(assignment.task.id, signal)
    assert.equal((await ended(runtime, assignment.task.id)).exitCode, 1)
    runtime.lose(assignment.task.id)
    assert.deepEqual(await runtime.list(), [])
  })
})
