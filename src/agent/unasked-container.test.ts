import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { idFrom } from '../model/index.ts'
import { buildTask, buildTemplate } from '../model/testing.ts'
import { openSimulatedRuntime, simulatedDescription } from '../runtime/simulated-runtime.ts'
import { RecordingDataPlane, seededRandom } from '../sim/one-node.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import type { AssignmentChange, Session, TaskAssignment } from '../wire/index.ts'
import { startAgent } from './agent.ts'

const nodeId = idFrom<'node'>('n1')
const prepareMs = 5_000
const platform = { architecture: '', os: '' }
const node: AssignmentChange['node'] = { id: nodeId, clusterId: 'c1', hostname: 'host-1', platform }

function assignmentOf(id: string): TaskAssignment {
  return {
    task: { ...buildTask({ id, nodeId: 'n1', state: 'assigned' }), traffic: 'none' },
    template: buildTemplate(),
    workload: { id: idFrom('w1'), name: id, labels: {} },
    name: `${id}.1.${id}`,
    engineNetworks: [],
    hostPorts: [],
    endpointPorts: [],
    drainMs: 0,
  }
}

function full(tasks: readonly TaskAssignment[]): AssignmentChange {
  const none = { put: [], remove: [] }
  return {
    full: true,
    sequence: 1,
    node,
    tasks: { put: tasks, remove: [] },
    secrets: none,
    configs: none,
    networks: none,
    feeds: none,
  }
}

/** A session that says once what belongs on the node, and then nothing more. */
function sessionWith(tasks: readonly TaskAssignment[]): Session {
  let isFirst = true
  return {
    next: (signal) => {
      const isWhole = isFirst
      isFirst = false
      return new Promise((resolve, reject) => {
        if (isWhole) resolve(full(tasks))
        else signal.addEventListener('abort', () => reject(new Error('over')))
      })
    },
    acknowledge: () => {},
    report: async () => {},
    describe: async () => {},
    close: () => {},
  }
}

describe('containers that nobody asks for', () => {
  const cases = [
    { name: 'one that a daemon which was killed had asked the engine for', awayMs: 0 },
    { name: 'the same, made while the engine could not be heard', awayMs: 2 * prepareMs },
  ]
  for (const { name, awayMs } of cases) {
    test(`${name} is removed when it comes, and nothing else`, async () => {
      const clock = new VirtualClock()
      const runtime = openSimulatedRuntime({
        clock,
        random: seededRandom(1),
        nodeId,
        description: simulatedDescription('host-1'),
        behave: () => ({ prepareMs }),
      })
      const empty = { node, secrets: new Map(), configs: new Map(), networks: new Map() }
      const materials = { assignments: empty, nameservers: [], engineNetworks: new Map() }
      void runtime.prepare(assignmentOf('gone'), materials, new AbortController().signal)
      let isHeard = true
      let resync = () => {}
      const watch = runtime.watch.bind(runtime)
      runtime.watch = (onEvent, signal) => {
        resync = () => onEvent({ type: 'resync' })
        watch((event) => {
          if (isHeard) onEvent(event)
        }, signal)
      }
      const agent = startAgent({
        nodeId,
        runtime,
        dataPlane: new RecordingDataPlane(),
        link: { open: async () => sessionWith([assignmentOf('asked')]) },
        clock,
        log: silentLog,
        describeHost: async () => ({ skepVersion: 'test', hostSubnets: [] }),
      })
      await clock.advance(1_000)
      isHeard = awayMs === 0
      await clock.advance(prepareMs + awayMs)
      isHeard = true
      if (awayMs > 0) resync()
      await clock.advance(1_000)
      assert.deepEqual(runtime.knownTasks(), ['asked'])
      await agent.close()
    })
  }
})
