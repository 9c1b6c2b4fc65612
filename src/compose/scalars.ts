import { isAbsolute, posix } from 'node:path'
import { UserError } from '../base/index.ts'
import { type Place, type Shape, shapeOf, textOf, wrong } from './shape.ts'
import { splitShellWords } from './shell-words.ts'
import { parseBytes, parseDurationNs, parseNanoCpus } from './units.ts'

export const text: Shape<string> = shapeOf({
  expects: 'a string',
  parse: (value, at) => textOf(value, at),
})

/** A string that says something. */
export const fullText: Shape<string> = shapeOf({
  expects: 'a string that is not empty',
  parse: (value, at) => {
    const given = textOf(value, at)
    if (given !== '') return given
    throw at.fault('is empty')
  },
})

/** A string; `true` and `false` are taken as their texts. */
export const textOrBoolean: Shape<string> = shapeOf({
  expects: 'a string, true or false',
  parse: (value, at) => (typeof value === 'boolean' ? String(value) : textOf(value, at)),
})

/** The value of a label or variable: text, a number, and outside a stack also `true` and `false`. */
export function pairText(value: unknown, at: Place): string {
  if (typeof value === 'boolean' && at.reading.dialect === 'compose') return String(value)
  return textOf(value, at)
}

const trueWords = ['true', 'yes', 'on', 'y', 't', '1']
const falseWords = ['false', 'no', 'off', 'n', 'f', '0']

/** Words stand for truth where a variable may have brought them. Source: YAML 1.1 and Go's strconv.ParseBool. */
export const boolean: Shape<boolean> = shapeOf({
  expects: 'true or false',
  parse: (value, at) => {
    if (typeof value === 'boolean') return value
    if (typeof value === 'string') {
      const word = value.toLowerCase()
      if (trueWords.includes(word)) return true
      if (falseWords.includes(word)) return false
    }
    throw wrong(at, 'true or false', value)
  },
})

function numberOf(value: unknown, at: Place, expects: string): number {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  if (typeof number !== 'number' || !Number.isFinite(number)) throw wrong(at, expects, value)
  return number
}

export const number: Shape<number> = shapeOf({
  expects: 'a number',
  parse: (value, at) => numberOf(value, at, 'a number'),
})

/** A whole number within bounds. */
export function whole(min: number, max = Number.MAX_SAFE_INTEGER): Shape<number> {
  const expects =
    max !== Number.MAX_SAFE_INTEGER
      ? `a whole number from ${min} to ${max}`
      : min === Number.MIN_SAFE_INTEGER
        ? 'a whole number'
        : `a whole number, ${min} or more`
  return shapeOf({
    expects,
    parse: (value, at) => {
      const given = numberOf(value, at, expects)
      if (Number.isSafeInteger(given) && given >= min && given <= max) return given
      throw wrong(at, expects, value)
    },
  })
}

export const count = whole(0)
export const anyWhole = whole(Number.MIN_SAFE_INTEGER)

/** A value that a parser of units reads. */
function unit(
  expects: string,
  read: (text: string) => number,
  write: (value: number) => unknown,
): Shape<number> {
  return shapeOf({
    expects,
    parse: (value, at) => {
      const given = textOf(value, at, expects)
      try {
        return read(given)
      } catch (error) {
        if (!(error instanceof UserError)) throw error
        throw at.fault(`: ${error.message}`, error.next)
      }
    },
    write,
  })
}

export const durationNs = unit('a duration as 1m30s', parseDurationNs, formatDuration)
export const bytes = unit('a size as 512m', parseBytes, String)
export const cpusNano = unit('a number of CPUs as 0.5', parseNanoCpus, (nano) => nano / 1e9)
export const cpusNanoText = unit('a number of CPUs as 0.5', parseNanoCpus, (nano) =>
  String(nano / 1e9),
)

/** A size, or -1 for none. */
export const bytesOrUnlimited = unit(
  'a size as 512m, or -1',
  (given) => (given === '-1' ? -1 : parseBytes(given)),
  String,
)

/** Microseconds, or a duration with its unit. */
export const microseconds = unit(
  'a number of microseconds, or a duration as 10ms',
  (given) => (/^-?\d+$/.test(given) ? Number(given) : Math.round(parseDurationNs(given) / 1000)),
  (value) => value,
)

/** As Go writes it: `1m30s`, `1h0m0s`, `500ms`, `1.5s`. */
export function formatDuration(ns: number): string {
  if (ns === 0) return '0s'
  const sign = ns < 0 ? '-' : ''
  const all = Math.abs(ns)
  if (all < 1e3) return `${sign}${all}ns`
  if (all < 1e6) return `${sign}${all / 1e3}µs`
  if (all < 1e9) return `${sign}${all / 1e6}ms`
  const hours = Math.floor(all / 3600e9)
  const minutes = Math.floor((all % 3600e9) / 60e9)
  const seconds = `${Number(((all % 60e9) / 1e9).toFixed(9))}s`
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}`
  return minutes > 0 ? `${sign}${minutes}m${seconds}` : `${sign}${seconds}`
}

/** Permission bits: a number, or octal text. */
export const fileMode: Shape<number> = shapeOf({
  expects: 'permission bits as 0444',
  parse: (value, at) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value
    const octal = /^(?:0o)?([0-7]+)$/.exec(typeof value === 'string' ? value : '')?.[1]
    if (octal !== undefined) return Number.parseInt(octal, 8)
    throw wrong(at, 'permission bits as 0444', value)
  },
  write: (mode) => `0${mode.toString(8)}`,
})

/** Words of a command; a string is split as a shell does. */
export const command: Shape<readonly string[]> = shapeOf<readonly string[]>({
  expects: 'a string or a list of strings',
  parse: (value, at) => {
    if (Array.isArray(value)) {
      return value.map((word, index) => pairText(word, at.to(index)))
    }
    if (typeof value === 'object') throw wrong(at, 'a string or a list of strings', value)
    try {
      return splitShellWords(textOf(value, at, 'a string or a list of strings'))
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      throw at.fault(`: ${error.message}`, error.next)
    }
  },
})

/** One of some words. */
export function choice<const Word extends string>(words: readonly Word[]): Shape<Word> {
  const expects = `one of ${words.join(', ')}`
  return shapeOf({
    expects,
    parse: (value, at) => {
      const found = words.find((word) => word === value)
      if (found === undefined) throw wrong(at, expects, value)
      return found
    },
  })
}

/** Text of a form that a pattern tells. */
export function pattern(expects: string, form: RegExp): Shape<string> {
  return shapeOf({
    expects,
    parse: (value, at) => {
      const given = textOf(value, at, expects)
      if (form.test(given)) return given
      throw wrong(at, expects, value)
    },
  })
}

/** A path on this machine, made absolute: `~` is the home directory, others start at the project's directory. */
export const hostPath: Shape<string> = shapeOf({
  expects: 'a path',
  parse: (value, at) => {
    const given = textOf(value, at, 'a path')
    if (given === '') throw at.fault('is empty', 'Name a path.')
    return absolutePath(given, at)
  },
})

export function absolutePath(given: string, at: Place): string {
  const { directory, environment } = at.reading
  if (given === '~' || given.startsWith('~/')) {
    return posix.join(environment['HOME'] ?? '/', given.slice(1))
  }
  // A path of Windows stands as it is.
  if (isAbsolute(given) || /^([a-zA-Z]:[\\/]|\\\\)/.test(given)) return given
  return posix.join(directory, given)
}

/** Something that is no path here: a URL, a git address, an image. */
export function isRemote(given: string): boolean {
  return /^(?:[a-z][a-z0-9+.-]*:\/\/|git@|github\.com\/)/i.test(given)
}
