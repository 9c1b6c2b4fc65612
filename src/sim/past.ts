import { kinds, type Task } from '../model/index.ts'
import { MemoryView } from '../store/memory-view.ts'
import type { Change, Commit, View } from '../store/store.ts'

/** Commits that can be undone. */
const commitsMax = 1_000

/**
 * What a leader knew when it decided. Its commit may take long to take effect: the disk is slow, its process is stopped
 * half way. What else took effect meanwhile it could not have heeded.
 */
export class Past {
  readonly #view: View
  readonly #commits: { readonly commit: Commit; readonly atMs: number }[] = []
  /** The revision that the leader saw, by what it asked for. */
  readonly #revisionByWish = new Map<string, number>()

  /** `view`: the durable state as it is now. */
  constructor(view: View) {
    this.#view = view
  }

  /** `atMs`: when it took effect, in true ms. */
  note(commit: Commit, atMs: number): void {
    this.#commits.push({ commit, atMs })
    if (this.#commits.length > commitsMax) this.#commits.shift()
  }

  /**
   * What a leader asks for that has seen `revision` by now; `leaderMs` by its clock, `nowMs` in truth. A decision that was made in parts
   * goes by what there was when it began, which its new tasks tell.
   */
  decided(changes: readonly Change[], revision: number, leaderMs: number, nowMs: number): void {
    for (const change of changes) {
      if (change.type === 'delete' || change.object.kind !== 'task') continue
      const tookMs = change.type === 'create' ? leaderMs - change.object.createdAtMs : 0
      const seen = tookMs > 0 ? Math.min(revision, this.#revisionAt(nowMs - tookMs)) : revision
      this.#revisionByWish.set(wishOf(change.object), seen)
    }
  }

  /** The newest that had taken effect at a true time, as far as it is known. */
  #revisionAt(trueMs: number): number {
    const last = this.#commits.findLast(({ atMs }) => atMs <= trueMs)
    return last?.commit.revision ?? Number.POSITIVE_INFINITY
  }

  /** The state that what a leader asks for was decided on, with these tasks as it asks for them. */
  whenDecided(tasks: readonly Task[]): View | undefined {
    let revision = Number.POSITIVE_INFINITY
    for (const task of tasks) {
      const seen = this.#revisionByWish.get(wishOf(task))
      if (seen === undefined) return undefined
      revision = Math.min(revision, seen)
    }
    const past = this.#viewAt(revision)
    for (const task of tasks) past?.put(task)
    return past
  }

  #viewAt(revision: number): MemoryView | undefined {
    const past = new MemoryView()
    for (const kind of kinds) for (const object of this.#view.list(kind)) past.put(object)
    for (let at = this.#commits.length - 1; ; at--) {
      const commit = this.#commits[at]?.commit
      if (!commit) return undefined
      if (commit.revision <= revision) break
      for (const { kind, id, before } of commit.changes) {
        if (before) past.put(before)
        else past.delete(kind, id)
      }
    }
    past.setRevision(revision)
    return past
  }
}

function wishOf({ id, nodeId, desiredState }: Task): string {
  return `${id} ${nodeId ?? ''} ${desiredState}`
}
