import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Agent, type Journal, type JournalEntry, startAgent } from '../agent/index.ts'
import { silentLog, UserError } from '../base/index.ts'
import { startManager } from '../manager/index.ts'
import type { ManagerLink } from '../wire/index.ts'
import { OneNode, published } from './one-node.ts'

/** Keeps one entry, as a disk would. */
class MemoryJournal implements Journal {
  entry: JournalEntry | undefined
  /** The daemon is killed before it writes again. */
  isLastWrite = false
  async read(): Promise<JournalEntry | undefined> {
    return this.entry
  }
  async write(entry: JournalEntry): Promise<void> {
    if (!this.isLastWrite) this.entry = entry
  }
  async addEnds(ends: JournalEntry['statuses']): Promise<void> {
    if (this.entry)
      this.entry = { ...this.entry, statuses: new Map([...this.entry.statuses, ...ends]) }
  }
}

/** A node whose way to the manager can be cut. */
class CutNode extends OneNode {
  readonly journal = new MemoryJournal()
  isCut = false
  /** The agent's clock, of the others'. */
  aheadMs = 0
  /** Sessions are begun once this resolves. */
  opens: Promise<void> = Promise.resolve()
  #cut = new AbortController()

  override async startLoops(): Promise<void> {
    await super.startLoops()
    await this.agent.close()
    this.agent = this.begin()
    await this.clock.advance(0)
  }

  begin(): Agent {
    const link: ManagerLink = {
      open: async (nodeId, description, signal) => {
        await this.opens
        if (this.isCut) throw new UserError('unavailable', 'no way to the manager')
        const ended = AbortSignal.any([signal, this.#cut.signal])
        return this.manager.link.open(nodeId, description, ended)
      },
    }
    return startAgent({
      nodeId: this.nodeId,
      runtime: this.runtime,
      dataPlane: this.dataPlane,
      link,
      clock: {
        nowMs: () => this.clock.nowMs() + this.aheadMs,
        sleep: (ms, signal) => this.clock.sleep(ms, signal),
      },
      log: silentLog,
      journal: this.journal,
      describeHost: async () => ({ skepVersion: 'test', hostSubnets: [] }),
    })
  }

  /** The manager ends; nobody watches the node meanwhile. */
  async loseManager(): Promise<void> {
    this.isCut = true
    this.#cut.abort()
    this.#cut = new AbortController()
    await this.manager.close()
  }

  async regainManager(): Promise<void> {
    const { store, clock, random } = this
    const epoch = await store.advanceEpoch()
    const unseal = () => new Uint8Array()
    this.manager = startManager({ store, epoch, unseal, clock, random, log: silentLog })
    this.isCut = false
  }
}

describe('a node with no manager in reach', () => {
  test('starts a task again that ends, and the managers take it as it is when they are back', async () => {
    const sim = new CutNode(1)
    await sim.start()
    const web = await sim.create('web', 2)
    await sim.clock.advance(2_000)
    const [victim] = sim.running(web)
    assert.ok(victim)
    await sim.loseManager()
    await sim.clock.advance(10_000)
    sim.runtime.kill(victim.id, 1)
    await sim.clock.advance(10_000)
    assert.equal(sim.runtime.runningCount(), 2)
    const before = sim.tasks(web).map(({ id }) => id)
    await sim.regainManager()
    await sim.clock.advance(60_000)
    assert.deepEqual(
      sim.running(web).map(({ id }) => id),
      before,
    )
    await sim.stop()
  })

  test('leaves a task that ends to a manager that is back soon', async () => {
    const sim = new CutNode(2)
    await sim.start()
    const web = await sim.create('web', 1)
    await sim.clock.advance(2_000)
    const [victim] = sim.running(web)
    assert.ok(victim)
    await sim.loseManager()
    sim.runtime.kill(victim.id, 1)
    await sim.clock.advance(1_000)
    await sim.regainManager()
    await sim.clock.advance(20_000)
    assert.equal(sim.store.view.get('task', victim.id)?.status.state, 'failed')
    assert.equal(sim.running(web).length, 1)
    await sim.stop()
  })

  test('starts its tasks after a reboot from what it kept', async () => {
    const sim = new CutNode(3)
    await sim.start()
    const web = await sim.create('web', 3)
    await sim.clock.advance(5_000)
    await sim.agent.close()
    await sim.loseManager()
    sim.runtime.reboot()
    assert.equal(sim.runtime.runningCount(), 0)
    sim.agent = sim.begin()
    await sim.clock.advance(20_000)
    assert.equal(sim.runtime.runningCount(), 3)
    const ids = sim.tasks(web).map(({ id }) => id)
    await sim.regainManager()
    await sim.clock.advance(60_000)
    assert.deepEqual(
      sim.running(web).map(({ id }) => id),
      ids,
    )
    await sim.stop()
  })

  /** It has acknowledged that one of two tasks is out of the sets, and starts anew with a journal of before. */
  async function withOldJournal(seed: number) {
    const sim = new CutNode(seed)
    await sim.start()
    const web = await sim.create('web', 2, { endpoint: published })
    await sim.clock.advance(5_000)
    const { entry } = sim.journal
    assert.equal(sim.routed().length, 2)
    await sim.update(web, 1, { endpoint: published })
    await sim.clock.advance(500)
    const [left] = sim.routed()
    assert.deepEqual(sim.routed(), [left])
    await sim.agent.close()
    sim.journal.entry = entry
    return { sim, left }
  }

  test('that starts anew sends connections as it did, not as its journal says, until a manager speaks', async () => {
    const { sim, left } = await withOldJournal(4)
    const opens = Promise.withResolvers<void>()
    sim.opens = opens.promise
    sim.agent = sim.begin()
    await sim.clock.advance(2_500)
    assert.deepEqual(sim.routed(), [left])
    opens.resolve()
    await sim.clock.advance(1_000)
    assert.deepEqual(sim.routed(), [left])
    assert.equal(sim.dataPlane.desired.tasks.length, 1)
    await sim.stop()
  })

  test('that starts anew with a clock that is set does not take itself for alone', async () => {
    const { sim, left } = await withOldJournal(11)
    sim.isCut = true
    sim.agent = sim.begin()
    await sim.clock.advance(1_000)
    sim.aheadMs = 60_000
    await sim.clock.advance(3_000)
    assert.deepEqual(sim.routed(), [left])
    await sim.clock.advance(2_000)
    assert.equal(sim.routed().length, 2)
    await sim.stop()
  })

  test('that starts anew and stays alone goes on with what its journal says, as after a loss of power', async () => {
    const { sim } = await withOldJournal(5)
    sim.isCut = true
    sim.dataPlane.desired = { networks: [], endpoints: [], tasks: [] }
    sim.agent = sim.begin()
    await sim.clock.advance(4_000)
    assert.deepEqual(sim.routed(), [])
    await sim.clock.advance(2_000)
    assert.equal(sim.routed().length, 2)
    await sim.stop()
  })

  test('begins no task of its journal that nobody may want any more', async () => {
    for (const isAlone of [false, true]) {
      const sim = new CutNode(6, () => ({ prepareMs: 1_000 }))
      await sim.start()
      await sim.agent.close()
      const web = await sim.create('web', 1, { endpoint: published })
      await sim.clock.advance(1_000)
      sim.agent = sim.begin()
      await sim.clock.advance(10)
      await sim.agent.close()
      assert.equal(sim.journal.entry?.assignments.tasks.size, 1)
      assert.equal(sim.runtime.runningCount(), 0)
      await sim.update(web, 0, { endpoint: published })
      const opens = Promise.withResolvers<void>()
      sim.isCut = isAlone
      sim.opens = isAlone ? Promise.resolve() : opens.promise
      sim.agent = sim.begin()
      await sim.clock.advance(4_000)
      assert.equal(sim.runtime.runningCount(), 0)
      opens.resolve()
      await sim.clock.advance(5_000)
      assert.equal(sim.runtime.runningCount(), isAlone ? 1 : 0)
      await sim.stop()
    }
  })

  test('does not begin again what a manager knows to have ended, however old its journal is', async () => {
    for (const how of ['removed', 'failed'] as const) {
      const sim = new CutNode(9)
      await sim.start()
      const web = await sim.create('web', 2)
      await sim.clock.advance(5_000)
      const [ended] = sim.running(web)
      assert.ok(ended)
      sim.journal.isLastWrite = true
      if (how === 'removed') await sim.update(web, 0, { endpoint: published })
      else sim.runtime.kill(ended.id, 1)
      await sim.clock.advance(2_000)
      const told = sim.store.view.get('task', ended.id)?.status.state
      assert.equal(told, how === 'removed' ? undefined : 'failed')
      await sim.agent.close()
      const before = sim.runtime.runningCount()
      sim.isCut = true
      sim.agent = sim.begin()
      await sim.clock.advance(20_000)
      assert.equal(sim.runtime.runningCount(), before, how)
      await sim.stop()
    }
  })

  test('stops what somebody starts of a task that has ended', async () => {
    const sim = new CutNode(10)
    await sim.start()
    const web = await sim.create('web', 1)
    await sim.clock.advance(5_000)
    const [ended] = sim.running(web)
    assert.ok(ended)
    sim.runtime.kill(ended.id, 1)
    await sim.clock.advance(2_000)
    const started = sim.runtime.start(ended.id, new AbortController().signal)
    await sim.clock.advance(15_000)
    assert.notEqual((await started).pid, 0)
    assert.equal(sim.runtime.runningCount(), 1)
    assert.equal(sim.store.view.get('task', ended.id)?.status.state, 'failed')
    await sim.stop()
  })

  test('has a session and follows while its engine does not answer', async () => {
    const sim = new CutNode(7)
    await sim.start()
    const web = await sim.create('web', 2, { endpoint: published })
    await sim.clock.advance(5_000)
    sim.runtime.setReachable(false)
    await sim.loseManager()
    await sim.clock.advance(2_000)
    await sim.regainManager()
    await sim.clock.advance(4_000)
    assert.equal(sim.manager.dispatcher.isInSession(sim.nodeId), true)
    await sim.update(web, 1, { endpoint: published })
    await sim.clock.advance(500)
    assert.equal(sim.routed().length, 1)
    assert.equal(sim.runtime.runningCount(), 2)
    sim.runtime.setReachable(true)
    await sim.clock.advance(10_000)
    assert.equal(sim.runtime.runningCount(), 1)
    await sim.stop()
  })

  test('that hears of a new leader seeks it at once', async () => {
    const sim = new CutNode(8)
    await sim.start()
    await sim.loseManager()
    // Between two attempts, which are 3 s apart by now.
    await sim.clock.advance(20_000)
    await sim.regainManager()
    await sim.clock.advance(10)
    assert.equal(sim.manager.dispatcher.isInSession(sim.nodeId), false)
    sim.agent.leaderChanged()
    await sim.clock.advance(10)
    assert.equal(sim.manager.dispatcher.isInSession(sim.nodeId), true)
    await sim.stop()
  })
})
