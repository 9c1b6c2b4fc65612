/**
 * What went wrong, as a closed set that callers branch on. Each dialect maps them to its own words in one table.
 *
 * - `invalidInput`: the request can never succeed as it is; change it.
 * - `notFound`, `ambiguous`, `conflict`: the name or id has no, several or another owner.
 * - `outOfSequence`: the object changed since it was read; read it again and retry.
 * - `inUse`: something still refers to the object; remove the users first.
 * - `notManager`, `alreadyInCluster`, `notInCluster`, `locked`: the node's part in a cluster forbids the call.
 * - `failedPrecondition`: the cluster's state forbids it now.
 * - `forbidden`: this caller may not.
 * - `unsupported`: neither this version nor this engine can do it.
 * - `unavailable`: try again later (no quorum, full disk, shutting down).
 * - `tooLarge`: over a named bound.
 * - `internal`: a fault of Skep's or of the engine's.
 */
export type ErrorCode =
  | 'invalidInput'
  | 'notFound'
  | 'ambiguous'
  | 'conflict'
  | 'outOfSequence'
  | 'inUse'
  | 'notManager'
  | 'alreadyInCluster'
  | 'notInCluster'
  | 'locked'
  | 'failedPrecondition'
  | 'forbidden'
  | 'unsupported'
  | 'unavailable'
  | 'tooLarge'
  | 'internal'

/** A failure a person may read: `message` is what happened, `next` what they can do about it. */
export class UserError extends Error {
  override readonly name = 'UserError'
  readonly code: ErrorCode
  readonly next: string | undefined
  constructor(code: ErrorCode, message: string, options: { next?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.next = options.next
  }
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
