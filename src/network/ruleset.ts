/**
 * One nftables table of family `ip`, as text in parts: what never changes (hooks, empty sets) and what does (chains,
 * elements). So a change can be told to the kernel as a difference, in one transaction, without taking hooks away.
 */
export interface Ruleset {
  readonly table: string
  /** Declarations of sets and maps by name: `type ipv4_addr`. */
  readonly sets: Readonly<Record<string, string>>
  /** Rules by chain. */
  readonly chains: ReadonlyMap<string, readonly string[]>
  /** Base chains, constant for one kind of table. They may refer to any chain and set. */
  readonly hooks: readonly Hook[]
  /** By set: `key` or `key : verdict`. */
  readonly elements: ReadonlyMap<string, ReadonlySet<string>>
  /**
   * Addresses that flows to a destination may be answered from, for protocols that have no connections. Key: a VIP, or a
   * published udp port.
   */
  readonly udpBackends: ReadonlyMap<string, ReadonlySet<string>>
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

/**
 * The expression that picks a target for each new connection, in turn, as often as its weight says. `rotation` says
 * whose turn is first, so that many nodes do not all begin with the same. `undefined` when nobody takes any.
 */
export function balance(targets: readonly Target[], rotation = 0): string | undefined {
  const able = targets
    .map(({ target, weight }) => ({ target, weight: Math.floor(weight) }))
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => (a.target < b.target ? -1 : 1))
  const [first] = able
  if (!first) return undefined
  if (able.length === 1) return first.target
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
    return `${start === next - 1 ? start : `${start}-${next - 1}`} : ${target}`
  })
  return `numgen inc mod ${next} map { ${places.join(', ')} }`
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b)
}

/** The whole table in one transaction, whatever was there. */
export function renderFull(ruleset: Ruleset): string {
  const { table } = ruleset
  const lines = [`table ip ${table}`, `delete table ip ${table}`, `table ip ${table} {`]
  for (const [name, type] of Object.entries(ruleset.sets)) {
    lines.push(`  ${type.includes(' : ') ? 'map' : 'set'} ${name} { ${type}; }`)
  }
  for (const [name, rules] of ruleset.chains) {
    lines.push(`  chain ${name} {`, ...rules.map((rule) => `    ${rule}`), '  }')
  }
  for (const { name, hook, rules } of ruleset.hooks) {
    lines.push(`  chain ${name} {`, `    ${hook}`, ...rules.map((rule) => `    ${rule}`), '  }')
  }
  lines.push('}')
  for (const [set, elements] of ruleset.elements) {
    if (elements.size > 0) lines.push(elementCommand('add', table, set, elements))
  }
  return `${lines.join('\n')}\n`
}

/** What to tell a kernel that has `before` so that it has `after`, in one transaction. Empty when they are the same. */
export function renderChange(before: Ruleset, after: Ruleset): string {
  const { table } = after
  if (before.table !== table || !isSameShape(before, after)) return renderFull(after)
  const lines: string[] = []
  for (const [set, elements] of before.elements) {
    const gone = [...elements].filter((element) => !after.elements.get(set)?.has(element))
    if (gone.length > 0) lines.push(elementCommand('delete', table, set, gone))
  }
  for (const [name, rules] of after.chains) {
    const old = before.chains.get(name)
    if (old && isSameList(old, rules)) continue
    lines.push(old ? `flush chain ip ${table} ${name}` : `add chain ip ${table} ${name}`)
    for (const rule of rules) lines.push(`add rule ip ${table} ${name} ${rule}`)
  }
  for (const [set, elements] of after.elements) {
    const added = [...elements].filter((element) => !before.elements.get(set)?.has(element))
    if (added.length > 0) lines.push(elementCommand('add', table, set, added))
  }
  for (const name of before.chains.keys()) {
    if (after.chains.has(name)) continue
    lines.push(`flush chain ip ${table} ${name}`, `delete chain ip ${table} ${name}`)
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`
}

/** Takes the table away, whether it is there or not. */
export function renderRemoval(table: string): string {
  return `table ip ${table}\ndelete table ip ${table}\n`
}

/**
 * Whether the kernel's own listing of a table can be the ruleset's: every chain has as many rules, and every element and
 * address occurs. The listing is worded by nft, differently from version to version, so words are not compared.
 */
export function isPlausibleListing(listing: string, ruleset: Ruleset): boolean {
  const found = chainsOf(listing)
  const expected = new Map([
    ...ruleset.chains,
    ...ruleset.hooks.map(({ name, rules }) => [name, rules] as const),
  ])
  if (found.size !== expected.size) return false
  for (const [name, rules] of expected) {
    const lines = found.get(name)
    if (lines?.length !== rules.length) return false
    const words = wordsOf(lines.join(' '))
    for (const rule of rules) {
      for (const address of rule.match(/\d+\.\d+\.\d+\.\d+/g) ?? []) {
        if (!words.has(address)) return false
      }
    }
  }
  for (const [name, elements] of ruleset.elements) {
    const words = wordsOf(setIn(listing, name))
    for (const element of elements) {
      const [key = ''] = element.split(' : ')
      for (const word of key.replaceAll('"', '').split(' . ')) if (!words.has(word)) return false
    }
  }
  return true
}

/** What a listing says of one set: to the line with nothing but a brace. */
function setIn(listing: string, name: string): string {
  return new RegExp(`^\\s*(?:set|map) ${name} \\{$([^]*?)^\\s*\\}$`, 'm').exec(listing)?.[1] ?? ''
}

/** A subnet is two: itself, and its address. */
function wordsOf(text: string): ReadonlySet<string> {
  const words = text.split(/[\s,;:{}"]+/)
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
  table: string,
  set: string,
  elements: Iterable<string>,
): string {
  return `${verb} element ip ${table} ${set} { ${[...elements].join(', ')} }`
}

function isSameShape(before: Ruleset, after: Ruleset): boolean {
  return (
    isSameList(before.hooks.flatMap(flatHook), after.hooks.flatMap(flatHook)) &&
    isSameList(Object.entries(before.sets).flat(), Object.entries(after.sets).flat())
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
