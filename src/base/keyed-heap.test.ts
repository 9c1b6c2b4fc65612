import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { KeyedHeap } from './keyed-heap.ts'

const anyStep = fc.oneof(
  fc.record({
    type: fc.constant('set' as const),
    key: fc.integer({ min: 0, max: 20 }),
    rank: fc.integer({ min: 0, max: 9 }),
  }),
  fc.record({ type: fc.constant('delete' as const), key: fc.integer({ min: 0, max: 20 }) }),
  fc.record({ type: fc.constant('takeUpTo' as const), rank: fc.integer({ min: 0, max: 9 }) }),
)

describe('KeyedHeap', () => {
  test('holds what a plain map holds, smallest first', () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 80 }), (steps) => {
        const heap = new KeyedHeap<number>()
        const naive = new Map<number, number>()
        for (const step of steps) {
          if (step.type === 'set') {
            heap.set(step.key, step.rank)
            naive.set(step.key, step.rank)
          } else if (step.type === 'delete') {
            assert.equal(heap.delete(step.key), naive.delete(step.key))
          } else {
            const due = [...naive].filter(([, rank]) => rank <= step.rank)
            for (const [key] of due) naive.delete(key)
            const taken = heap.takeUpTo(step.rank)
            assert.deepEqual(
              [...taken].sort((a, b) => a - b),
              due.map(([key]) => key).sort((a, b) => a - b),
            )
            const ranks = taken.map((key) => due.find(([other]) => other === key)?.[1] ?? -1)
            assert.deepEqual(
              ranks,
              [...ranks].sort((a, b) => a - b),
            )
          }
          assert.equal(heap.size, naive.size)
          assert.equal(heap.firstRank, naive.size === 0 ? undefined : Math.min(...naive.values()))
          for (const [key, rank] of naive) assert.equal(heap.rankOf(key), rank)
        }
      }),
    )
  })
})
