import { UserError } from '../base/index.ts'

const nsByUnit: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
}

/** Reads `1m30s`, `1.5h`, `-1s`, `0` into nanoseconds. Source: Go's time.ParseDuration. Throws `invalidInput`. */
export function parseDurationNs(text: string): number {
  const match = /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(text)
  if (!match?.[2]) {
    throw new UserError('invalidInput', `"${text}" is not a duration`, {
      next: 'Write a number with its unit, as 500ms, 10s or 1m30s.',
    })
  }
  let ns = 0
  for (const [, amount, unit] of match[2].matchAll(/([\d.]+)([a-zµμ]+)/g)) {
    ns += Number(amount) * (nsByUnit[unit ?? ''] ?? 0)
  }
  return (match[1] === '-' ? -1 : 1) * Math.round(ns)
}

/** Reads `512M`, `1.5g`, `64KiB`, `1024` into bytes; all units are powers of 1024. Throws `invalidInput`. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])(?:i?b)?|b)?$/i.exec(text.trim())
  if (!match) {
    throw new UserError('invalidInput', `"${text}" is not a size`, {
      next: 'Write a number with its unit, as 512M, 1.5g or 65536.',
    })
  }
  const power = match[2] === undefined ? 0 : 'kmgtp'.indexOf(match[2].toLowerCase()) + 1
  return Math.floor(Number(match[1]) * 1024 ** power)
}

/** Reads `0.5` CPUs into NanoCPUs; at most nine decimals. Throws `invalidInput`. */
export function parseNanoCpus(text: string): number {
  if (!/^\d*\.?\d{1,9}$|^\d+\.$/.test(text)) {
    throw new UserError('invalidInput', `"${text}" is not a number of CPUs`, {
      next: 'Write it as 0.5 or 2, with nine decimals at most.',
    })
  }
  return Math.round(Number(text) * 1e9)
}
