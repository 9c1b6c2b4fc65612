import { readFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { RequestOptions } from 'node:https'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { messageOf, UserError } from '../base/index.ts'
import { parseEngineAddress } from '../engine/index.ts'
import type { CliContext } from './command.ts'

/** Where a daemon listens when nothing names another place. */
export const defaultHost = 'unix:///run/skep/docker.sock'
/** Longest JSON answer taken. */
const answerBytesMax = 512 * 1024 * 1024

/** A refusal by the daemon, in its own words. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export interface Call {
  readonly method?: 'GET' | 'POST' | 'DELETE'
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
}

export type Filters = Readonly<Record<string, readonly string[]>>

/** The Engine API of one daemon. Answers are taken to have the API's shape: they come from our own daemon. */
export interface Client {
  readonly where: string
  /** The JSON answer; `undefined` for an empty one. Throws `ApiError` for a status over 399. */
  call<T>(path: string, call?: Call): Promise<T>
  /** The answer as it comes. Throws as `call` does. */
  open(path: string, call?: Call): Promise<IncomingMessage>
  /** A connection of bytes; it allows half of it to end. Throws as `call` does when it is refused. */
  upgrade(path: string, signal: AbortSignal): Promise<Duplex>
}

/** The place to talk to: `-H`, `SKEP_HOST`, `DOCKER_HOST`, then the default. */
export function hostOf(context: CliContext): string {
  const { env } = context.io
  return context.host() || env['SKEP_HOST'] || env['DOCKER_HOST'] || defaultHost
}

/** Opens a client; nothing is connected before the first call. Throws `UserError` for an address it can't read. */
export async function openClient(context: CliContext): Promise<Client> {
  const where = hostOf(context)
  const target = await targetOf(where, context.io.env)

  async function open(path: string, call: Call = {}): Promise<IncomingMessage> {
    const response = await respond(target, where, path, call)
    const status = response.statusCode ?? 0
    if (status < 400) return response
    throw new ApiError(status, messageOfBody(status, await textOf(response)))
  }

  return {
    where,
    open,
    upgrade: (path, signal) => upgrade(target, where, path, signal),
    async call<T>(path: string, call: Call = {}): Promise<T> {
      const text = await textOf(await open(path, call)).catch((error: unknown) => {
        throw call.signal?.aborted ? call.signal.reason : error
      })
      return (text === '' ? undefined : JSON.parse(text)) as T
    },
  }
}

/** The answer, or `undefined` for 404. */
export async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined
    throw error
  }
}

/** `filters` as the API takes them. */
export function filtersQuery(filters: Filters): { filters?: string } {
  const present = Object.entries(filters).filter(([, values]) => values.length > 0)
  if (present.length === 0) return {}
  return {
    filters: JSON.stringify(
      Object.fromEntries(
        present.map(([key, values]) => [
          key,
          Object.fromEntries(values.map((value) => [value, true])),
        ]),
      ),
    ),
  }
}

/** Reads `--filter key=value`, repeated. Throws `invalidInput`. */
export function parseFilters(texts: readonly string[] | undefined): Record<string, string[]> {
  const filters: Record<string, string[]> = {}
  for (const text of texts ?? []) {
    const at = text.indexOf('=')
    if (at <= 0) {
      throw new UserError('invalidInput', `the filter "${text}" is not key=value`, {
        next: 'Write it as --filter name=web.',
      })
    }
    const key = text.slice(0, at).trim().toLowerCase()
    filters[key] = [...(filters[key] ?? []), text.slice(at + 1).trim()]
  }
  return filters
}

async function targetOf(
  where: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<RequestOptions> {
  if (where.startsWith('ssh://')) {
    throw new UserError('unsupported', `skep does not go over ssh (${where})`, {
      next: `Forward the socket: ssh -nNT -L /tmp/skep.sock:/run/skep/docker.sock ${where.slice(6)} & and use -H unix:///tmp/skep.sock.`,
    })
  }
  const isSecure = Boolean(env['DOCKER_TLS_VERIFY'] || env['DOCKER_CERT_PATH'])
  const bare = /^tcp:\/\/[^/]*[^:\]\d][^:]*$|^tcp:\/\/\[[^\]]*\]$/.test(where)
  const address = parseEngineAddress(isSecure && bare ? `${where.replace(/\/$/, '')}:2376` : where)
  if (address.type === 'unix') return { socketPath: address.path }
  if (!isSecure) return { host: address.host, port: address.port }
  const directory = env['DOCKER_CERT_PATH'] ?? join(env['HOME'] ?? '/', '.docker')
  const read = (name: string) =>
    readFile(join(directory, name)).catch((cause: unknown) => {
      throw new UserError(
        'invalidInput',
        `cannot read ${name} of ${directory}: ${messageOf(cause)}`,
        {
          next: 'Set DOCKER_CERT_PATH to the directory that holds ca.pem, cert.pem and key.pem.',
          cause,
        },
      )
    })
  const [ca, cert, key] = await Promise.all([read('ca.pem'), read('cert.pem'), read('key.pem')])
  return { protocol: 'https:', host: address.host, port: address.port, ca, cert, key }
}

async function respond(
  target: RequestOptions,
  where: string,
  path: string,
  { method = 'GET', query = {}, body, headers = {}, signal }: Call,
): Promise<IncomingMessage> {
  const search = new URLSearchParams()
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) search.set(key, String(value))
  }
  const json = body === undefined ? undefined : JSON.stringify(body)
  const options: RequestOptions = {
    ...target,
    method,
    path: search.size > 0 ? `${path}?${search.toString()}` : path,
    headers: {
      // Over TLS the name in Host is the one the certificate has to bear.
      ...(target.socketPath && { Host: 'docker' }),
      ...(json !== undefined && {
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(json),
      }),
      ...headers,
    },
    ...(signal && { signal }),
  }
  const send = target.protocol === 'https:' ? (await import('node:https')).request : httpRequest
  return new Promise((resolve, reject) => {
    const sent = send(options, resolve)
    sent.on('error', (error) => {
      reject(signal?.aborted ? signal.reason : connectionError(where, error))
    })
    sent.end(json)
  })
}

async function upgrade(
  target: RequestOptions,
  where: string,
  path: string,
  signal: AbortSignal,
): Promise<Duplex> {
  const send = target.protocol === 'https:' ? (await import('node:https')).request : httpRequest
  return new Promise((resolve, reject) => {
    // Of use until the connection stands; later it is the caller's.
    const giveUp = (): void => {
      sent.destroy()
    }
    const sent = send({
      ...target,
      method: 'POST',
      path,
      headers: {
        ...(target.socketPath && { Host: 'docker' }),
        Connection: 'Upgrade',
        Upgrade: 'tcp',
        'Content-Length': 0,
      },
      agent: false,
    })
    signal.addEventListener('abort', giveUp, { once: true })
    if (signal.aborted) giveUp()
    sent.once('upgrade', (_response, socket: Duplex, head) => {
      signal.removeEventListener('abort', giveUp)
      if ('allowHalfOpen' in socket) socket.allowHalfOpen = true
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    sent.once('response', (response) => {
      textOf(response).then(
        (text) => {
          const status = response.statusCode ?? 0
          reject(new ApiError(status, messageOfBody(status, text)))
        },
        (error: unknown) => reject(error),
      )
    })
    sent.on('error', (error) => {
      reject(signal.aborted ? signal.reason : connectionError(where, error))
    })
    sent.end()
  })
}

function connectionError(where: string, error: Error): Error {
  const code = 'code' in error ? String(error.code) : ''
  if (code === 'EACCES') {
    return new UserError('forbidden', `you may not open ${where}`, {
      next: 'Run as root, or as a member of the group docker.',
      cause: error,
    })
  }
  if (['ENOENT', 'ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ETIMEDOUT'].includes(code)) {
    return new UserError('unavailable', `no daemon answers at ${where} (${code})`, {
      next: 'Start it as root with `skep daemon`, or name another one with -H or SKEP_HOST.',
      cause: error,
    })
  }
  const isPlain = where.startsWith('tcp:') && code === 'ECONNRESET'
  return new UserError('unavailable', `the connection to ${where} broke: ${error.message}`, {
    ...(isPlain && {
      next: 'If it wants certificates, set DOCKER_CERT_PATH to the directory that holds ca.pem, cert.pem and key.pem.',
    }),
    cause: error,
  })
}

async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of response) {
    parts.push(part)
    size += part.length
    if (size > answerBytesMax) {
      throw new UserError('tooLarge', `the daemon's answer is over ${answerBytesMax} bytes`)
    }
  }
  return Buffer.concat(parts).toString()
}

function messageOfBody(status: number, text: string): string {
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json === 'object' && json !== null && 'message' in json) {
      return String(json.message)
        .replace(/^rpc error: code = \w+ desc = /, '')
        .trim()
    }
  } catch {
    // Not JSON: the text itself is the message.
  }
  return text.trim() || `the daemon answered ${status}`
}
