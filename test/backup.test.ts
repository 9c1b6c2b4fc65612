import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dockerClients, eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, untilRunning, untilTasks } from './support/look.ts'

const skepProgram = join(import.meta.dirname, '../bin/skep')
const passphrase = 'correct horse battery staple'
const canary = 'backup-canary-4711'

/** A backup of a running cluster, restored on "another machine": another data root, address and node. */
describe('a backup', () => {
  const [client = 'docker'] = dockerClients()
  const folder = mkdtempSync('/tmp/skep-backup-')
  const file = join(folder, 'cluster.backup')
  const dataRoot = join(folder, 'data')
  let first: TestDaemon
  let second: TestDaemon | undefined
  let unlockKey = ''
  let token = ''
  before(async () => {
    first = await startDaemon()
  })
  after(async () => {
    try {
      await first[Symbol.asyncDispose]()
    } finally {
      await second?.[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
    }
  })

  const restore = (input: string, ...flags: string[]) =>
    run(skepProgram, ['backup', 'restore', file, ...flags], { input })
  const elsewhere = ['--data-root', dataRoot, '--advertise-addr', '127.0.0.9:2399']

  test('is made while the cluster runs, with nothing in it that can be read', async () => {
    await first.dockerWith(client, canary, 'secret', 'create', 'word', '-')
    const node = await first.ok('node', 'ls', '-q')
    await first.ok('node', 'update', '--label-add', 'zone=a', node)
    await first.ok(
      ...['service', 'create', '-d', '--name', 'backed', '--secret', 'word'],
      ...['--constraint', 'node.labels.zone==a', 'busybox', 'sleep', '600'],
    )
    await untilRunning(first, 'backed', 1)
    const locked = await first.ok('swarm', 'update', '--autolock=true')
    ;[unlockKey = ''] = /SWMKEY-1-\S{43}/.exec(locked) ?? []
    token = await first.ok('swarm', 'join-token', '-q', 'worker')

    const short = await run(skepProgram, ['-H', first.host, 'backup', 'create', file], {
      input: 'short\n',
    })
    assert.equal(short.code, 1)
    assert.match(short.stderr, /the passphrase is too short\. Give one of at least 8 characters/)
    const phraseFile = join(folder, 'phrase')
    writeFileSync(phraseFile, `${passphrase}\n`, { mode: 0o600 })
    const made = await first.skep('backup', 'create', file, '--passphrase-file', phraseFile)
    assert.equal(made.code, 0, made.stderr)
    assert.match(made.stdout, /cluster\.backup: [\d.]+\s?\w+\. Without its passphrase/)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    const bytes = readFileSync(file)
    for (const text of [canary, 'backed', token, 'PRIVATE KEY', passphrase, unlockKey])
      assert(!bytes.includes(text), text)
    assert(!first.log().includes(passphrase))
  })

  test('is refused with a sentence: wrong passphrase, cut off, no backup, a data root in use', async () => {
    const wrong = await restore('another passphrase\n', ...elsewhere)
    assert.equal(wrong.code, 1)
    assert.match(
      wrong.stderr,
      /^skep: the passphrase is not the one \S+cluster\.backup was made with$/m,
    )
    const whole = readFileSync(file)
    truncateSync(file, whole.length - 7)
    const cut = await restore(`${passphrase}\n`, ...elsewhere)
    assert.match(cut.stderr, /^skep: \S+ is cut off: its end is missing\. Copy it again/m)
    writeFileSync(file, 'hello\n')
    const foreign = await restore(`${passphrase}\n`, ...elsewhere)
    assert.match(foreign.stderr, /^skep: \S+ is not a backup of Skep$/m)
    writeFileSync(file, whole)
    const inUse = await restore(`${passphrase}\n`, '--data-root', join(first.folder, 'data'))
    assert.match(inUse.stderr, /another daemon is using \S+/)
    await first.stop()
    const held = await restore(`${passphrase}\n`, '--data-root', join(first.folder, 'data'))
    assert.match(held.stderr, /already holds a cluster\. Restore into another --data-root/)
    await first.start()
    await first.dockerWith(client, `${unlockKey}\n`, 'swarm', 'unlock')
    await first.ok('swarm', 'leave', '--force')
  })

  test('is restored elsewhere: locked, then with services, secrets, tokens and labels', async () => {
    const restored = await restore(`${passphrase}\n`, ...elsewhere)
    assert.equal(restored.code, 0, restored.stderr)
    assert.match(
      restored.stdout,
      /^Restored 1 service as of \S+; this node is the manager at 127\.0\.0\.9:2399\.$/m,
    )
    assert.match(restored.stdout, /It starts locked/)
    second = await startDaemon({ init: false, dataRoot })
    assert.match((await second.docker('node', 'ls')).stderr, /needs to be unlocked/)
    const unlocked = await second.dockerWith(client, `${unlockKey}\n`, 'swarm', 'unlock')
    assert.equal(unlocked.code, 0, unlocked.stderr)

    const begun = second
    await eventually('the node to be ready', async () =>
      /^\S+ \*\s+\S+\s+Ready\s+Active\s+Leader/m.test(await begun.ok('node', 'ls')),
    )
    assert.equal((await second.ok('node', 'ls', '-q')).split('\n').length, 1)
    assert.match(await second.ok('node', 'inspect', '--pretty', 'self'), /zone\s*=\s*a/)
    assert.match(await second.ok('node', 'inspect', 'self'), /127\.0\.0\.9:2399/)
    assert.equal(await second.ok('swarm', 'join-token', '-q', 'worker'), token)
    const [task] = await untilRunning(second, 'backed', 1)
    assert.equal(
      await onEngine('exec', task?.containerId ?? '', 'cat', '/run/secrets/word'),
      canary,
    )
    const old = (await tasksOf(second, 'backed')).find(({ state }) => state === 'orphaned')
    assert.match(old?.error ?? '', /the cluster was restored from a backup, without its node/)
    // It is a whole cluster: it goes on being changed.
    await second.ok('service', 'scale', '-d', 'backed=2')
    await untilTasks(
      second,
      'backed',
      'two running',
      (tasks) => tasks.filter(({ state }) => state === 'running').length === 2,
    )
    await second.ok('swarm', 'leave', '--force')
  })
})
