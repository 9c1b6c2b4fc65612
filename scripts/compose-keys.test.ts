import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { withKeys } from './compose-keys.ts'

test('docs/compose.md tells of each key what the loader does with it', async () => {
  const text = await readFile(new URL('../docs/compose.md', import.meta.url), 'utf8')
  assert.equal(withKeys(text), text, 'run: node scripts/compose-keys.ts')
})
