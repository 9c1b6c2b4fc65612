import { type Clock, type Random, UserError } from '../base/index.ts'
import type { HealthCheck, HostPort, NodeDescription, NodeId, TaskId } from '../model/index.ts'
import type { LogLine, LogOptions, TaskAssignment } from '../wire/index.ts'
import type {
  ObservedContainer,
  ProbeResult,
  Runtime,
  RuntimeEvent,
  StartedContainer,
} from './runtime.ts'

/** How a task's container behaves. Everything absent: there at once, runs for ever, no check, stops at once. */
export interface SimulatedBehaviour {
  /** Takes this long before the container is there, in ms. */
  readonly prepareMs?: number
  /** The image is not there and can't be had, because of this. */
  readonly pullFails?: string
  readonly startMs?: number
  /** The engine can't start it, because of this. */
  readonly startFails?: string
  /** Ends by itself. */
  readonly exits?: {
    readonly afterMs: number
    readonly code: number
    readonly oomKilled?: boolean
  }
  /** Its check says yes from `healthyAfterMs` up to `unhealthyAfterMs` after the start. */
  readonly health?: { readonly healthyAfterMs: number; readonly unhealthyAfterMs?: number }
  /** Takes this long to end after the stop signal; over the grace period it is killed. */
  readonly stopMs?: number
  /** Written at the start. */
  readonly output?: readonly string[]
  /** Written while it runs, `nth` among all that it writes, from 1 on. */
  readonly writes?: {
    readonly everyMs: number
    readonly times: number
    readonly text: (nth: number) => string
  }
}

export interface SimulatedRuntimeOptions {
  readonly clock: Clock
  readonly random: Random
  readonly nodeId: NodeId
  readonly description: Awaited<ReturnType<Runtime['describe']>>
  /** Asked once a container, when it is prepared. `nthOnNode` counts the node's containers from 0. */
  readonly behave?: (assignment: TaskAssignment, nthOnNode: number) => SimulatedBehaviour
  /** Asked when a container would end by itself or turn unhealthy: whether it goes on as it is instead. */
  readonly isCalm?: (assignment: TaskAssignment) => boolean
}

/** A host of containers that exist in memory only, with what can go wrong on one. */
export interface SimulatedRuntime extends Runtime {
  /** The container ends, as if killed from outside. Nothing when it does not run. */
  kill(taskId: TaskId, exitCode?: number): void
  /** The container is removed behind everybody's back. */
  lose(taskId: TaskId): void
  /** While unreachable every call rejects with `unavailable`; containers go on. */
  setReachable(reachable: boolean): void
  /** Power off and on: every container has ended, and is still known. */
  reboot(): void
  /** Containers that run now. */
  runningCount(): number
  /** Tasks that have a container here, whatever its state. */
  knownTasks(): readonly TaskId[]
  /** Tasks whose containers run now. */
  runningTasks(): readonly TaskId[]
  /** All that each container of a task has written here, though it may be removed by now. */
  written(taskId: TaskId): readonly (readonly LogLine[])[]
}

/** A description for tests: 4 CPUs, 8 GiB. */
export function simulatedDescription(
  hostname: string,
): Omit<NodeDescription, 'skepVersion' | 'tls' | 'hostSubnets'> {
  return {
    hostname,
    platform: { architecture: 'x86_64', os: 'linux' },
    resources: { nanoCpus: 4e9, memoryBytes: 8 * 1024 ** 3, generic: [] },
    engine: { version: 'simulated', apiVersion: '1.41', labels: {}, plugins: [] },
  }
}

export function openSimulatedRuntime(options: SimulatedRuntimeOptions): SimulatedRuntime {
  return new MemoryRuntime(options)
}

interface Container {
  readonly assignment: TaskAssignment
  readonly behaviour: SimulatedBehaviour
  readonly containerId: string
  readonly hostPorts: readonly HostPort[]
  observed: ObservedContainer
  /** Aborted when it ends: its timers with it. */
  life: AbortController | undefined
  readonly lines: LogLine[]
  /** Called when it has written more. */
  readonly readers: Set<() => void>
}

const hostPortMin = 32_768

class MemoryRuntime implements SimulatedRuntime {
  readonly #options: SimulatedRuntimeOptions
  readonly #containers = new Map<TaskId, Container>()
  readonly #watchers = new Set<(event: RuntimeEvent) => void>()
  readonly #writtenByTask = new Map<TaskId, (readonly LogLine[])[]>()
  #reachable = true
  #nthOnNode = 0
  #nextPid = 1000
  #nextPort = hostPortMin

  constructor(options: SimulatedRuntimeOptions) {
    this.#options = options
  }

  kill(taskId: TaskId, exitCode = 137): void {
    const container = this.#containers.get(taskId)
    if (container) this.#end(container, exitCode, false)
  }

  lose(taskId: TaskId): void {
    this.kill(taskId)
    if (this.#containers.delete(taskId)) this.#tell({ type: 'changed', taskId, action: 'destroy' })
  }

  setReachable(reachable: boolean): void {
    if (reachable === this.#reachable) return
    if (!reachable) this.#tell({ type: 'unreachable', why: unreachableMessage })
    this.#reachable = reachable
    if (reachable) this.#tell({ type: 'resync' })
  }

  reboot(): void {
    const wasReachable = this.#reachable
    this.setReachable(false)
    for (const container of this.#containers.values()) this.#end(container, 255, false)
    this.setReachable(wasReachable)
  }

  knownTasks(): readonly TaskId[] {
    return [...this.#containers.keys()]
  }

  written(taskId: TaskId): readonly (readonly LogLine[])[] {
    return this.#writtenByTask.get(taskId) ?? []
  }

  runningTasks(): readonly TaskId[] {
    const running: TaskId[] = []
    for (const [taskId, { observed }] of this.#containers)
      if (observed.state === 'running') running.push(taskId)
    return running
  }

  runningCount(): number {
    return [...this.#containers.values()].filter(({ observed }) => observed.state === 'running')
      .length
  }

  async describe(): ReturnType<Runtime['describe']> {
    await this.#call(0)
    return this.#options.description
  }

  async prepare(
    assignment: TaskAssignment,
    _materials: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const taskId = assignment.task.id
    await this.#call(0, signal)
    if (this.#containers.has(taskId)) return
    const behaviour = this.#options.behave?.(assignment, this.#nthOnNode++) ?? {}
    const image = assignment.template.containers[0]?.image ?? ''
    await this.#call(behaviour.prepareMs ?? 0, signal)
    if (behaviour.pullFails !== undefined) {
      throw new UserError('notFound', `No such image: ${image} (${behaviour.pullFails})`, {
        next: 'Check the name and that the node can reach the registry, or load the image there.',
      })
    }
    if (this.#containers.has(taskId)) return
    const containerId = this.#randomHex(64)
    const lines: LogLine[] = []
    this.#writtenByTask.set(taskId, [...this.written(taskId), lines])
    this.#containers.set(taskId, {
      assignment,
      behaviour,
      containerId,
      hostPorts: assignment.hostPorts.map(({ protocol, targetPort, publishedPort }) => ({
        protocol,
        targetPort,
        publishedPort: publishedPort || this.#nextPort++,
      })),
      observed: {
        taskId,
        containerId,
        state: 'created',
        pid: 0,
        exitCode: 0,
        oomKilled: false,
        error: '',
        health: behaviour.health ? 'starting' : 'none',
        healthOutput: '',
        startedAtMs: undefined,
        finishedAtMs: undefined,
        hostPorts: [],
      },
      life: undefined,
      lines,
      readers: new Set(),
    })
    this.#tell({ type: 'changed', taskId, action: 'create' })
  }

  async start(taskId: TaskId, signal: AbortSignal): Promise<StartedContainer> {
    await this.#call(this.#containers.get(taskId)?.behaviour.startMs ?? 0, signal)
    const container = this.#containers.get(taskId)
    if (!container) {
      throw new UserError('notFound', 'starting container failed: the container is not there')
    }
    const { behaviour } = container
    if (container.observed.state !== 'running') {
      if (behaviour.startFails !== undefined) {
        const error = behaviour.startFails
        container.observed = { ...container.observed, error, exitCode: 127 }
        throw new UserError('invalidInput', `starting container failed: ${error}`)
      }
      this.#run(container)
    }
    return {
      containerId: container.containerId,
      pid: container.observed.pid,
      hasHealthCheck: behaviour.health !== undefined,
      exposedTcpPorts: [],
      hostPorts: container.hostPorts,
    }
  }

  async stop(taskId: TaskId, graceMs: number): Promise<void> {
    await this.#call(0)
    const container = this.#containers.get(taskId)
    if (container?.observed.state !== 'running') return
    const stopMs = container.behaviour.stopMs ?? 0
    if (stopMs > 0)
      await this.#options.clock.sleep(Math.min(stopMs, graceMs), container.life?.signal)
    this.#end(container, stopMs > graceMs ? 137 : 143, false)
  }

  async remove(taskId: TaskId): Promise<void> {
    await this.#call(0)
    this.lose(taskId)
  }

  async probe(
    taskId: TaskId,
    check: HealthCheck | undefined,
    signal: AbortSignal,
  ): Promise<ProbeResult | undefined> {
    await this.#call(0, signal)
    const container = this.#containers.get(taskId)
    if (container?.observed.state !== 'running') {
      return { healthy: false, output: 'the container is not running' }
    }
    if (!container.behaviour.health || check?.test[0] === 'NONE') return undefined
    const healthy = this.#isHealthy(container)
    return { healthy, output: healthy ? '' : 'simulated: not healthy' }
  }

  async list(): Promise<readonly ObservedContainer[]> {
    await this.#call(0)
    return [...this.#containers.values()].map(({ observed }) => observed)
  }

  async inspect(taskId: TaskId): Promise<ObservedContainer | undefined> {
    await this.#call(0)
    return this.#containers.get(taskId)?.observed
  }

  watch(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): void {
    if (signal.aborted) return
    const watcher = (event: RuntimeEvent): void => onEvent(event)
    this.#watchers.add(watcher)
    signal.addEventListener('abort', () => this.#watchers.delete(watcher), { once: true })
    queueMicrotask(() => {
      if (signal.aborted) return
      watcher(
        this.#reachable ? { type: 'resync' } : { type: 'unreachable', why: unreachableMessage },
      )
    })
  }

  async *logs(taskId: TaskId, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine> {
    const container = this.#containers.get(taskId)
    if (!container || signal.aborted) return
    const { sinceMs = 0, untilMs = Number.POSITIVE_INFINITY, tail } = options
    const isWanted = (line: LogLine): boolean => {
      const atMs = Date.parse(line.timestamp)
      const asked = line.stream === 'stdout' ? options.stdout : options.stderr
      return asked && atMs >= sinceMs && atMs <= untilMs
    }
    const wanted = container.lines.filter(isWanted)
    let seen = container.lines.length
    yield* tail === 'all' ? wanted : tail === 0 ? [] : wanted.slice(-tail)
    const life = container.life?.signal
    if (!options.follow || !life) return
    for (;;) {
      while (seen < container.lines.length && !signal.aborted) {
        const line = container.lines[seen++]
        if (line && isWanted(line)) yield line
      }
      if (life.aborted || signal.aborted) return
      await new Promise<void>((resolve) => {
        const go = (): void => {
          container.readers.delete(go)
          life.removeEventListener('abort', go)
          signal.removeEventListener('abort', go)
          resolve()
        }
        container.readers.add(go)
        life.addEventListener('abort', go)
        signal.addEventListener('abort', go)
      })
    }
  }

  #write(container: Container, text: string): void {
    const { taskId } = container.observed
    const line: LogLine = {
      taskId,
      nodeId: this.#options.nodeId,
      stream: 'stdout',
      timestamp: new Date(this.#options.clock.nowMs()).toISOString(),
      details: {},
      data: new TextEncoder().encode(text),
    }
    container.lines.push(line)
    for (const go of [...container.readers]) go()
  }

  async #writeOn(
    container: Container,
    { everyMs, times, text }: NonNullable<SimulatedBehaviour['writes']>,
    life: AbortSignal,
  ): Promise<void> {
    for (let left = times; left > 0; left--) {
      await this.#options.clock.sleep(everyMs, life)
      if (life.aborted) return
      this.#write(container, text(container.lines.length + 1))
    }
  }

  #run(container: Container): void {
    const { behaviour } = container
    const { taskId } = container.observed
    const life = new AbortController()
    container.life = life
    container.observed = {
      ...container.observed,
      state: 'running',
      pid: this.#nextPid++,
      exitCode: 0,
      error: '',
      health: behaviour.health ? 'starting' : 'none',
      startedAtMs: this.#options.clock.nowMs(),
      finishedAtMs: undefined,
      hostPorts: container.hostPorts,
    }
    for (const text of behaviour.output ?? []) this.#write(container, text)
    if (behaviour.writes) void this.#writeOn(container, behaviour.writes, life.signal)
    this.#tell({ type: 'changed', taskId, action: 'start' })
    const { exits, health } = behaviour
    if (exits) {
      this.#later(exits.afterMs, life.signal, () => {
        if (!this.#isCalm(container)) this.#end(container, exits.code, exits.oomKilled ?? false)
      })
    }
    if (!health) return
    this.#later(health.healthyAfterMs, life.signal, () => this.#turn(container, 'healthy'))
    if (health.unhealthyAfterMs !== undefined) {
      this.#later(health.unhealthyAfterMs, life.signal, () => {
        if (!this.#isCalm(container)) this.#turn(container, 'unhealthy')
      })
    }
  }

  #turn(container: Container, health: 'healthy' | 'unhealthy'): void {
    const healthOutput = health === 'unhealthy' ? 'simulated: not healthy' : ''
    container.observed = { ...container.observed, health, healthOutput }
    const { taskId } = container.observed
    this.#tell({ type: 'changed', taskId, action: `health_status: ${health}` })
  }

  #isCalm({ assignment }: Container): boolean {
    return this.#options.isCalm?.(assignment) ?? false
  }

  #isHealthy(container: Container): boolean {
    const { behaviour, observed } = container
    const ageMs = this.#options.clock.nowMs() - (observed.startedAtMs ?? 0)
    const { healthyAfterMs = 0, unhealthyAfterMs = Number.POSITIVE_INFINITY } =
      behaviour.health ?? {}
    return ageMs >= healthyAfterMs && (ageMs < unhealthyAfterMs || this.#isCalm(container))
  }

  #end(container: Container, exitCode: number, oomKilled: boolean): void {
    if (container.observed.state !== 'running') return
    container.observed = {
      ...container.observed,
      state: 'exited',
      pid: 0,
      exitCode,
      oomKilled,
      finishedAtMs: this.#options.clock.nowMs(),
      hostPorts: [],
    }
    container.life?.abort()
    const { taskId } = container.observed
    if (oomKilled) this.#tell({ type: 'changed', taskId, action: 'oom' })
    this.#tell({ type: 'changed', taskId, action: 'die' })
  }

  #later(ms: number, life: AbortSignal, work: () => void): void {
    void this.#options.clock.sleep(ms, life).then(() => {
      if (!life.aborted) work()
    })
  }

  /** Events of a time without connection are lost, as an engine's are. */
  #tell(event: RuntimeEvent): void {
    if (!this.#reachable) return
    for (const watcher of this.#watchers) watcher(event)
  }

  async #call(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    if (ms > 0) await this.#options.clock.sleep(ms, signal)
    else await Promise.resolve()
    signal?.throwIfAborted()
    if (!this.#reachable) throw new UserError('unavailable', unreachableMessage)
  }

  #randomHex(length: number): string {
    let text = ''
    for (let i = 0; i < length; i++) text += this.#options.random.below(16).toString(16)
    return text
  }
}

const unreachableMessage = 'the simulated engine does not answer'
