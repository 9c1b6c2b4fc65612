import type { Random } from '../base/index.ts'

/** Numbers that follow from the seed alone (mulberry32), with the draws that a simulation is made of. */
export class Chance implements Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A source of its own for one purpose, so that more draws for one thing leave all others as they were. */
  static of(seed: number, purpose: string): Chance {
    let state = (seed ^ 0x9e3779b9) >>> 0
    for (let at = 0; at < purpose.length; at++) {
      state = Math.imul(state ^ purpose.charCodeAt(at), 0x01000193) >>> 0
      state = (state ^ (state >>> 15)) >>> 0
    }
    const source = new Chance(state)
    source.below(2)
    return source
  }

  below(limit: number): number {
    return Math.floor(this.unit() * limit)
  }

  /** From 0 up to, not including, 1. */
  unit(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)]
  }

  oneOf<T>(...items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0]
  }

  /** One of the items, as often as its weight says. The list is not empty and its weights are whole numbers. */
  weighted<T>(items: readonly (readonly [weight: number, item: T])[]): T {
    let sum = 0
    for (const [weight] of items) sum += weight
    let place = this.below(sum)
    for (const [weight, item] of items) {
      if (place < weight) return item
      place -= weight
    }
    throw new Error('broken invariant: nothing to draw from')
  }
}
