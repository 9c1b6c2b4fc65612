import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { dockerClients, eventually, startDaemon } from './support/daemon.ts'
import { untilRunning, updateState } from './support/look.ts'

test('events of the swarm come with those of the engine, live and replayed', async () => {
  await using daemon = await startDaemon()
  const [client = 'docker'] = dockerClients()
  const since = Math.floor(Date.now() / 1000) - 1
  const live = spawn(client, ['-H', daemon.host, 'events', '--format', '{{json .}}'])
  let text = ''
  live.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part
  })
  const ended = new Promise((done) => live.once('close', done))
  try {
    await eventually('the stream', async () => {
      await daemon.dockerWith(
        client,
        'x',
        'config',
        'create',
        `probe${Math.random()}`.replace('.', ''),
        '-',
      )
      return text.includes('"Type":"config"')
    })
    await daemon.dockerWith(client, 'x', 'secret', 'create', 'ev', '-')
    await daemon.ok(
      'service',
      'create',
      '-d',
      '--name',
      'ev',
      '--update-monitor',
      '200ms',
      'whoami:v1',
    )
    await untilRunning(daemon, 'ev', 1)
    await daemon.ok('service', 'update', '-d', '--image', 'whoami:v2', '--replicas', '2', 'ev')
    await untilRunning(daemon, 'ev', 2, { image: 'whoami:v2' })
    await eventually(
      'the end of the update',
      async () => (await updateState(daemon, 'ev')) === 'completed',
    )
    const node = await daemon.ok('node', 'ls', '-q')
    await daemon.ok('node', 'update', '--availability', 'pause', node)
    await daemon.ok('service', 'rm', 'ev')
    await daemon.ok('secret', 'rm', 'ev')
    const expected: readonly RegExp[] = [
      /"Type":"secret","Action":"create".*"name":"ev".*"scope":"swarm"/,
      /"Type":"service","Action":"create".*"name":"ev"/,
      /"Type":"service","Action":"update".*"image\.new":"whoami:v2.*"image\.old":"whoami:v1/,
      /"Type":"service","Action":"update".*"replicas\.new":"2","replicas\.old":"1"/,
      /"Type":"service","Action":"update".*"updatestate\.new":"completed","updatestate\.old":"updating"/,
      /"Type":"node","Action":"update".*"availability\.new":"pause","availability\.old":"active"/,
      /"Type":"service","Action":"remove".*"name":"ev"/,
      /"Type":"secret","Action":"remove"/,
      /"Type":"container","Action":"start".*"com\.docker\.swarm\.service\.name":"ev".*"scope":"local"/,
    ]
    for (const event of expected) {
      await eventually(`${event} in\n${text}`, async () => event.test(text))
    }
  } finally {
    live.kill('SIGKILL')
    await ended
  }
  const until = Math.floor(Date.now() / 1000) + 1
  const replay = (...filters: string[]) =>
    daemon.ok('events', '--since', `${since}`, '--until', `${until}`, ...filters)
  assert.match(await replay(), /service create/)
  const services = await replay('--filter', 'type=service')
  assert.match(services, /service remove/)
  assert.doesNotMatch(services, /container|secret/)
  assert.doesNotMatch(await replay('--filter', 'scope=swarm'), /container start/)
  assert.match(await replay('--filter', 'event=remove', '--filter', 'type=secret'), /secret remove/)
})
