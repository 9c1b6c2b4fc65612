import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { parentPort } from 'node:worker_threads'
import { assert, unreachable } from '../base/index.ts'
import { Frames, type NextFrame } from './frames.ts'
import type { Write } from './persistence.ts'
import { SealError, SealedValues, type ValueKey } from './sealed-values.ts'
import {
  type Failure,
  type PackedBatch,
  type Reply,
  type Request,
  unpackWrites,
} from './sqlite-messages.ts'

/** Version of the tables. A change of them counts it up and adds the step from the one before at open. */
const schemaVersion = 2
/** "skep" in ASCII: marks the file as ours. */
const applicationId = 0x736b6570
/** How long a daemon that is just ending may still hold the file, in ms. */
const lockWaitMs = 1_000
/** The write-ahead log is cut back to this once its content is in the database. */
const logBytesKept = 16_000_000
/** Rows of version 1 that become one frame. */
const rowsPerFrame = 500
/** Pages given back to the file system at open, when at least so many and half of all are unused. */
const unusedPagesMax = 2_000

const schema = `
  CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    clean INTEGER NOT NULL,
    cluster TEXT NOT NULL DEFAULT ''
  ) STRICT;
  INSERT INTO store VALUES (1, 0, 0, 1, '');
  CREATE TABLE frame (
    number INTEGER PRIMARY KEY,
    value BLOB NOT NULL
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
  readonly #frames: Frames
  readonly #put: StatementSync
  readonly #read: StatementSync
  readonly #clear: StatementSync
  readonly #name: StatementSync
  readonly #advance: StatementSync
  readonly #where: StatementSync
  readonly checkedMs: number | undefined

  constructor(path: string, keys: readonly ValueKey[]) {
    this.#frames = new Frames(new SealedValues(keys))
    createPrivately(path)
    this.#database = new DatabaseSync(path, { timeout: lockWaitMs })
    try {
      this.checkedMs = this.#prepare()
      this.#put = this.#database.prepare('INSERT INTO frame VALUES (?, ?)')
      this.#read = this.#database.prepare('SELECT value FROM frame WHERE number = ?')
      this.#clear = this.#database.prepare('DELETE FROM frame WHERE number <= ?')
      this.#name = this.#database.prepare('UPDATE store SET cluster = ?')
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
    if (tables > 0 && foundVersion < 2) this.#sealAll()
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

  /** Version 1 kept texts as they are, one in a row. What they leave is overwritten, in the file and in its log. */
  #sealAll(): void {
    const database = this.#database
    database.exec('PRAGMA secure_delete = ON; BEGIN IMMEDIATE')
    try {
      database.exec(`
        ALTER TABLE store ADD COLUMN cluster TEXT NOT NULL DEFAULT '';
        UPDATE store SET cluster = coalesce((SELECT id FROM object WHERE kind = 'cluster'), '');
        CREATE TABLE frame (number INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT;`)
      const put = database.prepare('INSERT INTO frame VALUES (?, ?)')
      const keep = (writes: readonly Write[]) => {
        const frame = this.#frames.next(writes)
        put.run(frame.number, frame.value)
        this.#frames.keep(frame)
      }
      let writes: Write[] = []
      for (const row of database
        .prepare('SELECT kind, id, text FROM object ORDER BY place')
        .iterate()) {
        const [kind, id, text] = [String(row['kind']), String(row['id']), String(row['text'])]
        writes.push({ type: 'put', kind, id, text })
        if (writes.length < rowsPerFrame) continue
        keep(writes)
        writes = []
      }
      if (writes.length > 0) keep(writes)
      database.exec('DROP TABLE object; PRAGMA user_version = 2; COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
    database.exec('PRAGMA wal_checkpoint(TRUNCATE); PRAGMA secure_delete = OFF')
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

  /** Whatever there is has to be read before more is written. */
  texts(): readonly string[] {
    const rows = this.#database.prepare('SELECT number, value FROM frame ORDER BY number')
    return this.#frames.load(
      (function* () {
        for (const { number, value } of rows.iterate()) {
          assert(typeof number === 'number' && value instanceof Uint8Array, 'a frame has a number')
          yield { number, value }
        }
      })(),
    )
  }

  persist(batch: PackedBatch): void {
    assert(this.where().revision === batch.baseRevision, 'a batch follows what the disk holds')
    const writes = [...unpackWrites(batch)]
    if (writes.length === 0) {
      this.#keep(batch, undefined, writes)
      return
    }
    const frame = this.#frames.next(writes, (number) => this.#valueOf(number))
    try {
      this.#keep(batch, frame, writes)
    } catch (error) {
      if (frame.clearedTo === 0) throw error
      // There may be room for the batch alone.
      this.#keep(batch, this.#frames.next(writes), writes)
    }
  }

  #valueOf(number: number): Uint8Array | undefined {
    const value = this.#read.get(number)?.['value']
    return value instanceof Uint8Array ? value : undefined
  }

  #keep(batch: PackedBatch, frame: NextFrame | undefined, writes: readonly Write[]): void {
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      if (frame && frame.clearedTo > 0) this.#clear.run(frame.clearedTo)
      if (frame) this.#put.run(frame.number, frame.value)
      for (const { type, kind, id } of writes) {
        if (kind === 'cluster') this.#name.run(type === 'put' ? id : '')
      }
      this.#advance.run(batch.revision, batch.epoch)
      this.#database.exec('COMMIT')
    } catch (error) {
      if (!this.#isDurable(batch)) throw error
    }
    if (frame) this.#frames.keep(frame)
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

  /** Gives the file back as it is. */
  abandon(): void {
    this.#database.close()
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
  if (error instanceof SealError) {
    return { reason: error.reason === 'newer' ? 'newerSchema' : error.reason, detail }
  }
  if (codeOf(error) === 'ENOSPC' || codeOf(error) === 'EDQUOT') return { reason: 'full', detail }
  const result = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0
  return { reason: reasonByResult.get(result) ?? 'io', detail }
}

/** The id of the cluster is not sealed. */
function readClusterId(path: string): string {
  const database = new DatabaseSync(path, { timeout: lockWaitMs })
  try {
    const isOld = numberOf(database.prepare('PRAGMA user_version').get(), 'user_version') < 2
    const query = isOld
      ? "SELECT id FROM object WHERE kind = 'cluster'"
      : 'SELECT cluster id FROM store'
    return String(database.prepare(query).get()?.['id'] ?? '')
  } finally {
    database.close()
  }
}

function readOrClose(database: Database): readonly string[] {
  try {
    return database.texts()
  } catch (error) {
    database.abandon()
    throw error
  }
}

let database: Database | undefined

function answer(request: Request): Reply {
  switch (request.type) {
    case 'clusterId':
      return { type: 'clusterId', id: readClusterId(request.path) }
    case 'open': {
      database = new Database(request.path, request.keys)
      const { checkedMs } = database
      const texts = readOrClose(database)
      return {
        type: 'opened',
        ...database.where(),
        texts: request.withTexts ? texts : [],
        ...(checkedMs !== undefined && { checkedMs }),
      }
    }
    case 'persist':
      assert(database !== undefined, 'open comes first')
      database.persist(request.batch)
      return { type: 'done' }
    case 'close':
      database?.close()
      return { type: 'done' }
    default:
      return unreachable(request)
  }
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
