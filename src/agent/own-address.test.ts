import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '../base/index.ts'
import { idFrom } from '../model/index.ts'
import { openSimulatedRuntime, simulatedDescription } from '../runtime/simulated-runtime.ts'
import { RecordingDataPlane, seededRandom } from '../sim/one-node.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import { startAgent } from './agent.ts'

test('an address that came while a session was being opened is told in it', async () => {
  const clock = new VirtualClock()
  const nodeId = idFrom<'node'>('n1')
  // The one of before has gone, and the next one is not there yet.
  let address = '192.0.2.1'
  const told: unknown[] = []
  const agent = startAgent({
    nodeId,
    runtime: openSimulatedRuntime({
      clock,
      random: seededRandom(1),
      nodeId,
      description: simulatedDescription('host-1'),
      behave: () => ({}),
    }),
    dataPlane: new RecordingDataPlane(),
    link: {
      open: async (_id, description) => {
        told.push(description.address)
        address = '192.0.2.2'
        return {
          next: (signal) =>
            new Promise((_resolve, reject) => {
              signal.addEventListener('abort', () => reject(new Error('over')))
            }),
          acknowledge: () => {},
          report: async () => {},
          describe: async (later) => {
            told.push(later.address)
          },
          close: () => {},
        }
      },
    },
    clock,
    log: silentLog,
    describeHost: async () => ({ skepVersion: 'test', hostSubnets: [], address }),
  })
  await clock.advance(1_000)
  assert.deepEqual(told, ['192.0.2.1', '192.0.2.2'])
  await agent.close()
})
