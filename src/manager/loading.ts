import type { Commit } from '../store/store.ts'

/**
 * Something that is derived from all that is stored and kept up to date by commits, made in parts: between two of them
 * others have the thread. Commits that come meanwhile are learned after the last part.
 */
export class Loading<Derived extends { apply(commit: Commit): void }> {
  readonly #parts: Iterator<undefined, Derived>
  #derived: Derived | undefined
  /** Bounded by the time that loading takes. */
  #missed: Commit[] = []

  constructor(parts: Iterator<undefined, Derived>) {
    this.#parts = parts
  }

  learn(commit: Commit): void {
    if (this.#derived) this.#derived.apply(commit)
    else this.#missed.push(commit)
  }

  /** Goes on by one part. `undefined`: there is more to load. */
  step(): Derived | undefined {
    if (this.#derived) return this.#derived
    const part = this.#parts.next()
    if (!part.done) return undefined
    for (const commit of this.#missed) part.value.apply(commit)
    this.#missed = []
    this.#derived = part.value
    return part.value
  }

  /** All of it, at once if need be. */
  now(): Derived {
    for (;;) {
      const derived = this.step()
      if (derived) return derived
    }
  }
}
