import type { Journal } from '../agent/index.ts'
import { Semaphore } from '../base/index.ts'
import type { DataPlane } from '../network/data-plane.ts'
import type { Runtime } from '../runtime/runtime.ts'
import type { Persistence } from '../store/index.ts'
import type { Change, LeaderEpoch, Store } from '../store/store.ts'
import type { Chance } from './chance.ts'
import type { Host } from './host.ts'
import type { SimulatedProcess } from './process.ts'

/** Longest time that a write of a journal takes, and that to add to one does, in ms. */
const journalMsMax = 300
const endsMsMax = 30

/** An engine as one process sees it: what was asked for goes on when the process ends, but nobody hears of it. */
export function runtimeFor(
  process: SimulatedProcess,
  engine: Runtime,
  { beforeStart, beforeStop }: Record<'beforeStart' | 'beforeStop', (taskId: string) => void>,
): Runtime {
  return {
    describe: () => process.gate(engine.describe()),
    prepare: (assignment, materials, signal) =>
      process.gate(engine.prepare(assignment, materials, signal)),
    start(taskId, signal) {
      beforeStart(taskId)
      return process.gate(engine.start(taskId, signal))
    },
    stop(taskId, graceMs) {
      beforeStop(taskId)
      return process.gate(engine.stop(taskId, graceMs))
    },
    remove: (taskId) => process.gate(engine.remove(taskId)),
    probe: (taskId, check, signal) => process.gate(engine.probe(taskId, check, signal)),
    list: () => process.gate(engine.list()),
    inspect: (taskId) => process.gate(engine.inspect(taskId)),
    watch: (onEvent, signal) => engine.watch((event) => process.post(() => onEvent(event)), signal),
    logs: (taskId, options, signal) => engine.logs(taskId, options, signal),
  }
}

export function dataPlaneFor(process: SimulatedProcess, kernel: DataPlane): DataPlane {
  return {
    ensureNetwork: (network) => process.gate(kernel.ensureNetwork(network)),
    apply: (desired) => process.gate(kernel.apply(desired)),
    nameserversFor: (networks) => kernel.nameserversFor(networks),
    audit: () => process.gate(kernel.audit()),
    examine: () => process.gate(kernel.examine()),
    openConnections: (task) => process.gate(kernel.openConnections(task)),
    silentPorts: (task, ports) => process.gate(kernel.silentPorts(task, ports)),
    clear: () => process.gate(kernel.clear()),
    close: () => process.gate(kernel.close()),
  }
}

/** An agent's journal on its machine's disk: it is replaced whole, and a write that was not synced is lost with the process. */
export function journalFor(process: SimulatedProcess, host: Host, chance: Chance): Journal {
  const writing = new Semaphore(1)
  return {
    read: async () => host.journaled,
    write: (entry) =>
      writing.run(async () => {
        await process.clock.sleep(chance.below(journalMsMax + 1))
        host.journaled = entry
      }),
    addEnds: (ends) =>
      writing.run(async () => {
        await process.clock.sleep(chance.below(endsMsMax + 1))
        if (!host.journaled) return
        const statuses = new Map([...host.journaled.statuses, ...ends])
        host.journaled = { ...host.journaled, statuses }
      }),
  }
}

export function persistenceFor(process: SimulatedProcess, disk: Persistence): Persistence {
  return {
    load: () => process.gate(disk.load()),
    persist: (batch) => process.gate(disk.persist(batch)),
    close: () => process.gate(disk.close()),
  }
}

/** A store as the loops of one leader see it, who may be stopped by himself. */
export function storeForLeader(
  process: SimulatedProcess,
  store: Store & LeaderEpoch,
  watch: {
    readonly newestEpoch: () => number
    /** `leaderMs`: by the leader's clock. */
    decided(changes: readonly Change[], revision: number, leaderMs: number): void
    wrote(fence: number | undefined, newestEpoch: number): void
  },
): Store {
  return {
    view: store.view,
    commit(changes, options) {
      const newestEpoch = watch.newestEpoch()
      watch.decided(changes, store.view.revision, process.clock.nowMs())
      const done = store.commit(changes, options)
      done.then(
        () => watch.wrote(options?.fence, newestEpoch),
        () => {},
      )
      return process.gate(done)
    },
    subscribe: (listener) => store.subscribe((commit) => process.post(() => listener(commit))),
    close: () => process.gate(store.close()),
  }
}
