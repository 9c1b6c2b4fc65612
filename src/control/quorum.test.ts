import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { decideQuorum, quorumOf } from './quorum.ts'

/** Managers m1, m2, …: `+` in reach, `-` not. */
const managers = (signs: string) =>
  signs.split('').map((sign, index) => ({
    id: `m${index + 1}`,
    name: `m${index + 1}`,
    isReachable: sign === '+',
  }))
const demote = (signs: string, id: string) => decideQuorum(managers(signs), { type: 'demote', id })

describe('the quorum of managers', () => {
  const cases: readonly (readonly [string, string, string | undefined])[] = [
    ['+', 'm1', 'attempting to demote the last manager of the swarm'],
    ['++', 'm1', undefined],
    ['+++', 'm1', undefined],
    ['++-', 'm3', undefined],
    [
      '++-',
      'm1',
      'without it the swarm would lose its quorum: of 2 managers 2 have to be reachable, and 1 would be (out of reach: m3)',
    ],
    ['+++--', 'm5', undefined],
    [
      '+++--',
      'm1',
      'without it the swarm would lose its quorum: of 4 managers 3 have to be reachable, and 2 would be (out of reach: m4, m5)',
    ],
  ]
  for (const [signs, id, because] of cases) {
    test(`${signs} without ${id}: ${because ?? 'kept'}`, () => {
      const verdict = demote(signs, id)
      assert.equal(verdict.isKept ? undefined : verdict.because, because)
    })
  }

  test('is lost by promoting a node that is away, and is not by one that is there', () => {
    const promote = (isReachable: boolean) =>
      decideQuorum(managers('+'), {
        type: 'promote',
        manager: { id: 'w1', name: 'w1', isReachable },
      })
    assert.equal(promote(true).isKept, true)
    const refused = promote(false)
    assert(!refused.isKept)
    assert.match(refused.because, /^with it .* of 2 managers 2 .* 1 would be \(out of reach: w1\)$/)
  })

  test('is kept exactly when a majority of those that remain is in reach', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 2, maxLength: 7 }), fc.nat(6), (up, at) => {
        const all = managers(up.map((one) => (one ? '+' : '-')).join(''))
        const index = at % all.length
        const left = all.filter((_, other) => other !== index)
        const reachable = left.filter(({ isReachable }) => isReachable).length
        const verdict = decideQuorum(all, { type: 'demote', id: all[index]?.id ?? '' })
        assert.equal(verdict.isKept, reachable >= quorumOf(left.length))
      }),
    )
  })
})
