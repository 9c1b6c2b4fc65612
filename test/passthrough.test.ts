import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { dockerClients, eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine } from './support/look.ts'

describe('what belongs to the engine passes through', () => {
  let daemon: TestDaemon
  const [client = 'docker'] = dockerClients()
  before(async () => {
    daemon = await startDaemon({ init: false })
    await daemon.ok(
      'run',
      '-d',
      '--name',
      'e2e-pass',
      'busybox',
      'sh',
      '-c',
      'echo hello; exec sleep 600',
    )
  })
  after(async () => {
    await onEngine('rm', '-fv', 'e2e-pass', 'e2e-attach').catch(() => '')
    await onEngine('rmi', '-f', 'e2e-built:1').catch(() => '')
    await daemon[Symbol.asyncDispose]()
  })

  test('run, with input, output and exit code', async () => {
    const output = await daemon.dockerWith(
      client,
      'through stdin\n',
      ...['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; echo err >&2; exit 7'],
    )
    assert.deepEqual(output, { code: 7, stdout: 'through stdin\n', stderr: 'err\n' })
  })

  test('exec -it on a terminal', async () => {
    const command = `${client} -H ${daemon.host} exec -it e2e-pass sh -c 'tty; stty size; read x; echo got $x'`
    const output = await run('script', ['-qec', command, '/dev/null'], { input: 'typed\n' })
    assert.match(output.stdout, /\/dev\/pts\/\d+/)
    assert.match(output.stdout, /got typed/)
    assert.equal(output.code, 0)
  })

  test('attach, stop and wait', async () => {
    await daemon.ok('create', '-i', '--name', 'e2e-attach', 'busybox', 'cat')
    const output = await daemon.dockerWith(client, 'to cat\n', 'start', '-ai', 'e2e-attach')
    assert.equal(output.stdout, 'to cat\n')
    assert.equal(await daemon.ok('wait', 'e2e-attach'), '0')
  })

  test('cp in and out', async () => {
    const file = join(daemon.folder, 'copied')
    await writeFile(file, 'copied bytes')
    await daemon.ok('cp', file, 'e2e-pass:/copied')
    assert.equal(await daemon.ok('exec', 'e2e-pass', 'cat', '/copied'), 'copied bytes')
    await daemon.ok('cp', 'e2e-pass:/copied', `${file}.back`)
    assert.equal(await readFile(`${file}.back`, 'utf8'), 'copied bytes')
  })

  test('build, save, load and rmi', async () => {
    const folder = join(daemon.folder, 'build')
    await mkdir(folder)
    await writeFile(
      join(folder, 'Dockerfile'),
      'FROM busybox\nCOPY word /word\nRUN cat /word > /copy\n',
    )
    await writeFile(join(folder, 'word'), 'built')
    const built = await run(client, ['-H', daemon.host, 'build', '-t', 'e2e-built:1', folder], {
      env: { DOCKER_BUILDKIT: '0' },
      timeoutMs: 180_000,
    })
    assert.equal(built.code, 0, built.stderr)
    assert.equal(await daemon.ok('run', '--rm', 'e2e-built:1', 'cat', '/copy'), 'built')
    const archive = join(daemon.folder, 'image.tar')
    await daemon.ok('save', '-o', archive, 'e2e-built:1')
    await daemon.ok('rmi', 'e2e-built:1')
    assert.match(await daemon.ok('load', '-i', archive), /Loaded image: e2e-built:1/)
  })

  test('logs -f ends with the container, and events come as they happen', async () => {
    const events = spawn(client, ['-H', daemon.host, 'events', '--format', '{{.Type}} {{.Action}}'])
    let seen = ''
    events.stdout.setEncoding('utf8').on('data', (part: string) => {
      seen += part
    })
    try {
      const logs = daemon.docker('logs', '-f', 'e2e-pass')
      await eventually('an event', async () => {
        await daemon.ok('run', '--rm', '--label', 'e2e', 'busybox', 'true')
        return /container (create|start)/.test(seen)
      })
      await daemon.ok('kill', 'e2e-pass')
      assert.equal((await logs).stdout, 'hello\n')
      await eventually('the death', async () => /container die/.test(seen))
    } finally {
      const ended = new Promise((done) => events.once('close', done))
      events.kill('SIGKILL')
      await ended
    }
  })

  test('volumes, local networks, images and errors', async () => {
    await daemon.ok('volume', 'create', 'e2e-pass-volume')
    await daemon.ok('volume', 'rm', 'e2e-pass-volume')
    await daemon.ok('network', 'create', 'e2e-pass-net')
    assert.match(await daemon.ok('network', 'ls'), /e2e-pass-net\s+bridge\s+local/)
    await daemon.ok('network', 'rm', 'e2e-pass-net')
    assert.match(await daemon.ok('images'), /whoami/)
    const missing = await daemon.docker('inspect', 'nosuchcontainer')
    assert.match(missing.stderr, /[Nn]o such (object|container)/)
    const version = await daemon.ok('version')
    assert.match(version, /Skep/)
  })
})
