import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { corpusNeighbours, readCorpus } from './corpus.testing.ts'
import { readQuickly } from './quick-yaml.ts'
import { parseWhole } from './whole-yaml.ts'

const corpus = [...readCorpus().map(({ text }) => text), ...Object.values(corpusNeighbours)]

/** What the parser of the whole of YAML makes of a text. */
function wholeOf(text: string): unknown {
  const sources = parseWhole('f', text)
  assert.equal(sources.length, 1)
  return sources[0]?.readTree()
}

/** Fails where the quick reader answers, and otherwise than the whole parser. */
function judge(text: string): boolean {
  const quick = readQuickly(text)
  if (quick === undefined) return false
  assert.deepEqual(quick.value, wholeOf(text), text)
  return true
}

describe('the quick reader of YAML', () => {
  test('reads almost all of the corpus, as the parser of the whole does', () => {
    const read = corpus.filter(judge).length
    assert.ok(read >= corpus.length - 12, `${read} of ${corpus.length}`)
  })

  const cases = [
    'a: b',
    'a:\n  b: 1\n  c:\n    - x\n    - y: 1\n      z: 2\n    -   q: 1\n        r: 2\n  d:\n',
    'a:\n- 1\n- - 2\n  - 3\n-\n  - 4\nb: 2',
    "a: 'it''s' # c\nb: \"x\\n\\\"\"\n'c d': 1\n\"e\": 2",
    'a: &x {b: [1, "2", c: ], d: }\n',
    'a: &x {b: [1, "2", c], d: , e: -f}\ne: *x\nf: {<<: *x, b: 3}\ng:\n  <<: [*x, {z: 1}]\n',
    'a: |\n  one\n\n    two\n  three\nb: >-\n  x\n  y\nc: |-\n  z # no comment\n\n',
    'a: [1,\n  2,\n  [3, 4] ]\nb: { c: d,\n  e: f }',
    'a: 0440\nb: 1.50\nc: 1.2.3\nd: ~\ne: Null\nf: yes\ng: -1\nh: 22:22\ni: 2024-01-01',
    'a: b: c',
    'a: "b" c',
    'a: b\n c: d',
    'a: b\n  c\n',
    'a: 1\na: 2',
    'a: [1, 2',
    'a: {b: 1, b: 2}',
    'a: !reset []',
    'a: *b',
    'a: &a {b: *a}',
    '  a: 1\n  b: 2',
    'a: 1\n b: 2',
    'a:\n    b: 1\n  c: 2',
    '"a": "b": c',
    '- a',
    'a: # c\n  # d\n  b: 1 # e',
    'a: #c',
    'a: b#c',
    'a: -',
    'a: - b',
    'a: 1e3',
    'a: +1',
    'a: .5',
    'a: 0x10',
    'a: 12345678901234567890',
    '1: a\ntrue: b\n~: c',
    'a: [a b, c:d, http://x/y?z]',
    'a: [b #c\n, d]',
    'a: {\'b\': 1, "c":2}',
    'a: {b}',
    'a: [,]',
    'a: []\nb: {}\nc: [ ]\nd: [a, ]',
    'a:b\n',
    'a :  b\n',
    'x: |\n\n  a\n',
    'x: |\n a\n  \n b\n',
    'x: >\n  a\n   b\n',
    'x: a\n\n\ny: b',
    '',
    '# nothing',
    'a: "\\u0041"',
    'a: %b',
    'a: @b',
    "a: 'b\n  c'",
    'a:\n  - b\n - c',
    'a:\n  - b\n   - c',
    'a: &b\n  c: 1\nd: *b\n',
    'a:\n  - &b c\n  - *b\n',
    'a:\n  - &b\n    c: 1\n  - *b\n',
    'a:\n  - &b c: 1\n',
    'a:\n  - &b\n  - c\n',
    'a:\n- &b # d\n- c: *b\ne: &f\n- g',
    'a: {<<: {b: 1, c: 1}, b: 2}',
    'a: ? b',
    '? a\n: b',
    'a: [b: c]',
    'a: ["b": c]',
    'a: [b]c',
    'a: [b]: c',
    'a: <b',
    'a: b: ',
    'a: b:',
    'a: "$$x"',
  ]
  for (const text of cases) {
    test(`reads ${JSON.stringify(text)} as the parser of the whole does, or not at all`, () => {
      judge(text)
    })
  }

  test('reads what was written as YAML', () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.stringMatching(/^[a-z]{1,4}$/),
          fc.letrec((tie) => ({
            value: fc.oneof(
              { depthSize: 'small' },
              fc.string(),
              fc.stringMatching(/^[-a-z0-9 :#.'"[\]{},&*|>~$/]{0,8}$/),
              fc.integer(),
              fc.double({ noNaN: true }),
              fc.boolean(),
              fc.constant(null),
              fc.array(tie('value'), { maxLength: 3 }),
              fc.dictionary(fc.stringMatching(/^[a-z]{1,4}$/), tie('value'), { maxKeys: 3 }),
            ),
          })).value,
          { minKeys: 1, maxKeys: 4 },
        ),
        (value) => void judge(stringify(value)),
      ),
      { numRuns: 500 },
    )
  })

  test('reads no broken text of the corpus otherwise than the parser of the whole', () => {
    const sign = fc.constantFrom(...' \n:-#"\'[]{},&*|>!?%@`~$0a<.=/'.split(''))
    fc.assert(
      fc.property(
        fc.constantFrom(...corpus),
        fc.array(fc.tuple(fc.nat(), fc.nat(3), fc.array(sign, { maxLength: 3 })), {
          minLength: 1,
          maxLength: 3,
        }),
        (text, edits) => {
          let broken = text
          for (const [place, length, more] of edits) {
            const at = place % (broken.length + 1)
            broken = broken.slice(0, at) + more.join('') + broken.slice(at + length)
          }
          judge(broken)
        },
      ),
      { numRuns: 1500 },
    )
  })
})
