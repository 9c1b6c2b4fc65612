import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UserError } from '../base/index.ts'
import type { Io } from './io.ts'

/** Longest secret that is read, in characters. */
const secretLengthMax = 4096

/** Reads one line that nobody shall see: typed without an echo on a terminal, else the first line of what is piped in. */
export async function readSecret(io: Io, question: string): Promise<string> {
  const isTerminal = io.stdin.isTTY === true
  if (isTerminal) io.stderr.write(question)
  // The terminal echoes nothing in raw mode, and what readline itself would echo goes nowhere.
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: io.stdin, output: nowhere, terminal: isTerminal })
  try {
    for await (const line of lines) {
      if (isTerminal) io.stderr.write('\n')
      if (line.length > secretLengthMax) {
        throw new UserError('invalidInput', `the secret is over ${secretLengthMax} characters`)
      }
      return line
    }
    return ''
  } finally {
    lines.close()
  }
}
