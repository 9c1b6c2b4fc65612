import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { plantedFaults, readSource, withEdit } from './planted.ts'

describe('planted faults', () => {
  test('are at least the dozen that were promised, by different names', () => {
    assert.ok(plantedFaults.length >= 12)
    assert.equal(new Set(plantedFaults.map(({ name }) => name)).size, plantedFaults.length)
  })

  for (const { name, edits } of plantedFaults) {
    test(`${name} can be planted into the code as it is`, () => {
      for (const edit of edits) assert.notEqual(withEdit(edit, readSource(edit)), readSource(edit))
    })
  }
})
