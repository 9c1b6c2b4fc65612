import { type Call, isLinearizable, type Operation } from './linearizable.ts'

/** Calls on one object beyond which no more are recorded. */
const callsMax = 120

/** What people asked of each object and what they were told, in the order it happened. */
export class History {
  readonly #callsByObject = new Map<string, Call[]>()
  #now = 0
  callCount = 0

  /** Marks the beginning of a call: hand the number to `ended`. */
  began(): number {
    return ++this.#now
  }

  /** `isKnown` false: the caller never learned whether it happened. A read that told nothing is no call. */
  ended(object: string, beganAt: number, operation: Operation, isKnown: boolean): void {
    const calls = this.#callsByObject.get(object) ?? []
    this.#callsByObject.set(object, calls)
    if (calls.length >= callsMax && operation.type === 'read') return
    this.callCount += 1
    const endedAt = isKnown ? ++this.#now : Number.POSITIVE_INFINITY
    calls.push({ operation, beganAt, endedAt })
  }

  /** What the cluster did by itself, at this moment. */
  happened(object: string, operation: Operation): void {
    if (this.#callsByObject.has(object)) this.ended(object, this.began(), operation, true)
  }

  /** The first object whose history no order of its calls explains, with that history in words. */
  judge(): { readonly wrong?: string; readonly unchecked: number } {
    let unchecked = 0
    for (const [object, calls] of this.#callsByObject) {
      const verdict = isLinearizable(calls)
      if (verdict === undefined) unchecked += 1
      if (verdict === false) {
        const lines = calls.map(
          ({ operation, beganAt, endedAt }) =>
            `${beganAt}..${endedAt} ${JSON.stringify(operation)}`,
        )
        return {
          wrong: `no order of the calls on ${object} explains their answers: ${lines.join('; ')}`,
          unchecked,
        }
      }
    }
    return { unchecked }
  }
}
