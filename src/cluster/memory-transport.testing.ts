import { UserError, WakeUp } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import type { Listener, Message, MessageStream, Peer, Transport } from './transport.ts'

const clock = openRealClock()

/** A network in memory. Messages go through JSON, as they would over a wire. */
export class MemoryNetwork {
  readonly #listeners = new Map<string, (stream: MessageStream) => void>()
  readonly #silent = new Set<string>()

  /** Connections that were opened until now. */
  connectionCount = 0

  /** Whoever speaks to this address gets no answer from now on, and no error either. */
  silence(address: string): void {
    this.#silent.add(address)
  }

  transport(peer: Peer): Transport {
    return {
      connect: async (address, _trust, signal) => {
        this.connectionCount += 1
        const accept = this.#listeners.get(address)
        if (!accept) throw new UserError('unavailable', `nobody listens on ${address}`)
        const isCut = () => this.#silent.has(address)
        const server: Peer = { type: 'anonymous' }
        const [near, far] = [new MemoryStream(server, isCut), new MemoryStream(peer, isCut)]
        near.other = far
        far.other = near
        if (isCut()) await clock.sleep(3_600_000, signal)
        else accept(far)
        return near
      },
      listen: async (address, accept): Promise<Listener> => {
        this.#listeners.set(address, accept)
        return {
          address,
          close: async () => {
            this.#listeners.delete(address)
          },
        }
      },
    }
  }
}

class MemoryStream implements MessageStream {
  readonly peer: Peer
  readonly remoteAddress = '10.0.0.9'
  readonly localAddress = '10.0.0.8'
  other: MemoryStream | undefined
  readonly #isCut: () => boolean
  readonly #inbox: unknown[] = []
  readonly #arrived = new WakeUp()
  #isClosed = false

  constructor(peer: Peer, isCut: () => boolean) {
    this.peer = peer
    this.#isCut = isCut
  }

  async send(message: Message): Promise<void> {
    if (this.#isClosed) throw new UserError('unavailable', 'the connection broke: it is closed')
    if (!this.#isCut()) this.other?.deliver(JSON.parse(JSON.stringify(message)))
  }

  deliver(message: unknown): void {
    this.#inbox.push(message)
    this.#arrived.ring()
  }

  async receive(signal: AbortSignal = new AbortController().signal): Promise<unknown> {
    while (this.#inbox.length === 0) {
      if (signal.aborted) throw new UserError('unavailable', 'the connection broke: given up')
      await this.#arrived.wait(clock, signal)
    }
    return this.#inbox.shift()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (!this.#isCut()) this.other?.deliver(undefined)
  }
}
