/** A steady load in a network namespace of one's choice; `load-main.ts` makes it. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'

export interface LoadStream {
  readonly name: string
  /** A name or an address. */
  readonly host: string
  readonly port: number
  readonly path?: string
  /** Connections kept alive, or one for each request. */
  readonly isKept: boolean
  readonly perSecond: number
}

export interface LoadFailure {
  /** When the request was sent, in ms since 1970. */
  readonly atMs: number
  /** `ECONNRESET`, `timeout`, `status 503`, … */
  readonly kind: string
  readonly localPort: number
}

export interface StreamResult {
  readonly name: string
  readonly sent: number
  readonly answered: number
  readonly failed: number
  /** Sent again because a kept connection had ended. */
  readonly retried: number
  /** Questions for the name that got no answer within a second, and were asked again. */
  readonly askedAgain: number
  /** Due but never sent, because too many were under way. */
  readonly late: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of many the first ones, and the last one. */
  readonly failures: readonly LoadFailure[]
  /** How many tasks answered. */
  readonly servers: number
}

export interface LoadResult {
  readonly seconds: number
  /** Longest time in which the load itself had no processor: what it calls failed may have been answered. */
  readonly stalledMs: number
  readonly streams: readonly StreamResult[]
}

/** Starts the load. `enter` are the words that run what follows them elsewhere. */
export function startLoad(
  enter: readonly string[],
  streams: readonly LoadStream[],
): { readonly stop: () => Promise<LoadResult> } {
  const words = [
    ...enter,
    ...[process.execPath, join(import.meta.dirname, 'load-main.ts'), JSON.stringify({ streams })],
  ]
  const [program = '', ...args] = words
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return {
    stop: async () => {
      child.stdin.end()
      await ended
      return JSON.parse(output)
    },
  }
}
