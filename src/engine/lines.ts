import { UserError } from '../base/index.ts'

/** Longest line taken from the engine's streams of JSON (events, pull progress). */
export const jsonLineBytesMax = 4 * 1024 * 1024

/** Splits a stream of bytes at newlines; the last line may lack one. Throws `tooLarge` over `lineBytesMax`. */
export async function* readLines(
  source: AsyncIterable<Buffer>,
  lineBytesMax: number = jsonLineBytesMax,
): AsyncGenerator<Buffer> {
  let parts: Buffer[] = []
  let size = 0
  for await (const chunk of source) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const piece = chunk.subarray(from, at)
      checkLength(size + piece.length, lineBytesMax)
      yield parts.length === 0 ? piece : Buffer.concat([...parts, piece])
      parts = []
      size = 0
      from = at + 1
    }
    if (from < chunk.length) {
      parts.push(chunk.subarray(from))
      size += chunk.length - from
      checkLength(size, lineBytesMax)
    }
  }
  if (size > 0) yield Buffer.concat(parts)
}

/** Reads newline-separated JSON. Blank lines are skipped; a line that is not JSON throws `internal`. */
export async function* readJsonLines(
  source: AsyncIterable<Buffer>,
  lineBytesMax: number = jsonLineBytesMax,
): AsyncGenerator<unknown> {
  for await (const line of readLines(source, lineBytesMax)) {
    const text = line.toString().trim()
    if (text === '') continue
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw new UserError('internal', 'the engine sent a line that is not JSON', { cause: error })
    }
    yield value
  }
}

function checkLength(size: number, lineBytesMax: number): void {
  if (size > lineBytesMax) {
    throw new UserError('tooLarge', `the engine sent a line of over ${lineBytesMax} bytes`)
  }
}
