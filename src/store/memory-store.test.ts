import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openRealClock } from '../base/real-world.ts'
import { openMemoryStore } from './index.ts'

test('a commit shows in the view once it resolves', async () => {
  const store = await openMemoryStore({ clock: openRealClock() })
  assert.equal(store.view.revision, 0)
  const { revision } = await store.commit([])
  assert.equal(revision, 1)
  assert.equal(store.view.revision, 1)
  assert.equal(await store.advanceEpoch(), 1)
  await assert.rejects(store.commit([], { fence: 0 }), { code: 'outOfSequence' })
  await store.close()
})
