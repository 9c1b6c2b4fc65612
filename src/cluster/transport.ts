import type { NodeId, NodeRole } from '../model/index.ts'

/**
 * What the protocol between nodes needs of a network, and no more. Two implementations: TLS on the cluster port
 * (`tls-transport.ts`), and whatever a simulator makes of it. A stream is one connection with one call on it; there is
 * no multiplexing, so a slow reader holds up nobody else.
 */

/** Makes a message's JSON text, without its bytes: where parts of it are at hand as text. It says what the message's fields say. */
export const makeText = Symbol('makeText')

/** A message: plain JSON data, and bytes only in a field of that name at the top (sent as they are). */
export interface Message {
  readonly type: string
  /** Pieces arrive as one: many nodes may be sent the same ones, which nobody joins for each of them. */
  readonly bytes?: Uint8Array | readonly Uint8Array[]
  readonly [field: string]: unknown
  readonly [makeText]?: () => string
}

/** Who is at the other end, as far as it has proved that. */
export type Peer =
  /** Showed no certificate. */
  | { readonly type: 'anonymous' }
  /** Holds the private key to this public one, but its certificate has ended or comes from a root no longer trusted. */
  | { readonly type: 'keyHolder'; readonly nodeId: NodeId; readonly publicKeyHash: string }
  /** Holds a certificate of this cluster that is valid now. */
  | {
      readonly type: 'node'
      readonly nodeId: NodeId
      readonly role: NodeRole
      readonly publicKeyHash: string
    }

/**
 * An ordered, reliable, two-way stream of messages: each arrives once and in order, or the stream is broken. Time
 * without news is judged by the protocol above, by heartbeats.
 */
export interface MessageStream {
  readonly peer: Peer
  /** Address of the other end, without port; what a manager sees a node by. */
  readonly remoteAddress: string
  /** Own address on this connection, without port: what the other end can reach this node by. */
  readonly localAddress: string
  /** Resolves once there is room for more: waiting for it keeps the queue bounded. Rejects when the stream is broken. */
  send(message: Message): Promise<void>
  /**
   * The next message, parsed by nobody yet. Undefined: the other end has closed. Rejects with `unavailable` when the
   * stream broke, `tooLarge` when a message was over the bound, and when `signal` aborts.
   */
  receive(signal?: AbortSignal): Promise<unknown>
  /** Sends what is queued, then ends. Twice is as good as once. */
  close(): void
}

/** How to judge the other end of a connection that this node opens. */
export type Trust =
  /**
   * The cluster's own roots: the other end must be a manager of this cluster. `orFormer`: or any node of it, which is
   * believed nothing but where to look for a manager.
   */
  | { readonly type: 'cluster'; readonly orFormer?: true }
  /** Nobody yet: only to ask for the root certificate, which a join token then proves or not. */
  | { readonly type: 'nobody' }
  /** One root, proven by a join token. */
  | { readonly type: 'root'; readonly rootPem: string }

export interface Transport {
  /**
   * Opens a stream to `host:port`. Rejects with `unavailable` (nobody answers there), `forbidden` (the other end can't
   * prove that it is a manager of the cluster) with a sentence saying which address and why.
   */
  connect(address: string, trust: Trust, signal: AbortSignal): Promise<MessageStream>
  /** Takes connections on `host:port`. Rejects with `failedPrecondition` when the address can't be used. */
  listen(address: string, accept: (stream: MessageStream) => void): Promise<Listener>
}

export interface Listener {
  /** The address in use, with the port that was chosen. */
  readonly address: string
  close(): Promise<void>
}
