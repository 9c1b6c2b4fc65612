import { type Clock, type Random, Semaphore, UserError } from '../base/index.ts'
import type { Sealed } from '../model/index.ts'
import { nextCommit } from '../store/index.ts'
import type { Change, Commit, Store, View } from '../store/store.ts'

/** Makes bytes unreadable but for the holder of the cluster's data key. `context` is bound in: a value moved to another object does not open. */
export interface Sealer {
  seal(bytes: Uint8Array, context: string): Sealed
  unseal(sealed: Sealed, context: string): Uint8Array
}

/** What the operations on a cluster need. */
export interface ControlWorld {
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly sealer: Sealer
}

export interface Plan<T> {
  readonly changes: readonly Change[]
  readonly result: T
}

/** How often a change is planned anew because a loop wrote to the same object meanwhile. */
const plansMax = 50
/** Changes that wait for the ones before them; more are refused. */
const waitingMax = 1_000

/**
 * Carries out one change at a time, on all managers together: a plan is checked against the view, and committed only if
 * nobody else's was since. So a checked reference cannot vanish between check and commit, nor a port be published twice.
 * A plan that lost a race is made again on the new view; its own checks say when the race was with a person.
 */
export class Changes {
  readonly #store: Store
  readonly #clock: Clock
  readonly #turn = new Semaphore(1)
  #waiting = 0

  constructor(store: Store, clock: Clock) {
    this.#store = store
    this.#clock = clock
  }

  async run<T>(plan: (view: View) => Plan<T>): Promise<{ result: T; commit: Commit | undefined }> {
    if (this.#waiting >= waitingMax) {
      throw new UserError('unavailable', `${waitingMax} changes are waiting already`, {
        next: 'Try again in a moment.',
      })
    }
    this.#waiting++
    try {
      return await this.#turn.run(() => this.#commit(plan))
    } finally {
      this.#waiting--
    }
  }

  async #commit<T>(
    plan: (view: View) => Plan<T>,
  ): Promise<{ result: T; commit: Commit | undefined }> {
    for (let left = plansMax; ; left--) {
      const { view } = this.#store
      const checkedAt = view.revision
      const { changes, result } = plan(view)
      if (changes.length === 0) return { result, commit: undefined }
      try {
        return { result, commit: await this.#store.commit(changes, { checkedAt }) }
      } catch (error) {
        const isRace = error instanceof UserError && error.code === 'outOfSequence'
        if (!isRace || left <= 1) throw error
        await nextCommit(this.#store, this.#clock)
      }
    }
  }
}

/** Refuses a change that was decided on an older declaration than the stored one. */
export function checkVersion(object: { readonly specVersion: number }, version: number): void {
  if (object.specVersion !== version) {
    throw new UserError('outOfSequence', 'update out of sequence', {
      next: 'It was changed after it was read: read it again and repeat the change.',
    })
  }
}

export function emptyMeta(name: string, labels: Readonly<Record<string, string>>) {
  return {
    namespace: 'default',
    name,
    labels,
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
  } as const
}
