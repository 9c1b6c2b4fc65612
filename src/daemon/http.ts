import { createServer, type Server } from 'node:http'
import { Gauge, Registry } from 'prom-client'
import { UserError } from '../base/index.ts'
import { isTerminal } from '../model/index.ts'
import type { Membership } from './membership.ts'
import { version } from './version.ts'

export interface HttpListener {
  /** Where it really listens: `127.0.0.1:7780`. */
  readonly address: string
  close(): Promise<void>
}

/** Serves `/metrics` (OpenMetrics text) and `/healthz` on `address`, as `127.0.0.1:7780`. */
export async function listenHttp(address: string, membership: Membership): Promise<HttpListener> {
  const registry = openMetrics(membership)
  const server = createServer((request, response) => {
    const answer = (status: number, type: string, body: string) =>
      response.writeHead(status, { 'Content-Type': type }).end(body)
    const path = request.url?.split('?')[0]
    if (path === '/metrics') {
      registry.metrics().then(
        (text) => answer(200, registry.contentType, text),
        (error: unknown) => answer(500, 'text/plain', String(error)),
      )
    } else if (path === '/healthz') {
      const { localNodeState, error } = membership.state()
      answer(
        error === '' ? 200 : 503,
        'application/json',
        `${JSON.stringify({ state: localNodeState, error })}\n`,
      )
    } else answer(404, 'text/plain', 'not found: try /metrics or /healthz\n')
  })
  await listen(server, address)
  const bound = server.address()
  return {
    address: typeof bound === 'object' && bound ? `${bound.address}:${bound.port}` : address,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function listen(server: Server, address: string): Promise<void> {
  const match = /^(.*):(\d+)$/.exec(address)
  if (!match) {
    throw new UserError('invalidInput', `"${address}" is not an address to listen on`, {
      next: 'Give --http as host:port, such as 127.0.0.1:7780, or an empty text to switch it off.',
    })
  }
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new UserError('failedPrecondition', `cannot listen on ${address}: ${error.message}`, {
          next: 'Choose another address with --http.',
          cause: error,
        }),
      ),
    )
    server.listen(Number(match[2]), match[1]?.replace(/^\[|\]$/g, ''), resolve)
  })
}

/** Values are read from the state when they are asked for: nothing is counted beside it. */
function openMetrics(membership: Membership): Registry {
  const registers = [new Registry()]
  const [registry] = registers
  if (!registry) throw new Error('no registry')
  new Gauge({
    name: 'skep_info',
    help: 'Version of Skep.',
    labelNames: ['version'],
    registers,
  }).set({ version }, 1)
  new Gauge({
    name: 'skep_tasks',
    help: 'Tasks by state.',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset()
      const counts = new Map<string, number>()
      for (const { status } of membership.member?.store.view.list('task') ?? []) {
        counts.set(status.state, (counts.get(status.state) ?? 0) + 1)
      }
      for (const [state, count] of counts) this.set({ state }, count)
    },
  })
  new Gauge({
    name: 'skep_objects',
    help: 'Objects in the store by kind.',
    labelNames: ['kind'],
    registers,
    collect() {
      const view = membership.member?.store.view
      for (const kind of ['node', 'workload', 'network', 'secret', 'config', 'task'] as const) {
        this.set({ kind }, view?.count(kind) ?? 0)
      }
    },
  })
  new Gauge({
    name: 'skep_tasks_unsettled',
    help: 'Tasks that are not in their desired state.',
    registers,
    collect() {
      let unsettled = 0
      for (const { status, desiredState } of membership.member?.store.view.list('task') ?? []) {
        const ends = desiredState === 'shutdown' || desiredState === 'remove'
        if (
          ends
            ? !isTerminal(status.state)
            : desiredState === 'running' && status.state !== 'running'
        )
          unsettled++
      }
      this.set(unsettled)
    },
  })
  new Gauge({
    name: 'skep_store_revision',
    help: 'Commits since the store was made.',
    registers,
    collect() {
      this.set(membership.member?.store.view.revision ?? 0)
    },
  })
  new Gauge({
    name: 'skep_network_drift_repaired',
    help: 'Differences between the declared and the actual network that audits found and repaired.',
    registers,
    collect() {
      this.set(membership.agent?.driftCount() ?? 0)
    },
  })
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the daemon.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss())
    },
  })
  return registry
}
