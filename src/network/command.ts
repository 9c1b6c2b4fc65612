import { spawn } from 'node:child_process'
import { UserError } from '../base/index.ts'

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Longest a tool may take, in ms. They take milliseconds; a lock (`iptables -w`) may be held by another. */
export const commandMsMax = 10_000
/** Output kept of one run, in bytes. */
const outputBytesMax = 64 * 1024 * 1024

/**
 * Runs a program of the host with `stdin` and waits for its end, whatever its exit code. Rejects with UserError
 * `unsupported` when it is not installed, `internal` when it does not end. `fds` are its file descriptors from 3 on.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: { readonly stdin?: string; readonly fds?: readonly number[] } = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe', ...(options.fds ?? [])],
      timeout: commandMsMax,
      killSignal: 'SIGKILL',
    })
    const { stdin, stdout, stderr } = child
    if (!stdin || !stdout || !stderr) {
      reject(new UserError('internal', `${program} could not be given pipes`))
      return
    }
    let out = ''
    let err = ''
    stdout.setEncoding('utf8').on('data', (chunk: string) => {
      if (out.length < outputBytesMax) out += chunk
    })
    stderr.setEncoding('utf8').on('data', (chunk: string) => {
      if (err.length < outputBytesMax) err += chunk
    })
    child.on('error', (error) => {
      const missing = 'code' in error && error.code === 'ENOENT'
      reject(
        missing
          ? new UserError('unsupported', `${program} is not installed`, {
              next: `Install ${packages[program] ?? program}.`,
              cause: error,
            })
          : new UserError('internal', `${program} could not be started: ${error.message}`, {
              cause: error,
            }),
      )
    })
    child.on('close', (code, signal) => {
      if (signal !== null) {
        reject(new UserError('internal', `${program} did not end within ${commandMsMax} ms`))
      } else resolve({ code: code ?? 0, stdout: out, stderr: err.trim() })
    })
    // A program that ends without reading its input says why on stderr.
    stdin.on('error', () => {})
    stdin.end(options.stdin ?? '')
  })
}

/** What a tool said, short enough for an error. */
export function firstLines(text: string): string {
  return text.split('\n').slice(0, 3).join(' ').slice(0, 500)
}

const packages: Readonly<Record<string, string>> = {
  nft: 'nftables',
  nsenter: 'util-linux',
  ip: 'iproute2',
}
