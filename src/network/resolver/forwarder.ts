import { createSocket } from 'node:dgram'
import { readFileSync, statSync } from 'node:fs'
import { connect, isIP, isIPv6 } from 'node:net'

/** Queries that wait for an answer from outside; more are answered with a failure at once. */
export const pendingQueriesMax = 512
/** How long all nameservers together may take, in ms: the engine's own resolver gives up at 4 s. */
const answerMsMax = 3500
const serverMsMax = 1500
const serversMax = 3
/** How long what was read from resolv.conf holds, in ms. */
const resolvConfMs = 2000

/** Asks other nameservers: a task's own, or the host's. */
export class Forwarder {
  readonly #resolvConf: string
  readonly #nowMs: () => number
  readonly #port: number
  #pending = 0
  #hostServers: readonly string[] = []
  #hostServersUntilMs = 0
  #hostServersStamp = ''
  /** Addresses the resolver listens on: asked, it would ask itself. */
  own: ReadonlySet<string> = new Set()

  constructor(options: {
    readonly resolvConf: string
    readonly nowMs: () => number
    /** Where nameservers listen. Default 53. */
    readonly port?: number
  }) {
    this.#resolvConf = options.resolvConf
    this.#nowMs = options.nowMs
    this.#port = options.port ?? 53
  }

  /** The answer as it came, with the query's id; undefined when none came in time, or too many are waiting. */
  async ask(
    query: Buffer,
    nameservers: readonly string[],
    transport: 'udp' | 'tcp',
  ): Promise<Buffer | undefined> {
    if (this.#pending >= pendingQueriesMax) return undefined
    this.#pending++
    try {
      const given = nameservers.filter((server) => this.#isUsable(server) && !isLoopback(server))
      const servers = (given.length > 0 ? given : this.#readHostServers()).slice(0, serversMax)
      const eachMs = Math.min(serverMsMax, answerMsMax / Math.max(1, servers.length))
      for (const server of servers) {
        const answer = await (transport === 'udp' ? askUdp : askTcp)(
          query,
          { server, port: this.#port },
          eachMs,
        )
        if (answer) return answer
      }
      return undefined
    } finally {
      this.#pending--
    }
  }

  #readHostServers(): readonly string[] {
    const nowMs = this.#nowMs()
    if (nowMs < this.#hostServersUntilMs) return this.#hostServers
    this.#hostServersUntilMs = nowMs + resolvConfMs
    try {
      const { mtimeMs, ino } = statSync(this.#resolvConf)
      const stamp = `${ino} ${mtimeMs}`
      if (stamp !== this.#hostServersStamp) {
        const found = parseResolvConf(readFileSync(this.#resolvConf, 'utf8'))
        this.#hostServers = found.filter((server) => this.#isUsable(server))
        this.#hostServersStamp = stamp
      }
    } catch {
      this.#hostServers = [] // A host without resolvers: every name outside the cluster fails, as it does there.
      this.#hostServersStamp = ''
    }
    return this.#hostServers
  }

  #isUsable(server: string): boolean {
    return isIP(server.split('%')[0] ?? '') !== 0 && !this.own.has(server)
  }
}

/** A task's own loopback is not this process's. */
function isLoopback(server: string): boolean {
  return server.startsWith('127.') || server === '::1'
}

/** Addresses of the `nameserver` lines. Source: resolv.conf(5). */
export function parseResolvConf(text: string): readonly string[] {
  return text.split('\n').flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? [])
}

interface Nameserver {
  readonly server: string
  readonly port: number
}

function askUdp(
  query: Buffer,
  { server, port }: Nameserver,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    // One socket for one question: a fresh port each, and only this server's packets get in.
    const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4')
    const end = (answer: Buffer | undefined) => {
      clearTimeout(timer)
      socket.removeAllListeners().on('error', () => {})
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => end(undefined), timeoutMs)
    socket.on('error', () => end(undefined))
    socket.on('message', (answer) => {
      if (isAnswerTo(query, answer)) end(answer)
    })
    socket.connect(port, server, () => socket.send(query))
  })
}

function askTcp(
  query: Buffer,
  { server, port }: Nameserver,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: server, port })
    let received = Buffer.alloc(0)
    const end = (answer: Buffer | undefined) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => end(undefined), timeoutMs)
    socket.on('error', () => end(undefined)).on('close', () => end(undefined))
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk])
      const [answer] = splitFrames(received).frames
      if (answer) end(isAnswerTo(query, answer) ? answer : undefined)
    })
    socket.write(frame(query))
  })
}

function isAnswerTo(query: Buffer, answer: Buffer): boolean {
  return (
    answer.length >= 12 &&
    answer.readUInt16BE(0) === query.readUInt16BE(0) &&
    answer.readUInt8(2) >= 0x80
  )
}

/** A message as it goes over tcp: its length before it. Source: RFC 1035, 4.2.2. */
export function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(2)
  head.writeUInt16BE(message.length)
  return Buffer.concat([head, message])
}

/** The whole messages in what has come over tcp so far, and the rest. */
export function splitFrames(bytes: Buffer): {
  readonly frames: readonly Buffer[]
  readonly rest: Buffer
} {
  const frames: Buffer[] = []
  let start = 0
  while (bytes.length - start >= 2) {
    const end = start + 2 + bytes.readUInt16BE(start)
    if (bytes.length < end) break
    frames.push(bytes.subarray(start + 2, end))
    start = end
  }
  return { frames, rest: bytes.subarray(start) }
}
