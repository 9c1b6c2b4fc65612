import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { delimiter, join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
/** The engine that `./dev` found or started. */
export const sharedEngine = process.env['SKEP_ENGINE'] ?? 'unix:///var/run/docker.sock'

export interface Output {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end. `input` goes to its standard input. */
export function run(
  command: string,
  args: readonly string[],
  options: {
    readonly input?: string
    readonly env?: Record<string, string>
    readonly cwd?: string
    readonly timeoutMs?: number
  } = {},
): Promise<Output> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.timeoutMs === undefined
        ? {}
        : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.on('error', fail)
    child.on('close', (code) => done({ code: code ?? -1, stdout, stderr }))
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

/** Every stock docker client on this machine, oldest place in PATH last, each once. */
export function dockerClients(): readonly string[] {
  const found = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'docker'))
  const paths = [...found, '/usr/bin/docker', '/usr/local/bin/docker']
  return [...new Set(paths.filter((path) => existsSync(path)).map((path) => realpathSync(path)))]
}

function childOf(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
    return text === '' ? undefined : Number(text.split(' ')[0])
  } catch {
    return undefined // It ended meanwhile.
  }
}

const hasEnded = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null

/** One that has ended since it was seen needs no signal. */
function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/** A daemon of its own: data, sockets and cluster in a folder that is removed at the end. */
export interface TestDaemon extends AsyncDisposable {
  readonly host: string
  readonly folder: string
  pid(): number
  /** The stock client (or `client`) against this daemon. */
  docker(...args: string[]): Promise<Output>
  /** As `docker`, and throws when it fails. Resolves with its standard output, trimmed. */
  ok(...args: string[]): Promise<string>
  dockerWith(client: string, input: string | undefined, ...args: string[]): Promise<Output>
  skep(...args: string[]): Promise<Output>
  /** One API call. Body and answer are JSON. */
  api(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; body: unknown; text: string }>
  kill9(): Promise<void>
  /** Asks it to end, and waits. */
  stop(): Promise<void>
  start(): Promise<void>
  log(): string
}

export interface DaemonOptions {
  /** Whether `swarm init` is run. Default: yes. */
  readonly init?: boolean
  /** Where its state goes instead of a folder in `folder`. */
  readonly dataRoot?: string
  /** Another engine than the shared one, `unix://…`. */
  readonly engine?: string
  /** Command words before the daemon's own, asked for at each start: where it shall run. */
  readonly within?: () => readonly string[]
  /** More flags of `skep daemon`. */
  readonly flags?: readonly string[]
}

export async function startDaemon(options: DaemonOptions = {}): Promise<TestDaemon> {
  const folder = await mkdtemp('/tmp/skep-test-')
  const socket = join(folder, 'docker.sock')
  const host = `unix://${socket}`
  const logPath = join(folder, 'daemon.log')
  const [client = 'docker'] = dockerClients()
  let child: ChildProcess | undefined

  async function start(): Promise<void> {
    const log = await open(logPath, 'a')
    const [command, ...words] = [...(options.within?.() ?? []), join(root, 'bin/skep')]
    const started = spawn(
      command,
      [
        ...words,
        'daemon',
        '--data-root',
        options.dataRoot ?? join(folder, 'data'),
        '--run-dir',
        join(folder, 'run'),
        '-H',
        host,
        '--engine',
        options.engine ?? sharedEngine,
        // Many daemons share this machine: each gets a cluster port that is free.
        '--listen-addr',
        '127.0.0.1:0',
        '--http',
        '',
        '--log-level',
        'info',
        ...(options.flags ?? []),
      ],
      { stdio: ['ignore', log.fd, log.fd] },
    )
    await log.close()
    child = started
    await eventually('an answer of the daemon', async () => {
      if (hasEnded(started)) throw new Error('it has ended')
      const answer = await api('GET', '/_ping').catch(() => undefined)
      return answer?.status === 200
    }).catch((cause: unknown) => {
      const text = readFileSync(logPath, 'utf8').slice(-4000)
      throw new Error(`the daemon did not start:\n${text}`, { cause })
    })
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const ending = child
    if (!ending || hasEnded(ending)) return
    const ended = new Promise((done) => ending.once('exit', done))
    // Below `within` the daemon is a child of what runs it there.
    const pid = options.within === undefined ? undefined : childOf(ending.pid ?? 0)
    if (pid === undefined) ending.kill(signal)
    else signalIfThere(pid, signal)
    await ended
  }

  function api(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; body: unknown; text: string }> {
    return new Promise((done, fail) => {
      const call = request(
        {
          socketPath: socket,
          method,
          path,
          headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
        },
        (answer) => {
          let text = ''
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part
          })
          answer.on('error', fail)
          answer.on('end', () => {
            let parsed: unknown
            try {
              parsed = JSON.parse(text)
            } catch {
              parsed = undefined
            }
            done({ status: answer.statusCode ?? 0, body: parsed, text })
          })
        },
      )
      call.on('error', fail)
      call.end(
        body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
      )
    })
  }

  const dockerWith = (using: string, input: string | undefined, ...args: string[]) =>
    run(using, ['-H', host, ...args], {
      ...(input === undefined ? {} : { input }),
      timeoutMs: 180_000,
    })

  const daemon: TestDaemon = {
    host,
    folder,
    pid: () => child?.pid ?? 0,
    docker: (...args) => dockerWith(client, undefined, ...args),
    dockerWith,
    async ok(...args) {
      const output = await dockerWith(client, undefined, ...args)
      if (output.code !== 0) {
        throw new Error(
          `docker ${args.join(' ')}: exit ${output.code}\n${output.stdout}${output.stderr}\n${daemon.log().slice(-3000)}`,
        )
      }
      return output.stdout.trim()
    },
    skep: (...args) =>
      run(join(root, 'bin/skep'), args, { env: { SKEP_HOST: host }, timeoutMs: 180_000 }),
    api,
    kill9: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    start,
    log: () => (existsSync(logPath) ? readFileSync(logPath, 'utf8') : ''),
    async [Symbol.asyncDispose]() {
      try {
        if (!child || hasEnded(child)) await start()
        await api('POST', '/swarm/leave?force=1')
      } finally {
        await end('SIGTERM')
        // Secrets lie in memory that is mounted for them.
        await run('umount', ['-l', join(folder, 'run/tasks')])
        // What still ends may write there once more.
        await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
      }
    },
  }

  try {
    await start()
    if (options.init !== false) {
      await daemon.ok('swarm', 'init', '--advertise-addr', '127.0.0.1')
      // It waits for the node by itself, but not for as long as a busy machine may need.
      await eventually('the node to be ready', async () =>
        /"State":"ready"/.test((await api('GET', '/nodes')).text),
      )
    }
  } catch (error) {
    await Promise.resolve(daemon[Symbol.asyncDispose]()).catch(() => {})
    throw error
  }
  return daemon
}

/**
 * Looks until `look` gives something other than undefined or false. Throws with `what` after `withinMs`, which ends a hang: no
 * machine that works is to need as long.
 */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  withinMs = 120_000,
): Promise<T> {
  const untilMs = Date.now() + withinMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > untilMs) throw new Error(`not within ${withinMs / 1000} s: ${what}`)
    await new Promise((done) => setTimeout(done, 100))
  }
}
