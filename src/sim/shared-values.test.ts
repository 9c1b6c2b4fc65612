import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sharedValues } from './shared-values.ts'

test('who reads the same text shares what comes of it, and nobody else does', () => {
  const { parse = JSON.parse } = sharedValues()
  const first = parse('{"place":0,"object":{"id":"a"}}')
  assert.deepEqual(first, { place: 0, object: { id: 'a' } })
  assert.equal(parse('{"place":0,"object":{"id":"a"}}'), first)
  assert.deepEqual(parse('{"place":0,"object":{"id":"b"}}'), { place: 0, object: { id: 'b' } })
  assert.throws(() => parse('{"place":'), SyntaxError)
  for (let place = 1; place <= 3_000; place++) parse(JSON.stringify({ place }))
  assert.deepEqual(parse('{"place":0,"object":{"id":"a"}}'), first)
})
