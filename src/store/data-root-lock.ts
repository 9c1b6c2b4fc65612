import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { messageOf, UserError } from '../base/index.ts'

/** How long a daemon that is just ending may still hold the lock, in ms. */
const lockWaitMs = 1_000

export interface DataRootLock {
  release(): void
}

/**
 * Makes the data root this process's own until it ends, `kill -9` included: before anything in there is read or
 * written, and whether or not there is a store yet. Blocks up to a second. Throws UserError: `failedPrecondition`
 * (another daemon has it), `unavailable` (the directory can't be used).
 *
 * Node.js has no file locks, SQLite does: an exclusive transaction, never finished, on an empty database.
 */
export function lockDataRoot(directory: string): DataRootLock {
  const path = join(directory, 'lock')
  let database: DatabaseSync | undefined
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    chmodSync(directory, 0o700)
    createEmpty(path)
    database = new DatabaseSync(path, { timeout: lockWaitMs })
    database.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    database?.close()
    if (error instanceof Error && 'errcode' in error && error.errcode === sqliteBusy) {
      throw new UserError('failedPrecondition', `another daemon is using ${directory}`, {
        next: 'Stop that one, or start this one with another --data-root.',
      })
    }
    throw new UserError('unavailable', `${directory} can not be used: ${messageOf(error)}`, {
      next: 'Check the permissions there and the disk, or start with another --data-root.',
      cause: error,
    })
  }
  const held = database
  return { release: () => held.close() }
}

/** Source: sqlite.org/rescode.html. */
const sqliteBusy = 5

function createEmpty(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    // It must not be opened when it exists: closing it would drop a lock that this process has on it.
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
}
