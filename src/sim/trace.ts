import type { SimulatedTime } from './time.ts'

/** Events that are kept for a report of a failure. */
const keptMax = 400

/** What happened in a run, in words. Two runs were the same exactly when their hashes are. */
export class Trace {
  readonly #time: SimulatedTime
  readonly #startMs: number
  /** In words only once somebody reads them. */
  readonly #kept: { readonly atMs: number; readonly words: string }[] = []
  readonly #print: ((line: string) => void) | undefined
  #hashLow = 0x811c9dc5
  #hashHigh = 0x01000193
  eventCount = 0

  constructor(time: SimulatedTime, print?: (line: string) => void) {
    this.#time = time
    this.#startMs = time.nowMs
    this.#print = print
  }

  say(words: string): void {
    const atMs = this.#time.nowMs - this.#startMs
    this.eventCount += 1
    let low = this.#hashLow ^ atMs
    let high = this.#hashHigh ^ atMs
    for (let at = 0; at < words.length; at++) {
      const code = words.charCodeAt(at)
      low = Math.imul(low ^ code, 0x01000193)
      high = Math.imul(high ^ code, 0x85ebca6b) ^ (high >>> 13)
    }
    this.#hashLow = low
    this.#hashHigh = high
    this.#print?.(lineOf(atMs, words))
    this.#kept.push({ atMs, words })
    if (this.#kept.length > 2 * keptMax) this.#kept.splice(0, keptMax)
  }

  get hash(): string {
    const hex = (number: number) => (number >>> 0).toString(16).padStart(8, '0')
    return hex(this.#hashHigh) + hex(this.#hashLow)
  }

  last(count: number): readonly string[] {
    return this.#kept.slice(-count).map(({ atMs, words }) => lineOf(atMs, words))
  }
}

function lineOf(atMs: number, words: string): string {
  return `${(atMs / 1000).toFixed(3).padStart(8)} s  ${words}`
}
