import type { Batch } from './persistence.ts'

/** What the store asks of its worker, one at a time. */
export type Request =
  | { readonly type: 'open'; readonly path: string; readonly withTexts: boolean }
  | { readonly type: 'persist'; readonly batch: Batch }
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
  | { readonly type: 'done' }
  | { readonly type: 'failed'; readonly failure: Failure }

/**
 * - `inUse`: another process has it open.
 * - `newerSchema`, `foreign`, `damaged`: the file is not one this version can use.
 * - `full`: no room. `io`: any other trouble with the disk.
 */
export interface Failure {
  readonly reason: 'inUse' | 'newerSchema' | 'foreign' | 'damaged' | 'full' | 'io'
  readonly detail: string
}
