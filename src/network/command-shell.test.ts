import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CommandShell } from './command-shell.ts'

describe('the shell that starts programs', () => {
  test('gives what they print, each by itself, and their exit codes', async () => {
    const shell = new CommandShell()
    assert.deepEqual(await shell.run('cat', [], 'one\ntwo\n'), {
      code: 0,
      stdout: 'one\ntwo\n',
      stderr: '',
    })
    const failing = await shell.run(
      'sh',
      ['-c', 'echo out; echo "$1" >&2; exit 3', 'x', "it's $0"],
      '',
    )
    assert.deepEqual(failing, { code: 3, stdout: 'out\n', stderr: "it's $0" })
    assert.deepEqual(await shell.run('cat', [], ''), { code: 0, stdout: '', stderr: '' })
  })

  test('reads nothing into what a program is given', async () => {
    const text = '$HOME `id` \\n "quotes" \'more\'\n\n'
    assert.equal((await new CommandShell().run('cat', [], text))?.stdout, text)
  })

  test('lets the next program begin with its own input', async () => {
    const shell = new CommandShell()
    const long = 'x'.repeat(1_000_000)
    assert.equal((await shell.run('cat', [], long))?.stdout, long)
    assert.equal((await shell.run('sh', ['-c', 'exit 1'], long))?.code, 1)
    assert.equal((await shell.run('cat', [], 'mine'))?.stdout, 'mine')
  })

  test('gives long output whole', async () => {
    const result = await new CommandShell().run('seq', ['1', '100000'], '')
    assert.equal(result?.stdout.split('\n').length, 100_001)
  })

  test('leaves to others what it can not do', async () => {
    const shell = new CommandShell()
    assert.equal(await shell.run('no-such-program-anywhere', [], ''), undefined)
    const first = shell.run('sleep', ['0.2'], '')
    assert.equal(await shell.run('true', [], ''), undefined)
    assert.equal((await first)?.code, 0)
  })

  test('is begun anew when it was killed', async () => {
    const shell = new CommandShell()
    const killed = await shell.run('sh', ['-c', 'kill -9 $PPID'], '')
    assert.equal(killed, undefined)
    assert.equal((await shell.run('echo', ['here'], ''))?.stdout, 'here\n')
  })
})
