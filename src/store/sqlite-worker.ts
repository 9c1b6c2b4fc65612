import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { parentPort } from 'node:worker_threads'
import { assert } from '../base/index.ts'
import {
  type Failure,
  type PackedBatch,
  type Reply,
  type Request,
  unpackWrites,
} from './sqlite-messages.ts'

/** Version of the tables. A change of them counts it up and adds the step from the one before at open. */
const schemaVersion = 1
/** "skep" in ASCII: marks the file as ours. */
const applicationId = 0x736b6570
/** How long a daemon that is just ending may still hold the file, in ms. */
const lockWaitMs = 1_000
/** The write-ahead log is cut back to this once its content is in the database. */
const logBytesKept = 16_000_000
/** Pages given back to the file system at open, when at least so many and half of all are unused. */
const unusedPagesMax = 2_000

const schema = `
  CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    clean INTEGER NOT NULL
  ) STRICT;
  INSERT INTO store VALUES (1, 0, 0, 1);
  CREATE TABLE object (
    place INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (kind, id)
  ) STRICT;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
`

/** A refusal to use the file, as opposed to a failure of SQLite. */
class Refusal extends Error {
  readonly reason: Failure['reason']
  constructor(reason: Failure['reason'], detail: string) {
    super(detail)
    this.reason = reason
  }
}

/** The database of one store. Every call blocks its thread until the disk has answered. */
class Database {
  readonly #database: DatabaseSync
  readonly #put: StatementSync
  readonly #delete: StatementSync
  readonly #advance: StatementSync
  readonly #where: StatementSync
  readonly checkedMs: number | undefined

  constructor(path: string) {
    createPrivately(path)
    this.#database = new DatabaseSync(path, { timeout: lockWaitMs })
    try {
      this.checkedMs = this.#prepare()
      this.#put = this.#database.prepare(
        'INSERT INTO object (kind, id, text) VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET text = excluded.text',
      )
      this.#delete = this.#database.prepare('DELETE FROM object WHERE kind = ? AND id = ?')
      this.#advance = this.#database.prepare('UPDATE store SET revision = ?, epoch = ?, clean = 0')
      this.#where = this.#database.prepare('SELECT revision, epoch FROM store')
    } catch (error) {
      this.#database.close()
      throw error
    }
  }

  /** Locks the file, and makes it ready to use. Answers how long the check took, where one was needed. */
  #prepare(): number | undefined {
    const database = this.#database
    // Exclusive: this process alone may have the file, from the first read on (so that a full disk can still be
    // opened), and the kernel ends that when the process ends.
    database.exec('PRAGMA locking_mode = EXCLUSIVE')
    const foundVersion = numberOf(database.prepare('PRAGMA user_version').get(), 'user_version')
    const foundId = numberOf(database.prepare('PRAGMA application_id').get(), 'application_id')
    const tables = numberOf(database.prepare('SELECT count(*) n FROM sqlite_schema').get(), 'n')
    if (tables > 0 && foundId !== applicationId) {
      throw new Refusal('foreign', 'it is a database of something else')
    }
    if (foundVersion > schemaVersion) {
      throw new Refusal(
        'newerSchema',
        `schema ${foundVersion}; this version reads up to ${schemaVersion}`,
      )
    }
    if (tables === 0) database.exec('PRAGMA auto_vacuum = INCREMENTAL')
    database.exec('PRAGMA journal_mode = WAL')
    database.exec(`PRAGMA synchronous = FULL; PRAGMA journal_size_limit = ${logBytesKept}`)
    if (tables === 0) database.exec(`BEGIN IMMEDIATE; ${schema} COMMIT`)
    const clean = numberOf(database.prepare('SELECT clean FROM store').get(), 'clean') === 1
    const checkedMs = clean ? undefined : this.#check()
    this.#giveBackUnusedPages()
    return checkedMs
  }

  #check(): number {
    const startMs = performance.now()
    const found = this.#database.prepare('PRAGMA integrity_check(3)').all()
    const faults = found.map(({ integrity_check: line }) => line).filter((line) => line !== 'ok')
    if (faults.length > 0) throw new Refusal('damaged', faults.join('; '))
    return performance.now() - startMs
  }

  #giveBackUnusedPages(): void {
    const unused = numberOf(this.#database.prepare('PRAGMA freelist_count').get(), 'freelist_count')
    const pages = numberOf(this.#database.prepare('PRAGMA page_count').get(), 'page_count')
    if (unused >= unusedPagesMax && unused * 2 >= pages) {
      this.#database.exec('PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)')
    }
  }

  where(): { readonly revision: number; readonly epoch: number } {
    const row = this.#where.get()
    return { revision: numberOf(row, 'revision'), epoch: numberOf(row, 'epoch') }
  }

  texts(): string[] {
    const texts: string[] = []
    for (const row of this.#database.prepare('SELECT text FROM object ORDER BY place').iterate()) {
      const { text } = row
      if (typeof text === 'string') texts.push(text)
    }
    return texts
  }

  persist(batch: PackedBatch): void {
    assert(this.where().revision === batch.baseRevision, 'a batch follows what the disk holds')
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      for (const write of unpackWrites(batch)) {
        if (write.type === 'put') this.#put.run(write.kind, write.id, write.text)
        else this.#delete.run(write.kind, write.id)
      }
      this.#advance.run(batch.revision, batch.epoch)
      this.#database.exec('COMMIT')
    } catch (error) {
      if (this.#isDurable(batch)) return
      throw error
    }
  }

  /** Ends what is left of a failed transaction, and says whether it failed only after its commit. */
  #isDurable(batch: PackedBatch): boolean {
    try {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      const { revision, epoch } = this.where()
      return revision === batch.revision && epoch === batch.epoch
    } catch {
      return false // The disk does not even answer that; the first error says more.
    }
  }

  /** Leaves one file that says that all is well. Gives the lock back even where that fails. */
  close(): void {
    try {
      this.#database.exec('UPDATE store SET clean = 1 WHERE clean = 0')
    } finally {
      this.#database.close()
    }
  }
}

/** Only the owner may read what is in there. The database gives its own permissions to the files beside it. */
function createPrivately(path: string): void {
  const directory = dirname(path)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  chmodSync(directory, 0o700)
  try {
    closeSync(openSync(path, 'wx', 0o600))
    const handle = openSync(directory, 'r')
    fsyncSync(handle)
    closeSync(handle)
  } catch (error) {
    // An existing file must not be opened here: closing it would drop this process's lock on it.
    if (codeOf(error) !== 'EEXIST') throw error
    chmodSync(path, 0o600)
  }
}

function numberOf(row: Record<string, unknown> | undefined, column: string): number {
  const value = row?.[column]
  assert(typeof value === 'number', `${column} is a number`)
  return value
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

/** Result codes of SQLite (lowest 8 bits). Source: sqlite.org/rescode.html. */
const reasonByResult: ReadonlyMap<number, Failure['reason']> = new Map([
  [5, 'inUse'],
  [6, 'inUse'],
  [11, 'damaged'],
  [13, 'full'],
  [26, 'foreign'],
])

function failureOf(error: unknown): Failure {
  const detail = error instanceof Error ? error.message : String(error)
  if (error instanceof Refusal) return { reason: error.reason, detail }
  if (codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT') return { reason: 'full', detail }
  const result = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0
  return { reason: reasonByResult.get(result) ?? 'io', detail }
}

let database: Database | undefined

function answer(request: Request): Reply {
  if (request.type === 'open') {
    database = new Database(request.path)
    const { checkedMs } = database
    return {
      type: 'opened',
      ...database.where(),
      texts: request.withTexts ? database.texts() : [],
      ...(checkedMs !== undefined && { checkedMs }),
    }
  }
  assert(database !== undefined, 'open comes first')
  if (request.type === 'persist') database.persist(request.batch)
  else database.close()
  return { type: 'done' }
}

assert(parentPort !== null, 'the store starts this file as a worker')
const port = parentPort
port.on('message', (request: Request) => {
  try {
    port.postMessage(answer(request))
  } catch (error) {
    port.postMessage({ type: 'failed', failure: failureOf(error) } satisfies Reply)
  }
  if (request.type === 'close') port.close()
})
