import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Output, run, sharedEngine } from './support/daemon.ts'
import { at, listAt, onEngine, textAt } from './support/look.ts'

const skep = resolve(import.meta.dirname, '../bin/skep')
const env = { DOCKER_HOST: sharedEngine }
const project = 'skep-test-takeover'

/** A file that both understand, with most of what changes a container, network or volume. */
const file = `
version: '2.4'
services:
  db:
    image: redis:7-alpine
    restart: unless-stopped
    volumes: ['data:/data', '/cache']
    networks: { back: { aliases: [store] } }
    mem_limit: 64m
    cap_add: [SYS_NICE]
    ulimits: { nofile: { soft: 100, hard: 200 } }
    logging: { driver: json-file, options: { max-size: 1m } }
  web:
    image: whoami:v1
    command: [serve]
    environment: { A: '1', B: two }
    labels: { own: label }
    ports: ['127.0.0.1::80', '9999']
    expose: ['3000']
    depends_on: [db]
    networks: [default, back]
    scale: 2
    stop_grace_period: 3s
    user: '1000'
    read_only: true
    tmpfs: [/run]
    extra_hosts: ['a.example:10.1.2.3']
    sysctls: { net.core.somaxconn: '200' }
    healthcheck: { test: [CMD, /whoami, get, 'http://localhost/health'], interval: 1m }
    links: ['db:redis']
networks:
  back: { internal: true, labels: { net: back }, ipam: { config: [{ subnet: 10.213.9.0/24 }] } }
volumes:
  data: { labels: { vol: data } }
`

/** Why there is nothing to compare with, if so. */
async function whyNoPeer(): Promise<string | undefined> {
  const found = await run('sh', [
    '-c',
    'command -v docker-compose && docker-compose version --short',
  ])
  if (found.code !== 0)
    return 'docker-compose 1 is not installed (on Debian 12: apt-get install docker-compose)'
  const version = found.stdout.trim().split('\n').at(-1) ?? ''
  return version.startsWith('1.') ? undefined : `docker-compose is ${version}, not 1.x`
}

/** Labels that tell which tool made a thing, or that Docker Compose 1 did not have yet. */
const ownLabels: readonly string[] = [
  'com.docker.compose.config-hash',
  'com.docker.compose.depends_on',
  'com.docker.compose.image',
  'com.docker.compose.project.config_files',
  'com.docker.compose.version',
  'skep.compose.config-hash',
]

function labelsOf(value: unknown): unknown {
  const labels = typeof value === 'object' && value !== null ? Object.entries(value) : []
  return Object.fromEntries(labels.filter(([key]) => !ownLabels.includes(key)))
}

/** Keys of a container's configuration that either tool may fill. */
const configKeys = [
  'Cmd',
  'Domainname',
  'Entrypoint',
  'Env',
  'ExposedPorts',
  'Healthcheck',
  'OpenStdin',
  'StopSignal',
  'StopTimeout',
  'Tty',
  'User',
  'Volumes',
  'WorkingDir',
]
const hostKeys = [
  'Binds',
  'CapAdd',
  'CapDrop',
  'CgroupnsMode',
  'Dns',
  'ExtraHosts',
  'Init',
  'IpcMode',
  'LogConfig',
  'Memory',
  'NanoCpus',
  'NetworkMode',
  'PidMode',
  'PortBindings',
  'Privileged',
  'ReadonlyRootfs',
  'ShmSize',
  'Sysctls',
  'Tmpfs',
  'Ulimits',
]

/** Nothing, in whatever way it is written. */
function orNothing(value: unknown): unknown {
  if (value === null || value === undefined || value === '') return undefined
  return typeof value === 'object' && Object.keys(value).length === 0 ? undefined : value
}

function pick(value: unknown, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => [key, orNothing(at(value, key))]))
}

/** What was made, in a form that does not tell ids, times and addresses. */
async function snapshot(): Promise<Record<string, unknown>> {
  const filter = `label=com.docker.compose.project=${project}`
  const ids = async (...args: string[]) =>
    (await onEngine(...args, '--filter', filter)).split('\n').filter((id) => id !== '')
  const inspect = async (kind: string, found: readonly string[]) =>
    listAt(JSON.parse(await onEngine(kind, 'inspect', ...found)))
  const containers = await inspect('container', await ids('ps', '-aq'))
  const networks = await inspect('network', await ids('network', 'ls', '-q'))
  const volumes = await inspect('volume', await ids('volume', 'ls', '-q'))
  const out: Record<string, unknown> = {}
  for (const container of containers) {
    // Docker Compose 1 parts names by underscores.
    const name = textAt(container, 'Name').slice(1).replaceAll('_', '-')
    const joined = Object.entries(Object(at(container, 'NetworkSettings', 'Networks')))
    const id = textAt(container, 'Id')
    out[`container ${name}`] = {
      config: pick(at(container, 'Config'), configKeys),
      host: pick(at(container, 'HostConfig'), hostKeys),
      labels: labelsOf(at(container, 'Config', 'Labels')),
      networks: joined
        .map(([network, value]) => ({
          network,
          aliases: listAt(value, 'Aliases')
            .map(String)
            .filter((alias) => alias !== id.slice(0, 12))
            .sort(),
        }))
        .sort((one, other) => (one.network < other.network ? -1 : 1)),
      mounts: listAt(container, 'Mounts')
        .map(
          (mount) =>
            `${textAt(mount, 'Type')} ${textAt(mount, 'Destination')} ${String(at(mount, 'RW'))}`,
        )
        .sort(),
    }
  }
  for (const network of networks) {
    out[`network ${textAt(network, 'Name')}`] = {
      ...pick(network, ['Driver', 'Internal', 'EnableIPv6', 'Options']),
      labels: labelsOf(at(network, 'Labels')),
    }
  }
  for (const volume of volumes) {
    out[`volume ${textAt(volume, 'Name')}`] = {
      ...pick(volume, ['Driver', 'Options']),
      labels: labelsOf(at(volume, 'Labels')),
    }
  }
  return out
}

describe('beside docker-compose 1', {
  skip: (await whyNoPeer()) ?? false,
  concurrency: false,
}, () => {
  let folder = ''
  const options = () => ({ env, cwd: folder, timeoutMs: 240_000 })
  const ours = (...args: string[]) => run(skep, ['compose', '-p', project, ...args], options())
  const peers = (...args: string[]) => run('docker-compose', ['-p', project, ...args], options())
  const ok = async (running: Promise<Output>): Promise<string> => {
    const { code, stdout, stderr } = await running
    assert.equal(code, 0, stderr)
    return stdout
  }
  before(async () => {
    folder = await mkdtemp('/tmp/skep-takeover-')
    await writeFile(join(folder, 'docker-compose.yml'), file)
  })
  after(async () => {
    await ours('down', '-v', '-t', '0', '--remove-orphans')
    await rm(folder, { recursive: true, force: true })
  })

  test('the same file makes the same containers, networks and volumes', async () => {
    await ok(peers('up', '-d'))
    const theirs = await snapshot()
    await ok(peers('down', '-v', '-t', '0'))
    await ok(ours('up', '-d'))
    assert.deepEqual(await snapshot(), theirs)
    assert.equal(Object.keys(theirs).length, 6)
    await ok(ours('down', '-v', '-t', '0'))
  })

  test('either takes over the other’s project, and anonymous volumes keep what is in them', async () => {
    await ok(peers('up', '-d'))
    await ok(peers('exec', '-T', 'db', 'sh', '-c', 'echo kept > /cache/file'))
    const started = await ok(ours('ps', '--services'))
    assert.equal(started, 'db\nweb\n')
    await ok(ours('up', '-d'))
    assert.equal((await ok(ours('exec', '-T', 'db', 'cat', '/cache/file'))).trim(), 'kept')
    const names = (
      await onEngine(
        'ps',
        '-a',
        '--filter',
        `label=com.docker.compose.project=${project}`,
        '--format',
        '{{.Names}}',
      )
    )
      .split('\n')
      .filter((name) => name !== '')
    assert.deepEqual(
      names.sort(),
      ['db-1', 'web-1', 'web-2'].map((name) => `${project}-${name}`),
    )
    await ok(peers('up', '-d'))
    assert.equal((await ok(peers('exec', '-T', 'db', 'cat', '/cache/file'))).trim(), 'kept')
    await ok(ours('down', '-v', '-t', '0'))
    assert.deepEqual(
      await onEngine('ps', '-aq', '--filter', `label=com.docker.compose.project=${project}`),
      '',
    )
  })
})
