import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { UserError } from '../base/index.ts'
import type { Sealed } from '../model/index.ts'
import { readPrivateFile, writePrivateFile } from './private-file.ts'

/**
 * Seals bytes with the cluster's data key: AES-256-GCM, a random nonce of 96 bits for each. `aad` says what the bytes
 * are, such as `<cluster>/join/worker`; opened under another name they are refused, so sealed values can't be swapped.
 */
export interface Keyring {
  /** Id of the key that seals now. */
  readonly keyId: string
  seal(plaintext: Uint8Array, aad: string): Sealed
  /** Throws `internal` when the key is missing, the bytes were changed, or `aad` differs. */
  unseal(sealed: Sealed, aad: string): Uint8Array
  /** Adds a key, which seals from now on. Older ones still open what they sealed. */
  rotate(): Promise<void>
}

interface Key {
  readonly id: string
  readonly bytes: Buffer
}

const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/** Opens the file of data keys (mode 0600), or makes it with a first key. */
export async function openKeyring({ path }: { readonly path: string }): Promise<Keyring> {
  const text = await readPrivateFile(path)
  if (text !== undefined) return new FileKeyring(path, parseKeys(path, text))
  const keys = [newKey()]
  await writePrivateFile(path, formatKeys(keys))
  return new FileKeyring(path, keys)
}

class FileKeyring implements Keyring {
  readonly #path: string
  /** Newest last. */
  #keys: readonly Key[]

  constructor(path: string, keys: readonly Key[]) {
    this.#path = path
    this.#keys = keys
  }

  get keyId(): string {
    return this.#newest().id
  }

  seal(plaintext: Uint8Array, aad: string): Sealed {
    const { id, bytes } = this.#newest()
    const nonce = randomBytes(nonceBytes)
    const cipher = createCipheriv('aes-256-gcm', bytes, nonce)
    cipher.setAAD(Buffer.from(aad))
    const ciphertext = [cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]
    return {
      keyId: id,
      nonce: nonce.toString('base64'),
      ciphertext: Buffer.concat(ciphertext).toString('base64'),
    }
  }

  unseal({ keyId, nonce, ciphertext }: Sealed, aad: string): Uint8Array {
    const key = this.#keys.find(({ id }) => id === keyId)
    if (key === undefined) {
      throw new UserError(
        'internal',
        `the key ${keyId} that sealed ${aad} is not in ${this.#path}`,
        {
          next: 'Restore that file from the backup that belongs to this store.',
        },
      )
    }
    const bytes = Buffer.from(ciphertext, 'base64')
    const tagAt = bytes.length - tagBytes
    try {
      const decipher = createDecipheriv('aes-256-gcm', key.bytes, Buffer.from(nonce, 'base64'), {
        authTagLength: tagBytes,
      })
      decipher.setAAD(Buffer.from(aad))
      decipher.setAuthTag(bytes.subarray(Math.max(0, tagAt)))
      return new Uint8Array(
        Buffer.concat([decipher.update(bytes.subarray(0, Math.max(0, tagAt))), decipher.final()]),
      )
    } catch (cause) {
      throw new UserError(
        'internal',
        `what was sealed as ${aad} was changed or is something else`,
        {
          next: 'Restore the store from a backup.',
          cause,
        },
      )
    }
  }

  async rotate(): Promise<void> {
    const keys = [...this.#keys, newKey()]
    // Durable before anything is sealed with it.
    await writePrivateFile(this.#path, formatKeys(keys))
    this.#keys = keys
  }

  #newest(): Key {
    const key = this.#keys.at(-1)
    if (key === undefined) throw new Error('broken invariant: a keyring has a key')
    return key
  }
}

function newKey(): Key {
  return { id: randomBytes(8).toString('hex'), bytes: randomBytes(keyBytes) }
}

function formatKeys(keys: readonly Key[]): string {
  const listed = keys.map(({ id, bytes }) => ({ id, key: bytes.toString('base64') }))
  return `${JSON.stringify({ version: 1, keys: listed }, undefined, 2)}\n`
}

/** Its errors never quote the text: it is all keys. */
function parseKeys(path: string, text: string): readonly Key[] {
  const file = parseJson(text)
  if (isRecord(file) && typeof file['version'] === 'number' && file['version'] > 1) {
    throw new UserError('failedPrecondition', `${path} was written by a newer version of Skep`, {
      next: 'Start that version or a later one.',
    })
  }
  const listed = isRecord(file) && Array.isArray(file['keys']) ? file['keys'] : []
  const keys = listed.flatMap((entry: unknown): Key[] => {
    if (!isRecord(entry)) return []
    const { id, key } = entry
    if (typeof id !== 'string' || typeof key !== 'string') return []
    const bytes = Buffer.from(key, 'base64')
    return bytes.length === keyBytes ? [{ id, bytes }] : []
  })
  if (keys.length === 0 || keys.length < listed.length) {
    throw new UserError('internal', `${path} is not a whole file of data keys`, {
      next: 'Restore it from a backup: without it secrets can not be read.',
    })
  }
  return keys
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // The parser's own message would quote the file.
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
