import { messageOf, UserError, untilAborted } from '../../base/index.ts'
import { type Answer, type Call, json, type Route } from './call.ts'
import { type ApiContext, apiVersionMin, commonHeaders } from './context.ts'
import { minorOf } from './downgrade.ts'
import { type ClusterEvent, isWanted } from './events.ts'
import { readTime } from './logs.ts'
import { raiseCluster } from './raise.ts'

export function systemRoutes(api: ApiContext): readonly Route[] {
  const ping =
    (withBody: boolean) =>
    async (call: Call): Promise<Answer> => {
      const identity = await api.identity()
      const isNew = minorOf(call.version) >= 42
      return {
        type: 'sent',
        status: 200,
        text: withBody ? 'OK' : undefined,
        headers: {
          'Cache-Control': 'no-cache, no-store, must-revalidate',
          Pragma: 'no-cache',
          'Content-Type': 'text/plain; charset=utf-8',
          ...(isNew ? { Swarm: swarmHeader(api) } : {}),
          ...(identity.builderVersion === undefined
            ? {}
            : { 'Builder-Version': identity.builderVersion }),
        },
      }
    }
  // `node ls` and `stack deploy` ask for both, and work while the engine restarts.
  const info = lastKnown(
    () => api.engine.info(),
    (last) => ({
      ...last,
      Warnings: ['WARNING: the local engine does not answer: this is what it said last'],
    }),
  )
  const engineVersion = lastKnown(
    () => api.engine.version(),
    (last) => last,
  )
  return [
    { method: 'HEAD', path: '/_ping', handle: ping(false) },
    { method: 'GET', path: '/_ping', handle: ping(true) },
    {
      method: 'GET',
      path: '/version',
      async handle() {
        const [version, { apiVersion }] = await Promise.all([engineVersion(), api.identity()])
        const parts: Readonly<Record<string, unknown>> = { ...version }
        const components: readonly unknown[] = Array.isArray(parts['Components'])
          ? parts['Components']
          : []
        const skep = { Name: 'Skep', Version: api.skepVersion, Details: {} }
        return json({
          ...version,
          Components: [...components, skep],
          ApiVersion: apiVersion,
          MinAPIVersion: apiVersionMin,
        })
      },
    },
    {
      method: 'GET',
      path: '/info',
      async handle() {
        return json({ ...(await info()), Swarm: swarmInfo(api) })
      },
    },
    { method: 'GET', path: '/events', handle: (call) => streamEvents(api, call) },
  ]
}

/** What `ask` answers, or `stale` of what it answered last while it cannot be reached. */
function lastKnown<T>(ask: () => Promise<T>, stale: (last: T) => T): () => Promise<T> {
  let last: T | undefined
  return async () => {
    try {
      last = await ask()
      return last
    } catch (error) {
      const isAway = error instanceof UserError && error.code === 'unavailable'
      if (last === undefined || !isAway) throw error
      return stale(last)
    }
  }
}

function swarmHeader(api: ApiContext): string {
  const { localNodeState, controlAvailable } = api.node.state()
  if (localNodeState !== 'active') return localNodeState
  return controlAvailable ? 'active/manager' : 'active/worker'
}

function swarmInfo(api: ApiContext): object {
  const state = api.node.state()
  const store = state.controlAvailable ? api.control()?.store : undefined
  return {
    NodeID: state.nodeId,
    NodeAddr: state.nodeAddress,
    LocalNodeState: state.localNodeState,
    ControlAvailable: state.controlAvailable,
    Error: state.error,
    RemoteManagers:
      state.remoteManagers.length > 0
        ? state.remoteManagers.map(({ nodeId, address }) => ({ NodeID: nodeId, Addr: address }))
        : null,
    ...(store ? managerInfo(store.view) : {}),
  }
}

type View = NonNullable<ReturnType<ApiContext['control']>>['store']['view']

function managerInfo(view: View): object {
  let managers = 0
  for (const { spec } of view.list('node')) if (spec.role === 'manager') managers++
  const [cluster] = view.list('cluster')
  return {
    Nodes: view.count('node'),
    Managers: managers,
    ...(cluster ? { Cluster: raiseCluster(cluster) } : {}),
    ...(managers === 2
      ? {
          Warnings: [
            'WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and poses a high risk to lose control over the cluster. Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the Swarm for fault-tolerance.',
          ],
        }
      : {}),
  }
}

/** Events that wait for a slow reader; then it is cut off, and may ask again with `since`. */
const eventBytesWaitingMax = 4 * 1024 * 1024

/** The cluster's events and the engine's, in one stream. */
async function streamEvents(api: ApiContext, call: Call): Promise<Answer> {
  const filters = call.filters()
  const sinceMs = readTime(call.query('since'))
  const untilMs = readTime(call.query('until'))
  if (sinceMs !== undefined && untilMs !== undefined && sinceMs > untilMs) {
    throw new UserError('invalidInput', '`since` cannot be after `until`')
  }
  const identity = await api.identity()
  const { response, signal } = call.stream()
  const end = new AbortController()
  signal.addEventListener('abort', () => end.abort(), { once: true })
  response.writeHead(200, { ...commonHeaders(identity), 'Content-Type': 'application/json' })
  response.flushHeaders()
  const write = (event: unknown) => {
    if (end.signal.aborted) return
    response.write(`${JSON.stringify(event)}\n`)
    if (response.writableLength > eventBytesWaitingMax) end.abort()
  }
  const offer = (event: ClusterEvent) => {
    if (isWanted(event, filters)) write(event)
  }
  if (sinceMs !== undefined) {
    for (const event of api.events.kept) {
      const atMs = event.timeNano / 1e6
      if (atMs >= sinceMs && (untilMs === undefined || atMs <= untilMs)) offer(event)
    }
  }
  const isPast = untilMs !== undefined && untilMs <= api.clock.nowMs()
  const stop = isPast ? () => {} : api.events.listen(offer)
  const until =
    untilMs === undefined
      ? undefined
      : api.clock
          .sleep(Math.max(0, untilMs - api.clock.nowMs()), end.signal)
          // The engine ends its own stream by its own clock, a moment later at most.
          .then(() => api.clock.sleep(isPast ? engineGraceMs : 0, end.signal))
  const engine = forwardEngine(api, call, filters.toJson(), write, end.signal)
  await (until
    ? Promise.race([until, isPast ? engine : untilAborted(end.signal)])
    : untilAborted(end.signal))
  if (until && !isPast) await Promise.race([engine, api.clock.sleep(engineGraceMs, end.signal)])
  stop()
  end.abort()
  response.end()
  return { type: 'streamed' }
}

/** How long the engine may take to send its last events once `until` has come, in ms. */
const engineGraceMs = 1_000

/** Passes the engine's events on, and looks for it again when it goes away. */
async function forwardEngine(
  api: ApiContext,
  call: Call,
  filters: Readonly<Record<string, readonly string[]>>,
  write: (event: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  const since = call.query('since')
  const until = call.query('until')
  const wish = { filters, ...(since ? { since } : {}), ...(until ? { until } : {}) }
  for (let isFirst = true; !signal.aborted; isFirst = false) {
    try {
      const { since: _past, ...fromNow } = wish
      for await (const event of await api.engine.events(isFirst ? wish : fromNow, signal)) {
        write(event)
      }
      if (until) return
    } catch (error) {
      if (signal.aborted) return
      api.log.debug('the engine does not tell its events', { error: messageOf(error) })
      if (error instanceof UserError && error.code === 'invalidInput') return
    }
    await api.clock.sleep(engineRetryMs, signal)
  }
}

/** Pause before the engine is asked again for its events, in ms. */
const engineRetryMs = 1_000
