import type { AddressInfo } from 'node:net'
import {
  checkServerIdentity,
  createServer,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
  connect as tlsConnect,
} from 'node:tls'
import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import type { ClusterId } from '../model/index.ts'
import { parseNodeCertificate, publicKeyHashOf, serverNames } from '../security/index.ts'
import { encodeFrame, FrameReader } from './frames.ts'
import type { Listener, Message, MessageStream, Peer, Transport, Trust } from './transport.ts'

/** What this node proves with who it is, and whom it trusts. */
export interface TransportCredentials {
  readonly clusterId: ClusterId
  readonly certificatePem: string
  readonly keyPem: string
  /** Cross-signed roots that go along with the own certificate. */
  readonly chainPem: readonly string[]
  readonly rootsPem: readonly string[]
}

export interface TlsTransport extends Transport {
  /** The node's credentials are others now: new connections use them. */
  credentialsChanged(): void
}

export interface TlsTransportOptions {
  /** Undefined while this node is in no cluster: it can then only ask for a root, and join. */
  readonly credentials: () => TransportCredentials | undefined
  readonly clock: Clock
  readonly log: Log
}

/** Names the protocol in the TLS handshake, so that something else on the port is told apart. */
const protocolName = 'skep/1'
/** Time for the TLS handshake on either side, in ms. */
const handshakeMs = 5_000
/** Connections that have proved nothing, at once: enough for hosts that join, too few to fill the memory. */
const anonymousMax = 256
/** Bytes of one message: a manager sends whole assignments, a node batches, a stranger a request. */
const sizeMaxByPeer = { manager: 256_000_000, worker: 16_000_000, stranger: 65_536 } as const
/** Messages that wait to be received; at this many no more are read from the connection. */
const inboxMax = 64
/** Time for what is queued to go out after `close`, in ms. */
const lingerMs = 10_000
const keepAliveMs = 10_000

/** The cluster port: TLS 1.3 with certificates of the cluster's own CA on both sides. */
export function openTlsTransport(options: TlsTransportOptions): TlsTransport {
  const servers = new Set<Server>()
  let anonymous = 0
  return {
    async connect(address, trust, signal) {
      const credentials = options.credentials()
      const socket = await openSocket(address, trust, credentials, signal, options.clock)
      return new TlsStream(
        socket,
        // Checked in the handshake, but for `nobody`.
        trust.type === 'nobody' ? { type: 'anonymous' } : managerPeer(socket),
        trust.type === 'nobody' ? sizeMaxByPeer.stranger : sizeMaxByPeer.manager,
      )
    },

    async listen(address, accept) {
      const credentials = options.credentials()
      if (!credentials) throw new Error('broken invariant: a listener has credentials')
      const server = createServer({
        ...contextOf(credentials),
        requestCert: true,
        // A certificate that has ended or is of an old root still proves its key; `judge` says what that is worth.
        rejectUnauthorized: false,
        ALPNProtocols: [protocolName],
        handshakeTimeout: handshakeMs,
      })
      server.on('secureConnection', (socket) => {
        const peer = judge(socket, options.credentials()?.clusterId)
        if (socket.alpnProtocol !== protocolName) {
          socket.destroy()
          return
        }
        if (peer.type !== 'node') {
          if (anonymous >= anonymousMax) {
            options.log.warn('too many connections without a certificate; one was refused', {
              from: socket.remoteAddress,
            })
            socket.destroy()
            return
          }
          anonymous += 1
          socket.once('close', () => {
            anonymous -= 1
          })
        }
        const sizeMax =
          peer.type !== 'node'
            ? sizeMaxByPeer.stranger
            : sizeMaxByPeer[peer.role === 'manager' ? 'manager' : 'worker']
        accept(new TlsStream(socket, peer, sizeMax))
      })
      server.on('tlsClientError', (error, socket) => {
        options.log.debug('a TLS handshake failed', {
          from: socket.remoteAddress,
          error: messageOf(error),
        })
      })
      const bound = await bind(server, address)
      servers.add(server)
      return listenerOf(server, bound, () => servers.delete(server))
    },

    credentialsChanged() {
      const credentials = options.credentials()
      if (!credentials) return
      for (const server of servers) server.setSecureContext(contextOf(credentials))
    },
  }
}

function contextOf({
  certificatePem,
  keyPem,
  chainPem,
  rootsPem,
}: TransportCredentials): SecureContextOptions {
  return {
    cert: [certificatePem, ...chainPem].join(''),
    key: keyPem,
    ca: [...rootsPem],
    minVersion: 'TLSv1.3',
  }
}

async function bind(server: Server, address: string): Promise<AddressInfo> {
  const { host, port } = splitAddress(address)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new UserError(
          'failedPrecondition',
          `the cluster port can't be opened on ${address}: ${messageOf(error)}`,
          {
            next: 'End what listens there, or choose another address with --listen-addr.',
            cause: error,
          },
        ),
      ),
    )
    server.listen(port, host, resolve)
  })
  const bound = server.address()
  if (typeof bound !== 'object' || !bound) throw new Error('broken invariant: a TCP port')
  return bound
}

function listenerOf(server: Server, { address, port }: AddressInfo, closed: () => void): Listener {
  const open = new Set<TLSSocket>()
  server.on('secureConnection', (socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  return {
    address: address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`,
    async close() {
      closed()
      const ended = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of open) socket.destroy()
      await ended
    },
  }
}

/** What the certificate of who connected proves. */
function judge(socket: TLSSocket, clusterId: ClusterId | undefined): Peer {
  const certificate = socket.getPeerX509Certificate()
  if (!certificate) return { type: 'anonymous' }
  const publicKeyHash = publicKeyHashOf(certificate)
  try {
    const said = parseNodeCertificate(certificate.toString())
    return socket.authorized && said.clusterId === clusterId
      ? { type: 'node', nodeId: said.nodeId, role: said.role, publicKeyHash }
      : { type: 'keyHolder', nodeId: said.nodeId, publicKeyHash }
  } catch {
    return { type: 'anonymous' } // No certificate of a node proves nothing.
  }
}

function managerPeer(socket: TLSSocket): Peer {
  const certificate = socket.getPeerX509Certificate()
  if (!certificate) return { type: 'anonymous' }
  const { nodeId, role } = parseNodeCertificate(certificate.toString())
  return { type: 'node', nodeId, role, publicKeyHash: publicKeyHashOf(certificate) }
}

/** Splits `host:port` or `[v6]:port`. Throws `invalidInput`. */
function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host !== undefined && port <= 65_535) return { host, port }
  throw new UserError('invalidInput', `"${address}" is no address of a cluster port`, {
    next: 'Write it as host:port, such as 192.168.1.5:2377.',
  })
}

async function openSocket(
  address: string,
  trust: Trust,
  credentials: TransportCredentials | undefined,
  signal: AbortSignal,
  clock: Clock,
): Promise<TLSSocket> {
  const { host, port } = splitAddress(address)
  const own = trust.type === 'cluster' ? credentials : undefined
  if (trust.type === 'cluster' && !own) {
    throw new UserError('internal', 'this node has no certificate to show')
  }
  const socket = tlsConnect({
    host,
    port,
    ALPNProtocols: [protocolName],
    servername: trust.type === 'root' ? serverNames.ca : serverNames.manager,
    minVersion: 'TLSv1.3',
    rejectUnauthorized: trust.type !== 'nobody',
    ...(own ? contextOf(own) : {}),
    ...(trust.type === 'root' ? { ca: [trust.rootPem] } : {}),
    checkServerIdentity(name, certificate) {
      const wrong = checkServerIdentity(name, certificate)
      if (!own) return wrong
      const isWorker = wrong && !checkServerIdentity(serverNames.worker, certificate)
      if (wrong && !isWorker) return wrong
      if (certificate.subject.O !== own.clusterId) return new Error('it belongs to another cluster')
      const isTaken = !isWorker || (trust.type === 'cluster' && trust.orFormer)
      return isTaken ? undefined : new FormerManager()
    },
  })
  const timer = new AbortController()
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve)
      socket.once('error', reject)
      socket.once('close', () => reject(new Error('it closed the connection')))
      signal.addEventListener('abort', () => reject(new Error('given up')), { once: true })
      if (signal.aborted) reject(new Error('given up'))
      void clock.sleep(handshakeMs, timer.signal).then(() => {
        if (!timer.signal.aborted) reject(new Error(`no answer in ${handshakeMs / 1000} s`))
      })
    })
    if (socket.alpnProtocol !== protocolName) throw notSkep(address)
  } catch (error) {
    socket.on('error', () => {}) // Said once is enough.
    socket.destroy()
    throw connectError(address, error, clock.nowMs(), socket)
  } finally {
    timer.abort()
  }
  return socket
}

/** A node of the cluster, where a manager was looked for. */
class FormerManager extends Error {
  override readonly name = 'FormerManager'
}

function notSkep(address: string, cause?: unknown): UserError {
  return new UserError('unavailable', `what answers on ${address} is no manager of Skep`, {
    next: 'Give the address and cluster port of a manager, as `docker swarm join-token worker` shows it there.',
    cause,
  })
}

/** Says in one sentence why there is no connection. */
function connectError(
  address: string,
  error: unknown,
  nowMs: number,
  socket: TLSSocket,
): UserError {
  if (error instanceof UserError) return error
  if (error instanceof FormerManager) {
    return new UserError('unavailable', `the node on ${address} is no manager any more`, {
      next: 'Give the address of one that is: `docker node ls` shows them on any of them.',
      cause: error,
    })
  }
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED') {
    const peer = socket.getPeerX509Certificate()
    const span = peer ? ` (from ${peer.validFrom} to ${peer.validTo})` : ''
    return new UserError(
      'failedPrecondition',
      `the certificate of the manager on ${address} is not valid now${span}; this host's clock says ${new Date(nowMs).toISOString()}`,
      {
        next: 'Set the clocks of both hosts (chrony or systemd-timesyncd), and try again.',
        cause: error,
      },
    )
  }
  if (code === 'ECONNREFUSED') {
    return new UserError('unavailable', `nobody listens on ${address}`, {
      next: 'Is that a manager, does its daemon run, and is this its cluster port (2377)?',
      cause: error,
    })
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return new UserError('unavailable', `the name in ${address} does not resolve`, {
      next: 'Check the name, or give the IP address.',
      cause: error,
    })
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code.includes('NO_APPLICATION_PROTOCOL')) {
    return notSkep(address, error)
  }
  const isTrust =
    code.startsWith('UNABLE_TO_') ||
    code.includes('SELF_SIGNED') ||
    code === 'CERT_SIGNATURE_FAILURE' ||
    code === 'ERR_TLS_CERT_ALTNAME_INVALID' ||
    messageOf(error).includes('another cluster')
  if (isTrust) {
    return new UserError(
      'forbidden',
      `what answers on ${address} can't prove that it is a manager of this cluster: ${messageOf(error)}`,
      {
        next: 'Check the address: has that host joined another cluster, or been set up anew?',
        cause: error,
      },
    )
  }
  return new UserError('unavailable', `${address} can't be reached: ${messageOf(error)}`, {
    next: 'Check the network between the two hosts and their firewalls (TCP port 2377).',
    cause: error,
  })
}

/** Whether this is why there is no connection: a host that is there says that nobody listens on the port. */
export function isRefused(error: unknown): boolean {
  const cause = error instanceof UserError ? error.cause : undefined
  return cause instanceof Error && 'code' in cause && cause.code === 'ECONNREFUSED'
}

class TlsStream implements MessageStream {
  readonly peer: Peer
  readonly remoteAddress: string
  readonly localAddress: string
  readonly #socket: TLSSocket
  readonly #reader: FrameReader
  readonly #inbox: unknown[] = []
  #waiting: (() => void) | undefined
  #failure: UserError | undefined
  #ended = false

  constructor(socket: TLSSocket, peer: Peer, sizeMax: number) {
    this.#socket = socket
    this.peer = peer
    this.remoteAddress = plainAddress(socket.remoteAddress)
    this.localAddress = plainAddress(socket.localAddress)
    this.#reader = new FrameReader(sizeMax)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, keepAliveMs)
    socket.on('data', (part) => this.#take(part))
    socket.on('end', () => this.#over(undefined))
    // A reset comes from a host that is there, as an end does: its process was killed.
    socket.on('error', (error) =>
      this.#over('code' in error && error.code === 'ECONNRESET' ? undefined : error),
    )
    socket.on('close', () => this.#over(this.#ended ? undefined : new Error('closed')))
  }

  async send(message: Message): Promise<void> {
    if (this.#failure || this.#socket.destroyed || this.#socket.writableEnded) {
      throw this.#failure ?? broken('it is closed')
    }
    if (this.#write(encodeFrame(message))) return
    await new Promise<void>((resolve, reject) => {
      const done = () => {
        this.#socket.off('drain', done)
        this.#socket.off('close', done)
        if (this.#socket.destroyed) reject(this.#failure ?? broken('it is closed'))
        else resolve()
      }
      this.#socket.once('drain', done)
      this.#socket.once('close', done)
    })
  }

  /** False: there is no room for more. */
  #write(pieces: readonly Uint8Array[]): boolean {
    let hasRoom = true
    if (pieces.length > 1) this.#socket.cork()
    for (const piece of pieces) hasRoom = this.#socket.write(piece)
    if (pieces.length > 1) this.#socket.uncork()
    return hasRoom
  }

  async receive(signal?: AbortSignal): Promise<unknown> {
    while (this.#inbox.length === 0) {
      if (signal?.aborted) throw broken('given up')
      if (this.#failure) throw this.#failure
      if (this.#ended) return undefined
      const done = new AbortController()
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
        signal?.addEventListener('abort', () => resolve(), { once: true, signal: done.signal })
      })
      done.abort()
    }
    const message = this.#inbox.shift()
    if (this.#inbox.length < inboxMax / 2 && this.#socket.isPaused()) this.#socket.resume()
    return message
  }

  close(): void {
    if (this.#socket.destroyed) return
    if (this.#socket.isPaused()) this.#socket.resume()
    this.#socket.end()
    setTimeout(() => this.#socket.destroy(), lingerMs).unref()
  }

  #take(part: Buffer): void {
    try {
      this.#inbox.push(...this.#reader.take(part))
    } catch (error) {
      this.#failure = error instanceof UserError ? error : broken(messageOf(error))
      this.#socket.destroy()
    }
    if (this.#inbox.length >= inboxMax && !this.#socket.writableEnded) this.#socket.pause()
    this.#waiting?.()
  }

  #over(error: Error | undefined): void {
    if (error) this.#failure ??= broken(error.message, error)
    else {
      this.#ended = true
      // The other end has said all: this one has nobody to speak to either.
      this.#socket.end()
    }
    this.#waiting?.()
  }
}

function broken(why: string, cause?: unknown): UserError {
  return new UserError('unavailable', `the connection broke: ${why}`, { cause })
}

/** An IPv4 address as such, also on a socket that takes both kinds. */
function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '')
}
