import {
  type Clock,
  type Log,
  messageOf,
  type Random,
  UserError,
  WakeUp,
  within,
} from '../base/index.ts'
import type { NodeDescription } from '../model/index.ts'
import {
  type AssignmentChange,
  type HeldFeeds,
  type ManagerLink,
  type Session,
  sessionOver,
  type TaskReport,
} from '../wire/index.ts'
import { callOnce } from './calls.ts'
import {
  type Call,
  type Closing,
  callMessage,
  errorOf,
  type FromNode,
  type ManagerAddress,
  type NodeRequest,
  parseToNode,
  reportsPerMessageMax,
  type SessionSettings,
  type ToNode,
} from './messages.ts'
import type { MessageStream, Transport } from './transport.ts'

export interface RemoteLinkOptions {
  readonly transport: Transport
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly skepVersion: string
  /** Addresses of managers as last known; the one that led last comes first. */
  readonly managers: () => readonly string[]
  /** What a manager says that this node has to know from now on: at each session's begin, and at each change. */
  readonly learned: (settings: SessionSettings) => void
  /** A manager asks for something: answer on a stream to `address`. */
  readonly asked: (ask: {
    readonly id: string
    readonly address: string
    readonly request: NodeRequest
  }) => void
  /** Why this node ends its sessions from now on; undefined: it only looks for another manager, or leaves. */
  readonly closing?: () => Closing | undefined
  /** Whether an address is still this host's. A connection from one that has gone is dead, and nobody says so. */
  readonly isOwnAddress?: (address: string) => boolean
  /** What this node hears of the manager that it is in session with. */
  readonly heard?: (word: ManagerWord) => void
}

/** A sign of life of a manager, or how its session ended from its side. */
export interface ManagerWord {
  /** `host:port` of its cluster port. */
  readonly address: string
  /** `quiet`: for half of the time after which it counts as silent. */
  readonly type: 'speaks' | 'quiet' | 'silent' | 'ended' | 'stopping'
}

/** Before the next manager is tried beside one that has not answered yet, in ms. */
const nextManagerMs = 400
/** Managers sent to by others within one search. */
const redirectsMax = 5
/** For a manager to say whether it leads. */
const welcomeMs = 4_000
/** More managers than a cluster has: each node begins with another one. */
const managersMax = 64
/** A timer that comes later than this was held up by this process itself, in ms: others may have spoken meanwhile. */
const heldUpMs = 250
/** A report or description that nobody acknowledges: the session is given up after it, in ms. */
const doneMs = 30_000

/** Finds the leader among the managers, over a network. Only one session at a time. */
export function openRemoteLink(options: RemoteLinkOptions): ManagerLink {
  /** Leads by now, as others said while the one before was quiet. */
  let hint: string | undefined
  return {
    async open(_nodeId, description, signal, held = nothingHeld) {
      const first = hint === undefined ? [] : [hint]
      hint = undefined
      const call: Call = { call: 'session', description, held }
      const found = await findLeader(options, call, signal, first)
      options.learned(found.settings)
      return new RemoteSession(options, found, signal, (address) => {
        hint = address
      })
    },
  }
}

const nothingHeld: HeldFeeds = new Map()

interface Welcomed {
  readonly address: string
  readonly stream: MessageStream
  readonly settings: SessionSettings
}

/** Asks one manager after the other, a little apart, and takes the first that leads. `first` are asked before the others. */
async function findLeader(
  options: RemoteLinkOptions,
  call: Call,
  signal: AbortSignal,
  first: readonly string[],
): Promise<Welcomed> {
  const { clock } = options
  const found = Promise.withResolvers<Welcomed>()
  const search = new AbortController()
  const ended = AbortSignal.any([signal, search.signal])
  const addresses = [...new Set([...first, ...options.managers()])]
  const asked = new Set<string>()
  const failures: UserError[] = []
  let open = 0
  let redirects = 0
  const hurry = new WakeUp()
  const ask = (address: string): void => {
    asked.add(address)
    open += 1
    askManager(options, address, call, ended)
      .then((answer) => {
        if ('settings' in answer) {
          if (ended.aborted) answer.stream.close()
          else found.resolve(answer)
          return
        }
        // What a manager says of the leader goes before what was known.
        if (redirects++ >= redirectsMax) return
        for (const { address: other } of answer.managers.toReversed()) {
          if (!asked.has(other)) addresses.unshift(other)
        }
      })
      .catch((error: unknown) => {
        failures.push(
          error instanceof UserError ? error : new UserError('unavailable', messageOf(error)),
        )
      })
      .finally(() => {
        open -= 1
        hurry.ring()
      })
  }
  const searching = (async () => {
    while (!ended.aborted) {
      const next = addresses.find((address) => !asked.has(address))
      if (next !== undefined) ask(next)
      else if (open === 0) break
      await hurry.wait(clock, ended, clock.nowMs() + nextManagerMs)
    }
    found.reject(noLeader(failures, [...asked]))
  })()
  try {
    return await found.promise
  } finally {
    search.abort()
    await searching
  }
}

/** The failure worth telling: a refusal rather than a silence. */
function noLeader(failures: readonly UserError[], asked: readonly string[]): UserError {
  const final = failures.find(({ code }) => code !== 'unavailable')
  if (final) return final
  const [first] = failures
  return new UserError(
    'unavailable',
    asked.length === 0
      ? 'no manager is known to this node'
      : `no manager leads the cluster: asked ${asked.join(', ')}${first ? ` (${first.message})` : ''}`,
    {
      next: 'Check that more than half of the managers run and can be reached from here. Where all have other addresses by now, start this daemon with --manager and one of those.',
    },
  )
}

async function askManager(
  { transport, clock, skepVersion }: RemoteLinkOptions,
  address: string,
  call: Call,
  signal: AbortSignal,
): Promise<Welcomed | { readonly managers: readonly Pick<ManagerAddress, 'address'>[] }> {
  return within(clock, welcomeMs, async (late) => {
    const ended = AbortSignal.any([signal, late])
    let stream: MessageStream | undefined
    try {
      stream = await transport.connect(address, { type: 'cluster', orFormer: true }, ended)
      await stream.send(callMessage(call, skepVersion))
      const message = await stream.receive(ended)
      if (message === undefined)
        throw new UserError('unavailable', `${address} closed the connection`)
      const answer = parseToNode(message)
      if (isWorker(stream) && answer.type !== 'redirect') throw noManager(address)
      if (answer.type === 'settings') return { address, stream, settings: answer.settings }
      stream.close()
      if (answer.type === 'redirect') return { managers: answer.managers }
      if (answer.type === 'over') throw errorOf(answer.why)
      throw new UserError('internal', `${address} began a session with "${answer.type}"`)
    } catch (error) {
      stream?.close()
      // A node that is no manager has no say in what this one is, such as that it was removed.
      if (stream && isWorker(stream)) throw noManager(address)
      throw late.aborted
        ? new UserError('unavailable', `${address} did not answer in ${welcomeMs / 1000} s`)
        : error
    }
  })
}

function isWorker({ peer }: MessageStream): boolean {
  return peer.type === 'node' && peer.role === 'worker'
}

function noManager(address: string): UserError {
  return new UserError('unavailable', `the node on ${address} is no manager any more`)
}

class RemoteSession implements Session {
  readonly #options: RemoteLinkOptions
  readonly #address: string
  readonly #stream: MessageStream
  readonly #ended = new AbortController()
  readonly #arrived = new WakeUp()
  readonly #changes: { readonly number: number; readonly change: AssignmentChange }[] = []
  readonly #open = new Map<number, PromiseWithResolvers<void>>()
  #settings: SessionSettings
  #nextId = 1
  #lastNumber = 0
  #heardAtMs: number
  #isLookingOut = false
  readonly #foundAnother: (address: string) => void
  #why: UserError | undefined

  constructor(
    options: RemoteLinkOptions,
    { address, stream, settings }: Welcomed,
    signal: AbortSignal,
    foundAnother: (address: string) => void,
  ) {
    this.#options = options
    this.#address = address
    this.#stream = stream
    this.#settings = settings
    this.#heardAtMs = options.clock.nowMs()
    this.#foundAnother = foundAnother
    signal.addEventListener('abort', () => this.close(), {
      once: true,
      signal: this.#ended.signal,
    })
    if (signal.aborted) this.close()
    void this.#read()
    void this.#beat()
  }

  async next(signal: AbortSignal): Promise<AssignmentChange> {
    const ended = AbortSignal.any([signal, this.#ended.signal])
    while (this.#changes.length === 0) {
      if (ended.aborted) throw this.#why ?? sessionOver()
      await this.#arrived.wait(this.#options.clock, ended)
    }
    const taken = this.#changes.shift()
    if (!taken) throw sessionOver()
    this.#tell({ type: 'taken', number: taken.number })
    return taken.change
  }

  acknowledge(sequence: number): void {
    this.#tell({ type: 'routed', sequence })
  }

  async report(reports: readonly TaskReport[]): Promise<void> {
    for (let at = 0; at < reports.length; at += reportsPerMessageMax) {
      const part = reports.slice(at, at + reportsPerMessageMax)
      await this.#untilDone((id) => ({ type: 'report', id, reports: part }))
    }
  }

  async describe(description: NodeDescription): Promise<void> {
    await this.#untilDone((id) => ({ type: 'describe', id, description }))
  }

  close(): void {
    const because = this.#ended.signal.aborted ? undefined : this.#options.closing?.()
    if (because !== undefined) this.#tell({ type: 'closing', because })
    this.#end(sessionOver())
  }

  #hears(type: ManagerWord['type']): void {
    this.#options.heard?.({ address: this.#address, type })
  }

  async #untilDone(message: (id: number) => FromNode): Promise<void> {
    if (this.#ended.signal.aborted) throw this.#why ?? sessionOver()
    const id = this.#nextId++
    const done = Promise.withResolvers<void>()
    done.promise.catch(() => {}) // The send below may fail first, with the same reason.
    this.#open.set(id, done)
    const timer = new AbortController()
    void this.#options.clock.sleep(doneMs, timer.signal).then(() => {
      if (!timer.signal.aborted) this.#end(silent())
    })
    try {
      await this.#stream.send(message(id))
      await done.promise
    } finally {
      timer.abort()
      this.#open.delete(id)
    }
  }

  /** What needs no answer. A stream that breaks is noticed by who reads it. */
  #tell(message: FromNode): void {
    this.#stream.send(message).catch((error: unknown) => this.#fail(error))
  }

  async #read(): Promise<void> {
    const { signal } = this.#ended
    try {
      while (!signal.aborted) {
        const message = await this.#stream.receive(signal)
        if (message === undefined) {
          this.#hears('ended')
          throw sessionOver()
        }
        this.#heardAtMs = this.#options.clock.nowMs()
        this.#hears('speaks')
        this.#handle(parseToNode(message))
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  #handle(message: ToNode): void {
    switch (message.type) {
      case 'settings':
        this.#settings = message.settings
        this.#options.learned(message.settings)
        break
      case 'assignments':
        // Streams keep order, so a gap is a fault of the manager; a new session begins with everything.
        if (message.number !== this.#lastNumber + 1) {
          throw new UserError('internal', 'a message of assignments is missing')
        }
        this.#lastNumber = message.number
        this.#changes.push(message)
        this.#arrived.ring()
        break
      case 'done': {
        const open = this.#open.get(message.id)
        if (message.error) open?.reject(errorOf(message.error))
        else open?.resolve()
        break
      }
      case 'request':
        this.#options.asked(message)
        break
      case 'over':
        if (message.isStopping) this.#hears('stopping')
        this.#end(errorOf(message.why))
        break
      case 'redirect':
        this.#end(new UserError('unavailable', 'this manager no longer leads'))
        break
      case 'alive':
        break
      default:
        message satisfies never
    }
  }

  /** Speaks regularly, and listens whether the manager still does. */
  async #beat(): Promise<void> {
    const { clock, random } = this.#options
    const { signal } = this.#ended
    let awakeAtMs = clock.nowMs()
    while (!signal.aborted) {
      const { heartbeatMs, silenceMs } = this.#settings
      // Not all nodes at once.
      const dueAtMs = clock.nowMs() + heartbeatMs - random.below(Math.ceil(heartbeatMs / 5))
      await clock.sleep(dueAtMs - clock.nowMs(), signal)
      if (signal.aborted) return
      const nowMs = clock.nowMs()
      // This process was stopped itself: what the manager said meanwhile has yet to be read.
      const wasAway = nowMs - awakeAtMs > heartbeatMs + silenceMs / 2
      awakeAtMs = nowMs
      if (wasAway) this.#heardAtMs = nowMs
      const { localAddress } = this.#stream
      if (this.#options.isOwnAddress?.(localAddress) === false) {
        this.#end(new UserError('unavailable', `${localAddress} is no longer this host's address`))
        return
      }
      if (nowMs - this.#heardAtMs > silenceMs) {
        this.#hears('silent')
        this.#end(silent())
        return
      }
      if (this.#isQuiet(nowMs) && nowMs - dueAtMs < heldUpMs) {
        this.#hears('quiet')
        void this.#lookForAnother()
      }
      this.#tell({ type: 'heartbeat' })
    }
  }

  #isQuiet(nowMs: number): boolean {
    return nowMs - this.#heardAtMs > this.#settings.silenceMs / 2
  }

  /**
   * A quiet leader may be lost: the others are asked, one at a time, who leads. They keep the answer back while nobody does.
   * So its successor is found before it counts as silent.
   */
  async #lookForAnother(): Promise<void> {
    if (this.#isLookingOut) return
    this.#isLookingOut = true
    const { clock, random, managers } = this.#options
    const { signal } = this.#ended
    for (let turn = random.below(managersMax); this.#isQuiet(clock.nowMs()); turn++) {
      const others = managers().filter((address) => address !== this.#address)
      const asked = others[turn % Math.max(1, others.length)]
      const next = asked === undefined ? undefined : await this.#askWhoLeads(asked)
      if (signal.aborted) return
      if (next !== undefined && next !== this.#address) {
        this.#foundAnother(next)
        this.#end(new UserError('unavailable', 'another manager leads the cluster now'))
        return
      }
      await clock.sleep(this.#settings.heartbeatMs, signal)
      if (signal.aborted) return
    }
    this.#isLookingOut = false
  }

  async #askWhoLeads(manager: string): Promise<string | undefined> {
    const { signal } = this.#ended
    const trust = { type: 'cluster' } as const
    try {
      const call: Call = { call: 'leader' }
      const { fields } = await callOnce(this.#options, manager, trust, call, 'leader', signal)
      return fields.has('address') ? fields.text('address', 255) : undefined
    } catch {
      return undefined // Another one is asked next.
    }
  }

  #fail(error: unknown): void {
    this.#end(
      error instanceof UserError
        ? error
        : new UserError('internal', `the session with the manager failed: ${messageOf(error)}`, {
            cause: error,
          }),
    )
  }

  #end(why: UserError): void {
    if (this.#ended.signal.aborted) return
    this.#why = why
    this.#ended.abort()
    this.#stream.close()
    for (const open of this.#open.values()) open.reject(why)
  }
}

function silent(): UserError {
  return new UserError('unavailable', 'the manager has fallen silent')
}
