import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { JournalEntry } from '../agent/index.ts'
import { idFrom, type TaskState, type TaskStatus } from '../model/index.ts'
import { buildAssignment } from '../runtime/contract.ts'
import { createNodeKey } from '../security/index.ts'
import type { Assignments } from '../wire/index.ts'
import { openFileJournal } from './node-journal.ts'

const emptyAssignments: Assignments = {
  sequence: 7,
  node: {
    id: idFrom('n'),
    clusterId: 'c',
    hostname: 'h',
    platform: { architecture: 'x86_64', os: 'linux' },
  },
  tasks: new Map(),
  secrets: new Map(),
  configs: new Map(),
  networks: new Map(),
  endpoints: new Map(),
  neighbours: new Map(),
  feeds: new Map(),
}

const status = (state: TaskState): TaskStatus => ({
  ...buildAssignment().task.status,
  state,
})

test('ends of tasks are read back in the place of what was written before, and are gone with the next write', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'skep-journal-'))
  try {
    const path = join(folder, 'node.journal')
    const endsPath = `${path}.ends`
    const { keyPem } = createNodeKey()
    const journal = openFileJournal({ path, keyPem })
    const [first, second] = [idFrom<'task'>('t1'), idFrom<'task'>('t2')]
    const running = new Map([first, second].map((id) => [id, status('running')]))
    await journal.write({ assignments: emptyAssignments, statuses: running })
    await journal.addEnds(new Map([[first, status('shutdown')]]))
    const states = async () => {
      const entry = await openFileJournal({ path, keyPem }).read()
      return [...(entry?.statuses.values() ?? [])].map(({ state }) => state)
    }
    assert.deepEqual(await states(), ['shutdown', 'running'])
    assert.equal((await stat(endsPath)).mode & 0o777, 0o600)
    assert.doesNotMatch(await readFile(endsPath, 'latin1'), /shutdown|t1/)
    // A write that the power ended halfway, and one after it.
    const whole = await readFile(endsPath, 'utf8')
    await journal.addEnds(new Map([[second, status('failed')]]))
    const added = (await readFile(endsPath, 'utf8')).slice(whole.length)
    await writeFile(endsPath, whole + added.slice(0, -20))
    assert.deepEqual(await states(), ['shutdown', 'running'])
    await writeFile(endsPath, whole + added.slice(0, -20) + added)
    assert.deepEqual(await states(), ['shutdown', 'failed'])
    // What is under way goes by what was known when it was asked for.
    await Promise.all([
      journal.write({ assignments: emptyAssignments, statuses: running }),
      journal.addEnds(new Map([[second, status('shutdown')]])),
    ])
    assert.deepEqual(await states(), ['running', 'shutdown'])
    await journal.write({ assignments: emptyAssignments, statuses: running })
    await assert.rejects(stat(endsPath))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

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
        ...emptyAssignments,
        tasks: new Map([[assignment.task.id, { ...assignment, registryAuth: 'token' }]]),
        secrets: new Map([[secret.id, secret]]),
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
