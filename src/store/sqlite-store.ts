import { dirname, extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { type Clock, type Log, UserError, unreachable } from '../base/index.ts'
import type { AnyObject } from '../model/index.ts'
import { type Batch, PersistError, type Persistence, type Snapshot } from './persistence.ts'
import type { ValueKey } from './sealed-values.ts'
import { type Failure, packBatch, type Reply, type Request } from './sqlite-messages.ts'
import type { LeaderEpoch, Store } from './store.ts'
import { StoreCore } from './store-core.ts'

export interface SqliteStoreOptions {
  /** The database file. Its directory is made, and closed to everyone else. */
  readonly path: string
  /** What its values are sealed with: the newest, last, seals, and all of them open. */
  readonly keys: readonly ValueKey[]
  readonly clock: Clock
  readonly log: Log
  /** The worker's program. Default: `sqlite-worker` beside this module, with its ending: a bundle has both in one directory. */
  readonly workerPath?: string
  readonly freeze?: boolean
  readonly commitsQueuedMax?: number
}

/**
 * Opens the embedded store: one SQLite file, written by a worker thread so that this thread never waits for the
 * disk. Rejects with UserError: `failedPrecondition` (another daemon has it, a newer or foreign file), `internal`
 * (damaged), `unavailable` (disk).
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store & LeaderEpoch> {
  const persistence = new SqlitePersistence(options)
  try {
    return await StoreCore.open({ ...options, persistence })
  } catch (error) {
    await persistence.end()
    throw error
  }
}

/**
 * The id of the cluster whose state a store is, read without its keys; undefined where it holds none. Nobody may have it
 * open. Rejects as `openSqliteStore` does.
 */
export async function readStoredClusterId({
  path,
  workerPath,
}: Pick<SqliteStoreOptions, 'path' | 'workerPath'>): Promise<string | undefined> {
  const connection = new Connection(workerPath ?? besideThisModule())
  try {
    const reply = await connection.ask({ type: 'clusterId', path })
    if (reply.type === 'failed') throw notOpened(path, reply.failure)
    return reply.type === 'clusterId' && reply.id !== '' ? reply.id : undefined
  } finally {
    await connection.end()
  }
}

/** Objects written in one transaction of a restored store. */
const restoredAtOnceMax = 2_000

/**
 * Makes the file of a store out of what another one held: versions, times and order stay as they were. There must be no
 * such file yet. Rejects as `openSqliteStore` does.
 */
export async function restoreSqliteStore(
  options: SqliteStoreOptions,
  held: {
    readonly revision: number
    readonly epoch: number
    readonly objects: readonly AnyObject[]
  },
): Promise<void> {
  const persistence = new SqlitePersistence(options)
  try {
    const { revision: before } = await persistence.load()
    let baseRevision = before
    for (let at = 0; at < held.objects.length; at += restoredAtOnceMax) {
      const { revision, epoch } = held
      const writes = held.objects.slice(at, at + restoredAtOnceMax).map((object) => ({
        type: 'put' as const,
        kind: object.kind,
        id: object.id,
        text: JSON.stringify(object),
      }))
      await persistence.persist({ baseRevision, revision, epoch, writes })
      baseRevision = revision
    }
    await persistence.close()
  } catch (error) {
    await persistence.end()
    throw error
  }
}

/** The worker's end, other than by asking it. */
class WorkerLost extends Error {}

/** A worker with one request under way at a time. */
class Connection {
  readonly #worker: Worker
  #settle: { resolve(reply: Reply): void; reject(error: Error): void } | undefined
  #lost: WorkerLost | undefined

  constructor(workerPath: string) {
    this.#worker = new Worker(workerPath, { name: 'store' })
    this.#worker.on('message', (reply: Reply) => {
      this.#settle?.resolve(reply)
      this.#settle = undefined
      this.#rest()
    })
    this.#worker.on('error', (error) => this.#lose(error))
    this.#worker.on('exit', () => this.#lose(undefined))
  }

  async ask(request: Request): Promise<Reply> {
    if (this.#lost) throw this.#lost
    const { promise, resolve, reject } = Promise.withResolvers<Reply>()
    this.#settle = { resolve, reject }
    // An idle store keeps no process alive; a commit under way does.
    this.#worker.ref()
    this.#worker.postMessage(request)
    return promise
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }

  #rest(): void {
    this.#worker.unref()
  }

  #lose(cause: unknown): void {
    this.#lost ??= new WorkerLost('the thread that writes the store ended', { cause })
    this.#settle?.reject(this.#lost)
    this.#settle = undefined
  }
}

class SqlitePersistence implements Persistence {
  readonly #path: string
  readonly #keys: readonly ValueKey[]
  readonly #workerPath: string
  readonly #log: Log
  #connection: Connection

  constructor({ path, keys, workerPath, log }: SqliteStoreOptions) {
    this.#path = path
    this.#keys = keys
    this.#workerPath = workerPath ?? besideThisModule()
    this.#log = log
    this.#connection = new Connection(this.#workerPath)
  }

  async load(): Promise<Snapshot> {
    const opened = await this.#open(true)
    if (opened.checkedMs !== undefined) {
      this.#log.info('store was not closed by its last user; checked, and sound', {
        path: this.#path,
        checkedMs: Math.round(opened.checkedMs),
        revision: opened.revision,
      })
    }
    return opened
  }

  async persist(batch: Batch): Promise<void> {
    const packed = packBatch(batch)
    let reply: Reply
    try {
      reply = await this.#connection.ask({ type: 'persist', batch: packed })
    } catch (error) {
      if (!(error instanceof WorkerLost)) throw error
      this.#log.error('store thread ended; starting another', { error: String(error.cause) })
      this.#connection = new Connection(this.#workerPath)
      const { revision, epoch } = await this.#open(false)
      // The thread may have ended after the disk had it all.
      if (revision === batch.revision && epoch === batch.epoch) return
      reply = await this.#connection.ask({ type: 'persist', batch: packed })
    }
    if (reply.type !== 'failed') return
    const { reason, detail } = reply.failure
    this.#log.error('commit failed on disk', { path: this.#path, reason, detail })
    if (reason === 'full') {
      throw new PersistError(`the disk that holds ${this.#path} is full`, {
        full: true,
        next: `Free some space under ${dirname(this.#path)} and try again; nothing stored before is lost.`,
        cause: new Error(detail),
      })
    }
    throw new PersistError(`the disk that holds ${this.#path} fails (${detail})`, {
      full: false,
      next: `Check the disk (dmesg, mount options), then try again; nothing stored before is lost.`,
      cause: new Error(detail),
    })
  }

  async close(): Promise<void> {
    try {
      const reply = await this.#connection.ask({ type: 'close' })
      if (reply.type === 'failed') {
        // All commits are durable already; the next open only takes longer.
        this.#log.warn('store could not be closed cleanly', { detail: reply.failure.detail })
      }
    } catch (error) {
      if (!(error instanceof WorkerLost)) throw error
    }
    await this.end()
  }

  async end(): Promise<void> {
    await this.#connection.end()
  }

  async #open(withTexts: boolean): Promise<Reply & { readonly type: 'opened' }> {
    const [path, keys] = [this.#path, this.#keys]
    const reply = await this.#connection.ask({ type: 'open', path, keys, withTexts })
    if (reply.type === 'opened') return reply
    if (reply.type === 'failed') throw notOpened(this.#path, reply.failure)
    throw new Error('broken invariant: an open is answered by opened or failed')
  }
}

function besideThisModule(): string {
  return fileURLToPath(new URL(`./sqlite-worker${extname(import.meta.url)}`, import.meta.url))
}

function notOpened(path: string, { reason, detail }: Failure): UserError {
  switch (reason) {
    case 'inUse':
      return new UserError('failedPrecondition', `another daemon is using ${path}`, {
        next: 'Stop that one, or start this one with another --data-root.',
      })
    case 'newerSchema':
      return new UserError(
        'failedPrecondition',
        `${path} was written by a newer version of Skep (${detail})`,
        { next: 'Start that version or a later one.' },
      )
    case 'foreign':
      return new UserError('failedPrecondition', `${path} is not a store of Skep's (${detail})`, {
        next: 'Move that file away, or start with another --data-root.',
      })
    case 'damaged':
      return new UserError('internal', `${path} is damaged (${detail})`, {
        next: 'Keep a copy, check the disk, and restore a backup.',
      })
    case 'otherKey':
      return new UserError('internal', `${path} can't be read: ${detail}, which is not at hand`, {
        next: 'Put back the file `data.keys` that belongs to it (it lies beside it), or restore a backup.',
      })
    case 'full':
      return new UserError('unavailable', `${path} can't be opened: the disk is full`, {
        next: `Free some space under ${dirname(path)} and start again.`,
      })
    case 'io':
      return new UserError('unavailable', `${path} can't be opened: ${detail}`, {
        next: 'Check the permissions of the data root and the disk under it.',
      })
    default:
      return unreachable(reason)
  }
}
