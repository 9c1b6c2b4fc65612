import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, textAt, untilRunning, untilTasks } from './support/look.ts'

const file = `
services:
  web:
    image: whoami:v1
    environment: { A: '1' }
    configs: [words]
    secrets: [key]
    networks: [front]
    ports: ['18391:80']
    volumes: ['data:/data']
    healthcheck: { test: ['CMD', '/whoami', 'get', 'http://localhost/health'], interval: 1s }
    x-skep: { failure: keep, rebalance: 'off' }
    deploy:
      replicas: 2
      update_config: { parallelism: 2, monitor: 300ms }
      resources: { limits: { memory: 64M } }
      placement: { constraints: [node.role==manager] }
  side:
    image: whoami:v2
networks: { front: {} }
volumes: { data: {} }
configs: { words: { file: ./words } }
secrets: { key: { file: ./key } }
`

describe('skep stack deploy: plan, content, parts', () => {
  let daemon: TestDaemon
  const path = (name: string) => join(daemon.folder, name)
  const skep = async (code: number, ...args: string[]): Promise<string> => {
    const output = await daemon.skep('stack', ...args)
    assert.equal(output.code, code, `${args.join(' ')}\n${output.stdout}${output.stderr}`)
    return output.stdout + output.stderr
  }
  const deploy = (...more: string[]) =>
    skep(0, 'deploy', '--resolve-image', 'never', '-c', path('a.yml'), ...more, 'plan')
  const diff = (code: number, ...more: string[]) =>
    skep(code, 'diff', '--resolve-image', 'never', '-c', path('a.yml'), ...more, 'plan')
  const ids = async (service: string) =>
    (await tasksOf(daemon, `plan_${service}`))
      .filter(({ desired }) => desired === 'running')
      .map(({ id }) => id)
      .sort()

  before(async () => {
    daemon = await startDaemon()
    await writeFile(path('a.yml'), file)
    await writeFile(path('words'), 'some words')
    await writeFile(path('key'), 'a key')
  })
  after(async () => {
    await daemon.skep('stack', 'rm', '--wait', 'plan')
    await daemon[Symbol.asyncDispose]()
  })

  test('a plan of something new changes nothing', async () => {
    const text = await deploy('--dry-run')
    for (const line of [
      '+ network plan_front',
      '+ secret plan_key',
      '+ config plan_words',
      '+ service plan_web',
      '+ service plan_side',
    ]) {
      assert.match(text, new RegExp(`^${line.replace('+', '\\+')}$`, 'm'))
    }
    assert.equal(await daemon.ok('service', 'ls', '-q'), '')
    assert.equal(await daemon.ok('secret', 'ls', '-q'), '')
  })

  test('what was deployed differs in nothing; a label of x-skep is a label of the service', async () => {
    await deploy('--wait')
    const before = await ids('web')
    assert.match(await diff(0), /^6 unchanged$/m)
    await deploy('--wait')
    assert.deepEqual(await ids('web'), before)
    const labels = await daemon.ok('service', 'inspect', '-f', '{{json .Spec.Labels}}', 'plan_web')
    assert.match(labels, /"skep.failure":"keep"/)
    assert.match(labels, /"skep.rebalance":"off"/)
  })

  test('a changed field is told, with the tasks that restart, and they do', async () => {
    const before = await ids('web')
    await writeFile(path('a.yml'), file.replace("A: '1'", "A: '2'"))
    const text = await diff(2)
    assert.match(text, /^~ service plan_web: 2 tasks restart, at once$/m)
    assert.match(text, /^ {4}environment\.A: 1 -> 2$/m)
    const json: unknown = JSON.parse(await diff(2, '--json'))
    assert.equal(
      typeof json === 'object' && json !== null && 'Changed' in json && json.Changed,
      true,
    )
    await deploy('--wait')
    await untilRunning(daemon, 'plan_web', 2)
    assert.ok((await ids('web')).every((id) => !before.includes(id)))
  })

  test('replicas and placement restart nothing', async () => {
    const before = await ids('web')
    const more = file.replace("A: '1'", "A: '2'").replace('replicas: 2', 'replicas: 3')
    await writeFile(path('a.yml'), more.replace('node.role==manager', 'node.role!=worker'))
    assert.match(await diff(2), /~ service plan_web: no task restarts/)
    await deploy('--wait')
    const now = await ids('web')
    assert.ok(before.every((id) => now.includes(id)))
    assert.equal(now.length, 3)
  })

  test('other content of a secret and a config makes new versions, and the old ones go', async () => {
    await writeFile(path('key'), 'another key')
    await writeFile(path('words'), 'other words')
    const text = await diff(2)
    assert.match(text, /\+ secret plan_key-2: its content is not that of plan_key/)
    assert.match(text, /\+ config plan_words-2/)
    assert.doesNotMatch(text, /another key/)
    await deploy('--wait')
    const [task] = await untilRunning(daemon, 'plan_web', 3)
    const read = (place: string) =>
      daemon.ok(
        'exec',
        task?.containerId ?? '',
        '/whoami',
        'get',
        `http://127.0.0.1/cat?path=${place}`,
      )
    assert.match(await read('/run/secrets/key'), /another key/)
    assert.match(await read('/words'), /other words/)
    assert.match(await diff(0), /unchanged/)
    // The version before stays for a rollback; once nothing goes back to it, it goes.
    assert.match(await daemon.ok('secret', 'ls'), /plan_key\s/)
    await writeFile(path('key'), 'a third key')
    await deploy('--wait')
    const secrets = await daemon.ok('secret', 'ls', '--format', '{{.Name}}')
    assert.deepEqual(secrets.split('\n').sort(), ['plan_key-2', 'plan_key-3'])
    // Back to an earlier content: the version that has it is used again.
    await writeFile(path('key'), 'another key')
    assert.doesNotMatch(await diff(2), /\+ secret/)
  })

  test('only one service of the files', async () => {
    const before = await ids('web')
    await writeFile(path('a.yml'), file.replace('whoami:v2', 'whoami:v3'))
    await deploy('--service', 'side', '--wait')
    await untilRunning(daemon, 'plan_side', 1, { image: 'whoami:v3' })
    assert.deepEqual(await ids('web'), before)
    assert.match(
      await skep(1, 'diff', '-c', path('a.yml'), '--service', 'nope', 'plan'),
      /They have web, side/,
    )
  })

  test('what the files no longer have is told, and goes with --prune', async () => {
    await writeFile(
      path('a.yml'),
      file.slice(0, file.indexOf('  side:')) + file.slice(file.indexOf('networks: {')),
    )
    assert.match(
      await diff(2),
      /The files do not have the service plan_side\. It stays; --prune removes it\./,
    )
    assert.match(await diff(2, '--prune'), /^- service plan_side$/m)
    await deploy('--prune')
    assert.doesNotMatch(await daemon.ok('service', 'ls'), /plan_side/)
  })

  test('depends_on holds the first start back, and says for what', async () => {
    await writeFile(
      path('order.yml'),
      `
services:
  late:
    image: whoami:v1
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
  db:
    image: busybox
    command: [sleep, '6000']
    healthcheck: { test: test -e /healthy, interval: 300ms, retries: 100000 }
  migrate:
    image: busybox
    command: ['sh', '-c', 'sleep 1']
    depends_on: [db]
    deploy: { mode: replicated-job }
`,
    )
    await skep(0, 'deploy', '--resolve-image', 'never', '-c', path('order.yml'), 'order')
    await eventually('it to say for what it waits', async () => {
      const explained = await daemon.skep('explain', 'order_late')
      return /waits for order_db to be healthy: 0 of 1/.test(explained.stdout)
    })
    const [starting] = await untilTasks(
      daemon,
      'order_db',
      'the database to start',
      ([task]) => task?.state === 'starting' && task.containerId !== '',
    )
    assert.deepEqual(await tasksOf(daemon, 'order_late'), [])
    await onEngine('exec', starting?.containerId ?? '', 'touch', '/healthy')
    const [late] = await untilRunning(daemon, 'order_late', 1)
    const [db] = await untilRunning(daemon, 'order_db', 1)
    const [job] = await tasksOf(daemon, 'order_migrate')
    assert.equal(job?.state, 'complete')
    const createdAt = (task: unknown) => Date.parse(textAt(task, 'CreatedAt'))
    const since = (task: unknown) => Date.parse(textAt(task, 'Status', 'Timestamp'))
    assert.ok(createdAt(late?.whole) >= since(db?.whole))
    assert.ok(createdAt(late?.whole) >= since(job?.whole))
    // Later nothing is held back: the database may go and the service still starts anew.
    await daemon.ok('service', 'scale', '-d', 'order_db=0')
    await daemon.ok('service', 'update', '-d', '--force', 'order_late')
    await untilTasks(daemon, 'order_late', 'a new task', (tasks) =>
      tasks.some(({ id, state }) => id !== late?.id && state === 'running'),
    )
    await skep(0, 'rm', '--wait', 'order')
  })

  test('what x-skep cannot say is refused by name', async () => {
    await writeFile(path('a.yml'), file.replace('failure: keep', 'failure: never'))
    assert.match(
      await skep(1, 'deploy', '-c', path('a.yml'), 'plan'),
      /"never" is no failure policy/,
    )
    await writeFile(path('a.yml'), file.replace('failure: keep', 'failures: keep'))
    assert.match(
      await skep(1, 'diff', '-c', path('a.yml'), 'plan'),
      /x-skep\.failures is not supported/,
    )
  })
})
