import { UserError } from '../base/index.ts'
import { type Environment, interpolate } from './interpolate.ts'

/**
 * Reads an env file: `NAME=value` or `NAME: value`, with or without `export`. Single quotes hold text as it is, double quotes
 * also `\n` and variables; text without quotes holds variables and ends at ` #`. A name alone takes its value from `env`, and
 * is left out where that has none. Variables are looked up in `env`, then above in the file. Source: Compose's dotenv format.
 * Throws `invalidInput` naming `file` and line.
 */
export function parseDotenv(
  file: string,
  text: string,
  env: Environment,
  onMissing: (name: string) => void = () => {},
): Readonly<Record<string, string>> {
  const found = new Map<string, string>()
  const all = text.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n')
  let at = 0
  const fail = (what: string, next?: string): never => {
    const line = all.slice(0, at).split('\n').length
    throw new UserError(
      'invalidInput',
      `${file}:${line}: ${what}`,
      next === undefined ? {} : { next },
    )
  }
  const expand = (value: string): string => {
    const lookup = new Proxy<Record<string, string | undefined>>(
      {},
      { get: (_, name) => (typeof name === 'string' ? (env[name] ?? found.get(name)) : undefined) },
    )
    try {
      return interpolate(value, lookup, onMissing)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      return fail(error.message, error.next)
    }
  }
  while (at < all.length) {
    const end = lineEnd(all, at)
    const line = all.slice(at, end)
    if (/^\s*(#|$)/.test(line)) {
      at = end + 1
      continue
    }
    const match = /^\s*(?:export\s+)?([^\s=:#'"]+)[ \t]*(?:([=:])[ \t]*)?/.exec(line)
    const name = match?.[1]
    if (!match || name === undefined) return fail('is not NAME=value')
    const from = at + match[0].length
    if (match[2] === undefined) {
      if (line.slice(match[0].length).trim() !== '') fail(`${name} has no "=" behind it`)
      const value = env[name]
      if (value !== undefined) found.set(name, value)
      at = end + 1
      continue
    }
    const quote = all[from]
    if (quote === '"' || quote === "'") {
      const close = closingQuote(all, from)
      if (close === undefined) fail(`the value of ${name} has no closing quote`, 'Close it.')
      const inner = all.slice(from + 1, close)
      found.set(name, quote === "'" ? inner.replaceAll("\\'", "'") : expand(unescaped(inner)))
      const rest = all.slice((close ?? 0) + 1, lineEnd(all, close ?? 0))
      if (!/^\s*(#|$)/.test(rest)) fail(`the value of ${name} goes on behind its closing quote`)
      at = lineEnd(all, close ?? 0) + 1
    } else {
      const bare = all
        .slice(from, end)
        .replace(/(^|\s+)#.*$/, '')
        .trimEnd()
      found.set(name, expand(bare))
      at = end + 1
    }
  }
  return Object.fromEntries(found)
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf('\n', from)
  return end < 0 ? text.length : end
}

function closingQuote(text: string, from: number): number | undefined {
  for (let at = from + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === text[from]) return at
  }
  return undefined
}

const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  r: '\r',
  t: '\t',
  '"': '"',
  '\\': '\\',
}

/** An escaped dollar sign is doubled, so that it stays one when variables are put in. */
function unescaped(text: string): string {
  return text.replace(/\\([\s\S])/g, (whole, char: string) =>
    char === '$' ? '$$' : (escapes[char] ?? whole),
  )
}
