/** At most `limit` at a time, first come, first served. */
export class Semaphore {
  readonly #limit: number
  #held = 0
  readonly #waiting: (() => void)[] = []

  constructor(limit: number) {
    this.#limit = limit
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#held >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#held++
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      // A place goes from hand to hand, so that nobody slips in between.
      if (next) next()
      else this.#held--
    }
  }
}
