import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import type { Socket } from 'node:net'
import { type Duplex, pipeline } from 'node:stream'
import { type Log, messageOf } from '../../base/index.ts'
import { connectOptionsOf, formatEngineAddress, parseEngineAddress } from '../../engine/index.ts'
import { openTunnel, sendBody } from './tunnel.ts'

/** Idle connections to the engine that are kept for the next call. Open ones are as many as the callers have. */
export const proxyIdleSocketsMax = 16

export interface EngineProxy {
  /** Passes one call to the engine and its answer back. Never throws; a dead engine is a 502. */
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void
  /** For the server's `checkContinue` event: the engine says whether the body shall come. */
  readonly checkContinue: (request: IncomingMessage, response: ServerResponse) => void
  /** For the server's `upgrade` event: exec and attach (`tcp`), BuildKit (`h2c`). */
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
  readonly close: () => void
}

/**
 * Passes Engine API calls to the local engine as they are: method, path, headers in their order and case, bodies as
 * they flow in both directions with back-pressure, trailers, upgrades. It looks at nothing but the framing.
 */
export function createEngineProxy(options: {
  readonly engineAddress: string
  readonly log: Log
}): EngineProxy {
  const address = parseEngineAddress(options.engineAddress)
  const target = connectOptionsOf(address)
  const where = formatEngineAddress(address)
  const agent = new Agent({ keepAlive: true, maxFreeSockets: proxyIdleSocketsMax })

  function pass(request: IncomingMessage, response: ServerResponse, expects: boolean): void {
    if (!expects && isBulk(request) && response.socket) {
      passInBulk(request, response, response.socket)
      return
    }
    const withBody = hasBody(request)
    let answered = false
    const call = httpRequest({
      ...target,
      agent,
      method: request.method ?? 'GET',
      path: request.url ?? '/',
      headers: rawHeadersOf(request, withBody, expects),
      setHost: false,
    })
    if (expects) call.on('continue', () => response.writeContinue())
    call.once('response', (answer) => {
      answered = true
      sendBack(answer, response, call)
    })
    call.on('error', (error) => {
      // After the answer began its own stream tells how it goes on.
      if (answered) return
      // A kept connection may have been closed by the engine just now.
      const again = call.reusedSocket && !withBody && isHarmless(request) && isReset(error)
      if (again && canStillAnswer(response)) pass(request, response, expects)
      else fail(response, error)
    })
    // The caller is gone: the engine shall stop, too (logs -f, events, wait).
    response.once('close', () => {
      if (!response.writableFinished) call.destroy()
    })
    if (!withBody) {
      call.end()
      return
    }
    call.flushHeaders()
    request.on('error', () => call.destroy())
    // No pipeline: it would destroy the caller's connection when the engine answers before the body is through.
    request.pipe(call, { end: false })
    request.once('end', () => {
      if (request.rawTrailers.length > 0) call.addTrailers(pairsOf(request.rawTrailers))
      call.end()
    })
  }

  function sendBack(answer: IncomingMessage, response: ServerResponse, call: ClientRequest): void {
    if (!canStillAnswer(response)) {
      call.destroy()
      return
    }
    response.sendDate = false // The engine's own is passed.
    response.writeHead(
      answer.statusCode ?? 502,
      answer.statusMessage,
      withoutHopByHop(answer.rawHeaders),
    )
    // Callers of long streams wait for the status before they go on.
    response.flushHeaders()
    answer.once('end', () => {
      if (answer.rawTrailers.length > 0) response.addTrailers(pairsOf(answer.rawTrailers))
    })
    pipeline(answer, response, (error) => {
      if (error) options.log.debug('a passed call ended early', { error: messageOf(error) })
    })
  }

  function fail(response: ServerResponse, error: unknown): void {
    options.log.debug('the engine did not answer a passed call', { error: messageOf(error) })
    if (!canStillAnswer(response)) {
      response.destroy()
      return
    }
    const body = refusal(where, error)
    response.writeHead(502, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
    })
    response.end(body)
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Half-close is the end of stdin: neither side may be closed because the other one ended.
    if ('allowHalfOpen' in socket) socket.allowHalfOpen = true
    const engine = openTunnel(target, socket, (error) => {
      if (socket.destroyed) return
      const body = refusal(where, error)
      const length = Buffer.byteLength(body)
      socket.end(
        `HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n${body}`,
      )
    })
    // What Node already read of the body lies in `head`; the rest follows on the socket. Both are passed unread.
    engine.write(headOf(request, request.rawHeaders))
    if (head.length > 0) engine.write(head)
    socket.pipe(engine)
  }

  /** A call with a big answer or body: the answer's bytes go from socket to socket, unparsed. */
  function passInBulk(request: IncomingMessage, response: ServerResponse, socket: Socket): void {
    const engine = openTunnel(target, socket, (error) => fail(response, error))
    const withBody = hasBody(request)
    const headers = [...rawHeadersOf(request, withBody, false), 'Connection', 'close']
    engine.write(headOf(request, headers))
    if (!withBody) return
    sendBody(request, engine)
    request.once('error', () => engine.destroy())
    // An engine that answers before the body is through does not want the rest.
    engine.once('close', () => request.resume())
  }

  return {
    handle: (request, response) => pass(request, response, false),
    checkContinue: (request, response) => pass(request, response, true),
    upgrade,
    close: () => agent.destroy(),
  }
}

function headOf(request: IncomingMessage, rawHeaders: readonly string[]): string {
  let head = `${request.method} ${request.url} HTTP/1.1\r\n`
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    head += `${rawHeaders[at]}: ${rawHeaders[at + 1]}\r\n`
  }
  return `${head}\r\n`
}

/** Headers that belong to one connection. `Upgrade` without an upgrade is not passed either. */
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

function withoutHopByHop(rawHeaders: readonly string[], alsoWithout?: string): string[] {
  const kept: string[] = []
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? ''
    const key = name.toLowerCase()
    if (!hopByHop.has(key) && key !== alsoWithout) kept.push(name, rawHeaders[at + 1] ?? '')
  }
  return kept
}

/** With the framing the body had: its length, or chunks; a body that may be is never left open. */
function rawHeadersOf(request: IncomingMessage, withBody: boolean, expects: boolean): string[] {
  const headers = withoutHopByHop(request.rawHeaders, expects ? undefined : 'expect')
  const { headers: known, method } = request
  if (known.host === undefined) headers.push('Host', 'docker')
  if (known['content-length'] === undefined) {
    if (withBody) headers.push('Transfer-Encoding', 'chunked')
    else if (method !== 'GET' && method !== 'HEAD') headers.push('Content-Length', '0')
  }
  return headers
}

/** Archives, images, builds, logs: parsing and framing their bytes again would cost as much as the engine does. */
function isBulk({ method, url = '' }: IncomingMessage): boolean {
  if (method === 'HEAD') return false
  return /^(\/v[\d.]+)?\/(containers\/[^/?]+\/(archive|export|logs)|images\/(.+\/)?get|images\/load|build)(\?|$)/.test(
    url,
  )
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function isHarmless({ method }: IncomingMessage): boolean {
  return method === 'GET' || method === 'HEAD'
}

function isReset(error: Error): boolean {
  return 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
}

function canStillAnswer(response: ServerResponse): boolean {
  return !response.headersSent && !response.destroyed
}

function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = []
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at] ?? '', raw[at + 1] ?? ''])
  return pairs
}

function refusal(where: string, error: unknown): string {
  const message = `The Docker Engine of this node (${where}) does not answer: ${messageOf(error)}. Start it, or look at its log.`
  return `${JSON.stringify({ message })}\n`
}
