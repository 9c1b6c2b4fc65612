import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parse } from 'yaml'
import { writeYaml } from './write-yaml.ts'

test('data is written as YAML in block form', () => {
  const data = {
    name: 'a',
    list: ['x', { a: 1, b: [true, null] }, [1, ['2']], {}],
    map: { 'odd key': 'no', url: 'http://h:80/?q', port: '8080:80', empty: {}, none: [] },
    script: 'set -e\n\n  echo "$a"\n',
  }
  assert.equal(
    writeYaml(data),
    `name: a
list:
  - x
  - a: 1
    b:
      - true
      - null
  - - 1
    - - "2"
  - {}
map:
  "odd key": "no"
  url: "http://h:80/?q"
  port: "8080:80"
  empty: {}
  none: []
script: |
  set -e

    echo "$a"
`,
  )
})

test('what is written is read as the same', () => {
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.stringMatching(/^[-a-z0-9 :#.'"[\]{},&*|>~$/\n]{0,12}$/),
    fc.constantFrom(
      'yes',
      'null',
      '~',
      '1.5',
      '0x1',
      '',
      ' ',
      '\n',
      'a\n',
      'a\n\n',
      '2024-01-01',
      'a: b',
    ),
  )
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      text,
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(
        text.filter((key) => key !== '__proto__'),
        tie('value'),
        { maxKeys: 3 },
      ),
    ),
  }))
  fc.assert(
    fc.property(value, (data) => {
      const written = writeYaml({ data })
      assert.deepEqual(
        JSON.parse(JSON.stringify(parse(written))),
        JSON.parse(JSON.stringify({ data })),
        written,
      )
    }),
    { numRuns: 1500 },
  )
})
