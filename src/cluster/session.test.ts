import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, TurnBudget, UserError, WakeUp } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import type { HeldSession } from '../dispatcher/index.ts'
import { idFrom, type NodeDescription, type NodeId } from '../model/index.ts'
import { simulatedDescription } from '../runtime/simulated-runtime.ts'
import type { AssignmentChange, TaskReport } from '../wire/index.ts'
import { MemoryNetwork } from './memory-transport.testing.ts'
import {
  assignmentsAheadMax,
  parseCall,
  protocolVersion,
  reportsPerMessageMax,
  type SessionSettings,
} from './messages.ts'
import { openRemoteLink } from './session-client.ts'
import { type SessionServer, serveSession } from './session-server.ts'
import type { MessageStream } from './transport.ts'

const clock = openRealClock()
const nodeId: NodeId = idFrom('n1')
const description: NodeDescription = {
  ...simulatedDescription('n1'),
  skepVersion: 'test',
  hostSubnets: [],
}
const none = { put: [], remove: [] }

function changeAt(sequence: number): AssignmentChange {
  const node = {
    id: nodeId,
    clusterId: 'c',
    hostname: 'n1',
    platform: { architecture: '', os: '' },
  }
  return {
    full: sequence === 1,
    sequence,
    node,
    tasks: none,
    secrets: { put: [{ id: idFrom('s'), name: 's', data: new Uint8Array([0, 255]) }], remove: [] },
    configs: none,
    networks: none,
    feeds: none,
  }
}

/** The leader's dispatcher as a session sees it: its changes are pushed by the test. */
class FakeDispatcher {
  readonly turns = new TurnBudget(clock)
  sequence = 0
  /** Changes that a session asked for. */
  readonly told = new Set<number>()
  readonly reports: (readonly TaskReport[])[] = []
  readonly acknowledged: number[] = []
  refusal: UserError | undefined
  heardCount = 0
  readonly ends: string[] = []
  readonly #changed = new WakeUp()
  readonly over = new AbortController()

  change(): void {
    this.sequence += 1
    this.#changed.ring()
  }

  heard(): void {
    this.heardCount += 1
  }

  ended(_nodeId: NodeId, end: 'ended' | 'stopping'): void {
    this.ends.push(end)
  }

  async hostStops(): Promise<void> {
    this.ends.push('hostStops')
  }

  async open(): Promise<HeldSession> {
    return {
      over: this.over.signal,
      next: async (signal) => {
        await this.#changed.wait(clock, signal)
        if (signal.aborted) throw new UserError('unavailable', 'over')
        this.told.add(this.sequence)
        return changeAt(this.sequence)
      },
      acknowledge: (sequence) => this.acknowledged.push(sequence),
      report: async (reports) => {
        if (this.refusal) throw this.refusal
        this.reports.push(reports)
      },
      describe: async () => {},
      close: () => {},
    }
  }
}

const settings: SessionSettings = {
  heartbeatMs: 20,
  // Half of it, after which a manager counts as quiet, is longer than what a stall of this process is told apart by.
  silenceMs: 1_000,
  managers: [{ nodeId: idFrom('m1'), address: 'm1' }],
  rootsPem: ['root'],
}

/** A manager on a network in memory: one that leads, or one that knows who does. */
async function openManager(
  network: MemoryNetwork,
  address: string,
  leads: FakeDispatcher | string,
): Promise<{ readonly sessions: SessionServer[]; readonly streams: MessageStream[] }> {
  const sessions: SessionServer[] = []
  const streams: MessageStream[] = []
  const serve = async (stream: MessageStream) => {
    streams.push(stream)
    const { call } = parseCall(await stream.receive())
    if (call.call === 'leader') {
      await stream.send({ type: 'leader', address: typeof leads === 'string' ? leads : address })
      return
    }
    assert.ok(call.call === 'session')
    if (typeof leads === 'string') {
      const managers = [{ nodeId: idFrom<'node'>('m'), address: leads }]
      await stream.send({ type: 'redirect', managers })
      return
    }
    const served = { stream, nodeId, dispatcher: leads, clock, log: silentLog }
    sessions.push(await serveSession({ ...served, settings: () => settings }, call))
  }
  const peer = { type: 'node', nodeId, role: 'worker', publicKeyHash: '' } as const
  await network.transport(peer).listen(address, (stream) => void serve(stream))
  return { sessions, streams }
}

function linkTo(
  network: MemoryNetwork,
  managers: readonly string[],
  closing?: 'restart' | 'hostStops',
) {
  const learned: SessionSettings[] = []
  const words = new Set<string>()
  const link = openRemoteLink({
    transport: network.transport({ type: 'anonymous' }),
    clock,
    random: realRandom,
    log: silentLog,
    skepVersion: 'test',
    managers: () => managers,
    learned: (news) => learned.push(news),
    asked: () => {},
    closing: () => closing,
    heard: ({ address, type }) => words.add(`${address} ${type}`),
  })
  const stop = new AbortController()
  return { learned, words, stop, open: () => link.open(nodeId, description, stop.signal) }
}

function report(id: string): TaskReport {
  return {
    taskId: idFrom(id),
    status: { state: 'running', atMs: 1, message: 'started', ready: true, hostPorts: [] },
  }
}

describe('a session over a network', () => {
  test('carries assignments one way, acknowledgements and reports the other', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    await openManager(network, 'm1', dispatcher)
    const { open, learned, stop } = linkTo(network, ['m1'])
    const session = await open()
    assert.deepEqual(learned, [settings])
    dispatcher.change()
    const first = await session.next(stop.signal)
    assert.deepEqual(first, changeAt(1))
    session.acknowledge(1)
    await session.report([report('t1')])
    assert.deepEqual(dispatcher.reports, [[report('t1')]])
    assert.deepEqual(dispatcher.acknowledged, [1])
    dispatcher.refusal = new UserError('unavailable', 'the disk is full')
    await assert.rejects(session.report([report('t1')]), /the disk is full/)
    session.close()
    await assert.rejects(session.next(stop.signal), { code: 'unavailable' })
  })

  test('says whether a daemon only restarts, or its host goes down', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    const { sessions } = await openManager(network, 'm1', dispatcher)
    for (const because of ['restart', 'hostStops'] as const) {
      const session = await linkTo(network, ['m1'], because).open()
      session.close()
      await sessions.at(-1)?.over
    }
    assert.deepEqual(dispatcher.ends, ['stopping', 'hostStops'])
  })

  test('a node that was called down has no session, also while it has not taken what it was sent', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    const { sessions } = await openManager(network, 'm1', dispatcher)
    await linkTo(network, ['m1']).open()
    const [server] = sessions
    assert.ok(server)
    // It takes nothing: nobody asks its session for what is next.
    for (let number = 1; number <= assignmentsAheadMax; number++) {
      dispatcher.change()
      while (!dispatcher.told.has(number)) await clock.sleep(1)
    }
    const why = new UserError('unavailable', 'it is down')
    dispatcher.over.abort(why)
    await server.over
    assert.ok(server.ended.aborted)
    await assert.rejects(
      server.ask({ type: 'request', id: 'q', address: '', request: { kind: 'examine' } }),
      { code: 'unavailable' },
    )
  })

  test('a node hears whether its manager speaks, and how it ends', async () => {
    const network = new MemoryNetwork()
    const why = new UserError('unavailable', 'over')
    for (const end of [['stopping'], ['quiet', 'silent']] as const) {
      const { sessions } = await openManager(network, 'm1', new FakeDispatcher())
      const { open, stop, words } = linkTo(network, ['m1'])
      const session = await open()
      while (!words.has('m1 speaks')) await clock.sleep(5)
      const next = session.next(stop.signal)
      if (end[0] === 'stopping') sessions[0]?.close(why, true)
      else network.silence('m1')
      await assert.rejects(next)
      assert.deepEqual([...words], ['m1 speaks', ...end.map((word) => `m1 ${word}`)])
    }
  })

  test('finds the next leader while the one before is quiet, and goes to it at once', async () => {
    const network = new MemoryNetwork()
    const next = new FakeDispatcher()
    await openManager(network, 'm1', new FakeDispatcher())
    await openManager(network, 'm2', next)
    const { open, stop, words } = linkTo(network, ['m1', 'm2'])
    const session = await open()
    network.silence('m1')
    await assert.rejects(session.next(stop.signal), /another manager leads the cluster now/)
    assert.ok(!words.has('m1 silent'))
    const connections = network.connectionCount
    const other = await open()
    assert.equal(network.connectionCount, connections + 1, 'it asks that one first')
    next.change()
    assert.equal((await other.next(stop.signal)).sequence, 1)
    other.close()
  })

  test('puts changes together while the node is busy', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    await openManager(network, 'm1', dispatcher)
    const { open, stop } = linkTo(network, ['m1'])
    const session = await open()
    for (let count = 0; count < 50; count++) {
      dispatcher.change()
      await clock.sleep(0)
    }
    const sequences: number[] = []
    while (sequences.at(-1) !== 50) sequences.push((await session.next(stop.signal)).sequence)
    assert.ok(sequences.length <= 4, `${sequences.length} messages`)
    session.close()
  })

  test('sends many reports in bounded messages', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    await openManager(network, 'm1', dispatcher)
    const session = await linkTo(network, ['m1']).open()
    const many = Array.from({ length: 2 * reportsPerMessageMax + 1 }, (_, at) => report(`t${at}`))
    await session.report(many)
    assert.deepEqual(
      dispatcher.reports.map(({ length }) => length),
      [reportsPerMessageMax, reportsPerMessageMax, 1],
    )
    session.close()
  })

  test('finds the leader: where others send it, and beside one that does not answer', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    await openManager(network, 'm1', dispatcher)
    await openManager(network, 'm2', 'm1')
    await openManager(network, 'm3', new FakeDispatcher())
    network.silence('m3')
    const session = await linkTo(network, ['m4', 'm3', 'm2']).open()
    dispatcher.change()
    assert.equal((await session.next(new AbortController().signal)).sequence, 1)
    session.close()
  })

  test('says so where nobody leads', async () => {
    const network = new MemoryNetwork()
    await openManager(network, 'm1', 'm2')
    await openManager(network, 'm2', 'm1')
    await assert.rejects(
      linkTo(network, ['m1', 'm2']).open(),
      /no manager leads the cluster: asked/,
    )
    await assert.rejects(linkTo(network, []).open(), /no manager is known to this node/)
  })

  test('ends when the manager falls silent, and speaks while it does not', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    await openManager(network, 'm1', dispatcher)
    const { open, stop } = linkTo(network, ['m1'])
    const session = await open()
    while (dispatcher.heardCount < 20) await clock.sleep(5)
    const next = session.next(stop.signal)
    network.silence('m1')
    await assert.rejects(next, /fallen silent/)
  })

  test('an ended session tells the manager that the host is there; a broken message ends only it', async () => {
    const network = new MemoryNetwork()
    const dispatcher = new FakeDispatcher()
    const manager = await openManager(network, 'm1', dispatcher)
    const [one, two] = [linkTo(network, ['m1']), linkTo(network, ['m1'])]
    const first = await one.open()
    const second = await two.open()
    first.close()
    await manager.sessions[0]?.over
    assert.deepEqual(dispatcher.ends, ['ended'])
    const broken = await network
      .transport({ type: 'anonymous' })
      .connect('m1', { type: 'cluster' }, one.stop.signal)
    await broken.send({
      type: 'call',
      call: 'session',
      protocol: protocolVersion,
      skepVersion: '',
      description,
      held: {},
    })
    await broken.receive()
    await broken.send({ type: 'report', id: 1, reports: [{ taskId: 't', status: { state: 'x' } }] })
    const answer = JSON.stringify(await broken.receive())
    assert.match(answer, /"over".*is no state of a task/)
    await second.report([report('t1')])
    second.close()
  })
})
