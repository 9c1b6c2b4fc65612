import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { silentLog, UserError } from '../src/base/index.ts'
import { openRealClock, realRandom } from '../src/base/real-world.ts'
import { picture } from '../src/store/contract.ts'
import { openElection } from '../src/store/etcd/election.ts'
import { type EtcdStore, OutcomeUnknownError, openEtcdStore } from '../src/store/etcd/etcd-store.ts'
import { buildConfig, buildValueKey } from '../src/store/test-objects.ts'
import { sealedValues } from '../src/store/value-codec.ts'
import { eventually } from './support/daemon.ts'
import { etcdIsMissing, RealCluster } from './support/etcd-cluster.ts'

const clock = openRealClock()
const values = sealedValues([buildValueKey()])

const skip = etcdIsMissing

/** One manager under test: writes as fast as it is answered, and remembers what it was told. */
class Writer {
  readonly store: EtcdStore
  readonly #name: string
  readonly outcomeById = new Map<string, 'done' | 'failed' | 'unknown'>()
  /** Longest time between two acknowledgements, in ms. */
  pauseMs = 0
  #lastDoneAtMs = performance.now()
  #isOver = false
  #running: Promise<void> | undefined

  constructor(store: EtcdStore, name: string) {
    this.store = store
    this.#name = name
  }

  start(): void {
    this.#lastDoneAtMs = performance.now()
    this.#running ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  async #run(): Promise<void> {
    for (let i = 0; !this.#isOver; i++) {
      const id = `${this.#name}-${i}`
      try {
        await this.store.commit([{ type: 'create', object: buildConfig(id) }])
        this.outcomeById.set(id, 'done')
        const nowMs = performance.now()
        this.pauseMs = Math.max(this.pauseMs, nowMs - this.#lastDoneAtMs)
        this.#lastDoneAtMs = nowMs
      } catch (error) {
        assert.ok(error instanceof UserError && error.code === 'unavailable', String(error))
        const isUnknown = error.cause instanceof OutcomeUnknownError
        this.outcomeById.set(id, isUnknown ? 'unknown' : 'failed')
        await clock.sleep(20)
      }
      await clock.sleep(2)
    }
  }
}

describe('a cluster of three real members', { skip, concurrency: 1 }, () => {
  let cluster: RealCluster
  before(async () => {
    cluster = await RealCluster.start(3)
  })
  after(() => cluster.stop())

  /** Each manager speaks to its own member only. */
  const openOwn = (index: number): Promise<EtcdStore> => {
    const client = cluster.client(index, { alone: true })
    return openEtcdStore({
      client,
      values,
      clock,
      random: realRandom,
      log: silentLog,
      writer: `m${index}`,
    })
  }

  test('members that are killed or stand still cost no acknowledged commit', async (t) => {
    const writers = await Promise.all(
      [0, 1, 2].map(async (i) => new Writer(await openOwn(i), `w${i}-${process.pid}`)),
    )
    t.after(async () => {
      await Promise.all(writers.map((writer) => writer.stop()))
      await Promise.all(writers.map(({ store }) => store.close()))
    })
    for (const writer of writers) writer.start()
    for (const signal of ['SIGKILL', 'SIGSTOP', 'SIGKILL'] as const) {
      await clock.sleep(1_500)
      for (const writer of writers) writer.pauseMs = 0
      const leader = await cluster.leader()
      cluster.signal(leader, signal)
      await clock.sleep(3_000)
      if (signal === 'SIGSTOP') cluster.signal(leader, 'SIGCONT')
      const pauses = writers.map(
        (writer, i) => `${i === leader ? 'own ' : ''}${Math.round(writer.pauseMs)}`,
      )
      t.diagnostic(
        `${signal} of the leader: longest wait for a commit, in ms: ${pauses.join(', ')}`,
      )
    }
    await eventually('more than a hundred acknowledged', async () => {
      const outcomes = writers.flatMap(({ outcomeById }) => [...outcomeById.values()])
      return outcomes.filter((outcome) => outcome === 'done').length > 100
    })
    await Promise.all(writers.map((writer) => writer.stop()))
    await Promise.all(writers.map((writer) => settled(writer.store)))
    const [first, ...others] = writers.map(({ store }) => picture(store.view))
    for (const other of others) assert.deepEqual(other, first, 'all managers see the same')
    let done = 0
    for (const { outcomeById, store } of writers) {
      for (const [id, outcome] of outcomeById) {
        if (outcome === 'done') done += 1
        if (outcome === 'unknown') continue
        assert.equal(store.view.get('config', id) !== undefined, outcome === 'done', id)
      }
    }
    t.diagnostic(`${done} commits acknowledged, all there`)
  })

  test('a leader whose member stands still is replaced, and fenced off', async (t) => {
    const stores = await Promise.all([0, 1, 2].map(openOwn))
    const elections = [0, 1, 2].map((i) =>
      openElection({
        client: cluster.client(i, { alone: true }),
        clock,
        log: silentLog,
        candidate: { id: `m${i}`, address: `10.0.0.${i}:2377` },
      }),
    )
    const stop = new AbortController()
    t.after(async () => {
      stop.abort()
      await Promise.all(elections.map((election) => election.close()))
      await Promise.all(stores.map((store) => store.close()))
    })
    // The manager on the member that leads etcd leads too: the loss of one host takes both.
    const first = await cluster.leader()
    const old = await elections[first]?.campaign(stop.signal)
    assert.ok(old)
    await stores[first]?.commit([], { fence: old.epoch })
    const others = elections.filter((_, i) => i !== first)
    const waiting = Promise.race(others.map((election) => election.campaign(stop.signal)))
    await clock.sleep(500)
    const startMs = performance.now()
    cluster.signal(first, 'SIGSTOP')
    try {
      const next = await waiting
      assert.ok(next)
      t.diagnostic(`the next leader after ${Math.round(performance.now() - startMs)} ms`)
      assert.ok(next.epoch > old.epoch)
    } finally {
      cluster.signal(first, 'SIGCONT')
    }
    const late = stores[first]
    assert.ok(late)
    await settled(late)
    await assert.rejects(
      late.commit([{ type: 'create', object: buildConfig('late') }], { fence: old.epoch }),
      { code: 'outOfSequence' },
    )
    assert.equal(old.lost.aborted, true)
  })

  test('without a majority it is said so, and it goes on by itself', async (t) => {
    const index = await cluster.leader()
    const store = await openOwn(index)
    t.after(() => store.close())
    const others = [0, 1, 2].filter((i) => i !== index)
    for (const i of others) cluster.signal(i, 'SIGSTOP')
    try {
      await assert.rejects(store.commit([{ type: 'create', object: buildConfig('lost') }]), {
        code: 'unavailable',
      })
      await assert.rejects(store.commit([]), /no majority of the managers/)
    } finally {
      for (const i of others) cluster.signal(i, 'SIGCONT')
    }
    await settled(store)
    await store.commit([])
  })
})

/** Waits until the view has everything. */
async function settled(store: EtcdStore): Promise<void> {
  const untilMs = performance.now() + 120_000
  for (;;) {
    try {
      await store.barrier()
      return
    } catch (error) {
      if (performance.now() > untilMs) throw error
      await clock.sleep(100)
    }
  }
}
