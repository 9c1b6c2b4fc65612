/**
 * Where a store keeps what it holds. The core hands over one batch at a time, already valid, and shows it to nobody
 * before `persist` resolves.
 */
export interface Persistence {
  /** It keeps nothing, so batches need no writes. */
  readonly isForgetful?: boolean
  /** Everything durable. Called once, first. Rejects with UserError where the data can't be used. */
  load(): Promise<Snapshot>
  /** Makes the batch durable, whole or not at all. Rejects with PersistError when nothing of it was kept. */
  persist(batch: Batch): Promise<void>
  /** Called once, last, when nothing is under way. */
  close(): Promise<void>
}

export interface Snapshot {
  readonly revision: number
  readonly epoch: number
  /** JSON text of every object, in order of creation. */
  readonly texts: readonly string[]
}

/** Some commits, taken together. */
export interface Batch {
  /** The store's revision and epoch before and after. */
  readonly baseRevision: number
  readonly revision: number
  readonly epoch: number
  readonly writes: readonly Write[]
}

export type Write =
  | { readonly type: 'put'; readonly kind: string; readonly id: string; readonly text: string }
  | { readonly type: 'delete'; readonly kind: string; readonly id: string }

/** A batch that could not be kept. The message completes "the change was not stored: …". */
export class PersistError extends Error {
  override readonly name = 'PersistError'
  /** No room: a smaller batch may still fit. */
  readonly full: boolean
  readonly next: string
  constructor(message: string, options: { full: boolean; next: string; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.full = options.full
    this.next = options.next
  }
}
