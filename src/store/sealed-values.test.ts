import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { SealError, SealedValues } from './sealed-values.ts'
import { buildValueKey } from './test-objects.ts'
import { sealedValues } from './value-codec.ts'

const key = buildValueKey()
const young = buildValueKey('fedcba9876543210')

/** What opening it fails with. */
function failure(open: () => unknown): Pick<SealError, 'reason' | 'message'> {
  try {
    open()
  } catch (error) {
    assert(error instanceof SealError)
    return { reason: error.reason, message: error.message }
  }
  return assert.fail('it was opened')
}

describe('sealed values', () => {
  test('are opened by whoever has the key, as what they were sealed as', () => {
    const [one, other] = [new SealedValues([key]), new SealedValues([key])]
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string(), (text, objectKey) => {
        for (const sealer of [one, other]) {
          assert.equal(other.open(sealer.seal(text, objectKey), objectKey), text)
          assert.equal(one.open(sealer.seal(text, objectKey), objectKey), text)
        }
      }),
    )
  })

  test('never use a nonce twice with one key', () => {
    const seen = new Set<string>()
    for (let life = 0; life < 20; life++) {
      const sealer = new SealedValues([key])
      for (let i = 0; i < 50; i++) seen.add(sealer.seal('same', 'task/a').toString('hex', 9, 33))
    }
    assert.equal(seen.size, 1_000)
  })

  test('say nothing of what they are, but how long it is', () => {
    const sealed = new SealedValues([key]).seal('needle '.repeat(20), 'task/a')
    assert.equal(sealed.length, 7 * 20 + 49)
    assert(!sealed.includes('needle'))
  })

  test('in the place of another, changed or cut off anywhere, are refused', () => {
    const values = new SealedValues([key])
    const sealed = values.seal('{"kind":"task"}', 'task/a')
    assert.deepEqual(
      failure(() => values.open(sealed, 'task/b')),
      {
        reason: 'damaged',
        message: 'the value of task/b was changed, or belongs to something else',
      },
    )
    for (let at = 0; at < sealed.length; at++) {
      const cut = sealed.subarray(0, at)
      assert.equal(failure(() => values.open(cut, 'task/a')).reason, 'damaged', `cut at ${at}`)
      const changed = Buffer.from(sealed)
      changed[at] = (changed[at] ?? 0) ^ 1
      const want = at === 0 ? 'newer' : at <= 8 ? 'otherKey' : 'damaged'
      assert.equal(failure(() => values.open(changed, 'task/a')).reason, want, `byte ${at}`)
    }
  })

  test('name the key that they need', () => {
    const sealed = new SealedValues([key, young]).seal('x', 'task/a')
    assert.deepEqual(
      failure(() => new SealedValues([key]).open(sealed, 'task/a')),
      { reason: 'otherKey', message: 'task/a is sealed with the data key fedcba9876543210' },
    )
    const same = { ...buildValueKey(), id: young.id }
    assert.equal(
      failure(() => new SealedValues([same]).open(sealed, 'task/a')).reason,
      'damaged',
      'another key of the same id',
    )
  })

  test('are sealed with the newest key, and opened with any', () => {
    const old = new SealedValues([key]).seal('before', 'task/a')
    const both = new SealedValues([key, young])
    assert.equal(both.open(old, 'task/a'), 'before')
    const now = both.seal('after', 'task/a')
    assert.equal(new SealedValues([young]).open(now, 'task/a'), 'after')
  })

  test('as text are told from plain ones', () => {
    const values = sealedValues([key])
    assert.match(values.encode('{"a":1}', 'task/a'), /^sealed [A-Za-z0-9+/]+=*$/)
    assert.equal(values.decode(values.encode('{"a":1}', 'task/a'), 'task/a'), '{"a":1}')
    assert.equal(values.decode('{"a":1}', 'task/a'), '{"a":1}')
  })

  test('and what seals them show no key when they are printed', () => {
    const values = new SealedValues([key])
    const bytes = key.key.export()
    const shown = inspect([values, key], { depth: 9, showHidden: true })
    assert(!shown.includes(bytes.toString('hex')) && !shown.includes(bytes.toString('base64')))
  })
})
