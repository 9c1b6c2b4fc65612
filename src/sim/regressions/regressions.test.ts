import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runSeed } from '../run.ts'
import { regressions } from './regressions.ts'

describe('seeds that once broke something', () => {
  for (const { seed, checker, what } of regressions) {
    test(`${seed}: ${checker}: ${what}`, async () => {
      const { violation, lastEvents } = await runSeed(seed)
      assert.equal(violation, undefined, [...lastEvents, violation?.what].join('\n'))
    })
  }
})
