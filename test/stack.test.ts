import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually, startDaemon, type TestDaemon } from './support/daemon.ts'
import { onEngine, tasksOf, untilRunning, updateState } from './support/look.ts'

const base = `
version: '3.8'
services:
  web:
    image: whoami:v1
    environment: { A: base }
    networks: [front]
    configs: [{ source: words, target: /etc/words }]
    secrets: [key]
    volumes: ['data:/data']
    deploy:
      replicas: 2
      update_config: { parallelism: 2, monitor: 300ms }
      labels: { of: service }
    labels: { of: container }
  side:
    image: whoami:v2
    networks: [front, back]
  job:
    image: busybox
    command: ['true']
    deploy: { mode: replicated-job, replicas: 2 }
networks:
  front: { attachable: true }
  back: { internal: true }
volumes:
  data: {}
configs:
  words: { file: ./words }
secrets:
  key: { file: ./key }
`
const over = `
version: '3.8'
services:
  web:
    environment: { A: over }
    deploy: { replicas: 3 }
`

describe('stacks', () => {
  let daemon: TestDaemon
  let path = (name: string): string => name
  before(async () => {
    daemon = await startDaemon()
    path = (name) => join(daemon.folder, name)
    await writeFile(path('base.yml'), base)
    await writeFile(path('over.yml'), over)
    await writeFile(path('words'), 'some words\n')
    await writeFile(path('key'), 'a key\n')
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
    await eventually('the volume to be free', () =>
      onEngine('volume', 'rm', '-f', 'e2estack_data').then(
        () => true,
        () => false,
      ),
    )
  })

  const deploy = (...more: string[]) =>
    daemon.ok('stack', 'deploy', '--resolve-image', 'never', ...more, 'e2estack')
  const ids = async () =>
    [...(await tasksOf(daemon, 'e2estack_web')), ...(await tasksOf(daemon, 'e2estack_side'))].map(
      ({ id }) => id,
    )

  test('deploy of two files, again, changed, and pruned', async () => {
    await deploy('-c', path('base.yml'), '-c', path('over.yml'))
    const [web] = await untilRunning(daemon, 'e2estack_web', 3)
    await untilRunning(daemon, 'e2estack_side', 1)
    const id = web?.containerId ?? ''
    const inspected = await onEngine('inspect', id)
    assert.match(inspected, /"A=over"/)
    assert.match(inspected, /"of": "container"/)
    assert.match(inspected, /"com.docker.stack.namespace": "e2estack"/)
    assert.match(
      await daemon.ok('exec', id, '/whoami', 'get', 'http://127.0.0.1/cat?path=/etc/words'),
      /some words/,
    )
    assert.match(
      await daemon.ok('exec', id, '/whoami', 'get', 'http://127.0.0.1/cat?path=/run/secrets/key'),
      /a key/,
    )
    await eventually('the job to complete', async () =>
      (await daemon.ok('stack', 'services', 'e2estack')).includes('(2/2 completed)'),
    )
    assert.match(await daemon.ok('stack', 'ls'), /e2estack\s+3/)
    assert.match(await daemon.ok('stack', 'ps', 'e2estack'), /e2estack_side\.1/)
    assert.match(await daemon.ok('network', 'ls'), /e2estack_front\s+overlay\s+swarm/)

    const before = await ids()
    await deploy('-c', path('base.yml'), '-c', path('over.yml'))
    await new Promise((done) => setTimeout(done, 2000))
    assert.deepEqual(await ids(), before, 'a second deploy restarts nothing')
    assert.equal((await tasksOf(daemon, 'e2estack_job')).length, 2, 'nor does it run a job again')

    await deploy('-c', path('base.yml'))
    // Two may run while they are the old ones still.
    const isUpdated = async () => (await updateState(daemon, 'e2estack_web')) === 'completed'
    await eventually('the end of the update', isUpdated)
    const [changed] = await untilRunning(daemon, 'e2estack_web', 2)
    assert.match(await onEngine('inspect', changed?.containerId ?? ''), /"A=base"/)
    assert.equal(
      (await tasksOf(daemon, 'e2estack_side'))[0]?.id,
      before.at(-1),
      'side was not touched',
    )

    await writeFile(path('less.yml'), base.replace(/ {2}side:[\s\S]*? {2}job:/, '  job:'))
    await deploy('-c', path('less.yml'))
    assert.match(await daemon.ok('stack', 'services', 'e2estack'), /e2estack_side/)
    await deploy('--prune', '-c', path('less.yml'))
    assert.doesNotMatch(await daemon.ok('stack', 'services', 'e2estack'), /e2estack_side/)
    assert.match(await daemon.ok('stack', 'config', '-c', path('base.yml')), /whoami:v1/)
  })

  test('rm takes all but the volumes, and can be followed by deploy at once', async () => {
    await daemon.ok('stack', 'rm', 'e2estack')
    await deploy('-c', path('base.yml'))
    await untilRunning(daemon, 'e2estack_web', 2)
    await daemon.ok('stack', 'rm', 'e2estack')
    await eventually('everything to be gone', async () => {
      const left = await Promise.all(
        [
          ['service', 'ls'],
          ['secret', 'ls'],
          ['config', 'ls'],
          ['network', 'ls'],
          ['ps', '-a'],
        ].map((args) => daemon.ok(...args)),
      )
      return !left.some((text) => text.includes('e2estack'))
    })
    assert.match(await onEngine('volume', 'ls'), /e2estack_data/)
    const none = await daemon.docker('stack', 'rm', 'e2estack')
    assert.match(`${none.stdout}${none.stderr}`, /Nothing found in stack: e2estack/)
  })

  test('a secret that is not there is named', async () => {
    const text =
      "version: '3.8'\nservices: {a: {image: whoami:v1, secrets: [x]}}\nsecrets: {x: {external: true}}\n"
    await writeFile(path('missing.yml'), text)
    const output = await daemon.docker('stack', 'deploy', '-c', path('missing.yml'), 'e2emissing')
    assert.notEqual(output.code, 0)
    assert.match(output.stderr, /secret.*x/)
    await daemon.docker('stack', 'rm', 'e2emissing')
  })
})
