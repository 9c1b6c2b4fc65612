import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { dockerClients, eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { untilRunning } from './support/look.ts'

const lines = (text: string) => text.split('\n').filter((line) => line !== '')

describe('logs of services and tasks', () => {
  let daemon: TestDaemon
  const [client = 'docker'] = dockerClients()
  before(async () => {
    daemon = await startDaemon()
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'talks', '--replicas', '2', 'busybox', 'sh', '-c'],
      'for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 600',
    )
    await untilRunning(daemon, 'talks', 2)
    await eventually('all lines', async () => {
      const { stdout, stderr } = await daemon.docker('service', 'logs', 'talks')
      return lines(stdout).length === 6 && lines(stderr).length === 6
    })
  })
  after(() => daemon[Symbol.asyncDispose]())

  test('both streams, with the name of each task', async () => {
    const { stdout, stderr } = await daemon.docker('service', 'logs', 'talks')
    assert.match(stdout, /^talks\.1\.\w{12}@\S+\s+\| out 1$/m)
    assert.match(stdout, /^talks\.2\.\w{12}@\S+\s+\| out 3$/m)
    assert.match(stderr, /^talks\.1\.\w{12}@\S+\s+\| err 2$/m)
    assert.deepEqual(lines(await daemon.ok('service', 'logs', '--raw', 'talks')).sort(), [
      ...['out 1', 'out 1', 'out 2', 'out 2', 'out 3', 'out 3'],
    ])
  })

  test('tail, since, timestamps, and one task alone', async () => {
    const tail = await daemon.docker('service', 'logs', '--raw', '--tail', '1', 'talks')
    assert.equal(lines(tail.stdout + tail.stderr).length, 2, 'one line of each task')
    assert.equal(await daemon.ok('service', 'logs', '--since', '2099-01-01T00:00:00Z', 'talks'), '')
    assert.match(
      await daemon.ok('service', 'logs', '--raw', '--timestamps', 'talks'),
      /^\d{4}-\d\d-\d\dT[\d:.]+Z out 1$/m,
    )
    const [task] = await untilRunning(daemon, 'talks', 2)
    const one = await daemon.ok('service', 'logs', '--raw', task?.id ?? '')
    assert.deepEqual(lines(one), ['out 1', 'out 2', 'out 3'])
    const none = await daemon.docker('service', 'logs', 'nosuch')
    assert.match(none.stderr, /no such task or service: nosuch/)
  })

  test('follow shows what comes, also of tasks that come later', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'ticks', 'busybox', 'sh', '-c'],
      'while true; do echo tick of $HOSTNAME; sleep 0.2; done',
    )
    await untilRunning(daemon, 'ticks', 1)
    const follow = spawn(client, [
      '-H',
      daemon.host,
      'service',
      'logs',
      '-f',
      '--tail',
      '0',
      'ticks',
    ])
    let text = ''
    follow.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
    try {
      await eventually('lines of the first', async () => /ticks\.1\..*tick/.test(text))
      await daemon.ok('service', 'scale', '-d', 'ticks=2')
      await eventually('lines of the second', async () => /ticks\.2\..*tick/.test(text))
    } finally {
      const ended = new Promise((done) => follow.once('close', done))
      follow.kill('SIGKILL')
      await ended
      await daemon.ok('service', 'rm', 'ticks')
    }
  })

  test('of a service with a terminal', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'tty', '--tty', 'busybox', 'sh', '-c'],
      'echo on a terminal; tty; sleep 600',
    )
    await untilRunning(daemon, 'tty', 1)
    await eventually('its words', async () =>
      /on a terminal\r?\n\/dev\/pts/.test(
        (await daemon.docker('service', 'logs', '--raw', 'tty')).stdout,
      ),
    )
    await daemon.ok('service', 'rm', 'tty')
  })

  test('of tasks that ended', async () => {
    await daemon.ok(
      ...['service', 'create', '-d', '--name', 'ends', '--restart-condition', 'none', 'busybox'],
      ...['echo', 'last words'],
    )
    await eventually('its last words', async () =>
      (await daemon.docker('service', 'logs', '--raw', 'ends')).stdout.includes('last words'),
    )
    await daemon.ok('service', 'rm', 'ends')
  })
})
