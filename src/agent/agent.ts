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
  type TaskReport,
} from '../wire/index.ts'
import type { Journal } from './journal.ts'
import { decideListening, portsAwaited } from './listening.ts'
import { decideLocalRestart } from './local-restart.ts'
import { decideStopAfter } from './stop-after.ts'
import { decideStep, runningStatus } from './task-step.ts'

export interface AgentOptions {
  readonly nodeId: NodeId
  readonly runtime: Runtime
  readonly dataPlane: DataPlane
  readonly link: ManagerLink
  readonly clock: Clock
  readonly log: Log
  /** Host facts that the runtime does not know. */
  readonly describeHost: () => Promise<
    Pick<
      NodeDescription,
      'skepVersion' | 'address' | 'tls' | 'hostSubnets' | 'dataPathAddress' | 'encryption'
    >
  >
  /** Containers that are no tasks but run on cluster networks all the same. */
  readonly plainContainers?: () => readonly LocalTask[]
  /** Where it keeps what it was told last. Without: it knows nothing until a manager is in reach. */
  readonly journal?: Journal
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
  /** Somebody leads who did not before: without a session, one is sought at once. */
  leaderChanged(): void
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
/** How often a task without a health check is asked whether it listens yet, in ms. */
const listenLookMs = 25
/** Pause before a call that the engine did not answer is tried again, in ms. */
const engineRetryMs = 1000
/** For the engine to describe itself, where it has done so before, in ms. */
const engineAnswerMs = 1000
const reconnectMs = 500
const reconnectMsMax = 3_000
/** Between two writes of the journal, in ms. */
const journalEveryMs = 1000
/** Without a session for so long, a node decides by itself what becomes of a task that ended, in ms. */
const aloneAfterMs = 5_000
/** Between audits of the data plane, in ms: with the time that one takes, what is broken is repaired within 10 s. */
const auditEveryMs = 7_000
/** How often it is written down that a manager is in reach, where tasks hang on it, in ms. */
const heardEveryMs = 10_000

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
  readonly #journalWanted = new WakeUp()
  readonly #unreported = new Set<TaskId>()
  readonly #finished: Promise<unknown>
  #assignments: Assignments | undefined
  /** The session that they came by; absent while they come from the journal. */
  #assignedBy: Session | undefined
  #session: Session | undefined
  /** Containers that are being looked for, to be taken over. */
  #adopting: Promise<void> | undefined
  /** What the engine last said of itself. */
  #described: Awaited<ReturnType<Runtime['describe']>> | undefined
  /** Whether what is known is the last word: a manager's, or the journal's on a node that was left alone. */
  #isTold = false
  /** No manager has been in reach for a while. */
  #isLeftAlone = false
  /** Ends the count of that while. */
  #countingAlone = new AbortController()
  readonly #reachChanged = new Set<() => void>()
  readonly #seekWanted = new WakeUp()
  /** When a manager was last in reach, over restarts: a start alone brings nobody in reach. */
  #heardAtMs: number
  readonly #fenceWanted = new WakeUp()
  #networkDirty = true
  #engineTrouble: string | undefined
  #networkTrouble: string | undefined
  #managerTrouble: string | undefined
  #driftCount = 0

  constructor(options: AgentOptions) {
    this.#options = options
    this.#heardAtMs = options.clock.nowMs()
    options.runtime.watch((event) => {
      switch (event.type) {
        case 'changed':
          this.#runners.get(event.taskId)?.engineSaid(event.action)
          if (event.action === 'create') this.#removeUnasked([event])
          break
        case 'resync':
          this.#engineTrouble = undefined
          this.#networkDirty = true
          this.#networkWanted.ring()
          for (const runner of this.#runners.values()) runner.lookAgain()
          if (this.#assignedBy) void this.#observeAll().then((all) => this.#removeUnasked(all))
          void this.describeAgain()
          break
        case 'unreachable':
          this.#engineTrouble = event.why
          break
        default:
          unreachable(event)
      }
    }, this.#stop.signal)
    void this.#countAlone()
    this.#finished = Promise.all([
      this.#recall().then(() => this.#sessionLoop()),
      this.#journalLoop(),
      this.#fenceLoop(),
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

  leaderChanged(): void {
    this.#seekWanted.ring()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#session?.close()
    this.#reportWanted.ring()
    this.#networkWanted.ring()
    this.#journalWanted.ring()
    this.#fenceWanted.ring()
    for (const runner of this.#runners.values()) runner.close()
    await this.#finished
    await this.#writeJournal()
  }

  // ---- Manager ----

  async #sessionLoop(): Promise<void> {
    const { clock, link, log, nodeId } = this.#options
    const { signal } = this.#stop
    let pauseMs = reconnectMs
    while (!signal.aborted) {
      let openedAtMs: number | undefined
      try {
        const held = this.#assignments?.feeds
        const description = await this.#describeSoon()
        const session = await link.open(nodeId, description, signal, held)
        pauseMs = reconnectMs
        openedAtMs = clock.nowMs()
        this.#inSession(session)
        void this.#describeIfMoved(description)
        this.#managerTrouble = undefined
        for (const taskId of this.#runners.keys()) this.#unreported.add(taskId)
        this.#reportWanted.ring()
        while (!signal.aborted) await this.#take(session, signal)
      } catch (error) {
        if (signal.aborted) break
        this.#inSession(undefined)
        const next = error instanceof UserError ? error.next : undefined
        const why = next === undefined ? messageOf(error) : `${messageOf(error)}. ${next}`
        // Said once, not at each attempt.
        if (why !== this.#managerTrouble) log.warn('no session with a manager', { error: why })
        this.#managerTrouble = why
        // One that has lasted is no sign that the next would not.
        if (openedAtMs !== undefined && clock.nowMs() - openedAtMs >= reconnectMs) continue
        await this.#seekWanted.wait(clock, signal, clock.nowMs() + pauseMs)
        pauseMs = Math.min(pauseMs * 2, reconnectMsMax)
      }
    }
  }

  #inSession(session: Session | undefined): void {
    if (this.#session || session) {
      this.#heardAtMs = this.#options.clock.nowMs()
      this.#countingAlone.abort()
      this.#isLeftAlone = false
      if (!session) void this.#countAlone()
    }
    this.#session = session
    this.#fenceWanted.ring()
    for (const changed of this.#reachChanged) changed()
  }

  /**
   * The start counts as a session that was lost: the managers may be about to answer. Not by the clock: that jumps when somebody
   * sets it, or a store says that it is later.
   */
  async #countAlone(): Promise<void> {
    const counting = new AbortController()
    this.#countingAlone = counting
    const { signal } = counting
    await this.#options.clock.sleep(aloneAfterMs, AbortSignal.any([signal, this.#stop.signal]))
    if (signal.aborted || this.#stop.signal.aborted) return
    this.#isLeftAlone = true
    for (const changed of this.#reachChanged) changed()
  }

  /**
   * Whether this node has to decide for itself: no manager has been in reach for a while. Resolves at once while there
   * is a session, and otherwise when there is one or the while is over.
   */
  async #isAlone(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted && !this.#session) {
      if (this.#isLeftAlone) return true
      await this.#untilReachChanges(aloneAfterMs, signal)
    }
    return false
  }

  /**
   * Resolves once a manager has said what this node is to do, or the node is alone. Until then containers and kernel go on as
   * the agent before left them: the journal may be older than what that one acknowledged, and would send connections to
   * tasks that are being stopped by now.
   */
  async #untilTold(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#isTold) {
      // With a session the word is under way.
      if (this.#session) await this.#untilReachChanges(aloneAfterMs, signal)
      else if (await this.#isAlone(signal)) this.#isTold = true
    }
  }

  async #untilReachChanges(forMs: number, signal: AbortSignal): Promise<void> {
    const changed = new AbortController()
    const wake = () => changed.abort()
    this.#reachChanged.add(wake)
    await this.#options.clock.sleep(forMs, AbortSignal.any([signal, changed.signal]))
    this.#reachChanged.delete(wake)
  }

  // ---- Tasks that must not run twice ----

  /** Stops the tasks that ask for it when no manager has been in reach for their time; they look at that by themselves. */
  async #fenceLoop(): Promise<void> {
    const { clock, journal } = this.#options
    const { signal } = this.#stop
    let wakeAtMs: number | undefined
    while (!signal.aborted) {
      await this.#fenceWanted.wait(clock, signal, wakeAtMs)
      const nowMs = clock.nowMs()
      const isInReach = this.#session !== undefined
      wakeAtMs = undefined
      for (const runner of this.#runners.values()) {
        if (runner.stopAfterMs === undefined || isTerminal(runner.status.state)) continue
        if (isInReach) {
          wakeAtMs = journal && nowMs + heardEveryMs
          continue
        }
        const { atMs, isOver } = this.#fenceOf(runner.stopAfterMs)
        if (isOver) runner.fence()
        else if (atMs !== undefined) wakeAtMs = Math.min(wakeAtMs ?? atMs, atMs)
      }
      if (isInReach && wakeAtMs !== undefined && nowMs - this.#heardAtMs >= heardEveryMs) {
        this.#heardAtMs = nowMs
        this.#journalWanted.ring()
      }
    }
  }

  #fenceOf(stopAfterMs: number | undefined) {
    const reach = { heardAtMs: this.#heardAtMs, isInReach: this.#session !== undefined }
    return decideStopAfter(stopAfterMs, reach, this.#options.clock.nowMs())
  }

  // ---- Journal ----

  /** Goes on with what was known last, before any manager has answered. */
  async #recall(): Promise<void> {
    const { journal, log } = this.#options
    const entry = await journal?.read().catch((error: unknown) => {
      log.error('what this node was told last can not be read; the managers know it', {
        error: messageOf(error),
      })
      return undefined
    })
    if (!entry || this.#stop.signal.aborted) return
    this.#assignments = entry.assignments
    if (entry.heardAtMs !== undefined) this.#heardAtMs = entry.heardAtMs
    this.#networkDirty = true
    this.#networkWanted.ring()
    this.#driveNew(await this.#observeAll(), entry.statuses)
  }

  async #journalLoop(): Promise<void> {
    const { clock, journal } = this.#options
    const { signal } = this.#stop
    while (journal && !signal.aborted) {
      await this.#journalWanted.wait(clock, signal)
      if (signal.aborted) return
      await this.#writeJournal()
      await clock.sleep(journalEveryMs, signal)
    }
  }

  async #writeJournal(): Promise<void> {
    const { journal, log } = this.#options
    const assignments = this.#assignments
    if (!journal || !assignments) return
    const statuses = new Map(
      [...this.#runners].map(([taskId, { status }]) => [taskId, status] as const),
    )
    try {
      if (this.#session) this.#heardAtMs = this.#options.clock.nowMs()
      await journal.write({ assignments, statuses, heardAtMs: this.#heardAtMs })
    } catch (error) {
      log.warn('what this node was told last could not be kept; trying again with the next news', {
        error: messageOf(error),
      })
    }
  }

  /**
   * What a manager knows to have ended may run elsewhere at once: this node must not begin it again, also when its daemon is killed and no
   * manager is in reach after that. The journal itself is up to a second older.
   */
  async #keepEnds(reports: readonly TaskReport[]): Promise<void> {
    const { journal, log } = this.#options
    const ended = reports.filter(({ status }) => isTerminal(status.state))
    if (!journal || ended.length === 0) return
    try {
      await journal.addEnds(new Map(ended.map(({ taskId, status }) => [taskId, status])))
    } catch (error) {
      log.warn('the end of tasks could not be kept', { error: messageOf(error) })
    }
  }

  // ---- Assignments ----

  async #take(session: Session, signal: AbortSignal): Promise<void> {
    const change = await session.next(signal)
    const before = this.#assignments
    const after = applyChange(before, change)
    this.#assignments = after
    this.#assignedBy = session
    if (
      before?.networks !== after.networks ||
      before.endpoints !== after.endpoints ||
      before.neighbours !== after.neighbours ||
      before.node.dataPath?.address !== after.node.dataPath?.address
    )
      this.#networkDirty = true
    // Acknowledged by the network loop, once the data plane is as these assignments say.
    this.#networkWanted.ring()
    this.#journalWanted.ring()
    if (change.full) {
      const adopted = this.#adopt(after)
      // Names are answered to containers by where they are: the first word on the network has to have them all.
      if (!this.#isTold) await adopted
    } else {
      for (const assignment of change.tasks.put) this.#drive(assignment)
      for (const taskId of change.tasks.remove) this.#forget(taskId)
    }
    if (this.#isTold) return
    this.#isTold = true
    for (const changed of this.#reachChanged) changed()
  }

  /** Takes over the containers that run, and ends those that nobody asks for. What it drives already waits for no engine. */
  async #adopt({ tasks }: Assignments): Promise<void> {
    for (const taskId of [...this.#runners.keys()]) {
      const assignment = tasks.get(taskId)
      if (assignment) this.#drive(assignment)
      else this.#forget(taskId)
    }
    // An engine that is away may be so for many sessions.
    this.#adopting ??= this.#observeAll().then((observed) => {
      this.#adopting = undefined
      this.#driveNew(observed)
      this.#removeUnasked(observed)
    })
    await this.#adopting
  }

  /** Begins with what is assigned by now and not driven yet. */
  #driveNew(
    containers: readonly ObservedContainer[],
    statuses: ReadonlyMap<TaskId, TaskStatus> = new Map(),
  ): void {
    const observed = new Map(containers.map((container) => [container.taskId, container]))
    for (const assignment of this.#assignments?.tasks.values() ?? []) {
      const { task } = assignment
      if (this.#runners.has(task.id)) continue
      const status = statuses.get(task.id)
      this.#drive(
        status ? { ...assignment, task: { ...task, status } } : assignment,
        observed.get(task.id),
      )
    }
  }

  /**
   * Ends containers that nobody asks for. Besides those that were here before, one may still come: what an engine was
   * told to make it makes, although whoever told it was killed, or no longer waits, and its task is gone by then.
   */
  #removeUnasked(containers: Iterable<{ readonly taskId: TaskId }>): void {
    // The journal may have it wrong.
    if (!this.#assignedBy) return
    for (const { taskId } of containers) {
      if (this.#assignments?.tasks.has(taskId) || this.#runners.has(taskId)) continue
      this.#options.log.info('removing a container whose task is gone', { taskId })
      void this.#removeContainer(taskId)
    }
  }

  /** Every container of the cluster on this host; waits for an engine that is away. */
  async #observeAll(): Promise<readonly ObservedContainer[]> {
    const { clock, log, runtime } = this.#options
    const { signal } = this.#stop
    while (!signal.aborted) {
      try {
        return await runtime.list()
      } catch (error) {
        this.#engineTrouble = messageOf(error)
        log.warn('the engine does not list its containers', { error: messageOf(error) })
        await clock.sleep(engineRetryMs, signal)
      }
    }
    return []
  }

  async #describe(): Promise<NodeDescription> {
    const [engine, host] = await Promise.all([
      this.#options.runtime.describe(),
      this.#options.describeHost(),
    ])
    this.#described = engine
    return { ...engine, ...host }
  }

  /** An engine that does not answer is described as it was: its containers run on, and the node's network still follows. */
  async #describeSoon(): Promise<NodeDescription> {
    const described = this.#described
    if (!described) return this.#describe()
    const answered = new AbortController()
    try {
      const description = await Promise.race([
        this.#describe().catch(() => undefined),
        this.#options.clock.sleep(engineAnswerMs, answered.signal),
      ])
      return description ?? { ...described, ...(await this.#options.describeHost()) }
    } finally {
      answered.abort()
    }
  }

  /** A host whose address changes may have none for a moment: what the session was opened with was the one of before. */
  async #describeIfMoved({ address }: NodeDescription): Promise<void> {
    const now = await this.#options.describeHost().catch(() => undefined)
    if (now && now.address !== address) await this.describeAgain()
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
      await this.#keepEnds(reports)
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
      if (known.stopAfterMs !== assignment.stopAfterMs) this.#fenceWanted.ring()
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
        this.#journalWanted.ring()
      },
      isFenced: (stopAfterMs) => this.#fenceOf(stopAfterMs).isOver,
      isAlone: (signal) => this.#isAlone(signal),
      isTold: () => this.#isTold,
      untilTold: (signal) => this.#untilTold(signal),
      placed: () => {
        if (assignment.task.addresses.length === 0) return
        this.#networkDirty = true
        this.#networkWanted.ring()
      },
    })
    this.#runners.set(id, runner)
    if (assignment.stopAfterMs !== undefined) this.#fenceWanted.ring()
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
      await this.#untilTold(signal)
      const assignments = this.#assignments
      const session = this.#assignedBy
      if (!assignments || signal.aborted) continue
      try {
        if (this.#networkDirty) {
          this.#networkDirty = false
          await dataPlane.apply(this.#desiredNetwork(assignments))
        }
        this.#networkTrouble = undefined
        session?.acknowledge(assignments.sequence)
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
      neighbours: assignments.neighbours,
      node: assignments.node,
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
  /** Whether tasks with this limit are to be stopped: no manager has been in reach for so long. */
  readonly isFenced: (stopAfterMs: number | undefined) => boolean
  /** Whether the node decides by itself what becomes of a task that ended. Waits until that is known. */
  readonly isAlone: (signal: AbortSignal) => Promise<boolean>
  /** Whether the assignment may be begun. */
  readonly isTold: () => boolean
  readonly untilTold: (signal: AbortSignal) => Promise<void>
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
  /** The engine was asked to start the container, and has not answered. */
  #isStarting = false
  #again = false
  readonly #context: RunnerContext
  readonly #closed = new AbortController()
  /** Ends a wait (between probes, while draining) early. */
  readonly #nudge = new WakeUp()
  /** Aborted when the task is no longer to run: ends a pull or a start under way. */
  #preparing = new AbortController()
  /** What it was waited for and did not do, for whoever looks at the task. */
  #remark: string | undefined
  /** Times it was started again here since a manager was last in reach. */
  #localRestarts = 0

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

  get stopAfterMs(): number | undefined {
    return this.#assignment.stopAfterMs
  }

  /** It is to stop by itself: ends what is under way and looks again. */
  fence(): void {
    this.#preparing.abort()
    this.#look()
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
    if (action === 'create') return
    const isStart = action === 'start'
    const hasEnded = isTerminal(this.#status.state)
    if (hasEnded ? !isStart : isStart && this.#isOwnStart()) return
    this.lookAgain()
  }

  /** Whether a start that the engine tells of is the one that was asked for just now, which answers by itself. */
  #isOwnStart(): boolean {
    return !this.#stale && (this.#observed?.state === 'running' || this.#isStarting)
  }

  lookAgain(): void {
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
        const step = decideStep(this.#assignment, this.#status, this.#observed, clock.nowMs(), {
          isFenced: this.#context.isFenced(this.#assignment.stopAfterMs),
          remark: this.#remark,
        })
        if (step.type === 'wait') return
        if ((step.type === 'prepare' || step.type === 'start') && !this.#context.isTold()) {
          await this.#context.untilTold(this.#closed.signal)
          continue
        }
        if (step.type === 'become') await this.#becomeOrRestart(step.status)
        else if (step.type === 'prepare') await this.#prepare()
        else if (step.type === 'start') await this.#start()
        else if (step.type === 'probe') await this.#probe()
        else if (step.type === 'endAgain') await this.#endAgain()
        else if (step.type === 'stop') await this.#stopContainer(step.outcome, step.error)
        else unreachable(step)
      } catch (error) {
        if (this.#closed.signal.aborted) return
        this.#stale = true
        const isFinal = error instanceof UserError && error.code !== 'unavailable'
        if (isFinal && !isTerminal(this.#status.state)) this.#fail(error)
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

  /** A task that ends while nobody could replace it is started again in place, as its restart policy says. */
  async #becomeOrRestart(status: TaskStatus): Promise<void> {
    if (!decideLocalRestart(this.#assignment, status, this.#localRestarts)) {
      this.#become(status)
      return
    }
    if (!(await this.#context.isAlone(this.#closed.signal))) {
      this.#localRestarts = 0
      if (!this.#closed.signal.aborted) this.#become(status)
      return
    }
    const restart = decideLocalRestart(this.#assignment, status, this.#localRestarts)
    if (!restart) return
    const { clock, log } = this.#context
    this.#localRestarts += 1
    log.info('starting a task again: no manager is in reach', {
      taskId: this.#assignment.task.id,
      error: status.error ?? '',
    })
    this.#become({
      ...this.#status,
      message: 'started again by its node: no manager is in reach',
      ready: false,
      atMs: clock.nowMs(),
    })
    await clock.sleep(restart.delayMs, this.#closed.signal)
    // Its files may be gone with the last boot; the container stays if it is still there.
    await this.#make()
    await this.#start()
    while (!this.#closed.signal.aborted && !this.#preparing.signal.aborted && !this.#status.ready) {
      if (this.#stale || this.#observed?.state !== 'running') return
      await this.#probe()
    }
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
    if (!(await this.#make())) return
    const atMs = this.#context.clock.nowMs()
    this.#become({ ...this.#status, state: 'ready', message: 'prepared', atMs })
  }

  /** Makes the container be there. False: the task is no longer to run. */
  async #make(): Promise<boolean> {
    const { dataPlane, runtime, starts } = this.#context
    const assignments = this.#context.assignments()
    if (!assignments) return false
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
    return starts.run(async () => {
      if (this.#closed.signal.aborted || this.#preparing.signal.aborted) return false
      await runtime.prepare(assignment, materials, this.#preparing.signal)
      return true
    })
  }

  async #start(): Promise<void> {
    const { clock, runtime, starts } = this.#context
    let exposedTcpPorts: readonly number[] = []
    await starts.run(async () => {
      if (this.#closed.signal.aborted || this.#preparing.signal.aborted) return
      this.#isStarting = true
      const started = await runtime
        .start(this.#assignment.task.id, this.#preparing.signal)
        .finally(() => {
          this.#isStarting = false
        })
      exposedTcpPorts = started.exposedTcpPorts
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
    if (this.#observed?.health === 'none') {
      await this.#untilListening(this.#observed.pid, exposedTcpPorts)
    }
  }

  /**
   * A program that has just started takes a while to listen, and who is sent there meanwhile is refused. Without a health
   * check to say so, its sockets do. One that never listens is waited for in vain, but not long.
   */
  async #untilListening(pid: number, exposedTcpPorts: readonly number[]): Promise<void> {
    const { clock, dataPlane } = this.#context
    this.#remark = undefined
    const awaited = portsAwaited(this.#assignment, exposedTcpPorts)
    if (awaited.ports.length === 0) return
    const sinceMs = clock.nowMs()
    let heardAtMs: number | undefined
    const isOver = () => this.#closed.signal.aborted || this.#preparing.signal.aborted
    while (!this.#stale && !isOver()) {
      const silent = await dataPlane.silentPorts({ pid }, awaited.ports)
      const atMs = clock.nowMs()
      if (silent.length < awaited.ports.length) heardAtMs ??= atMs
      const heardMs = heardAtMs === undefined ? undefined : atMs - heardAtMs
      const listening = decideListening(awaited, silent, atMs - sinceMs, heardMs)
      if (listening.type === 'over') {
        this.#remark = listening.remark
        return
      }
      if (listening.message !== this.#status.message)
        this.#become({ ...this.#status, message: listening.message, atMs })
      await clock.sleep(listenLookMs, this.#preparing.signal)
    }
  }

  /** Asks the container whether it is healthy, now and then every second until it first says yes. */
  async #probe(): Promise<void> {
    const { clock, runtime } = this.#context
    const check = this.#assignment.template.containers[0]?.health
    const result = await runtime.probe(this.#assignment.task.id, check, this.#preparing.signal)
    if (this.#stale || !this.#observed) return
    if (result === undefined || result.healthy) {
      this.#become(runningStatus(this.#status, this.#observed, clock.nowMs(), this.#remark))
      return
    }
    const output = result.output.trim().split('\n').at(-1) ?? ''
    const message = `starting: not healthy yet${output === '' ? '' : ` (${output.slice(0, 200)})`}`
    if (message !== this.#status.message)
      this.#become({ ...this.#status, message, atMs: clock.nowMs() })
    await this.#nudge.wait(clock, this.#closed.signal, clock.nowMs() + probeIntervalMs)
  }

  async #endAgain(): Promise<void> {
    const { log } = this.#context
    const { task } = this.#assignment
    const { state } = this.#status
    log.warn('a container runs whose task has ended; stopping it', { taskId: task.id, state })
    this.#observe(await this.#stopNow())
  }

  /** Answers what is left of the container. */
  async #stopNow(): Promise<ObservedContainer | undefined> {
    const { runtime, stops } = this.#context
    const { task, template } = this.#assignment
    await stops.run(() => runtime.stop(task.id, template.containers[0]?.stopGraceMs ?? 10_000))
    return runtime.inspect(task.id)
  }

  async #stopContainer(outcome: TaskState, error: string | undefined): Promise<void> {
    const { clock } = this.#context
    if (outcome === 'shutdown') await this.#drain()
    const seen = await this.#stopNow()
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
    const { drainMs, endpointPorts, task } = this.#assignment
    const isReachable = endpointPorts.length > 0 || task.addresses.length > 0
    if (drainMs <= 0 || !isReachable || !this.#observed) return
    const untilMs = clock.nowMs() + drainMs
    // Seen twice: a connection that was sent here just before the sets changed may still be on its way.
    let looksWithout = 0
    while (clock.nowMs() < untilMs && !this.#closed.signal.aborted) {
      const open = await dataPlane.openConnections({ pid: this.#observed.pid })
      looksWithout = open === 0 ? looksWithout + 1 : 0
      if (looksWithout >= 2) return
      const message = `draining: ${open} open connection${open === 1 ? '' : 's'}`
      if (open > 0 && message !== this.#status.message) this.#become({ ...this.#status, message })
      await clock.sleep(Math.min(drainLookMs, untilMs - clock.nowMs()), this.#closed.signal)
    }
  }
}
