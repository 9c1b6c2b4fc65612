import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Agent, type Journal, type JournalEntry, startAgent } from '../agent/index.ts'
import { silentLog, UserError } from '../base/index.ts'
import { startManager } from '../manager/index.ts'
import type { ManagerLink } from '../wire/index.ts'
import { OneNode } from './one-node.ts'

/** Keeps one entry, as a disk would. */
class MemoryJournal implements Journal {
  entry: JournalEntry | undefined
  async read(): Promise<JournalEntry | undefined> {
    return this.entry
  }
  async write(entry: JournalEntry): Promise<void> {
    this.entry = entry
  }
}

/** A node whose way to the manager can be cut. */
class CutNode extends OneNode {
  readonly journal = new MemoryJournal()
  isCut = false
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
      clock: this.clock,
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
})
