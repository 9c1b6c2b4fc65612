import { UserError } from '../../base/index.ts'

/** A query's filters: different keys must all match, one value of each is enough (all of a label's). */
export class Filters {
  readonly #values: ReadonlyMap<string, readonly string[]>

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values
  }

  get(key: string): readonly string[] {
    return this.#values.get(key) ?? []
  }

  has(key: string): boolean {
    return this.get(key).length > 0
  }

  /** Whether one of the key's values equals `actual`; true when there are none. */
  equals(key: string, actual: string): boolean {
    const values = this.get(key)
    return values.length === 0 || values.includes(actual)
  }

  /** Whether `actual` begins with one of the key's values. */
  startsWith(key: string, actual: string): boolean {
    const values = this.get(key)
    return values.length === 0 || values.some((value) => actual.startsWith(value))
  }

  /** Whether every `k`, `k=v` and `k!=v` holds. */
  labels(key: string, labels: Readonly<Record<string, string>>): boolean {
    return this.get(key).every((wanted) => {
      const at = wanted.indexOf('=')
      if (at < 0) return Object.hasOwn(labels, wanted)
      if (wanted[at - 1] === '!') return labels[wanted.slice(0, at - 1)] !== wanted.slice(at + 1)
      const name = wanted.slice(0, at)
      return Object.hasOwn(labels, name) && labels[name] === wanted.slice(at + 1)
    })
  }

  /** As the Engine takes them. */
  toJson(): Record<string, readonly string[]> {
    return Object.fromEntries(this.#values)
  }
}

/**
 * Reads `filters=` in either of its forms, `{"label":{"a=b":true}}` and `{"label":["a=b"]}`. Throws on a key that is not
 * `accepted`; without `accepted` every key is taken.
 */
export function parseFilters(text: string | undefined, accepted?: readonly string[]): Filters {
  const values = new Map<string, readonly string[]>()
  if (!text) return new Filters(values)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    throw malformed()
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw malformed()
  for (const [key, given] of Object.entries(json)) {
    if (accepted && !accepted.includes(key)) {
      throw new UserError('invalidInput', `invalid filter '${key}'`, {
        next: `Filters here are ${accepted.filter((name) => !name.startsWith('_')).join(', ')}.`,
      })
    }
    values.set(key, valuesOf(given))
  }
  return new Filters(values)
}

function valuesOf(given: unknown): readonly string[] {
  if (Array.isArray(given)) {
    return given.map((value) => (typeof value === 'string' ? value : malformedValue()))
  }
  if (typeof given === 'object' && given !== null) {
    return Object.entries(given)
      .filter(([, isOn]) => isOn === true)
      .map(([value]) => value)
  }
  return malformedValue()
}

function malformedValue(): never {
  throw malformed()
}

function malformed(): UserError {
  return new UserError('invalidInput', 'invalid filters: not a JSON object of lists', {
    next: 'Write them as {"label":["a=b"]}.',
  })
}
