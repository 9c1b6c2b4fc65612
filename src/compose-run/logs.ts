import type { Writable } from 'node:stream'
import { UserError } from '../base/index.ts'
import { FrameReader } from '../engine/index.ts'
import type { RunWorld } from './run-world.ts'

/** Longest line taken; a longer one is shown in pieces. */
export const logLineBytesMax = 1024 * 1024

export interface LogLine {
  readonly stream: 'stdout' | 'stderr'
  /** RFC 3339 with nanoseconds; empty where it was not asked for. */
  readonly time: string
  readonly text: string
}

export interface LogQuery {
  readonly follow?: boolean
  readonly timestamps?: boolean
  readonly tail?: string
  /** Seconds since 1970, with a fraction. */
  readonly since?: string
  readonly until?: string
}

/** The lines of a container's output. */
export async function* readLog(
  { engine, signal }: Pick<RunWorld, 'engine' | 'signal'>,
  { id, isTty }: { readonly id: string; readonly isTty: boolean },
  query: LogQuery,
): AsyncGenerator<LogLine> {
  const body = await engine.containers.logs(id, { stdout: true, stderr: true, ...query }, signal)
  const splitters = { stdout: new LineSplitter(), stderr: new LineSplitter() }
  const lineOf = (stream: LogLine['stream'], text: string): LogLine => {
    if (!query.timestamps) return { stream, time: '', text }
    const blank = text.indexOf(' ')
    return blank < 0
      ? { stream, time: text, text: '' }
      : { stream, time: text.slice(0, blank), text: text.slice(blank + 1) }
  }
  const frames = new FrameReader()
  try {
    for await (const chunk of body) {
      const pieces = isTty ? [{ stream: 'stdout' as const, data: chunk }] : frames.push(chunk)
      for (const { stream, data } of pieces) {
        for (const text of splitters[stream].push(data)) yield lineOf(stream, text)
      }
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : error
  } finally {
    body.destroy()
  }
  for (const stream of ['stdout', 'stderr'] as const) {
    const rest = splitters[stream].rest()
    if (rest !== '') yield lineOf(stream, rest)
  }
}

class LineSplitter {
  #parts: Buffer[] = []
  #size = 0

  push(data: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    for (let at = data.indexOf(10); at >= 0; at = data.indexOf(10, from)) {
      this.#parts.push(data.subarray(from, at))
      lines.push(this.rest())
      from = at + 1
    }
    if (from < data.length) {
      this.#parts.push(data.subarray(from))
      this.#size += data.length - from
      if (this.#size > logLineBytesMax) lines.push(this.rest())
    }
    return lines
  }

  rest(): string {
    const text = Buffer.concat(this.#parts).toString().replace(/\r$/, '')
    this.#parts = []
    this.#size = 0
    return text
  }
}

/** Lines of several containers in the order of their times; those of one stay in their own order. */
export async function* mergeLogs<Name>(
  sources: readonly { readonly name: Name; readonly lines: AsyncIterable<LogLine> }[],
): AsyncGenerator<{ readonly name: Name; readonly line: LogLine }> {
  const heads = await Promise.all(
    sources.map(async ({ name, lines }) => {
      const iterator = lines[Symbol.asyncIterator]()
      return { name, iterator, next: await iterator.next() }
    }),
  )
  for (;;) {
    let first: (typeof heads)[number] | undefined
    for (const head of heads) {
      if (head.next.done) continue
      if (first === undefined || head.next.value.time < first.next.value.time) first = head
    }
    if (first === undefined) return
    yield { name: first.name, line: first.next.value }
    first.next = await first.iterator.next()
  }
}

const colours = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94]

/** Prints lines, each with the name of its container before it; names are as wide as the widest known by then. */
export class LogPrinter {
  readonly #out: Record<LogLine['stream'], Writable>
  readonly #options: {
    readonly colour: boolean
    readonly prefix: boolean
    readonly timestamps: boolean
  }
  readonly #codeByName = new Map<string, number>()
  #width = 0

  constructor(
    out: { readonly stdout: Writable; readonly stderr: Writable },
    options: { readonly colour: boolean; readonly prefix: boolean; readonly timestamps: boolean },
  ) {
    this.#out = { stdout: out.stdout, stderr: out.stderr }
    this.#options = options
  }

  /** Makes a container's name known before its first line, so that all are aligned. */
  add(name: string): void {
    if (this.#codeByName.has(name)) return
    this.#codeByName.set(name, colours[this.#codeByName.size % colours.length] ?? 36)
    this.#width = Math.max(this.#width, name.length)
  }

  async print(name: string, { stream, time, text }: LogLine): Promise<void> {
    this.add(name)
    const stamp = this.#options.timestamps ? `${time} ` : ''
    await this.#write(stream, `${this.#prefix(name)}${stamp}${text}\n`)
  }

  /** A line of our own about a container. */
  async note(name: string, text: string): Promise<void> {
    this.add(name)
    await this.#write('stdout', `${this.#paint(name, name)} ${text}\n`)
  }

  #prefix(name: string): string {
    if (!this.#options.prefix) return ''
    return `${this.#paint(name, `${name.padEnd(this.#width)}  |`)} `
  }

  #paint(name: string, text: string): string {
    if (!this.#options.colour) return text
    return `\u001b[${this.#codeByName.get(name) ?? 36}m${text}\u001b[0m`
  }

  async #write(stream: LogLine['stream'], text: string): Promise<void> {
    const out = this.#out[stream]
    if (!out.write(text)) await new Promise<void>((resolve) => out.once('drain', resolve))
  }
}

/** `web-1` of `shop-web-1` in project `shop`. */
export function shortName(project: string, name: string): string {
  for (const separator of ['-', '_']) {
    if (name.startsWith(`${project}${separator}`)) return name.slice(project.length + 1)
  }
  return name
}

/** Whether an error only says that a container is gone, or its log can't be read. */
export function isNoLog(error: unknown): boolean {
  return (
    error instanceof UserError &&
    (error.code === 'notFound' || /does not support reading/.test(error.message))
  )
}
