import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Batch, PersistError, type Persistence } from './persistence.ts'
import { StoreCore } from './store-core.ts'
import { buildConfig } from './test-objects.ts'

/** Remembers the batches, and answers when told to. */
class HeldDisk implements Persistence {
  readonly batches: Batch[] = []
  #answer: () => void = () => {}
  #hasToFail = false
  async load() {
    return { revision: 0, epoch: 0, texts: [] }
  }
  async persist(batch: Batch): Promise<void> {
    this.batches.push(batch)
    await new Promise<void>((resolve) => {
      this.#answer = resolve
    })
    if (!this.#hasToFail) return
    this.#hasToFail = false
    throw new PersistError('it fails', { full: false, next: 'Mend it.' })
  }
  failNext(): void {
    this.#hasToFail = true
  }
  async close(): Promise<void> {}
  async answer(): Promise<void> {
    this.#answer()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('the core of stores', () => {
  test('what becomes visible in one turn is bounded, however much waits for the disk', async () => {
    const disk = new HeldDisk()
    const clock = { nowMs: () => 0, sleep: async () => {} }
    const store = await StoreCore.open({ clock, persistence: disk })
    const changes = (commit: number, count: number) =>
      Array.from({ length: count }, (_, at) => ({
        type: 'create' as const,
        object: buildConfig(`${commit}-${at}`),
      }))
    const sizes = [1, 200, 200, 200, 2_000, 1, 1]
    const done = Promise.all(sizes.map((size, commit) => store.commit(changes(commit, size))))
    for (let turn = 0; turn < 4; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      await disk.answer()
    }
    await done
    assert.deepEqual(
      disk.batches.map(({ writes }) => writes.length),
      [401, 200, 2_000, 2],
    )
    assert.equal(store.view.count('config'), 2_603)
  })

  const create = (id: string) => ({ type: 'create' as const, object: buildConfig(id) })
  const createMany = (name: string, count: number) =>
    Array.from({ length: count }, (_, at) => create(`${name}-${at}`))
  const open = async () => {
    const disk = new HeldDisk()
    const clock = { nowMs: () => 0, sleep: async () => {} }
    const store = await StoreCore.open({ clock, persistence: disk })
    const turn = () => new Promise((resolve) => setImmediate(resolve))
    const answerAll = async () => {
      for (let turns = 0; turns < 50; turns++) await disk.answer()
    }
    return { disk, store, turn, answerAll }
  }
  const idsOf = ({ writes }: Batch) => writes.map(({ id }) => id)

  test('what a person asks for is in the next batch, however much of the leader waits', async () => {
    const { disk, store, turn, answerAll } = await open()
    const names = Array.from({ length: 20 }, (_, at) => `leader${at}`)
    const leaders = names.map((name) => store.commit(createMany(name, 200), { fence: 0 }))
    await turn()
    assert.equal(disk.batches.length, 1)
    const persons = store.commit([create('person')])
    await disk.answer()
    assert.ok(disk.batches[1] && idsOf(disk.batches[1]).includes('person'))
    await answerAll()
    await Promise.all([...leaders, persons])
    assert.ok(disk.batches.every(({ writes }) => writes.length <= 501))
    // The leader's own come in the order it made them.
    const order = disk.batches.flatMap(idsOf).filter((id) => id.endsWith('-0'))
    assert.deepEqual(
      order,
      names.map((name) => `${name}-0`),
    )
  })

  test('what waited is checked on what came before it by then', async () => {
    const { store, turn, answerAll } = await open()
    const first = store.commit([create('a')], { fence: 0 })
    await turn()
    const large = store.commit(createMany('large', 500), { fence: 0 })
    const waited = store.commit([create('b')], { fence: 0 })
    const [loser, stale] = [
      store.commit([create('c')], { fence: 0 }),
      store.commit([create('c')], { fence: 0 }),
    ]
    const outcomes = Promise.allSettled([first, large, waited, loser, stale])
    const persons = store.commit([create('c')])
    await answerAll()
    await persons
    const codes = (await outcomes).map((outcome) =>
      outcome.status === 'fulfilled' ? 'done' : outcome.reason.code,
    )
    assert.deepEqual(codes, ['done', 'done', 'done', 'conflict', 'conflict'])
  })

  test('what a deposed leader has waiting is not stored', async () => {
    const { store, turn, answerAll } = await open()
    const first = store.commit([create('a')], { fence: 0 })
    await turn()
    const large = store.commit(createMany('large', 500), { fence: 0 })
    const waited = store.commit([create('b')], { fence: 0 })
    const outcome = Promise.allSettled([waited])
    const epoch = store.advanceEpoch()
    await answerAll()
    await Promise.all([first, large, epoch])
    const [settled] = await outcome
    assert.equal(settled?.status === 'rejected' && settled.reason.code, 'outOfSequence')
    assert.equal(store.view.get('config', 'b'), undefined)
  })

  test('what waits is stored before the store is closed', async () => {
    const { store, turn, answerAll } = await open()
    const commits = Array.from({ length: 5 }, (_, at) =>
      store.commit(createMany(`c${at}`, 300), { fence: 0 }),
    )
    await turn()
    const closed = store.close()
    await answerAll()
    await closed
    await Promise.all(commits)
    assert.equal(store.view.count('config'), 1_500)
  })

  test('what waits outlives the failure of what was before it', async () => {
    const { disk, store, turn, answerAll } = await open()
    const first = store.commit(createMany('a', 400), { fence: 0 })
    const second = store.commit(createMany('b', 400), { fence: 0 })
    const third = store.commit(createMany('c', 400), { fence: 0 })
    const outcomes = Promise.allSettled([first, second, third])
    await turn()
    disk.failNext()
    await answerAll()
    const statuses = (await outcomes).map(({ status }) => status)
    assert.deepEqual(statuses, ['rejected', 'fulfilled', 'fulfilled'])
    assert.equal(store.view.count('config'), 800)
  })
})
