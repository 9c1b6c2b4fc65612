import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Frames } from './frames.ts'
import type { Write } from './persistence.ts'
import { SealedValues } from './sealed-values.ts'
import { buildValueKey } from './test-objects.ts'

const limits = { garbageKept: 200, takenOver: 20 }
const open = () => new Frames(new SealedValues([buildValueKey()]), limits)

/** A disk with the frames of a store. */
class Kept {
  readonly valueByNumber = new Map<number, Uint8Array>()
  frames = open()

  write(writes: readonly Write[], isStored = true): void {
    const frame = this.frames.next(writes, (number) => this.valueByNumber.get(number))
    if (!isStored) return
    for (const number of this.valueByNumber.keys()) {
      if (number <= frame.clearedTo) this.valueByNumber.delete(number)
    }
    this.valueByNumber.set(frame.number, frame.value)
    this.frames.keep(frame)
  }

  texts(frames = open()): readonly string[] {
    return frames.load([...this.valueByNumber].map(([number, value]) => ({ number, value })))
  }

  get bytes(): number {
    return [...this.valueByNumber.values()].reduce((sum, { length }) => sum + length, 0)
  }
}

const anyWrite = fc.record({
  id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
  kind: fc.constantFrom('config', 'task'),
  /** None: a delete. */
  length: fc.option(fc.integer({ min: 1, max: 60 })),
})

describe('frames', () => {
  test('hold what was written last, in order of creation, whatever is cleared or not stored', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            writes: fc.array(anyWrite, { minLength: 1, maxLength: 6 }),
            isStored: fc.boolean(),
            isReopened: fc.boolean(),
          }),
          { maxLength: 60 },
        ),
        (history) => {
          const kept = new Kept()
          const want = new Map<string, string>()
          for (const [at, { writes, isStored, isReopened }] of history.entries()) {
            const made = writes.map(({ kind, id, length }): Write => {
              const text = JSON.stringify({ kind, id, at, x: 'x'.repeat(length ?? 0) })
              return length === null
                ? { type: 'delete', kind, id }
                : { type: 'put', kind, id, text }
            })
            kept.write(made, isStored)
            for (const write of isStored ? made : []) {
              const key = `${write.kind}/${write.id}`
              if (write.type === 'put') want.set(key, write.text)
              else want.delete(key)
            }
            if (isReopened) {
              kept.frames = open()
              assert.deepEqual(kept.texts(kept.frames), [...want.values()])
            }
          }
          assert.deepEqual(kept.texts(), [...want.values()])
        },
      ),
      { numRuns: 300 },
    )
  })

  test('take about twice what is valid, however often that changes', () => {
    const kept = new Kept()
    const put = (id: string, text: string): Write => ({ type: 'put', kind: 'config', id, text })
    kept.write(Array.from({ length: 100 }, (_, i) => put(`still${i}`, 'y'.repeat(100))))
    for (let round = 0; round < 2_000; round++) kept.write([put('busy', 'x'.repeat(100))])
    assert.equal(kept.texts().length, 101)
    // Each frame has 60 bytes beside its texts.
    assert(kept.bytes < 2.5 * 101 * 180, `${kept.bytes} bytes in ${kept.valueByNumber.size} frames`)
  })

  test('say so when one is missing or in the place of another', () => {
    const kept = new Kept()
    for (const id of ['a', 'b', 'c']) kept.write([{ type: 'put', kind: 'config', id, text: '{}' }])
    const second = kept.valueByNumber.get(2)
    kept.valueByNumber.delete(2)
    assert.throws(() => kept.texts(), { reason: 'damaged', message: 'frame 2 is missing' })
    kept.valueByNumber.delete(3)
    kept.valueByNumber.set(2, second ?? Buffer.alloc(0))
    assert.equal(kept.texts().length, 2)
    kept.valueByNumber.set(1, second ?? Buffer.alloc(0))
    assert.throws(() => kept.texts(), { reason: 'damaged', message: /of frame 1 was changed/ })
  })
})
