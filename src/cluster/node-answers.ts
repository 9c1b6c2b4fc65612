import type { Duplex } from 'node:stream'
import { type Log, messageOf } from '../base/index.ts'
import type { TaskId } from '../model/index.ts'
import type { LogSource, NetworkExaminer, PathProbeOrder } from '../wire/index.ts'
import { bridge } from './byte-bridge.ts'
import { callMessage, logLineMessage, type NodeRequest, refused } from './messages.ts'
import { Fields } from './read.ts'
import type { MessageStream, Transport } from './transport.ts'

/** What a node can be asked for. */
export interface NodeServices {
  readonly logs: LogSource
  /** A new connection to what takes managers' calls about tasks' containers; it allows half of it to end. */
  readonly connectEngine: () => Duplex
  readonly network: NetworkExaminer
  /** A connection to a port of a task on this node; it allows half of it to end. */
  readonly dial: (taskId: TaskId, port: number, by: string) => Promise<Duplex>
}

/** Questions that one node answers at the same time. */
const answersMax = 2_000

/** Answers what managers ask of this node: each on a stream that this node opens, until either side closes it. */
export class NodeAnswers {
  readonly #transport: Transport
  readonly #services: NodeServices
  readonly #skepVersion: string
  readonly #log: Log
  readonly #stop = new AbortController()
  #open = 0

  constructor(transport: Transport, services: NodeServices, skepVersion: string, log: Log) {
    this.#transport = transport
    this.#services = services
    this.#skepVersion = skepVersion
    this.#log = log
  }

  answer(ask: {
    readonly id: string
    readonly address: string
    readonly request: NodeRequest
  }): void {
    if (this.#open >= answersMax) {
      this.#log.warn('too many questions are open; one is not answered', { kind: ask.request.kind })
      return
    }
    this.#open += 1
    this.#answer(ask)
      .catch((error: unknown) =>
        this.#log.debug('a question was not answered to its end', {
          kind: ask.request.kind,
          error: messageOf(error),
        }),
      )
      .finally(() => {
        this.#open -= 1
      })
  }

  close(): void {
    this.#stop.abort()
  }

  async #answer({
    id,
    address,
    request,
  }: {
    readonly id: string
    readonly address: string
    readonly request: NodeRequest
  }): Promise<void> {
    const { signal } = this.#stop
    const stream = await this.#transport.connect(address, { type: 'cluster' }, signal)
    try {
      await stream.send(callMessage({ call: 'answer', requestId: id }, this.#skepVersion))
      switch (request.kind) {
        case 'logs':
          await sendLogs(this.#services.logs, request, stream, signal)
          await stream.send({ type: 'end' })
          break
        case 'engine':
          await bridge(stream, this.#services.connectEngine())
          break
        case 'examine':
          await stream.send({ type: 'examined', ...(await this.#services.network.examine()) })
          break
        case 'probe':
          await probePaths(this.#services.network, request.order, stream, signal)
          break
        case 'forward': {
          const { taskId, port, by } = request
          const socket = await this.#services.dial(taskId, port, by)
          await stream.send({ type: 'connected' })
          await bridge(stream, socket)
          break
        }
        default:
          request satisfies never
      }
    } catch (error) {
      await stream.send(refused(error)).catch(() => {})
      throw error
    } finally {
      stream.close()
    }
  }
}

/** Counts what others send and sends when it is told, until the asker has what it wants, or is gone. */
async function probePaths(
  network: NetworkExaminer,
  order: PathProbeOrder,
  stream: MessageStream,
  signal: AbortSignal,
): Promise<void> {
  const probe = await network.openProbe(order)
  try {
    await stream.send({ type: 'ready' })
    for (;;) {
      const message = await stream.receive(signal)
      if (message === undefined) return
      const type = new Fields('probe', message).oneOf('type', ['send', 'read'])
      if (type === 'send') await stream.send({ type: 'sent', failed: await probe.send() })
      else await stream.send({ type: 'counts', counts: await probe.read() })
    }
  } finally {
    await probe.close()
  }
}

/** Sends lines no faster than they are taken, and stops when the asker hangs up. */
async function sendLogs(
  logs: LogSource,
  { taskId, options }: Extract<NodeRequest, { readonly kind: 'logs' }>,
  stream: MessageStream,
  signal: AbortSignal,
): Promise<void> {
  const gone = new AbortController()
  // Nothing comes from the asker but its end.
  void stream
    .receive(gone.signal)
    .catch(() => {})
    .finally(() => gone.abort())
  try {
    for await (const line of logs.logs(taskId, options, AbortSignal.any([signal, gone.signal]))) {
      await stream.send(logLineMessage(line))
    }
  } finally {
    gone.abort()
  }
}
