import assert from 'node:assert/strict'
import { test } from 'node:test'
import { untilAborted, within } from './abort.ts'

/** Sleeps that end when they are told to, or when their signal says so. */
function handSleeps() {
  const open = new Map<number, () => void>()
  return {
    open,
    sleep: async (ms: number, signal = new AbortController().signal) => {
      await Promise.race([untilAborted(signal), new Promise<void>((end) => open.set(ms, end))])
      open.delete(ms)
    },
  }
}

test('work that ends in time leaves no timer, whether it succeeds or fails', async () => {
  const clock = handSleeps()
  const signals: AbortSignal[] = []
  const work = (result: Promise<string>) =>
    within(clock, 7, async (late) => {
      signals.push(late)
      assert.deepEqual([...clock.open.keys()], [7])
      return result
    })
  assert.equal(await work(Promise.resolve('done')), 'done')
  await new Promise(setImmediate)
  assert.equal(clock.open.size, 0)
  await assert.rejects(work(Promise.reject(new Error('refused'))), /refused/)
  await new Promise(setImmediate)
  assert.equal(clock.open.size, 0)
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, false],
  )
})

test('work that takes longer is told so, and what it makes of that is the outcome', async () => {
  const clock = handSleeps()
  const outcome = within(clock, 7, async (late) => {
    await untilAborted(late)
    return 'gave up'
  })
  clock.open.get(7)?.()
  assert.equal(await outcome, 'gave up')
})
