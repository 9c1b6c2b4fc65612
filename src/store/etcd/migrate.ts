import { type Clock, type Log, newId, type Random, UserError } from '../../base/index.ts'
import { type AnyObject, kinds, uniquelyNamedKinds } from '../../model/index.ts'
import type { LeaderEpoch, Store } from '../store.ts'
import type { ValueCodec } from '../value-codec.ts'
import { type EtcdClient, EtcdError, type Op, prefixEnd, type Txn } from './client.ts'
import { defaultPrefix, encodeMeta, encodeObject, type Head, Layout } from './layout.ts'

export interface MigrationOptions {
  readonly from: Store & LeaderEpoch
  readonly client: EtcdClient
  readonly values: ValueCodec
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Default `/skep/`. */
  readonly prefix?: string
}

/** What goes into one transaction: enough to be quick, not so much that it holds up others. */
const objectsPerTxn = 500
const bytesPerTxn = 1_000_000
/** Longest wait for etcd to take one transaction, in ms. */
const patienceMs = 30_000
const retryMs = 100
/** How often everything is begun anew because somebody went on writing. */
const roundsMax = 5

/**
 * Copies a whole store into an etcd that has none yet: objects with their versions, their order and the leader's epoch.
 * Revisions go on from where they were, so that a version that somebody read before still means what it meant. Until the
 * last step, etcd has no store; after a failure, ask again.
 *
 * The caller holds commits back meanwhile; if one gets in, everything begins anew. Rejects with UserError: `conflict`
 * (there is a store already), `unavailable` (etcd does not answer, or commits kept getting in).
 */
export async function migrateToEtcd(
  options: MigrationOptions,
): Promise<{ readonly objects: number; readonly revision: number }> {
  const { from, client, values, clock, random, log } = options
  const layout = new Layout(options.prefix ?? defaultPrefix)
  for (let round = 1; round <= roundsMax; round++) {
    const startedAtMs = clock.nowMs()
    const { revision } = from.view
    const objects: AnyObject[] = kinds.flatMap((kind): AnyObject[] => [...from.view.list(kind)])
    await clear(client, clock, layout)
    for (const apply of chunks(objects, layout, values)) {
      await persist(client, clock, { when: [], apply })
    }
    if (from.view.revision !== revision) {
      log.info('something was committed while the store was copied; copying again', { round })
      continue
    }
    const head: Head = { token: `migration ${newId(random)}`, atMs: clock.nowMs() }
    const headValue = JSON.stringify(head)
    const { succeeded, results } = await persist(client, clock, {
      when: [{ key: layout.meta, target: 'createRevision', is: '=', to: 0 }],
      apply: [
        { type: 'put', key: layout.meta, value: encodeMeta(revision) },
        { type: 'put', key: layout.head, value: headValue },
        { type: 'put', key: layout.epoch, value: String(from.epoch) },
      ],
      otherwise: [{ type: 'range', key: layout.head }],
    })
    // It may have been done by an attempt whose answer was lost.
    const [found] = results
    if (!succeeded && !(found?.type === 'range' && found.kvs[0]?.value === headValue)) {
      throw storeExists()
    }
    const tookMs = clock.nowMs() - startedAtMs
    log.info('the store was copied into etcd', { objects: objects.length, revision, tookMs })
    return { objects: objects.length, revision }
  }
  throw new UserError('unavailable', 'the store changed again and again while it was copied', {
    next: 'Try again in a moment.',
  })
}

/** Removes what an earlier attempt left, unless it is a store. */
async function clear(client: EtcdClient, clock: Clock, { prefix, meta }: Layout): Promise<void> {
  const { succeeded } = await persist(client, clock, {
    when: [{ key: meta, target: 'createRevision', is: '=', to: 0 }],
    apply: [{ type: 'delete', key: prefix, end: prefixEnd(prefix) }],
  })
  if (!succeeded) throw storeExists()
}

function* chunks(
  objects: readonly AnyObject[],
  layout: Layout,
  values: ValueCodec,
): Generator<readonly Op[]> {
  let ops: Op[] = []
  let bytes = 0
  for (const [place, object] of objects.entries()) {
    const value = encodeObject(values, { object, place, keepVersions: true })
    if (ops.length >= objectsPerTxn || (bytes > 0 && bytes + value.length > bytesPerTxn)) {
      yield ops
      ops = []
      bytes = 0
    }
    bytes += value.length
    ops.push({ type: 'put', key: layout.object(object.kind, object.id), value })
    if (uniquelyNamedKinds.has(object.kind)) {
      ops.push({ type: 'put', key: layout.name(object), value: object.id })
    }
  }
  if (ops.length > 0) yield ops
}

/** Has a transaction done that may be done twice. */
async function persist(client: EtcdClient, clock: Clock, txn: Txn) {
  const untilMs = clock.nowMs() + patienceMs
  for (;;) {
    try {
      return await client.txn(txn)
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error
      const isPassing = error.reason === 'unavailable' || error.reason === 'outcomeUnknown'
      if (!isPassing || clock.nowMs() >= untilMs) {
        throw new UserError('unavailable', `the store could not be copied: ${error.message}`, {
          next: 'Look at the log of etcd, and try again; the store is as it was.',
          cause: error,
        })
      }
      await clock.sleep(retryMs)
    }
  }
}

function storeExists(): UserError {
  return new UserError('conflict', 'this etcd holds the store of a cluster already', {
    next: 'Remove its data directory if that cluster is gone, and try again.',
  })
}
