import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import { type Forwarder, frame, splitFrames } from './forwarder.ts'
import { type Answer, type Directory, indexState, lookUp, pickByShare } from './lookup.ts'
import {
  encodeAddresses,
  encodeCode,
  encodeName,
  encodeUnreadable,
  parseQuery,
  type Query,
  responseCodes,
} from './message.ts'
import { type ResolverState, stateVersion } from './zones.ts'

/** Largest message over tcp, in bytes. Source: RFC 1035, 4.2.2. */
const tcpBytesMax = 65_535
/** Open tcp connections of one gateway, and how long one may be idle, in ms. */
const tcpConnectionsMax = 64
const tcpIdleMs = 10_000
/**
 * Room for questions that came while this process waited for a processor, in bytes; each takes some 400 of these. The
 * kernel gives as much of it as `net.core.rmem_max` says. Its default room held some 260 questions: one burst of a busy container.
 */
const questionsBytesMax = 1 << 20

/** Answers udp and tcp on the gateway of every network. */
export class ResolverServer {
  readonly #forwarder: Forwarder
  readonly #below: (limit: number) => number
  readonly #port: number
  readonly #listeners = new Map<string, { readonly udp: UdpSocket; readonly tcp: Server }>()
  #directory: Directory = indexState({ version: stateVersion, networks: [], clients: {} })

  constructor(options: {
    readonly forwarder: Forwarder
    readonly below: (limit: number) => number
    /** 53, but in tests. */
    readonly port: number
  }) {
    this.#forwarder = options.forwarder
    this.#below = options.below
    this.#port = options.port
  }

  /**
   * Answers from `state` from now on, and listens on its gateways. Resolves with the gateways it could not listen on,
   * and why; they are tried again at the next call.
   */
  async serve(state: ResolverState): Promise<Readonly<Record<string, string>>> {
    this.#directory = indexState(state)
    const gateways = new Set(state.networks.map(({ gateway }) => gateway))
    this.#forwarder.own = gateways
    for (const [gateway, listener] of this.#listeners) {
      if (gateways.has(gateway)) continue
      this.#listeners.delete(gateway)
      listener.udp.close()
      listener.tcp.close()
    }
    const failures: Record<string, string> = {}
    for (const gateway of gateways) {
      if (this.#listeners.has(gateway)) continue
      try {
        this.#listeners.set(gateway, await this.#listen(gateway))
      } catch (error) {
        failures[gateway] = error instanceof Error ? error.message : String(error)
      }
    }
    return failures
  }

  get listening(): readonly string[] {
    return [...this.#listeners.keys()]
  }

  /** The port it listens on there: 53, or what the system gave it in a test. */
  portOf(gateway: string): number | undefined {
    return this.#listeners.get(gateway)?.udp.address().port
  }

  close(): void {
    for (const { udp, tcp } of this.#listeners.values()) {
      udp.close()
      tcp.close()
    }
    this.#listeners.clear()
  }

  async #listen(gateway: string): Promise<{ udp: UdpSocket; tcp: Server }> {
    const udp = createSocket({ type: 'udp4', recvBufferSize: questionsBytesMax })
    const tcp = createServer((socket) => this.#serveConnection(socket, gateway))
    tcp.maxConnections = tcpConnectionsMax
    try {
      await new Promise<void>((resolve, reject) => {
        udp.once('error', reject)
        udp.bind({ address: gateway, port: this.#port, exclusive: true }, resolve)
      })
      await new Promise<void>((resolve, reject) => {
        tcp.once('error', reject)
        tcp.listen({ host: gateway, port: udp.address().port, exclusive: true }, resolve)
      })
    } catch (error) {
      udp.close()
      tcp.close()
      throw error
    }
    // An answer to a container that just went away comes back as an error; the socket stays good.
    udp.on('error', () => {})
    tcp.on('error', () => {})
    udp.on('message', (bytes, from) => {
      const reply = (answer: Buffer) => udp.send(answer, from.port, from.address, () => {})
      this.#answer(bytes, from.address, gateway, 'udp', reply)
    })
    return { udp, tcp }
  }

  #serveConnection(socket: Socket, gateway: string): void {
    const source = socket.remoteAddress ?? ''
    let received = Buffer.alloc(0)
    socket.setTimeout(tcpIdleMs, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      const { frames, rest } = splitFrames(Buffer.concat([received, chunk]))
      received = Buffer.from(rest)
      for (const bytes of frames) {
        this.#answer(bytes, source, gateway, 'tcp', (answer) => {
          if (socket.writable) socket.write(frame(answer))
        })
      }
    })
  }

  #answer(
    bytes: Buffer,
    source: string,
    gateway: string,
    transport: 'udp' | 'tcp',
    reply: (answer: Buffer) => void,
  ): void {
    const query = parseQuery(bytes)
    if (query === undefined) return
    if (typeof query === 'number') {
      reply(encodeUnreadable(bytes, query))
      return
    }
    const bytesMax = transport === 'udp' ? query.udpBytes : tcpBytesMax
    const answer = lookUp(this.#directory, query, source, gateway)
    if (answer.type === 'forward') {
      void this.#forwarder
        .ask(bytes, answer.nameservers, transport)
        .then((forwarded) => reply(forwarded ?? encodeCode(query, responseCodes.failed)))
    } else reply(this.#encode(query, answer, bytesMax))
  }

  #encode(query: Query, answer: Exclude<Answer, { type: 'forward' }>, bytesMax: number): Buffer {
    switch (answer.type) {
      case 'addresses':
        return encodeAddresses(query, this.#order(answer), bytesMax)
      case 'name':
        return encodeName(query, answer.name, bytesMax)
      case 'empty':
        return encodeCode(query, responseCodes.ok)
      case 'unknown':
        return encodeCode(query, responseCodes.unknownName)
      case 'refused':
        return encodeCode(query, responseCodes.refused)
    }
  }

  /**
   * Clients take the first address, or the one nearest to their own: each gets another one there, and just one where
   * the shares differ.
   */
  #order({ addresses, shares }: Extract<Answer, { type: 'addresses' }>): readonly string[] {
    if (shares) {
      const picked = pickByShare(addresses, shares, this.#below)
      return picked === undefined ? [] : [picked]
    }
    if (addresses.length < 2) return addresses
    const start = this.#below(addresses.length)
    return [...addresses.slice(start), ...addresses.slice(0, start)]
  }
}
