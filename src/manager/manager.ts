import { Allocator, changesFor as allocationChanges } from '../allocator/index.ts'
import { type Clock, type Log, type Random, WakeUp } from '../base/index.ts'
import { Dispatcher, decideTraffic, isServed, type Unseal } from '../dispatcher/index.ts'
import type { WorkloadId } from '../model/index.ts'
import {
  decideHousekeeping,
  decideWorkload,
  observeWorkload,
  changesFor as orchestrationChanges,
} from '../orchestrator/index.ts'
import { Scheduler, changesFor as schedulingChanges } from '../scheduler/index.ts'
import type { Change, Commit, Store } from '../store/store.ts'
import type { ManagerLink } from '../wire/index.ts'
import { runLoop, type Turn } from './loop.ts'

export interface ManagerOptions {
  readonly store: Store
  /** Leader epoch: every write of a loop is fenced with it. */
  readonly epoch: number
  readonly unseal: Unseal
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export interface Manager {
  /** How agents reach this leader. */
  readonly link: ManagerLink
  /** The allocator's picture, for addresses that no task asks for. */
  readonly allocator: Allocator
  close(): Promise<void>
}

/** Workloads decided in one turn of the orchestrators' loop; the rest follows in the next. */
const workloadsPerTurnMax = 200
/** Tasks placed or addressed in one turn. */
const tasksPerTurnMax = 1000

/** Starts the leader's loops over a store. */
export function startManager(options: ManagerOptions): Manager {
  const { store, clock, random, log, epoch } = options
  const stop = new AbortController()
  const dispatcher = new Dispatcher({ store, unseal: options.unseal, clock, log, fence: epoch })
  const orchestration = new Orchestration(store, clock, random)
  const traffic = new TrafficControl(store, dispatcher)
  const scheduler = Scheduler.from(store.view)
  const allocator = Allocator.from(store.view)
  const wakeAllocator = new WakeUp()
  const wakeScheduler = new WakeUp()

  const unsubscribe = store.subscribe((commit) => {
    scheduler.apply(commit)
    allocator.apply(commit)
    orchestration.learn(commit)
    traffic.learn(commit)
    wakeAllocator.ring()
    wakeScheduler.ring()
  })
  wakeAllocator.ring()
  wakeScheduler.ring()

  const base = { store, clock, log, fence: epoch, signal: stop.signal }
  const loops = [
    runLoop({
      ...base,
      name: 'orchestrators',
      wake: orchestration.wake,
      decide: (nowMs) => orchestration.decide(nowMs),
    }),
    runLoop({
      ...base,
      name: 'allocator',
      wake: wakeAllocator,
      decide(nowMs) {
        const decision = allocator.decide(nowMs, tasksPerTurnMax)
        return { commits: [allocationChanges(store.view, decision, nowMs)], more: decision.more }
      },
    }),
    runLoop({
      ...base,
      name: 'scheduler',
      wake: wakeScheduler,
      decide(nowMs) {
        const decision = scheduler.decide(nowMs, tasksPerTurnMax)
        return { commits: [schedulingChanges(store.view, decision, nowMs)], more: decision.more }
      },
    }),
    runLoop({ ...base, name: 'traffic', wake: traffic.wake, decide: () => traffic.decide() }),
  ]

  return {
    link: dispatcher,
    allocator,
    async close() {
      stop.abort()
      unsubscribe()
      dispatcher.close()
      await Promise.all(loops)
    },
  }
}

/** Which workloads to look at, because something of theirs changed or because their time has come. */
class Orchestration {
  readonly wake = new WakeUp()
  readonly #store: Store
  readonly #random: Random
  readonly #dirty = new Set<WorkloadId>()
  readonly #wakeAtMs = new Map<WorkloadId, number>()
  #housekeepingDirty = true
  #housekeepingAtMs: number | undefined

  constructor(store: Store, _clock: Clock, random: Random) {
    this.#store = store
    this.#random = random
    this.#everything()
  }

  learn(commit: Commit): void {
    for (const { kind, before, after } of commit.changes) {
      switch (kind) {
        case 'task':
          for (const object of [before, after])
            if (object?.kind === 'task') this.#dirty.add(object.workloadId)
          if (
            !after ||
            (after.kind === 'task' && !this.#store.view.get('workload', after.workloadId))
          ) {
            this.#housekeepingDirty = true
          }
          break
        case 'workload':
          for (const object of [before, after])
            if (object?.kind === 'workload') this.#dirty.add(object.id)
          this.#housekeepingDirty = true
          break
        case 'endpoint':
          for (const object of [before, after]) {
            if (object?.kind !== 'endpoint') continue
            for (const { workloadId } of object.spec.backends) this.#dirty.add(workloadId)
          }
          break
        case 'node':
        case 'cluster':
          this.#everything()
          break
        case 'revision':
        case 'network':
        case 'secret':
        case 'config':
          break
      }
    }
    this.wake.ring()
  }

  #everything(): void {
    for (const { id } of this.#store.view.list('workload')) this.#dirty.add(id)
    this.#housekeepingDirty = true
    this.wake.ring()
  }

  decide(nowMs: number): Turn {
    const { view } = this.#store
    for (const [id, atMs] of this.#wakeAtMs) if (atMs <= nowMs) this.#dirty.add(id)
    const ids: WorkloadId[] = []
    const commits: (readonly Change[])[] = []
    let looked = 0
    for (const id of this.#dirty) {
      if (looked++ >= workloadsPerTurnMax) break
      this.#dirty.delete(id)
      this.#wakeAtMs.delete(id)
      const slice = observeWorkload(view, id)
      if (!slice) continue
      const decision = decideWorkload(slice, nowMs)
      if (decision.wakeAtMs !== undefined) this.#wakeAtMs.set(id, decision.wakeAtMs)
      if (decision.actions.length === 0) continue
      ids.push(id)
      commits.push(orchestrationChanges(slice, decision.actions, nowMs, this.#random))
    }
    if (
      this.#housekeepingDirty ||
      (this.#housekeepingAtMs !== undefined && this.#housekeepingAtMs <= nowMs)
    ) {
      this.#housekeepingDirty = false
      const housekeeping = decideHousekeeping(view, nowMs)
      this.#housekeepingAtMs = housekeeping.wakeAtMs
      if (housekeeping.changes.length > 0) commits.push(housekeeping.changes)
    }
    return {
      commits,
      more: this.#dirty.size > 0,
      wakeAtMs: earliest([...this.#wakeAtMs.values(), this.#housekeepingAtMs]),
      failed: (index) => {
        const id = ids[index]
        if (id === undefined) this.#housekeepingDirty = true
        else this.#dirty.add(id)
      },
    }
  }
}

/** Tasks on their way into or out of traffic. */
class TrafficControl {
  readonly #store: Store
  readonly #dispatcher: Dispatcher
  readonly #dirty = new Set<string>()

  constructor(store: Store, dispatcher: Dispatcher) {
    this.#store = store
    this.#dispatcher = dispatcher
    for (const { id } of store.view.list('task')) this.#dirty.add(id)
    this.wake.ring()
  }

  /** Also rung by acknowledgements. */
  get wake(): WakeUp {
    return this.#dispatcher.acknowledged
  }

  learn(commit: Commit): void {
    for (const { kind, id, after } of commit.changes) {
      if (kind === 'task' && after) this.#dirty.add(id)
      if (kind !== 'endpoint' || after?.kind !== 'endpoint') continue
      for (const { workloadId } of after.spec.backends) {
        for (const task of this.#store.view.tasksOfWorkload(workloadId)) this.#dirty.add(task.id)
      }
    }
    if (this.#dirty.size > 0) this.wake.ring()
  }

  decide(): Turn {
    const { view } = this.#store
    const changes: Change[] = []
    for (const id of [...this.#dirty]) {
      const task = view.get('task', id)
      const traffic =
        task &&
        decideTraffic(task, isServed(view, task), (revision) =>
          this.#dispatcher.isAcknowledged(revision),
        )
      // Those that wait for acknowledgements stay on the list.
      if (traffic !== 'draining') this.#dirty.delete(id)
      if (task && traffic && traffic !== task.traffic)
        changes.push({ type: 'update', object: { ...task, traffic } })
    }
    return {
      commits: [changes],
      failed: () => {
        for (const change of changes)
          if (change.type === 'update') this.#dirty.add(change.object.id)
      },
    }
  }
}

function earliest(times: readonly (number | undefined)[]): number | undefined {
  let first: number | undefined
  for (const time of times)
    if (time !== undefined && (first === undefined || time < first)) first = time
  return first
}
