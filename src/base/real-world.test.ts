import assert from 'node:assert/strict'
import { test } from 'node:test'
import { realRandom } from './real-world.ts'

test('a number is below its limit, and every one of them comes', () => {
  for (const limit of [1, 2, 36, 200, 256, 300]) {
    const seen = new Set<number>()
    for (let draw = 0; draw < 100 * limit; draw++) seen.add(realRandom.below(limit))
    assert.deepEqual([Math.min(...seen), Math.max(...seen), seen.size], [0, limit - 1, limit])
  }
})
