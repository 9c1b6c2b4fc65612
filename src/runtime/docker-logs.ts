import { FrameReader, readLines } from '../engine/index.ts'
import type { NodeId, TaskId } from '../model/index.ts'
import type { LogLine } from '../wire/index.ts'

/** Longest line of a TTY container's log. */
const ttyLineBytesMax = 4 * 1024 * 1024

/**
 * Log lines out of the engine's stream, asked with timestamps and details: `<time> <k=v,…> <data>`, one frame a line;
 * of a TTY container without frames. Lines over 16 KiB come in pieces, as the engine keeps them.
 */
export async function* readLogLines(
  source: AsyncIterable<Buffer>,
  of: { readonly taskId: TaskId; readonly nodeId: NodeId; readonly tty: boolean },
): AsyncGenerator<LogLine> {
  const { taskId, nodeId } = of
  if (of.tty) {
    for await (const line of readLines(source, ttyLineBytesMax)) {
      const data = Buffer.concat([line, Buffer.from('\n')])
      yield { taskId, nodeId, stream: 'stdout', ...parseLogLine(data) }
    }
    return
  }
  const reader = new FrameReader()
  for await (const chunk of source) {
    for (const frame of reader.push(chunk)) {
      yield { taskId, nodeId, stream: frame.stream, ...parseLogLine(frame.data) }
    }
  }
}

/** Takes `<time> <details> <data>` apart. */
export function parseLogLine(line: Buffer): Pick<LogLine, 'timestamp' | 'details' | 'data'> {
  const first = line.indexOf(0x20)
  const second = line.indexOf(0x20, first + 1)
  if (first < 0 || second < 0) return { timestamp: '', details: {}, data: line }
  return {
    timestamp: line.toString('utf8', 0, first),
    details: parseDetails(line.toString('utf8', first + 1, second)),
    data: line.subarray(second + 1),
  }
}

function parseDetails(text: string): Readonly<Record<string, string>> {
  if (text === '') return {}
  return Object.fromEntries(
    text.split(',').map((pair) => {
      const at = pair.indexOf('=')
      return at < 0
        ? [unescapeQuery(pair), '']
        : [unescapeQuery(pair.slice(0, at)), unescapeQuery(pair.slice(at + 1))]
    }),
  )
}

function unescapeQuery(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text // Not escaped as the engine does it: shown as it is.
  }
}
