import { UserError } from '../base/index.ts'

/**
 * Reads fields of a message that came from another node. Every reader throws `invalidInput` when the field is not what
 * it should be, so that nothing behind this line has to look again.
 */
export class Fields {
  readonly #what: string
  readonly #values: Readonly<Record<string, unknown>>

  constructor(what: string, value: unknown) {
    if (!isRecord(value)) throw wrong(what)
    this.#what = what
    this.#values = value
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined
  }

  /** At most `lengthMax` characters; what is longer is refused. */
  text(name: string, lengthMax = textMax): string {
    const value = this.#values[name]
    if (typeof value !== 'string' || value.length > lengthMax) throw this.#wrong(name)
    return value
  }

  number(name: string): number {
    const value = this.#values[name]
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.#wrong(name)
    return value
  }

  truth(name: string): boolean {
    const value = this.#values[name]
    if (typeof value !== 'boolean') throw this.#wrong(name)
    return value
  }

  oneOf<const T extends string>(name: string, values: readonly T[]): T {
    const found = values.find((value) => value === this.#values[name])
    if (found === undefined) throw this.#wrong(name)
    return found
  }

  list<T>(name: string, parse: (value: unknown) => T): readonly T[] {
    const value = this.#values[name]
    if (!Array.isArray(value)) throw this.#wrong(name)
    return value.map((item: unknown) => parse(item))
  }

  texts(name: string): readonly string[] {
    return this.list(name, (value) => {
      if (typeof value !== 'string') throw this.#wrong(name)
      return value
    })
  }

  /** Names with a text each, such as labels. */
  record(name: string): Readonly<Record<string, string>> {
    const value = this.#values[name]
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.#wrong(name)
    const entries = Object.entries(value)
    const isText = (entry: [string, unknown]): entry is [string, string] =>
      typeof entry[1] === 'string'
    if (!entries.every(isText)) throw this.#wrong(name)
    return Object.fromEntries(entries)
  }

  inside(name: string): Fields {
    return new Fields(`${this.#what}.${name}`, this.#values[name])
  }

  bytes(name: string): Uint8Array {
    const value = this.#values[name]
    if (!(value instanceof Uint8Array)) throw this.#wrong(name)
    return value
  }

  all(): Readonly<Record<string, unknown>> {
    return this.#values
  }

  raw(name: string): unknown {
    return this.#values[name]
  }

  #wrong(name: string): UserError {
    return wrong(`${this.#what}.${name}`)
  }
}

const textMax = 1_000_000

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function wrong(what: string): UserError {
  return new UserError('invalidInput', `a message between nodes has no proper ${what}`, {
    next: 'Run the same version of Skep on all nodes.',
  })
}
