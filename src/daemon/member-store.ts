import type { Change, Commit, CommitOptions, Store, View } from '../store/index.ts'

/**
 * The store of a manager, whichever it is: what holds on to it need not know that the cluster's state has moved
 * elsewhere.
 */
export class MemberStore implements Store {
  readonly #listeners = new Set<(commit: Commit) => void>()
  #inner: Store
  #unfollow: () => void
  /** Resolves when commits go on. */
  #held: Promise<void> | undefined
  readonly #explain: (error: unknown) => Promise<unknown>
  /** Commits under way. */
  #open = new Set<Promise<unknown>>()

  /** `explain` makes what goes wrong plainer, if it can. */
  constructor(inner: Store, explain: (error: unknown) => Promise<unknown>) {
    this.#explain = explain
    this.#inner = inner
    this.#unfollow = this.#follow(inner)
  }

  get view(): View {
    return this.#inner.view
  }

  async commit(changes: readonly Change[], options?: CommitOptions): Promise<Commit> {
    while (this.#held) await this.#held
    const commit = this.#inner.commit(changes, options)
    this.#open.add(commit)
    try {
      return await commit
    } catch (error) {
      throw await this.#explain(error)
    } finally {
      this.#open.delete(commit)
    }
  }

  async barrier(): Promise<void> {
    // What was read before the state moved is still true: nobody writes meanwhile.
    try {
      await this.#inner.barrier?.()
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  subscribe(listener: (commit: Commit) => void): () => void {
    // Wrapped, so that one function subscribed twice is two subscriptions.
    const own = (commit: Commit): void => listener(commit)
    this.#listeners.add(own)
    return () => this.#listeners.delete(own)
  }

  /**
   * Has commits wait, ends those under way, and goes on with the store that `move` makes of the one before, which is
   * closed then. When `move` fails, it goes on with the one before.
   */
  async moveTo(move: () => Promise<Store>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#held = promise
    try {
      await Promise.allSettled(this.#open)
      const next = await move()
      const before = this.#inner
      this.#unfollow()
      this.#inner = next
      this.#unfollow = this.#follow(next)
      await before.close()
    } finally {
      this.#held = undefined
      resolve()
    }
  }

  async close(): Promise<void> {
    this.#unfollow()
    await this.#inner.close()
  }

  #follow(inner: Store): () => void {
    return inner.subscribe((commit) => {
      for (const listener of this.#listeners) listener(commit)
    })
  }
}
