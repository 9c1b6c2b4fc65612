import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import type { Journal, JournalEntry } from '../agent/index.ts'
import { Semaphore, UserError } from '../base/index.ts'
import type { TaskId, TaskStatus } from '../model/index.ts'
import { appendPrivateFile, readPrivateFile, writePrivateFile } from '../security/index.ts'

/**
 * What a node was told last, in its data root: a file that is replaced whole, and beside it one to which the ends of tasks are
 * added meanwhile, a line each time. Mode 0600, sealed (AES-256-GCM) with a key that follows from the node's own, so that
 * a copy of the files alone tells nothing. Credentials of registries are left out.
 */
export function openFileJournal({
  path,
  keyPem,
}: {
  readonly path: string
  readonly keyPem: string
}): Journal {
  const key = Buffer.from(hkdfSync('sha256', keyPem, '', 'skep node journal', 32))
  const endsPath = `${path}.ends`
  const writing = new Semaphore(1)
  return {
    async read() {
      const text = await readPrivateFile(path)
      if (text === undefined) return undefined
      let entry: JournalEntry
      try {
        entry = parseEntry(unsealed(text, key))
      } catch (cause) {
        throw new UserError('internal', `${path} is damaged or of another key`, { cause })
      }
      const statuses = new Map(entry.statuses)
      for (const line of (await readPrivateFile(endsPath))?.split('\n') ?? []) {
        const ends = endsOf(line, key)
        for (const [taskId, status] of ends ?? []) statuses.set(taskId, status)
      }
      return { ...entry, statuses }
    },

    // What is written whole has all ends that came before.
    write: (entry) =>
      writing.run(async () => {
        await writePrivateFile(path, sealed(formatEntry(entry), key))
        await rm(endsPath, { force: true })
      }),

    addEnds: (ends) =>
      // What a write that failed has left is a line of its own, which nobody can read.
      writing.run(() => appendPrivateFile(endsPath, `\n${sealed(JSON.stringify([...ends]), key)}`)),
  }
}

/** Of one line; undefined where it was not written to its end, so that nobody has been told of it. */
function endsOf(line: string, key: Buffer): readonly (readonly [TaskId, TaskStatus])[] | undefined {
  try {
    return line === '' ? undefined : JSON.parse(unsealed(line, key))
  } catch {
    return undefined
  }
}

function sealed(text: string, key: Buffer): string {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  const parts = [cipher.update(text), cipher.final()]
  return Buffer.concat([nonce, cipher.getAuthTag(), ...parts]).toString('base64')
}

/** Throws where the text is not whole, or of another key. */
function unsealed(text: string, key: Buffer): string {
  const bytes = Buffer.from(text, 'base64')
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  })
  decipher.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes))
  const parts = [decipher.update(bytes.subarray(nonceBytes + tagBytes)), decipher.final()]
  return Buffer.concat(parts).toString()
}

const nonceBytes = 12
const tagBytes = 16
/** Mark what JSON has no form for. */
const bytesKey = '$bytes'
const mapKey = '$map'

function formatEntry(entry: JournalEntry): string {
  return JSON.stringify({ version: 1, ...entry }, (name, value: unknown) => {
    if (name === 'registryAuth') return undefined
    if (value instanceof Map) return { [mapKey]: [...value] }
    if (value instanceof Uint8Array) return { [bytesKey]: Buffer.from(value).toString('base64') }
    return value
  })
}

/** The file is this program's own and sealed: its shape is what `formatEntry` made of it. */
function parseEntry(text: string): JournalEntry {
  const entry: unknown = JSON.parse(text, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null) return value
    if (bytesKey in value) return new Uint8Array(Buffer.from(String(value[bytesKey]), 'base64'))
    return mapKey in value ? new Map(value[mapKey] as [string, unknown][]) : value
  })
  const { version, ...rest } = entry as JournalEntry & { readonly version: number }
  if (version !== 1) throw new Error(`version ${version}`)
  const { assignments } = rest
  // Written before there were feeds: they are told anew.
  return { ...rest, assignments: { ...assignments, feeds: assignments.feeds ?? new Map() } }
}
