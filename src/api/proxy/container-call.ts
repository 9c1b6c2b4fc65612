import type { IncomingMessage, ServerResponse } from 'node:http'
import { TLSSocket } from 'node:tls'
import { replayed } from './replay.ts'

/** A call of the Engine API about one container, or about one command that was made in a container. */
export interface ContainerCall {
  readonly about: 'container' | 'command'
  /** Name or id of the container; id of the command. */
  readonly name: string
  readonly method: string
  /** What is done: `exec`, `archive`, `json`; empty for the container itself (to remove it). */
  readonly verb: string
  /** Path inside the container, of a copy. */
  readonly path?: string
}

/** Reads method and path. Undefined: it is about something else. */
export function containerCallOf({
  method = 'GET',
  url = '',
}: Pick<IncomingMessage, 'method' | 'url'>): ContainerCall | undefined {
  const match = /^(?:\/v[\d.]+)?\/(containers|exec)\/([^/?]+)(?:\/([^?]*))?(?:\?(.*))?$/.exec(url)
  if (!match) return undefined
  const [, kind, name = '', verb = '', query = ''] = match
  // Calls about all containers, which look like the name of one.
  if (kind === 'containers' && verb === '' && method !== 'DELETE') return undefined
  const path = verb === 'archive' ? (new URLSearchParams(query).get('path') ?? '') : undefined
  const about = kind === 'exec' ? 'command' : 'container'
  return { about, name: decoded(name), method, verb, ...(path === undefined ? {} : { path }) }
}

/** What the record of calls into tasks says of one. Never input, output or values of variables. */
export interface CallRecord {
  readonly what: string
  readonly command?: readonly string[]
  readonly path?: string
  readonly user?: string
  readonly privileged?: true
}

const recordedVerbs: Readonly<Record<string, string>> = {
  'POST exec': 'run a command',
  'GET archive': 'copy out',
  'PUT archive': 'copy in',
  'GET export': 'copy everything out',
  'POST attach': 'attach',
  'GET attach/ws': 'attach',
  'POST start': 'start',
  'POST stop': 'stop',
  'POST kill': 'kill',
  'POST restart': 'restart',
  'POST pause': 'pause',
  'POST unpause': 'unpause',
  'POST update': 'update',
  'POST rename': 'rename',
  'DELETE ': 'remove',
}

/** Longest body of a call that makes a command; a longer one is refused. */
export const commandBodyBytesMax = 1024 * 1024
/** Characters of one word of a command, and words, that are recorded. */
const wordLengthMax = 1_000
const wordsMax = 100

/**
 * What is to be recorded of a call, and the call as it has to be passed on: the body of one that makes a command is read
 * for that. No record: it changes nothing, or goes on with what is recorded. Rejects when the caller breaks off.
 */
export async function recordOf(
  call: ContainerCall,
  request: IncomingMessage,
): Promise<{ readonly record: CallRecord | undefined; readonly request: IncomingMessage }> {
  const what = call.about === 'container' ? recordedVerbs[`${call.method} ${call.verb}`] : undefined
  if (what === undefined) return { record: undefined, request }
  const { path } = call
  if (call.verb !== 'exec') {
    return { record: { what, ...(path === undefined ? {} : { path }) }, request }
  }
  const body = await bodyOf(request)
  return { record: { what, ...commandOf(body) }, request: replayed(request, body) }
}

function commandOf(body: Buffer): Omit<CallRecord, 'what'> {
  let json: unknown
  try {
    json = JSON.parse(body.toString())
  } catch {
    return {} // The engine refuses it.
  }
  if (typeof json !== 'object' || json === null) return {}
  const fields = new Map<string, unknown>(
    Object.entries(json).map(([key, value]) => [key.toLowerCase(), value]),
  )
  const words: unknown = fields.get('cmd')
  const user = fields.get('user')
  return {
    ...(Array.isArray(words)
      ? { command: words.slice(0, wordsMax).map((word) => String(word).slice(0, wordLengthMax)) }
      : {}),
    ...(typeof user === 'string' && user !== '' ? { user: user.slice(0, wordLengthMax) } : {}),
    ...(fields.get('privileged') === true ? { privileged: true } : {}),
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of request) {
    if (!(part instanceof Uint8Array)) continue
    parts.push(Buffer.from(part))
    size += part.length
    if (size > commandBodyBytesMax) throw new Error('the call is too long')
  }
  return Buffer.concat(parts)
}

/** Name of the header by which a manager tells a node who calls. */
export const callerHeader = 'Skep-Caller'

/** Who makes this call, as far as the connection tells: a certificate's name, or the socket of this machine. */
export function callerOf({ socket }: Pick<IncomingMessage, 'socket'>): string {
  if (socket instanceof TLSSocket) {
    const name: unknown = socket.getPeerCertificate().subject?.CN
    return `${typeof name === 'string' ? name : 'a certificate without a name'} at ${socket.remoteAddress}`
  }
  return socket.remoteAddress === undefined ? 'the local socket' : socket.remoteAddress
}

/** Names the caller for the node that the call is passed to, in place of what the call said itself. */
export function nameCaller(request: IncomingMessage, caller: string): void {
  const raw = request.rawHeaders
  for (let at = raw.length - 2; at >= 0; at -= 2) {
    if (raw[at]?.toLowerCase() === callerHeader.toLowerCase()) raw.splice(at, 2)
  }
  raw.push(callerHeader, caller.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 300))
}

/** Answers a call itself, in the engine's way. */
export function refuseCall(response: ServerResponse, status: number, message: string): void {
  if (response.headersSent || response.destroyed) return
  response.writeHead(status, { 'Content-Type': 'application/json', Connection: 'close' })
  response.end(`${JSON.stringify({ message })}\n`)
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
