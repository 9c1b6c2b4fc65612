import type { IncomingMessage } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { UserError } from '../base/index.ts'
import { type EngineAddress, parseEngineAddress } from './address.ts'
import type {
  ContainerCreateBody,
  ContainerInspect,
  ContainerListItem,
  ContainerProcesses,
  EndpointBody,
  EngineEvent,
  EngineFilters,
  EngineInfo,
  EngineVersion,
  ExecCreateBody,
  ExecInspect,
  ImageBuildQuery,
  ImageInspect,
  ImageListItem,
  NetworkBody,
  NetworkCreateBody,
  PullProgress,
  VolumeBody,
  VolumeCreateBody,
} from './bodies.ts'
import { codeOfStatus, connectionError, messageOfBody } from './errors.ts'
import { readJsonLines } from './lines.ts'
import { type EngineCall, Transport } from './transport.ts'

/** Oldest API Skep works with (Docker 20.10), and the newest it knows. */
export const apiVersionMin = '1.41'
export const apiVersionMax = '1.50'

/** Whether API version `a` is older than `b`; both `<major>.<minor>`. */
export function isOlderApi(a: string, b: string): boolean {
  const [aMajor = 0, aMinor = 0] = a.split('.').map(Number)
  const [bMajor = 0, bMinor = 0] = b.split('.').map(Number)
  return aMajor === bMajor ? aMinor < bMinor : aMajor < bMajor
}

type Signal = AbortSignal | undefined

/**
 * One Docker Engine. Every call may reject with UserError: the engine's own sentence with `notFound` (404), `conflict`
 * (409), `forbidden` (401, 403), `invalidInput` (other 4xx), `internal` (5xx), `unavailable` (503, or no answer).
 * An aborted call rejects with the signal's reason.
 */
export interface Engine {
  readonly address: EngineAddress
  /** The version every call is made with: the engine's newest, at most `apiVersionMax`. Asked once a connection. */
  apiVersion(signal?: Signal): Promise<string>
  /** Headers of `/_ping`, lower-case names. */
  ping(signal?: Signal): Promise<Readonly<Record<string, string>>>
  version(signal?: Signal): Promise<EngineVersion>
  info(signal?: Signal): Promise<EngineInfo>
  events(
    options: { filters?: EngineFilters; since?: string; until?: string },
    signal?: Signal,
  ): Promise<AsyncIterable<EngineEvent>>
  readonly containers: {
    /** `platform`: `os[/arch[/variant]]`. An empty name: the engine chooses one. */
    create(
      name: string,
      body: ContainerCreateBody,
      signal?: Signal,
      platform?: string,
    ): Promise<{ Id: string }>
    start(id: string, signal?: Signal): Promise<void>
    /** `timeoutSeconds` between the stop signal and SIGKILL. */
    stop(id: string, options: { timeoutSeconds?: number }, signal?: Signal): Promise<void>
    kill(id: string, killSignal?: string, signal?: Signal): Promise<void>
    restart(id: string, options: { timeoutSeconds?: number }, signal?: Signal): Promise<void>
    pause(id: string, signal?: Signal): Promise<void>
    unpause(id: string, signal?: Signal): Promise<void>
    /** The size of its terminal. */
    resize(id: string, size: { h: number; w: number }, signal?: Signal): Promise<void>
    processes(id: string, signal?: Signal): Promise<ContainerProcesses>
    /** One JSON object a second, or a single one: see `readJsonLines`. */
    stats(id: string, options: { stream: boolean }, signal?: Signal): Promise<IncomingMessage>
    /** `force` kills it first, `volumes` removes its anonymous volumes. */
    remove(
      id: string,
      options: { force?: boolean; volumes?: boolean },
      signal?: Signal,
    ): Promise<void>
    rename(id: string, name: string, signal?: Signal): Promise<void>
    inspect(id: string, signal?: Signal): Promise<ContainerInspect>
    list(
      options: { all?: boolean; filters?: EngineFilters },
      signal?: Signal,
    ): Promise<readonly ContainerListItem[]>
    /** Resolves when it is no longer running (or by another `condition`). */
    wait(
      id: string,
      condition?: 'not-running' | 'next-exit' | 'removed',
      signal?: Signal,
    ): Promise<{ StatusCode: number; Error?: { Message: string } | null }>
    /** Multiplexed (see `FrameReader`) unless the container has a TTY. */
    logs(
      id: string,
      options: {
        stdout?: boolean
        stderr?: boolean
        follow?: boolean
        timestamps?: boolean
        details?: boolean
        tail?: string
        since?: string
        until?: string
      },
      signal?: Signal,
    ): Promise<IncomingMessage>
    attach(
      id: string,
      options: { stdin?: boolean; stdout?: boolean; stderr?: boolean; logs?: boolean },
      signal?: Signal,
    ): Promise<Duplex>
    /** Unpacks a tar into the directory `path` of the container. */
    putArchive(id: string, path: string, tar: Readable, signal?: Signal): Promise<void>
    getArchive(id: string, path: string, signal?: Signal): Promise<IncomingMessage>
    /** Whether there is something at `path`, and what. */
    statArchive(
      id: string,
      path: string,
      signal?: Signal,
    ): Promise<{ readonly isDirectory: boolean } | undefined>
  }
  readonly execs: {
    create(containerId: string, body: ExecCreateBody, signal?: Signal): Promise<{ Id: string }>
    /** Output only, multiplexed unless `tty`; ends with the process. */
    start(id: string, options: { tty?: boolean }, signal?: Signal): Promise<IncomingMessage>
    /** Resolves when it runs. */
    startDetached(id: string, options: { tty?: boolean }, signal?: Signal): Promise<void>
    /** Both ways; ending the writable side is EOF on stdin. */
    hijack(id: string, options: { tty?: boolean }, signal?: Signal): Promise<Duplex>
    resize(id: string, size: { h: number; w: number }, signal?: Signal): Promise<void>
    inspect(id: string, signal?: Signal): Promise<ExecInspect>
  }
  readonly images: {
    inspect(name: string, signal?: Signal): Promise<ImageInspect>
    list(options: { filters?: EngineFilters }, signal?: Signal): Promise<readonly ImageListItem[]>
    /** Resolves when the image is there. `registryAuth` is the value of `X-Registry-Auth`. */
    pull(
      name: string,
      options: {
        registryAuth?: string | undefined
        platform?: string
        onProgress?: (progress: PullProgress) => void
      },
      signal?: Signal,
    ): Promise<void>
    remove(name: string, options: { force?: boolean }, signal?: Signal): Promise<void>
    tag(name: string, options: { repo: string; tag: string }, signal?: Signal): Promise<void>
    push(
      name: string,
      options: { registryAuth: string; onProgress?: (progress: PullProgress) => void },
      signal?: Signal,
    ): Promise<void>
    /** The engine's own (classic) builder. `context` is a tar. Resolves with the image's id. */
    build(
      context: Readable,
      options: {
        query: ImageBuildQuery
        registryConfig?: string
        onOutput?: (text: string) => void
      },
      signal?: Signal,
    ): Promise<string>
  }
  readonly networks: {
    list(options: { filters?: EngineFilters }, signal?: Signal): Promise<readonly NetworkBody[]>
    inspect(id: string, signal?: Signal): Promise<NetworkBody>
    create(body: NetworkCreateBody, signal?: Signal): Promise<{ Id: string; Warning?: string }>
    remove(id: string, signal?: Signal): Promise<void>
    connect(id: string, containerId: string, endpoint: EndpointBody, signal?: Signal): Promise<void>
    disconnect(
      id: string,
      containerId: string,
      options: { force?: boolean },
      signal?: Signal,
    ): Promise<void>
    /** Removes those that no container uses. Resolves with their names. */
    prune(
      options: { filters?: EngineFilters },
      signal?: Signal,
    ): Promise<{ readonly NetworksDeleted?: readonly string[] | null }>
  }
  readonly volumes: {
    create(body: VolumeCreateBody, signal?: Signal): Promise<VolumeBody>
    inspect(name: string, signal?: Signal): Promise<VolumeBody>
    list(options: { filters?: EngineFilters }, signal?: Signal): Promise<readonly VolumeBody[]>
    remove(name: string, options: { force?: boolean }, signal?: Signal): Promise<void>
  }
  close(): void
}

/** Opens a client of the engine at `address`. Connects at the first call. */
export function openEngine(options: {
  readonly address: string
  /** Fixed instead of negotiated: `1.41`. */
  readonly apiVersion?: string
}): Engine {
  const transport = new Transport(parseEngineAddress(options.address))
  let negotiated: string | undefined = options.apiVersion

  async function ping(signal?: Signal): Promise<Readonly<Record<string, string>>> {
    const answer = await transport.call('', { method: 'GET', path: '/_ping', signal })
    if (answer.status >= 400) {
      throw new UserError('unavailable', messageOfBody(answer.status, answer.text))
    }
    return Object.fromEntries(
      Object.entries(answer.headers).map(([key, value]) => [key, String(value)]),
    )
  }

  async function apiVersion(signal?: Signal): Promise<string> {
    if (negotiated !== undefined) return negotiated
    const answered = (await ping(signal))['api-version'] ?? '1.24'
    if (isOlderApi(answered, apiVersionMin)) {
      throw new UserError(
        'unsupported',
        `the Docker Engine at ${transport.where} speaks API ${answered}, Skep needs ${apiVersionMin}`,
        { next: 'Upgrade it to Docker 20.10 or newer.' },
      )
    }
    negotiated = isOlderApi(apiVersionMax, answered) ? apiVersionMax : answered
    return negotiated
  }

  /** An engine that went away may come back as another version. */
  async function forgetVersionIfGone<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof UserError && error.code === 'unavailable') {
        negotiated = options.apiVersion
      }
      throw error
    }
  }

  function call<Body>(request: EngineCall): Promise<Body> {
    return forgetVersionIfGone(async () => {
      const answer = await transport.call(await apiVersion(request.signal), request)
      if (answer.status >= 400) {
        throw new UserError(codeOfStatus(answer.status), messageOfBody(answer.status, answer.text))
      }
      return parseBody<Body>(answer.text)
    })
  }
  const run = (request: EngineCall): Promise<void> => call<undefined>(request)
  const open = (request: EngineCall): Promise<IncomingMessage> =>
    forgetVersionIfGone(async () => transport.open(await apiVersion(request.signal), request))
  const hijack = (request: EngineCall): Promise<Duplex> =>
    forgetVersionIfGone(async () => transport.hijack(await apiVersion(request.signal), request))

  const part = encodeURIComponent
  // An image's name keeps its slashes: the route takes the rest of the path.
  const imagePath = (name: string): string => name.split('/').map(part).join('/')
  const filtersOf = (filters: EngineFilters | undefined): { filters?: string } =>
    filters ? { filters: JSON.stringify(filters) } : {}

  return {
    address: transport.address,
    apiVersion,
    ping,
    version: (signal) => call({ method: 'GET', path: '/version', signal }),
    info: (signal) => call({ method: 'GET', path: '/info', signal }),
    async events({ filters, ...times }, signal) {
      const query = { ...filtersOf(filters), ...times }
      const body = await open({ method: 'GET', path: '/events', query, signal })
      return guarded(readJsonLines(body), (line) => line as EngineEvent, transport.where, signal)
    },
    containers: {
      create: (name, json, signal, platform) =>
        call({
          method: 'POST',
          path: '/containers/create',
          query: { name: name === '' ? undefined : name, platform },
          json,
          signal,
        }),
      start: (id, signal) => run({ method: 'POST', path: `/containers/${part(id)}/start`, signal }),
      stop: (id, { timeoutSeconds }, signal) =>
        run({
          method: 'POST',
          path: `/containers/${part(id)}/stop`,
          query: { t: timeoutSeconds },
          signal,
        }),
      kill: (id, killSignal, signal) =>
        run({
          method: 'POST',
          path: `/containers/${part(id)}/kill`,
          query: { signal: killSignal },
          signal,
        }),
      restart: (id, { timeoutSeconds }, signal) =>
        run({
          method: 'POST',
          path: `/containers/${part(id)}/restart`,
          query: { t: timeoutSeconds },
          signal,
        }),
      pause: (id, signal) => run({ method: 'POST', path: `/containers/${part(id)}/pause`, signal }),
      unpause: (id, signal) =>
        run({ method: 'POST', path: `/containers/${part(id)}/unpause`, signal }),
      resize: (id, query, signal) =>
        run({ method: 'POST', path: `/containers/${part(id)}/resize`, query, signal }),
      processes: (id, signal) =>
        call({ method: 'GET', path: `/containers/${part(id)}/top`, signal }),
      stats: (id, query, signal) =>
        open({ method: 'GET', path: `/containers/${part(id)}/stats`, query, signal }),
      remove: (id, { force, volumes }, signal) =>
        run({
          method: 'DELETE',
          path: `/containers/${part(id)}`,
          query: { force, v: volumes },
          signal,
        }),
      rename: (id, name, signal) =>
        run({ method: 'POST', path: `/containers/${part(id)}/rename`, query: { name }, signal }),
      inspect: (id, signal) =>
        call({ method: 'GET', path: `/containers/${part(id)}/json`, signal }),
      list: ({ all, filters }, signal) =>
        call({
          method: 'GET',
          path: '/containers/json',
          query: { all, ...filtersOf(filters) },
          signal,
        }),
      async wait(id, condition, signal) {
        const path = `/containers/${part(id)}/wait`
        const body = await open({ method: 'POST', path, query: { condition }, signal })
        const parts: Buffer[] = []
        for await (const piece of body) parts.push(piece)
        return parseBody(Buffer.concat(parts).toString())
      },
      logs: (id, query, signal) =>
        open({ method: 'GET', path: `/containers/${part(id)}/logs`, query, signal }),
      attach: (id, query, signal) =>
        hijack({
          method: 'POST',
          path: `/containers/${part(id)}/attach`,
          query: { stream: true, ...query },
          signal,
        }),
      putArchive: async (id, path, stream, signal) => {
        const body = await open({
          method: 'PUT',
          path: `/containers/${part(id)}/archive`,
          query: { path },
          stream,
          headers: { 'Content-Type': 'application/x-tar' },
          signal,
        })
        body.resume()
      },
      getArchive: (id, path, signal) =>
        open({ method: 'GET', path: `/containers/${part(id)}/archive`, query: { path }, signal }),
      async statArchive(id, path, signal) {
        const request: EngineCall = {
          method: 'HEAD',
          path: `/containers/${part(id)}/archive`,
          query: { path },
          signal,
        }
        const answer = await transport.call(await apiVersion(signal), request)
        if (answer.status === 404) return undefined
        if (answer.status >= 400) {
          const why = messageOfBody(answer.status, answer.text)
          throw new UserError(codeOfStatus(answer.status), why)
        }
        const stat = String(answer.headers['x-docker-container-path-stat'] ?? 'e30=')
        const { mode = 0 } = parseBody<{ mode?: number }>(Buffer.from(stat, 'base64').toString())
        // Go's bit for directories.
        return { isDirectory: mode >= 2 ** 31 }
      },
    },
    execs: {
      create: (id, json, signal) =>
        call({ method: 'POST', path: `/containers/${part(id)}/exec`, json, signal }),
      start: (id, { tty }, signal) =>
        open({
          method: 'POST',
          path: `/exec/${part(id)}/start`,
          json: { Detach: false, Tty: tty ?? false },
          signal,
        }),
      startDetached: (id, { tty }, signal) =>
        run({
          method: 'POST',
          path: `/exec/${part(id)}/start`,
          json: { Detach: true, Tty: tty ?? false },
          signal,
        }),
      hijack: (id, { tty }, signal) =>
        hijack({
          method: 'POST',
          path: `/exec/${part(id)}/start`,
          json: { Detach: false, Tty: tty ?? false },
          signal,
        }),
      resize: (id, query, signal) =>
        run({ method: 'POST', path: `/exec/${part(id)}/resize`, query, signal }),
      inspect: (id, signal) => call({ method: 'GET', path: `/exec/${part(id)}/json`, signal }),
    },
    images: {
      inspect: (name, signal) =>
        call({ method: 'GET', path: `/images/${imagePath(name)}/json`, signal }),
      list: ({ filters }, signal) =>
        call({ method: 'GET', path: '/images/json', query: filtersOf(filters), signal }),
      async pull(name, { registryAuth, platform, onProgress }, signal) {
        const body = await open({
          method: 'POST',
          path: '/images/create',
          query: { ...splitReference(name), platform },
          ...(registryAuth && { headers: { 'X-Registry-Auth': registryAuth } }),
          signal,
        })
        for await (const progress of guarded(
          readJsonLines(body),
          (line) => line as PullProgress,
          transport.where,
          signal,
        )) {
          if (progress.error !== undefined) throw pullError(progress.error)
          onProgress?.(progress)
        }
      },
      remove: (name, { force }, signal) =>
        run({ method: 'DELETE', path: `/images/${imagePath(name)}`, query: { force }, signal }),
      tag: (name, query, signal) =>
        run({ method: 'POST', path: `/images/${imagePath(name)}/tag`, query, signal }),
      async push(name, { registryAuth, onProgress }, signal) {
        const { fromImage, tag } = splitReference(name)
        const body = await open({
          method: 'POST',
          path: `/images/${imagePath(fromImage)}/push`,
          query: { tag },
          headers: { 'X-Registry-Auth': registryAuth },
          signal,
        })
        const lines = readJsonLines(body)
        const read = (line: unknown) => line as PullProgress
        for await (const progress of guarded(lines, read, transport.where, signal)) {
          if (progress.error !== undefined) throw pullError(progress.error)
          onProgress?.(progress)
        }
      },
      async build(stream, { query, registryConfig, onOutput }, signal) {
        const { buildargs, labels, cachefrom, ...plain } = query
        const body = await open({
          method: 'POST',
          path: '/build',
          query: {
            ...plain,
            ...(buildargs && { buildargs: JSON.stringify(buildargs) }),
            ...(labels && { labels: JSON.stringify(labels) }),
            ...(cachefrom && { cachefrom: JSON.stringify(cachefrom) }),
          },
          stream,
          headers: {
            'Content-Type': 'application/x-tar',
            ...(registryConfig && { 'X-Registry-Config': registryConfig }),
          },
          signal,
        })
        let id = ''
        const read = (line: unknown) =>
          line as { stream?: string; status?: string; error?: string; aux?: { ID?: string } }
        for await (const line of guarded(readJsonLines(body), read, transport.where, signal)) {
          if (line.error !== undefined) throw new UserError('invalidInput', line.error.trim())
          if (line.aux?.ID !== undefined) id = line.aux.ID
          if (line.stream !== undefined) onOutput?.(line.stream)
        }
        return id
      },
    },
    networks: {
      list: ({ filters }, signal) =>
        call({ method: 'GET', path: '/networks', query: filtersOf(filters), signal }),
      inspect: (id, signal) => call({ method: 'GET', path: `/networks/${part(id)}`, signal }),
      create: (json, signal) => call({ method: 'POST', path: '/networks/create', json, signal }),
      remove: (id, signal) => run({ method: 'DELETE', path: `/networks/${part(id)}`, signal }),
      connect: (id, containerId, endpoint, signal) =>
        run({
          method: 'POST',
          path: `/networks/${part(id)}/connect`,
          json: { Container: containerId, EndpointConfig: endpoint },
          signal,
        }),
      disconnect: (id, containerId, { force }, signal) =>
        run({
          method: 'POST',
          path: `/networks/${part(id)}/disconnect`,
          json: { Container: containerId, Force: force ?? false },
          signal,
        }),
      prune: ({ filters }, signal) =>
        call({ method: 'POST', path: '/networks/prune', query: filtersOf(filters), signal }),
    },
    volumes: {
      create: (json, signal) => call({ method: 'POST', path: '/volumes/create', json, signal }),
      inspect: (name, signal) => call({ method: 'GET', path: `/volumes/${part(name)}`, signal }),
      list: async ({ filters }, signal) => {
        const query = filtersOf(filters)
        const answer = await call<{ Volumes?: readonly VolumeBody[] | null }>({
          method: 'GET',
          path: '/volumes',
          query,
          signal,
        })
        return answer.Volumes ?? []
      },
      remove: (name, { force }, signal) =>
        run({ method: 'DELETE', path: `/volumes/${part(name)}`, query: { force }, signal }),
    },
    close: () => transport.close(),
  }
}

/** `fromImage` and `tag` of an image name; without a tag the newest would mean all tags, so it becomes `latest`. */
export function splitReference(name: string): { fromImage: string; tag: string } {
  const at = name.indexOf('@')
  if (at >= 0) {
    const withoutTag = splitReference(name.slice(0, at)).fromImage
    return { fromImage: withoutTag, tag: name.slice(at + 1) }
  }
  const colon = name.lastIndexOf(':')
  if (colon > name.lastIndexOf('/')) {
    return { fromImage: name.slice(0, colon), tag: name.slice(colon + 1) }
  }
  return { fromImage: name, tag: 'latest' }
}

/** The engine's answers are taken as its API documents them: this is the edge where they get their type. */
function parseBody<Body>(text: string): Body {
  if (text.trim() === '') return undefined as Body
  try {
    return JSON.parse(text) as Body
  } catch (error) {
    throw new UserError('internal', 'the engine sent an answer that is not JSON', { cause: error })
  }
}

/** Lines of a stream as their type; a broken connection as our errors, an abort as the signal's reason. */
async function* guarded<Line>(
  lines: AsyncIterable<unknown>,
  parse: (line: unknown) => Line,
  where: string,
  signal: Signal,
): AsyncGenerator<Line> {
  try {
    for await (const line of lines) yield parse(line)
  } catch (error) {
    throw signal?.aborted ? signal.reason : connectionError(where, error)
  }
}

/** An error in the middle of a pull has no status of its own: told by its words. */
function pullError(message: string): UserError {
  if (/unauthorized|denied|forbidden/i.test(message)) return new UserError('forbidden', message)
  if (/not found|manifest unknown/i.test(message)) return new UserError('notFound', message)
  return new UserError('internal', message)
}
