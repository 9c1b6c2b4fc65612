import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dockerClients, eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { filesWith, onEngine, untilRunning } from './support/look.ts'

describe('secrets and configs', () => {
  let daemon: TestDaemon
  const [client = 'docker'] = dockerClients()
  before(async () => {
    daemon = await startDaemon()
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('a secret reaches its container, and lies nowhere else', async () => {
    const canary = `canary-${randomBytes(12).toString('hex')}`
    const file = join(daemon.folder, 'given-by-file')
    const made = await daemon.dockerWith(
      client,
      canary,
      'secret',
      'create',
      '-l',
      'a=b',
      'word',
      '-',
    )
    assert.equal(made.code, 0, made.stderr)
    await writeFile(file, `${canary}-file`)
    await daemon.ok('secret', 'create', 'byfile', file)
    await writeFile(file, '')
    assert.match(await daemon.ok('secret', 'ls'), /word/)

    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'keeps', '--secret', 'word', '--user', '1000'],
      ...['--secret', 'source=byfile,target=other,uid=1000,gid=1001,mode=0400', 'busybox'],
      ...['sleep', '600'],
    )
    const [task] = await untilRunning(daemon, 'keeps', 1)
    const id = task?.containerId ?? ''
    assert.equal(await onEngine('exec', id, 'cat', '/run/secrets/word'), canary)
    assert.equal(await onEngine('exec', id, 'cat', '/run/secrets/other'), `${canary}-file`)
    assert.match(
      await onEngine('exec', id, 'ls', '-ln', '/run/secrets'),
      /-r--------\s+1 1000\s+1001\s.*other[\s\S]*-r--r--r--\s+1 0\s+0\s.*word/,
    )
    const mount = await onEngine('exec', id, 'grep', '/run/secrets', '/proc/mounts')
    assert.match(mount, /tmpfs/)
    assert.equal(
      (await onEngine('diff', id)).includes('word'),
      false,
      'nothing in its writable layer',
    )

    for (const args of [
      ['secret', 'inspect', 'word'],
      ['service', 'inspect', 'keeps'],
      ['inspect', id],
      ['service', 'ps', '--no-trunc', 'keeps'],
    ]) {
      assert.equal((await daemon.ok(...args)).includes(canary), false, args.join(' '))
    }
    assert.deepEqual(filesWith(join(daemon.folder, 'data'), canary), [])
    const files = filesWith(daemon.folder, canary)
    assert.equal(files.length, 2, 'the copies that its container sees')
    for (const path of files) {
      assert.match((await run('stat', ['-f', '-c', '%T', path])).stdout, /tmpfs/, path)
      assert.equal((await stat(join(path, '../../..'))).mode & 0o077, 0, 'for root alone')
    }
    assert.equal(daemon.log().includes(canary), false)
    const overlay = await onEngine('inspect', '-f', '{{.GraphDriver.Data.UpperDir}}', id)
    assert.deepEqual(filesWith(overlay, canary), [])

    const refused = await daemon.docker('secret', 'rm', 'word')
    assert.notEqual(refused.code, 0)
    assert.match(refused.stderr, /secret 'word' is in use by the following service: keeps/)
    await daemon.ok('service', 'rm', 'keeps')
    await eventually(
      'the copies to be gone',
      async () => filesWith(daemon.folder, canary).length === 0,
    )
    await daemon.ok('secret', 'rm', 'word', 'byfile')
    assert.equal(await daemon.ok('secret', 'ls', '-q'), '')
  })

  test('a config reaches its container with owner, mode and templates', async () => {
    const file = join(daemon.folder, 'config')
    await writeFile(file, 'plain\n')
    await daemon.ok('config', 'create', 'plain', file)
    await writeFile(file, 'slot {{.Task.Slot}} of {{.Service.Name}} has {{env "WORD"}}\n')
    await daemon.ok('config', 'create', '--template-driver', 'golang', 'templated', file)
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'reads', '--env', 'WORD=w', '--config', 'plain'],
      ...['--config', 'source=templated,target=/etc/deep/er/file,uid=5,gid=6,mode=0440', 'busybox'],
      ...['sleep', '600'],
    )
    const [task] = await untilRunning(daemon, 'reads', 1)
    const id = task?.containerId ?? ''
    assert.equal(await onEngine('exec', id, 'cat', '/plain'), 'plain')
    assert.equal(await onEngine('exec', id, 'cat', '/etc/deep/er/file'), 'slot 1 of reads has w')
    assert.match(
      await onEngine('exec', id, 'ls', '-ln', '/etc/deep/er/file'),
      /-r--r-----\s+1 5\s+6\s/,
    )
    assert.match(await daemon.ok('config', 'inspect', '--pretty', 'plain'), /Data:\s+plain/)
    const refused = await daemon.docker('config', 'rm', 'plain')
    assert.match(refused.stderr, /config 'plain' is in use by the following service: reads/)
    await daemon.ok('service', 'update', '-d', '--config-rm', 'plain', 'reads')
    await eventually('the config to be free', async () => {
      return (await daemon.docker('config', 'rm', 'plain')).code === 0
    })
    await daemon.ok('service', 'rm', 'reads')
    await daemon.ok('config', 'rm', 'templated')
  })

  test('what is wrong with one is said', async () => {
    await daemon.dockerWith(client, 'x', 'secret', 'create', 'twice', '-')
    const again = await daemon.dockerWith(client, 'x', 'secret', 'create', 'twice', '-')
    assert.match(again.stderr, /already exists/)
    const empty = await daemon.dockerWith(client, '', 'secret', 'create', 'empty', '-')
    assert.match(
      empty.stderr,
      /secret data must be larger than 0 and less than 512000 bytes|empty/i,
    )
    const big = await daemon.dockerWith(client, 'x'.repeat(600_000), 'secret', 'create', 'big', '-')
    assert.match(big.stderr, /512000|500 ?Ki?B|too large/i)
    const name = await daemon.dockerWith(client, 'x', 'secret', 'create', 'a b', '-')
    assert.match(name.stderr, /invalid|name/)
    const missing = await daemon.docker('secret', 'rm', 'nosuch')
    assert.match(missing.stderr, /nosuch/)
    await daemon.ok('secret', 'rm', 'twice')
  })
})
