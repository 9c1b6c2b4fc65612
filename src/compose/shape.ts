import { UserError } from '../base/index.ts'
import type { Dialect } from './load-options.ts'
import type { Extensions } from './project.ts'
import { isMapping, type Mapping, nearest } from './reader.ts'
import { pathText, placedFault, type Step, Tagged, type YamlSource } from './yaml-source.ts'

/** One reading of one document: what its values are read with, and what was found on the way. */
export interface Reading {
  readonly source: YamlSource
  readonly dialect: Dialect
  /** Absolute: where relative paths start. */
  readonly directory: string
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Variables are not put in: text that holds one stands as it is wherever it stands. */
  readonly isRaw: boolean
  /** Hears of a key without effect: its place, what to say of it. */
  readonly onIdle: (path: string, why: string) => void
  /** Hears of an older form. */
  readonly onDeprecated: (text: string) => void
  /** Paths in the model that `!reset` and `!override` clear. */
  readonly cleared: string[][]
}

/** A place in a document, as the file names it and as the model does. */
export class Place {
  readonly reading: Reading
  private readonly parent: Place | undefined
  private readonly step: Step
  private readonly modelStep: string

  private constructor(
    reading: Reading,
    parent: Place | undefined,
    step: Step,
    modelStep = String(step),
  ) {
    this.reading = reading
    this.parent = parent
    this.step = step
    this.modelStep = modelStep
  }

  static root(reading: Reading): Place {
    return new Place(reading, undefined, '')
  }

  to(step: Step, modelStep?: string): Place {
    return new Place(this.reading, this, step, modelStep)
  }

  path(): Step[] {
    return this.parent === undefined ? [] : [...this.parent.path(), this.step]
  }

  modelPath(): string[] {
    return this.parent === undefined ? [] : [...this.parent.modelPath(), this.modelStep]
  }

  text(): string {
    return pathText(this.path())
  }

  /** What stands behind `!override`; nothing behind `!reset`. Both clear the place for earlier files. */
  untagged(value: unknown): unknown {
    if (!(value instanceof Tagged)) return value
    this.reading.cleared.push(this.modelPath())
    return value.tag === 'reset' ? undefined : value.value
  }

  /** `file:line:column: path what`. */
  fault(what: string, next?: string): UserError {
    const { source } = this.reading
    const path = this.path()
    const error = placedFault(source, path, source.find(path).offset, what)
    return new UserError('invalidInput', error.message, next === undefined ? {} : { next })
  }
}

/** How values of one kind are read, laid over each other and written. */
export interface Shape<T> {
  /** Told where something else is found: `must be …`. */
  readonly expects: string
  /** Throws `invalidInput` at its place. */
  readonly parse: (value: unknown, at: Place) => T
  /** A later file's value over an earlier one's. */
  readonly merge: (before: T, after: T, dialect: Dialect) => T
  /** As the file's long form has it. */
  readonly write: (value: T) => unknown
  /** What lies below, for those who list all keys. */
  readonly inside?: Inside
  /** An absent value stands for this one: `networks: {a: }`. */
  readonly whenNull?: () => T
}

export interface Inside {
  /** `.key`, `.*` for any key, `[]` for a list's items. */
  readonly kind: 'fields' | 'record' | 'list'
  readonly fields?: readonly FieldRule[]
  readonly item?: Inside | undefined
}

/** What becomes of a key: it is honoured, it is told that it is not, or the file is refused. */
export type Support =
  | { readonly level: 'supported' }
  | { readonly level: 'warned'; readonly why: string }
  | { readonly level: 'refused'; readonly next: string }

export const supported: Support = { level: 'supported' }
export const warned = (why: string): Support => ({ level: 'warned', why })
export const refused = (next: string): Support => ({ level: 'refused', next })

export interface FieldRule {
  readonly name: string
  readonly compose: Support
  readonly stack: Support
  readonly inside?: Inside | undefined
}

export interface Field<T> extends FieldRule {
  readonly shape: Shape<T>
  readonly isRequired: boolean
}

export type FieldsOf<T> = {
  readonly [Key in Exclude<keyof T, 'extensions'>]-?: Field<NonNullable<T[Key]>>
}

export function field<T>(
  name: string,
  shape: Shape<T>,
  options: {
    readonly compose?: Support
    readonly stack?: Support
    readonly isRequired?: boolean
  } = {},
): Field<T> {
  return {
    name,
    shape,
    compose: options.compose ?? supported,
    stack: options.stack ?? supported,
    isRequired: options.isRequired ?? false,
    inside: shape.inside,
  }
}

/** Makes a shape that also takes text with variables in it, where they are left in. */
export function shapeOf<T>(
  parts: Pick<Shape<T>, 'expects' | 'parse'> & Partial<Shape<T>>,
): Shape<T> {
  const { parse, merge = (_before: T, after: T) => after, write = (value: T) => value } = parts
  return {
    ...parts,
    parse: (value, at) => {
      if (value instanceof Tagged) {
        throw at.fault(`is tagged !${value.tag}, which only keys of mappings can be`)
      }
      if (at.reading.isRaw && typeof value === 'string' && value.includes('$')) return value as T
      return parse(value, at)
    },
    merge: (before, after, dialect) =>
      typeof before === 'string' || typeof after === 'string'
        ? after
        : merge(before, after, dialect),
    write: (value) => (typeof value === 'string' ? value : write(value)),
  }
}

export function wrong(at: Place, expects: string, value: unknown): UserError {
  const given = Array.isArray(value)
    ? 'a list'
    : value === null
      ? 'empty'
      : typeof value === 'object'
        ? 'a mapping'
        : JSON.stringify(value)
  const next =
    typeof value === 'boolean' && expects.includes('string') ? 'Put it in quotes.' : undefined
  return at.fault(`must be ${expects}, and is ${given}`, next)
}

/** A mapping with known keys. `short` reads another form into what the long form would hold. */
export function object<T extends object>(
  fields: FieldsOf<T>,
  options: {
    readonly expects?: string
    readonly short?: (value: unknown, at: Place) => T | undefined
    readonly merge?: (before: T, after: T, dialect: Dialect) => T
    /** Checks what belongs together, and completes it. */
    readonly finish?: (value: T, at: Place) => T
    readonly isEmptyWhenNull?: boolean
    /** Keys beside the fields that someone else reads. */
    readonly otherKeys?: readonly string[]
    readonly isStrict?: boolean
    readonly write?: (value: T) => unknown
  } = {},
): Shape<T> {
  const rules: [string, Field<unknown>][] = Object.entries({ ...fields })
  const byName = new Map(rules.map(([key, rule]) => [rule.name, { key, rule }]))
  const expects = options.expects ?? 'a mapping'
  const hasExtensions = options.isStrict !== true

  function parse(value: unknown, at: Place): T {
    const short = options.short?.(value, at)
    if (short !== undefined) return short
    if (!isMapping(value)) throw wrong(at, expects, value)
    const entries: [string, unknown][] = []
    const extensions: [string, unknown][] = []
    for (const [name, given] of Object.entries(value)) {
      const known = byName.get(name)
      if (known === undefined) {
        if (hasExtensions && name.startsWith('x-')) extensions.push([name, plain(given)])
        else if (options.otherKeys?.includes(name) !== true) throw unknownKey(at, name, byName)
        continue
      }
      const { key, rule } = known
      const here = at.to(name, key)
      const item = here.untagged(given)
      if (item === undefined) continue
      const support = rule[at.reading.dialect]
      if (support.level === 'refused') {
        throw here.fault(
          at.reading.dialect === 'stack' ? 'is not supported in a stack' : 'is not supported',
          support.next,
        )
      }
      if (item === null && rule.shape.whenNull === undefined) continue
      if (support.level === 'warned' && !isIdle(item)) at.reading.onIdle(here.text(), support.why)
      entries.push([key, item === null ? rule.shape.whenNull?.() : rule.shape.parse(item, here)])
    }
    if (extensions.length > 0) entries.push(['extensions', Object.fromEntries(extensions)])
    for (const [key, rule] of rules) {
      if (rule.isRequired && !entries.some(([given]) => given === key)) {
        throw at.fault(
          `has no ${rule.name}`,
          `Add ${rule.name}, which must be ${rule.shape.expects}.`,
        )
      }
    }
    const result = Object.fromEntries(entries) as T
    return options.finish?.(result, at) ?? result
  }

  function merge(before: T, after: T, dialect: Dialect): T {
    if (options.merge) return options.merge(before, after, dialect)
    return mergeFields(before, after, dialect)
  }

  function mergeFields(before: T, after: T, dialect: Dialect): T {
    const result = new Map<string, unknown>(Object.entries(before as Mapping))
    for (const [key, value] of Object.entries(after as Mapping)) {
      const known = result.get(key)
      const rule = rules.find(([name]) => name === key)?.[1]
      if (known === undefined) result.set(key, value)
      else if (rule !== undefined) result.set(key, rule.shape.merge(known, value, dialect))
      else result.set(key, { ...(known as Extensions), ...(value as Extensions) })
    }
    return Object.fromEntries(result) as T
  }

  function write(value: T): unknown {
    const entries: [string, unknown][] = []
    const given: Mapping = value as Mapping
    for (const [key, rule] of rules) {
      const item = given[key]
      if (item !== undefined) entries.push([rule.name, rule.shape.write(item)])
    }
    const extensions = given['extensions']
    if (isMapping(extensions)) entries.push(...Object.entries(extensions))
    return Object.fromEntries(entries)
  }

  return shapeOf<T>({
    expects,
    parse,
    merge,
    write: options.write ?? write,
    inside: { kind: 'fields', fields: rules.map(([, rule]) => rule) },
    ...(options.isEmptyWhenNull && { whenNull: () => ({}) as T }),
  })
}

/** Says nothing that would have an effect: `false`, an empty list or mapping. */
function isIdle(value: unknown): boolean {
  if (value === false || value === '') return true
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0
}

function plain(value: unknown): unknown {
  if (value instanceof Tagged) return plain(value.value)
  if (Array.isArray(value)) return value.map(plain)
  if (!isMapping(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}

function unknownKey(at: Place, name: string, known: ReadonlyMap<string, unknown>): UserError {
  const near = nearest(name, [...known.keys()])
  return at
    .to(name)
    .fault(
      'is not supported',
      near !== undefined
        ? `Did you mean ${near}?`
        : `Remove it, or begin it with x-. Known here: ${[...known.keys()].join(', ')}.`,
    )
}

export type RecordOf<T> = Readonly<Record<string, T>>

/** A mapping with names of its own. A list of names is read too where `names` says what one stands for. */
export function record<T>(
  item: Shape<T>,
  options: {
    readonly names?: () => T
    readonly key?: { readonly pattern: RegExp; readonly expects: string }
    /** Whether a later file's entry replaces the earlier one in a stack. */
    readonly isReplacedInStack?: boolean
  } = {},
): Shape<RecordOf<T>> {
  const expects = options.names === undefined ? 'a mapping' : 'a list of names or a mapping'
  return shapeOf<RecordOf<T>>({
    expects,
    parse: (value, at) => {
      const { names } = options
      if (Array.isArray(value) && names !== undefined) {
        return Object.fromEntries(
          value.map((name, index) => [textOf(name, at.to(index), 'a name'), names()]),
        )
      }
      if (!isMapping(value)) throw wrong(at, expects, value)
      const entries: [string, T][] = []
      for (const [name, given] of Object.entries(value)) {
        const here = at.to(name)
        if (options.key && !options.key.pattern.test(name)) {
          throw here.fault(`is no name here`, options.key.expects)
        }
        const found = here.untagged(given)
        if (found === undefined) continue
        if (found === null && item.whenNull !== undefined) entries.push([name, item.whenNull()])
        else entries.push([name, item.parse(found, here)])
      }
      return Object.fromEntries(entries)
    },
    merge: (before, after, dialect) => {
      if (options.isReplacedInStack && dialect === 'stack') return { ...before, ...after }
      const result = new Map(Object.entries(before))
      for (const [name, value] of Object.entries(after)) {
        const known = result.get(name)
        result.set(name, known === undefined ? value : item.merge(known, value, dialect))
      }
      return Object.fromEntries(result)
    },
    write: (value) =>
      Object.fromEntries(Object.entries(value).map(([name, one]) => [name, item.write(one)])),
    ...(item.inside && { inside: { kind: 'record' as const, item: item.inside } }),
  })
}

/** A list; a later file's items follow the earlier ones'. Of items with one key the last counts. */
export function list<T>(
  item: Shape<T>,
  options: {
    readonly keyOf?: (value: T) => string
    /** The key by which a stack's later files replace items, which are then sorted by it. */
    readonly stackKeyOf?: (value: T) => string
    /** One item may stand without a list. */
    readonly takesOne?: boolean
    /** Items that stand for several. */
    readonly spread?: (value: unknown, at: Place) => readonly T[] | undefined
    /** A later file's list replaces the earlier one. */
    readonly isReplaced?: boolean
    readonly short?: (value: unknown, at: Place) => readonly T[] | undefined
    readonly expects?: string
  } = {},
): Shape<readonly T[]> {
  const { keyOf, stackKeyOf } = options
  const keyed = (value: T, key: (value: T) => string): string =>
    typeof value === 'string' ? value : key(value)
  const unique = (values: readonly T[], dialect: Dialect): readonly T[] => {
    if (keyOf === undefined || dialect === 'stack') return values
    const byKey = new Map<string, T>()
    for (const value of values) byKey.set(keyed(value, keyOf), value)
    return [...byKey.values()]
  }
  const expects = options.expects ?? (options.takesOne ? `${item.expects}, or a list` : 'a list')
  return shapeOf<readonly T[]>({
    expects,
    parse: (value, at) => {
      const short = options.short?.(value, at)
      if (short !== undefined) return short
      const { spread } = options
      const read = (one: unknown, here: Place): readonly T[] =>
        (at.reading.isRaw && typeof one === 'string' && one.includes('$')
          ? undefined
          : spread?.(one, here)) ?? [item.parse(one, here)]
      if (!Array.isArray(value)) {
        if (options.takesOne && typeof value !== 'object') return read(value, at)
        throw wrong(at, expects, value)
      }
      return unique(
        value.flatMap((one, index) => read(one, at.to(index))),
        at.reading.dialect,
      )
    },
    merge: (before, after, dialect) => {
      if (options.isReplaced) return after
      if (dialect === 'stack' && stackKeyOf !== undefined) {
        const byKey = new Map([...before, ...after].map((one) => [keyed(one, stackKeyOf), one]))
        return [...byKey].sort(([a], [b]) => compareKeys(a, b)).map(([, one]) => one)
      }
      return unique([...before, ...after], dialect)
    },
    write: (values) => values.map((value) => item.write(value)),
    ...(item.inside && { inside: { kind: 'list' as const, item: item.inside } }),
  })
}

function compareKeys(a: string, b: string): number {
  const difference = Number(a) - Number(b)
  if (Number.isFinite(difference)) return difference
  return a < b ? -1 : a > b ? 1 : 0
}

/** A string; a number is taken as its text. */
export function textOf(value: unknown, at: Place, expects = 'a string'): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  throw wrong(at, expects, value)
}
