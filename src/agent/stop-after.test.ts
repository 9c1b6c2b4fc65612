import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, UserError } from '../base/index.ts'
import { idFrom, type TaskStatus } from '../model/index.ts'
import { buildTask, buildTemplate } from '../model/testing.ts'
import { openSimulatedRuntime, simulatedDescription } from '../runtime/simulated-runtime.ts'
import { RecordingDataPlane, seededRandom } from '../sim/one-node.ts'
import { VirtualClock } from '../sim/virtual-clock.ts'
import type { Assignments, ManagerLink, TaskAssignment } from '../wire/index.ts'
import { startAgent } from './agent.ts'
import type { JournalEntry } from './journal.ts'
import { decideStopAfter } from './stop-after.ts'

describe('the time without a manager', () => {
  const cases = [
    { limit: undefined, isInReach: false, nowMs: 1e9, want: { isOver: false } },
    { limit: 5000, isInReach: true, nowMs: 1e9, want: { isOver: false } },
    { limit: 5000, isInReach: false, nowMs: 5999, want: { atMs: 6000, isOver: false } },
    { limit: 5000, isInReach: false, nowMs: 6000, want: { atMs: 6000, isOver: true } },
  ]
  for (const { limit, isInReach, nowMs, want } of cases)
    test(`limit ${limit}, in reach ${isInReach}, at ${nowMs}`, () =>
      assert.deepEqual(decideStopAfter(limit, { heardAtMs: 1000, isInReach }, nowMs), want))
})

const nodeId = idFrom<'node'>('n1')
const limitMs = 300_000

function assignmentOf(id: string, stopAfterMs?: number): TaskAssignment {
  const status: TaskStatus = {
    state: 'assigned',
    atMs: 0,
    message: '',
    ready: false,
    hostPorts: [],
  }
  return {
    task: { ...buildTask({ id, nodeId: 'n1' }), status, traffic: 'none' },
    template: buildTemplate(),
    workload: { id: idFrom('w1'), name: id, labels: {} },
    name: `${id}.1.${id}`,
    engineNetworks: [],
    hostPorts: [],
    endpointPorts: [],
    drainMs: 0,
    ...(stopAfterMs === undefined ? {} : { stopAfterMs }),
  }
}

/** One agent with a single task that must not run twice and one that may, and a manager that can be cut off. */
class Lonely {
  readonly clock = new VirtualClock()
  readonly runtime = openSimulatedRuntime({
    clock: this.clock,
    random: seededRandom(1),
    nodeId,
    description: simulatedDescription('host-1'),
    behave: () => ({}),
  })
  isCut = false
  journaled: JournalEntry | undefined
  reports = new Map<string, TaskStatus>()
  #cut = new AbortController()
  #agent: ReturnType<typeof startAgent> | undefined

  start(): void {
    const tasks = [assignmentOf('single', limitMs), assignmentOf('many')]
    const link: ManagerLink = {
      open: async () => {
        if (this.isCut) throw new UserError('unavailable', 'no manager answers')
        let isFirst = true
        const cut = this.#cut.signal
        return {
          next: (signal) =>
            new Promise((resolve, reject) => {
              const end = () => reject(new UserError('unavailable', 'the session is over'))
              if (cut.aborted || signal.aborted) end()
              else if (isFirst) resolve(full(tasks))
              else for (const one of [cut, signal]) one.addEventListener('abort', end)
              isFirst = false
            }),
          acknowledge: () => {},
          report: async (reports) => {
            for (const { taskId, status } of reports) this.reports.set(taskId, status)
          },
          describe: async () => {},
          close: () => {},
        }
      },
    }
    this.#agent = startAgent({
      nodeId,
      runtime: this.runtime,
      dataPlane: new RecordingDataPlane(),
      link,
      clock: this.clock,
      log: silentLog,
      describeHost: async () => ({ skepVersion: 'test', hostSubnets: [] }),
      journal: {
        read: async () => this.journaled,
        write: async (entry) => {
          this.journaled = entry
        },
        addEnds: async () => {},
      },
    })
  }

  async stop(): Promise<void> {
    await this.#agent?.close()
  }

  cut(): void {
    this.isCut = true
    this.#cut.abort()
  }

  heal(): void {
    this.isCut = false
    this.#cut = new AbortController()
  }

  async running(): Promise<string[]> {
    const containers = await this.runtime.list()
    return containers.filter(({ state }) => state === 'running').map(({ taskId }) => taskId)
  }
}

function full(tasks: readonly TaskAssignment[]) {
  const none = { put: [], remove: [] }
  const platform = { architecture: '', os: '' }
  const node: Assignments['node'] = { id: nodeId, clusterId: 'c1', hostname: 'host-1', platform }
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

describe('a node without a manager', () => {
  test('stops what must not run twice when its time is over, and nothing else', async () => {
    const lonely = new Lonely()
    lonely.start()
    await lonely.clock.advance(60_000)
    assert.deepEqual((await lonely.running()).sort(), ['many', 'single'])
    lonely.cut()
    await lonely.clock.advance(limitMs - 2_000)
    assert.deepEqual((await lonely.running()).sort(), ['many', 'single'])
    await lonely.clock.advance(4_000)
    assert.deepEqual(await lonely.running(), ['many'])
    lonely.heal()
    await lonely.clock.advance(10_000)
    const status = lonely.reports.get('single')
    assert.equal(status?.state, 'shutdown')
    assert.match(status?.error ?? '', /no manager in reach for 300 s \(skep\.failure=stop-after\)/)
    await lonely.stop()
  })

  test('is heard again in time: nothing stops', async () => {
    const lonely = new Lonely()
    lonely.start()
    await lonely.clock.advance(60_000)
    lonely.cut()
    await lonely.clock.advance(limitMs - 10_000)
    lonely.heal()
    await lonely.clock.advance(10_000)
    lonely.cut()
    await lonely.clock.advance(limitMs - 10_000)
    assert.deepEqual((await lonely.running()).sort(), ['many', 'single'])
    await lonely.stop()
  })

  test('goes on counting when its agent is restarted meanwhile', async () => {
    const lonely = new Lonely()
    lonely.start()
    await lonely.clock.advance(600_000)
    lonely.cut()
    await lonely.clock.advance(limitMs - 30_000)
    await lonely.stop()
    lonely.start()
    await lonely.clock.advance(5_000)
    assert.deepEqual((await lonely.running()).sort(), ['many', 'single'])
    await lonely.clock.advance(30_000)
    assert.deepEqual(await lonely.running(), ['many'])
    await lonely.stop()
  })
})
