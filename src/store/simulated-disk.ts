import type { Clock, Random } from '../base/index.ts'
import { type Batch, PersistError, type Persistence, type Snapshot } from './persistence.ts'

export interface SimulatedDiskOptions {
  readonly clock: Clock
  readonly random: Random
  /** Time that a sync takes at most, in ms; each takes a random part of it. Default 0: the next microtask. */
  readonly syncMsMax?: number
}

/** What goes wrong from now on: no room for anything, or errors on every write. */
export type DiskFault = 'none' | 'full' | 'failing'

/**
 * A disk in memory that outlives the stores on it, and loses power as disks do: what was synced stays, and what was
 * only written survives by chance, each batch whole or not at all.
 */
export class SimulatedDisk {
  fault: DiskFault = 'none'
  readonly #options: SimulatedDiskOptions
  readonly #textByKey = new Map<string, string>()
  #revision = 0
  #epoch = 0
  #written: Batch | undefined
  #attached = 0

  constructor(options: SimulatedDiskOptions) {
    this.#options = options
  }

  /** For the store of a process that starts now. One before it is cut off, as if that process had been killed. */
  attach(): Persistence {
    this.#attached += 1
    const process = this.#attached
    const alive = (): boolean => process === this.#attached
    return {
      load: async () => this.#load(),
      persist: (batch) => this.#persist(batch, alive),
      close: async () => {},
    }
  }

  /** Takes the power away. Whoever waits for the disk waits for ever, as in a dead process. */
  crash(): void {
    this.#attached += 1
    const written = this.#written
    this.#written = undefined
    if (written && this.#options.random.below(2) === 1) this.#keep(written)
  }

  #load(): Snapshot {
    return {
      revision: this.#revision,
      epoch: this.#epoch,
      texts: [...this.#textByKey.values()],
    }
  }

  async #persist(batch: Batch, alive: () => boolean): Promise<void> {
    if (!alive()) return never()
    const { clock, random, syncMsMax = 0 } = this.#options
    this.#written = batch
    if (syncMsMax > 0) await clock.sleep(random.below(syncMsMax + 1))
    if (!alive()) return never()
    this.#written = undefined
    if (this.fault === 'full') {
      throw new PersistError('the disk is full', { full: true, next: 'Free some space.' })
    }
    if (this.fault === 'failing') {
      throw new PersistError('the disk fails', { full: false, next: 'Check the disk.' })
    }
    this.#keep(batch)
  }

  #keep({ writes, revision, epoch }: Batch): void {
    for (const write of writes) {
      const key = `${write.kind}/${write.id}`
      if (write.type === 'put') this.#textByKey.set(key, write.text)
      else this.#textByKey.delete(key)
    }
    this.#revision = revision
    this.#epoch = epoch
  }
}

function never(): Promise<never> {
  return new Promise(() => {})
}
