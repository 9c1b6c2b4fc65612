import {
  type Clock,
  type Log,
  messageOf,
  Semaphore,
  UserError,
  unreachable,
  WakeUp,
} from '../base/index.ts'
import {
  isTerminal,
  type NetworkId,
  type NodeDescription,
  type NodeId,
  rankOf,
  type TaskId,
  type TaskState,
  type TaskStatus,
} from '../model/index.ts'
import type { DataPlane, DesiredNetwork, LocalTask } from '../network/data-plane.ts'
import type { Materials, ObservedContainer, Runtime } from '../runtime/runtime.ts'
import {
  type Assignments,
  applyChange,
  type ManagerLink,
  type Session,
  type TaskAssignment,
} from '../wire/index.ts'
import { decideStep, runningStatus } from './task-step.ts'

export interface AgentOptions {
  readonly nodeId: NodeId
  readonly runtime: Runtime
  readonly dataPlane: DataPlane
  readonly link: ManagerLink
  readonly clock: Clock
  readonly log: Log
  /** Host facts that the runtime does not know. */
  readonly describeHost: () => Promise<Pick<NodeDescription, 'skepVersion' | 'tls' | 'hostSubnets'>>
  /** Containers that are no tasks but run on cluster networks all the same. */
  readonly plainContainers?: () => readonly LocalTask[]
}

export interface Agent {
  /** Words for `/info` and `explain`: why the node is not working as it should, or undefined. */
  trouble(): string | undefined
  /** Drift that audits found and repaired since the start. */
  driftCount(): number
  /** The node's own facts may differ: tell the manager. */
  describeAgain(): Promise<void>
  /** The list of plain containers differs: the data plane has to know. */
  plainContainersChanged(): void
  /** Ends the agent; containers go on. */
  close(): Promise<void>
}

/** Containers being created or started at once: more only makes the engine queue. */
const startsMax = 8
const stopsMax = 32
/** Between probes of a starting container until its first success, in ms. */
const probeIntervalMs = 1000
/** How often open connections are counted while a task drains, in ms. */
const drainLookMs = 200
/** Pause before a call that the engine did not answer is tried again, in ms. */
const engineRetryMs = 1000
const reconnectMs = 500
const auditEveryMs = 10_000

/**
 * Drives this node's tasks: takes assignments, moves each task through its states against the runtime, keeps the data
 * plane in step, reports what is. Level-triggered: every wake-up compares all that changed with what is wanted.
 */
export function startAgent(options: AgentOptions): Agent {
  return new RunningAgent(options)
}

class RunningAgent implements Agent {
  readonly #options: AgentOptions
  readonly #stop = new AbortController()
  readonly #runners = new Map<TaskId, TaskRunner>()
  readonly #starts = new Semaphore(startsMax)
  readonly #stops = new Semaphore(stopsMax)
  readonly #reportWanted = new WakeUp()
  readonly #networkWanted = new WakeUp()
  readonly #unreported = new Set<TaskId>()
  readonly #finished: Promise<unknown>
  #assignments: Assignments | undefined
  #session: Session | undefined
  #networkDirty = true
  #engineTrouble: string | undefined
  #networkTrouble: string | undefined
  #managerTrouble: string | undefined
  #driftCount = 0

  constructor(options: AgentOptions) {
    this.#options = options
    options.runtime.watch((event) => {
      switch (event.type) {
        case 'changed':
          this.#runners.get(event.taskId)?.engineSaid(event.action)
          break
        case 'resync':
          this.#engineTrouble = undefined
          this.#networkDirty = true
          this.#networkWanted.ring()
          for (const runner of this.#runners.values()) runner.lookAgain()
          void this.describeAgain()
          break
        case 'unreachable':
          this.#engineTrouble = event.why
          break
        default:
          unreachable(event)
      }
    }, this.#stop.signal)
    this.#finished = Promise.all([
      this.#sessionLoop(),
      this.#reportLoop(),
      this.#networkLoop(),
      this.#auditLoop(),
    ])
  }

  trouble(): string | undefined {
    return this.#engineTrouble ?? this.#networkTrouble ?? this.#managerTrouble
  }

  driftCount(): number {
    return this.#driftCount
  }

  plainContainersChanged(): void {
    this.#networkDirty = true
    this.#networkWanted.ring()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#session?.close()
    this.#reportWanted.ring()
    this.#networkWanted.ring()
    for (const runner of this.#runners.values()) runner.close()
    await this.#finished
  }

  // ---- Manager ----

  async #sessionLoop(): Promise<void> {
    const { clock, link, log, nodeId } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      try {
        const session = await link.open(nodeId, await this.#describe(), signal)
        this.#session = session
        this.#managerTrouble = undefined
        for (const taskId of this.#runners.keys()) this.#unreported.add(taskId)
        this.#reportWanted.ring()
        while (!signal.aborted) await this.#take(session, signal)
      } catch (error) {
        if (signal.aborted) break
        this.#session = undefined
        this.#managerTrouble = messageOf(error)
        log.warn('no session with a manager', { error: messageOf(error) })
        await clock.sleep(reconnectMs, signal)
      }
    }
  }

  async #take(session: Session, signal: AbortSignal): Promise<void> {
    const change = await session.next(signal)
    const before = this.#assignments
    const after = applyChange(before, change)
    this.#assignments = after
    if (before?.networks !== after.networks || before?.endpoints !== after.endpoints)
      this.#networkDirty = true
    // Acknowledged by the network loop, once the data plane is as these assignments say.
    this.#networkWanted.ring()
    if (change.full) await this.#adopt(after)
    else {
      for (const assignment of change.tasks.put) this.#drive(assignment)
      for (const taskId of change.tasks.remove) this.#forget(taskId)
    }
  }

  /** Takes over the containers that run, and ends those that nobody asks for. */
  async #adopt(assignments: Assignments): Promise<void> {
    const { clock, log, runtime } = this.#options
    let observed: readonly ObservedContainer[] | undefined
    while (!observed && !this.#stop.signal.aborted) {
      try {
        observed = await runtime.list()
      } catch (error) {
        this.#engineTrouble = messageOf(error)
        log.warn('the engine does not list its containers', { error: messageOf(error) })
        await clock.sleep(engineRetryMs, this.#stop.signal)
      }
    }
    for (const assignment of assignments.tasks.values()) {
      this.#drive(
        assignment,
        observed?.find(({ taskId }) => taskId === assignment.task.id),
      )
    }
    for (const taskId of [...this.#runners.keys()])
      if (!assignments.tasks.has(taskId)) this.#forget(taskId)
    for (const { taskId } of observed ?? []) {
      if (assignments.tasks.has(taskId)) continue
      log.info('removing a container whose task is gone', { taskId })
      void this.#removeContainer(taskId)
    }
  }

  async #describe(): Promise<NodeDescription> {
    const [engine, host] = await Promise.all([
      this.#options.runtime.describe(),
      this.#options.describeHost(),
    ])
    return { ...engine, ...host }
  }

  async describeAgain(): Promise<void> {
    try {
      await this.#session?.describe(await this.#describe())
    } catch (error) {
      this.#options.log.warn('the node could not be described', { error: messageOf(error) })
    }
  }

  async #reportLoop(): Promise<void> {
    const { clock, log } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#reportWanted.wait(clock, signal)
      const session = this.#session
      if (!session || this.#unreported.size === 0) continue
      const taskIds = [...this.#unreported]
      this.#unreported.clear()
      const reports = taskIds.flatMap((taskId) => {
        const runner = this.#runners.get(taskId)
        return runner ? [{ taskId, status: runner.status }] : []
      })
      try {
        await session.report(reports)
      } catch (error) {
        if (signal.aborted) break
        log.warn('a report was not taken; it is sent again', { error: messageOf(error) })
        for (const taskId of taskIds) this.#unreported.add(taskId)
        await clock.sleep(reconnectMs, signal)
        this.#reportWanted.ring()
      }
    }
  }

  // ---- Tasks ----

  #drive(assignment: TaskAssignment, observed?: ObservedContainer): void {
    const { id } = assignment.task
    const known = this.#runners.get(id)
    if (known) {
      known.assign(assignment)
      return
    }
    const runner = new TaskRunner(assignment, observed, {
      clock: this.#options.clock,
      log: this.#options.log,
      runtime: this.#options.runtime,
      dataPlane: this.#options.dataPlane,
      starts: this.#starts,
      stops: this.#stops,
      assignments: () => this.#assignments,
      changed: () => {
        this.#unreported.add(id)
        this.#reportWanted.ring()
      },
      placed: () => {
        if (assignment.task.addresses.length === 0) return
        this.#networkDirty = true
        this.#networkWanted.ring()
      },
    })
    this.#runners.set(id, runner)
    runner.begin()
  }

  #forget(taskId: TaskId): void {
    const runner = this.#runners.get(taskId)
    this.#runners.delete(taskId)
    this.#unreported.delete(taskId)
    runner?.close()
    void this.#removeContainer(taskId)
    this.#networkDirty = true
    this.#networkWanted.ring()
  }

  async #removeContainer(taskId: TaskId): Promise<void> {
    const { clock, log, runtime } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted && !this.#runners.has(taskId)) {
      try {
        await this.#stops.run(() => runtime.remove(taskId))
        return
      } catch (error) {
        log.warn('a container could not be removed', { taskId, error: messageOf(error) })
        await clock.sleep(engineRetryMs, signal)
      }
    }
  }

  // ---- Data plane ----

  async #networkLoop(): Promise<void> {
    const { clock, dataPlane, log } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      await this.#networkWanted.wait(clock, signal)
      const assignments = this.#assignments
      if (!assignments || signal.aborted) continue
      try {
        if (this.#networkDirty) {
          this.#networkDirty = false
          await dataPlane.apply(this.#desiredNetwork(assignments))
        }
        this.#networkTrouble = undefined
        this.#session?.acknowledge(assignments.revision)
      } catch (error) {
        if (signal.aborted) break
        this.#networkDirty = true
        this.#networkTrouble = `the node's network is not as it should be: ${messageOf(error)}`
        log.error('the data plane could not be brought in step', { error: messageOf(error) })
        await clock.sleep(engineRetryMs, signal)
        this.#networkWanted.ring()
      }
    }
  }

  #desiredNetwork(assignments: Assignments): DesiredNetwork {
    const tasks: LocalTask[] = [...(this.#options.plainContainers?.() ?? [])]
    for (const runner of this.#runners.values()) {
      const local = runner.localTask()
      if (local) tasks.push(local)
    }
    return {
      networks: [...assignments.networks.values()],
      endpoints: [...assignments.endpoints.values()],
      tasks,
    }
  }

  async #auditLoop(): Promise<void> {
    const { clock, dataPlane, log } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      await clock.sleep(auditEveryMs, signal)
      if (signal.aborted) break
      try {
        const drift = await dataPlane.audit()
        this.#driftCount += drift.length
        for (const found of drift) log.warn('drift repaired', { found })
      } catch (error) {
        log.error('the data plane could not be audited', { error: messageOf(error) })
      }
    }
  }
}

interface RunnerContext {
  readonly clock: Clock
  readonly log: Log
  readonly runtime: Runtime
  readonly dataPlane: DataPlane
  readonly starts: Semaphore
  readonly stops: Semaphore
  readonly assignments: () => Assignments | undefined
  /** The status changed and wants to be reported. */
  readonly changed: () => void
  /** The container's process or addresses changed: the data plane has to know. */
  readonly placed: () => void
}

/** One task on this node. Steps are taken one after the other; anything that happens meanwhile asks for another look. */
class TaskRunner {
  #assignment: TaskAssignment
  #status: TaskStatus
  #observed: ObservedContainer | undefined
  /** The engine's state has to be read before the next decision. */
  #stale: boolean
  #driving = false
  #again = false
  readonly #context: RunnerContext
  readonly #closed = new AbortController()
  /** Ends a wait (between probes, while draining) early. */
  readonly #nudge = new WakeUp()
  /** Aborted when the task is no longer to run: ends a pull or a start under way. */
  #preparing = new AbortController()

  constructor(
    assignment: TaskAssignment,
    observed: ObservedContainer | undefined,
    context: RunnerContext,
  ) {
    this.#assignment = assignment
    this.#status = assignment.task.status
    this.#observed = observed
    // A task that has been started before must be looked for; a new one cannot have a container.
    this.#stale = observed === undefined && rankOf(this.#status.state) >= rankOf('preparing')
    this.#context = context
  }

  get status(): TaskStatus {
    return this.#status
  }

  begin(): void {
    if (this.#observed?.state === 'running') this.#context.placed()
    this.#look()
  }

  assign(assignment: TaskAssignment): void {
    this.#assignment = assignment
    if (assignment.task.desiredState === 'shutdown' || assignment.task.desiredState === 'remove') {
      this.#preparing.abort()
    }
    this.#look()
  }

  engineSaid(action: string): void {
    const ownStart =
      action === 'start' && !this.#stale && (this.#observed?.state === 'running' || this.#driving)
    if (action === 'create' || ownStart) return
    this.lookAgain()
  }

  lookAgain(): void {
    if (isTerminal(this.#status.state)) return
    this.#stale = true
    this.#look()
  }

  close(): void {
    this.#closed.abort()
    this.#preparing.abort()
    this.#nudge.ring()
  }

  localTask(): LocalTask | undefined {
    const { task, template, name } = this.#assignment
    const observed = this.#observed
    if (!observed || (observed.state !== 'running' && observed.state !== 'paused')) return undefined
    if (observed.pid === 0 || task.addresses.length === 0 || isTerminal(this.#status.state))
      return undefined
    const main = template.containers[0]
    return {
      taskId: task.id,
      name,
      hostname: main?.hostname ?? observed.containerId.slice(0, 12),
      pid: observed.pid,
      addresses: task.addresses,
      nameservers: main?.dns.nameservers ?? [],
    }
  }

  #look(): void {
    this.#again = true
    this.#nudge.ring()
    if (this.#driving || this.#closed.signal.aborted) return
    this.#driving = true
    void this.#drive().finally(() => {
      this.#driving = false
      if (this.#again && !this.#closed.signal.aborted) this.#look()
    })
  }

  async #drive(): Promise<void> {
    const { clock, log, runtime } = this.#context
    while (!this.#closed.signal.aborted) {
      this.#again = false
      try {
        if (this.#stale) {
          this.#stale = false
          this.#observe(await runtime.inspect(this.#assignment.task.id))
        }
        const step = decideStep(this.#assignment, this.#status, this.#observed, clock.nowMs())
        if (step.type === 'wait') return
        if (step.type === 'become') this.#become(step.status)
        else if (step.type === 'prepare') await this.#prepare()
        else if (step.type === 'start') await this.#start()
        else if (step.type === 'probe') await this.#probe()
        else if (step.type === 'stop') await this.#stopContainer(step.outcome, step.error)
        else unreachable(step)
      } catch (error) {
        if (this.#closed.signal.aborted) return
        this.#stale = true
        if (error instanceof UserError && error.code !== 'unavailable') this.#fail(error)
        else if (this.#preparing.signal.aborted) this.#preparing = new AbortController()
        else {
          log.warn('the engine did not do its part; trying again', {
            taskId: this.#assignment.task.id,
            error: messageOf(error),
          })
          await this.#nudge.wait(clock, this.#closed.signal, clock.nowMs() + engineRetryMs)
        }
      }
    }
  }

  /** A final error: the task ends, with the reason. */
  #fail(error: UserError): void {
    const state = rankOf(this.#status.state) < rankOf('starting') ? 'rejected' : 'failed'
    this.#become({
      ...this.#status,
      state,
      message: this.#status.message,
      error: error.message,
      ready: false,
      atMs: this.#context.clock.nowMs(),
    })
  }

  #become(status: TaskStatus): void {
    this.#status = status
    this.#context.changed()
    if (isTerminal(status.state)) this.#context.placed()
  }

  #observe(observed: ObservedContainer | undefined): void {
    const moved = observed?.pid !== this.#observed?.pid || observed?.state !== this.#observed?.state
    this.#observed = observed
    if (moved) this.#context.placed()
  }

  async #prepare(): Promise<void> {
    const { dataPlane, runtime, starts, clock } = this.#context
    const assignments = this.#context.assignments()
    if (!assignments) return
    const assignment = this.#assignment
    const engineNetworks = new Map<NetworkId, string>()
    const attached = []
    for (const { networkId } of assignment.task.addresses) {
      const network = assignments.networks.get(networkId)
      if (!network)
        throw new UserError('unavailable', `network ${networkId} has not reached this node yet`)
      engineNetworks.set(networkId, await dataPlane.ensureNetwork(network))
      attached.push(network)
    }
    for (const { networkId, engineName } of assignment.engineNetworks)
      engineNetworks.set(networkId, engineName)
    const materials: Materials = {
      assignments,
      nameservers: attached.length === 0 ? [] : dataPlane.nameserversFor(attached),
      engineNetworks,
    }
    await starts.run(async () => {
      if (this.#closed.signal.aborted || this.#preparing.signal.aborted) return
      await runtime.prepare(assignment, materials, this.#preparing.signal)
      this.#become({ ...this.#status, state: 'ready', message: 'prepared', atMs: clock.nowMs() })
    })
  }

  async #start(): Promise<void> {
    const { clock, runtime, starts } = this.#context
    await starts.run(async () => {
      if (this.#closed.signal.aborted || this.#preparing.signal.aborted) return
      const started = await runtime.start(this.#assignment.task.id, this.#preparing.signal)
      this.#observe({
        taskId: this.#assignment.task.id,
        containerId: started.containerId,
        state: 'running',
        pid: started.pid,
        exitCode: 0,
        oomKilled: false,
        error: '',
        health: started.hasHealthCheck ? 'starting' : 'none',
        healthOutput: '',
        startedAtMs: clock.nowMs(),
        finishedAtMs: undefined,
        hostPorts: started.hostPorts,
      })
      // The process may have ended within its start: pid 0 says so, and the engine knows how.
      if (started.pid === 0) this.#stale = true
      this.#status = {
        ...this.#status,
        container: { containerId: started.containerId, pid: started.pid },
        hostPorts: started.hostPorts,
      }
    })
  }

  /** Asks the container whether it is healthy, now and then every second until it first says yes. */
  async #probe(): Promise<void> {
    const { clock, runtime } = this.#context
    const check = this.#assignment.template.containers[0]?.health
    const result = await runtime.probe(this.#assignment.task.id, check, this.#preparing.signal)
    if (this.#stale || !this.#observed) return
    if (result === undefined || result.healthy) {
      this.#become(runningStatus(this.#status, this.#observed, clock.nowMs()))
      return
    }
    const output = result.output.trim().split('\n').at(-1) ?? ''
    const message = `starting: not healthy yet${output === '' ? '' : ` (${output.slice(0, 200)})`}`
    if (message !== this.#status.message)
      this.#become({ ...this.#status, message, atMs: clock.nowMs() })
    await this.#nudge.wait(clock, this.#closed.signal, clock.nowMs() + probeIntervalMs)
  }

  async #stopContainer(outcome: TaskState, error: string | undefined): Promise<void> {
    const { clock, runtime, stops } = this.#context
    const { task, template } = this.#assignment
    if (outcome === 'shutdown') await this.#drain()
    await stops.run(() => runtime.stop(task.id, template.containers[0]?.stopGraceMs ?? 10_000))
    const seen = await runtime.inspect(task.id)
    this.#observe(seen)
    const base = {
      ...this.#status,
      ready: false,
      atMs: clock.nowMs(),
      ...(seen
        ? { container: { containerId: seen.containerId, pid: 0, exitCode: seen.exitCode } }
        : {}),
    }
    this.#become(
      error === undefined
        ? { ...base, state: outcome, message: 'shutdown' }
        : { ...base, state: outcome, message: 'stopped', error },
    )
  }

  /** No node sends new connections any more; those that are open may end by themselves, for a while. */
  async #drain(): Promise<void> {
    const { clock, dataPlane } = this.#context
    const { drainMs, endpointPorts } = this.#assignment
    if (drainMs <= 0 || endpointPorts.length === 0 || !this.#observed) return
    const untilMs = clock.nowMs() + drainMs
    // Seen twice: a connection that was sent here just before the sets changed may still be on its way.
    let looksWithout = 0
    while (clock.nowMs() < untilMs && !this.#closed.signal.aborted) {
      const open = await dataPlane.openConnections({ pid: this.#observed.pid }, endpointPorts)
      looksWithout = open === 0 ? looksWithout + 1 : 0
      if (looksWithout >= 2) return
      const message = `draining: ${open} open connection${open === 1 ? '' : 's'}`
      if (open > 0 && message !== this.#status.message) this.#become({ ...this.#status, message })
      await clock.sleep(Math.min(drainLookMs, untilMs - clock.nowMs()), this.#closed.signal)
    }
  }
}
