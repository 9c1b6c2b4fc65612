import { type ChildProcess, spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { type Clock, type Log, UserError } from '../base/index.ts'
import { holdNamespace, identify, type ProcessIdentity } from './namespace.ts'

/** A dialer that nobody asks ends after this, in ms. Connections that it made go on. */
const idleMs = 20_000
/** For a dialer to say that it runs, in ms. */
const startMs = 10_000
/** Connections that are being made in one namespace; more are refused. */
const dialsMax = 2_000

export interface TaskDialerOptions {
  readonly clock: Clock
  readonly log: Log
}

/**
 * Connects to ports of containers on this host from inside their own network, so that also what listens on 127.0.0.1
 * there is reached.
 */
export interface TaskDialer {
  /**
   * Resolves with a connection that allows half of it to end. `pid`: a process of the container. Rejects with
   * `failedPrecondition` when nothing listens on the port, `unavailable` when the container has ended.
   */
  dial(pid: number, port: number): Promise<Socket>
  close(): void
}

export function openTaskDialer(options: TaskDialerOptions): TaskDialer {
  return new Dialers(options)
}

class Dialers implements TaskDialer {
  readonly #options: TaskDialerOptions
  readonly #byNamespace = new Map<string, Dialer>()
  #isClosed = false

  constructor(options: TaskDialerOptions) {
    this.#options = options
  }

  dial(pid: number, port: number): Promise<Socket> {
    const identity = identify(pid)
    if (!identity || this.#isClosed) return Promise.reject(hasEnded())
    const { namespace } = identity
    let dialer = this.#byNamespace.get(namespace)
    if (!dialer) {
      const opened = new Dialer(this.#options, identity, () => {
        if (this.#byNamespace.get(namespace) === opened) this.#byNamespace.delete(namespace)
      })
      dialer = opened
      this.#byNamespace.set(namespace, opened)
    }
    return dialer.dial(port)
  }

  close(): void {
    this.#isClosed = true
    for (const dialer of [...this.#byNamespace.values()]) dialer.end()
  }
}

/** A process in one namespace, from its start until nobody has asked it for a while. */
class Dialer {
  readonly #options: TaskDialerOptions
  readonly #ended: () => void
  readonly #child: Promise<ChildProcess>
  readonly #open = new Map<number, PromiseWithResolvers<Socket>>()
  #nextId = 1
  #idle = new AbortController()
  #isOver = false

  /** `ended`: it takes nothing more. */
  constructor(options: TaskDialerOptions, identity: ProcessIdentity, ended: () => void) {
    this.#options = options
    this.#ended = ended
    this.#child = this.#start(identity)
    this.#child.catch(() => this.end())
  }

  async dial(port: number): Promise<Socket> {
    this.#idle.abort()
    if (this.#open.size >= dialsMax) {
      throw new UserError('unavailable', `${dialsMax} connections to the task are being made`)
    }
    const id = this.#nextId++
    const answer = Promise.withResolvers<Socket>()
    answer.promise.catch(() => {}) // It is waited for below, once the process runs.
    this.#open.set(id, answer)
    try {
      const child = await this.#child
      if (this.#isOver) throw hasEnded()
      child.send({ id, port })
      return await answer.promise.catch((error: unknown) => {
        throw typeof error === 'string' ? refusal(port, error) : error
      })
    } finally {
      this.#open.delete(id)
      if (this.#open.size === 0) this.#endWhenIdle()
    }
  }

  end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#idle.abort()
    this.#ended()
    for (const { reject } of this.#open.values()) reject(hasEnded())
    this.#child.then(
      (child) => {
        if (child.connected) child.disconnect()
      },
      () => {},
    )
  }

  #endWhenIdle(): void {
    this.#idle.abort()
    const idle = new AbortController()
    this.#idle = idle
    void this.#options.clock.sleep(idleMs, idle.signal).then(() => {
      if (!idle.signal.aborted) this.end()
    })
  }

  async #start(identity: ProcessIdentity): Promise<ChildProcess> {
    const { clock, log } = this.#options
    const entry = fileURLToPath(new URL('./dialer-worker.ts', import.meta.url))
    const handle = await holdNamespace(identity)
    if (!handle) throw hasEnded()
    const done = new AbortController()
    try {
      const child = spawn(
        'nsenter',
        [
          '--net=/proc/self/fd/4',
          process.execPath,
          '--max-old-space-size=64',
          '--max-semi-space-size=1',
          '--disable-warning=ExperimentalWarning',
          entry,
        ],
        { cwd: '/', env: {}, stdio: ['ignore', 'ignore', 'inherit', 'ipc', handle.fd] },
      )
      const ready = Promise.withResolvers<void>()
      child.once('error', (error) => ready.reject(notStarted(error.message)))
      child.once('exit', (code) => {
        ready.reject(notStarted(`it ended with ${code}`))
        this.end()
      })
      child.on('message', (message, connection) => {
        if (typeof message !== 'object' || message === null || !('id' in message)) return
        ready.resolve()
        const answer = this.#open.get(Number(message.id))
        if (connection instanceof Socket) {
          connection.allowHalfOpen = true
          if (answer) answer.resolve(connection)
          else connection.destroy()
        } else if ('code' in message) answer?.reject(String(message.code))
      })
      void clock.sleep(startMs, done.signal).then(() => {
        if (!done.signal.aborted) ready.reject(notStarted('it does not answer'))
      })
      await ready.promise.catch((error: unknown) => {
        child.kill('SIGKILL')
        throw error
      })
      log.debug('a dialer runs in the network of a container', { pid: identity.pid })
      return child
    } finally {
      done.abort()
      await handle.close()
    }
  }
}

function refusal(port: number, code: string): UserError {
  return code === 'ECONNREFUSED'
    ? new UserError('failedPrecondition', `nothing in the task listens on port ${port}`, {
        next: 'Name the port that its program listens on inside the container.',
      })
    : new UserError('unavailable', `port ${port} of the task can't be reached (${code})`)
}

function hasEnded(): UserError {
  return new UserError('unavailable', 'the container of the task has ended')
}

function notStarted(why: string): UserError {
  return new UserError('unavailable', `no way into the task's network could be made: ${why}`, {
    next: 'Is nsenter (util-linux) installed on that node?',
  })
}
