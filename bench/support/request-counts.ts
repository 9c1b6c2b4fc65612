import type { LoadResult } from './load.ts'
import type { Report } from './rows.ts'

/** What became of the requests of one case. */
export class RequestCounts {
  readonly #name: string
  readonly #sums = { requests: 0, failed: 0, retried: 0, askedAgain: 0, late: 0 }
  #stalledMs = 0

  constructor(name: string) {
    this.#name = name
  }

  /** `sinceMs`: of what failures are told the time. */
  add(results: readonly LoadResult[], what: string, sinceMs: number): void {
    for (const { stalledMs } of results) this.#stalledMs = Math.max(this.#stalledMs, stalledMs)
    for (const stream of results.flatMap(({ streams }) => streams)) {
      this.#sums.requests += stream.sent
      this.#sums.failed += stream.failed
      this.#sums.retried += stream.retried
      this.#sums.askedAgain += stream.askedAgain
      this.#sums.late += stream.late
      if (stream.failed === 0) continue
      const failures = stream.failures.map((one) => ({ ...one, atMs: one.atMs - sinceMs }))
      const words = `${this.#name}, ${what}: ${stream.name}: ${stream.failed} failed`
      console.error(words, JSON.stringify(failures))
    }
  }

  addTo(report: Report): void {
    const { requests, failed, retried, askedAgain, late } = this.#sums
    report.add(`failed-requests-${this.#name}`, 'requests', failed)
    report.add(`requests-${this.#name}`, 'requests', requests)
    report.add(`retried-requests-${this.#name}`, 'requests', retried)
    report.add(`names-asked-again-${this.#name}`, 'questions', askedAgain)
    report.add(`load-stalled-${this.#name}`, 'ms', this.#stalledMs)
    if (late > 0) report.add(`late-requests-${this.#name}`, 'requests', late)
  }
}
