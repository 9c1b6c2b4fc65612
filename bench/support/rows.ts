import { parseArgs } from 'node:util'

/** One measured figure. `baseline` is what it stands against, in the same unit, from the same run. */
export interface Row {
  readonly bench: string
  readonly figure: string
  readonly value: number
  readonly unit: string
  readonly baseline: number | null
  readonly ratio: number | null
}

const rounded = (value: number) => Number(value.toPrecision(4))

/** Prints the figures of one bench as they come: a table for people, or with `--json` one object a line. */
export class Report {
  readonly #bench: string
  readonly #isJson: boolean

  constructor(bench: string, isJson: boolean) {
    this.#bench = bench
    this.#isJson = isJson
  }

  add(figure: string, unit: string, value: number, baseline?: number): void {
    const row: Row = {
      bench: this.#bench,
      figure,
      value: rounded(value),
      unit,
      baseline: baseline === undefined ? null : rounded(baseline),
      ratio: baseline === undefined || baseline === 0 ? null : rounded(value / baseline),
    }
    if (this.#isJson) {
      console.log(JSON.stringify(row))
      return
    }
    const against = row.ratio === null ? '' : `${row.ratio}x of ${row.baseline} ${unit}`
    console.log(`${figure.padEnd(56)}${`${row.value} ${unit}`.padStart(16)}  ${against}`.trimEnd())
  }

  /** What could not be measured, and why. */
  skip(figure: string, reason: string): void {
    console.error(`skip ${this.#bench}, ${figure}: ${reason}`)
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Reads `--json` and `--rounds N`. */
export function readOptions(roundsDefault: number): {
  readonly json: boolean
  readonly rounds: number
} {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      rounds: { type: 'string', default: `${roundsDefault}` },
    },
  })
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) {
    console.error(`--rounds ${values.rounds}: give a whole number of at least 1`)
    process.exit(2)
  }
  return { json: values.json, rounds }
}

/** Seconds that something took. */
export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now()
  await work()
  return (performance.now() - startedMs) / 1000
}
