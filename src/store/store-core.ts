import { type Clock, messageOf, UserError, usualPortions } from '../base/index.ts'
import type { AnyObject } from '../model/index.ts'
import { isKind, MemoryView } from './memory-view.ts'
import { PersistError, type Persistence, type Write } from './persistence.ts'
import { checkedTooEarly, type StagedCommit, Staging } from './staging.ts'
import type { Change, Commit, CommitOptions, LeaderEpoch, Store, View } from './store.ts'

/** Most commits that may wait for the disk, those under way included. */
export const commitsQueuedMax = 10_000
/** Once so many characters of JSON wait for the disk, no further commit is taken. */
export const charactersQueuedMax = 64_000_000

export interface StoreCoreOptions {
  readonly clock: Clock
  readonly persistence: Persistence
  /** Freezes every object that comes in, whole, so that a mutation throws. For development: it costs time. */
  readonly freeze?: boolean
  readonly commitsQueuedMax?: number
  /**
   * Of `Portions`: changes of the leader that become visible in one turn of the event loop. Everybody else waits for it; as many of
   * others may join them.
   */
  readonly changesAtOnce?: number
}

/** A commit or a new epoch on its way to the disk. */
type Entry =
  | {
      readonly type: 'commit'
      readonly changes: readonly Change[]
      readonly options: CommitOptions
      staged: StagedCommit
      readonly resolve: (commit: Commit) => void
      readonly reject: (error: unknown) => void
    }
  | {
      readonly type: 'epoch'
      staged: number
      readonly resolve: (epoch: number) => void
      readonly reject: (error: UserError) => void
    }

/** A commit of the leader's that is checked once there is room for it in the next batch. */
type Waiting = Omit<Entry & { readonly type: 'commit' }, 'type' | 'staged'>

/**
 * What all embedded stores share: checking commits, their order, indexes and fan-out. While one batch is being made
 * durable further commits gather into the next one; each has been found valid before, so none can fail another. What
 * does not fit into that one waits, where it is the leader's (it has a fence): its loops and its nodes' reports come by the
 * thousand, and what a person asks for is always in the next batch, however much of that there is.
 */
export class StoreCore implements Store, LeaderEpoch {
  readonly #clock: Clock
  readonly #persistence: Persistence
  readonly #freeze: boolean
  readonly #commitsQueuedMax: number
  readonly #changesAtOnce: number
  readonly #view = new MemoryView()
  #staging: Staging
  #epoch = 0
  #epochStaged = 0
  /** Revision of the last commit that was checked across objects, durable or under way. */
  #checkedStaged = 0
  /** Checked: they go to the disk in this order. */
  #queue: Entry[] = []
  #waiting: Waiting[] = []
  #charactersQueued = 0
  #inFlight = 0
  /** Commits still to be tried one by one, because all of them together did not fit on the disk. */
  #singly = 0
  #writing = false
  #idle: (() => void) | undefined
  #closed: Promise<void> | undefined
  readonly #listeners = new Set<(commit: Commit) => void>()

  private constructor(options: StoreCoreOptions) {
    this.#clock = options.clock
    this.#persistence = options.persistence
    this.#staging = this.#newStaging()
    this.#freeze = options.freeze ?? false
    this.#commitsQueuedMax = options.commitsQueuedMax ?? commitsQueuedMax
    this.#changesAtOnce = options.changesAtOnce ?? usualPortions.changesAtOnce
  }

  static async open(options: StoreCoreOptions): Promise<StoreCore> {
    const core = new StoreCore(options)
    const snapshot = await options.persistence.load()
    let newestMs = 0
    for (const text of snapshot.texts) {
      const object = parseStored(text)
      if (core.#freeze) deepFreeze(object)
      core.#view.put(object)
      newestMs = Math.max(newestMs, object.updatedAtMs)
    }
    // Decisions compare what is stored with the time: a clock that was fast may not hold them up for hours.
    options.clock.notBefore?.(newestMs)
    core.#view.setRevision(snapshot.revision)
    core.#staging = core.#newStaging()
    core.#epoch = core.#epochStaged = snapshot.epoch
    return core
  }

  #newStaging(): Staging {
    return new Staging(this.#view, { isKept: this.#persistence.isForgetful !== true })
  }

  get view(): View {
    return this.#view
  }

  get epoch(): number {
    return this.#epoch
  }

  async commit(changes: readonly Change[], options: CommitOptions = {}): Promise<Commit> {
    this.#checkOpen()
    const { promise, resolve, reject } = Promise.withResolvers<Commit>()
    const commit = { changes, options, resolve, reject }
    this.#checkOptions(options)
    if (options.fence !== undefined && !this.#hasRoomFor(changes)) this.#waiting.push(commit)
    else this.#enqueue(this.#stage(commit))
    return promise
  }

  #checkOptions({ fence, checkedAt }: CommitOptions): void {
    if (fence !== undefined && fence !== this.#epochStaged) {
      throw new UserError(
        'outOfSequence',
        `a leader of epoch ${fence} may not write in epoch ${this.#epochStaged}`,
        { next: 'Another manager leads now; leave it to that one.' },
      )
    }
    if (checkedAt !== undefined && checkedAt < this.#checkedStaged) throw checkedTooEarly()
  }

  /** Checks the changes on everything before them. Throws UserError as `commit` rejects. */
  #stage(commit: Waiting): Entry {
    const { changes, options } = commit
    const staged = this.#staging.stage(changes, this.#clock.nowMs())
    if (options.checkedAt !== undefined) this.#checkedStaged = staged.revision
    if (this.#freeze) for (const { after } of staged.applied) deepFreeze(after)
    this.#charactersQueued += staged.size
    return { type: 'commit', ...commit, staged }
  }

  /** Whether the leader may add changes to the next batch. */
  #hasRoomFor(changes: readonly Change[]): boolean {
    if (this.#waiting.length > 0) return false
    const queued = leadersChanges(this.#queue)
    return queued === 0 || queued + changes.length <= this.#changesAtOnce
  }

  /** Checks as many of those that wait as there is room for: at least one, if nothing else is left to write. */
  #stageWaiting(): void {
    let queued = leadersChanges(this.#queue)
    let taken = 0
    for (const commit of this.#waiting) {
      if (queued > 0 && queued + commit.changes.length > this.#changesAtOnce) break
      taken += 1
      try {
        this.#checkOptions(commit.options)
        this.#queue.push(this.#stage(commit))
        queued += commit.changes.length
      } catch (error) {
        commit.reject(error)
      }
    }
    this.#waiting = this.#waiting.slice(taken)
  }

  async advanceEpoch(): Promise<number> {
    this.#checkOpen()
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#epochStaged += 1
    this.#enqueue({ type: 'epoch', staged: this.#epochStaged, resolve, reject })
    return promise
  }

  subscribe(listener: (commit: Commit) => void): () => void {
    // Wrapped, so that one function subscribed twice is two subscriptions.
    const own = (commit: Commit): void => listener(commit)
    this.#listeners.add(own)
    return () => this.#listeners.delete(own)
  }

  /** Waits for the commits under way, then gives the disk back. */
  close(): Promise<void> {
    this.#closed ??= this.#finish()
    return this.#closed
  }

  async #finish(): Promise<void> {
    if (this.#writing) await new Promise<void>((resolve) => (this.#idle = resolve))
    await this.#persistence.close()
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new UserError('unavailable', 'the store is closed', {
        next: 'The daemon is shutting down; try again once it is back.',
      })
    }
    if (
      this.#queue.length + this.#waiting.length + this.#inFlight >= this.#commitsQueuedMax ||
      this.#charactersQueued >= charactersQueuedMax
    ) {
      throw new UserError('unavailable', 'too many changes are waiting to be stored', {
        next: 'Try again in a moment; if this stays, look at the speed of the disk under the data root.',
      })
    }
  }

  #enqueue(entry: Entry): void {
    this.#queue.push(entry)
    if (this.#writing) return
    this.#writing = true
    void this.#write()
  }

  /** Never rejects: every failure goes to those who wait for the commit. */
  async #write(): Promise<void> {
    // Commits of the same turn share the first batch too.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(
        0,
        this.#singly > 0 ? 1 : commitsOfBatch(this.#queue, this.#changesAtOnce),
      )
      if (this.#singly > 0) this.#singly -= 1
      this.#inFlight = batch.length
      const persisted = this.#persist(batch)
      // While the disk has this one the next one is made ready.
      this.#stageWaiting()
      const failure = await persisted
      this.#inFlight = 0
      if (failure === undefined) this.#apply(batch)
      else this.#recover(batch, failure)
      // All that was made ready may have failed with it.
      if (this.#queue.length === 0) this.#stageWaiting()
    }
    this.#writing = false
    this.#idle?.()
  }

  async #persist(batch: readonly Entry[]): Promise<UserError | undefined> {
    const writes: Write[] = []
    let revision = this.#view.revision
    let epoch = this.#epoch
    for (const entry of batch) {
      if (entry.type === 'epoch') {
        epoch = entry.staged
        continue
      }
      revision = entry.staged.revision
      for (const write of entry.staged.writes) writes.push(write)
    }
    try {
      await this.#persistence.persist({
        baseRevision: this.#view.revision,
        revision,
        epoch,
        writes,
      })
      return undefined
    } catch (error) {
      return notStored(error)
    }
  }

  #apply(batch: readonly Entry[]): void {
    for (const entry of batch) {
      if (entry.type === 'epoch') {
        this.#epoch = entry.staged
        entry.resolve(entry.staged)
        continue
      }
      const { staged } = entry
      for (const { kind, id, after } of staged.applied) {
        if (after === undefined) this.#view.delete(kind, id)
        else this.#view.put(after)
      }
      this.#view.setRevision(staged.revision)
      this.#staging.settle(staged)
      this.#charactersQueued -= staged.size
      const commit: Commit = {
        revision: staged.revision,
        atMs: staged.atMs,
        changes: staged.applied,
      }
      for (const listener of this.#listeners) {
        try {
          listener(commit)
        } catch (error) {
          // The commit is done and others wait for it; a broken listener stops the process by itself.
          queueMicrotask(() => {
            throw error
          })
        }
      }
      entry.resolve(commit)
    }
  }

  /** Puts the expected state back to what is durable, and stages again what has not been tried. */
  #recover(batch: readonly Entry[], failure: UserError): void {
    const full = failure.cause instanceof PersistError && failure.cause.full
    const again: Entry[] = []
    if (full && batch.length > 1) {
      again.push(...batch)
      this.#singly = batch.length
    } else {
      for (const entry of batch) entry.reject(failure)
    }
    again.push(...this.#queue)
    this.#queue = []
    this.#staging = this.#newStaging()
    this.#epochStaged = this.#epoch
    // What was not stored was not declared either.
    this.#checkedStaged = Math.min(this.#checkedStaged, this.#view.revision)
    this.#charactersQueued = 0
    for (const entry of again) {
      if (entry.type === 'epoch') {
        this.#epochStaged += 1
        entry.staged = this.#epochStaged
        this.#queue.push(entry)
        continue
      }
      try {
        this.#queue.push(this.#stage(entry))
      } catch {
        // It was valid before: what makes it invalid now is that a commit before it was not stored.
        entry.reject(failure)
      }
    }
  }
}

/** How many of the commits that were checked share the next batch: all, up to the bounds on changes, but always one. */
function commitsOfBatch(queue: readonly Entry[], changesAtOnce: number): number {
  const changes = { leader: 0, others: 0 }
  let commits = 0
  for (const entry of queue) {
    if (entry.type === 'commit')
      changes[isLeaders(entry) ? 'leader' : 'others'] += entry.changes.length
    if (commits > 0 && Math.max(changes.leader, changes.others) > changesAtOnce) break
    commits += 1
  }
  return commits
}

/** Changes of the leader among them. */
function leadersChanges(queue: readonly Entry[]): number {
  let changes = 0
  for (const entry of queue)
    if (entry.type === 'commit' && isLeaders(entry)) changes += entry.changes.length
  return changes
}

function isLeaders({ options }: Waiting): boolean {
  return options.fence !== undefined
}

function notStored(error: unknown): UserError {
  return new UserError('unavailable', `the change was not stored: ${messageOf(error)}`, {
    next:
      error instanceof PersistError ? error.next : 'Look at the log of the daemon, and try again.',
    cause: error,
  })
}

/** Reads an object back as it was written. Throws UserError where a version like this one can't have written it. */
function parseStored(text: string): AnyObject {
  const object: unknown = JSON.parse(text)
  if (
    typeof object === 'object' &&
    object !== null &&
    'kind' in object &&
    isKind(object.kind) &&
    'id' in object &&
    typeof object.id === 'string' &&
    'version' in object &&
    typeof object.version === 'number'
  ) {
    return object as AnyObject
  }
  throw new UserError('internal', 'the store holds an object that this version does not know', {
    next: 'Start the version of Skep that wrote it, or restore a backup.',
  })
}

function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  Object.freeze(value)
  for (const part of Object.values(value)) deepFreeze(part)
}
