import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
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
  /** What the store is sealed with: a key derived from each data key, under the same id, newest last. */
  storeKeys(): readonly { readonly id: string; readonly key: KeyObject }[]
  /** Adds a key, which seals from now on. Older ones still open what they sealed. */
  rotate(): Promise<void>
  /**
   * Encrypts the keys on disk with an unlock key (its 32 bytes) that only people keep; `undefined`: no longer. Resolves once
   * that is durable. Nothing is written when it is so already.
   */
  lockWith(unlockKey: Uint8Array | undefined): Promise<void>
  /** All keys as text that `importKeyring` takes: as secret as everything they ever sealed. */
  exportKeys(): string
}

interface Key {
  readonly id: string
  readonly bytes: Buffer
}

const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/**
 * Opens the file of data keys (mode 0600), or makes it with a first key. Throws `locked` when it needs an unlock key,
 * `forbidden` when that is not the one given.
 */
export async function openKeyring({
  path,
  unlockKey,
}: {
  readonly path: string
  readonly unlockKey?: Uint8Array
}): Promise<Keyring> {
  const text = await readPrivateFile(path)
  if (text === undefined) {
    const keys = [newKey()]
    await writePrivateFile(path, formatKeys(keys))
    return new FileKeyring(path, keys, undefined)
  }
  const locked = parseLocked(text)
  if (!locked) return new FileKeyring(path, parseKeys(path, text), undefined)
  if (!unlockKey) {
    throw new UserError('locked', `${path} is encrypted with the unlock key of the swarm`, {
      next: 'Run `docker swarm unlock`.',
    })
  }
  const opened = openLocked(path, locked, unlockKey)
  return new FileKeyring(path, parseKeys(path, opened), unlockKey)
}

/**
 * Writes the keys of `exportKeys` as the file of another node, which must have none; locked with the unlock key that
 * `unlockKey` finds with them, if it finds one.
 */
export async function importKeyring({
  path,
  text,
  unlockKey,
}: {
  readonly path: string
  readonly text: string
  readonly unlockKey?: (keys: Pick<Keyring, 'unseal'>) => Uint8Array | undefined
}): Promise<Keyring> {
  const keys = parseKeys(path, text)
  const found = unlockKey?.(new FileKeyring(path, keys, undefined))
  const keyring = new FileKeyring(path, keys, found)
  await keyring.write(keys)
  return keyring
}

class FileKeyring implements Keyring {
  readonly #path: string
  /** Newest last. */
  #keys: readonly Key[]
  #unlockKey: Uint8Array | undefined
  /** One write of the file at a time. */
  #writing: Promise<unknown> = Promise.resolve()

  constructor(path: string, keys: readonly Key[], unlockKey: Uint8Array | undefined) {
    this.#path = path
    this.#keys = keys
    this.#unlockKey = unlockKey
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
    await this.#inTurn(async () => {
      const keys = [...this.#keys, newKey()]
      // Durable before anything is sealed with it.
      await this.write(keys)
      this.#keys = keys
    })
  }

  async lockWith(unlockKey: Uint8Array | undefined): Promise<void> {
    await this.#inTurn(async () => {
      const before = this.#unlockKey
      if (idOf(before) === idOf(unlockKey)) return
      this.#unlockKey = unlockKey
      try {
        await this.write(this.#keys)
      } catch (error) {
        this.#unlockKey = before
        throw error
      }
    })
  }

  storeKeys(): readonly { readonly id: string; readonly key: KeyObject }[] {
    return this.#keys.map(({ id, bytes }) => {
      const derived = hkdfSync('sha256', bytes, '', 'skep store', keyBytes)
      return { id, key: createSecretKey(Buffer.from(derived)) }
    })
  }

  exportKeys(): string {
    return formatKeys(this.#keys)
  }

  async write(keys: readonly Key[]): Promise<void> {
    const text = formatKeys(keys)
    await writePrivateFile(this.#path, this.#unlockKey ? formatLocked(text, this.#unlockKey) : text)
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#writing.then(work, work)
    this.#writing = turn.catch(() => {})
    return turn
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

/** The file while it is locked: what the plain one would hold, encrypted. */
interface LockedFile {
  readonly nonce: string
  readonly ciphertext: string
}

const lockedVersion = 2
const lockedAad = Buffer.from('skep data keys, locked')

function formatLocked(text: string, unlockKey: Uint8Array): string {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', wrappingKey(unlockKey), nonce)
  cipher.setAAD(lockedAad)
  const ciphertext = Buffer.concat([cipher.update(text), cipher.final(), cipher.getAuthTag()])
  const file = {
    version: lockedVersion,
    nonce: nonce.toString('base64'),
    ciphertext: ciphertext.toString('base64'),
  }
  return `${JSON.stringify(file, undefined, 2)}\n`
}

function parseLocked(text: string): LockedFile | undefined {
  const file = parseJson(text)
  if (!isRecord(file) || file['version'] !== lockedVersion) return undefined
  const { nonce, ciphertext } = file
  return typeof nonce === 'string' && typeof ciphertext === 'string'
    ? { nonce, ciphertext }
    : undefined
}

function openLocked(path: string, { nonce, ciphertext }: LockedFile, unlockKey: Uint8Array) {
  const bytes = Buffer.from(ciphertext, 'base64')
  const tagAt = Math.max(0, bytes.length - tagBytes)
  try {
    const decipher = createDecipheriv(
      'aes-256-gcm',
      wrappingKey(unlockKey),
      Buffer.from(nonce, 'base64'),
      { authTagLength: tagBytes },
    )
    decipher.setAAD(lockedAad)
    decipher.setAuthTag(bytes.subarray(tagAt))
    return decipher.update(bytes.subarray(0, tagAt), undefined, 'utf8') + decipher.final('utf8')
  } catch {
    // The library's error tells nothing that helps, and there is no telling a wrong key from a damaged file.
    throw new UserError('forbidden', 'swarm could not be unlocked: invalid key provided', {
      next: `If the key is right, ${path} is damaged: restore it from a backup.`,
    })
  }
}

/** The unlock key is 256 random bits already: no slow derivation is needed. */
function wrappingKey(unlockKey: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', unlockKey, '', 'skep data keys', keyBytes))
}

function idOf(unlockKey: Uint8Array | undefined): string {
  return unlockKey ? createHash('sha256').update(unlockKey).digest('hex') : ''
}

/** Its errors never quote the text: it is all keys. */
function parseKeys(path: string, text: string): readonly Key[] {
  const file = parseJson(text)
  if (isRecord(file) && typeof file['version'] === 'number' && file['version'] > lockedVersion) {
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
