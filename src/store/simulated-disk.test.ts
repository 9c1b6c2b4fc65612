import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Clock, Random } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { describeStoreContract } from './contract.ts'
import { commitSizeMax, objectSizeMax } from './index.ts'
import { SimulatedDisk } from './simulated-disk.ts'
import { StoreCore } from './store-core.ts'
import { buildConfig } from './test-objects.ts'

const clock = openRealClock()

/** The same numbers in every run. Source of the constants: Numerical Recipes, "quick and dirty" generators. */
function seeded(seed: number): Random {
  let state = seed
  return {
    below(limit) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor((state / 2 ** 32) * limit)
    },
  }
}

describeStoreContract(
  'a store on a simulated disk',
  () => {
    const disk = new SimulatedDisk({ clock, random: seeded(1) })
    return {
      open: () => StoreCore.open({ clock, freeze: true, persistence: disk.attach() }),
      remove: async () => {},
    }
  },
  { durable: true },
)

/** Time that passes when told to. */
function steppedClock(): Clock & { step(): Promise<void> } {
  const waiting: (() => void)[] = []
  return {
    nowMs: () => 0,
    sleep: () => new Promise((resolve) => waiting.push(resolve)),
    async step() {
      await turn()
      for (const wake of waiting.splice(0)) wake()
      await turn()
    },
  }
}

/** Lets everything happen that needs no time. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describe('a store whose disk misbehaves', () => {
  async function openOn(disk: SimulatedDisk, options: { commitsQueuedMax?: number } = {}) {
    return StoreCore.open({ clock, freeze: true, persistence: disk.attach(), ...options })
  }
  const create = (id: string, name = id) => ({
    type: 'create' as const,
    object: buildConfig(id, { name }),
  })

  test('keeps every acknowledged commit and no half of another when the power goes', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const random = seeded(seed)
      const time = steppedClock()
      const disk = new SimulatedDisk({ clock: time, random, syncMsMax: 9 })
      let acknowledged = 0
      for (let round = 0; round < 5; round++) {
        const store = await openOn(disk)
        assert.ok(
          store.view.revision >= acknowledged,
          `seed ${seed}: an acknowledged commit is lost`,
        )
        const ids = [...store.view.list('config')].map((config) => config.id)
        assert.equal(ids.length, store.view.revision * 2, `seed ${seed}: half a commit survived`)
        for (let i = 0; i < 6; i++) {
          const n = `${round}-${i}`
          void store.commit([create(`${n}a`), create(`${n}b`)]).then(({ revision }) => {
            acknowledged = revision
          })
          if (random.below(2) === 1) await time.step()
        }
        disk.crash()
        await time.step()
      }
    }
  })

  test('refuses while the disk is full, loses nothing, and goes on after', async () => {
    const disk = new SimulatedDisk({ clock, random: seeded(1) })
    const store = await openOn(disk)
    await store.commit([create('a')])
    disk.fault = 'full'
    const refused = await Promise.allSettled([
      store.commit([create('b')]),
      store.advanceEpoch(),
      store.commit([create('c')]),
    ])
    for (const outcome of refused) {
      assert.equal(outcome.status, 'rejected')
      assert.equal(outcome.reason.code, 'unavailable')
      assert.match(outcome.reason.message, /disk is full/)
      assert.match(outcome.reason.next, /Free some space/)
    }
    assert.equal(store.view.revision, 1)
    assert.equal(store.epoch, 0)
    disk.fault = 'none'
    const { revision } = await store.commit([create('b')])
    assert.equal(revision, 2, 'a commit that was not kept takes no revision')
    assert.equal(await store.advanceEpoch(), 1)
    const again = await openOn(disk)
    assert.equal(again.view.count('config'), 2)
  })

  test('a commit that needed a failed one fails with it, another goes on', async () => {
    const time = steppedClock()
    const disk = new SimulatedDisk({ clock: time, random: seeded(1), syncMsMax: 9 })
    const store = await openOn(disk)
    const first = store.commit([create('a')])
    await time.step()
    await first
    const a = store.view.get('config', 'a')
    assert.ok(a)
    disk.fault = 'failing'
    const removal = store.commit([{ type: 'delete', kind: 'config', id: 'a', version: a.version }])
    const outcomes = Promise.allSettled([removal])
    await turn() // It has left, and what comes now has to wait.
    const successor = store.commit([create('b', 'a')])
    const bystander = store.commit([create('c')])
    const rest = Promise.allSettled([successor, bystander])
    await time.step()
    disk.fault = 'none'
    await time.step()
    assert.equal((await outcomes)[0].status, 'rejected')
    const [needed, other] = await rest
    assert.equal(needed.status === 'rejected' && needed.reason.code, 'unavailable')
    assert.equal(other.status, 'fulfilled')
    assert.deepEqual(
      [...store.view.list('config')].map((config) => config.id),
      ['a', 'c'],
    )
  })

  test('on a nearly full disk a commit that does not fit takes no neighbour with it', async () => {
    const disk = new SimulatedDisk({ clock, random: seeded(1) })
    const inner = disk.attach()
    const persistence = {
      ...inner,
      persist: async (batch: Parameters<typeof inner.persist>[0]) => {
        disk.fault = batch.writes.some(({ id }) => id === 'big') ? 'full' : 'none'
        return inner.persist(batch)
      },
    }
    const store = await StoreCore.open({ clock, freeze: true, persistence })
    const outcomes = await Promise.allSettled(
      ['a', 'big', 'b'].map((id) => store.commit([create(id)])),
    )
    assert.deepEqual(
      outcomes.map((outcome) => outcome.status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
    assert.equal(store.view.revision, 2)
  })

  test('a commit that would fill the memory is refused whole', async () => {
    const store = await openOn(new SimulatedDisk({ clock, random: seeded(1) }))
    const data = 'x'.repeat(objectSizeMax - 1000)
    const many = Array.from({ length: Math.ceil(commitSizeMax / objectSizeMax) + 1 }, (_, i) => ({
      type: 'create' as const,
      object: buildConfig(`c${i}`, { data }),
    }))
    await assert.rejects(store.commit(many), { code: 'tooLarge' })
    await store.commit(many.slice(0, 1))
    assert.equal(store.view.count('config'), 1)
  })

  test('a slow disk meets a bounded queue', async () => {
    const time = steppedClock()
    const disk = new SimulatedDisk({ clock: time, random: seeded(1), syncMsMax: 9 })
    const store = await openOn(disk, { commitsQueuedMax: 3 })
    const accepted = ['a', 'b', 'c'].map((id) => store.commit([create(id)]))
    await assert.rejects(store.commit([create('d')]), { code: 'unavailable' })
    await time.step()
    await time.step()
    await Promise.all(accepted)
    const later = store.commit([create('d')])
    await time.step()
    await later
  })

  test('a stored object can not be mutated while developing', async () => {
    const store = await openOn(new SimulatedDisk({ clock, random: seeded(1) }))
    await store.commit([create('a')])
    const config = store.view.get('config', 'a')
    assert.ok(config)
    assert.throws(() => Object.assign(config.labels, { x: 'y' }), TypeError)
  })
})
