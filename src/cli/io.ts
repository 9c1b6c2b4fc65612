import { readFile } from 'node:fs/promises'
import type { Readable, Writable } from 'node:stream'

/** What a command touches of the process it runs in. */
export interface Io {
  readonly stdin: Readable & { readonly isTTY?: boolean | undefined }
  readonly stdout: Writable & {
    readonly isTTY?: boolean | undefined
    readonly columns?: number | undefined
  }
  readonly stderr: Writable & { readonly isTTY?: boolean | undefined }
  readonly env: Readonly<Record<string, string | undefined>>
  /** Directory that relative paths start from. */
  readonly directory: string
  /** Wall clock, ms since 1970. */
  nowMs(): number
  readFile(path: string): Promise<Buffer>
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
}

export function realIo(): Io {
  const interrupted = new AbortController()
  let listening = false
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    directory: process.cwd(),
    nowMs: () => Date.now(),
    readFile: (path) => readFile(path),
    // Listening only when a command asks keeps Ctrl-C deadly for all the others.
    get signal() {
      if (!listening) {
        listening = true
        process.once('SIGINT', () => interrupted.abort(new Interrupted()))
      }
      return interrupted.signal
    },
  }
}

/** Ctrl-C while a command followed or waited for something. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
}
