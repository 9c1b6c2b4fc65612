import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TurnBudget } from './turn-budget.ts'
import type { Clock } from './world.ts'

/** A clock whose turns are taken by hand. */
class TurnClock implements Clock {
  ms = 0
  #next: (() => void)[] = []

  nowMs(): number {
    return this.ms
  }

  sleep(): Promise<void> {
    return new Promise((resolve) => this.#next.push(resolve))
  }

  async turn(): Promise<void> {
    for (const go of this.#next.splice(0)) go()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

test('after a turn worth of work the rest waits for the next turns, in the order of asking', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: number[] = []
  for (let piece = 0; piece < 25; piece++) {
    const share = budget.take(100)
    if (share) void share.then(() => begun.push(piece))
    else begun.push(piece)
  }
  const upTo = (count: number) => Array.from({ length: count }, (_, piece) => piece)
  assert.deepEqual(begun, upTo(10))
  await clock.turn()
  assert.deepEqual(begun, upTo(20))
  // Whoever asks while others wait comes after them.
  void budget.take(1)?.then(() => begun.push(25))
  await clock.turn()
  assert.deepEqual(begun, upTo(26))
})

test('a piece that is larger than a turn gets one for itself', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: string[] = []
  assert.equal(budget.take(5_000), undefined)
  void budget.take(5_000)?.then(() => begun.push('large'))
  void budget.take(1)?.then(() => begun.push('small'))
  await clock.turn()
  assert.deepEqual(begun, ['large'])
  await clock.turn()
  assert.deepEqual(begun, ['large', 'small'])
})

test('a piece that does not fit into what is left of a turn waits for the next one', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: string[] = []
  assert.equal(budget.take(900), undefined)
  void budget.take(200)?.then(() => begun.push('second'))
  void budget.take(900)?.then(() => begun.push('third'))
  await clock.turn()
  assert.deepEqual(begun, ['second'])
  await clock.turn()
  assert.deepEqual(begun, ['second', 'third'])
})

test('what a piece spends beyond its share leaves the rest of the turn so much less room', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: number[] = []
  assert.equal(budget.take(1_000), undefined)
  for (let piece = 0; piece < 6; piece++) {
    void budget.take(1)?.then(() => {
      begun.push(piece)
      budget.spend(400)
    })
  }
  await clock.turn()
  assert.deepEqual(begun, [0, 1, 2])
  await clock.turn()
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5])
})

test('what others spend before those who wait begin leaves them less room, but always one of them goes on', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: number[] = []
  assert.equal(budget.take(1_000), undefined)
  for (let piece = 0; piece < 6; piece++) void budget.take(300)?.then(() => begun.push(piece))
  budget.spend(500)
  await clock.turn()
  assert.deepEqual(begun, [0])
  budget.spend(2_000)
  await clock.turn()
  assert.deepEqual(begun, [0, 1])
  await clock.turn()
  assert.deepEqual(begun, [0, 1, 2, 3, 4])
})

test('a turn that lasts long, as others have the core, is one turn all the same', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  const begun: number[] = []
  for (let piece = 0; piece < 25; piece++) {
    clock.ms += 60
    const share = budget.take(100)
    if (share) void share.then(() => begun.push(piece))
    else begun.push(piece)
  }
  assert.equal(begun.length, 10)
  await clock.turn()
  assert.equal(begun.length, 20)
})

test('work with time in between never waits', async () => {
  const clock = new TurnClock()
  const budget = new TurnBudget(clock, 1_000)
  for (let piece = 0; piece < 100; piece++) {
    clock.ms += 60
    assert.equal(budget.take(900), undefined)
    await clock.turn()
  }
})
