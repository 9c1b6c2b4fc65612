import { type Clock, type Log, messageOf, UserError, WakeUp } from '../base/index.ts'
import type { Dispatcher, HeldSession } from '../dispatcher/index.ts'
import type { NodeId } from '../model/index.ts'
import { encodeParts } from './feed-bytes.ts'
import {
  assignmentsAheadMax,
  assignmentsMessage,
  type Call,
  type FromNode,
  parseFromNode,
  refusalOf,
  type SessionSettings,
  type ToNode,
} from './messages.ts'
import type { MessageStream } from './transport.ts'

export interface SessionServerOptions {
  readonly stream: MessageStream
  readonly nodeId: NodeId
  readonly dispatcher: Pick<Dispatcher, 'open' | 'heard' | 'ended' | 'hostStops' | 'turns'>
  readonly clock: Clock
  readonly log: Log
  /** What this node is to know now; asked again whenever `settingsChanged` is called. */
  readonly settings: () => SessionSettings
}

/** Reports that wait to be written; a node that sends more waits for its answers first. */
const reportsWaitingMax = 16

/** A node's session as the leader serves it. */
export interface SessionServer {
  readonly nodeId: NodeId
  /** Resolves when the session is over; never rejects. */
  readonly over: Promise<void>
  /** Aborted when the session is over, for whoever waits only a while. */
  readonly ended: AbortSignal
  settingsChanged(): void
  /** Asks the node for something, see `ToNode`. Rejects when the session is over. */
  ask(message: Extract<ToNode, { readonly type: 'request' }>): Promise<void>
  /** `isStopping`: this manager's daemon ends, to be started again. */
  close(because: UserError, isStopping?: boolean): void
}

/** Begins a session: registers the node, says what it has to know, and carries both ways until one of them ends. */
export async function serveSession(
  options: SessionServerOptions,
  { description, held }: Pick<Extract<Call, { readonly call: 'session' }>, 'description' | 'held'>,
): Promise<SessionServer> {
  const ended = new AbortController()
  const { dispatcher, nodeId } = options
  const remote = { isRemote: true }
  const session = await dispatcher.open(nodeId, description, ended.signal, held, remote)
  const server = new RunningSession(options, session, ended)
  return server
}

class RunningSession implements SessionServer {
  readonly nodeId: NodeId
  readonly over: Promise<void>
  readonly #options: SessionServerOptions
  readonly #session: HeldSession
  readonly #ended: AbortController
  readonly #taken = new WakeUp()
  readonly #settingsWanted = new WakeUp()
  #why: UserError | undefined
  #sentNumber = 0
  #takenNumber = 0
  #reportsOpen = 0
  #hasSaidGoodbye = false
  #isStopping = false

  constructor(options: SessionServerOptions, session: HeldSession, ended: AbortController) {
    this.nodeId = options.nodeId
    this.#options = options
    this.#session = session
    this.#ended = ended
    this.#settingsWanted.ring()
    ended.signal.addEventListener('abort', () => this.#hangUp(), { once: true })
    // The dispatcher ends it when the node is called down or begins another one. What still waits for the node then, a question
    // or room to send to it, waits for nothing.
    const { over } = session
    if (over.aborted) this.close(over.reason)
    else over.addEventListener('abort', () => this.close(over.reason), { once: true })
    this.over = this.#run()
  }

  get ended(): AbortSignal {
    return this.#ended.signal
  }

  settingsChanged(): void {
    this.#settingsWanted.ring()
  }

  async ask(message: Extract<ToNode, { readonly type: 'request' }>): Promise<void> {
    if (this.#ended.signal.aborted) {
      throw new UserError('unavailable', `node ${this.nodeId} has no session with this manager`)
    }
    await this.#options.stream.send(message)
  }

  close(because: UserError, isStopping = false): void {
    this.#why ??= because
    this.#isStopping = isStopping
    this.#ended.abort()
  }

  async #run(): Promise<void> {
    // Settings go first: they say that this manager leads.
    const loops = [this.#sendSettings(), this.#sendAssignments(), this.#receive()].map((loop) =>
      loop.catch((error: unknown) => {
        this.#why ??=
          error instanceof UserError ? error : new UserError('internal', messageOf(error))
        this.#ended.abort()
      }),
    )
    await Promise.all(loops)
  }

  /** Not only once the loops have ended: one may be waiting for room to send to a node that is gone. */
  #hangUp(): void {
    const { log, stream } = this.#options
    const why = this.#why ?? new UserError('unavailable', 'the session is over')
    log.info('a node has no session any more', { nodeId: this.nodeId, why: why.message })
    this.#session.close()
    this.#send({ type: 'over', why: refusalOf(why), isStopping: this.#isStopping })
    stream.close()
  }

  async #sendSettings(): Promise<void> {
    const { clock, stream, settings } = this.#options
    const { signal } = this.#ended
    let sent = ''
    while (!signal.aborted) {
      await this.#settingsWanted.wait(clock, signal)
      if (signal.aborted) return
      const wanted = settings()
      const text = JSON.stringify(wanted)
      if (text === sent) continue
      sent = text
      await stream.send({ type: 'settings', settings: wanted })
    }
  }

  async #sendAssignments(): Promise<void> {
    const { clock, stream } = this.#options
    const { signal } = this.#ended
    while (!signal.aborted) {
      // What changes while the node is busy is put together into its next message.
      if (this.#sentNumber - this.#takenNumber >= assignmentsAheadMax) {
        await this.#taken.wait(clock, signal)
        continue
      }
      const change = await this.#session.next(signal)
      await encodeParts(change, this.#options.dispatcher.turns)
      this.#sentNumber += 1
      await stream.send(assignmentsMessage(this.#sentNumber, change))
    }
  }

  async #receive(): Promise<void> {
    const { clock, dispatcher, stream } = this.#options
    const { signal } = this.#ended
    const answered = new WakeUp()
    while (!signal.aborted) {
      if (this.#reportsOpen >= reportsWaitingMax) {
        await answered.wait(clock, signal)
        continue
      }
      const message = await stream.receive(signal)
      if (message === undefined) {
        // Only a host that is there can say so.
        if (!signal.aborted && !this.#hasSaidGoodbye) dispatcher.ended(this.nodeId, 'ended')
        throw new UserError('unavailable', 'the node ended the session')
      }
      if (!this.#hasSaidGoodbye) dispatcher.heard(this.nodeId)
      this.#handle(parseFromNode(message), () => answered.ring())
    }
  }

  #handle(message: FromNode, answered: () => void): void {
    const { dispatcher } = this.#options
    switch (message.type) {
      case 'heartbeat':
        this.#send({ type: 'alive' })
        break
      case 'taken':
        this.#takenNumber = Math.min(message.number, this.#sentNumber)
        this.#taken.ring()
        break
      case 'routed':
        this.#session.acknowledge(message.sequence)
        break
      case 'report':
        void this.#answer(message.id, this.#session.report(message.reports), answered)
        break
      case 'describe':
        void this.#answer(message.id, this.#session.describe(message.description), answered)
        break
      case 'closing':
        this.#hasSaidGoodbye = true
        if (message.because === 'restart') dispatcher.ended(this.nodeId, 'stopping')
        else void dispatcher.hostStops(this.nodeId)
        break
      default:
        message satisfies never
    }
  }

  async #answer(id: number, work: Promise<void>, answered: () => void): Promise<void> {
    this.#reportsOpen += 1
    try {
      await work
      this.#send({ type: 'done', id })
    } catch (error) {
      this.#send({ type: 'done', id, error: refusalOf(error) })
    } finally {
      this.#reportsOpen -= 1
      answered()
    }
  }

  /** A stream that breaks is noticed by who reads it. */
  #send(message: ToNode): void {
    this.#options.stream.send(message).catch(() => {})
  }
}
