import { UserError } from '../base/index.ts'
import type { Listener, Message, MessageStream, Peer, Transport } from '../cluster/index.ts'
import { asSent } from './as-sent.ts'
import { into, type Line, type SimulatedNetwork } from './network.ts'
import type { SimulatedProcess } from './process.ts'
import type { SimulatedTime } from './time.ts'

/** Messages that wait in one direction before the sender has to wait. */
const windowMax = 64

/** Where a machine's cluster port is. */
export interface Port {
  readonly hostName: string
  readonly process: SimulatedProcess
  readonly accept: (stream: MessageStream) => void
}

export interface SimulatedTransportOptions {
  readonly time: SimulatedTime
  readonly network: SimulatedNetwork
  readonly process: SimulatedProcess
  readonly hostName: string
  /** Who this end proves to be. */
  readonly self: () => Peer
  /** Every open port, by `host:port`. */
  readonly ports: Map<string, Port>
  readonly isUp: (hostName: string) => boolean
}

/** The cluster port's transport over a simulated network. The protocol above it is the real one. */
export class SimulatedTransport implements Transport {
  readonly #options: SimulatedTransportOptions

  constructor(options: SimulatedTransportOptions) {
    this.#options = options
  }

  async listen(address: string, accept: (stream: MessageStream) => void): Promise<Listener> {
    const { ports, hostName, process } = this.#options
    const port: Port = { hostName, process, accept }
    ports.set(address, port)
    return {
      address,
      async close() {
        if (ports.get(address) === port) ports.delete(address)
      },
    }
  }

  connect(address: string, _trust: unknown, signal: AbortSignal): Promise<MessageStream> {
    const { network, process, hostName, ports, isUp, self } = this.#options
    const [target = ''] = address.split(':')
    return new Promise((resolve, reject) => {
      const refuse = (why: string, cause?: Error): void =>
        reject(new UserError('unavailable', `${address} ${why}`, { cause }))
      if (signal.aborted) {
        refuse('was not waited for')
        return
      }
      signal.addEventListener('abort', () => refuse('does not answer'), { once: true })
      const up = network.openLine(hostName, target)
      const down = network.openLine(target, hostName)
      up.push(() => {
        const port = ports.get(address)
        if (!isUp(target)) return
        if (!port?.process.isAlive) {
          down.push(into(process, () => refuse('refuses connections', connectionRefused)))
          return
        }
        const theirs = new End(down, port.process, hostName, target, self())
        const ours = new End(up, process, target, hostName, managerPeer)
        theirs.other = ours
        ours.other = theirs
        watchEnds(this.#options, ours, theirs, target)
        port.process.post(() => port.accept(theirs))
        down.push(into(process, () => resolve(ours)))
      })
    })
  }
}

/** As Node.js tells that nobody listens on a machine that is up. */
const connectionRefused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })

const managerPeer: Peer = { type: 'anonymous' }

/** A process that ends takes its connections along: its kernel tells the other end, as long as it has power. */
function watchEnds(options: SimulatedTransportOptions, ours: End, theirs: End, target: string) {
  const { network, isUp, hostName, process } = options
  theirs.process.onKilled(() => {
    theirs.isOver = true
    if (isUp(target))
      network.send(
        target,
        hostName,
        into(process, () => ours.reset()),
      )
  })
  process.onKilled(() => {
    ours.isOver = true
    if (isUp(hostName))
      network.send(
        hostName,
        target,
        into(theirs.process, () => theirs.reset()),
      )
  })
}

/** One end of a connection. */
class End implements MessageStream {
  readonly peer: Peer
  readonly remoteAddress: string
  readonly localAddress: string
  readonly process: SimulatedProcess
  other: End | undefined
  isOver = false
  readonly #out: Line
  readonly #arrived: unknown[] = []
  readonly #waiting: { resolve(message: unknown): void; reject(error: Error): void }[] = []
  #room: (() => void)[] = []
  #isEnded = false
  #isBroken = false

  constructor(
    out: Line,
    process: SimulatedProcess,
    remoteAddress: string,
    localAddress: string,
    peer: Peer,
  ) {
    this.#out = out
    this.process = process
    this.remoteAddress = remoteAddress
    this.localAddress = localAddress
    this.peer = peer
    out.onAcknowledged = () => {
      if (out.waitingCount >= windowMax || this.#room.length === 0) return false
      const room = this.#room
      this.#room = []
      for (const go of room) process.post(go)
      return true
    }
  }

  async send(message: Message): Promise<void> {
    if (this.#isBroken || this.isOver) throw broken()
    const { bytes } = message
    const arriving = asSent(bytes === undefined ? message : { ...message, bytes: undefined })
    const copy = bytes && Buffer.concat(bytes instanceof Uint8Array ? [bytes] : bytes)
    const { other } = this
    if (other) {
      this.#out.push(
        into(other.process, () =>
          other.#take(
            copy && typeof arriving === 'object' ? { ...arriving, bytes: copy } : arriving,
          ),
        ),
      )
    }
    if (this.#out.waitingCount < windowMax) return
    await new Promise<void>((resolve) => this.#room.push(resolve))
    if (this.#isBroken) throw broken()
  }

  receive(signal?: AbortSignal): Promise<unknown> {
    if (this.#arrived.length > 0) return Promise.resolve(this.#arrived.shift())
    if (this.#isBroken) return Promise.reject(broken())
    if (this.#isEnded || this.isOver) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => {
      const stopped = (): void => {
        const at = this.#waiting.indexOf(waiter)
        if (at >= 0) this.#waiting.splice(at, 1)
        reject(new UserError('unavailable', 'nobody waits for the message any more'))
      }
      const waiter = {
        resolve(message: unknown) {
          signal?.removeEventListener('abort', stopped)
          resolve(message)
        },
        reject(error: Error) {
          signal?.removeEventListener('abort', stopped)
          reject(error)
        },
      }
      if (signal?.aborted) {
        stopped()
        return
      }
      signal?.addEventListener('abort', stopped, { once: true })
      this.#waiting.push(waiter)
    })
  }

  close(): void {
    if (this.isOver) return
    this.isOver = true
    const { other } = this
    if (other) this.#out.push(into(other.process, () => other.#end()))
    for (const waiter of this.#waiting.splice(0)) waiter.resolve(undefined)
  }

  /** The other end's machine says that nobody is there. */
  reset(): void {
    this.#isBroken = true
    this.#out.close()
    for (const go of this.#room.splice(0)) go()
    for (const waiter of this.#waiting.splice(0)) waiter.reject(broken())
  }

  #take(message: unknown): void {
    if (this.isOver) return
    const waiter = this.#waiting.shift()
    if (waiter) waiter.resolve(message)
    else this.#arrived.push(message)
  }

  #end(): void {
    this.#isEnded = true
    for (const waiter of this.#waiting.splice(0)) waiter.resolve(undefined)
  }
}

function broken(): UserError {
  return new UserError('unavailable', 'the connection broke')
}
