import type { Clock } from '../base/index.ts'
import type { Persistence } from './persistence.ts'
import type { LeaderEpoch, Store } from './store.ts'
import { StoreCore } from './store-core.ts'

export interface MemoryStoreOptions {
  readonly clock: Clock
  /** Freezes stored objects, so that a mutation throws. Default true: this store is for tests and simulation. */
  readonly freeze?: boolean
  readonly commitsQueuedMax?: number
}

/** Keeps nothing: what the process had is gone with it. */
const forgetful: Persistence = {
  isForgetful: true,
  load: async () => ({ revision: 0, epoch: 0, texts: [] }),
  persist: async () => {},
  close: async () => {},
}

/** A store without a disk. Commits still take effect a few microtasks later, as on a disk. */
export function openMemoryStore(options: MemoryStoreOptions): Promise<Store & LeaderEpoch> {
  return StoreCore.open({ freeze: true, ...options, persistence: forgetful })
}
