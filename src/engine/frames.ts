import { UserError } from '../base/index.ts'

/** One piece of a container's output. */
export interface OutputFrame {
  readonly stream: 'stdout' | 'stderr'
  readonly data: Buffer
}

/** Longest frame taken; the engine writes at most 16 KiB (one log line) to a few MiB (a copy buffer). */
export const frameBytesMax = 32 * 1024 * 1024

/**
 * Takes apart the engine's multiplexed output: `[stream, 0, 0, 0, length as uint32 BE]`, then that many bytes; frames
 * come split over chunks as they like. Stream 0 and 1 are stdout, 2 stderr, 3 an error of the engine's.
 */
export class FrameReader {
  #parts: Buffer[] = []
  #size = 0

  /** The frames that are whole after this chunk. Throws on a frame over the bound or of an unknown stream. */
  push(chunk: Buffer): OutputFrame[] {
    this.#parts.push(chunk)
    this.#size += chunk.length
    const frames: OutputFrame[] = []
    while (this.#size >= 8) {
      const header = this.#peek(8)
      const length = header.readUInt32BE(4)
      if (length > frameBytesMax || (header[0] ?? 9) > 3) {
        throw new UserError('internal', 'the engine sent output that is not multiplexed', {
          next: 'Report it with the engine version; a container with a TTY sends plain output.',
        })
      }
      if (this.#size < 8 + length) break
      this.#take(8)
      const data = this.#take(length)
      if (header[0] === 3) {
        throw new UserError('internal', `the engine reports: ${data.toString()}`)
      }
      frames.push({ stream: header[0] === 2 ? 'stderr' : 'stdout', data })
    }
    return frames
  }

  /** Bytes of a frame that is not whole yet. */
  get pendingBytes(): number {
    return this.#size
  }

  #peek(count: number): Buffer {
    const first = this.#parts[0]
    if (first && first.length >= count) return first
    const joined = Buffer.concat(this.#parts)
    this.#parts = [joined]
    return joined
  }

  #take(count: number): Buffer {
    const joined = this.#peek(count)
    this.#size -= count
    const rest = joined.subarray(count)
    this.#parts = rest.length > 0 ? [rest, ...this.#parts.slice(1)] : this.#parts.slice(1)
    return joined.subarray(0, count)
  }
}
