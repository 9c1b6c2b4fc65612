import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Batch, Persistence } from './persistence.ts'
import { StoreCore } from './store-core.ts'
import { buildConfig } from './test-objects.ts'

/** Remembers the batches, and answers when told to. */
class HeldDisk implements Persistence {
  readonly batches: Batch[] = []
  #answer: () => void = () => {}
  async load() {
    return { revision: 0, epoch: 0, texts: [] }
  }
  async persist(batch: Batch): Promise<void> {
    this.batches.push(batch)
    await new Promise<void>((resolve) => {
      this.#answer = resolve
    })
  }
  async close(): Promise<void> {}
  async answer(): Promise<void> {
    this.#answer()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('the core of stores', () => {
  test('what becomes visible in one turn is bounded, however much waits for the disk', async () => {
    const disk = new HeldDisk()
    const clock = { nowMs: () => 0, sleep: async () => {} }
    const store = await StoreCore.open({ clock, persistence: disk })
    const changes = (commit: number, count: number) =>
      Array.from({ length: count }, (_, at) => ({
        type: 'create' as const,
        object: buildConfig(`${commit}-${at}`),
      }))
    const sizes = [1, 200, 200, 200, 2_000, 1, 1]
    const done = Promise.all(sizes.map((size, commit) => store.commit(changes(commit, size))))
    for (let turn = 0; turn < 4; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      await disk.answer()
    }
    await done
    assert.deepEqual(
      disk.batches.map(({ writes }) => writes.length),
      [401, 200, 2_000, 2],
    )
    assert.equal(store.view.count('config'), 2_603)
  })
})
