import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { idFrom } from '../model/index.ts'
import { readConnectionTimeouts } from './connection-timeouts.ts'
import { renderHostRules } from './host-rules.ts'
import {
  balance,
  elementsBySet,
  isPlausibleListing,
  type Ruleset,
  renderChange,
  renderFull,
} from './ruleset.ts'
import { buildEndpoint, buildNetwork } from './test-objects.ts'

describe('balance', () => {
  const cases = [
    { name: 'nobody', targets: [], want: undefined },
    { name: 'one', targets: [{ target: 'a', weight: 5 }], want: 'a' },
    {
      name: 'nobody with a weight',
      targets: [
        { target: 'a', weight: 0 },
        { target: 'b', weight: 0 },
      ],
      want: undefined,
    },
    {
      name: 'two alike, whatever their weight',
      targets: [
        { target: 'b', weight: 10 },
        { target: 'a', weight: 10 },
      ],
      want: 'numgen inc mod 2 map { 0 : a, 1 : b }',
    },
    {
      name: 'weights',
      targets: [
        { target: 'a', weight: 95 },
        { target: 'b', weight: 5 },
      ],
      want: 'numgen inc mod 20 map { 0-18 : a, 19 : b }',
    },
  ]
  for (const { name, targets, want } of cases) {
    test(name, () => assert.equal(balance(targets)?.target, want))
  }

  test('shares are those of the weights, in one unbroken range from 0, however rotated', () => {
    const weights = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 2, maxLength: 20 })
    fc.assert(
      fc.property(weights, fc.nat(100), (given, rotation) => {
        const targets = given.map((weight, index) => ({ target: `10.0.0.${index}`, weight }))
        const text = balance(targets, { rotation })?.target ?? ''
        const able = given.filter((weight) => weight > 0)
        if (able.length < 2) return
        const modulus = Number(/mod (\d+)/.exec(text)?.[1])
        let next = 0
        for (const [, start, end, target] of text.matchAll(/(\d+)(?:-(\d+))? : 10\.0\.0\.(\d+)/g)) {
          assert.equal(Number(start), next)
          next = Number(end ?? start) + 1
          const share = (next - Number(start)) / modulus
          const sum = able.reduce((total, weight) => total + weight, 0)
          assert.ok(Math.abs(share - (given[Number(target)] ?? 0) / sum) < 1e-9)
        }
        assert.equal(next, modulus)
        const shared = { name: 'targets', expression: 'ip daddr', key: '10.0.0.9' }
        const choice = balance(targets, { rotation, shared })
        if (choice?.elements.length === 0) return assert.ok(modulus > 64)
        assert.equal(choice?.target, `ip daddr . numgen inc mod ${modulus} map @targets`)
        assert.deepEqual(choice.elements, placesOf(text))
      }),
    )
  })

  /** What the text of a map of one's own says, place by place. */
  function placesOf(text: string): readonly string[] {
    const ranges = text.matchAll(/(\d+)(?:-(\d+))? : (\S+?),? /g)
    return [...ranges].flatMap(([, start = '', end = start, target = '']) =>
      Array.from(
        { length: Number(end) - Number(start) + 1 },
        (_, index) => `10.0.0.9 . ${Number(start) + index} : ${target}`,
      ),
    )
  }
})

/** A kernel that keeps text: what a table holds after a script, by the few commands we use. */
class TextKernel {
  chains = new Map<string, string[]>()
  sets = new Map<string, Set<string>>()

  run(script: string): void {
    let chain: string[] | undefined
    for (const line of script.split('\n').map((text) => text.trim())) {
      const [verb = '', what = '', , , name = '', ...rest] = line.split(' ')
      const opened = /^chain (\S+) \{$/.exec(line)?.[1]
      const elements = /\{ (.*) \}$/.exec(line)?.[1]?.split(', ') ?? []
      if (line.startsWith('table') && line.endsWith('{')) {
        this.chains.clear()
        this.sets.clear()
      } else if (opened !== undefined) {
        assert.ok(!this.chains.has(opened))
        chain = []
        this.chains.set(opened, chain)
      } else if (line === '}') chain = undefined
      else if (chain) chain.push(line)
      else if (line.startsWith('set ') || line.startsWith('map ')) this.sets.set(what, new Set())
      else if (verb === 'add' && what === 'chain') this.chains.set(name, [])
      else if (verb === 'add' && what === 'rule') this.#chain(name).push(rest.join(' '))
      else if (verb === 'flush') this.#chain(name).length = 0
      else if (verb === 'delete' && what === 'chain') {
        assert.equal(this.#chain(name).length, 0, 'a chain is emptied before it goes')
        for (const set of this.sets.values()) {
          for (const element of set) assert.ok(!element.endsWith(`goto ${name}`), 'still used')
        }
        this.chains.delete(name)
      } else if (what === 'element') {
        const set = this.sets.get(name)
        assert.ok(set)
        for (const element of elements) {
          const used = /goto (\S+)$/.exec(element)?.[1]
          if (used !== undefined) this.#chain(used)
          if (verb === 'add') set.add(element)
          else assert.ok(set.delete(element), `${element} was there`)
        }
      }
    }
  }

  #chain(name: string): string[] {
    const chain = this.chains.get(name)
    assert.ok(chain, `chain ${name} is there`)
    return chain
  }
}

/** As nft prints a table. */
function listingOf(ruleset: Ruleset): string {
  const lines = [`table ip ${ruleset.table} {`]
  for (const [name, type] of Object.entries(ruleset.sets)) {
    const elements = [...(elementsBySet(ruleset.pages).get(name) ?? [])]
    lines.push(`\t${type.includes(' : ') ? 'map' : 'set'} ${name} {`, `\t\t${type}`)
    if (elements.length > 0) lines.push(`\t\telements = { ${elements.join(',\n\t\t\t')} }`)
    lines.push('\t}')
  }
  const chains = [
    ...ruleset.pages.flatMap(({ chains: ofPage }) => [...ofPage]),
    ...ruleset.hooks.map(({ name, hook, rules }) => [name, [hook, ...rules]] as const),
  ]
  for (const [name, rules] of chains) {
    lines.push(`\tchain ${name} {`, ...rules.map((rule) => `\t\t${rule}`), '\t}')
  }
  return `${lines.join('\n')}\n}\n`
}

const network = buildNetwork('net')
const ingress = buildNetwork('ingress', {
  ingress: true,
  subnet: '10.0.2.0/24',
  gateway: '10.0.2.1',
})
const address = fc.integer({ min: 2, max: 250 })
const backend = fc.record({
  taskId: fc.constantFrom('a', 'b', 'c').map((id) => idFrom<'task'>(id)),
  taskName: fc.constant('task'),
  nodeId: fc.constant(idFrom<'node'>('node')),
  weight: fc.integer({ min: 0, max: 3 }),
  addresses: fc.record({ [network.id]: address.map((last) => `10.0.1.${last}`) }),
})
const endpoints = fc.uniqueArray(
  fc.record({
    number: fc.integer({ min: 1, max: 6 }),
    backends: fc.array(backend, { maxLength: 3 }),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  }),
  { selector: ({ number }) => number, maxLength: 6 },
)
const built = endpoints.map((items) =>
  items.map(({ number, backends, protocol }) =>
    buildEndpoint(`web${number}`, {
      networks: [{ networkId: network.id, vip: `10.0.1.25${number - 1}`, aliases: [] }],
      backends,
      ports: [{ protocol, publishedPort: 8000 + number }],
    }),
  ),
)
const rulesets = built.map((items) =>
  renderHostRules({ table: 'skep', networks: [network, ingress], endpoints: items }),
)
const timeouts = await readConnectionTimeouts()
/** As a host has them whose kernel can give connections time limits. */
const timedRulesets = built.map((items) =>
  renderHostRules({ table: 'skep', networks: [network, ingress], endpoints: items, timeouts }),
)

/** A listing's chains and elements: the kernel says them in the order in which they came. */
function inAnyOrder(listing: string): string {
  const parts = listing
    .replace(/\}\s*$/, '')
    .split(/\n\n|\n(?=\t(?:chain|map|set|ct) )/)
    .map((part) =>
      part
        .split(/,\s*|\n/)
        .map((line) => line.replace(/elements = \{ | \}$/g, '').trim())
        .filter((line) => line !== '')
        .join('\n'),
    )
  return parts
    .map((part) => (/^(?:map|set) /.test(part) ? part.split('\n').toSorted().join('\n') : part))
    .toSorted()
    .join('\n\n')
}

describe('what the kernel is told', () => {
  test('differences lead to the same table as telling all of it', () => {
    fc.assert(
      fc.property(fc.array(rulesets, { minLength: 2, maxLength: 6 }), (steps) => {
        const kernel = new TextKernel()
        let before: Ruleset | undefined
        for (const after of steps) {
          kernel.run(before ? renderChange(before, after) : renderFull(after))
          const whole = new TextKernel()
          whole.run(renderFull(after))
          assert.deepEqual(kernel, whole)
          assert.equal(renderChange(after, after), '')
          before = after
        }
      }),
    )
  })

  test('a kernel takes each difference, and has the same after it as after all of it', {
    skip: process.getuid?.() === 0 ? false : 'needs root',
  }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'ruleset-'))
    try {
      const ways = fc.sample(fc.array(timedRulesets, { minLength: 4, maxLength: 4 }), 12)
      const tell = (name: string, script: string): string => {
        const path = join(folder, name)
        writeFileSync(path, script)
        return `nft -f ${path}`
      }
      const commands = ways.flatMap((steps, way) => [
        ...steps.map((after, step) => {
          const before = steps[step - 1]
          return tell(`${way}-${step}`, before ? renderChange(before, after) : renderFull(after))
        }),
        'nft -s list table ip skep',
        'echo ---',
        ...steps.slice(-1).map((last) => tell(`${way}-whole`, renderFull(last))),
        'nft -s list table ip skep',
        'echo ===',
      ])
      const output = execFileSync('unshare', ['-n', 'sh', '-ec', commands.join('\n')], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      const listings = output.split('===\n').slice(0, -1)
      assert.equal(listings.length, ways.length)
      for (const listing of listings) {
        const [byDifferences = '', whole] = listing.split('---\n').map(inAnyOrder)
        assert.match(byDifferences, /chain prerouting/)
        assert.equal(byDifferences, whole)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('a listing without a rule, an element or an address is not taken for the table', () => {
    const endpoint = buildEndpoint('web', {
      networks: [{ networkId: network.id, vip: '10.0.1.9', aliases: [] }],
      backends: [
        {
          taskId: idFrom('a'),
          taskName: 'web.1',
          nodeId: idFrom('n'),
          weight: 1,
          addresses: { [network.id]: '10.0.1.2' },
        },
      ],
    })
    const ruleset = renderHostRules({ table: 'skep', networks: [network], endpoints: [endpoint] })
    const listing = listingOf(ruleset)
    assert.ok(isPlausibleListing(listing, ruleset))
    for (const gone of ['dnat to 10.0.1.2', 'goto vips-', 'vmap @balanced']) {
      const line = listing.split('\n').filter((text) => !text.includes(gone))
      assert.ok(!isPlausibleListing(line.join('\n'), ruleset), gone)
    }
    assert.ok(!isPlausibleListing(listing.replace('dnat to 10.0.1.2', 'dnat to 10.0.1.3'), ruleset))
  })

  test('a listing that has another target in a map is not taken for the table', () => {
    const taskOf = (name: string, place: string) => ({
      taskId: idFrom<'task'>(name),
      taskName: name,
      nodeId: idFrom<'node'>('n'),
      weight: 1,
      addresses: { [network.id]: place },
    })
    const endpoint = buildEndpoint('web', {
      networks: [{ networkId: network.id, vip: '10.0.1.9', aliases: [] }],
      backends: [taskOf('a', '10.0.1.2'), taskOf('b', '10.0.1.3')],
    })
    const ruleset = renderHostRules({ table: 'skep', networks: [network], endpoints: [endpoint] })
    const listing = listingOf(ruleset)
    const target = '10.0.1.9 . 0 : 10.0.1.2'
    assert.ok(isPlausibleListing(listing, ruleset))
    assert.ok(!isPlausibleListing(listing.replace(target, '10.0.1.9 . 1 : 10.0.1.4'), ruleset))
    assert.ok(!isPlausibleListing(listing.replace(`${target},`, ''), ruleset))
    assert.ok(
      !isPlausibleListing(listing.replace(target, `${target}, 10.0.1.9 . 2 : 10.0.1.3`), ruleset),
    )
  })

  test('a change of one endpoint makes one page anew', () => {
    const many = Array.from({ length: 300 }, (_, number) => buildEndpoint(`web${number}`, {}))
    const pagesOf = (items: typeof many) =>
      renderHostRules({ table: 'skep', networks: [network], endpoints: items }).pages
    const before = pagesOf(many)
    const changed = buildEndpoint('web7', { ports: [{ publishedPort: 80 }] })
    const after = pagesOf(many.map((one) => (one.id === changed.id ? changed : one)))
    assert.equal(after.filter((page) => !before.includes(page)).length, 1)
  })

  test('the rules of a node with an address on the ingress network are known again', () => {
    const ingress = {
      ...buildNetwork('ingress', { subnet: '10.0.0.0/24', gateway: '10.0.0.1', ingress: true }),
      nodeAddress: { address: '10.0.0.254', mac: '02:42:0a:00:00:fe' },
    }
    const ruleset = renderHostRules({ table: 'skep', networks: [ingress], endpoints: [] })
    const listing = listingOf(ruleset)
    assert.match(listing, /ip daddr 10\.0\.0\.0\/24 .* snat to 10\.0\.0\.254/)
    assert.ok(isPlausibleListing(listing, ruleset))
  })
})
