import { UserError } from '../base/index.ts'
import type { NodeDescription, NodeId } from '../model/index.ts'
import type { AssignmentChange, ManagerLink, Session, TaskReport } from '../wire/index.ts'
import { into, type Line, type SimulatedNetwork } from './network.ts'
import type { SimulatedProcess } from './process.ts'
import type { SimulatedTime } from './time.ts'

/** Where agents find the leader now. */
export interface LeaderAddress {
  readonly hostName: string
  readonly process: SimulatedProcess
  readonly link: ManagerLink
}

export interface SimulatedLinkOptions {
  readonly time: SimulatedTime
  readonly network: SimulatedNetwork
  readonly hostName: string
  readonly process: SimulatedProcess
  readonly leader: () => LeaderAddress | undefined
  /** Called with each message that reaches the node. */
  readonly received?: (nodeId: NodeId, change: AssignmentChange) => void
}

/** How often each end of a connection looks whether the other still answers, and how long it bears silence, in ms. */
const lookMs = 2_000
const silenceMs = 8_000
/** How long a connection attempt may take, in ms. */
const connectMs = 5_000

const over = () => new UserError('unavailable', 'the connection to the manager broke')

/** The agent's way to the leader across the simulated network: one connection at a time, which breaks by silence. */
export class SimulatedLink implements ManagerLink {
  readonly #options: SimulatedLinkOptions

  constructor(options: SimulatedLinkOptions) {
    this.#options = options
  }

  async open(nodeId: NodeId, description: NodeDescription, signal: AbortSignal): Promise<Session> {
    const { process, leader } = this.#options
    const address = leader()
    if (!address) throw new UserError('unavailable', 'nobody leads')
    const connection = new Connection(this.#options, address)
    signal.addEventListener('abort', () => connection.break(), { once: true })
    const timeout = new AbortController()
    void process.clock.sleep(connectMs, timeout.signal).then(() => {
      if (!timeout.signal.aborted) connection.break()
    })
    const ended = new AbortController()
    connection.onBreakAtLeader = () => ended.abort()
    try {
      const session = await connection.call(() =>
        address.link.open(nodeId, description, ended.signal),
      )
      return new RemoteSession(connection, session, (change) =>
        this.#options.received?.(nodeId, change),
      )
    } catch (error) {
      connection.break()
      throw error
    } finally {
      timeout.abort()
    }
  }
}

class Connection {
  readonly #options: SimulatedLinkOptions
  readonly #address: LeaderAddress
  readonly #up: Line
  readonly #down: Line
  readonly #pending = new Set<(error: Error) => void>()
  #isBrokenHere = false
  #isBrokenThere = false
  #joinedAtMs: number
  onBreakAtLeader: () => void = () => {}

  constructor(options: SimulatedLinkOptions, address: LeaderAddress) {
    const { network, hostName, time } = options
    this.#options = options
    this.#address = address
    this.#up = network.openLine(hostName, address.hostName)
    this.#down = network.openLine(address.hostName, hostName)
    this.#joinedAtMs = time.nowMs
    this.#look()
  }

  /** Runs `work` at the leader, and resolves here with what came of it. */
  call<T>(work: () => Promise<T>): Promise<T> {
    const { process } = this.#options
    return new Promise<T>((resolve, reject) => {
      if (this.#isBrokenHere) {
        reject(over())
        return
      }
      this.#pending.add(reject)
      const answer = (settle: () => void) =>
        this.#down.push(
          into(process, () => {
            if (this.#isBrokenHere) return
            this.#pending.delete(reject)
            settle()
          }),
        )
      this.#up.push(
        into(this.#address.process, () => {
          if (this.#isBrokenThere) return
          work().then(
            (value) => answer(() => resolve(value)),
            (error: unknown) => answer(() => reject(error)),
          )
        }),
      )
    })
  }

  tell(work: () => void): void {
    this.#up.push(into(this.#address.process, work))
  }

  /** From the agent's end; the leader notices by silence, or at once when the news gets through. */
  break(): void {
    if (this.#isBrokenHere) return
    this.#isBrokenHere = true
    for (const reject of this.#pending) reject(over())
    this.#pending.clear()
    const { network, hostName, process } = this.#options
    if (process.isAlive && network.areJoined(hostName, this.#address.hostName))
      this.#up.push(into(this.#address.process, () => this.#breakAtLeader()))
  }

  #breakAtLeader(): void {
    if (this.#isBrokenThere) return
    this.#isBrokenThere = true
    this.onBreakAtLeader()
    this.#up.close()
    this.#down.close()
  }

  /** Each end's keep-alive, as far as it can tell from its side. */
  #look(): void {
    const { time, network, hostName, process } = this.#options
    const there = this.#address
    time.after(lookMs, () => {
      if (this.#isBrokenHere && this.#isBrokenThere) return
      const answers = network.areJoined(hostName, there.hostName)
      if (answers && process.isRunning && there.process.isRunning) this.#joinedAtMs = time.nowMs
      const isSilent = time.nowMs - this.#joinedAtMs >= silenceMs
      // A dead process at the other end of a working line is told at once.
      if (isSilent || (answers && !there.process.isAlive)) process.post(() => this.break())
      if (isSilent || !process.isAlive) there.process.post(() => this.#breakAtLeader())
      if (!process.isAlive) this.#isBrokenHere = true
      if (!there.process.isAlive) this.#isBrokenThere = true
      this.#look()
    })
  }
}

class RemoteSession implements Session {
  readonly #connection: Connection
  readonly #session: Session
  readonly #received: (change: AssignmentChange) => void

  constructor(
    connection: Connection,
    session: Session,
    received: (change: AssignmentChange) => void,
  ) {
    this.#connection = connection
    this.#session = session
    this.#received = received
  }

  async next(signal: AbortSignal): Promise<AssignmentChange> {
    const change = await this.#connection.call(() => this.#session.next(signal))
    this.#received(change)
    return change
  }

  acknowledge(revision: number): void {
    this.#connection.tell(() => this.#session.acknowledge(revision))
  }

  report(reports: readonly TaskReport[]): Promise<void> {
    return this.#connection.call(() => this.#session.report(reports))
  }

  describe(description: NodeDescription): Promise<void> {
    return this.#connection.call(() => this.#session.describe(description))
  }

  close(): void {
    this.#connection.break()
  }
}
