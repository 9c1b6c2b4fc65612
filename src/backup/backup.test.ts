import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type AnyObject, idFrom } from '../model/index.ts'
import { buildNode, buildRevision, buildTask, buildWorkload } from '../model/testing.ts'
import { MemoryView } from '../store/memory-view.ts'
import { type BackupContents, readBackup, writeBackup } from './contents.ts'
import { decryptBackup, encryptBackup } from './envelope.ts'
import { decideRestored } from './restored.ts'

const passphrase = 'correct horse battery'
const name = 'cluster.backup'
const from = (bytes: Uint8Array, piece = 1000) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / piece) }, (_, index) =>
      bytes.subarray(index * piece, (index + 1) * piece),
    ),
  )
const seal = (plain: Uint8Array) =>
  buffer(encryptBackup(from(plain), { passphrase, createdAtMs: 0, kdf: { n: 1024, r: 8, p: 1 } }))
const open = (file: Uint8Array, phrase = passphrase) =>
  buffer(decryptBackup(from(file), { passphrase: phrase, name }))

const head = { clusterId: 'c1', nodeId: 'n1', takenAtMs: 5000, skepVersion: '1', keys: '{"k":1}' }
function view(): MemoryView {
  const made = new MemoryView()
  for (const object of [
    buildNode({ id: 'n1', role: 'manager', labels: { zone: 'a' }, availability: 'drain' }),
    buildNode({ id: 'n2', role: 'manager' }),
    buildNode({ id: 'n3' }),
    buildWorkload(),
    buildRevision(),
    buildTask({ id: 't1', nodeId: 'n1' }),
    buildTask({ id: 't3', slot: 2, nodeId: 'n3' }),
  ])
    made.put(object)
  return made
}

describe('the envelope of a backup', () => {
  test('gives back what was put in, of any size around its frames', async () => {
    for (const size of [0, 1, 65_535, 65_536, 65_537, 200_000]) {
      const plain = Buffer.alloc(size, 'abc')
      assert((await open(await seal(plain))).equals(plain), `${size} bytes`)
    }
  })

  test('holds nothing in the clear, and the passphrase nowhere', async () => {
    const file = await seal(Buffer.from('a very secret value'))
    assert(!file.includes('secret') && !file.includes(passphrase))
  })

  test('says that the passphrase is another one', async () => {
    await assert.rejects(open(await seal(Buffer.from('x')), 'wrong passphrase'), {
      code: 'forbidden',
      message: 'the passphrase is not the one cluster.backup was made with',
    })
  })

  test('refuses a passphrase that is too short', async () => {
    await assert.rejects(
      buffer(encryptBackup(from(Buffer.from('x')), { passphrase: 'short', createdAtMs: 0 })),
      { code: 'invalidInput', message: 'the passphrase is too short' },
    )
  })

  test('says of anything else that it is no backup', async () => {
    for (const bytes of ['', '\n\n', 'hello', 'a,b\n1,2\n', '\x00'.repeat(10_000)])
      await assert.rejects(open(Buffer.from(bytes)), {
        message: 'cluster.backup is not a backup of Skep',
      })
  })

  test('says that a newer version is needed', async () => {
    const text = (await seal(Buffer.from('x'))).toString('latin1')
    const newer = Buffer.from(text.replace('"format":1', '"format":2'), 'latin1')
    await assert.rejects(open(newer), { code: 'unsupported', message: /newer version of Skep/ })
  })

  test('notices every cut and every changed byte', async () => {
    const file = await seal(Buffer.alloc(100_000, 'abc'))
    const frames = file.indexOf(10, file.indexOf(10) + 1) + 1
    await fc.assert(
      fc.asyncProperty(
        fc.nat(file.length - 1),
        fc.integer({ min: 1, max: 255 }),
        async (at, by) => {
          const changed = Buffer.from(file)
          changed[at] = (changed[at] ?? 0) ^ by
          // The time in the header is bound in, but changes no sentence before the first frame.
          await assert.rejects(open(changed), (error) => error instanceof Error && 'code' in error)
          await assert.rejects(open(file.subarray(0, at)), {
            message:
              at < frames ? /not a backup|damaged|cut off/ : /is cut off: its end is missing/,
          })
        },
      ),
      { numRuns: 12 },
    )
    await assert.rejects(open(Buffer.concat([file, Buffer.from('x')])), { message: /is damaged/ })
  })
})

describe('a backup', () => {
  test('holds one moment of the state, whole', async () => {
    const before = view()
    const stream = writeBackup(before, head, passphrase)
    const wanted = [...before.list('node'), ...before.list('workload')].map(({ id }) => id)
    before.delete('workload', 'w1')
    const { head: read, objects } = await readBackup(from(await buffer(stream)), {
      passphrase,
      name,
    })
    assert.deepEqual(read, { ...head, revision: before.revision })
    assert.deepEqual(
      objects.filter(({ kind }) => kind === 'node' || kind === 'workload').map(({ id }) => id),
      wanted,
    )
    const task = objects.find(({ id }) => id === 't1')
    assert.deepEqual(task, before.get('task', 't1'))
  })

  test('tells the envelope`s error', async () => {
    const file = await buffer(writeBackup(view(), head, passphrase))
    await assert.rejects(readBackup(from(file), { passphrase: 'wrong passphrase', name }), {
      code: 'forbidden',
    })
    await assert.rejects(readBackup(from(file.subarray(0, -5)), { passphrase, name }), {
      message: /cut off/,
    })
  })
})

describe('a restored state', () => {
  const objects: AnyObject[] = []
  for (const kind of ['node', 'workload', 'revision', 'task'] as const)
    objects.push(...view().list(kind))
  const contents: BackupContents = { head: { ...head, revision: 7 }, objects }
  const place = {
    nodeId: idFrom<'node'>('new'),
    address: '10.9.0.1:2377',
    hostname: 'other-host',
    nowMs: 9000,
  }
  const restored = decideRestored(contents, place)
  const nodes = restored.flatMap((object) => (object.kind === 'node' ? [object] : []))

  test('has this node as its one manager, with the labels of the one that is lost', () => {
    const managers = nodes.filter(({ spec }) => spec.role === 'manager')
    const [manager] = managers
    assert.deepEqual(
      managers.map(({ id }) => id),
      ['new'],
    )
    assert.deepEqual(manager?.labels, { zone: 'a' })
    assert.equal(manager?.manager?.address, '10.9.0.1:2377')
    assert.equal(manager?.spec.availability, 'active')
  })

  test('has all other nodes as workers that are down', () => {
    const others = nodes.filter(({ id }) => id !== 'new')
    assert.deepEqual(
      others.map(({ id, spec, status, manager }) => [id, spec.role, status.state, manager]),
      [
        ['n2', 'worker', 'down', undefined],
        ['n3', 'worker', 'down', undefined],
      ],
    )
    assert.deepEqual(
      others.map(({ status }) => status.sinceMs),
      [9000, 9000],
    )
  })

  test('gives up the tasks of the machine that is lost, and leaves the others to their policies', () => {
    const stateOf = (id: string) =>
      restored.flatMap((object) =>
        object.kind === 'task' && object.id === id ? [object.status.state] : [],
      )
    assert.deepEqual([stateOf('t1'), stateOf('t3')], [['orphaned'], ['running']])
  })

  test('is refused without the manager that made the backup', () => {
    const without = { ...contents, objects: objects.filter(({ id }) => id !== 'n1') }
    assert.throws(() => decideRestored(without, place), /does not hold the manager/)
  })
})
