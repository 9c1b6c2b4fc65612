import { UserError } from '../base/index.ts'

/** A refusal that names the place in the file: `services.web.ports[0]`. */
export function fault(path: string, what: string, next?: string): UserError {
  return new UserError('invalidInput', `${path} ${what}`, next === undefined ? {} : { next })
}

export type Mapping = Readonly<Record<string, unknown>>

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A mapping; absent and `null` are an empty one. */
export function mappingAt(path: string, value: unknown): Mapping {
  if (value === undefined || value === null) return {}
  if (!isMapping(value)) throw fault(path, 'must be a mapping')
  return value
}

export function listAt(path: string, value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw fault(path, 'must be a list')
  return value
}

/** A string; a number is taken as its text. `undefined` where absent. */
export function textAt(path: string, value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  throw fault(
    path,
    'must be a string',
    typeof value === 'boolean' ? 'Put it in quotes.' : undefined,
  )
}

export function requiredTextAt(path: string, value: unknown): string {
  const text = textAt(path, value)
  if (text === undefined || text === '') throw fault(path, 'is missing')
  return text
}

export function booleanAt(path: string, value: unknown): boolean | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'boolean') return value
  if (value === 'true' || value === 'false') return value === 'true'
  throw fault(path, 'must be true or false')
}

export function numberAt(path: string, value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  if (typeof number !== 'number' || !Number.isFinite(number)) throw fault(path, 'must be a number')
  return number
}

/** A whole number, 0 or more. */
export function countAt(path: string, value: unknown): number | undefined {
  const number = numberAt(path, value)
  if (number !== undefined && (!Number.isSafeInteger(number) || number < 0)) {
    throw fault(path, 'must be a whole number, 0 or more')
  }
  return number
}

export function textsAt(path: string, value: unknown): readonly string[] | undefined {
  if (value === undefined || value === null) return undefined
  return listAt(path, value).map((item, index) => requiredText(`${path}[${index}]`, item))
}

/** One string, or a list of them. */
export function textOrTextsAt(path: string, value: unknown): readonly string[] | undefined {
  return typeof value === 'string' ? [value] : textsAt(path, value)
}

function requiredText(path: string, value: unknown): string {
  const text = textAt(path, value)
  if (text === undefined) throw fault(path, 'is empty')
  return text
}

/** `{K: v}` or `[K=v]`; a key without a value is `undefined`. */
export function pairsAt(
  path: string,
  value: unknown,
  separator = '=',
): Readonly<Record<string, string | undefined>> | undefined {
  if (value === undefined || value === null) return undefined
  if (Array.isArray(value)) {
    return Object.fromEntries(
      (textsAt(path, value) ?? []).map((text) => {
        const at = text.indexOf(separator)
        return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)]
      }),
    )
  }
  return Object.fromEntries(
    Object.entries(mappingAt(path, value)).map(([key, item]) => [
      key,
      textAt(`${path}.${key}`, item),
    ]),
  )
}

/** As `pairsAt`, a missing value being the empty string: labels and options. */
export function labelsAt(
  path: string,
  value: unknown,
): Readonly<Record<string, string>> | undefined {
  const pairs = pairsAt(path, value)
  return pairs && Object.fromEntries(Object.entries(pairs).map(([key, text]) => [key, text ?? '']))
}

/** A value a unit's parser reads; its refusal is told with the path. */
export function parsedAt<T>(
  path: string,
  value: unknown,
  parse: (text: string) => T,
): T | undefined {
  const text = textAt(path, value)
  if (text === undefined) return undefined
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    throw fault(`${path}:`, error.message, error.next)
  }
}

/** Refuses keys that are not in `known`, with the nearest one. Keys that begin with `x-` are extensions. */
export function checkKeys(path: string, value: Mapping, known: readonly string[]): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key) || key.startsWith('x-')) continue
    const near = nearest(key, known)
    throw fault(
      path === '' ? key : `${path}.${key}`,
      'is not supported',
      near === undefined ? 'Remove it.' : `Did you mean ${near}?`,
    )
  }
}

/** The candidate that differs by the fewest letters, if it is a likely slip. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: { readonly candidate: string; readonly distance: number } | undefined
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate)
    if (distance <= Math.max(1, Math.floor(word.length / 3)) && distance < (best?.distance ?? 99)) {
      best = { candidate, distance }
    }
  }
  return best?.candidate
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(
        Math.min(
          (row[j] ?? 0) + 1,
          (next[j - 1] ?? 0) + 1,
          (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        ),
      )
    }
    row = next
  }
  return row[b.length] ?? 0
}
