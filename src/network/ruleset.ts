/** Families of nftables: IPv4 and IPv6. Rules and sets of one say nothing of the other's packets. */
export type Family = 'ip' | 'ip6'

/**
 * One nftables table, as text in parts: what never changes (hooks, empty sets) and what does (pages of
 * chains and elements). So a change can be told to the kernel as a difference, in one transaction, without taking hooks away.
 *
 * `nft` reads the names of all chains and sets before it does anything, so there are few: endpoints share chains, and the
 * targets of all of them are elements of one map.
 */
export interface Ruleset {
  readonly family: Family
  readonly table: string
  /** Declarations of sets and maps by name: `type ipv4_addr`. */
  readonly sets: Readonly<Record<string, string>>
  /** Time limits that connections may be given, by name: the body of a `ct timeout`. */
  readonly timeouts: Readonly<Record<string, string>>
  /** Base chains, constant for one kind of table. They may refer to any chain and set. */
  readonly hooks: readonly Hook[]
  /** Together what is in the table. A page that stayed the same is the same object, and nobody looks into it. */
  readonly pages: readonly RulesPage[]
}

export interface RulesPage {
  /** Rules by chain. No two pages have the same chain. */
  readonly chains: ReadonlyMap<string, readonly string[]>
  /** By set: `key` or `key : value`. Several pages may have the same element. */
  readonly elements: ReadonlyMap<string, ReadonlySet<string>>
  /**
   * Addresses that flows to a destination may be answered from, for protocols that have no connections. Key: a VIP, or a
   * published udp port.
   */
  readonly udpBackends: ReadonlyMap<string, ReadonlySet<string>>
  /** Addresses that connections are sent to, whatever the protocol. */
  readonly backends?: ReadonlySet<string>
}

/** A base chain: where packets come in. */
export interface Hook {
  readonly name: string
  /** `type nat hook output priority -110; policy accept;` */
  readonly hook: string
  readonly rules: readonly string[]
}

export interface Target {
  /** `10.0.0.5`, or `10.0.0.5 . 80`. */
  readonly target: string
  readonly weight: number
}

/** Sum of weights is scaled down to at most this: the kernel counts in it. */
const weightSumMax = 1 << 16

/** Places in a map that all endpoints share; who has more places (weights far apart) gets a map of its own. */
const sharedPlacesMax = 64

/**
 * A map of all endpoints' targets, and the part of its key that is one endpoint's.
 *
 * Rules and maps change in one transaction, but a packet that met the rules of before may look into the map of after, where the last
 * place may be gone. The first place is there as long as anybody takes connections: `firstPlace` is for such packets.
 */
export interface SharedMap {
  readonly name: string
  /** What a packet has there: `ip daddr`. */
  readonly expression: string
  /** The endpoint's value of it: `10.0.0.9`. */
  readonly key: string
}

export interface Choice {
  /** An expression that picks a target. */
  readonly target: string
  /** What it needs in the shared map. */
  readonly elements: readonly string[]
}

/**
 * Picks a target for each new connection, in turn, as often as its weight says. `rotation` says whose turn is first, so
 * that many nodes do not all begin with the same. `undefined` when nobody takes any.
 */
export function balance(
  targets: readonly Target[],
  options: { readonly rotation?: number; readonly shared?: SharedMap | undefined } = {},
): Choice | undefined {
  const { rotation = 0, shared } = options
  const able = targets
    .map(({ target, weight }) => ({ target, weight: Math.floor(weight) }))
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => (a.target < b.target ? -1 : 1))
  const [first] = able
  if (!first) return undefined
  if (able.length === 1) {
    const elements = shared ? [`${shared.key} . 0 : ${first.target}`] : []
    return { target: first.target, elements }
  }
  const offset = rotation % able.length
  const ordered = [...able.slice(offset), ...able.slice(0, offset)]
  const sum = ordered.reduce((total, { weight }) => total + weight, 0)
  const divisor =
    sum > weightSumMax
      ? sum / weightSumMax
      : ordered.reduce((divisorSoFar, { weight }) => commonDivisor(divisorSoFar, weight), 0)
  let next = 0
  const places = ordered.map(({ target, weight }) => {
    const start = next
    next += Math.max(1, Math.round(weight / divisor))
    return { target, start, end: next - 1 }
  })
  if (shared && next <= sharedPlacesMax) {
    return {
      target: `${shared.expression} . numgen inc mod ${next} map @${shared.name}`,
      elements: places.flatMap(({ target, start, end }) =>
        Array.from(
          { length: end - start + 1 },
          (_, index) => `${shared.key} . ${start + index} : ${target}`,
        ),
      ),
    }
  }
  const ranges = places.map(
    ({ target, start, end }) => `${start === end ? start : `${start}-${end}`} : ${target}`,
  )
  return { target: `numgen inc mod ${next} map { ${ranges.join(', ')} }`, elements: [] }
}

/** The target that any endpoint of a shared map has in its first place. */
export function firstPlace({ name, expression }: Pick<SharedMap, 'name' | 'expression'>): string {
  return `${expression} . numgen inc mod 1 map @${name}`
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b)
}

/** The whole table in one transaction, whatever was there. */
export function renderFull(ruleset: Ruleset): string {
  const { family, table, pages } = ruleset
  const lines = [
    `table ${family} ${table}`,
    `delete table ${family} ${table}`,
    `table ${family} ${table} {`,
  ]
  for (const [name, type] of Object.entries(ruleset.sets)) {
    lines.push(`  ${type.includes(' : ') ? 'map' : 'set'} ${name} { ${type}; }`)
  }
  for (const [name, body] of Object.entries(ruleset.timeouts)) {
    lines.push(`  ct timeout ${name} { ${body} }`)
  }
  for (const [name, rules] of pages.flatMap(({ chains }) => [...chains])) {
    lines.push(`  chain ${name} {`, ...rules.map((rule) => `    ${rule}`), '  }')
  }
  for (const { name, hook, rules } of ruleset.hooks) {
    lines.push(`  chain ${name} {`, `    ${hook}`, ...rules.map((rule) => `    ${rule}`), '  }')
  }
  lines.push('}')
  for (const [set, elements] of elementsBySet(pages)) {
    if (elements.size > 0) lines.push(elementCommand('add', ruleset, set, elements))
  }
  return `${lines.join('\n')}\n`
}

/** What to tell a kernel that has `before` so that it has `after`, in one transaction. Empty when they are the same. */
export function renderChange(before: Ruleset, after: Ruleset): string {
  const { family, table } = after
  if (before.table !== table || !isSameShape(before, after)) return renderFull(after)
  const old = before.pages.filter((page) => !after.pages.includes(page))
  const made = after.pages.filter((page) => !before.pages.includes(page))
  const oldElements = elementsBySet(old)
  const newElements = elementsBySet(made)
  const oldChains = new Map(old.flatMap(({ chains }) => [...chains]))
  const newChains = new Map(made.flatMap(({ chains }) => [...chains]))
  const lines: string[] = []
  for (const [set, elements] of oldElements) {
    const gone = without(set, elements, newElements, after.pages)
    if (gone.length > 0) lines.push(elementCommand('delete', after, set, gone))
  }
  for (const [name, rules] of newChains) {
    const known = oldChains.get(name)
    if (known && isSameList(known, rules)) continue
    lines.push(
      known ? `flush chain ${family} ${table} ${name}` : `add chain ${family} ${table} ${name}`,
    )
    for (const rule of rules) lines.push(`add rule ${family} ${table} ${name} ${rule}`)
  }
  for (const [set, elements] of newElements) {
    const added = without(set, elements, oldElements, before.pages)
    if (added.length > 0) lines.push(elementCommand('add', after, set, added))
  }
  for (const name of oldChains.keys()) {
    if (newChains.has(name)) continue
    lines.push(`flush chain ${family} ${table} ${name}`, `delete chain ${family} ${table} ${name}`)
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`
}

/** The elements that none of these pages has. Most are in those that changed. */
function without(
  set: string,
  elements: ReadonlySet<string>,
  changed: ReadonlyMap<string, ReadonlySet<string>>,
  pages: readonly RulesPage[],
): readonly string[] {
  const near = changed.get(set)
  return [...elements].filter(
    (element) => !near?.has(element) && !pages.some((page) => page.elements.get(set)?.has(element)),
  )
}

/** What several pages have in each set. */
export function elementsBySet(
  pages: readonly RulesPage[],
): ReadonlyMap<string, ReadonlySet<string>> {
  const sets = new Map<string, Set<string>>()
  for (const page of pages) {
    for (const [name, elements] of page.elements) {
      const known = sets.get(name) ?? new Set()
      sets.set(name, known)
      for (const element of elements) known.add(element)
    }
  }
  return sets
}

/** Takes the table away, whether it is there or not. */
export function renderRemoval({ family, table }: Pick<Ruleset, 'family' | 'table'>): string {
  return `table ${family} ${table}\ndelete table ${family} ${table}\n`
}

/**
 * Whether the kernel's own listing of a table can be the ruleset's: every chain has as many rules, every set as many
 * elements, and every word of an element and address of a rule occurs. The listing is worded by nft, differently from version to version, so words are not compared.
 */
export function isPlausibleListing(listing: string, ruleset: Ruleset): boolean {
  const found = chainsOf(listing)
  const expected = new Map([
    ...ruleset.pages.flatMap(({ chains }) => [...chains]),
    ...ruleset.hooks.map(({ name, rules }) => [name, rules] as const),
  ])
  if (found.size !== expected.size) return false
  for (const [name, rules] of expected) {
    const lines = found.get(name)
    if (lines?.length !== rules.length) return false
    const words = wordsOf(lines.join(' '))
    for (const rule of rules) {
      for (const address of rule.match(addressPattern) ?? []) {
        if (!words.has(address)) return false
      }
    }
  }
  const elements = elementsBySet(ruleset.pages)
  for (const name of Object.keys(ruleset.sets)) {
    const listed = setIn(listing, name)
    const wanted = elements.get(name) ?? new Set()
    if (listed.length !== wanted.size) return false
    const words = wordsOf(listed.join(' '))
    for (const element of wanted) {
      for (const word of element.replaceAll('"', '').split(/ [.:] | /)) {
        if (!words.has(word)) return false
      }
    }
  }
  return true
}

/** The elements of one set that a listing has: from its `elements = {` to the next brace. */
function setIn(listing: string, name: string): readonly string[] {
  const start = listing.search(new RegExp(`^\\s*(?:set|map) ${name} \\{$`, 'm'))
  if (start < 0) return []
  const set = listing.slice(start, listing.indexOf('\n\t}', start))
  const elements = /\belements = \{([^}]*)\}/.exec(set)?.[1]
  return elements === undefined ? [] : elements.split(',').map((element) => element.trim())
}

/** An address of either family within a rule. */
const addressPattern = /\d+\.\d+\.\d+\.\d+|[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}/g

/** A subnet is two: itself, and its address. An IPv6 address is one, whatever its colons. */
function wordsOf(text: string): ReadonlySet<string> {
  const words = text
    .split(/[\s,;{}"[\]]+/)
    .flatMap((word) => (/:.*:/.test(word) ? [word] : word.split(':')))
  return new Set(words.flatMap((word) => [word, word.split('/')[0] ?? '']))
}

/** Lines of rules by chain. A chain's end is a line with nothing but a brace; rules do not span lines. */
function chainsOf(listing: string): ReadonlyMap<string, readonly string[]> {
  const chains = new Map<string, string[]>()
  let rules: string[] | undefined
  for (const line of listing.split('\n').map((text) => text.trim())) {
    const name = /^chain (\S+) \{$/.exec(line)?.[1]
    if (name !== undefined) {
      rules = []
      chains.set(name, rules)
    } else if (line === '}') rules = undefined
    else if (line !== '' && !/^type \w+ hook /.test(line)) rules?.push(line)
  }
  return chains
}

function elementCommand(
  verb: 'add' | 'delete',
  { family, table }: Ruleset,
  set: string,
  elements: Iterable<string>,
): string {
  return `${verb} element ${family} ${table} ${set} { ${[...elements].join(', ')} }`
}

function isSameShape(before: Ruleset, after: Ruleset): boolean {
  return (
    isSameList(before.hooks.flatMap(flatHook), after.hooks.flatMap(flatHook)) &&
    isSameList(Object.entries(before.sets).flat(), Object.entries(after.sets).flat()) &&
    isSameList(Object.entries(before.timeouts).flat(), Object.entries(after.timeouts).flat())
  )
}

function flatHook({ name, hook, rules }: Hook): readonly string[] {
  return [name, hook, ...rules]
}

function isSameList(left: readonly string[], right: readonly string[]): boolean {
  return (
    left === right ||
    (left.length === right.length && left.every((item, index) => item === right[index]))
  )
}
