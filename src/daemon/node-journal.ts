import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import type { Journal, JournalEntry } from '../agent/index.ts'
import { UserError } from '../base/index.ts'
import { readPrivateFile, writePrivateFile } from '../security/index.ts'

/**
 * What a node was told last, in its data root: one file, mode 0600, sealed (AES-256-GCM) with a key that follows from
 * the node's own, so that a copy of the file alone tells nothing. Credentials of registries are left out.
 */
export function openFileJournal({
  path,
  keyPem,
}: {
  readonly path: string
  readonly keyPem: string
}): Journal {
  const key = Buffer.from(hkdfSync('sha256', keyPem, '', 'skep node journal', 32))
  return {
    async read() {
      const text = await readPrivateFile(path)
      if (text === undefined) return undefined
      const bytes = Buffer.from(text, 'base64')
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, nonceBytes), {
          authTagLength: tagBytes,
        })
        decipher.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes))
        const sealed = bytes.subarray(nonceBytes + tagBytes)
        const plain = Buffer.concat([decipher.update(sealed), decipher.final()])
        return parseEntry(plain.toString())
      } catch (cause) {
        throw new UserError('internal', `${path} is damaged or of another key`, { cause })
      }
    },

    async write(entry) {
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      const sealed = [cipher.update(formatEntry(entry)), cipher.final()]
      const bytes = Buffer.concat([nonce, cipher.getAuthTag(), ...sealed])
      await writePrivateFile(path, bytes.toString('base64'))
    },
  }
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
