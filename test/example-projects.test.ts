import assert from 'node:assert/strict'
import { join, resolve } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { eventually, type Output, run } from './support/daemon.ts'
import { onEngine } from './support/look.ts'

const root = resolve(import.meta.dirname, '..')

/** Every project of examples/compose, brought up, used and taken down by `skep compose`. */
describe('the example projects', () => {
  let project = ''
  let files: readonly string[] = []

  const compose = (...args: string[]): Promise<Output> =>
    run(join(root, 'bin/skep'), ['compose', ...files, ...args], {
      cwd: join(root, 'examples/compose', project),
      timeoutMs: 180_000,
    })
  async function ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await compose(...args)
    assert.equal(code, 0, `skep compose ${args.join(' ')}: ${stdout}${stderr}`)
    return stdout
  }
  async function fetched(url: string, ...more: string[]): Promise<string> {
    const { stdout } = await run('curl', ['-sS', '-m', '30', ...more, url])
    return stdout
  }
  const answers = (url: string, wanted: RegExp) =>
    eventually(`${url} to answer ${wanted}`, async () => wanted.test(await fetched(url)))

  afterEach(async () => {
    await compose('down', '-v', '--rmi', 'local', '-t', '2')
    const label = `label=com.docker.compose.project=${project}`
    assert.equal(await onEngine('ps', '-aq', '--filter', label), '')
    assert.equal(await onEngine('volume', 'ls', '-q', '--filter', label), '')
    assert.equal(await onEngine('network', 'ls', '-q', '--filter', label), '')
    files = []
  })

  test('web: a built service behind nginx, its data in named volumes', async () => {
    project = 'web'
    await ok('up', '-d')
    await answers('http://127.0.0.1/', /"role": "api"/)
    await answers('http://127.0.0.1:8000/health', /"ok": true/)
    const inspected = await onEngine('inspect', 'web-db-1')
    assert.match(inspected, /"Name": "web_postgres_data"/)
    assert.match(inspected, /"Name": "unless-stopped"/)
    assert.match(await ok('ps', '--services'), /^nginx$/m)
    // Again: nothing is made anew.
    const before = await onEngine('ps', '-q', '--no-trunc', '--filter', 'name=web-')
    await ok('up', '-d')
    assert.equal(await onEngine('ps', '-q', '--no-trunc', '--filter', 'name=web-'), before)
  })

  test('override: the override file is merged by itself', async () => {
    project = 'override'
    await ok('up', '-d')
    const env = await ok('exec', '-T', 'web', 'env')
    assert.match(env, /^NODE_ENV=development$/m)
    assert.match(env, /^DEBUG=1$/m)
    files = ['-f', 'docker-compose.yml']
    assert.match(await ok('config'), /NODE_ENV: production/)
  })

  test('health: up waits until the check has passed', async () => {
    project = 'health'
    await ok('up', '-d', '--wait')
    assert.match(await ok('ps'), /\(healthy\)/)
  })

  test('limits: limits and reservations reach the container', async () => {
    project = 'limits'
    await ok('up', '-d')
    const format =
      '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}}'
    const limits = await onEngine('inspect', '-f', format, 'limits-web-1')
    assert.equal(limits, '500000000 536870912 268435456')
  })

  test('web-application: production, several of a service with a published port', async () => {
    project = 'web-application'
    files = ['-f', 'docker-compose.yml', '-f', 'docker-compose.prod.yml']
    const { code, stderr } = await compose('up', '-d')
    assert.equal(code, 0, stderr)
    assert.match(stderr, /port 5000 goes to the first of the 3 containers of api/)
    await answers('http://127.0.0.1:5000/health', /"ok": true/)
    await answers('http://127.0.0.1/api/jobs', /"queued": 0/)
    assert.match(await ok('ps', '--services'), /^prometheus$/m)
    const limits = await onEngine(
      'inspect',
      '-f',
      '{{.HostConfig.Memory}}',
      'web-application-api-2',
    )
    assert.equal(limits, '536870912')
    await ok('up', '-d', '--scale', 'api=2', '--scale', 'worker=3')
    const running = await ok('ps', '--format', '{{.Name}}')
    assert.match(running, /worker-3/)
    assert.doesNotMatch(running, /api-3/)
  })

  test('web-application: nine services in development', async () => {
    project = 'web-application'
    await ok('up', '-d')
    await answers('http://127.0.0.1/', /<h1>Jobs<\/h1>/)
    await answers('http://127.0.0.1/api/jobs', /"queued": 0/)
    await fetched('http://127.0.0.1/api/jobs', '-d', 'a job')
    await answers('http://127.0.0.1/api/jobs', /"done": 1/)
    assert.match(await ok('top', 'worker'), /shop\.py worker/)
    assert.match(await ok('logs', '--tail', '5', 'api'), /^api-1 +\| api latest answers on 5000$/m)
    const secret = await ok('exec', '-T', 'api', 'cat', '/run/secrets/jwt_secret')
    assert.match(secret, /an-example-and-no-secret/)
    const sql = ['psql', '-h', '127.0.0.1', '-U', 'postgres', '-Atc', 'select count(*) from visits']
    await eventually(
      'the database to have run init.sql',
      async () => {
        const { stdout } = await compose(
          'exec',
          '-T',
          '-e',
          'PGPASSWORD=password',
          'db',
          ...sql,
          'myapp',
        )
        return stdout.trim() === '0'
      },
      60_000,
    )
    const { code } = await compose('exec', '-T', 'db', 'curl', '-m', '2', 'http://192.0.2.1/')
    assert.notEqual(code, 0, 'the inner network leads nowhere')
  })
})
