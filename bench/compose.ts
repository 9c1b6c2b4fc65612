/**
 * `skep compose` as a whole process: twenty services up from nothing, beside the same containers by bare calls of the engine (all
 * made at once, each started when what it depends on runs); up again with nothing to do; the time to read a file of 200 services; the
 * start of the program. Where docker-compose 1 is installed, the same files by it.
 *
 *   node bench/compose.ts [--json] [--rounds N]
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { run, sharedEngine } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { at } from '../test/support/look.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'

const { json, rounds } = readOptions(5)
const report = new Report('compose', json)
const skep = resolve(import.meta.dirname, '../bin/skep')
const folder = await mkdtemp('/tmp/skep-bench-')
const engine = new EngineApi(sharedEngine)
const project = 'bench-compose'
const image = 'whoami:v1'
const env = { DOCKER_HOST: sharedEngine }

/** Five that depend on nothing, fifteen that depend on one or two of those. */
const serviceCount = 20
function needsOf(index: number): readonly number[] {
  if (index < 5) return []
  return index % 3 === 0 ? [index % 5, (index + 1) % 5] : [index % 5]
}

function smallFile(): string {
  const services = Array.from({ length: serviceCount }, (_, index) => {
    const needs = needsOf(index).map((other) => `s${other}`)
    const after = needs.length > 0 ? `\n    depends_on: [${needs.join(', ')}]` : ''
    return `  s${index}:\n    image: ${image}\n    environment: { NUMBER: '${index}' }${after}`
  })
  return `version: '2.4'\nservices:\n${services.join('\n')}\n`
}

/** What files have: environment, ports, volumes, checks, limits, variables. */
function bigFile(count: number): string {
  const services = Array.from({ length: count }, (_, index) => {
    const after = index < 5 ? '' : `\n    depends_on: [s${index % 5}]`
    return `  s${index}:
    image: \${IMAGE:-${image}}
    environment: { NUMBER: '${index}', HOME: '\${HOME}', MODE: production }
    labels: [ 'a=b', 'c=d' ]
    ports: [ '${20_000 + index}:80' ]
    volumes: [ 'v${index % 5}:/data', './conf:/etc/conf:ro' ]
    healthcheck: { test: [ 'CMD', '/whoami', 'get', 'http://localhost/health' ], interval: 30s }
    deploy: { resources: { limits: { memory: 64M, cpus: '0.5' } } }${after}`
  })
  const volumes = Array.from({ length: 5 }, (_, index) => `  v${index}: {}`)
  return `services:\n${services.join('\n')}\nvolumes:\n${volumes.join('\n')}\n`
}

const small = join(folder, 'small.yml')
const big = join(folder, 'big.yml')
await writeFile(small, smallFile())
await writeFile(big, bigFile(200))

async function ok(command: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await run(command, args, { env, cwd: folder })
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: ${code} ${stderr}`)
}

const asSkep = (...args: string[]) => ok(skep, ['compose', '-p', project, '-f', small, ...args])
const asPeer = (...args: string[]) => ok('docker-compose', ['-p', project, '-f', small, ...args])

/** The containers by bare calls: what no tool can be faster than. Gives their ids and the network's. */
async function rawUp(): Promise<{ ids: readonly string[]; network: string }> {
  const name = `${project}_raw`
  const made = await engine.ok('POST', '/v1.41/networks/create', { Name: name })
  const created = Array.from({ length: serviceCount }, async (_, index) => {
    const answer = await engine.ok(
      'POST',
      `/v1.41/containers/create?name=${project}-raw-${index}`,
      {
        Image: image,
        Env: [`NUMBER=${index}`],
        HostConfig: { NetworkMode: name },
        NetworkingConfig: { EndpointsConfig: { [name]: { Aliases: [`s${index}`] } } },
      },
    )
    return String(at(answer, 'Id'))
  })
  const started: Promise<void>[] = []
  for (const [index, creating] of created.entries()) {
    started.push(
      (async () => {
        const id = await creating
        await Promise.all(needsOf(index).flatMap((other) => started[other] ?? []))
        await engine.ok('POST', `/v1.41/containers/${id}/start`)
      })(),
    )
  }
  await Promise.all(started)
  return { ids: await Promise.all(created), network: String(at(made, 'Id')) }
}

async function rawDown({ ids, network }: Awaited<ReturnType<typeof rawUp>>): Promise<void> {
  await Promise.all(ids.map((id) => engine.ok('DELETE', `/v1.41/containers/${id}?force=1`)))
  await engine.ok('DELETE', `/v1.41/networks/${network}`)
}

const hasPeer = (await run('sh', ['-c', 'command -v docker-compose'])).code === 0
const isPeer =
  hasPeer && (await run('docker-compose', ['version', '--short'])).stdout.trim().startsWith('1.')

const seconds = {
  raw: [] as number[],
  up: [] as number[],
  again: [] as number[],
  config: [] as number[],
  start: [] as number[],
  peerUp: [] as number[],
  peerAgain: [] as number[],
  peerConfig: [] as number[],
}
try {
  // Once unmeasured: compiled code is kept from then on.
  await asSkep('config', '-q')
  for (let round = 0; round < rounds; round++) {
    let made: Awaited<ReturnType<typeof rawUp>> | undefined
    seconds.raw.push(
      await secondsOf(async () => {
        made = await rawUp()
      }),
    )
    if (made) await rawDown(made)
    seconds.up.push(await secondsOf(() => asSkep('up', '-d')))
    seconds.again.push(await secondsOf(() => asSkep('up', '-d')))
    await asSkep('down', '-t', '0')
    seconds.config.push(
      await secondsOf(() => ok(skep, ['compose', '-p', project, '-f', big, 'config', '-q'])),
    )
    seconds.start.push(await secondsOf(() => ok(skep, ['--version'])))
    if (!isPeer) continue
    seconds.peerUp.push(await secondsOf(() => asPeer('up', '-d')))
    seconds.peerAgain.push(await secondsOf(() => asPeer('up', '-d')))
    await asPeer('down', '-t', '0')
    seconds.peerConfig.push(
      await secondsOf(() => ok('docker-compose', ['-p', project, '-f', big, 'config', '-q'])),
    )
  }
} finally {
  await run(skep, ['compose', '-p', project, '-f', small, 'down', '-t', '0'], { env })
  engine.close()
  await rm(folder, { recursive: true, force: true })
}
const raw = median(seconds.raw)
report.add(
  `up -d of ${serviceCount} services, against bare engine calls`,
  's',
  median(seconds.up),
  raw,
)
report.add('up -d again, nothing to do', 's', median(seconds.again))
report.add('config of 200 services', 's', median(seconds.config))
report.add('skep --version', 's', median(seconds.start))
if (isPeer) {
  report.add('up -d, against docker-compose 1', 's', median(seconds.up), median(seconds.peerUp))
  report.add(
    'up -d again, against docker-compose 1',
    's',
    median(seconds.again),
    median(seconds.peerAgain),
  )
  report.add(
    'config, against docker-compose 1',
    's',
    median(seconds.config),
    median(seconds.peerConfig),
  )
} else report.skip('beside docker-compose 1', 'it is not installed')
