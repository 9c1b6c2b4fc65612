import { Readable } from 'node:stream'
import { UserError } from '../base/index.ts'

/** A file of a tar. Source: POSIX.1-2017, pax, "ustar Interchange Format". */
export interface TarEntry {
  /** Relative, with `/` between its parts. */
  readonly name: string
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink'
  /** Permission bits. */
  readonly mode: number
  readonly uid?: number
  readonly gid?: number
  readonly mtimeMs?: number
  /** Of a link. */
  readonly target?: string
  /** Of a file: its length, and its bytes as they are asked for. */
  readonly size?: number
  readonly data?: () => AsyncIterable<Buffer> | Iterable<Buffer>
}

const block = 512
const typeFlags = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const

/** Writes a tar. What a plain header can't hold (long names, big files) goes into a pax header. */
export function packTar(entries: AsyncIterable<TarEntry> | Iterable<TarEntry>): Readable {
  return Readable.from(packed(entries), { objectMode: false })
}

async function* packed(
  entries: AsyncIterable<TarEntry> | Iterable<TarEntry>,
): AsyncGenerator<Buffer> {
  for await (const entry of entries) {
    const size = entry.type === 'file' ? (entry.size ?? 0) : 0
    const pax = paxRecords(entry, size)
    if (pax.length > 0) {
      const data = Buffer.from(pax)
      yield header({ name: 'pax', type: 'file', mode: 0o644 }, data.length, 'x')
      yield data
      yield padding(data.length)
    }
    yield header(entry, size, typeFlags[entry.type])
    if (entry.type !== 'file' || !entry.data) continue
    let written = 0
    for await (const part of entry.data()) {
      // A file that grows while it is read is cut where its header says it ends.
      const piece = part.subarray(0, size - written)
      written += piece.length
      if (piece.length > 0) yield piece
    }
    if (written < size) {
      throw new UserError('failedPrecondition', `${entry.name} became shorter while it was read`, {
        next: 'Try again when nothing writes to it.',
      })
    }
    yield padding(size)
  }
  yield Buffer.alloc(2 * block)
}

function padding(size: number): Buffer {
  return Buffer.alloc((block - (size % block)) % block)
}

const sizeMax = 0o77777777777
const idMax = 0o7777777

function paxRecords({ name, target = '', uid = 0, gid = 0 }: TarEntry, size: number): string {
  const record = (key: string, value: string): string => {
    const rest = ` ${key}=${value}\n`
    const bytes = Buffer.byteLength(rest)
    // The length counts its own digits.
    let length = bytes + String(bytes).length
    if (String(length).length !== String(bytes).length) length = bytes + String(length).length
    return `${length}${rest}`
  }
  const isLong = (text: string): boolean =>
    Buffer.byteLength(text) > 99 || !/^[\x20-\x7e]*$/.test(text)
  return [
    isLong(name) ? record('path', name) : '',
    isLong(target) ? record('linkpath', target) : '',
    size > sizeMax ? record('size', String(size)) : '',
    uid > idMax ? record('uid', String(uid)) : '',
    gid > idMax ? record('gid', String(gid)) : '',
  ].join('')
}

function header(entry: TarEntry, size: number, flag: string): Buffer {
  const bytes = Buffer.alloc(block)
  const octal = (value: number, at: number, length: number, max: number): void => {
    const digits = Math.min(value, max).toString(8)
    bytes.write(digits.padStart(length - 1, '0'), at, 'latin1')
  }
  const slash = entry.type === 'directory' && !entry.name.endsWith('/') ? '/' : ''
  bytes.write(`${entry.name}${slash}`.slice(0, 100), 0, 100, 'utf8')
  octal(entry.mode & 0o7777, 100, 8, idMax)
  octal(entry.uid ?? 0, 108, 8, idMax)
  octal(entry.gid ?? 0, 116, 8, idMax)
  octal(size, 124, 12, sizeMax)
  octal(Math.max(0, Math.floor((entry.mtimeMs ?? 0) / 1000)), 136, 12, sizeMax)
  bytes.write(' '.repeat(8), 148, 'latin1')
  bytes.write(flag, 156, 'latin1')
  bytes.write((entry.target ?? '').slice(0, 100), 157, 100, 'utf8')
  bytes.write('ustar\u000000', 257, 'latin1')
  let sum = 0
  for (const byte of bytes) sum += byte
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return bytes
}

/** An entry that was read. Its `data` has to be read before the next entry is asked for; what is left is skipped. */
export interface ReadEntry {
  readonly name: string
  readonly type: TarEntry['type'] | 'other'
  readonly mode: number
  readonly mtimeMs: number
  readonly target: string
  readonly size: number
  readonly data: AsyncIterable<Buffer>
}

/** Reads a tar as the engine sends it (pax or GNU long names). Throws `internal` where it is cut short. */
export async function* unpackTar(source: AsyncIterable<Buffer>): AsyncGenerator<ReadEntry> {
  const reader = new ByteReader(source)
  let next: Record<string, string> = {}
  for (;;) {
    const bytes = await reader.take(block)
    if (bytes === undefined || bytes.every((byte) => byte === 0)) return
    const text = (at: number, length: number): string => {
      const part = bytes.subarray(at, at + length)
      const end = part.indexOf(0)
      return part.subarray(0, end < 0 ? length : end).toString()
    }
    const number = (at: number, length: number): number => {
      // GNU tar writes what octal digits can't hold as bytes, with the first bit set.
      if (((bytes[at] ?? 0) & 0x80) !== 0) return bytes.readUIntBE(at + length - 6, 6)
      return Number.parseInt(text(at, length).trim() || '0', 8)
    }
    const flag = text(156, 1)
    const size = Number(next['size'] ?? number(124, 12))
    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') {
      const data = (await reader.take(size)) ?? Buffer.alloc(0)
      await reader.skip((block - (size % block)) % block)
      if (flag === 'x') next = { ...next, ...parsePax(data) }
      else if (flag === 'L') next = { ...next, path: data.toString().replace(/\0+$/, '') }
      else if (flag === 'K') next = { ...next, linkpath: data.toString().replace(/\0+$/, '') }
      continue
    }
    const prefix = text(257, 5) === 'ustar' ? text(345, 155) : ''
    const name = next['path'] ?? (prefix === '' ? text(0, 100) : `${prefix}/${text(0, 100)}`)
    const endAt = reader.position + size
    yield {
      name,
      type: typeOf(flag),
      mode: number(100, 8),
      mtimeMs: number(136, 12) * 1000,
      target: next['linkpath'] ?? text(157, 100),
      size,
      data: reader.upTo(endAt),
    }
    await reader.skip(endAt - reader.position)
    await reader.skip((block - (size % block)) % block)
    next = {}
  }
}

function typeOf(flag: string): ReadEntry['type'] {
  if (flag === '0' || flag === '' || flag === '7') return 'file'
  if (flag === '5') return 'directory'
  if (flag === '2') return 'symlink'
  return flag === '1' ? 'hardlink' : 'other'
}

function parsePax(data: Buffer): Record<string, string> {
  const records: Record<string, string> = {}
  for (let at = 0; at < data.length; ) {
    const blank = data.indexOf(0x20, at)
    const length = Number(data.subarray(at, blank).toString())
    if (!(length > 0)) break
    const [key = '', ...value] = data
      .subarray(blank + 1, at + length - 1)
      .toString()
      .split('=')
    records[key] = value.join('=')
    at += length
  }
  return records
}

class ByteReader {
  readonly #source: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)
  position = 0

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** At most `limit` bytes of what is there, at least one; `undefined` at the end. */
  async some(limit: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#source.next()
      if (done) return undefined
      this.#rest = value
    }
    const piece = this.#rest.subarray(0, limit)
    this.#rest = this.#rest.subarray(piece.length)
    this.position += piece.length
    return piece
  }

  async take(count: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = []
    for (let left = count; left > 0; ) {
      const piece = await this.some(left)
      if (piece === undefined) {
        if (parts.length === 0) return undefined
        throw cutShort()
      }
      parts.push(piece)
      left -= piece.length
    }
    return Buffer.concat(parts)
  }

  async skip(count: number): Promise<void> {
    for (let left = count; left > 0; ) {
      const piece = await this.some(left)
      if (piece === undefined) throw cutShort()
      left -= piece.length
    }
  }

  async *upTo(endAt: number): AsyncGenerator<Buffer> {
    while (this.position < endAt) {
      const piece = await this.some(endAt - this.position)
      if (piece === undefined) throw cutShort()
      yield piece
    }
  }
}

function cutShort(): UserError {
  return new UserError('internal', 'an archive of the engine ended in the middle of a file', {
    next: 'Try again; if it stays so, see the log of the engine.',
  })
}
