import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, run, startDaemon, type TestDaemon } from './support/daemon.ts'

/** Skep's own command line against a real daemon and real containers. */
describe('the skep command line', () => {
  let daemon: TestDaemon
  let folder: string
  before(async () => {
    daemon = await startDaemon()
    folder = await mkdtemp('/tmp/skep-cli-test-')
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  async function skep(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await daemon.skep(...args)
    assert.equal(code, 0, `skep ${args.join(' ')}: ${stdout}${stderr}`)
    return stdout
  }

  test('a service is created, scaled, changed and taken back, each waited for', async () => {
    await skep(
      'service',
      'create',
      '--name',
      'cli-one',
      '--update-monitor',
      '1s',
      '--wait',
      'whoami:v1',
    )
    assert.match(
      await skep('service', 'ls', '--format', '{{.Name}} {{.Replicas}}'),
      /^cli-one 1\/1$/m,
    )
    await skep('service', 'scale', 'cli-one=3', '--wait')
    assert.match(
      await skep('service', 'ls', '--format', '{{.Name}} {{.Replicas}}'),
      /^cli-one 3\/3$/m,
    )
    await skep('service', 'update', 'cli-one', '--env-add', 'NEW=1', '--wait')
    await skep('service', 'rollback', 'cli-one', '--to', '1', '--wait')
    const env = await skep(
      'service',
      'inspect',
      '-f',
      '{{json .Spec.TaskTemplate.ContainerSpec.Env}}',
      'cli-one',
    )
    assert.equal(env, 'null\n')
    // The number of replicas belongs to a version, as in Swarm: the first had one.
    assert.match(await skep('explain', 'cli-one'), /1 of 1 task up/)
    await skep('service', 'rm', 'cli-one', '--wait')
    assert.equal(await daemon.ok('ps', '-aq', '--filter', 'name=cli-one'), '')
  })

  test('a wait that cannot end says why, and fails', async () => {
    const args = [
      '--name',
      'cli-two',
      '--constraint',
      'node.labels.no==where',
      '--wait',
      '--timeout',
      '10s',
    ]
    const { code, stderr } = await daemon.skep('service', 'create', ...args, 'whoami:v1')
    assert.equal(code, 1)
    assert.match(stderr, /no suitable node/)
    assert.match(await skep('explain', 'cli-two'), /no suitable node/)
    await skep('service', 'rm', 'cli-two')
  })

  test('a stack deployed by skep and again by docker keeps its containers', async () => {
    await writeFile(join(folder, 'data'), 'hello')
    const file = join(folder, 'stack.yml')
    await writeFile(
      file,
      `version: '3.8'
services:
  web:
    image: whoami:v1
    environment: {B: 2, A: 1}
    secrets: [token]
    configs: [{source: conf, target: /etc/conf}]
    volumes: ["data:/data"]
    networks: {back: {aliases: [www]}}
    deploy: {replicas: 2, update_config: {order: start-first, monitor: 1s}}
networks: {back: }
volumes: {data: }
secrets: {token: {file: ./data}}
configs: {conf: {file: ./data}}
`,
    )
    const containers = async () =>
      (await daemon.ok('ps', '-q', '--filter', 'label=com.docker.stack.namespace=cli-st'))
        .split('\n')
        .sort()
    await skep('stack', 'deploy', '-c', file, 'cli-st', '--wait')
    const before = await containers()
    assert.equal(before.length, 2)
    for (const again of [
      () => daemon.ok('stack', 'deploy', '-c', file, 'cli-st'),
      () => skep('stack', 'deploy', '-c', file, 'cli-st', '--wait'),
    ]) {
      await again()
      assert.deepEqual(await containers(), before)
    }
    assert.match(
      await skep('stack', 'ps', 'cli-st', '--format', '{{.Name}}'),
      /^cli-st_web\.1\ncli-st_web\.2\n$/,
    )
    await skep('stack', 'rm', 'cli-st', '--wait')
    assert.equal(await skep('stack', 'ls', '-q'), '')
    await run('docker', ['volume', 'rm', 'cli-st_data'])
  })

  test('logs are told with their task, or raw', async () => {
    await skep(
      'service',
      'create',
      '--name',
      'cli-log',
      '--wait',
      'alpine',
      'sh',
      '-c',
      'echo out; echo err >&2; sleep 600',
    )
    // A task runs before it has said anything.
    const { stdout, stderr } = await eventually('both lines', async () => {
      const output = await daemon.skep('service', 'logs', 'cli-log')
      return output.stdout !== '' && output.stderr !== '' && output
    })
    assert.match(stdout, /^cli-log\.1\.\w{12}@\S+ {4}\| out\n$/)
    assert.match(stderr, /^cli-log\.1\.\w{12}@\S+ {4}\| err\n$/)
    assert.equal(await skep('service', 'logs', '--raw', 'cli-log'), 'out\n')
    await skep('service', 'rm', 'cli-log')
  })
})
