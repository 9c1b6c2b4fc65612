import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest, HTTPMethods } from 'fastify'
import { UserError } from '../../base/index.ts'
import { type Filters, parseFilters } from './filters.ts'
import { readBody, type Shape } from './shape.ts'

/** Largest body of a call that Skep answers itself: a config of 1 MB in base64, and room to spare. */
export const bodyBytesMax = 4 * 1024 * 1024

export type Answer =
  | {
      readonly type: 'sent'
      readonly status: number
      readonly text: string | Buffer | undefined
      readonly headers: Readonly<Record<string, string>>
    }
  /** The handler has written, or goes on writing, to the response itself. */
  | { readonly type: 'streamed' }
  /** The engine answers, to the call as it came, or with another body and target. */
  | { readonly type: 'passed'; readonly body?: Buffer; readonly url?: string }

export interface Route {
  readonly method: HTTPMethods
  /** In Fastify's form: `/services/:id`. */
  readonly path: string
  handle(call: Call): Answer | Promise<Answer>
}

const jsonType = { 'Content-Type': 'application/json' }

/** A JSON answer. It ends with a newline, as the Engine's do. */
export function json(value: unknown, status = 200): Answer {
  return jsonText(JSON.stringify(value), status)
}

export function jsonText(text: string, status = 200): Answer {
  return { type: 'sent', status, text: `${text}\n`, headers: jsonType }
}

export function nothing(status = 200): Answer {
  return { type: 'sent', status, text: undefined, headers: {} }
}

export const passed: Answer = { type: 'passed' }

/** One request, read on demand. */
export class Call {
  /** API version that the client speaks. */
  readonly version: string
  readonly body: Buffer | undefined
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    version: string,
    body: Buffer | undefined,
  ) {
    this.#request = request
    this.#reply = reply
    this.version = version
    this.body = body
  }

  param(name: string): string {
    return textOf(this.#request.params, name) ?? ''
  }

  /** The first value, when there are several. */
  query(name: string): string | undefined {
    return textOf(this.#request.query, name)
  }

  /** False when absent, empty, `0`, `no`, `false` or `none`. */
  flag(name: string): boolean {
    const value = this.query(name)?.trim().toLowerCase() ?? ''
    return !['', '0', 'no', 'false', 'none'].includes(value)
  }

  /** As Go reads booleans; anything else is refused. */
  strictFlag(name: string): boolean {
    const value = this.query(name)
    if (value === undefined || value === '') return false
    if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(value)) return true
    if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(value)) return false
    throw new UserError('invalidInput', `invalid value for ${name}: "${value}"`, {
      next: 'Use true or false.',
    })
  }

  /** The object version that an update was decided on. */
  objectVersion(kind: string): number {
    const text = this.query('version') ?? ''
    if (/^\d{1,16}$/.test(text)) return Number(text)
    throw new UserError(
      'invalidInput',
      `invalid ${kind} version '${text}': strconv.ParseUint: parsing "${text}": invalid syntax`,
    )
  }

  filters(accepted?: readonly string[]): Filters {
    return parseFilters(this.query('filters'), accepted)
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name]
    return typeof value === 'string' && value !== '' ? value : undefined
  }

  /** The body as JSON. Throws when there is none, or none that can be read. */
  json(): unknown {
    if (!this.body || this.body.length === 0) {
      throw new UserError('invalidInput', 'the request has no body', {
        next: 'Send a JSON object.',
      })
    }
    try {
      return JSON.parse(this.body.toString('utf8'))
    } catch (error) {
      // The parser's own words may quote the body, which may hold a secret: only the place is told.
      const place = /at position \d+(?: \(line \d+ column \d+\))?/.exec(String(error))?.[0]
      throw new UserError(
        'invalidInput',
        `invalid JSON in the request body${place ? ` ${place}` : ''}`,
      )
    }
  }

  read<T>(shape: Shape<T>): { readonly value: T; readonly unknown: readonly string[] } {
    return readBody(shape, this.json())
  }

  /** Takes the response over: the caller writes to it and ends it. */
  stream(): {
    readonly request: IncomingMessage
    readonly response: ServerResponse
    /** Aborts when the client has gone. */
    readonly signal: AbortSignal
  } {
    this.#reply.hijack()
    const gone = new AbortController()
    this.#reply.raw.once('close', () => gone.abort())
    return { request: this.#request.raw, response: this.#reply.raw, signal: gone.signal }
  }

  /** Aborts when the client has gone without an answer. */
  get gone(): AbortSignal {
    const gone = new AbortController()
    this.#reply.raw.once('close', () => gone.abort())
    return gone.signal
  }

  get response(): ServerResponse {
    return this.#reply.raw
  }

  /** Path and query as the client sent them, without the version. */
  get target(): string {
    return this.#request.raw.url ?? '/'
  }

  get originalTarget(): string {
    return this.#request.originalUrl
  }
}

function textOf(values: unknown, name: string): string | undefined {
  if (typeof values !== 'object' || values === null) return undefined
  const found: unknown = Object.entries(values).find(([key]) => key === name)?.[1]
  const value: unknown = Array.isArray(found) ? found[0] : found
  return typeof value === 'string' ? value : undefined
}
