import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, type Output, run, sharedEngine } from './support/daemon.ts'
import { at, listAt, onEngine, textAt } from './support/look.ts'

const skep = resolve(import.meta.dirname, '../bin/skep')
const env = { DOCKER_HOST: sharedEngine, NO_COLOR: '1' }

/** A project of its own in a folder of its own; both are gone at the end. */
class TestProject implements AsyncDisposable {
  readonly name: string
  readonly folder: string

  constructor(name: string, folder: string) {
    this.name = name
    this.folder = folder
  }

  static async open(name: string, file: string): Promise<TestProject> {
    const project = new TestProject(`skep-test-${name}`, await mkdtemp('/tmp/skep-compose-'))
    await project.write('compose.yaml', file)
    return project
  }

  write(name: string, text: string): Promise<void> {
    return writeFile(join(this.folder, name), text)
  }

  run(...args: string[]): Promise<Output> {
    return run(skep, ['compose', '-p', this.name, ...args], {
      env,
      cwd: this.folder,
      timeoutMs: 240_000,
    })
  }

  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }

  /** Refused in one sentence that says all of `words`. */
  async refused(words: readonly RegExp[], ...args: string[]): Promise<void> {
    const { code, stderr } = await this.run('--progress', 'quiet', ...args)
    assert.equal(code, 1, stderr)
    const lines = stderr.trim().split('\n')
    assert.equal(lines.length, 1, stderr)
    for (const word of words) assert.match(stderr, word)
  }

  /** Ids of the containers by their names without the project's. */
  async ids(): Promise<Readonly<Record<string, string>>> {
    const text = await onEngine(
      'ps',
      '-a',
      '--no-trunc',
      '--filter',
      `label=com.docker.compose.project=${this.name}`,
      '--format',
      '{{.Names}} {{.ID}}',
    )
    const lines = text.split('\n').filter((line) => line !== '')
    return Object.fromEntries(
      lines.map((line) => {
        const [name = '', id = ''] = line.split(' ')
        return [name.slice(this.name.length + 1), id]
      }),
    )
  }

  async inspect(name: string): Promise<unknown> {
    const [found] = listAt(JSON.parse(await onEngine('inspect', `${this.name}-${name}`)))
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run('down', '-v', '--remove-orphans', '-t', '0', '--rmi', 'local')
    await rm(this.folder, { recursive: true, force: true })
  }
}

const shop = `
services:
  db:
    image: redis:7-alpine
    healthcheck: { test: [CMD, redis-cli, ping], interval: 200ms, retries: 50 }
    volumes: ['data:/data']
  migrate:
    image: busybox
    command: [sh, -c, 'echo migrated with $$WORD']
    environment: { WORD: love }
    depends_on: { db: { condition: service_healthy } }
  web:
    image: whoami:v1
    ports: ['127.0.0.1::80']
    secrets: [token, { source: hidden, target: /run/hidden, mode: 0400 }]
    configs: [{ source: motd, target: /etc/motd }]
    depends_on:
      db: { condition: service_healthy, restart: true }
      migrate: { condition: service_completed_successfully }
  tool:
    image: busybox
    profiles: [tools]
    command: [cat]
    depends_on: [db]
secrets:
  token: { file: ./token }
  hidden: { environment: HIDDEN }
configs:
  motd: { content: 'welcome to \${COMPOSE_PROJECT_NAME}' }
volumes:
  data: {}
`

async function startedAt(project: TestProject, name: string): Promise<number> {
  return Date.parse(textAt(await project.inspect(name), 'State', 'StartedAt'))
}

describe('skep compose', { concurrency: false }, () => {
  describe('a project with all that depends', { concurrency: false }, () => {
    let project: TestProject
    before(async () => {
      project = await TestProject.open('shop', shop)
      await project.write('token', 'a token\n')
      await project.write('.env', 'HIDDEN=not seen\n')
    })
    after(() => project[Symbol.asyncDispose]())

    test('up starts each when what it depends on is as far as it asks', async () => {
      await project.ok('up', '-d')
      const migrate = await project.inspect('migrate-1')
      assert.equal(at(migrate, 'State', 'ExitCode'), 0)
      const ended = Date.parse(textAt(migrate, 'State', 'FinishedAt'))
      assert.ok((await startedAt(project, 'web-1')) >= ended)
      assert.ok((await startedAt(project, 'migrate-1')) >= (await startedAt(project, 'db-1')))
      assert.deepEqual(Object.keys(await project.ids()).sort(), ['db-1', 'migrate-1', 'web-1'])
    })

    test('secrets and configs are files of the container, with their modes', async () => {
      const address = (await project.ok('port', 'web', '80')).trim()
      const file = async (path: string) =>
        (await fetch(`http://${address}/cat?path=${path}`)).text()
      // It was started, which is not yet that it listens.
      await eventually('the web server to listen', () =>
        file('/etc/motd').then(
          () => true,
          () => false,
        ),
      )
      assert.equal(await file('/run/secrets/token'), 'a token\n')
      assert.equal(await file('/run/hidden'), 'not seen')
      assert.equal(await file('/etc/motd'), `welcome to ${project.name}`)
      assert.equal(JSON.stringify(await project.inspect('web-1')).includes('not seen'), false)
    })

    test('a second up touches nothing that runs', async () => {
      const earlier = await project.ids()
      const before = await startedAt(project, 'web-1')
      await project.ok('up', '-d')
      assert.deepEqual(await project.ids(), earlier)
      assert.equal(await startedAt(project, 'web-1'), before)
    })

    test('only what changed is made anew, and what restarts with it restarts', async () => {
      const earlier = await project.ids()
      const before = await startedAt(project, 'web-1')
      await project.write(
        'compose.override.yaml',
        'services: { db: { environment: { NEW: "1" } } }',
      )
      await project.ok('up', '-d')
      const now = await project.ids()
      assert.notEqual(now['db-1'], earlier['db-1'])
      assert.equal(now['web-1'], earlier['web-1'])
      assert.ok((await startedAt(project, 'web-1')) > before)
    })

    test('logs are in the order of time, each with its container’s name', async () => {
      const { stdout } = await project.run('logs', 'migrate')
      assert.match(stdout, /^migrate-1 {2}\| migrated with love$/m)
      assert.equal(
        (await project.ok('logs', '--no-log-prefix', '--tail', '1', 'migrate')).trim(),
        'migrated with love',
      )
    })

    test('exec and run pass words, input, output and codes through', async () => {
      assert.equal((await project.ok('exec', '-T', 'db', 'redis-cli', 'ping')).trim(), 'PONG')
      assert.equal((await project.run('exec', '-T', 'db', 'sh', '-c', 'exit 7')).code, 7)
      const args = [
        'compose',
        '-p',
        project.name,
        'run',
        '--rm',
        '-e',
        'X=1',
        'tool',
        'sh',
        '-c',
        'cat; echo $X --rm; exit 3',
      ]
      const once = await run(skep, args, { env, cwd: project.folder, input: 'typed\n' })
      assert.equal(once.stdout, 'typed\n1 --rm\n')
      assert.equal(once.code, 3)
      assert.equal(
        Object.keys(await project.ids()).some((name) => name.includes('run')),
        false,
      )
    })

    test('ps, top, images, ls, port and stats tell what there is', async () => {
      assert.match(await project.ok('ps', '--services'), /^db\nweb\n$/)
      const rows = (await project.ok('ps', '-a', '--format', 'json')).trim().split('\n')
      assert.deepEqual(
        rows.map((row) => [at(JSON.parse(row), 'Service'), at(JSON.parse(row), 'State')]),
        [
          ['db', 'running'],
          ['migrate', 'exited'],
          ['web', 'running'],
        ],
      )
      assert.match(await project.ok('top', 'db'), /redis-server/)
      assert.match(await project.ok('images'), /redis +7-alpine/)
      assert.match(await project.ok('ls'), new RegExp(`${project.name} +running\\(2\\)`))
      assert.match(await project.ok('stats', '--no-stream'), /web-1/)
      await project.refused([/port 81\/tcp .* not published/], 'port', 'web', '81')
    })

    test('files go in and come out whole', async () => {
      await project.ok('cp', './token', 'db:/tmp/copied')
      await project.ok('cp', 'db:/tmp/copied', './back')
      assert.equal(await readFile(join(project.folder, 'back'), 'utf8'), 'a token\n')
      await project.ok('cp', 'db:/etc/.', './etc-of-db/').catch(() => {})
      await project.refused([/no directory/], 'cp', 'db:/tmp/copied', './missing/')
    })

    test('containers stop and start in their order, pause, restart, and scale', async () => {
      await project.ok('pause', 'db')
      assert.equal(at(await project.inspect('db-1'), 'State', 'Status'), 'paused')
      await project.ok('unpause')
      await project.ok('stop', '-t', '1')
      const stopped = Date.parse(textAt(await project.inspect('web-1'), 'State', 'FinishedAt'))
      assert.ok(Date.parse(textAt(await project.inspect('db-1'), 'State', 'FinishedAt')) >= stopped)
      await project.ok('start')
      assert.equal(at(await project.inspect('web-1'), 'State', 'Status'), 'running')
      await project.ok('scale', 'web=3')
      assert.deepEqual(Object.keys(await project.ids()).sort(), [
        'db-1',
        'migrate-1',
        'web-1',
        'web-2',
        'web-3',
      ])
      await project.ok('up', '-d', '--scale', 'web=1')
      assert.deepEqual(Object.keys(await project.ids()).sort(), ['db-1', 'migrate-1', 'web-1'])
      await project.ok('kill', '-s', 'KILL', 'web')
      await eventually('web is dead', async () =>
        at(await project.inspect('web-1'), 'State', 'ExitCode') === 137 ? true : undefined,
      )
      await project.ok('rm', '-f', 'web')
      assert.equal('web-1' in (await project.ids()), false)
    })

    test('orphans are told, and removed when asked', async () => {
      await project.write('less.yaml', 'services: { db: { image: "redis:7-alpine" } }')
      const { stderr } = await project.run('-f', 'less.yaml', 'up', '-d', '--no-recreate')
      assert.match(stderr, /migrate-1 belongs to the project, but to none of its services/)
      await project.ok('-f', 'less.yaml', 'up', '-d', '--no-recreate', '--remove-orphans')
      assert.deepEqual(Object.keys(await project.ids()), ['db-1'])
    })

    test('down without a file goes by the labels, and leaves volumes unless asked', async () => {
      const elsewhere = (...args: string[]) =>
        run(skep, ['compose', '-p', project.name, ...args], { env, cwd: '/' })
      assert.equal((await elsewhere('down', '-t', '1')).code, 0)
      assert.deepEqual(await project.ids(), {})
      const volume = `${project.name}_data`
      const list = () => onEngine('volume', 'ls', '-q', '--filter', `name=${volume}`)
      assert.equal((await list()).trim(), volume)
      assert.equal((await elsewhere('down', '-v')).code, 0)
      assert.equal((await list()).trim(), '')
      const networks = await onEngine('network', 'ls', '-q', '--filter', `name=${project.name}_`)
      assert.equal(networks.trim(), '')
    })
  })

  test('what is shared is made anew with it: network_mode, pid and volumes_from of a service', async () => {
    await using project = await TestProject.open(
      'shared',
      `services:
  main: { image: busybox, command: [sleep, '600'], init: true, environment: { V: "\${V}" }, volumes: [/kept] }
  side: { image: busybox, command: [sleep, '600'], init: true, network_mode: 'service:main', pid: 'service:main', volumes_from: [main] }`,
    )
    await project.write('.env', 'V=1')
    await project.ok('up', '-d')
    await project.ok('exec', '-T', 'side', 'sh', '-c', 'echo kept > /kept/file')
    const earlier = await project.ids()
    await project.write('.env', 'V=2')
    await project.ok('up', '-d')
    const now = await project.ids()
    assert.notEqual(now['side-1'], earlier['side-1'])
    assert.equal(
      at(await project.inspect('side-1'), 'HostConfig', 'NetworkMode'),
      `container:${now['main-1']}`,
    )
    assert.equal((await project.ok('exec', '-T', 'side', 'cat', '/kept/file')).trim(), 'kept')
    await project.ok('up', '-d', '-V', '--force-recreate')
    assert.equal((await project.run('exec', '-T', 'side', 'cat', '/kept/file')).code, 1)
  })

  test('networks have their addresses, aliases and options; a changed one is made anew', async () => {
    const file = (subnet: string) => `
services:
  a:
    image: busybox
    init: true
    command: [sleep, '600']
    networks: { back: { aliases: [alpha], ipv4_address: ${subnet}.77 }, front: {} }
networks:
  front: {}
  back: { internal: true, ipam: { config: [{ subnet: ${subnet}.0/24 }] } }`
    await using project = await TestProject.open('networks', file('10.213.7'))
    await project.ok('up', '-d')
    const networks = async () => at(await project.inspect('a-1'), 'NetworkSettings', 'Networks')
    const back = `${project.name}_back`
    assert.equal(at(await networks(), back, 'IPAddress'), '10.213.7.77')
    assert.ok(listAt(await networks(), back, 'Aliases').includes('alpha'))
    assert.ok(listAt(await networks(), `${project.name}_front`, 'Aliases').includes('a'))
    await project.write('compose.yaml', file('10.213.8'))
    await project.ok('up', '-d')
    assert.equal(at(await networks(), back, 'IPAddress'), '10.213.8.77')
  })

  test('builds by the engine: arguments, target, an inline Dockerfile, .dockerignore, and only when asked again', async () => {
    await using project = await TestProject.open(
      'build',
      `services:
  app:
    build:
      context: .
      target: wanted
      args: { WORD: hello }
      dockerfile_inline: |
        FROM busybox AS wanted
        ARG WORD
        COPY . /src
        RUN echo $$WORD > /word
        FROM busybox
        RUN false
    command: [sh, -c, 'cat /word; ls /src']`,
    )
    await project.write('.dockerignore', '*\n!kept\n')
    await project.write('kept', '')
    await project.write('secret', '')
    await project.ok('up', '-d')
    await project.ok('wait', 'app')
    const output = await project.ok('logs', '--no-log-prefix')
    assert.deepEqual(output.trim().split('\n'), ['hello', 'kept'])
    const earlier = await project.ids()
    await project.write(
      'compose.override.yaml',
      'services: { app: { build: { args: { WORD: bye } } } }',
    )
    await project.ok('up', '-d')
    assert.deepEqual(await project.ids(), earlier)
    await project.ok('up', '-d', '--build')
    assert.notDeepEqual(await project.ids(), earlier)
    await project.write(
      'compose.override.yaml',
      'services: { app: { build: { target: "" , dockerfile_inline: "FROM busybox\\nRUN exit 9" } } }',
    )
    await project.refused(
      [/building .*-app for service app failed at "Step 2\/\d/, /code: 9/],
      'build',
      '-q',
    )
  })

  test('what can’t be done is told in one sentence, and ends with 1', async () => {
    await using holder = await TestProject.open(
      'holder',
      'services: { h: { image: "whoami:v1", ports: ["127.0.0.1::80"] } }',
    )
    await holder.ok('up', '-d')
    const port = (await holder.ok('port', 'h', '80')).trim().split(':')[1] ?? ''
    const cases: readonly (readonly [file: string, words: readonly RegExp[], ...args: string[]])[] =
      [
        [
          `services: { w: { image: "whoami:v1", ports: ["127.0.0.1:${port}:80"] } }`,
          [/-w-1 can't start: port \d+ of 127.0.0.1 is in use/, /publish=/],
        ],
        [
          'services: { w: { image: "whoami:v1", entrypoint: [/nothing] } }',
          [/no program "\/nothing"/],
        ],
        [
          'services: { w: { image: "skep-test/none:1", pull_policy: never } }',
          [/no image skep-test\/none:1/],
        ],
        [
          'services: { d: { image: "whoami:v1" }, w: { image: "whoami:v1", depends_on: { d: { condition: service_healthy } } } }',
          [/no health check/],
        ],
        [
          'services: { d: { image: busybox, command: [sh, -c, "exit 3"] }, w: { image: "whoami:v1", depends_on: { d: { condition: service_completed_successfully } } } }',
          [/-d-1 exited with code 3/, /compose logs d/],
        ],
        [
          'services: { d: { image: busybox, init: true, command: [sleep, "60"], healthcheck: { test: "echo why; false", interval: 100ms, retries: 1 } }, w: { image: "whoami:v1", depends_on: { d: { condition: service_healthy } } } }',
          [/-d-1 is unhealthy: why/],
        ],
        [
          'services: { w: { image: "whoami:v1", networks: [x] } }\nnetworks: { x: { external: true, name: skep-test-none } }',
          [/external network skep-test-none is not there/],
        ],
        [
          'services: { w: { image: "whoami:v1", volumes: ["x:/x"] } }\nvolumes: { x: { external: true, name: skep-test-none } }',
          [/external volume skep-test-none is not there/],
        ],
        [
          'services: { w: { image: busybox, init: true, command: [sleep, "60"], post_start: [{ command: [sh, -c, "echo no; exit 2"] }] } }',
          [/post_start hook .* ended with 2: no/],
        ],
        [
          'services: { w: { image: busybox, command: [sh, -c, "exit 4"] } }',
          [/-w-1 exited with code 4/],
          '--wait',
        ],
        ['services: { w: { imagee: x } }', [/compose.yaml:1:\d+/, /Did you mean image/]],
      ]
    for (const [index, [file, words, ...args]] of cases.entries()) {
      await using project = await TestProject.open(`refused-${index}`, file)
      await project.refused(words, 'up', '-d', ...args)
    }
  })

  test('what is not required is told and passed over', async () => {
    await using project = await TestProject.open(
      'optional',
      'services: { d: { image: busybox, command: [sh, -c, "exit 3"] }, w: { image: "whoami:v1", depends_on: { d: { condition: service_completed_successfully, required: false } } } }',
    )
    const { code, stderr } = await project.run('up', '-d')
    assert.equal(code, 0)
    assert.match(stderr, /w starts without d: .* exited with code 3/)
  })

  test('an attached up shows output, ends with the asked code, and stops the others', async () => {
    await using project = await TestProject.open(
      'attached',
      `services:
  other: { image: 'whoami:v1' }
  job: { image: busybox, command: [sh, -c, 'echo working; exit 5'], depends_on: [other] }`,
    )
    const { code, stdout } = await project.run('up', '--exit-code-from', 'job')
    assert.equal(code, 5)
    assert.match(stdout, /^job-1 {4}\| working$/m)
    assert.match(stdout, /^job-1 exited with code 5$/m)
    assert.equal(at(await project.inspect('other-1'), 'State', 'Status'), 'exited')
  })

  test('Ctrl-C stops an attached up, a second one kills', async () => {
    await using project = await TestProject.open(
      'stopped',
      'services: { s: { image: busybox, command: [sh, -c, \'trap "" TERM; echo up; while true; do sleep 0.1; done\'] } }',
    )
    const child = spawn(skep, ['compose', '-p', project.name, 'up'], {
      cwd: project.folder,
      env: { ...process.env, ...env },
    })
    const ended = new Promise<number | null>((done) => child.on('exit', done))
    let text = ''
    const says = async (word: RegExp) => {
      await eventually(`it says ${word}`, async () => (word.test(text) ? true : undefined))
    }
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
    }
    try {
      await says(/s-1 {2}\| up/)
      child.kill('SIGINT')
      await says(/press Ctrl-C again/)
    } finally {
      child.kill('SIGINT')
    }
    assert.equal(await ended, 130)
    assert.equal(at(await project.inspect('s-1'), 'State', 'ExitCode'), 137)
  })

  test('watch brings changed files into containers, and takes removed ones away', async () => {
    await using project = await TestProject.open(
      'watch',
      `services:
  app:
    image: busybox
    init: true
    command: [sleep, '600']
    develop: { watch: [{ path: ./src, action: sync, target: /app, ignore: ['*.tmp'] }] }`,
    )
    await run('mkdir', ['-p', join(project.folder, 'src')])
    const child = spawn(skep, ['compose', '-p', project.name, 'watch'], {
      cwd: project.folder,
      env: { ...process.env, ...env },
    })
    const ended = new Promise((done) => child.on('exit', done))
    let text = ''
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
    try {
      await eventually('it watches', async () => (/Watching/.test(text) ? true : undefined))
      await project.write('src/one.txt', 'first')
      await project.write('src/two.tmp', 'ignored')
      const inside = async (words: string) => {
        const { code } = await project.run('exec', '-T', 'app', 'sh', '-c', words)
        return code === 0 ? true : undefined
      }
      await eventually('the file is there', () => inside('grep -q first /app/one.txt'))
      assert.equal(await inside('test ! -e /app/two.tmp'), true)
      await rm(join(project.folder, 'src/one.txt'))
      await eventually('the file is gone', () => inside('test ! -e /app/one.txt'))
    } finally {
      child.kill('SIGINT')
      await ended
    }
  })

  test('an attached up that watches restarts and rebuilds, and goes on', async () => {
    await using project = await TestProject.open(
      'rebuild',
      `services:
  app:
    build: { context: ., dockerfile_inline: "FROM busybox\\nCOPY version /version\\n" }
    init: true
    command: [sh, -c, 'echo version $$(cat /version) $$(cat /conf); sleep 600']
    develop:
      watch:
        - { path: ./conf, action: sync+restart, target: /conf }
        - { path: ./version, action: rebuild }`,
    )
    await project.write('version', '1')
    await project.write('conf', 'old')
    const child = spawn(skep, ['compose', '-p', project.name, 'up', '--watch'], {
      cwd: project.folder,
      env: { ...process.env, ...env },
    })
    const ended = new Promise<number | null>((done) => child.on('exit', done))
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
    }
    const says = (word: RegExp) =>
      eventually(`it says ${word.source}`, async () => (word.test(text) ? true : undefined))
    try {
      await says(/Watching/)
      await project.write('conf', 'new')
      await says(/app-1 {2}\| version 1 new/)
      await project.write('version', '2')
      await says(/app-1 {2}\| version 2/)
    } finally {
      child.kill('SIGINT')
    }
    assert.equal(await ended, 130)
    assert.equal(at(await project.inspect('app-1'), 'State', 'Status'), 'exited')
  })

  test('a dry run tells what would be done, and does nothing', async () => {
    await using project = await TestProject.open('dry', 'services: { w: { image: "whoami:v1" } }')
    const { code, stderr } = await project.run('--dry-run', 'up', '-d')
    assert.equal(code, 0)
    assert.match(stderr, /DRY-RUN Container skep-test-dry-w-1 {2}Started/)
    assert.deepEqual(await project.ids(), {})
  })

  test('install-alias makes docker-compose and the plugin of docker', async () => {
    await using project = await TestProject.open('alias', 'services: { w: { image: "whoami:v1" } }')
    const config = join(project.folder, 'config')
    const plugins = join(config, 'cli-plugins')
    await project.ok('install-alias', '--to', plugins)
    const alias = await run(join(plugins, 'docker-compose'), ['config', '--services'], {
      cwd: project.folder,
    })
    assert.equal(alias.stdout, 'w\n')
    const docker = (...args: string[]) =>
      run('docker', ['--config', config, ...args], { env, cwd: project.folder })
    const found = await docker('compose', 'config', '--services')
    assert.equal(found.stdout, 'w\n', found.stderr)
    const { code } = await docker('-H', 'unix:///tmp/no-engine.sock', 'compose', 'ls')
    assert.equal(code, 1)
  })
})
