import type { Batch, Write } from './persistence.ts'
import type { ValueKey } from './sealed-values.ts'

/** A batch as it crosses between threads: one list of strings is copied in half the time of as many objects. */
export interface PackedBatch extends Omit<Batch, 'writes'> {
  /** Kind, id and text of each write, one after the other; an empty text deletes. */
  readonly strings: readonly string[]
}

export function packBatch({ writes, ...rest }: Batch): PackedBatch {
  const strings: string[] = []
  for (const write of writes)
    strings.push(write.kind, write.id, write.type === 'put' ? write.text : '')
  return { ...rest, strings }
}

export function* unpackWrites({ strings }: PackedBatch): Iterable<Write> {
  for (let at = 0; at < strings.length; at += 3) {
    const [kind = '', id = '', text = ''] = [strings[at], strings[at + 1], strings[at + 2]]
    yield text === '' ? { type: 'delete', kind, id } : { type: 'put', kind, id, text }
  }
}

/** What the store asks of its worker, one at a time. */
export type Request =
  | {
      readonly type: 'open'
      readonly path: string
      readonly keys: readonly ValueKey[]
      readonly withTexts: boolean
    }
  | { readonly type: 'clusterId'; readonly path: string }
  | { readonly type: 'persist'; readonly batch: PackedBatch }
  | { readonly type: 'close' }

export type Reply =
  | {
      readonly type: 'opened'
      readonly revision: number
      readonly epoch: number
      readonly texts: readonly string[]
      /** Set when the last end was not clean: the data was checked whole, in so many ms, and is sound. */
      readonly checkedMs?: number
    }
  | { readonly type: 'clusterId'; readonly id: string }
  | { readonly type: 'done' }
  | { readonly type: 'failed'; readonly failure: Failure }

/**
 * - `inUse`: another process has it open.
 * - `newerSchema`, `foreign`, `damaged`: the file is not one this version can use.
 * - `otherKey`: what it holds is sealed with a key that was not given.
 * - `full`: no room. `io`: any other trouble with the disk.
 */
export interface Failure {
  readonly reason: 'inUse' | 'newerSchema' | 'foreign' | 'damaged' | 'otherKey' | 'full' | 'io'
  readonly detail: string
}
