import { type ChildProcess, spawn } from 'node:child_process'
import { type Readable, Writable } from 'node:stream'
import { type CommandResult, commandMsMax } from './command.ts'

/** Ends what a command printed. No command prints such a line. */
const mark = 'END-OF-SKEP-COMMAND'
const lastLine = new RegExp(`\\n${mark} (\\d+)\\n$`)
const lastLineMax = mark.length + 10

/**
 * A shell that is kept to start programs: it is small, and so is what the kernel copies for each of them. A daemon with
 * thousands of tasks takes 10 ms or more to start a program by itself. The shell ends with the daemon.
 */
export class CommandShell {
  #shell: Shell | undefined
  #isBusy = false

  /**
   * Runs a program and waits for its end. Undefined when the shell can't: it is at something else, or did not survive, and
   * the program may have run or not; or there is no such program.
   */
  async run(
    program: string,
    args: readonly string[],
    stdin: string,
  ): Promise<CommandResult | undefined> {
    if (this.#isBusy) return undefined
    this.#isBusy = true
    try {
      this.#shell ??= startShell()
      const shell = this.#shell
      const result = shell && (await ask(shell, [program, ...args], Buffer.from(stdin)))
      // What a failing program did not read of its input would be the next one's.
      if (shell && (!result || (result.code !== 0 && stdin !== ''))) {
        killGroup(shell)
        this.#shell = undefined
      }
      return result?.code === notFound ? undefined : result
    } finally {
      this.#isBusy = false
    }
  }
}

interface Shell {
  readonly process: ChildProcess
  readonly commands: Writable
  readonly input: Writable
  readonly out: Readable
  readonly err: Readable
}

/** What a shell says of a program that is not there. */
const notFound = 127

function startShell(): Shell | undefined {
  // A group of its own, so that a terminal's interrupt does not reach what is under way.
  const child = spawn('sh', [], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  })
  child.on('error', () => {})
  const input = child.stdio[3]
  if (!child.stdin || !child.stdout || !child.stderr || !(input instanceof Writable))
    return undefined
  for (const pipe of [child.stdin, input]) pipe.on('error', () => {})
  const shell = {
    process: child,
    commands: child.stdin,
    input,
    out: child.stdout.setEncoding('utf8'),
    err: child.stderr.setEncoding('utf8'),
  }
  setRef(shell, false)
  return shell
}

/** The shell and what it runs. */
function killGroup({ process: { pid } }: Shell): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

/** Whether it keeps this process alive: only while something is under way. */
function setRef(shell: Shell, isKept: boolean): void {
  for (const part of Object.values(shell)) {
    if (isKept && 'ref' in part && typeof part.ref === 'function') part.ref()
    if (!isKept && 'unref' in part && typeof part.unref === 'function') part.unref()
  }
}

/** A shell reads its commands a byte at a time, so the input has a way of its own. */
function script(words: readonly string[], inputBytes: number): string {
  const command = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  const whole =
    inputBytes === 0 ? `${command} </dev/null` : `head -c ${inputBytes} <&3 | ${command} 3<&-`
  return `${whole}\nprintf '\\n%s %s\\n' ${mark} $?\nprintf '\\n%s\\n' ${mark} >&2\n`
}

/** Undefined: it ended, or took too long. */
function ask(
  shell: Shell,
  words: readonly string[],
  input: Buffer,
): Promise<CommandResult | undefined> {
  const { process, commands, out: outPipe, err: errPipe } = shell
  return new Promise((resolve) => {
    let out = ''
    let err = ''
    const end = (result: CommandResult | undefined) => {
      clearTimeout(timer)
      outPipe.off('data', onOut)
      errPipe.off('data', onErr)
      process.off('close', onClose)
      setRef(shell, false)
      resolve(result)
    }
    const look = () => {
      const last = lastLine.exec(out.slice(-lastLineMax))
      if (!last || !err.endsWith(`\n${mark}\n`)) return
      end({
        code: Number(last[1]),
        stdout: out.slice(0, -last[0].length),
        stderr: err.slice(0, -mark.length - 2).trim(),
      })
    }
    const onOut = (chunk: string) => {
      out += chunk
      look()
    }
    const onErr = (chunk: string) => {
      err += chunk
      look()
    }
    const onClose = () => end(undefined)
    const timer = setTimeout(onClose, commandMsMax)
    setRef(shell, true)
    outPipe.on('data', onOut)
    errPipe.on('data', onErr)
    process.on('close', onClose)
    if (process.exitCode !== null || process.signalCode !== null || !commands.writable) onClose()
    else {
      commands.write(script(words, input.length))
      if (input.length > 0) shell.input.write(input)
    }
  })
}
