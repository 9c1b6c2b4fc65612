import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Allocator } from '../allocator/index.ts'
import { buildTask } from '../model/testing.ts'
import { openMemoryStore } from '../store/memory-store.ts'
import { Loading } from './loading.ts'

test('what is committed between two parts is known once all is loaded', async () => {
  const store = await openMemoryStore({
    clock: { nowMs: () => 0, sleep: async () => {} },
    freeze: false,
  })
  const commit = store.commit.bind(store)
  for (let from = 0; from < 12_000; from += 2_000) {
    await commit(
      Array.from({ length: 2_000 }, (_, at) => ({
        type: 'create' as const,
        object: buildTask({ id: `t${from + at}`, state: 'new' }),
      })),
    )
  }
  const loading = new Loading(Allocator.inParts(store.view))
  store.subscribe((done) => loading.learn(done))
  const parts: unknown[] = [loading.step()]
  // One that is loaded, one that is not, and a new one.
  for (const id of ['t1', 't11999']) {
    const task = store.view.get('task', id)
    assert.ok(task)
    await commit([
      { type: 'update', object: { ...task, status: { ...task.status, state: 'pending' } } },
    ])
  }
  const gone = store.view.get('task', 't11998')
  assert.ok(gone)
  await commit([{ type: 'delete', kind: 'task', id: 't11998', version: gone.version }])
  await commit([{ type: 'create', object: buildTask({ id: 'new', state: 'new' }) }])
  parts.push(loading.step())
  assert.deepEqual(parts, [undefined, undefined])
  assert.deepEqual(loading.now().describe(), Allocator.from(store.view).describe())
})
