import { UserError } from '../../base/index.ts'

/** What a read notices beside the value. */
export interface Reading {
  /** Paths of fields that no version of the API knows. */
  readonly unknown: string[]
}

/**
 * How one JSON value is read. Like the Engine's decoder: `null` counts as absent, field names ignore case, and what
 * comes out is the document as the Engine would write it back: empty optional fields are left out.
 */
export interface Shape<T> {
  /** In words, for messages: `a string`. */
  readonly expects: string
  /** `omitEmpty`: an empty value is left out. `keep`: any present value stays. `always`: `zero` stands in for absent. */
  readonly presence: 'omitEmpty' | 'keep' | 'always'
  readonly zero: T | undefined
  read(value: unknown, path: string, reading: Reading): T
}

export interface Always<T> extends Shape<T> {
  readonly presence: 'always'
}

type Fields = Readonly<Record<string, Shape<unknown>>>
type AlwaysKeys<F> = { [K in keyof F]: F[K] extends { presence: 'always' } ? K : never }[keyof F]
export type Document<F> = { readonly [K in AlwaysKeys<F>]: Read<F[K]> } & {
  readonly [K in Exclude<keyof F, AlwaysKeys<F>>]?: Read<F[K]>
}
/** The type a shape reads. */
export type Read<S> = S extends Shape<infer T> ? T : never

function wrongType(value: unknown, path: string, expects: string): never {
  throw new UserError(
    'invalidInput',
    `${path || 'the body'} must be ${expects}, not ${named(value)}`,
  )
}

function named(value: unknown): string {
  if (Array.isArray(value)) return 'an array'
  if (value === null) return 'null'
  if (typeof value === 'object') return 'an object'
  return `a ${typeof value}`
}

export const text: Shape<string> = {
  expects: 'a string',
  presence: 'omitEmpty',
  zero: '',
  read: (value, path) => (typeof value === 'string' ? value : wrongType(value, path, 'a string')),
}

export const flag: Shape<boolean> = {
  expects: 'true or false',
  presence: 'omitEmpty',
  zero: false,
  read: (value, path) =>
    typeof value === 'boolean' ? value : wrongType(value, path, 'true or false'),
}

function whole(expects: string, least: number): Shape<number> {
  return {
    expects,
    presence: 'omitEmpty',
    zero: 0,
    read(value, path) {
      if (typeof value !== 'number') return wrongType(value, path, expects)
      if (!Number.isInteger(value) || value < least || value > maxWhole) {
        throw new UserError(
          'invalidInput',
          `${path || 'the body'} must be ${expects}, not ${value}`,
        )
      }
      return value
    },
  }
}

/** Go's int64; JavaScript counts exactly up to 2^53 only, which no field of the API needs to pass. */
const maxWhole = Number.MAX_SAFE_INTEGER
export const int: Shape<number> = whole('a whole number', -maxWhole)
export const uint: Shape<number> = whole('a whole number of 0 or more', 0)

export const real: Shape<number> = {
  expects: 'a number',
  presence: 'omitEmpty',
  zero: 0,
  read: (value, path) => (typeof value === 'number' ? value : wrongType(value, path, 'a number')),
}

/** Base64 text, kept as text. */
export const base64: Shape<string> = {
  expects: 'base64 text',
  presence: 'omitEmpty',
  zero: '',
  read(value, path) {
    if (typeof value !== 'string') return wrongType(value, path, 'base64 text')
    if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value)) {
      throw new UserError('invalidInput', `${path} must be base64 text`)
    }
    return value
  },
}

/** Any JSON value, as it is. */
export const anything: Shape<unknown> = {
  expects: 'any value',
  presence: 'keep',
  zero: undefined,
  read: (value) => value,
}

export function list<T>(item: Shape<T>): Shape<readonly T[]> {
  return {
    expects: 'an array',
    presence: 'omitEmpty',
    zero: [],
    read(value, path, reading) {
      if (!Array.isArray(value)) return wrongType(value, path, 'an array')
      return value.map((entry: unknown, index) => {
        if (entry === null || entry === undefined) {
          if (item.zero !== undefined) return item.zero
          return wrongType(entry, `${path}[${index}]`, item.expects)
        }
        return item.read(entry, `${path}[${index}]`, reading)
      })
    },
  }
}

export function map<T>(item: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return {
    expects: 'an object',
    presence: 'omitEmpty',
    zero: {},
    read(value, path, reading) {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        return wrongType(value, path, 'an object')
      }
      // Object.fromEntries defines own properties, so that "__proto__" is a key like any other.
      return Object.fromEntries(
        Object.entries(value).map(([key, entry]: [string, unknown]) => {
          if ((entry === null || entry === undefined) && item.zero !== undefined) {
            return [key, item.zero]
          }
          return [key, item.read(entry, `${path}.${key}`, reading)]
        }),
      )
    },
  }
}

export function record<const F extends Fields>(fields: F): Shape<Document<F>> {
  const names = Object.keys(fields)
  const nameByLower = new Map(names.map((name) => [name.toLowerCase(), name]))
  return {
    expects: 'an object',
    presence: 'keep',
    zero: undefined,
    read(value, path, reading) {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        return wrongType(value, path, 'an object')
      }
      const given = new Map<string, unknown>()
      for (const [key, entry] of Object.entries(value)) {
        const name = nameByLower.get(key.toLowerCase())
        if (name === undefined) reading.unknown.push(path ? `${path}.${key}` : key)
        else given.set(name, entry)
      }
      const out: Record<string, unknown> = {}
      for (const name of names) {
        const shape = fields[name]
        if (!shape) continue
        const entry = given.get(name)
        if (entry === undefined || entry === null) {
          if (shape.presence === 'always') out[name] = shape.zero
          continue
        }
        const read = shape.read(entry, path ? `${path}.${name}` : name, reading)
        if (shape.presence !== 'omitEmpty' || !isEmpty(read)) out[name] = read
      }
      return out as Document<F>
    },
  }
}

/** Stays when given, even when zero: a pointer in the Engine's types. */
export function kept<T>(shape: Shape<T>): Shape<T> {
  return { ...shape, presence: 'keep' }
}

/** Is always written, as `zero` when absent. */
export function always<T>(shape: Shape<T>, zero: T): Always<T> {
  return { ...shape, presence: 'always', zero }
}

function isEmpty(value: unknown): boolean {
  if (value === '' || value === 0 || value === false) return true
  if (Array.isArray(value)) return value.length === 0
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0
}

/** Reads a whole body. `unknown` names the fields that were not understood. */
export function readBody<T>(
  shape: Shape<T>,
  body: unknown,
): { readonly value: T; readonly unknown: readonly string[] } {
  const reading: Reading = { unknown: [] }
  return { value: shape.read(body, '', reading), unknown: reading.unknown }
}
