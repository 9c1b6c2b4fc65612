/**
 * A steady load of HTTP requests, in a process of its own so that it may run in any network namespace:
 *
 *   node load-main.ts '{"streams": [{"name": "a", "host": "web", "port": 80, "isKept": true, "perSecond": 500}]}'
 *
 * Requests are due at fixed times, whether earlier ones were answered or not; the process goes before all others. It runs until
 * its standard input ends, then prints one `LoadResult`. A name is asked for anew at each connection (`ask-name.ts`). A request on
 * a kept connection that ends before a byte of the answer is sent again once, on a new one, as HTTP clients do (RFC 9112, 9.3.1);
 * these are counted apart.
 */
import { connect, isIP, type Socket } from 'node:net'
import { setPriority } from 'node:os'
import { messageOf } from '../../src/base/index.ts'
import { askName } from './ask-name.ts'
import type { LoadFailure, LoadResult, LoadStream, StreamResult } from './load.ts'

/** Longest wait for an answer, in ms. */
const answerMsMax = 5000
/** Requests of one stream under way at a time; those beyond wait for their turn. */
const underWayMax = 256
const failuresKept = 20
const tickMs = 5
/** Above all else here: the clients it stands for have processors of their own. */
const niceness = -15

const { streams }: { streams: readonly LoadStream[] } = JSON.parse(process.argv[2] ?? '')

class Stream {
  readonly #stream: LoadStream
  readonly #request: Buffer
  readonly #idle: Socket[] = []
  readonly #latenciesMs: number[] = []
  readonly #failures: LoadFailure[] = []
  #due = 0
  #underWay = 0
  #sent = 0
  #answered = 0
  #failed = 0
  #retried = 0
  #askedAgain = 0
  #servers = new Map<string, number>()

  constructor(stream: LoadStream) {
    this.#stream = stream
    this.#request = Buffer.from(
      `GET ${stream.path ?? '/'} HTTP/1.1\r\nHost: ${stream.host}\r\n${stream.isKept ? '' : 'Connection: close\r\n'}\r\n`,
    )
  }

  get isIdle(): boolean {
    return this.#underWay === 0
  }

  fire(elapsedMs: number): void {
    this.#due = Math.floor((elapsedMs / 1000) * this.#stream.perSecond)
    while (this.#sent < this.#due && this.#underWay < underWayMax) {
      this.#sent++
      this.#underWay++
      void this.#send().finally(() => {
        this.#underWay--
      })
    }
  }

  async #send(): Promise<void> {
    const startMs = Date.now()
    const beganMs = performance.now()
    let isRetried = false
    for (;;) {
      const reused = isRetried ? undefined : this.#idle.pop()
      const outcome = await this.#attempt(reused)
      if (outcome === undefined) {
        this.#answered++
        this.#latenciesMs.push(performance.now() - beganMs)
        return
      }
      if (reused && outcome.isBeforeAnswer && outcome.kind !== 'timeout') {
        isRetried = true
        this.#retried++
        continue
      }
      this.#failed++
      if (this.#failures.length < failuresKept) {
        this.#failures.push({ atMs: startMs, kind: outcome.kind, localPort: outcome.localPort })
      } else {
        this.#failures[failuresKept - 1] = {
          atMs: startMs,
          kind: outcome.kind,
          localPort: outcome.localPort,
        }
      }
      return
    }
  }

  async #attempt(
    reused: Socket | undefined,
  ): Promise<{ kind: string; isBeforeAnswer: boolean; localPort: number } | undefined> {
    let host = this.#stream.host
    if (!reused && isIP(host) === 0) {
      try {
        host = await askName(host, () => {
          this.#askedAgain++
        })
      } catch (error) {
        return { kind: `name: ${messageOf(error)}`, isBeforeAnswer: true, localPort: 0 }
      }
    }
    return await new Promise((resolve) => {
      const socket = reused ?? connect({ host, port: this.#stream.port, noDelay: true })
      let text = ''
      let expected = -1
      let localPort = socket.localPort ?? 0
      const timer = setTimeout(() => end('timeout'), answerMsMax)
      const end = (kind: string | undefined) => {
        clearTimeout(timer)
        socket.removeAllListeners()
        socket.on('error', () => {})
        if (kind === undefined && this.#stream.isKept && !/^connection: close/im.test(text)) {
          this.#keep(socket)
        } else socket.destroy()
        resolve(kind === undefined ? undefined : { kind, isBeforeAnswer: text === '', localPort })
      }
      socket.once('connect', () => {
        localPort = socket.localPort ?? 0
      })
      socket.on('error', (error) => end(codeOf(error)))
      socket.on('close', () => end('closed'))
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
        if (expected < 0) {
          const head = text.indexOf('\r\n\r\n')
          if (head < 0) return
          const length = /^content-length: (\d+)/im.exec(text)?.[1]
          expected = head + 4 + Number(length ?? 0)
        }
        if (text.length < expected) return
        const status = text.slice(9, 12)
        const server = /^x-hostname: (.*)$/im.exec(text)?.[1]?.trim() ?? ''
        this.#servers.set(server, (this.#servers.get(server) ?? 0) + 1)
        end(status === '200' ? undefined : `status ${status}`)
      })
      socket.write(this.#request)
    })
  }

  #keep(socket: Socket): void {
    this.#idle.push(socket)
    const drop = () => {
      const place = this.#idle.indexOf(socket)
      if (place >= 0) this.#idle.splice(place, 1)
      socket.destroy()
    }
    socket.once('close', drop).once('error', drop).once('end', drop)
  }

  result(): StreamResult {
    for (const socket of this.#idle.splice(0)) socket.destroy()
    const sorted = this.#latenciesMs.sort((a, b) => a - b)
    return {
      name: this.#stream.name,
      sent: this.#sent,
      answered: this.#answered,
      failed: this.#failed,
      retried: this.#retried,
      askedAgain: this.#askedAgain,
      late: this.#due - this.#sent,
      p50Ms: sorted[Math.floor(sorted.length * 0.5)] ?? Number.NaN,
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
      failures: this.#failures,
      servers: this.#servers.size,
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}

setPriority(niceness)
const running = streams.map((stream) => new Stream(stream))
const beganMs = performance.now()
let lastTickMs = beganMs
let stalledMs = 0
const ticking = setInterval(() => {
  stalledMs = Math.max(stalledMs, performance.now() - lastTickMs)
  lastTickMs = performance.now()
  for (const stream of running) stream.fire(performance.now() - beganMs)
}, tickMs)
process.stdin.resume().once('end', () => {
  clearInterval(ticking)
  const seconds = (performance.now() - beganMs) / 1000
  const endMs = performance.now() + answerMsMax + 500
  const finish = setInterval(() => {
    if (!running.every(({ isIdle }) => isIdle) && performance.now() < endMs) return
    clearInterval(finish)
    const result: LoadResult = {
      ...{ seconds, stalledMs },
      streams: running.map((stream) => stream.result()),
    }
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
  }, 20)
})
