import { type ChildProcess, spawn } from 'node:child_process'
import { access, chmod, constants, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type Clock, type Log, UserError } from '../base/index.ts'
import { type EtcdClient, EtcdError } from '../store/etcd/client.ts'
import { clientSocketName, dataDirName, type EtcdFiles, etcdFlags } from './etcd-flags.ts'
import { detectEtcdVersion } from './etcd-version.ts'

export interface EtcdProcessOptions {
  /** The program. Default `etcd`, looked for in the PATH. */
  readonly binary?: string
  /** Holds its data and the socket on which it serves this node; closed to everyone else. Made if it is not there. */
  readonly directory: string
  /** The member's name: the node's id. */
  readonly name: string
  /** Where it listens for other members, and where they reach it: the address must be in its certificate. */
  readonly peerListenUrl: string
  readonly peerUrl: string
  readonly files: EtcdFiles
  /** How it begins where the directory holds no member yet; else it goes on with what is there. */
  readonly begin: EtcdBegin
  readonly clock: Clock
  readonly log: Log
  /** Called when it was removed from its cluster, after which it is not started again. */
  readonly onRemoved?: () => void
}

/**
 * - `new`: the first member of a new cluster. `token` is the cluster's id.
 * - `join`: one that was added before. `members` are all of them, this one included.
 * - `restart`: there must be data.
 * - `forceNew`: a cluster of this member alone, with the data it has: the others are lost for good.
 */
export type EtcdBegin =
  | { readonly type: 'new'; readonly token: string }
  | {
      readonly type: 'join'
      readonly token: string
      readonly members: readonly { readonly name: string; readonly peerUrl: string }[]
    }
  | { readonly type: 'restart' }
  | { readonly type: 'forceNew' }

export interface EtcdProcess {
  /** Where it answers this node: what a client is given. */
  readonly endpoint: string
  /** Absent while it is being started again. */
  readonly pid: number | undefined
  readonly version: string
  /** How often it was started again because it had ended. */
  readonly restartCount: number
  /** Its last words of warning, newest last: for a person who asks why it does not run. */
  readonly lastWords: readonly string[]
  /** Ends it, and returns when it is gone. */
  stop(): Promise<void>
}

/** Pauses before it is started again, in ms: doubled each time, back to the first after a long enough life. */
const restartMsMin = 100
const restartMsMax = 10_000
const longLifeMs = 5_000
/** Longest it may take to end by itself, in ms. */
const endMs = 5_000
const leftoverEndMs = 3_000
const lookMs = 50
/** Longest wait for a member to answer after its start, in ms. */
const answerMsMax = 30_000
/** Longest path of a socket. Source: unix(7). */
const socketPathMax = 107
const lastWordsMax = 20
const lineCharactersMax = 2_000

/**
 * Starts etcd as a child of this process, and keeps it running until it is stopped. Rejects with UserError:
 * `unsupported` (no etcd, or one that is too old), `failedPrecondition` (nothing to go on with), `unavailable` (the data
 * directory can't be used).
 *
 * It does not outlive this process: where the kernel can, it ends with it; one that is left over is ended first. What
 * runs in the cluster needs neither.
 */
export async function startEtcd(options: EtcdProcessOptions): Promise<EtcdProcess> {
  const binary = options.binary ?? 'etcd'
  const version = await detectEtcdVersion(binary)
  if (join(options.directory, clientSocketName).length > socketPathMax) {
    throw new UserError('invalidInput', `${options.directory} is too long a path for a socket`, {
      next: `Start the daemon with a shorter --data-root: at most ${socketPathMax} characters in all.`,
    })
  }
  try {
    await mkdir(options.directory, { recursive: true, mode: 0o700 })
    await chmod(options.directory, 0o700)
  } catch (cause) {
    throw new UserError('unavailable', `${options.directory} can not be used for etcd`, {
      next: 'Check the permissions there and the disk.',
      cause,
    })
  }
  await endLeftover(options)
  const hasData = await access(join(options.directory, dataDirName, 'member')).then(
    () => true,
    () => false,
  )
  const { type } = options.begin
  if (!hasData && (type === 'restart' || type === 'forceNew')) {
    throw new UserError('failedPrecondition', `${options.directory} holds no data of etcd`, {
      next: 'Restore a backup, or let this node join the cluster again.',
    })
  }
  const child = new Child({ ...options, binary }, version, hasData)
  child.start()
  return child
}

/**
 * Waits until the member answers, as a learner too. Rejects with `unavailable` and etcd's last words when it does not in
 * time; it goes on trying to start all the same.
 */
export async function waitForEtcd({
  process,
  client,
  clock,
  waitMs = answerMsMax,
}: {
  readonly process: EtcdProcess
  readonly client: EtcdClient
  readonly clock: Clock
  readonly waitMs?: number
}): Promise<void> {
  const untilMs = clock.nowMs() + waitMs
  for (;;) {
    try {
      await client.status({ endpoint: process.endpoint, deadlineMs: 1_000 })
      return
    } catch (cause) {
      if (!(cause instanceof EtcdError)) throw cause
      if (clock.nowMs() >= untilMs) {
        const words = process.lastWords.at(-1)
        throw new UserError(
          'unavailable',
          `etcd does not answer on this node${words === undefined ? '' : ` (${words})`}`,
          { next: 'Look at the log of the daemon; etcd is started again and again.', cause },
        )
      }
      await clock.sleep(lookMs)
    }
  }
}

/** Where the process is written down, to be found by a daemon that comes after this one was killed. */
function pidPath(directory: string): string {
  return join(directory, 'pid')
}

/** With the pid it names one process for ever: field 22 of /proc/PID/stat. */
async function startedAt(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // A zombie has ended; only its parent has not looked yet.
  return fields[0] === 'Z' ? undefined : fields[19]
}

async function endLeftover({ directory, clock, log }: EtcdProcessOptions): Promise<void> {
  const path = pidPath(directory)
  const [pidText, started] = (await readFile(path, 'utf8').catch(() => '')).split(' ')
  const pid = Number(pidText)
  const isThere = async (): Promise<boolean> =>
    pid > 1 && started !== undefined && (await startedAt(pid)) === started
  if (await isThere()) {
    log.info('ending the etcd that an earlier daemon left', { pid })
    signalProcess(pid, 'SIGTERM')
    const killAtMs = clock.nowMs() + leftoverEndMs
    let isKilled = false
    while (await isThere()) {
      if (!isKilled && clock.nowMs() >= killAtMs) {
        isKilled = true
        signalProcess(pid, 'SIGKILL')
      }
      await clock.sleep(lookMs)
    }
  }
  await rm(path, { force: true })
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended meanwhile.
  }
}

class Child implements EtcdProcess {
  readonly version: string
  readonly #options: EtcdProcessOptions & { readonly binary: string }
  readonly #stopped = new AbortController()
  #hasData: boolean
  #process: ChildProcess | undefined
  #restartCount = 0
  #lastWords: string[] = []
  #isRemoved = false
  /** A cluster is forced anew once: after that it is a cluster like any other. */
  #forceNew: boolean
  #running: Promise<void> = Promise.resolve()

  constructor(
    options: EtcdProcessOptions & { readonly binary: string },
    version: string,
    hasData: boolean,
  ) {
    this.#options = options
    this.version = version
    this.#hasData = hasData
    this.#forceNew = options.begin.type === 'forceNew'
  }

  get endpoint(): string {
    return join(this.#options.directory, clientSocketName)
  }

  get pid(): number | undefined {
    return this.#process?.pid
  }

  get restartCount(): number {
    return this.#restartCount
  }

  get lastWords(): readonly string[] {
    return this.#lastWords
  }

  start(): void {
    this.#running = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    const child = this.#process
    if (child) {
      child.kill('SIGTERM')
      // One that was stopped (SIGSTOP) hears nothing else.
      const done = new AbortController()
      void this.#options.clock.sleep(endMs, done.signal).then(() => {
        if (!done.signal.aborted) child.kill('SIGKILL')
      })
      await this.#running
      done.abort()
    }
    await this.#running
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#options
    const { signal } = this.#stopped
    let pauseMs = restartMsMin
    while (!signal.aborted) {
      const startedAtMs = clock.nowMs()
      const how = await this.#runOnce()
      this.#hasData = true
      if (signal.aborted) break
      if (this.#isRemoved) {
        log.warn('etcd was removed from its cluster; not starting it again')
        this.#options.onRemoved?.()
        break
      }
      if (clock.nowMs() - startedAtMs >= longLifeMs) pauseMs = restartMsMin
      log.warn('etcd ended; starting it again', { how, pauseMs, lastWords: this.#lastWords.at(-1) })
      await clock.sleep(pauseMs, signal)
      pauseMs = Math.min(restartMsMax, pauseMs * 2)
      this.#restartCount += 1
    }
    await rm(pidPath(this.#options.directory), { force: true })
  }

  /** Returns how it ended. */
  async #runOnce(): Promise<string> {
    const { binary, directory, log } = this.#options
    const flags = etcdFlags({
      ...this.#options,
      version: this.version,
      begin: this.#hasData && !this.#forceNew ? { type: 'restart' } : this.#options.begin,
    })
    // etcd does not take a socket that one before it has left.
    await rm(this.endpoint, { force: true })
    const setpriv = await findSetpriv()
    if (this.#stopped.signal.aborted) return 'not started'
    const command = setpriv === undefined ? [binary] : [setpriv, '--pdeathsig', 'TERM', binary]
    const child = spawn(command[0] ?? binary, [...command.slice(1), ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: directory,
      env: {
        PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
        // Small before fast: what it holds is some tens of MB. Newer Go heeds the limit, older knows the share only.
        GOGC: '50',
        GOMEMLIMIT: '64MiB',
      },
    })
    this.#process = child
    const ended = new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message))
      child.on('exit', (code, signal) => resolve(signal ?? `exit status ${code}`))
    })
    createInterface({ input: child.stderr }).on('line', (line) => this.#hear(line))
    if (child.pid !== undefined) {
      const started = (await startedAt(child.pid)) ?? ''
      await writeFile(pidPath(directory), `${child.pid} ${started}`, { mode: 0o600 })
      log.info('etcd started', { pid: child.pid, version: this.version })
    }
    const how = await ended
    this.#forceNew = false
    this.#process = undefined
    return how
  }

  #hear(text: string): void {
    const line = text.slice(0, lineCharactersMax)
    const { level, message } = parseLogLine(line)
    if (/permanently removed|removed from the cluster|no such member in the cluster/.test(line)) {
      this.#isRemoved ||= isRemovalOfSelf(line)
    }
    if (level === 'info') {
      this.#options.log.debug('etcd says', { message })
      return
    }
    this.#lastWords = [...this.#lastWords.slice(1 - lastWordsMax), message]
    this.#options.log.debug('etcd warns', { level, message })
  }
}

function isRemovalOfSelf(line: string): boolean {
  return /permanently removed from the cluster|server has been removed|removed from the cluster, shutting/.test(
    line,
  )
}

/** A line of etcd's JSON log, as a level and a text with the fields that matter. */
function parseLogLine(line: string): { readonly level: string; readonly message: string } {
  try {
    const entry: unknown = JSON.parse(line)
    if (typeof entry === 'object' && entry !== null && 'level' in entry && 'msg' in entry) {
      const error = 'error' in entry ? `: ${String(entry.error)}` : ''
      return { level: String(entry.level), message: `${String(entry.msg)}${error}` }
    }
  } catch {
    // Words of the Go runtime, or of a start that failed.
  }
  return { level: 'plain', message: line }
}

/** The program that lets a child end with its parent; a host without it leaves one to be ended at the next start. */
async function findSetpriv(): Promise<string | undefined> {
  for (const path of ['/usr/bin/setpriv', '/bin/setpriv']) {
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isThere) return path
  }
  return undefined
}
