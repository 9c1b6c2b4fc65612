import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { createGunzip, createGzip } from 'node:zlib'
import { UserError } from '../base/index.ts'
import { type AnyObject, kinds } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { decryptBackup, encryptBackup } from './envelope.ts'

/** What is in a backup beside the objects. */
export interface BackupHead {
  readonly clusterId: string
  /** The manager that wrote it. */
  readonly nodeId: string
  readonly takenAtMs: number
  readonly skepVersion: string
  /** Of the store. */
  readonly revision: number
  /** The data keys that secrets, the root's key and the tokens are sealed with, as the keyring exports them. */
  readonly keys: string
}

export interface BackupContents {
  readonly head: BackupHead
  /** In order of creation within each kind. */
  readonly objects: readonly AnyObject[]
}

/** Objects turned into text at once: between them the daemon does its other work. */
const objectsPerPieceMax = 200

/**
 * The whole state as one encrypted stream. The view is copied (references only) before this returns, so that what is
 * written is one moment of the cluster while it goes on changing.
 */
export function writeBackup(
  view: View,
  head: Omit<BackupHead, 'revision'>,
  passphrase: string,
): AsyncIterable<Buffer> {
  const objects: AnyObject[] = []
  for (const kind of kinds) objects.push(...view.list(kind))
  const text = Readable.from(linesOf({ head: { ...head, revision: view.revision }, objects }))
  const packed = text.pipe(createGzip())
  text.on('error', (error) => packed.destroy(error))
  return encryptBackup(packed, { passphrase, createdAtMs: head.takenAtMs })
}

function* linesOf({ head, objects }: BackupContents): Generator<string> {
  yield `${JSON.stringify({ type: 'head', head })}\n`
  for (let at = 0; at < objects.length; at += objectsPerPieceMax) {
    const piece = objects.slice(at, at + objectsPerPieceMax)
    yield piece.map((object) => `${JSON.stringify({ type: 'object', object })}\n`).join('')
  }
  yield `${JSON.stringify({ type: 'end', objects: objects.length })}\n`
}

/** Reads a backup whole. Throws as `decryptBackup` does. */
export async function readBackup(
  file: AsyncIterable<Uint8Array>,
  options: { readonly passphrase: string; readonly name: string },
): Promise<BackupContents> {
  const plain = Readable.from(decryptBackup(file, options))
  const unpacked = plain.pipe(createGunzip())
  plain.on('error', (error) => unpacked.destroy(error))
  let head: BackupHead | undefined
  let isWhole = false
  const objects: AnyObject[] = []
  for await (const line of linesIn(unpacked)) {
    const entry = parseEntry(line, options.name)
    if (entry.type === 'head') head = entry.head
    else if (entry.type === 'object') objects.push(entry.object)
    else isWhole = entry.objects === objects.length
  }
  if (!head || !isWhole) throw unreadable(options.name)
  return { head, objects }
}

/** Lines of a stream. Unlike readline's own iterator it ends with the stream's error. */
async function* linesIn(stream: Readable): AsyncGenerator<string> {
  const failed = new Promise<never>((_, reject) => stream.once('error', reject))
  failed.catch(() => {})
  const lines = createInterface({ input: stream })[Symbol.asyncIterator]()
  for (;;) {
    const { value, done } = await Promise.race([lines.next(), failed])
    if (done) break
    yield value
  }
  if (stream.errored) throw stream.errored
}

type Entry =
  | { readonly type: 'head'; readonly head: BackupHead }
  | { readonly type: 'object'; readonly object: AnyObject }
  | { readonly type: 'end'; readonly objects: number }

/** Nobody but the holder of the passphrase can have written it, so its parts are taken to have their shape. */
function parseEntry(line: string, name: string): Entry {
  const json: unknown = JSON.parse(line)
  if (typeof json === 'object' && json !== null && 'type' in json) return json as Entry
  throw unreadable(name)
}

function unreadable(name: string): UserError {
  return new UserError('invalidInput', `${name} holds no whole state of a cluster`, {
    next: 'Restore another backup.',
  })
}
