import { messageOf } from '../base/index.ts'
import { type AnyObject, kinds, type NodeId } from '../model/index.ts'
import { MemoryView } from '../store/memory-view.ts'
import type { AppliedChange, Change, Commit, Store, View } from '../store/store.ts'
import type { Assignments } from '../wire/index.ts'
import type { Observer, SimulatedCluster } from './cluster.ts'
import { Past } from './past.ts'
import type { Trace } from './trace.ts'
import { changeInWords } from './words.ts'

/** A promise that the cluster broke. */
export interface Violation {
  readonly checker: string
  readonly what: string
}

/** One rule. Each part is optional: called at every commit, every simulated second, or every message to a node. */
export interface Checker {
  readonly name: string
  /** `view` is the state after this change; `changes` are all of the commit. Returns what is wrong. */
  readonly change?: (change: AppliedChange, commit: Commit, view: View) => string | undefined
  readonly commit?: (commit: Commit, view: View) => string | undefined
  readonly second?: (view: View) => string | undefined
  readonly assigned?: (nodeId: NodeId, assignments: Assignments, view: View) => string | undefined
  readonly logged?: (line: string) => string | undefined
}

/** So few machines never have more to write in a second; a loop that never is content soon has. */
const commitsPerSecondMax = 500

/** Watches a run against every rule. It knows only what was made durable, and the machines as they really are. */
export class Judge implements Observer {
  /** The durable state, kept by commits. */
  readonly view = new MemoryView()
  readonly past = new Past(this.view)
  readonly checkers: Checker[] = []
  violation: Violation | undefined
  commitCount = 0
  /** When the newest commit took effect, in true ms. */
  committedAtMs = 0
  epoch = 0
  readonly #cluster: SimulatedCluster
  readonly #trace: Trace
  #commitsThisSecond = 0

  constructor(cluster: SimulatedCluster, trace: Trace) {
    this.#cluster = cluster
    this.#trace = trace
  }

  fail(checker: string, what: string): void {
    if (this.violation) return
    this.violation = { checker, what }
    this.#trace.say(`VIOLATION of ${checker}: ${what}`)
  }

  second(): void {
    this.#commitsThisSecond = 0
    for (const { name, second } of this.checkers) {
      const what = second?.(this.view)
      if (what !== undefined) this.fail(name, what)
    }
  }

  leaderBegan(epoch: number): void {
    if (epoch <= this.epoch)
      this.fail('one leader a term', `epoch ${epoch} begins after epoch ${this.epoch}`)
    this.epoch = epoch
  }

  /** A leader's write got through, which was made when `newestEpoch` had begun. */
  leaderWrote(fence: number | undefined, newestEpoch: number): void {
    if (fence === undefined) this.fail('fencing', 'a loop wrote without naming its epoch')
    else if (fence < newestEpoch)
      this.fail('fencing', `a leader of epoch ${fence} wrote while epoch ${newestEpoch} was on`)
  }

  leaderDecided(changes: readonly Change[], revision: number, leaderMs: number): void {
    this.past.decided(changes, revision, leaderMs, this.#cluster.time.nowMs)
  }

  committed(commit: Commit): void {
    this.commitCount += 1
    this.committedAtMs = this.#cluster.time.nowMs
    this.#commitsThisSecond += 1
    if (this.#commitsThisSecond > commitsPerSecondMax)
      this.fail('bounded writing', `more than ${commitsPerSecondMax} commits in one second`)
    for (const change of commit.changes) {
      this.#trace.say(`commit ${commit.revision}: ${changeInWords(change, this.view)}`)
      if (change.after) this.view.put(change.after)
      else this.view.delete(change.kind, change.id)
    }
    this.view.setRevision(commit.revision)
    this.past.note(commit, this.committedAtMs)
    for (const checker of this.checkers) {
      const found = checker.commit?.(commit, this.view)
      if (found !== undefined) this.fail(checker.name, found)
      for (const change of commit.changes) {
        const what = checker.change?.(change, commit, this.view)
        if (what !== undefined) this.fail(checker.name, what)
      }
    }
  }

  etcdWrote(
    revision: number,
    put: readonly AnyObject[],
    removed: readonly { readonly kind: AnyObject['kind']; readonly id: string }[],
  ): void {
    const changes: AppliedChange[] = [
      ...removed.map(({ kind, id }) => {
        const before = this.view.get(kind, id)
        return { kind, id, ...(before && { before }) }
      }),
      ...put.map((after) => {
        const before = this.view.get(after.kind, after.id)
        return { kind: after.kind, id: after.id, ...(before && { before }), after }
      }),
    ]
    this.committed({ revision, atMs: this.#cluster.time.nowMs, changes })
  }

  /** A process read the durable state: nothing that anybody was told of may be missing. */
  storeOpened(store: Store): void {
    const changes: AppliedChange[] = []
    for (const kind of kinds) {
      for (const after of store.view.list(kind)) {
        const before = this.view.get(kind, after.id)
        if (before?.version === after.version) continue
        if (before && before.version > after.version)
          this.fail(
            'durability',
            `${kind} ${after.id} is back at version ${after.version}, but version ${before.version} had been stored`,
          )
        changes.push({ kind, id: after.id, ...(before && { before }), after })
      }
      for (const before of this.view.list(kind)) {
        if (store.view.get(kind, before.id)) continue
        if (before.version > store.view.revision)
          this.fail('durability', `${kind} ${before.id} was stored and is gone`)
        changes.push({ kind, id: before.id, before })
      }
    }
    if (store.view.revision < this.view.revision)
      this.fail(
        'durability',
        `the store is back at revision ${store.view.revision}; ${this.view.revision} had been stored`,
      )
    if (changes.length > 0)
      this.committed({ revision: store.view.revision, atMs: this.#cluster.time.nowMs, changes })
  }

  assigned(nodeId: NodeId, assignments: Assignments): void {
    for (const { name, assigned } of this.checkers) {
      const what = assigned?.(nodeId, assignments, this.view)
      if (what !== undefined) this.fail(name, what)
    }
  }

  logged(line: string): void {
    for (const { name, logged } of this.checkers) {
      const what = logged?.(line)
      if (what !== undefined) this.fail(name, what)
    }
  }

  /** Something threw that nobody caught. */
  crashed(error: unknown): void {
    this.fail(
      'no crash',
      error instanceof Error ? (error.stack ?? error.message) : messageOf(error),
    )
  }
}
