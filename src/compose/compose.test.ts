// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of stack files are what is tested
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../base/index.ts'
import { familiarImage } from './image-name.ts'
import { interpolate } from './interpolate.ts'
import { loadStack } from './load-stack.ts'
import { nearest } from './reader.ts'
import { splitShellWords } from './shell-words.ts'
import { parseBytes, parseDurationNs, parseNanoCpus } from './units.ts'
import { parseWhole } from './whole-yaml.ts'

describe('interpolate', () => {
  const env = { A: '1', EMPTY: '', B: 'b' }
  const cases = [
    ['$A-${A}', '1-1'],
    ['$$A $${A}', '$A ${A}'],
    ['${X:-d}${EMPTY:-d}${EMPTY-d}${A:-d}', 'dd1'],
    ['${X:+y}${EMPTY:+y}${EMPTY+y}${A:+y}', 'yy'],
    ['${X:-${A:-z}-$B}', '1-b'],
    ['${A:?no}', '1'],
    ['$A_', ''],
    ['100%', '100%'],
  ] as const
  for (const [text, want] of cases) {
    test(`${text} becomes "${want}"`, () => assert.equal(interpolate(text, env), want))
  }

  test('a required variable that is missing is refused with its message', () => {
    assert.throws(() => interpolate('${X:?set the tag}', env), /X is missing: set the tag/)
  })

  test('what is no variable is refused', () => {
    for (const text of ['$', '${', '${A', '${1}', '$ ', '${A!}']) {
      assert.throws(() => interpolate(text, env), UserError, text)
    }
  })

  test('gives what its operators mean, however deep they are nested', () => {
    interface Part {
      readonly text: string
      readonly value: string
    }
    const names = { SET: 'value', EMPTY: '', NONE: undefined }
    const name = fc.constantFrom('SET', 'EMPTY', 'NONE')
    const literal = fc
      .stringMatching(/^[a-z :?+/-]{0,5}$/)
      .map((text): Part => ({ text, value: text }))
    const { whole } = fc.letrec<{ part: Part; whole: Part }>((tie) => ({
      part: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        literal,
        fc.constant<Part>({ text: '$$', value: '$' }),
        name.map((one): Part => ({ text: `\${${one}}`, value: names[one] ?? '' })),
        fc
          .tuple(name, fc.constantFrom('-', ':-', '+', ':+'), tie('whole'))
          .map(([one, operator, argument]): Part => {
            const value = names[one]
            const isThere = operator.startsWith(':') ? Boolean(value) : value !== undefined
            const isDefault = operator.endsWith('-')
            const taken = isThere === isDefault ? (isDefault ? (value ?? '') : '') : argument.value
            return { text: `\${${one}${operator}${argument.text}}`, value: taken }
          }),
      ),
      whole: fc.array(tie('part'), { maxLength: 3 }).map((parts) => ({
        text: parts.map(({ text }) => text).join(''),
        value: parts.map(({ value }) => value).join(''),
      })),
    }))
    fc.assert(
      fc.property(whole, ({ text, value }) => assert.equal(interpolate(text, names), value, text)),
      { numRuns: 500 },
    )
  })

  test('text with its dollars doubled comes back unchanged', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        assert.equal(interpolate(text.replaceAll('$', '$$$$'), {}), text)
      }),
    )
  })
})

test('durations are read as Go reads them', () => {
  const cases = [
    ['1m30s', 90e9],
    ['500ms', 5e8],
    ['1.5h', 5400e9],
    ['0', 0],
    ['-1s', -1e9],
  ] as const
  for (const [text, ns] of cases) assert.equal(parseDurationNs(text), ns)
  for (const text of ['', '5', '1m bogus', '1y', 's', '1 s', '.s']) {
    assert.throws(() => parseDurationNs(text), UserError, text)
  }
})

test('sizes and CPUs are read as docker reads them', () => {
  const cases = [
    ['512M', 536870912],
    ['1g', 1073741824],
    ['1.5KiB', 1536],
    ['7', 7],
    ['64 kb', 65536],
  ] as const
  for (const [text, bytes] of cases) assert.equal(parseBytes(text), bytes)
  for (const text of ['', 'M', '1x', '-1', '1e3'])
    assert.throws(() => parseBytes(text), UserError, text)
  assert.equal(parseNanoCpus('0.25'), 250_000_000)
  assert.equal(parseNanoCpus('.5'), 500_000_000)
  for (const text of ['', 'x', '-1', '.', '0.0000000001']) {
    assert.throws(() => parseNanoCpus(text), UserError, text)
  }
})

test('a command line is split as a shell does', () => {
  assert.deepEqual(splitShellWords(`a 'b c' "d \\" e" f\\ g '' # rest`), [
    'a',
    'b c',
    'd " e',
    'f g',
    '',
  ])
  assert.throws(() => splitShellWords('a "b'), UserError)
  assert.throws(() => splitShellWords("a 'b"), UserError)
})

test('an image gets its familiar name and a tag', () => {
  const cases = [
    ['nginx', 'nginx:latest'],
    ['docker.io/library/nginx', 'nginx:latest'],
    ['docker.io/me/app:1', 'me/app:1'],
    ['localhost:5000/a', 'localhost:5000/a:latest'],
    ['redis@sha256:ab', 'redis@sha256:ab'],
  ] as const
  for (const [image, want] of cases) assert.equal(familiarImage(image), want)
})

test('YAML numbers with a leading zero are octal, merge keys merge', () => {
  const read = (text: string) => parseWhole('f', text).map((one) => one.readTree())
  assert.deepEqual(read('a: &a {mode: 0440, on: yes}\nb: {<<: *a, p: "22:22"}'), [
    { a: { mode: 288, on: 'yes' }, b: { mode: 288, on: 'yes', p: '22:22' } },
  ])
  assert.throws(() => parseWhole('f.yml', 'a: {'), /f\.yml:1:\d: is not valid YAML/)
})

test('the nearest word is found for a slip only', () => {
  assert.equal(nearest('enviroment', ['environment', 'image']), 'environment')
  assert.equal(nearest('zzz', ['environment', 'image']), undefined)
})

describe('a stack file', () => {
  async function load(text: string, warn: (text: string) => void = () => {}) {
    return await loadStack('st', ['/d/a.yml'], {
      readFile: async (path) => {
        if (path === '/d/a.yml') return Buffer.from(text)
        throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
      },
      env: {},
      warn,
    })
  }

  const refused = [
    ['services: {web: {image: a, enviroment: {}}}', /services\.web\.enviroment is not supported.*/],
    ['services: {web: {image: a, mem_limit: 5m}}', /mem_limit is not supported in a stack/],
    ['services: {web: {build: .}}', /services\.web\.image is missing/],
    ['services: {web: {image: a, networks: [x]}}', /names x, which the file does not have/],
    ['services: {web: {image: a, volumes: ["x:/x"]}}', /names the volume x/],
    ['services: {web: {image: a, secrets: [x]}}', /names x/],
    ['services: {web: {image: a, ports: ["x"]}}', /ports\[0\] "x" is not a port/],
    ['services: {web: {image: a, ports: ["1-2:1"]}}', /ranges of unequal length/],
    ['services: {web: {image: a, environment: {A: true}}}', /environment\.A must be a string/],
    ['services: {web: {image: a, deploy: {replicas: -1}}}', /replicas must be a whole number/],
    ['services: {web: {image: a, deploy: {mode: global, replicas: 2}}}', /does not go with/],
    ['services: {web: {image: a, stop_grace_period: 5}}', /"5" is not a duration/],
    ['version: "2"\nservices: {web: {image: a}}', /version is 2/],
    ['services: {}', /has no services/],
    [
      'services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [a]}}',
      /wait in a circle: a → b → a/,
    ],
    ['- a', /is not a mapping/],
  ] as const
  for (const [text, message] of refused) {
    test(`is refused by the key's name: ${text}`, async () => {
      await assert.rejects(
        load(text),
        (error) => error instanceof UserError && message.test(error.message),
      )
    })
  }

  test('a network of a stack may have IPv6, with a subnet of its own or without', async () => {
    const { networks } = await load(`
services: {web: {image: a, networks: [six]}}
networks:
  six:
    enable_ipv6: true
    ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: "fd00:9::/64"}]}
`)
    const six = networks.find(({ Name }) => Name.endsWith('six'))
    assert.equal(six?.EnableIPv6, true)
    assert.deepEqual(six?.IPAM?.Config, [{ Subnet: '10.9.0.0/24' }, { Subnet: 'fd00:9::/64' }])
  })

  test('what has no effect is told by name', async () => {
    const told: string[] = []
    await load(
      'services: {web: {image: "a:$X", depends_on: [b], privileged: true, restart: "no"}}',
      (text) => told.push(text),
    )
    assert.deepEqual(
      new Set(told.map((text) => text.split(' has no effect')[0])),
      new Set([
        'services.web.depends_on.b',
        'services.web.privileged',
        'services.web.restart: no',
        'the variable X is not set: an empty string is used',
      ]),
    )
  })

  test('never ends in anything but a stack or a UserError', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(
          'image',
          'ports',
          'volumes',
          'deploy',
          'environment',
          'healthcheck',
          'networks',
          'secrets',
          'ulimits',
          'command',
          'logging',
          'extra_hosts',
        ),
        fc.jsonValue(),
        async (key, value) => {
          try {
            await load(JSON.stringify({ services: { web: { image: 'a', [key]: value } } }))
          } catch (error) {
            assert.ok(error instanceof UserError, String(error))
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})
