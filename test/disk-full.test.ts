import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { run, startDaemon } from './support/daemon.ts'
import { listAt, textAt, untilRunning } from './support/look.ts'

test('a full disk refuses writes in plain words and loses nothing', async (context) => {
  const disk = await mkdtemp('/tmp/skep-disk-')
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'skep-test', disk])
  if (mounted.code !== 0) {
    await rm(disk, { recursive: true })
    context.skip('a small disk can be mounted by root only')
    return
  }
  try {
    await using daemon = await startDaemon({ dataRoot: join(disk, 'data') })
    await daemon.ok('service', 'create', '-d', '--name', 'before', 'whoami:v1')
    const [task] = await untilRunning(daemon, 'before', 1)
    const filler = join(disk, 'filler')
    await run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=64k'])
    const kept: string[] = []
    let refusal = { status: 0, text: '' }
    for (let turn = 0; turn < 200 && refusal.status === 0; turn++) {
      const answer = await daemon.api('POST', '/configs/create', {
        Name: `c${turn}`,
        Data: Buffer.alloc(100_000, 'x').toString('base64'),
      })
      if (answer.status === 201) kept.push(`c${turn}`)
      else refusal = answer
    }
    assert.ok(refusal.status >= 500, 'a write was refused')
    assert.match(refusal.text, /disk|space/i)

    const { body } = await daemon.api('GET', '/configs')
    const names = listAt(body).map((one) => textAt(one, 'Spec', 'Name'))
    assert.deepEqual(names.sort(), [...kept].sort(), 'reads still work and show what was taken')
    await daemon.kill9()
    await rm(filler)
    await daemon.start()
    const again = listAt((await daemon.api('GET', '/configs')).body).map((one) =>
      textAt(one, 'Spec', 'Name'),
    )
    assert.deepEqual(again.sort(), [...kept].sort())
    await writeFile(join(disk, 'small'), '')
    await daemon.ok('service', 'create', '-d', '--name', 'after', 'whoami:v1')
    await untilRunning(daemon, 'after', 1)
    assert.equal((await untilRunning(daemon, 'before', 1))[0]?.id, task?.id)
  } finally {
    await run('umount', ['-l', disk])
    await rm(disk, { recursive: true, force: true })
  }
})
