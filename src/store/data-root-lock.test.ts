import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { lockDataRoot } from './index.ts'

/** Another daemon: takes the lock, says so, and stays. */
function startHolder(directory: string) {
  const program = `
    import { lockDataRoot } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)}
    try {
      globalThis.lock = lockDataRoot(${JSON.stringify(directory)})
      console.log('locked')
      setInterval(() => {}, 1000)
    } catch (error) {
      console.log(error.message)
    }`
  return spawn(process.execPath, ['--input-type=module-typescript', '-e', program])
}

describe('the lock of a data root', () => {
  const refusal = { code: 'failedPrecondition', message: /another daemon is using/ }

  test('is held by one process, and ends with it however it ends', async (t) => {
    const directory = join(mkdtempSync(join(tmpdir(), 'skep-lock-')), 'data')
    t.after(() => rmSync(join(directory, '..'), { recursive: true }))
    const holder = startHolder(directory)
    const exited = once(holder, 'exit')
    assert.match(String((await once(holder.stdout, 'data'))[0]), /^locked/)
    assert.throws(() => lockDataRoot(directory), refusal)
    holder.kill('SIGKILL')
    await exited
    const lock = lockDataRoot(directory)
    assert.throws(() => lockDataRoot(directory), refusal)
    const other = startHolder(directory)
    assert.match(String((await once(other.stdout, 'data'))[0]), /another daemon is using/)
    lock.release()
    lockDataRoot(directory).release()
    assert.deepEqual(readdirSync(directory), ['lock'])
    assert.equal(statSync(directory).mode & 0o777, 0o700)
    assert.equal(statSync(join(directory, 'lock')).mode & 0o777, 0o600)
  })

  test('is refused with the reason where the directory can not be used', (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'skep-lock-'))
    t.after(() => rmSync(directory, { recursive: true }))
    writeFileSync(join(directory, 'file'), '')
    assert.throws(() => lockDataRoot(join(directory, 'file', 'data')), {
      code: 'unavailable',
      message: /can not be used: ENOTDIR/,
    })
  })
})
