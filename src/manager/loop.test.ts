import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { silentLog, TurnBudget, UserError, usualPortions, WakeUp } from '../base/index.ts'
import { buildTask } from '../model/testing.ts'
import { type Change, type Commit, openMemoryStore, type Store } from '../store/index.ts'
import { runLoop, type Turn } from './loop.ts'

const clock = { nowMs: () => 0, sleep: async () => {} }
const turnOfLoop = () => new Promise((resolve) => setImmediate(resolve))
const { changesAtOnce } = usualPortions

function changes(prefix: string, count: number): readonly Change[] {
  return Array.from({ length: count }, (_, at) => ({
    type: 'create' as const,
    object: buildTask({ id: `${prefix}${at}` }),
  }))
}

/** Runs a loop that decides these turns, one after the other. */
async function run(store: Store, turns: readonly Turn[]): Promise<void> {
  const stop = new AbortController()
  const wake = new WakeUp()
  const left = [...turns]
  wake.ring()
  await runLoop({
    name: 'test',
    store,
    clock,
    log: silentLog,
    fence: 0,
    wake,
    signal: stop.signal,
    turns: new TurnBudget(clock),
    changesAtOnce,
    decide: () => {
      const turn = left.shift()
      if (!turn) stop.abort()
      else wake.ring()
      return turn ?? { commits: [] }
    },
  })
}

describe('a loop on the leader', () => {
  test('a large turn goes in waves, whole in the end', async () => {
    const memory = await openMemoryStore({ clock, freeze: false })
    let underWay = 0
    let most = 0
    const store: Store = {
      view: memory.view,
      subscribe: (listener) => memory.subscribe(listener),
      close: () => memory.close(),
      async commit(wanted: readonly Change[]): Promise<Commit> {
        underWay += wanted.length
        most = Math.max(most, underWay)
        await turnOfLoop()
        underWay -= wanted.length
        return memory.commit(wanted)
      },
    }
    const groups = Array.from({ length: 30 }, (_, group) => changes(`${group}-`, 500))
    await run(store, [{ commits: [...groups, changes('large', 9_000)] }])
    assert.equal(memory.view.count('task'), 24_000)
    assert.ok(most <= 2_000, `${most} changes under way`)
  })

  test('whoever failed is told, and the others are committed', async () => {
    const store = await openMemoryStore({ clock, freeze: false })
    await store.commit(changes('b', 1))
    const failed: number[] = []
    await run(store, [
      {
        commits: [changes('a', 2), changes('b', 2), changes('c', 2)],
        failed: (index) => failed.push(index),
      },
    ])
    assert.deepEqual(failed, [1])
    assert.equal(store.view.count('task'), 5)
    await assert.rejects(store.commit(changes('a', 1)), UserError)
  })

  test('loops that begin learn what is stored one after the other, each in a turn of its own', async () => {
    const store = await openMemoryStore({ clock, freeze: false })
    const stop = new AbortController()
    let turn = 0
    const turning = { nowMs: () => 0, sleep: async () => void turn++ }
    const turns = new TurnBudget(turning)
    const begunIn: number[] = []
    const loop = (name: string) => {
      const wake = new WakeUp()
      wake.ring()
      return runLoop({
        name,
        store,
        clock: turning,
        log: silentLog,
        fence: 0,
        wake,
        signal: stop.signal,
        turns,
        changesAtOnce,
        decide() {
          begunIn.push(turn)
          if (begunIn.length === 3) stop.abort()
          wake.ring()
          return { commits: [] }
        },
      })
    }
    await Promise.all([loop('a'), loop('b'), loop('c')])
    assert.equal(new Set(begunIn).size, 3, `in turns ${begunIn.join(', ')}`)
  })

  /** Runs a loop that decides these turns, until it waits for time to pass. */
  async function runUntilItWaits(store: Store, turns: Turn[]): Promise<void> {
    const stop = new AbortController()
    const sleptMs: number[] = []
    await runLoop({
      name: 'test',
      store,
      clock: {
        nowMs: () => 0,
        async sleep(ms) {
          sleptMs.push(ms)
          if (ms > 0) stop.abort()
        },
      },
      log: silentLog,
      fence: 0,
      wake: rung(),
      signal: stop.signal,
      turns: new TurnBudget(clock),
      changesAtOnce,
      decide() {
        const turn = turns.shift()
        assert.ok(turn, 'decided again at once')
        return turn
      },
    })
    assert.deepEqual(turns, [])
    assert.ok(sleptMs.some((ms) => ms >= 50))
  }

  test('what lost a race after parts of a decision is not decided again before its time', async () => {
    const store = await openMemoryStore({ clock, freeze: false })
    await store.commit(changes('a', 1))
    await runUntilItWaits(store, [
      { commits: [], more: true, isUnderWay: true },
      { commits: [], more: true, isUnderWay: true },
      { commits: [changes('a', 1)] },
    ])
  })

  test('a loop with more to do that may not write any more does not spin', async () => {
    const store = await openMemoryStore({ clock, freeze: false })
    await store.advanceEpoch()
    await runUntilItWaits(store, [{ commits: [changes('a', 1)], more: true }])
    assert.equal(store.view.count('task'), 0)
  })
})

function rung(): WakeUp {
  const wake = new WakeUp()
  wake.ring()
  return wake
}
