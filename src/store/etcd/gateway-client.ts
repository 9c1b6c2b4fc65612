import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http'
import { type Clock, type Log, messageOf } from '../../base/index.ts'
import {
  type CallOptions,
  callDeadlineMs,
  type EtcdClient,
  EtcdError,
  type EtcdErrorReason,
  type EtcdMember,
  type EtcdStatus,
  type Lease,
  type RangeRequest,
  type RangeResult,
  type Txn,
  type TxnResult,
  type WatchBatch,
  type WatchRequest,
} from './client.ts'
import {
  formatRange,
  formatTxn,
  parseEvents,
  parseMember,
  parseMembers,
  parseRange,
  parseStatus,
  parseTxn,
  type Reading,
  readingOf,
  toBase64,
} from './gateway-json.ts'

export interface GatewayClientOptions {
  /** Where members answer: the absolute paths of their sockets, best first. A manager has its own member's only. */
  readonly endpoints: readonly string[]
  readonly clock: Clock
  readonly log: Log
  /** Silence after which a watch is given up, in ms. Default 3_000: etcd is started so that it speaks every second. */
  readonly watchSilenceMs?: number
}

/** Longest wait for a connection, in ms. */
const connectMs = 1_000
/** Longest wait for one member's answer to something that may be asked of another too, in ms. */
const readAttemptMs = 1_500
/** How long an endpoint that failed is asked last, in ms. */
const avoidMs = 5_000
/** Most connections to one member; further calls wait for one. */
const connectionsMax = 16
/** Largest answer, in bytes: a page of objects, each at its greatest. */
const answerBytesMax = 256_000_000

/** A failure, and whether anything may have reached the member. */
interface Failure {
  readonly wasSent: boolean
  readonly error: EtcdError
}

/**
 * Talks to etcd (3.4 and later) through its JSON gateway, over HTTP/1.1 connections that are kept. The socket lies in a
 * directory that is closed to everyone else: that is what keeps others out (see `startEtcd`).
 */
export function openGatewayClient(options: GatewayClientOptions): EtcdClient {
  return new GatewayClient(options)
}

class GatewayClient implements EtcdClient {
  readonly #options: GatewayClientOptions
  readonly #clock: Clock
  readonly #closed = new AbortController()
  readonly #agent: Agent
  #endpoints: readonly string[]
  /** Until when each endpoint is asked last. */
  readonly #avoidUntilMs = new Map<string, number>()

  constructor(options: GatewayClientOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#endpoints = options.endpoints
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: connectionsMax,
      scheduling: 'lifo',
    })
  }

  useEndpoints(endpoints: readonly string[]): void {
    this.#endpoints = endpoints
    for (const known of this.#avoidUntilMs.keys()) {
      if (!endpoints.includes(known)) this.#avoidUntilMs.delete(known)
    }
  }

  avoidEndpoint(): void {
    const [endpoint] = this.#inOrder()
    if (endpoint !== undefined) this.#avoid(endpoint)
  }

  #avoid(endpoint: string): void {
    this.#avoidUntilMs.set(endpoint, this.#clock.nowMs() + avoidMs)
  }

  /** The endpoints in the order in which to ask: as given, those that failed lately last, the longest ago first. */
  #inOrder(): readonly string[] {
    const nowMs = this.#clock.nowMs()
    const failedMs = (endpoint: string): number => {
      const untilMs = this.#avoidUntilMs.get(endpoint) ?? 0
      return untilMs > nowMs ? untilMs : 0
    }
    return this.#endpoints.toSorted((a, b) => failedMs(a) - failedMs(b))
  }

  async txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    return parseTxn(await this.#write('/v3/kv/txn', formatTxn(txn), options), txn)
  }

  async range(request: RangeRequest, options: CallOptions = {}): Promise<RangeResult> {
    return parseRange(await this.#read('/v3/kv/range', formatRange(request), options))
  }

  async leaseGrant(ttlSeconds: number, options: CallOptions = {}): Promise<Lease> {
    const answer = await this.#write('/v3/lease/grant', { TTL: ttlSeconds }, options)
    return { leaseId: answer.text('ID'), ttlSeconds: answer.number('TTL') }
  }

  async leaseKeepAlive(leaseId: string, options: CallOptions = {}): Promise<Lease> {
    const answer = (await this.#read('/v3/lease/keepalive', { ID: leaseId }, options)).part(
      'result',
    )
    const ttlSeconds = answer?.number('TTL') ?? 0
    if (ttlSeconds <= 0) throw new EtcdError('leaseNotFound', 'requested lease not found')
    return { leaseId, ttlSeconds }
  }

  async leaseRevoke(leaseId: string, options: CallOptions = {}): Promise<void> {
    await this.#write('/v3/lease/revoke', { ID: leaseId }, options)
  }

  async compact(revision: number, options: CallOptions = {}): Promise<void> {
    try {
      await this.#write('/v3/kv/compaction', { revision: String(revision) }, options)
    } catch (error) {
      if (!(error instanceof EtcdError && error.reason === 'compacted')) throw error
    }
  }

  async memberList(options: CallOptions = {}): Promise<readonly EtcdMember[]> {
    // 3.4 knows no linearizable list and ignores the wish: there it is the picture of the member asked.
    return parseMembers(
      await this.#read('/v3/cluster/member/list', { linearizable: true }, options),
    )
  }

  async memberAdd(
    request: { readonly peerUrls: readonly string[]; readonly learner: boolean },
    options: CallOptions = {},
  ): Promise<EtcdMember> {
    const body = { peerURLs: request.peerUrls, isLearner: request.learner }
    return parseMember((await this.#write('/v3/cluster/member/add', body, options)).part('member'))
  }

  async memberPromote(memberId: string, options: CallOptions = {}): Promise<void> {
    await this.#write('/v3/cluster/member/promote', { ID: memberId }, options)
  }

  async memberRemove(memberId: string, options: CallOptions = {}): Promise<void> {
    await this.#write('/v3/cluster/member/remove', { ID: memberId }, options)
  }

  async memberUpdate(
    memberId: string,
    peerUrls: readonly string[],
    options: CallOptions = {},
  ): Promise<void> {
    const body = { ID: memberId, peerURLs: peerUrls }
    await this.#write('/v3/cluster/member/update', body, options)
  }

  async moveLeader(toMemberId: string, options: CallOptions = {}): Promise<void> {
    // Only the member that leads takes this call.
    let failure: EtcdError | undefined
    for (const endpoint of this.#inOrder()) {
      try {
        const status = await this.status({ ...options, endpoint })
        if (status.leaderId !== status.memberId) continue
        const untilMs = this.#untilMs(options)
        const body = { targetID: toMemberId }
        await this.#once(endpoint, '/v3/maintenance/transfer-leadership', body, untilMs, options)
        return
      } catch (error) {
        failure = failureOf(error).error
        if (failure.reason !== 'unavailable') throw failure
      }
    }
    throw failure ?? new EtcdError('unavailable', 'no member of etcd that answers leads')
  }

  async status(options: CallOptions & { readonly endpoint?: string } = {}): Promise<EtcdStatus> {
    const path = '/v3/maintenance/status'
    const { endpoint } = options
    if (endpoint === undefined) return parseStatus(await this.#read(path, {}, options))
    try {
      return parseStatus(await this.#once(endpoint, path, {}, this.#untilMs(options), options))
    } catch (error) {
      const { error: failure } = failureOf(error)
      if (failure.reason !== 'outcomeUnknown') throw failure
      throw new EtcdError('unavailable', failure.message, { cause: failure })
    }
  }

  async *snapshot(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for await (const line of this.#stream('/v3/maintenance/snapshot', {}, signal)) {
      const blob = line.part('result')?.optionalText('blob')
      if (blob !== undefined) yield Buffer.from(blob, 'base64')
    }
  }

  async *watch(request: WatchRequest, signal: AbortSignal): AsyncGenerator<WatchBatch> {
    const { key, end, fromRevision } = request
    const body = {
      create_request: {
        key: toBase64(key),
        ...(end !== undefined && { range_end: toBase64(end) }),
        start_revision: String(fromRevision),
        progress_notify: true,
      },
    }
    const silenceMs = this.#options.watchSilenceMs ?? 3_000
    let revision = fromRevision - 1
    for await (const line of this.#stream('/v3/watch', body, signal, silenceMs)) {
      const result = line.part('result')
      if (result === undefined) throw errorOf(line, 0)
      if (result.optionalText('compact_revision') !== undefined) {
        throw new EtcdError('compacted', `revision ${fromRevision} was compacted`)
      }
      if (result.boolean('canceled')) {
        const reason = result.optionalText('cancel_reason') ?? 'the member ended the watch'
        throw new EtcdError('unavailable', reason)
      }
      // What a sign of life says of the revision is not to be trusted: some versions send it ahead of the events.
      const events = parseEvents(result)
      const last = events.at(-1)
      if (last) revision = last.type === 'put' ? last.kv.modRevision : last.modRevision
      yield { revision, events }
    }
    if (!signal.aborted) throw new EtcdError('unavailable', 'the member ended the watch')
  }

  async close(): Promise<void> {
    this.#closed.abort()
    this.#agent.destroy()
  }

  #untilMs(options: CallOptions): number {
    return this.#clock.nowMs() + (options.deadlineMs ?? callDeadlineMs)
  }

  /** Asks one member after the other until one answers. */
  async #read(path: string, body: unknown, options: CallOptions): Promise<Reading> {
    const untilMs = this.#untilMs(options)
    for (;;) {
      let failure: EtcdError | undefined
      for (const endpoint of this.#inOrder()) {
        const nowMs = this.#clock.nowMs()
        if (failure && nowMs >= untilMs) break
        try {
          return await this.#once(
            endpoint,
            path,
            body,
            Math.min(untilMs, nowMs + readAttemptMs),
            options,
          )
        } catch (error) {
          failure = failureOf(error).error
          if (failure.reason !== 'unavailable' && failure.reason !== 'outcomeUnknown') throw failure
          this.#avoid(endpoint)
        }
      }
      failure ??= new EtcdError('unavailable', 'no endpoint of etcd is known')
      if (this.#clock.nowMs() + refusedPauseMs >= untilMs) {
        throw new EtcdError('unavailable', failure.message, { cause: failure })
      }
      // All refused at once, as while they start.
      await this.#clock.sleep(refusedPauseMs, options.signal)
    }
  }

  /** Asks members until one may have heard it. */
  async #write(path: string, body: unknown, options: CallOptions): Promise<Reading> {
    const untilMs = this.#untilMs(options)
    let failure = new EtcdError('unavailable', 'no endpoint of etcd is known')
    for (const endpoint of this.#inOrder()) {
      try {
        return await this.#once(endpoint, path, body, untilMs, options)
      } catch (error) {
        const { error: found, wasSent } = failureOf(error)
        failure = found
        if (found.reason === 'unavailable' || found.reason === 'outcomeUnknown')
          this.#avoid(endpoint)
        if (wasSent || found.reason !== 'unavailable') throw failure
      }
    }
    throw failure
  }

  async #once(
    endpoint: string,
    path: string,
    body: unknown,
    untilMs: number,
    { signal }: CallOptions,
  ): Promise<Reading> {
    const done = new AbortController()
    const timer = this.#clock.sleep(Math.max(0, untilMs - this.#clock.nowMs()), done.signal)
    const { promise, resolve, reject } = Promise.withResolvers<Reading>()
    const exchange = new Exchange(this.#requestOptions(endpoint, path), body, this.#clock)
    const stop = (reason: EtcdErrorReason, message: string): void => {
      if (done.signal.aborted) return
      exchange.abort()
      const settled = reason === 'outcomeUnknown' && !exchange.wasSent ? 'unavailable' : reason
      reject(new CallFailure(exchange.wasSent, new EtcdError(settled, message)))
    }
    void timer.then(() => stop('outcomeUnknown', `${endpoint} did not answer in time`))
    const onAbort = (): void => stop('cancelled', 'the call was cancelled')
    const onClose = (): void => stop('outcomeUnknown', 'the client of etcd is closed')
    signal?.addEventListener('abort', onAbort, { signal: done.signal })
    this.#closed.signal.addEventListener('abort', onClose, { signal: done.signal })
    try {
      if (signal?.aborted) onAbort()
      else if (this.#closed.signal.aborted) onClose()
      else exchange.whole(resolve, reject)
      return await promise
    } finally {
      done.abort()
    }
  }

  /** The lines of an answer that goes on and on. */
  async *#stream(
    path: string,
    body: unknown,
    signal: AbortSignal,
    silenceMs?: number,
  ): AsyncGenerator<Reading> {
    if (signal.aborted) return
    const [endpoint] = this.#inOrder()
    if (endpoint === undefined) throw new EtcdError('unavailable', 'no endpoint of etcd is known')
    const done = new AbortController()
    const exchange = new Exchange(
      // A stream keeps its connection to itself.
      { ...this.#requestOptions(endpoint, path), agent: false },
      body,
      this.#clock,
    )
    const stop = (): void => exchange.abort()
    signal.addEventListener('abort', stop, { signal: done.signal })
    this.#closed.signal.addEventListener('abort', stop, { signal: done.signal })
    let isSilent = false
    let heardAtMs = this.#clock.nowMs()
    const guard = async (): Promise<void> => {
      while (silenceMs !== undefined && !done.signal.aborted) {
        const leftMs = heardAtMs + silenceMs - this.#clock.nowMs()
        if (leftMs > 0) {
          await this.#clock.sleep(leftMs, done.signal)
          continue
        }
        isSilent = true
        exchange.abort()
        return
      }
    }
    void guard()
    try {
      for await (const line of exchange.lines(() => (heardAtMs = this.#clock.nowMs()))) yield line
    } catch (error) {
      if (signal.aborted) return
      this.#avoid(endpoint)
      if (isSilent) throw new EtcdError('unavailable', `${endpoint} has gone silent`)
      const { error: failure } = failureOf(error)
      throw failure.reason === 'outcomeUnknown'
        ? new EtcdError('unavailable', failure.message, { cause: failure })
        : failure
    } finally {
      done.abort()
      exchange.abort()
    }
  }

  #requestOptions(endpoint: string, path: string): RequestOptions {
    return {
      socketPath: endpoint,
      host: 'etcd',
      path,
      method: 'POST',
      agent: this.#agent,
      // Without a leader a member says so at once instead of keeping a watch that hears nothing.
      headers: { 'content-type': 'application/json', 'grpc-metadata-hasleader': 'true' },
    }
  }
}

/** Pause before members that all refused are asked again, in ms. */
const refusedPauseMs = 50

/** What `Exchange` throws. */
class CallFailure extends Error {
  readonly wasSent: boolean
  readonly error: EtcdError
  constructor(wasSent: boolean, error: EtcdError) {
    super(error.message, { cause: error })
    this.wasSent = wasSent
    this.error = error
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof CallFailure) return error
  if (error instanceof EtcdError) return { wasSent: true, error }
  throw error
}

/** One request and its answer. */
class Exchange {
  /** Whether the member may have got the request: it was written to a connection that stood. */
  wasSent = false
  readonly #options: RequestOptions
  readonly #body: string
  readonly #clock: Clock
  #request: ClientRequest | undefined
  #isAborted = false

  constructor(options: RequestOptions, body: unknown, clock: Clock) {
    this.#options = options
    this.#body = JSON.stringify(body)
    this.#clock = clock
  }

  abort(): void {
    this.#isAborted = true
    this.#request?.destroy()
  }

  #start(onResponse: (response: IncomingMessage) => void, onError: (error: Error) => void): void {
    const request = httpRequest(this.#options)
    request.setHeader('content-length', Buffer.byteLength(this.#body))
    this.#request = request
    const connected = new AbortController()
    request.on('socket', (socket) => {
      const send = (): void => {
        connected.abort()
        this.wasSent = true
        request.end(this.#body)
      }
      if (socket.connecting) socket.once('connect', send)
      else send()
    })
    request.on('response', onResponse)
    request.on('error', (error) => {
      connected.abort()
      onError(error)
    })
    request.flushHeaders()
    void this.#clock.sleep(connectMs, connected.signal).then(() => {
      if (!connected.signal.aborted) request.destroy(new Error('no connection in time'))
    })
    if (this.#isAborted) request.destroy()
  }

  /** Hands over the answer, or a CallFailure. */
  whole(resolve: (answer: Reading) => void, reject: (error: unknown) => void): void {
    const fail = (error: unknown): void => {
      const reason = this.wasSent ? 'outcomeUnknown' : 'unavailable'
      const message = `etcd at ${this.#options.socketPath}: ${messageOf(error)}`
      reject(new CallFailure(this.wasSent, new EtcdError(reason, message, { cause: error })))
    }
    this.#start((response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > answerBytesMax) this.#request?.destroy(new Error('the answer is too large'))
        else chunks.push(chunk)
      })
      response.on('error', fail)
      response.on('end', () => {
        try {
          const answer = readingOf(JSON.parse(Buffer.concat(chunks).toString()))
          const status = response.statusCode ?? 0
          if (status === 200) resolve(answer)
          else reject(new CallFailure(true, errorOf(answer, status)))
        } catch (error) {
          fail(error)
        }
      })
    }, fail)
  }

  /** The answer line by line, as it comes. Throws CallFailure. */
  async *lines(onHeard: () => void): AsyncGenerator<Reading> {
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) =>
        this.#start(resolve, reject),
      )
      let parts: Buffer[] = []
      for await (const chunk of response) {
        onHeard()
        let rest: Buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk))
        for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
          parts.push(rest.subarray(0, end))
          const line = readingOf(JSON.parse(Buffer.concat(parts).toString()))
          parts = []
          rest = rest.subarray(end + 1)
          if (response.statusCode !== 200) throw errorOf(line, response.statusCode ?? 0)
          yield line
        }
        if (rest.length > 0) parts.push(rest)
      }
      const last = Buffer.concat(parts).toString().trim()
      if (last !== '') throw errorOf(readingOf(JSON.parse(last)), response.statusCode ?? 0)
    } catch (error) {
      if (error instanceof EtcdError) throw error
      const message = `etcd at ${this.#options.socketPath}: ${messageOf(error)}`
      throw new EtcdError('unavailable', message, { cause: error })
    }
  }
}

/** etcd's words for what it refuses. Source: etcd, api/v3rpc/rpctypes/error.go. */
const reasons: readonly { readonly words: RegExp; readonly reason: EtcdErrorReason }[] = [
  { words: /revision has been compacted/, reason: 'compacted' },
  { words: /lease not found/, reason: 'leaseNotFound' },
  { words: /member not found/, reason: 'memberNotFound' },
  { words: /request is too large|too many operations|larger than max/, reason: 'tooLarge' },
  { words: /database space exceeded/, reason: 'noSpace' },
  { words: /unhealthy cluster/, reason: 'refused' },
]

/** Codes of gRPC after which it is sure that nothing was done. */
const refusedCodes: ReadonlySet<number> = new Set([3, 5, 6, 7, 9, 11, 12])

function errorOf(answer: Reading, status: number): EtcdError {
  const inner = answer.part('error') ?? answer
  const message =
    inner.optionalText('message') ?? inner.optionalText('error') ?? `HTTP status ${status}`
  const known = reasons.find(({ words }) => words.test(message))
  if (known) return new EtcdError(known.reason, message)
  const code = inner.optionalNumber('code') ?? inner.optionalNumber('grpc_code') ?? 2
  if (/no leader/.test(message)) return new EtcdError('outcomeUnknown', message)
  return new EtcdError(refusedCodes.has(code) ? 'refused' : 'outcomeUnknown', message)
}
