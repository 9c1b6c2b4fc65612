import { readFile } from 'node:fs/promises'
import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import {
  type ContainerInspect,
  type Engine,
  type EngineEvent,
  FrameReader,
  type HealthConfigBody,
  type PortMap,
} from '../engine/index.ts'
import {
  type GenericResource,
  type HealthCheck,
  type HostPort,
  idFrom,
  type NodeId,
  type TaskId,
} from '../model/index.ts'
import type { LogLine, LogOptions, TaskAssignment } from '../wire/index.ts'
import { clusterLabel, planContainer, taskIdLabel } from './container-body.ts'
import { readLogLines } from './docker-logs.ts'
import { ImagePulls } from './image-pulls.ts'
import { namesFile } from './names-file.ts'
import type {
  Materials,
  ObservedContainer,
  ProbeResult,
  Runtime,
  RuntimeEvent,
  StartedContainer,
} from './runtime.ts'
import { TaskFiles } from './task-files.ts'
import { filesOf, renderContainer, templateContextOf } from './task-words.ts'

/** The engine's limit for a check that names none, in ms. */
const probeTimeoutMsDefault = 30_000
/** Output of a probe that is kept. */
const probeOutputMax = 4096
/** Waits between attempts to reach the engine's events: from, up to, in ms. */
const reconnectMsMin = 100
const reconnectMsMax = 5_000
/** Containers looked at side by side when all are listed. */
const inspectsMax = 8

export interface DockerRuntimeOptions {
  readonly engine: Engine
  /** Only containers with this label value are ours. */
  readonly clusterId: string
  readonly nodeId?: NodeId
  /** On disk. */
  readonly stateDir: string
  /** For secrets and configs: in memory (a tmpfs is mounted when it is not). One for each daemon. */
  readonly secretsDir: string
  readonly clock: Clock
  readonly log: Log
}

export interface DockerRuntime extends Runtime {
  /** Ends what is under way in this process. Containers and their files stay. */
  close(): void
}

/** Tasks as containers of a Docker Engine (20.10 or newer), found again by their labels. */
export function openDockerRuntime(options: DockerRuntimeOptions): DockerRuntime {
  return new EngineRuntime(options)
}

/** What is remembered of a container so that calls need not ask for it again. */
interface Known {
  readonly containerId: string
  tty: boolean
  /** As the engine merged it with the image's; undefined: not asked yet. */
  check?: HealthConfigBody | 'none'
  /** What runs a CMD-SHELL test. */
  shell?: readonly string[]
}

class EngineRuntime implements DockerRuntime {
  readonly #options: DockerRuntimeOptions
  readonly #engine: Engine
  readonly #files: TaskFiles
  readonly #pulls: ImagePulls
  readonly #known = new Map<TaskId, Known>()
  /** Tasks whose files may be there before their container is. */
  readonly #prepared = new Set<TaskId>()
  readonly #closing = new AbortController()
  #swept = false

  constructor(options: DockerRuntimeOptions) {
    this.#options = options
    this.#engine = options.engine
    this.#files = new TaskFiles(options)
    this.#pulls = new ImagePulls(options.engine)
  }

  close(): void {
    this.#closing.abort(new Error('the runtime is closed'))
  }

  async describe(): ReturnType<Runtime['describe']> {
    const [info, apiVersion] = await Promise.all([this.#engine.info(), this.#engine.apiVersion()])
    const plugins = Object.entries(info.Plugins ?? {}).flatMap(([type, names]) =>
      (names ?? []).map((name: string) => ({ type, name })),
    )
    return {
      hostname: info.Name,
      platform: { architecture: info.Architecture, os: info.OSType },
      resources: {
        nanoCpus: info.NCPU * 1e9,
        memoryBytes: info.MemTotal,
        generic: genericResourcesOf(info.GenericResources ?? []),
      },
      engine: {
        version: info.ServerVersion,
        apiVersion,
        labels: Object.fromEntries((info.Labels ?? []).map(splitPair)),
        plugins: plugins.sort((a, b) => order(a.type, b.type) || order(a.name, b.name)),
      },
    }
  }

  async prepare(
    assignment: TaskAssignment,
    materials: Materials,
    signal: AbortSignal,
  ): Promise<void> {
    const taskId = assignment.task.id
    const [declared] = assignment.template.containers
    if (!declared) throw new UserError('invalidInput', 'the task has no container')
    this.#prepared.add(taskId)
    const context = templateContextOf(assignment, materials.assignments.node)
    const container = renderContainer(declared, context)
    const apiVersion = await this.#engine.apiVersion(signal)
    // Planned once before anything is written, so that what can't be done leaves nothing behind.
    planContainer(assignment, container, materials, [], apiVersion)
    const hostNames = await readFile('/etc/resolv.conf', 'utf8').catch(() => '')
    const files = filesOf(container, materials, context)
    const names = namesFile(assignment, container, materials, hostNames)
    // Who brings one along knows better.
    const isOwn = files.some(({ target }) => target === names?.target)
    const mounts = await this.#files.write(taskId, names && !isOwn ? [...files, names] : files)
    const { name, body, connects } = planContainer(
      assignment,
      container,
      materials,
      mounts,
      apiVersion,
    )

    // Not ended by `signal`: the engine would go on, and the container come to be after everybody stopped looking.
    const create = (): Promise<{ Id: string }> => {
      signal.throwIfAborted()
      return this.#engine.containers.create(name, body, this.#closing.signal)
    }
    let containerId: string
    let adopted = false
    try {
      const created = await create().catch(async (error: unknown) => {
        if (!isNoSuchImage(error)) throw error
        await this.#pull(container.image, assignment.registryAuth, signal)
        return create()
      })
      containerId = created.Id
    } catch (error) {
      if (!(error instanceof UserError) || error.code !== 'conflict') throw error
      containerId = await this.#adopt(name, taskId, signal, error)
      adopted = true
    }
    this.#known.set(taskId, { containerId, tty: container.tty })
    signal.throwIfAborted()

    for (const { network, endpoint } of connects) {
      await this.#engine.networks
        .connect(network, containerId, endpoint, signal)
        .catch((error: unknown) => {
          // One that was made before may have been joined before.
          if (adopted && /already (exists|attached)/.test(messageOf(error))) return
          throw error
        })
    }
  }

  async start(taskId: TaskId, signal: AbortSignal): Promise<StartedContainer> {
    const known = await this.#find(taskId)
    if (!known) {
      throw new UserError('notFound', 'starting container failed: the container is not there')
    }
    try {
      await this.#engine.containers.start(known.containerId, signal)
    } catch (error) {
      if (!(error instanceof UserError) || error.code === 'unavailable') throw error
      throw new UserError(error.code, `starting container failed: ${error.message}`, {
        ...(error.next !== undefined && { next: error.next }),
        cause: error,
      })
    }
    const inspected = await this.#engine.containers.inspect(known.containerId, signal)
    this.#remember(taskId, inspected)
    return {
      containerId: inspected.Id,
      pid: inspected.State.Pid,
      hasHealthCheck: hasTest(inspected.Config.Healthcheck),
      exposedTcpPorts: tcpPortsOf(inspected.Config.ExposedPorts),
      hostPorts: hostPortsOf(inspected.NetworkSettings.Ports),
    }
  }

  async stop(taskId: TaskId, graceMs: number): Promise<void> {
    const known = await this.#find(taskId)
    if (!known) return
    await this.#engine.containers
      .stop(known.containerId, { timeoutSeconds: Math.ceil(Math.max(0, graceMs) / 1000) })
      .catch(ignoreNotFound)
  }

  async remove(taskId: TaskId): Promise<void> {
    const known = await this.#find(taskId)
    if (known) {
      const { containerId } = known
      await this.#engine.containers
        .remove(containerId, { force: true, volumes: true })
        .catch(async (error: unknown) => {
          if (!(error instanceof UserError) || error.code !== 'conflict') throw error
          // Somebody else is removing it.
          await this.#engine.containers.wait(containerId, 'removed').catch(ignoreNotFound)
        })
        .catch(ignoreNotFound)
    }
    await this.#files.remove(taskId)
    this.#known.delete(taskId)
    this.#prepared.delete(taskId)
  }

  async probe(
    taskId: TaskId,
    check: HealthCheck | undefined,
    signal: AbortSignal,
  ): Promise<ProbeResult | undefined> {
    const known = await this.#find(taskId)
    if (!known) return { healthy: false, output: 'the container is not there' }
    if (known.check === undefined) {
      this.#remember(taskId, await this.#engine.containers.inspect(known.containerId, signal))
    }
    const { check: own, shell } = this.#known.get(taskId) ?? {}
    const merged = own === undefined || own === 'none' ? undefined : own
    const test = check && check.test.length > 0 ? check.test : (merged?.Test ?? [])
    const command = commandOf(test, shell)
    if (!command) return undefined
    const timeoutMs =
      check?.timeoutMs ||
      (merged?.Timeout ? Math.ceil(merged.Timeout / 1e6) : probeTimeoutMsDefault)
    return this.#runProbe(known.containerId, command, timeoutMs, signal)
  }

  async list(): Promise<readonly ObservedContainer[]> {
    const items = await this.#listItems([`${clusterLabel}=${this.#options.clusterId}`])
    const observed: ObservedContainer[] = []
    const queue = [...items]
    const work = async (): Promise<void> => {
      for (let item = queue.shift(); item; item = queue.shift()) {
        const one = await this.#observe(item.Id)
        if (one) observed.push(one)
      }
    }
    await Promise.all(Array.from({ length: inspectsMax }, work))
    if (!this.#swept) {
      this.#swept = true
      // Files of tasks that ended while no daemon looked.
      const keep = new Set<string>([...observed.map(({ taskId }) => taskId), ...this.#prepared])
      await this.#files.removeOthers(keep).catch((error: unknown) => {
        this.#options.log.warn('could not remove files of ended tasks', { error: messageOf(error) })
      })
    }
    return observed.sort((a, b) => order(a.taskId, b.taskId))
  }

  async inspect(taskId: TaskId): Promise<ObservedContainer | undefined> {
    const known = await this.#find(taskId)
    if (!known) return undefined
    const observed = await this.#observe(known.containerId)
    if (observed) return observed
    this.#known.delete(taskId)
    // Removed behind our back, and perhaps made again.
    const again = await this.#find(taskId)
    return again && this.#observe(again.containerId)
  }

  watch(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): void {
    void this.#watch(onEvent, AbortSignal.any([signal, this.#closing.signal]))
  }

  async *logs(taskId: TaskId, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine> {
    const known = await this.#find(taskId)
    if (!known) return
    try {
      const { Config } = await this.#engine.containers.inspect(known.containerId, signal)
      const stream = await this.#engine.containers.logs(
        known.containerId,
        {
          stdout: options.stdout,
          stderr: options.stderr,
          follow: options.follow,
          timestamps: true,
          details: true,
          tail: String(options.tail),
          ...(options.sinceMs !== undefined && { since: (options.sinceMs / 1000).toFixed(3) }),
          ...(options.untilMs !== undefined && { until: (options.untilMs / 1000).toFixed(3) }),
        },
        signal,
      )
      try {
        const nodeId = this.#options.nodeId ?? idFrom<'node'>(nodeLabelOf(Config.Labels))
        yield* readLogLines(stream, { taskId, nodeId, tty: Config.Tty })
      } finally {
        stream.destroy()
      }
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof UserError && error.code === 'notFound') return
      if (error instanceof UserError) throw error
      throw new UserError('unavailable', `the log broke off: ${messageOf(error)}`, { cause: error })
    }
  }

  // --- one container ---

  async #pull(image: string, auth: string | undefined, signal: AbortSignal): Promise<void> {
    try {
      await this.#pulls.pull(image, auth, signal)
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (error instanceof UserError && error.code === 'unavailable') throw error
      throw new UserError('notFound', `No such image: ${image}${whyNotPulled(error)}`, {
        next: whatAboutPull(error),
        cause: error,
      })
    }
  }

  /** The container that has the task's name already, if it is the task's own. */
  async #adopt(
    name: string,
    taskId: TaskId,
    signal: AbortSignal,
    conflict: UserError,
  ): Promise<string> {
    const found = await this.#engine.containers.inspect(name, signal).catch(ignoreNotFound)
    if (!found) throw new UserError('unavailable', conflict.message, { cause: conflict })
    const labels = found.Config.Labels ?? {}
    if (labels[taskIdLabel] === taskId && labels[clusterLabel] === this.#options.clusterId) {
      return found.Id
    }
    throw new UserError('conflict', `a container that is not Skep's has the name ${name}`, {
      next: `Remove or rename it: docker rename ${found.Id.slice(0, 12)} <name>.`,
      cause: conflict,
    })
  }

  async #find(taskId: TaskId): Promise<Known | undefined> {
    const known = this.#known.get(taskId)
    if (known) return known
    const [item] = await this.#listItems([
      `${taskIdLabel}=${taskId}`,
      `${clusterLabel}=${this.#options.clusterId}`,
    ])
    if (!item) return undefined
    const found: Known = { containerId: item.Id, tty: false }
    this.#known.set(taskId, found)
    return found
  }

  #listItems(label: readonly string[]): ReturnType<Engine['containers']['list']> {
    return this.#engine.containers.list({ all: true, filters: { label } })
  }

  async #observe(containerId: string): Promise<ObservedContainer | undefined> {
    const inspected = await this.#engine.containers.inspect(containerId).catch(ignoreNotFound)
    if (!inspected) return undefined
    const taskId = idFrom<'task'>(inspected.Config.Labels?.[taskIdLabel] ?? '')
    this.#remember(taskId, inspected)
    return observedOf(taskId, inspected)
  }

  #remember(taskId: TaskId, { Id, Config }: ContainerInspect): void {
    this.#known.set(taskId, {
      containerId: Id,
      tty: Config.Tty,
      shell: Config.Shell && Config.Shell.length > 0 ? Config.Shell : defaultShell,
      check: Config.Healthcheck && hasTest(Config.Healthcheck) ? Config.Healthcheck : 'none',
    })
  }

  // --- probes ---

  async #runProbe(
    containerId: string,
    command: readonly string[],
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<ProbeResult> {
    const done = new AbortController()
    const either = AbortSignal.any([signal, done.signal])
    let execId = ''
    let timedOut = false
    const timer = this.#options.clock.sleep(timeoutMs, either).then(() => {
      if (either.aborted) return
      timedOut = true
      done.abort(new Error('probe timed out'))
    })
    let output = ''
    try {
      const { Id } = await this.#engine.execs.create(
        containerId,
        { Cmd: command, AttachStdout: true, AttachStderr: true },
        either,
      )
      execId = Id
      const stream = await this.#engine.execs.start(Id, {}, either)
      const reader = new FrameReader()
      for await (const chunk of stream) {
        for (const { data } of reader.push(chunk)) {
          if (output.length < probeOutputMax) output += data.toString()
        }
      }
      const { ExitCode } = await this.#engine.execs.inspect(Id, either)
      return { healthy: ExitCode === 0, output: output.slice(0, probeOutputMax) }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (timedOut) {
        await this.#killProbe(execId, containerId)
        return { healthy: false, output: `the health check took longer than ${timeoutMs} ms` }
      }
      if (!(error instanceof UserError)) {
        throw new UserError('unavailable', `the probe broke off: ${messageOf(error)}`, {
          cause: error,
        })
      }
      if (error.code === 'unavailable') throw error
      // Not running (any more), or the command is not there.
      return { healthy: false, output: error.message.slice(0, probeOutputMax) }
    } finally {
      done.abort(new Error('probe is over'))
      await timer
    }
  }

  /** The engine leaves a probe running when its caller goes; the process is ended here if it is surely the one. */
  async #killProbe(execId: string, containerId: string): Promise<void> {
    if (execId === '' || this.#engine.address.type !== 'unix') return
    try {
      const { Running, Pid } = await this.#engine.execs.inspect(execId)
      if (!Running || Pid <= 1) return
      const cgroup = await readFile(`/proc/${Pid}/cgroup`, 'utf8')
      if (cgroup.includes(containerId)) process.kill(Pid, 'SIGKILL')
    } catch (error) {
      this.#options.log.debug('could not end a probe that hangs', { error: messageOf(error) })
    }
  }

  // --- events ---

  async #watch(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    let waitMs = reconnectMsMin
    let why: string | undefined
    while (!signal.aborted) {
      try {
        const events = await this.#engine.events(
          {
            filters: {
              type: ['container'],
              label: [`${clusterLabel}=${this.#options.clusterId}`],
              event: [...watchedActions],
            },
          },
          signal,
        )
        waitMs = reconnectMsMin
        why = undefined
        // From here on nothing is missed; what was before is found by listing.
        onEvent({ type: 'resync' })
        for await (const event of events) this.#told(event, onEvent)
        throw new UserError('unavailable', 'the Docker Engine ended its stream of events')
      } catch (error) {
        if (signal.aborted) return
        const reason = messageOf(error)
        if (reason !== why) {
          why = reason
          log.warn('lost the events of the Docker Engine', { error: reason })
          onEvent({ type: 'unreachable', why: reason })
        }
        await clock.sleep(waitMs, signal)
        waitMs = Math.min(waitMs * 2, reconnectMsMax)
      }
    }
  }

  #told(event: EngineEvent, onEvent: (event: RuntimeEvent) => void): void {
    const text = event.Actor.Attributes?.[taskIdLabel]
    if (text === undefined) return
    const taskId = idFrom<'task'>(text)
    if (event.Action === 'destroy' && this.#known.get(taskId)?.containerId === event.Actor.ID) {
      this.#known.delete(taskId)
    }
    onEvent({ type: 'changed', taskId, action: event.Action })
  }
}

const watchedActions = [
  'create',
  'start',
  'die',
  'stop',
  'kill',
  'oom',
  'pause',
  'unpause',
  'health_status',
  'destroy',
  'rename',
]

function isNoSuchImage(error: unknown): boolean {
  return (
    error instanceof UserError && error.code === 'notFound' && /no such image/i.test(error.message)
  )
}

function ignoreNotFound(error: unknown): undefined {
  if (error instanceof UserError && error.code === 'notFound') return undefined
  throw error
}

type PullFailure = 'denied' | 'absent' | 'unreachable' | 'other'

function kindOfPullFailure(error: unknown): PullFailure {
  const message = messageOf(error)
  if (
    /unauthorized|authentication required|access denied|denied|forbidden|no basic auth/i.test(
      message,
    )
  ) {
    return 'denied'
  }
  if (/not found|manifest unknown|does not exist/i.test(message)) return 'absent'
  if (/dial tcp|no such host|timeout|connection refused|unreachable|TLS|x509|EOF/i.test(message)) {
    return 'unreachable'
  }
  return 'other'
}

function whyNotPulled(error: unknown): string {
  switch (kindOfPullFailure(error)) {
    case 'denied':
      return ` (the registry refuses: ${messageOf(error)})`
    case 'absent':
      return ''
    case 'unreachable':
      return ` (the registry can't be reached: ${messageOf(error)})`
    case 'other':
      return ` (${messageOf(error)})`
  }
}

function whatAboutPull(error: unknown): string {
  return kindOfPullFailure(error) === 'denied'
    ? 'Check the name, log in with docker login, and pass --with-registry-auth.'
    : 'Check the name and that the node can reach the registry, or load the image there.'
}

/** Of `80/tcp`, `53/udp`, …: the tcp ones. */
function tcpPortsOf(exposed: Readonly<Record<string, unknown>> | null | undefined) {
  return Object.keys(exposed ?? {}).flatMap((text) => {
    const port = /^(\d+)\/tcp$/.exec(text)?.[1]
    return port === undefined ? [] : [Number(port)]
  })
}

function hasTest(check: HealthConfigBody | undefined): boolean {
  return commandOf(check?.Test ?? []) !== undefined
}

const defaultShell: readonly string[] = ['/bin/sh', '-c']

/** What a check's test runs: as it is, or in the image's shell. */
function commandOf(
  test: readonly string[],
  shell: readonly string[] = defaultShell,
): readonly string[] | undefined {
  const [kind, ...rest] = test
  if (kind === undefined || kind === 'NONE' || rest.length === 0) return undefined
  return kind === 'CMD-SHELL' ? [...shell, ...rest] : rest
}

function observedOf(taskId: TaskId, inspected: ContainerInspect): ObservedContainer {
  const { State, NetworkSettings } = inspected
  const health = State.Health?.Status || 'none'
  const failed = (State.Health?.Log ?? []).findLast(({ ExitCode }) => ExitCode !== 0)
  return {
    taskId,
    containerId: inspected.Id,
    state: stateOf(State.Status),
    pid: State.Pid,
    exitCode: State.ExitCode,
    oomKilled: State.OOMKilled,
    error: State.Error,
    health,
    healthOutput: (failed?.Output ?? '').slice(0, probeOutputMax),
    startedAtMs: timeOf(State.StartedAt),
    finishedAtMs: timeOf(State.FinishedAt),
    hostPorts: hostPortsOf(NetworkSettings.Ports),
  }
}

function stateOf(status: ContainerInspect['State']['Status']): ObservedContainer['state'] {
  switch (status) {
    case 'restarting':
      return 'running'
    case 'removing':
      return 'dead'
    default:
      return status
  }
}

function timeOf(text: string): number | undefined {
  const ms = Date.parse(text)
  return Number.isNaN(ms) || ms <= 0 ? undefined : ms
}

/** Bound ports, each once: an engine with IPv6 tells them twice, and may have chosen another number there. */
export function hostPortsOf(ports: PortMap | null | undefined): readonly HostPort[] {
  const found = new Map<string, HostPort>()
  for (const [key, bindings] of Object.entries(ports ?? {})) {
    const [target, protocol] = key.split('/')
    if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') continue
    const all = bindings ?? []
    for (const { HostPort } of all.every(isOfIpv6) ? all : all.filter((one) => !isOfIpv6(one))) {
      const publishedPort = Number(HostPort)
      if (!publishedPort) continue
      const port = { protocol, targetPort: Number(target), publishedPort } as const
      found.set(`${key}>${publishedPort}`, port)
    }
  }
  return [...found.values()]
}

function isOfIpv6({ HostIp = '' }: { readonly HostIp?: string }): boolean {
  return HostIp.includes(':')
}

function genericResourcesOf(
  bodies: readonly {
    readonly NamedResourceSpec?: { readonly Kind: string; readonly Value: string }
    readonly DiscreteResourceSpec?: { readonly Kind: string; readonly Value: number }
  }[],
): readonly GenericResource[] {
  const namesByKind = new Map<string, string[]>()
  const resources: GenericResource[] = []
  for (const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } of bodies) {
    if (discrete) resources.push({ kind: discrete.Kind, value: discrete.Value })
    if (named) {
      namesByKind.set(named.Kind, [...(namesByKind.get(named.Kind) ?? []), named.Value])
    }
  }
  for (const [kind, names] of namesByKind) resources.push({ kind, value: names.length, names })
  return resources
}

function splitPair(text: string): [string, string] {
  const at = text.indexOf('=')
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

function nodeLabelOf(labels: Readonly<Record<string, string>> | null | undefined): string {
  return labels?.['com.docker.swarm.node.id'] ?? ''
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
