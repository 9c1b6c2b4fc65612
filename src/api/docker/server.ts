import { chmod, unlink } from 'node:fs/promises'
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { connect } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { UserError } from '../../base/index.ts'
import type { Control } from '../../control/index.ts'
import { replayed } from '../proxy/index.ts'
import { type Answer, bodyBytesMax, Call, type Route } from './call.ts'
import {
  type ApiContext,
  apiVersionMin,
  commonHeaders,
  type DockerApiOptions,
  type EngineIdentity,
} from './context.ts'
import { minorOf } from './downgrade.ts'
import { DockerError, refusalOf } from './errors.ts'
import { ClusterEvents } from './events.ts'
import { attachmentRoutes } from './routes-attachments.ts'
import { networkRoutes } from './routes-networks.ts'
import { nodeRoutes } from './routes-nodes.ts'
import { forward, isForward, reachRoutes } from './routes-reach.ts'
import { secretRoutes } from './routes-secrets.ts'
import { serviceRoutes } from './routes-services.ts'
import { skepRoutes } from './routes-skep.ts'
import { swarmRoutes } from './routes-swarm.ts'
import { systemRoutes } from './routes-system.ts'
import { taskRoutes } from './routes-tasks.ts'

export type ListenAddress =
  /** `mode`: permission bits of the socket file. */
  | { readonly path: string; readonly mode?: number }
  | {
      readonly host: string
      readonly port: number
      /** PEM. Clients must have a certificate of this authority. */
      readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
    }

export interface MemoryCall {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** Path and query, as on the wire. */
  readonly url: string
  /** Sent as JSON. */
  readonly body?: unknown
}

export interface DockerApi {
  /** Serves the API there too. Rejects when the address is taken. */
  listen(address: ListenAddress): Promise<Server>
  /** Answers one call in memory: no socket, no thread, no timer. */
  call(request: MemoryCall): Promise<{ readonly status: number; readonly text: string }>
  /** The same for what comes bit by bit, and hands on each piece. `hangUp` is as when a client goes. */
  stream(
    request: MemoryCall,
    client: { heard(bytes: Buffer): void; ended(): void },
  ): Promise<{ readonly status: number; readonly hangUp: () => void }>
  /** To be called when `control()` has become another one. Calls that change it do so themselves. */
  clusterChanged(): void
  /** Ends every connection. */
  close(): Promise<void>
}

/** Newest API version that is spoken. What the engine cannot speak is not announced. */
const apiVersionMax = '1.50'
/** Announced until the engine has answered once: what the oldest supported engine speaks. */
const apiVersionFallback = '1.41'
/** How long the engine's word about itself is believed, in ms. */
const identityMs = 5_000
/** How long it may take to say it, in ms: a hanging engine must not keep the cluster's calls waiting. */
const identityTimeoutMs = 2_000

export function openDockerApi(options: DockerApiOptions): DockerApi {
  const events = new ClusterEvents(options.clock)
  const api: ApiContext = {
    ...options,
    events,
    requireControl: () => requireControl(options),
    identity: engineIdentity(options),
    clusterChanged: () => events.follow(options.control()?.store),
  }
  api.clusterChanged()
  const routes = [
    ...systemRoutes(api),
    ...swarmRoutes(api),
    ...nodeRoutes(api),
    ...serviceRoutes(api),
    ...taskRoutes(api),
    ...secretRoutes(api),
    ...networkRoutes(api),
    ...attachmentRoutes(api),
    ...skepRoutes(api),
    ...reachRoutes(api),
  ]
  const apps = new Set<FastifyInstance>()
  const servers = new Set<Server>()
  let inMemory: FastifyInstance | undefined
  const inject = ({ method, url, body }: MemoryCall, payloadAsStream: boolean) => {
    // Its server never listens, so there is nothing to close.
    inMemory ??= openListener(api, routes, { path: '' }).app
    return inMemory.inject({
      method,
      url,
      payloadAsStream,
      ...(body === undefined
        ? {}
        : { payload: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
  }
  return {
    async listen(address) {
      const { app, server } = openListener(api, routes, address)
      await app.ready()
      if ('path' in address) await removeStaleSocket(address.path)
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen('path' in address ? { path: address.path } : address, () => {
          server.off('error', reject)
          resolve()
        })
      })
      apps.add(app)
      servers.add(server)
      if ('path' in address && address.mode !== undefined) await chmod(address.path, address.mode)
      return server
    },
    async call(request) {
      const answer = await inject(request, false)
      return { status: answer.statusCode, text: answer.payload }
    },
    async stream(request, client) {
      const answer = await inject(request, true)
      const bytes = answer.stream()
      bytes.on('data', (piece: Buffer) => client.heard(piece))
      bytes.once('close', () => client.ended())
      return { status: answer.statusCode, hangUp: () => answer.raw.res.destroy() }
    },
    clusterChanged: () => api.clusterChanged(),
    async close() {
      events.close()
      await Promise.all([...apps].map((app) => app.close()))
      apps.clear()
      // Fastify closes only what it made listen itself.
      await Promise.all([...servers].map(closeServer))
      servers.clear()
    },
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

function openListener(
  api: ApiContext,
  routes: readonly Route[],
  address: ListenAddress,
): { readonly app: FastifyInstance; readonly server: Server } {
  const tls = 'tls' in address ? address.tls : undefined
  // A build may take hours to send its context, and a quiet `events` may say nothing for days.
  const lasting = { requestTimeout: 0, keepAliveTimeout: 60_000 }
  let server: Server | undefined
  const app = fastify({
    serverFactory: (handler) => {
      server = tls
        ? createHttpsServer({ ...tls, ...lasting, requestCert: true }, handler)
        : createHttpServer(lasting, handler)
      server.on('checkContinue', (request, response) => {
        expecting.add(request)
        handler(request, response)
      })
      server.on('upgrade', (request, socket, head) => {
        if (isForward(request)) void forward(api, request, socket, head)
        else api.proxy.upgrade(request, socket, head)
      })
      return server
    },
    rewriteUrl: splitVersion,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    bodyLimit: bodyBytesMax,
    routerOptions: { maxParamLength: 1_024 },
    // What the router cannot read is the engine's to refuse.
    frameworkErrors: (_error, request, reply) => {
      pass(api, request, reply)
    },
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.addHook('onRequest', async (request, reply) => {
    // Before the body is read, so that what is not ours passes as it came.
    if (request.is404) return pass(api, request, reply)
    if (expecting.delete(request.raw)) reply.raw.writeContinue()
    const refusal = await refuseVersion(api, versionOf(request.raw))
    if (refusal) return sendError(reply, 400, refusal)
  })
  app.setErrorHandler((error, _request, reply) => {
    const { status, message } = describeError(api, error)
    return sendError(reply, status, message)
  })
  for (const route of routes) {
    app.route({
      method: route.method,
      url: route.path,
      handler: (request, reply) => handle(api, route, request, reply),
    })
  }
  // `serverFactory` has run by now: Fastify calls it while it is made.
  if (!server) throw new Error('broken invariant: Fastify has made no server')
  return { app, server }
}

/**
 * Whether the cluster's state is all that a route tells of: its answers are no older than the question. Networks, which
 * may be the engine's alone, see to it themselves.
 */
function isAboutCluster({ path }: Route): boolean {
  return /^\/((services|tasks|nodes|secrets|configs)\b|swarm$|swarm\/unlockkey$)/.test(path)
}

async function handle(
  api: ApiContext,
  route: Route,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const identity = await api.identity()
  const version = versionOf(request.raw) ?? identity.apiVersion
  const body = Buffer.isBuffer(request.body) ? request.body : undefined
  const call = new Call(request, reply, version, body)
  // Another manager may have acknowledged what has not come here yet; a read after that must tell of it.
  if (isAboutCluster(route)) await api.control()?.store.barrier?.()
  const answer: Answer = await route.handle(call)
  switch (answer.type) {
    case 'streamed':
      return reply
    case 'passed': {
      reply.hijack()
      const original = originalOf(request.raw)
      const raw = body || answer.body ? replayed(request.raw, answer.body ?? body) : request.raw
      raw.url = answer.url ?? original
      api.proxy.handle(raw, reply.raw)
      return reply
    }
    case 'sent':
      for (const [name, value] of Object.entries(commonHeaders(identity))) reply.header(name, value)
      for (const [name, value] of Object.entries(answer.headers)) reply.header(name, value)
      return reply.code(answer.status).send(bytesOf(answer.text))
  }
}

/** To text Fastify would add `; charset=utf-8`, with which the stock CLI takes no answer for JSON. */
function bytesOf(text: string | Buffer | undefined): Buffer | undefined {
  return typeof text === 'string' ? Buffer.from(text) : text
}

function pass(api: ApiContext, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  reply.hijack()
  request.raw.url = originalOf(request.raw)
  if (expecting.delete(request.raw)) api.proxy.checkContinue(request.raw, reply.raw)
  else api.proxy.handle(request.raw, reply.raw)
  return reply
}

function sendError(reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply
    .code(status)
    .header('Content-Type', 'application/json')
    .send(bytesOf(`${JSON.stringify({ message })}\n`))
}

function describeError(api: ApiContext, error: unknown): { status: number; message: string } {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : ''
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return {
      status: 413,
      message: `the request body is larger than ${bodyBytesMax} bytes, the most that is taken here`,
    }
  }
  if (typeof code === 'string' && code.startsWith('FST_ERR_')) {
    return { status: 400, message: error instanceof Error ? error.message : code }
  }
  const refusal = refusalOf(error)
  const isExpected = error instanceof UserError || error instanceof DockerError
  if (!isExpected) {
    const stack = error instanceof Error ? error.stack : undefined
    api.log.error('a call failed', { error: refusal.message, stack })
  }
  return refusal
}

/** Calls whose client waits for `100 Continue`. */
const expecting = new WeakSet<IncomingMessage>()

// ---- Versions in the path ----

interface Target {
  readonly version: string | undefined
  readonly url: string
}
const targetOf = new WeakMap<IncomingMessage, Target>()

/** Takes `/v1.41` off the path, and keeps both parts. */
function splitVersion(request: IncomingMessage): string {
  const url = request.url ?? '/'
  const match = /^\/v(\d{1,4}\.\d{1,4})(\/.*)$/.exec(url)
  targetOf.set(request, { version: match?.[1], url })
  return match?.[2] ?? url
}

function versionOf(request: IncomingMessage): string | undefined {
  return targetOf.get(request)?.version
}

function originalOf(request: IncomingMessage): string {
  return targetOf.get(request)?.url ?? request.url ?? '/'
}

async function refuseVersion(
  api: ApiContext,
  version: string | undefined,
): Promise<string | undefined> {
  if (version === undefined) return undefined
  const { apiVersion } = await api.identity()
  if (isOlder(apiVersion, version)) {
    return `client version ${version} is too new. Maximum supported API version is ${apiVersion}`
  }
  if (isOlder(version, apiVersionMin)) {
    return `client version ${version} is too old. Minimum supported API version is ${apiVersionMin}, please upgrade your client to a newer version`
  }
  return undefined
}

function isOlder(a: string, b: string): boolean {
  const major = Number(a.split('.')[0]) - Number(b.split('.')[0])
  return major === 0 ? minorOf(a) < minorOf(b) : major < 0
}

/** What the engine says of itself, asked again when it is older than `identityMs`. */
function engineIdentity({ engine, clock, log }: DockerApiOptions): () => Promise<EngineIdentity> {
  let known: EngineIdentity = {
    apiVersion: apiVersionFallback,
    osType: 'linux',
    builderVersion: undefined,
    experimental: 'false',
    server: 'Docker/unknown (linux)',
  }
  let askedAtMs: number | undefined
  let asking: Promise<void> | undefined
  const ask = async () => {
    const over = new AbortController()
    const answered = new AbortController()
    void clock.sleep(identityTimeoutMs, answered.signal).then(() => over.abort())
    try {
      const headers = await engine.ping(over.signal)
      const engineVersion = headers['api-version'] ?? apiVersionFallback
      known = {
        apiVersion: isOlder(engineVersion, apiVersionMax) ? engineVersion : apiVersionMax,
        osType: headers['ostype'] ?? 'linux',
        builderVersion: headers['builder-version'],
        experimental: headers['docker-experimental'] ?? 'false',
        server: headers['server'] ?? known.server,
      }
    } catch (error) {
      log.debug('the engine does not answer', { error: String(error) })
    } finally {
      answered.abort()
    }
    askedAtMs = clock.nowMs()
  }
  return async () => {
    const isFresh = askedAtMs !== undefined && clock.nowMs() - askedAtMs < identityMs
    if (!isFresh) {
      asking ??= ask().finally(() => {
        asking = undefined
      })
      // Only the first caller of all has to wait: later ones take what is known.
      if (askedAtMs === undefined) await asking
    }
    return known
  }
}

// ---- Why there is no cluster ----

function requireControl({ control, node }: DockerApiOptions): Control {
  const state = node.state()
  const open = control()
  if (open && state.controlAvailable) return open
  if (state.localNodeState === 'pending' && state.error !== '')
    throw new UserError('unavailable', state.error)
  throw notManager(state.localNodeState, open !== undefined)
}

function notManager(state: string, hasStore: boolean): UserError {
  if (state === 'inactive') {
    return new UserError(
      'notManager',
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    )
  }
  if (state === 'locked') {
    return new UserError(
      'locked',
      'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.',
    )
  }
  if (state === 'active' && !hasStore) {
    return new UserError(
      'notManager',
      "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
    )
  }
  return new UserError(
    'notManager',
    'This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.',
  )
}

/** A socket file that nobody listens on any more would keep us from listening. */
async function removeStaleSocket(path: string): Promise<void> {
  const isStale = await new Promise<boolean>((resolve) => {
    const probe = connect({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(false)
    })
    probe.once('error', (error) => resolve('code' in error && error.code === 'ECONNREFUSED'))
  })
  if (isStale) await unlink(path)
}
