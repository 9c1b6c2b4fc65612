import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { asSent } from './as-sent.ts'

test('a message arrives as JSON would carry it', () => {
  const key = fc.string().filter((name) => name !== '__proto__')
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.array(tie('value')),
      fc.dictionary(key, fc.oneof(tie('value'), fc.constant(undefined)), { noNullPrototype: true }),
    ),
  }))
  fc.assert(
    fc.property(value, (sent) => {
      assert.deepEqual(asSent(sent), JSON.parse(JSON.stringify(sent)))
    }),
  )
})

test('what is sent can be changed afterwards', () => {
  const labels = { zone: 'a' }
  const arrived = asSent({ labels })
  labels.zone = 'b'
  assert.deepEqual(arrived, { labels: { zone: 'a' } })
})

test('what JSON would drop or change without a word is refused', () => {
  for (const value of [Number.NaN, new Map(), new Date(0), () => {}, 1n, [undefined]])
    assert.throws(() => asSent({ value }), TypeError)
})
