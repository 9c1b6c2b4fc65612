import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import {
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import {
  type ControlRequest,
  controlVersion,
  parseStatus,
  type ResolverStatus,
  resolverFiles,
} from './resolver/control.ts'
import { pagesFolder, renderState, type StateFiles } from './resolver/state-file.ts'
import type { ResolverState } from './resolver/zones.ts'

/** Longest a resolver may take to begin, and to answer, in ms. */
const startMsMax = 10_000
const answerMsMax = 3000
/** Waits between restarts of a resolver that keeps ending, in ms. */
const restartMsMin = 100
const restartMsMax = 10_000

interface Connection {
  readonly socket: Socket
  readonly waiting: ((status: ResolverStatus | undefined) => void)[]
}

/**
 * The daemon's side of the resolver: starts it, finds the one an earlier daemon started, gives it its state, and starts
 * it again when it ends. The process itself outlives the daemon.
 */
export class ResolverLink {
  readonly #stateDir: string
  readonly #entry: string
  readonly #clock: Clock
  readonly #log: Log
  readonly #closed = new AbortController()
  #connection: Connection | undefined
  /** One thing at a time: start, load, stop. */
  #turn: Promise<unknown> = Promise.resolve()
  /** The head of the state's files, which names all others. */
  #written: string | undefined
  /** Pages that this process wrote. */
  readonly #pages = new Set<string>()
  #isFolderClean = false
  #isWanted = false
  #restartMs = restartMsMin
  #restartCount = 0

  constructor(options: {
    readonly stateDir: string
    readonly entry: string
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#stateDir = options.stateDir
    this.#entry = options.entry
    this.#clock = options.clock
    this.#log = options.log
  }

  /** How often it had to be started again because it had ended. */
  get restartCount(): number {
    return this.#restartCount
  }

  /**
   * Makes the resolver answer from `state`. Without a network there is none: it is stopped. Resolves with the gateways
   * it can't listen on, and why.
   */
  publish(state: ResolverState, force = false): Promise<Readonly<Record<string, string>>> {
    return this.#inTurn(async () => {
      const files = renderState(state)
      this.#isWanted = state.networks.length > 0
      if (!this.#isWanted) {
        await this.#stop()
        return {}
      }
      const isSame = files.head === this.#written
      if (isSame && !force && this.#connection) return {}
      if (!isSame) await this.#write(files)
      const { failures } = await this.#load()
      await this.#removePagesBut(files.pages)
      return failures
    })
  }

  /** Asks how it is; one that does not answer is replaced. Says what was wrong. */
  audit(): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      if (!this.#isWanted) return []
      const drift: string[] = []
      const wasConnected = this.#connection !== undefined
      const status = wasConnected ? await this.#ask('load') : undefined
      if (!status) {
        if (wasConnected) await this.#kill()
        drift.push('the resolver did not answer and was started again')
        await this.#load()
      } else {
        for (const [gateway, why] of Object.entries(status.failures)) {
          drift.push(`the resolver can't listen on ${gateway}: ${why}`)
        }
        if (status.error !== undefined) {
          drift.push(`the resolver could not read its state: ${status.error}`)
          this.#forgetFiles()
        }
      }
      return drift
    })
  }

  /** Ends the resolver. */
  stop(): Promise<void> {
    return this.#inTurn(async () => {
      this.#isWanted = false
      await this.#stop()
      for (const name of Object.values(resolverFiles)) {
        await rm(join(this.#stateDir, name), { force: true })
      }
      await rm(join(this.#stateDir, pagesFolder), { recursive: true, force: true })
      this.#forgetFiles()
    })
  }

  /** Lets go of it; it runs on. */
  async close(): Promise<void> {
    this.#closed.abort()
    this.#drop()
    await this.#turn.catch(() => {})
    this.#drop()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work)
    this.#turn = turn.catch(() => {})
    return turn
  }

  /** Whoever reads the head meanwhile finds all that it names. */
  async #write({ head, pages }: StateFiles): Promise<void> {
    const folder = join(this.#stateDir, pagesFolder)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await Promise.all(
      [...pages].map(async ([name, text]) => {
        if (this.#pages.has(name)) return
        await replaceFile(join(folder, name), text)
        this.#pages.add(name)
      }),
    )
    await replaceFile(join(this.#stateDir, resolverFiles.state), head)
    this.#written = head
  }

  /** Also of what an earlier daemon left. */
  async #removePagesBut(kept: StateFiles['pages']): Promise<void> {
    const folder = join(this.#stateDir, pagesFolder)
    const there = this.#isFolderClean ? this.#pages : await readdir(folder)
    for (const name of [...there].filter((candidate) => !kept.has(candidate))) {
      await rm(join(folder, name), { force: true })
      this.#pages.delete(name)
    }
    this.#isFolderClean = true
  }

  /** What is on disk is in doubt: all of it is written again. */
  #forgetFiles(): void {
    this.#written = undefined
    this.#pages.clear()
    this.#isFolderClean = false
  }

  /** Makes a resolver be there that has read the state file. */
  async #load(): Promise<ResolverStatus> {
    if (!this.#connection) await this.#connect()
    let status = this.#connection && (await this.#ask('load'))
    if (status && status.version !== controlVersion) {
      this.#log.info('the resolver is of another version and is replaced', { pid: status.pid })
      await this.#stop()
      status = undefined
    }
    if (!status) {
      await this.#kill()
      await this.#start()
      await this.#connect()
      status = this.#connection && (await this.#ask('load'))
    }
    if (!status) {
      throw new UserError(
        'unavailable',
        `the node's resolver does not start${await this.#lastWords()}`,
        {
          next: `Names do not resolve in containers until it does; see ${join(this.#stateDir, resolverFiles.log)}.`,
        },
      )
    }
    if (status.error !== undefined) {
      this.#forgetFiles()
      throw new UserError('internal', `the resolver could not read its state: ${status.error}`)
    }
    this.#restartMs = restartMsMin
    return status
  }

  async #lastWords(): Promise<string> {
    const text = await readFile(join(this.#stateDir, resolverFiles.log), 'utf8').catch(() => '')
    const lines = text.trim().split('\n')
    const line = lines.findLast((candidate) => /error/i.test(candidate)) ?? lines.at(-1) ?? ''
    return line === '' ? '' : `: ${line.slice(0, 300)}`
  }

  async #start(): Promise<void> {
    await mkdir(this.#stateDir, { recursive: true, mode: 0o700 })
    const output = await open(join(this.#stateDir, resolverFiles.log), 'w', 0o600)
    let child: ChildProcess
    try {
      child = spawn(
        process.execPath,
        [
          '--max-old-space-size=96',
          '--max-semi-space-size=1',
          '--disable-warning=ExperimentalWarning',
          ...[this.#entry, this.#stateDir, '3'],
        ],
        {
          detached: true,
          cwd: '/',
          env: {},
          stdio: ['ignore', output.fd, output.fd, 'pipe'],
        },
      )
    } finally {
      await output.close()
    }
    const ready = child.stdio[3]
    await new Promise<void>((resolve) => {
      const timeout = new AbortController()
      const end = () => {
        timeout.abort()
        resolve()
      }
      child.once('error', (error) => {
        this.#log.error('the resolver could not be started', { error: error.message })
        end()
      })
      child.once('exit', end)
      ready?.once('close', end).once('error', end)
      if (ready && 'resume' in ready) ready.resume()
      void this.#clock.sleep(startMsMax, timeout.signal).then(end)
    })
    if (ready && 'destroy' in ready) ready.destroy()
    child.unref()
    this.#log.info('resolver started', { pid: child.pid })
  }

  /** Leaves `#connection` undefined when nobody listens. */
  async #connect(): Promise<void> {
    let directory: number
    try {
      // A path to a socket has at most 107 bytes, and the state directory may lie deep.
      directory = openSync(this.#stateDir, 'r')
    } catch {
      return // No state directory: nothing was ever started here.
    }
    try {
      const socket = connect(`/proc/self/fd/${directory}/${resolverFiles.socket}`)
      const isOpen = await new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      })
      if (!isOpen || this.#closed.signal.aborted) {
        socket.destroy()
        return
      }
      this.#adopt(socket)
    } finally {
      closeSync(directory)
    }
  }

  #adopt(socket: Socket): void {
    const connection: Connection = { socket, waiting: [] }
    let received = ''
    socket.setEncoding('utf8')
    socket.unref()
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: string) => {
      const lines = (received + chunk).split('\n')
      received = lines.pop() ?? ''
      for (const line of lines) connection.waiting.shift()?.(parseStatus(line))
    })
    socket.on('close', () => {
      for (const answer of connection.waiting.splice(0)) answer(undefined)
      if (this.#connection !== connection) return
      this.#connection = undefined
      if (this.#isWanted && !this.#closed.signal.aborted) void this.#restart()
    })
    this.#connection = connection
  }

  async #restart(): Promise<void> {
    const waitMs = this.#restartMs
    this.#restartMs = Math.min(this.#restartMs * 2, restartMsMax)
    this.#restartCount++
    this.#log.warn('the resolver ended and is started again', { waitMs })
    await this.#clock.sleep(waitMs, this.#closed.signal)
    await this.#inTurn(async () => {
      if (this.#closed.signal.aborted || !this.#isWanted || this.#connection) return
      await this.#load()
    }).catch((error: unknown) => {
      this.#log.error('the resolver could not be started again', { error: messageOf(error) })
    })
  }

  async #ask(command: ControlRequest['command']): Promise<ResolverStatus | undefined> {
    const connection = this.#connection
    if (!connection) return undefined
    const done = new AbortController()
    const answer = new Promise<ResolverStatus | undefined>((resolve) => {
      connection.waiting.push(resolve)
      connection.socket.write(`${JSON.stringify({ command })}\n`)
    })
    const late = this.#clock.sleep(answerMsMax, done.signal).then(() => undefined)
    const status = await Promise.race([answer, late])
    done.abort()
    return status
  }

  async #stop(): Promise<void> {
    this.#written = undefined
    if (!this.#connection) await this.#connect()
    const connection = this.#connection
    if (!connection) return
    this.#connection = undefined
    const closed = new Promise<void>((resolve) => connection.socket.once('close', () => resolve()))
    connection.socket.write(`${JSON.stringify({ command: 'stop' })}\n`)
    const done = new AbortController()
    await Promise.race([closed, this.#clock.sleep(answerMsMax, done.signal)])
    done.abort()
    connection.socket.destroy()
    await this.#kill()
  }

  #drop(): void {
    const connection = this.#connection
    this.#connection = undefined
    connection?.socket.destroy()
  }

  /** Ends one that does not answer. Its directory tells it from another process that got its pid. */
  async #kill(): Promise<void> {
    this.#drop()
    const path = join(this.#stateDir, resolverFiles.pid)
    const pid = Number(await readFile(path, 'utf8').catch(() => '0'))
    if (!Number.isInteger(pid) || pid <= 1) return
    const [where, own] = await Promise.all([
      readlink(`/proc/${pid}/cwd`).catch(() => ''),
      realpath(this.#stateDir).catch(() => this.#stateDir),
    ])
    await rm(path, { force: true })
    if (where !== own) return
    try {
      process.kill(pid, 'SIGKILL')
      this.#log.warn('a resolver that did not answer was killed', { pid })
    } catch {
      // It ended by itself.
    }
  }
}

/** Whoever reads it sees what was there before, or all that is new. */
async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.new`, text, { mode: 0o600 })
  await rename(`${path}.new`, path)
}
