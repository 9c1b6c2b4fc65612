import {
  createCipheriv,
  createDecipheriv,
  createHash,
  randomBytes,
  scrypt,
  timingSafeEqual,
} from 'node:crypto'
import { UserError } from '../base/index.ts'

/**
 * The file around a backup: a line of magic, a line of JSON that says how the key comes from the passphrase, then frames
 * of AES-256-GCM. A frame's number and whether it is the last are bound in, so that frames can't be cut off, swapped or
 * taken from another file unnoticed.
 *
 * frame: 4 bytes, big-endian: length of what follows, highest bit set on the last one; then ciphertext and 16 bytes of tag.
 */
const magic = 'SKEP-BACKUP\n'
const formatNow = 1

/** Plain bytes in a frame, at most. */
const frameBytesMax = 64 * 1024
const tagBytes = 16
const keyBytes = 32
const headerBytesMax = 4096
const lastBit = 0x8000_0000
export const passphraseLengthMin = 8

/** 32 MiB and about a quarter of a second for one guess. Source: OWASP Password Storage Cheat Sheet, scrypt. */
const kdfNow = { n: 2 ** 15, r: 8, p: 3 }
/** What a file may ask of the machine that reads it; the memory is 128 n r bytes. */
const kdfMax = { n: 2 ** 20, r: 32, p: 16, memoryBytes: 512 * 1024 * 1024 }

interface Header {
  readonly createdAtMs: number
  readonly kdf: { readonly n: number; readonly r: number; readonly p: number }
  readonly salt: Buffer
  /** Tells a wrong passphrase from a damaged file. */
  readonly check: Buffer
}

export interface EnvelopeOptions {
  readonly passphrase: string
  readonly createdAtMs: number
  /** What one guess at the passphrase costs. */
  readonly kdf?: Header['kdf']
}

/** Encrypts a stream. The passphrase is checked at the first byte. */
export async function* encryptBackup(
  plain: AsyncIterable<Uint8Array>,
  { passphrase, createdAtMs, kdf = kdfNow }: EnvelopeOptions,
): AsyncGenerator<Buffer> {
  if (passphrase.length < passphraseLengthMin) {
    throw new UserError('invalidInput', 'the passphrase is too short', {
      next: `Give one of at least ${passphraseLengthMin} characters: the backup holds every secret of the cluster.`,
    })
  }
  const salt = randomBytes(32)
  const { key, check } = await deriveKey(passphrase, salt, kdf)
  const header = Buffer.from(
    `${magic}${JSON.stringify({
      format: formatNow,
      createdAt: new Date(createdAtMs).toISOString(),
      kdf: { name: 'scrypt', ...kdf, salt: salt.toString('base64') },
      check: check.toString('base64'),
      cipher: 'aes-256-gcm',
    })}\n`,
  )
  yield header
  const headerHash = createHash('sha256').update(header).digest()
  let number = 0
  const seal = (bytes: Buffer, isLast: boolean): Buffer => {
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(number))
    cipher.setAAD(aadOf(headerHash, number, isLast))
    number += 1
    const body = Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()])
    const length = Buffer.alloc(4)
    length.writeUInt32BE((body.length | (isLast ? lastBit : 0)) >>> 0)
    return Buffer.concat([length, body])
  }
  let waiting: Buffer = Buffer.alloc(0)
  for await (const bytes of plain) {
    waiting = Buffer.concat([waiting, bytes])
    while (waiting.length > frameBytesMax) {
      yield seal(waiting.subarray(0, frameBytesMax), false)
      waiting = waiting.subarray(frameBytesMax)
    }
  }
  yield seal(waiting, true)
}

/**
 * Decrypts what `encryptBackup` made. `name` is what the file is called in messages. Throws UserError: `invalidInput` (no
 * backup, cut off, damaged), `unsupported` (a newer format), `forbidden` (another passphrase).
 */
export async function* decryptBackup(
  file: AsyncIterable<Uint8Array>,
  { passphrase, name }: { readonly passphrase: string; readonly name: string },
): AsyncGenerator<Buffer> {
  const reader = new Reader(file, name)
  const text = await reader.lines(2)
  const header = parseHeader(text, name)
  const { key, check } = await deriveKey(passphrase, header.salt, header.kdf)
  if (!timingSafeEqual(check, header.check)) {
    throw new UserError('forbidden', `the passphrase is not the one ${name} was made with`)
  }
  const headerHash = createHash('sha256').update(text).digest()
  for (let number = 0; ; number += 1) {
    const word = (await reader.take(4)).readUInt32BE()
    const isLast = (word & lastBit) !== 0
    const length = word & ~lastBit
    if (length < tagBytes || length > frameBytesMax + tagBytes) throw damaged(name)
    const body = await reader.take(length)
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(number), {
      authTagLength: tagBytes,
    })
    decipher.setAAD(aadOf(headerHash, number, isLast))
    decipher.setAuthTag(body.subarray(length - tagBytes))
    let plain: Buffer
    try {
      plain = Buffer.concat([
        decipher.update(body.subarray(0, length - tagBytes)),
        decipher.final(),
      ])
    } catch (cause) {
      throw damaged(name, cause)
    }
    yield plain
    if (!isLast) continue
    if (!(await reader.isAtEnd())) throw damaged(name)
    return
  }
}

function parseHeader(text: string, name: string): Header {
  const [first, second = ''] = text.split('\n')
  if (`${first}\n` !== magic) {
    throw new UserError('invalidInput', `${name} is not a backup of Skep`)
  }
  let json: unknown
  try {
    json = JSON.parse(second)
  } catch (cause) {
    throw damaged(name, cause)
  }
  if (!isRecord(json) || typeof json['format'] !== 'number') throw damaged(name)
  if (json['format'] > formatNow) {
    throw new UserError(
      'unsupported',
      `${name} was made by a newer version of Skep (format ${json['format']}; this one reads ${formatNow})`,
      { next: 'Restore it with that version or a later one.' },
    )
  }
  const { kdf, check, createdAt } = json
  if (!isRecord(kdf) || typeof kdf['salt'] !== 'string' || typeof check !== 'string')
    throw damaged(name)
  const number = (key: 'n' | 'r' | 'p'): number => {
    const value = kdf[key]
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > kdfMax[key])
      throw damaged(name)
    return value
  }
  const header = {
    createdAtMs: Date.parse(String(createdAt)),
    kdf: { n: number('n'), r: number('r'), p: number('p') },
    salt: Buffer.from(kdf['salt'], 'base64'),
    check: Buffer.from(check, 'base64'),
  }
  if (128 * header.kdf.n * header.kdf.r > kdfMax.memoryBytes) throw damaged(name)
  if (header.salt.length !== keyBytes || header.check.length !== checkBytes) throw damaged(name)
  return header
}

const checkBytes = 16

async function deriveKey(
  passphrase: string,
  salt: Buffer,
  { n, r, p }: Header['kdf'],
): Promise<{ readonly key: Buffer; readonly check: Buffer }> {
  const bytes = await new Promise<Buffer>((resolve, reject) => {
    const options = { N: n, r, p, maxmem: 256 * n * r }
    scrypt(passphrase.normalize('NFC'), salt, 2 * keyBytes, options, (error, derived) =>
      error ? reject(error) : resolve(derived),
    )
  })
  const check = createHash('sha256').update(bytes.subarray(keyBytes)).digest()
  return { key: bytes.subarray(0, keyBytes), check: check.subarray(0, checkBytes) }
}

/** The key is made for this file alone, so counting never repeats a nonce. */
function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64BE(BigInt(number), 4)
  return nonce
}

function aadOf(headerHash: Buffer, number: number, isLast: boolean): Buffer {
  return Buffer.concat([headerHash, nonceOf(number), Buffer.from([isLast ? 1 : 0])])
}

function damaged(name: string, cause?: unknown): UserError {
  return new UserError('invalidInput', `${name} is damaged: it is not as it was written`, {
    next: 'Restore another backup.',
    cause,
  })
}

/** Takes so many bytes at a time out of a stream of pieces. */
class Reader {
  readonly #pieces: AsyncIterator<Uint8Array>
  readonly #name: string
  #held: Buffer = Buffer.alloc(0)

  constructor(file: AsyncIterable<Uint8Array>, name: string) {
    this.#pieces = file[Symbol.asyncIterator]()
    this.#name = name
  }

  async take(length: number): Promise<Buffer> {
    while (this.#held.length < length) {
      if (!(await this.#more())) {
        throw new UserError('invalidInput', `${this.#name} is cut off: its end is missing`, {
          next: 'Copy it again from where it was made, or restore another backup.',
        })
      }
    }
    const taken = this.#held.subarray(0, length)
    this.#held = this.#held.subarray(length)
    return taken
  }

  /** The first lines, newlines included; less when the file is too short, or no text. */
  async lines(count: number): Promise<string> {
    for (;;) {
      let end = -1
      for (let line = 0; line < count; line++) {
        end = this.#held.indexOf(10, end + 1)
        if (end < 0) break
      }
      const isForeign = !magic.startsWith(this.#held.toString('latin1', 0, magic.length))
      if (end < 0 && !isForeign && this.#held.length < headerBytesMax && (await this.#more()))
        continue
      const length = end < 0 ? this.#held.length : end + 1
      const text = this.#held.toString('utf8', 0, length)
      this.#held = this.#held.subarray(length)
      return text
    }
  }

  async isAtEnd(): Promise<boolean> {
    return this.#held.length === 0 && !(await this.#more())
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#pieces.next()
    if (done) return false
    this.#held = Buffer.concat([this.#held, value])
    return true
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
