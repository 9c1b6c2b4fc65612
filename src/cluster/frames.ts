import { UserError } from '../base/index.ts'
import { type Message, makeText } from './transport.ts'

/**
 * Messages as bytes: length of all that follows (4 bytes), length of the JSON text (4 bytes), the text, and then the
 * message's own `bytes`, as they are. Lengths are unsigned and big-endian. In pieces: the first has lengths and text, the
 * others are those of the message itself, not copied.
 */
export function encodeFrame(message: Message): readonly [Buffer, ...Uint8Array[]] {
  const { bytes, ...rest } = message
  const text = message[makeText]?.() ?? JSON.stringify(rest)
  const textBytes = Buffer.byteLength(text)
  const head = Buffer.allocUnsafe(headerBytes + textBytes)
  const pieces = bytes instanceof Uint8Array ? [bytes] : (bytes ?? [])
  const size = pieces.reduce((sum, { length }) => sum + length, head.length)
  head.writeUInt32BE(size - 4, 0)
  // A message without bytes differs from one with none of them.
  head.writeUInt32BE(bytes ? textBytes + withBytes : textBytes, 4)
  head.write(text, headerBytes)
  return [head, ...pieces]
}

const headerBytes = 8
/** Set in the text's length: bytes follow, be it none. */
const withBytes = 0x8000_0000

/** Cuts a stream of bytes into messages, whatever pieces it comes in. */
export class FrameReader {
  readonly #sizeMax: number
  #parts: Buffer[] = []
  #heldBytes = 0

  /** `sizeMax`: bytes of one message that are accepted. */
  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax
  }

  /** Messages that are whole now. Throws `tooLarge`, and `invalidInput` when these are no frames. */
  take(part: Buffer): readonly unknown[] {
    this.#parts.push(part)
    this.#heldBytes += part.length
    const messages: unknown[] = []
    while (this.#heldBytes >= headerBytes) {
      const head = this.#joined(headerBytes)
      const size = head.readUInt32BE(0)
      if (size > this.#sizeMax) {
        throw new UserError(
          'tooLarge',
          `a message of ${size} bytes came in, and ${this.#sizeMax} is the most`,
        )
      }
      if (this.#heldBytes < size + 4) break
      messages.push(parseFrame(this.#cut(size + 4)))
    }
    return messages
  }

  /** The first part, grown until it holds `bytes`: no more is copied than that takes. */
  #joined(bytes: number): Buffer {
    const [first] = this.#parts
    if (first && first.length >= bytes) return first
    const all = Buffer.concat(this.#parts)
    this.#parts = [all]
    return all
  }

  #cut(bytes: number): Buffer {
    const all = this.#joined(bytes)
    const rest = all.subarray(bytes)
    this.#heldBytes -= bytes
    if (rest.length > 0) this.#parts[0] = rest
    else this.#parts.shift()
    return all.subarray(0, bytes)
  }
}

function parseFrame(frame: Buffer): unknown {
  const marked = frame.readUInt32BE(4)
  const hasBytes = marked >= withBytes
  const textEnd = headerBytes + (hasBytes ? marked - withBytes : marked)
  if (textEnd > frame.length || (!hasBytes && textEnd !== frame.length)) throw notFrame()
  let json: unknown
  try {
    json = JSON.parse(frame.toString('utf8', headerBytes, textEnd))
  } catch (cause) {
    throw notFrame(cause)
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw notFrame()
  return hasBytes ? { ...json, bytes: new Uint8Array(frame.subarray(textEnd)) } : json
}

function notFrame(cause?: unknown): UserError {
  return new UserError('invalidInput', 'what came in is no message of this protocol', { cause })
}
