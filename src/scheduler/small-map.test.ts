import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SmallMap } from './small-map.ts'

test('a small map is a map', () => {
  const step = fc.record({ key: fc.nat(3), value: fc.option(fc.nat(), { nil: undefined }) })
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const small = new SmallMap<number, number>()
      const map = new Map<number, number>()
      for (const { key, value } of steps) {
        if (value === undefined) {
          small.delete(key)
          map.delete(key)
        } else {
          small.set(key, value)
          map.set(key, value)
        }
        assert.deepEqual([...small], [...map])
        assert.deepEqual([...small.values()], [...map.values()])
        assert.equal(small.size, map.size)
        for (let any = 0; any <= 4; any++) {
          assert.equal(small.get(any), map.get(any))
          assert.equal(small.has(any), map.has(any))
        }
      }
    }),
  )
})
