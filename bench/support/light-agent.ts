import type { Clock, Random } from '../../src/base/index.ts'
import { encodeParts } from '../../src/cluster/feed-bytes.ts'
import { encodeFrame } from '../../src/cluster/frames.ts'
import { assignmentsMessage } from '../../src/cluster/messages.ts'
import type { Dispatcher } from '../../src/dispatcher/index.ts'
import {
  isStopWanted,
  isTerminal,
  type NodeDescription,
  type NodeId,
  type TaskId,
  type TaskStatus,
} from '../../src/model/index.ts'
import type {
  AssignmentChange,
  FeedId,
  Session,
  TaskAssignment,
  TaskReport,
} from '../../src/wire/index.ts'

export interface LightAgentOptions {
  readonly nodeId: NodeId
  readonly description: NodeDescription
  readonly clock: Clock
  readonly random: Random
  /** Time between two steps of a task, in ms; up to twice that, by chance. */
  readonly stepMs: number
  /** Takes assignments, and reports nothing. */
  readonly isSilent?: boolean
}

interface KnownTask {
  assignment: TaskAssignment
  status: TaskStatus
}

const reconnectMs = 500
/** What all light agents of this process spent in their own code, in ms: no part of a manager's work. */
export const agentsTime = { spentMs: 0 }
/** What managers sent to all of them, in bytes, before encryption. */
export const sentToAgents = { bytes: 0 }

/**
 * A node that speaks an agent's part with a manager and has nothing behind it. A task takes two reports from
 * assignment to running and one to its end, as a real agent's do when its steps are coalesced; a map and a status each
 * are all its memory, so that thousands of nodes leave the machine to the manager that is measured.
 */
export class LightAgent {
  readonly #options: LightAgentOptions
  readonly #tasks = new Map<TaskId, KnownTask>()
  #toDo = new Set<TaskId>()
  #session: Session | undefined
  #working = false
  #life = new AbortController()
  /** Digests of the feeds that it would hold. */
  #held = new Map<FeedId, string>()
  /** Count of full assignments taken: a session begins with one. */
  fullTaken = 0

  constructor(options: LightAgentOptions) {
    this.#options = options
  }

  /** Speaks with a manager until the next call of `connect` or `disconnect`. */
  connect(dispatcher: Dispatcher): void {
    this.disconnect()
    this.#life = new AbortController()
    void this.#talk(dispatcher, this.#life.signal)
    void this.#beat(dispatcher, this.#life.signal)
  }

  disconnect(): void {
    this.#life.abort()
    this.#session?.close()
    this.#session = undefined
  }

  /** As often as the manager wants to hear a node. */
  async #beat(dispatcher: Dispatcher, signal: AbortSignal): Promise<void> {
    const { clock, nodeId, random } = this.#options
    await clock.sleep(random.below(dispatcher.livenessLimits().heartbeatMs), signal)
    while (!signal.aborted) {
      dispatcher.heard(nodeId)
      await clock.sleep(dispatcher.livenessLimits().heartbeatMs, signal)
    }
  }

  async #talk(dispatcher: Dispatcher, signal: AbortSignal): Promise<void> {
    const { clock, description, nodeId } = this.#options
    while (!signal.aborted) {
      try {
        const remote = { isRemote: true }
        const session = await dispatcher.open(nodeId, description, signal, this.#held, remote)
        this.#session = session
        for (;;) {
          const change = await session.next(signal)
          // As the manager sends it: that is its work.
          await encodeParts(change, dispatcher.turns)
          for (const { length } of encodeFrame(assignmentsMessage(1, change)))
            sentToAgents.bytes += length
          const startedMs = performance.now()
          this.#take(change)
          agentsTime.spentMs += performance.now() - startedMs
          session.acknowledge(change.sequence)
          void this.#work()
        }
      } catch {
        // The manager went: another one is looked for.
        await clock.sleep(reconnectMs, signal)
      }
    }
  }

  #take({ full, feeds, tasks }: AssignmentChange): void {
    if (full) this.#held.clear()
    for (const feed of feeds.remove) this.#held.delete(feed)
    for (const { feed, digest } of feeds.put) this.#held.set(feed, digest)
    if (full) {
      this.fullTaken++
      const wanted = new Set(tasks.put.map(({ task }) => task.id))
      for (const id of this.#tasks.keys()) if (!wanted.has(id)) this.#tasks.delete(id)
    }
    for (const assignment of tasks.put) {
      const { id, status } = assignment.task
      const known = this.#tasks.get(id)
      if (known) known.assignment = assignment
      else this.#tasks.set(id, { assignment, status })
      this.#toDo.add(id)
    }
    for (const id of tasks.remove) this.#tasks.delete(id)
  }

  async #work(): Promise<void> {
    if (this.#working || this.#options.isSilent) return
    this.#working = true
    while (this.#toDo.size > 0 && this.#session) {
      const startedMs = performance.now()
      const toDo = this.#toDo
      this.#toDo = new Set()
      const reports = [...toDo].flatMap((taskId) => this.#step(taskId) ?? [])
      agentsTime.spentMs += performance.now() - startedMs
      try {
        if (reports.length > 0) await this.#session.report(reports)
      } catch {
        for (const id of toDo) this.#toDo.add(id)
      }
      const { clock, random, stepMs } = this.#options
      await clock.sleep(stepMs + random.below(stepMs))
    }
    this.#working = false
  }

  /** One step of a task, if there is one to take. What has more to come is looked at again. */
  #step(taskId: TaskId): TaskReport | undefined {
    const known = this.#tasks.get(taskId)
    if (!known || isTerminal(known.status.state)) return undefined
    const next = nextStatus(known, this.#options.clock.nowMs())
    if (next === undefined) return undefined
    known.status = next
    this.#toDo.add(taskId)
    return { taskId, status: next }
  }
}

function nextStatus({ assignment, status }: KnownTask, atMs: number): TaskStatus | undefined {
  const { task } = assignment
  if (isStopWanted(task)) {
    if (status.state === 'running' && task.traffic !== 'none') return undefined
    return { ...status, state: 'shutdown', message: 'shutdown', ready: false, atMs }
  }
  switch (status.state) {
    case 'assigned':
      return { ...status, state: 'preparing', message: 'preparing', atMs }
    case 'preparing':
    case 'ready':
      if (task.desiredState !== 'ready') {
        const container = { containerId: task.id, pid: 1 }
        const running = { state: 'running', message: 'started', ready: true } as const
        return { ...status, ...running, readyAtMs: atMs, atMs, container }
      }
      return status.state === 'ready'
        ? undefined
        : { ...status, state: 'ready', message: 'prepared', atMs }
    default:
      return undefined
  }
}
