import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { assert } from '../base/index.ts'

/** A key that stored values are sealed with. One that is printed shows nothing. */
export interface ValueKey {
  /** 16 hexadecimal digits. */
  readonly id: string
  /** A secret key of 32 bytes. */
  readonly key: KeyObject
}

/**
 * Why a sealed value could not be opened.
 *
 * - `otherKey`: its key is not among those given.
 * - `newer`: a newer version of this program sealed it.
 * - `damaged`: it was changed, or is the value of something else.
 */
export class SealError extends Error {
  override readonly name = 'SealError'
  readonly reason: 'otherKey' | 'newer' | 'damaged'
  constructor(reason: SealError['reason'], message: string, options: { cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.reason = reason
  }
}

/** What a value belongs to, as it is bound into it. */
export function objectKeyOf(kind: string, id: string): string {
  return `${kind}/${id}`
}

const format = 1
const keyIdBytes = 8
const saltBytes = 16
const numberBytes = 8
const tagBytes = 16
const nonceBytes = 12
/** Where the parts of a sealed value begin. */
const saltAt = 1 + keyIdBytes
const numberAt = saltAt + saltBytes
const bodyAt = numberAt + numberBytes

/** Values sealed with one derived key. AES-GCM with counted nonces allows more; each life of a manager has its own anyway. */
const valuesPerKeyMax = 2 ** 32
/** Derived keys kept at hand. */
const derivedKeysMax = 1_000

/**
 * Seals what a store keeps, AES-256-GCM. Each of these has a key of its own, derived from the newest of those given and
 * a random salt, and numbers what it seals: so no nonce is ever used twice, however many values there are and whichever
 * managers write them. `objectKey` (`task/<id>`) is bound in: a value that was put in the place of another is refused.
 *
 * ```
 * 1 byte   format, 1
 * 8        id of the key
 * 16       salt of the derived key
 * 8        number of the value: its nonce, after four bytes of 0
 *          ciphertext
 * 16       tag
 * ```
 */
export class SealedValues {
  readonly #keyById: ReadonlyMap<string, KeyObject>
  readonly #newest: ValueKey
  #own: { readonly head: Buffer; readonly key: KeyObject; count: number }
  /** By key id and salt, in Latin-1. */
  readonly #derived = new Map<string, KeyObject>()

  /** Newest key last; at least one. */
  constructor(keys: readonly ValueKey[]) {
    const newest = keys.at(-1)
    assert(newest !== undefined, 'values are sealed with a key')
    for (const { id } of keys) assert(/^[0-9a-f]{16}$/.test(id), 'a key has an id of 8 bytes')
    this.#keyById = new Map(keys.map(({ id, key }) => [id, key]))
    this.#newest = newest
    this.#own = this.#begin()
  }

  seal(text: string, objectKey: string): Buffer {
    if (this.#own.count >= valuesPerKeyMax) this.#own = this.#begin()
    const { head, key } = this.#own
    const nonce = Buffer.alloc(nonceBytes)
    nonce.writeBigUInt64BE(BigInt(this.#own.count++), nonceBytes - numberBytes)
    const cipher = createCipheriv('aes-256-gcm', key, nonce)
    cipher.setAAD(aadOf(objectKey))
    const body = cipher.update(text, 'utf8')
    cipher.final()
    const number = nonce.subarray(nonceBytes - numberBytes)
    return Buffer.concat([head, number, body, cipher.getAuthTag()])
  }

  /** Throws SealError. */
  open(value: Uint8Array, objectKey: string): string {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    if (bytes.length > 0 && bytes[0] !== format) {
      throw new SealError('newer', `${objectKey} is sealed in the format ${bytes[0]}`)
    }
    const tagAt = bytes.length - tagBytes
    if (tagAt < bodyAt) throw new SealError('damaged', `the value of ${objectKey} is cut off`)
    const key = this.#derivedFor(bytes, objectKey)
    const nonce = Buffer.alloc(nonceBytes)
    bytes.copy(nonce, nonceBytes - numberBytes, numberAt, bodyAt)
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
    decipher.setAAD(aadOf(objectKey))
    decipher.setAuthTag(bytes.subarray(tagAt))
    const body = decipher.update(bytes.subarray(bodyAt, tagAt))
    try {
      decipher.final()
    } catch (cause) {
      const message = `the value of ${objectKey} was changed, or belongs to something else`
      throw new SealError('damaged', message, { cause })
    }
    return body.toString()
  }

  #begin() {
    const salt = randomBytes(saltBytes)
    const head = Buffer.concat([Buffer.from([format]), Buffer.from(this.#newest.id, 'hex'), salt])
    return { head, key: derive(this.#newest.key, salt), count: 0 }
  }

  #derivedFor(bytes: Buffer, objectKey: string): KeyObject {
    const name = bytes.toString('latin1', 1, numberAt)
    const known = this.#derived.get(name)
    if (known) return known
    const id = bytes.toString('hex', 1, saltAt)
    const key = this.#keyById.get(id)
    if (key === undefined) {
      throw new SealError('otherKey', `${objectKey} is sealed with the data key ${id}`)
    }
    // Few are in use at a time: one for each life of each manager that wrote what is there.
    if (this.#derived.size >= derivedKeysMax) this.#derived.clear()
    const derived = derive(key, bytes.subarray(saltAt, numberAt))
    this.#derived.set(name, derived)
    return derived
  }
}

/** As a key object: OpenSSL takes ten times as long to begin with the bytes of a key. */
function derive(key: KeyObject, salt: Uint8Array): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync('sha256', key, salt, 'skep sealed values', 32)))
}

function aadOf(objectKey: string): Buffer {
  return Buffer.from(`${format} ${objectKey}`)
}
