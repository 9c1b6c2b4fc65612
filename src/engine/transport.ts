import type {
  ClientRequest,
  Agent as HttpAgent,
  IncomingMessage,
  OutgoingHttpHeaders,
} from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { UserError } from '../base/index.ts'
import { connectOptionsOf, type EngineAddress, formatEngineAddress } from './address.ts'
import { codeOfStatus, connectionError, messageOfBody } from './errors.ts'

// An import of this module makes Node load its whole fetch, too: 20 ms of a short command's life.
const { Agent, request: httpRequest } = process.getBuiltinModule('node:http')

/** Connections for short calls, kept open between them; further calls wait in the agent's queue. */
export const callSocketsMax = 32
/** Connections for calls that last (events, logs, wait, pulls, archives); further ones wait. */
export const streamSocketsMax = 1024
/** Longest JSON answer taken. */
export const answerBytesMax = 256 * 1024 * 1024

export interface EngineCall {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Without the version prefix: `/containers/json`. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent as it is, chunked. */
  readonly stream?: Readable
  readonly headers?: OutgoingHttpHeaders
  readonly signal?: AbortSignal | undefined
}

/** HTTP to one engine: connections, versions, errors. */
export class Transport {
  readonly address: EngineAddress
  readonly where: string
  readonly #calls = new Agent({ keepAlive: true, maxSockets: callSocketsMax, maxFreeSockets: 8 })
  readonly #streams = new Agent({ keepAlive: false, maxSockets: streamSocketsMax })

  constructor(address: EngineAddress) {
    this.address = address
    this.where = formatEngineAddress(address)
  }

  /** Status, headers and text of a short call. Does not judge the status. */
  async call(
    version: string,
    call: EngineCall,
  ): Promise<{ status: number; headers: IncomingMessage['headers']; text: string }> {
    const response = await this.#respond(version, call, this.#calls)
    const parts: Buffer[] = []
    let size = 0
    try {
      for await (const part of response) {
        parts.push(part)
        size += part.length
        if (size > answerBytesMax) {
          throw new UserError('tooLarge', `the engine's answer is over ${answerBytesMax} bytes`)
        }
      }
    } catch (error) {
      throw this.#failure(call, error)
    }
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      text: Buffer.concat(parts).toString(),
    }
  }

  /** The answer's body as it comes. A status over 399 throws. Destroy it, or abort the signal, to end early. */
  async open(version: string, call: EngineCall): Promise<IncomingMessage> {
    const response = await this.#respond(version, call, this.#streams)
    const status = response.statusCode ?? 0
    if (status < 400) return response
    const parts: Buffer[] = []
    for await (const part of response) parts.push(part)
    throw new UserError(
      codeOfStatus(status),
      messageOfBody(status, Buffer.concat(parts).toString()),
    )
  }

  /** A hijacked connection (exec, attach): ending its writable side is EOF on stdin. */
  hijack(version: string, call: EngineCall): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      const body = call.json === undefined ? '' : JSON.stringify(call.json)
      const request = this.#request(version, call, this.#streams, {
        ...(body && { 'Content-Type': 'application/json' }),
        'Content-Length': Buffer.byteLength(body),
        Connection: 'Upgrade',
        Upgrade: 'tcp',
      })
      request.once('upgrade', (_response, socket: Socket, head) => {
        if (head.length > 0) socket.unshift(head)
        resolve(socket)
      })
      request.once('response', (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.once('end', () => {
          const status = response.statusCode ?? 0
          const text = Buffer.concat(parts).toString()
          reject(new UserError(codeOfStatus(status), messageOfBody(status, text)))
        })
      })
      request.on('error', (error) => reject(this.#failure(call, error)))
      request.end(body)
    })
  }

  close(): void {
    this.#calls.destroy()
    this.#streams.destroy()
  }

  async #respond(version: string, call: EngineCall, agent: HttpAgent): Promise<IncomingMessage> {
    const body = call.json === undefined ? undefined : JSON.stringify(call.json)
    for (let attempt = 0; ; attempt++) {
      const request = this.#request(version, call, agent, {
        ...(body !== undefined && {
          'Content-Type': 'application/json',
          'Content-Length': Buffer.byteLength(body),
        }),
      })
      try {
        const responded = new Promise<IncomingMessage>((resolve, reject) => {
          request.once('response', resolve)
          // Stays on: an aborted call reports its error once more after the response began.
          request.on('error', reject)
        })
        if (call.stream) {
          // An answer may come before the body is through (a refusal); its failure is told by the answer.
          await Promise.all([responded, pipeline(call.stream, request).catch(() => {})])
        } else request.end(body)
        return await responded
      } catch (error) {
        // A kept connection may have been closed by the engine just now: safe to repeat where repeating is harmless.
        const harmless = call.method === 'GET' || call.method === 'HEAD'
        if (attempt === 0 && harmless && request.reusedSocket && !call.signal?.aborted) continue
        throw this.#failure(call, error)
      }
    }
  }

  #failure(call: EngineCall, error: unknown): unknown {
    return call.signal?.aborted ? call.signal.reason : connectionError(this.where, error)
  }

  #request(
    version: string,
    call: EngineCall,
    agent: HttpAgent,
    headers: OutgoingHttpHeaders,
  ): ClientRequest {
    const query = new URLSearchParams()
    for (const [key, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) query.set(key, String(value))
    }
    const search = query.size > 0 ? `?${query.toString()}` : ''
    return httpRequest({
      ...connectOptionsOf(this.address),
      agent,
      method: call.method,
      path: `${version === '' ? '' : `/v${version}`}${call.path}${search}`,
      headers: { Host: 'docker', ...headers, ...call.headers },
      ...(call.signal && { signal: call.signal }),
    })
  }
}
