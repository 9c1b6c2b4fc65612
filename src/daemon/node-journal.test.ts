import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { JournalEntry } from '../agent/index.ts'
import { idFrom } from '../model/index.ts'
import { buildAssignment } from '../runtime/contract.ts'
import { createNodeKey } from '../security/index.ts'
import { openFileJournal } from './node-journal.ts'

test('a node reads back what it kept, nobody else does, and credentials are left out', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'skep-journal-'))
  try {
    const path = join(folder, 'node.journal')
    const { keyPem } = createNodeKey()
    const assignment = buildAssignment()
    const secret = {
      id: idFrom<'secret'>('s'),
      name: 'pass',
      data: new TextEncoder().encode('hunter2'),
    }
    const entry: JournalEntry = {
      assignments: {
        sequence: 7,
        node: {
          id: idFrom('n'),
          clusterId: 'c',
          hostname: 'h',
          platform: { architecture: 'x86_64', os: 'linux' },
        },
        tasks: new Map([[assignment.task.id, { ...assignment, registryAuth: 'token' }]]),
        secrets: new Map([[secret.id, secret]]),
        configs: new Map(),
        networks: new Map(),
        endpoints: new Map(),
        neighbours: new Map(),
        feeds: new Map([['published', '0']]),
      },
      statuses: new Map([[assignment.task.id, assignment.task.status]]),
    }
    const journal = openFileJournal({ path, keyPem })
    assert.equal(await journal.read(), undefined)
    await journal.write(entry)
    const read = await journal.read()
    assert.deepEqual(read?.assignments.secrets, entry.assignments.secrets)
    assert.deepEqual(read.statuses, entry.statuses)
    const kept = read.assignments.tasks.get(assignment.task.id)
    // What JSON leaves out of the builder's task is undefined there.
    assert.deepEqual(kept, JSON.parse(JSON.stringify(assignment)))
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.doesNotMatch(await readFile(path, 'latin1'), /hunter2|token|pass/)
    const other = openFileJournal({ path, keyPem: createNodeKey().keyPem })
    await assert.rejects(other.read(), /is damaged or of another key/)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
