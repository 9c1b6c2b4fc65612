/**
 * The network under load, on a cluster of several hosts of the lab: what a VIP and a published port cost against a task's own
 * address, and what clients notice of updates, scaling, drains, rollbacks, killed daemons, lost leaders and hosts.
 *
 *   node bench/network.ts [--json] [--hosts 3] [--cases throughput,update,…] [--runs 5] [--seconds 20] [--per-second 1200]
 *                         [--rounds 7] [--churn-seconds 180]
 *
 * The steady load comes from outside (two hosts' published ports) and from a container on the network (by name), half of each on
 * kept connections, half with one connection a request. It goes to two services at once, and every case is done to both:
 * one whose server ends at the stop signal at once, and one that answers on for 3 s and closes its connections. A request counts as
 * failed that got no 200 within 5 s, except one on a kept connection that ended before a byte of the answer: HTTP clients
 * send that again, and so does the load; they are counted as `retried`. A name that is not answered is asked for again after 1 and
 * 2 s, and given up after 3; `names-asked-again` counts these. The load goes before all else on the machine, as
 * clients have processors of their own; `load-stalled` says for how long it had none nevertheless.
 *
 * The p99 of `throughput` is told twice: at capacity, where it is mostly the queue before two busy processors, and at half the rate
 * that the direct way takes (`p99-at-half`), where requests hardly wait for each other.
 *
 * `update-docker-run` and `update-swarm` stand beside `update`: a container that is replaced by hand, and Docker Swarm's own
 * rolling update (stop-first) with ports of mode `host` where the kernel has no IPVS, without which its mesh carries nothing. The hosts
 * reach no registry, and its agents ask for the image before each start: part of its gap is that wait.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { LabHost } from '../test/lab/host.ts'
import { type Lab, openLab, whyNoLab } from '../test/lab/open-lab.ts'
import { eventually, run } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { listAt, textAt } from '../test/support/look.ts'
import { LabCluster } from './support/lab-cluster.ts'
import { type LoadResult, startLoad } from './support/load.ts'
import { measureProgramming } from './support/programming.ts'
import { RequestCounts } from './support/request-counts.ts'
import { median, Report } from './support/rows.ts'
import { untilRunning, untilUpdated } from './support/services.ts'

const orders = ['start-first', 'stop-first'] as const
const underLoadCases = [
  'update',
  'scale',
  'drain',
  'rollback',
  'daemons-killed',
  'power-off',
  'leader-killed',
] as const
const baselines = ['update-docker-run', 'update-swarm'] as const
const allCases = ['program', 'throughput', ...underLoadCases, ...baselines, 'churn'] as const
const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    hosts: { type: 'string', default: '3' },
    cases: { type: 'string', default: allCases.join() },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '20' },
    'per-second': { type: 'string', default: '1200' },
    rounds: { type: 'string', default: '7' },
    'churn-seconds': { type: 'string', default: '180' },
  },
})
const hostCount = Number(values.hosts)
const cases = values.cases.split(',')
const runs = Number(values.runs)
const seconds = Number(values.seconds)
const perSecond = Number(values['per-second'])
const rounds = Number(values.rounds)
const churnSeconds = Number(values['churn-seconds'])
for (const name of cases) {
  if (allCases.some((known) => known === name)) continue
  console.error(`there is no case ${name}; there are ${allCases.join(', ')}`)
  process.exit(2)
}

const report = new Report('network', values.json)
const image = 'whoami:v1'
const connections = ['kept', 'one each'] as const
/** Of wrk at a steady rate. */
const pacedConnections = 64
const pacedScript = join(import.meta.dirname, 'support', 'paced.lua')
const liveHeapScript = join(import.meta.dirname, 'support', 'live-heap.ts')
const services = [
  { name: 'web', server: 'stops at once', port: 8080, flags: [] },
  { name: 'calm', server: 'drains', port: 8088, flags: ['--env', 'DRAIN_MS=3000'] },
] as const

let leaderName = 'node1'

if (cases.includes('program')) await measureProgramming(report)
const why = await whyNoLab()
if (why !== undefined) report.skip('every figure of the lab', why)
else {
  if (cases.some((name) => name !== 'program' && name !== 'update-swarm')) {
    await using lab = await openLab({ hosts: hostCount, daemons: true })
    await measure(lab)
  }
  if (cases.includes('update-swarm')) {
    await using lab = await openLab({ hosts: hostCount })
    await measureSwarm(lab)
  }
}

async function measure(lab: Lab): Promise<void> {
  const [first, second, third] = [lab.host(1), lab.host(2), lab.host(3)]
  /** Who is asked for what: another manager while the first one is away. */
  let manager = first
  const docker = (...words: readonly string[]) => manager.skepDockerOk(...words)
  await docker('swarm', 'init', '--advertise-addr', first.address)
  const token = await docker('swarm', 'join-token', '-q', 'worker')
  for (const host of lab.hosts.slice(1)) {
    await host.skepDockerOk('swarm', 'join', '--token', token, `${first.address}:2377`)
  }
  await docker('network', 'create', '-d', 'overlay', 'net')
  const create = ['service', 'create', '-d', '--no-resolve-image', '--network', 'net', '--name']
  await docker(...create, 'client', '--mode', 'global', 'busybox:latest', 'sleep', '1000000')
  await settled('client', lab.hosts.length)

  if (cases.includes('throughput')) await measureThroughput()
  for (const name of underLoadCases) if (cases.includes(name)) await measureCase(name)
  if (cases.includes('update-docker-run')) await measureDockerRun()
  if (cases.includes('churn')) await measureChurn()

  /** Every task of the service that is to run does, and no other one. */
  async function settled(name: string, count: number): Promise<void> {
    const filters = encodeURIComponent(JSON.stringify({ service: [name] }))
    await eventually(
      `${count} tasks of ${name}`,
      async () => {
        const api = new EngineApi(manager.api)
        try {
          const tasks = listAt(await api.ok('GET', `/tasks?filters=${filters}`))
          const running = tasks.filter((task) => textAt(task, 'Status', 'State') === 'running')
          const wanted = tasks.filter((task) => textAt(task, 'DesiredState') === 'running')
          return (
            running.length === count &&
            wanted.length === count &&
            running.every((task) => wanted.includes(task))
          )
        } finally {
          api.close()
        }
      },
      120_000,
    )
  }

  /** Words that run what follows them in the network namespace of a host's client, with the names it has. */
  async function inClient(host: LabHost, name = 'client'): Promise<readonly string[]> {
    const id = await host.dockerOk('ps', '-q', '--filter', `name=${name}.`)
    const pid = await host.dockerOk('inspect', '-f', '{{.State.Pid}}', id)
    const script =
      'names=$(mktemp) && cat "$0" >"$names" && mount --bind "$names" /etc/resolv.conf && rm "$names" && exec "$@"'
    return [
      ...host.inside(),
      'nsenter',
      '-t',
      pid,
      '-n',
      'unshare',
      '-m',
      'sh',
      '-c',
      script,
      `/proc/${pid}/root/etc/resolv.conf`,
    ]
  }

  async function addressOf(host: LabHost, name: string): Promise<string> {
    const id = await host.dockerOk('ps', '-q', '--filter', `name=${name}.`)
    return host.dockerOk('inspect', '-f', '{{.NetworkSettings.Networks.net.IPAddress}}', id)
  }

  async function measureThroughput(): Promise<void> {
    await docker(...create, 'near', '--constraint', 'node.hostname==node1', '-p', '8081:80', image)
    await docker(...create, 'far', '--constraint', 'node.hostname==node2', '-p', '8082:80', image)
    await settled('near', 1)
    await settled('far', 1)
    await first.dockerOk('run', '-d', '--name', 'plain', '-p', '8083:80', image)
    const near = await addressOf(first, 'near')
    const far = await addressOf(second, 'far')
    const urls = {
      'local-direct': `http://${near}/health`,
      'local-vip': 'http://near/health',
      'local-mesh': `http://${first.address}:8081/health`,
      'remote-direct': `http://${far}/health`,
      'remote-vip': 'http://far/health',
      'remote-mesh': `http://${first.address}:8082/health`,
      'outside-docker-run': `http://${first.address}:8083/health`,
      'outside-local-mesh': `http://${first.address}:8081/health`,
    } as const
    // One client that goes several ways to a server within a minute comes round to its ports, with timestamps that count from elsewhere:
    // the server, which remembers the connection of before, lets it wait for a second.
    const enters = new Map<string, readonly string[]>()
    for (const name of Object.keys(urls)) {
      if (name.startsWith('outside')) continue
      const place = ['--constraint', 'node.hostname==node1']
      await docker(...create, `by-${name}`, ...place, 'busybox:latest', 'sleep', '1000000')
      await settled(`by-${name}`, 1)
      enters.set(name, await inClient(first, `by-${name}`))
    }
    const enterOf = (name: string) => enters.get(name) ?? []
    const pairs = [
      ['local-vip', 'local-direct'],
      ['local-mesh', 'local-direct'],
      ['remote-vip', 'remote-direct'],
      ['remote-mesh', 'remote-direct'],
      ['outside-local-mesh', 'outside-docker-run'],
    ] as const
    /** What each way does beside what it stands against, `how` being asked. */
    async function compare(how: (name: keyof typeof urls, pair: number) => Promise<Wrk>) {
      const seen = pairs.map(() => ({
        mine: [] as Wrk[],
        base: [] as Wrk[],
        ratios: [] as number[],
      }))
      for (let round = 0; round < rounds; round++) {
        for (const [at, [name, base]] of pairs.entries()) {
          // What else the machine does changes slowly: base, mine, mine, base have the same share of it.
          const before = await how(base, at)
          const slices = [await how(name, at), await how(name, at)]
          const bases = [before, await how(base, at)]
          seen[at]?.mine.push(...slices)
          seen[at]?.base.push(...bases)
          seen[at]?.ratios.push(sumOf(slices) / sumOf(bases))
        }
      }
      return seen.map(({ mine, base, ratios }) => ({
        rate: median(base.map(({ perSecond: own }) => own)),
        ratio: median(ratios),
        p99Ms: median(mine.map(({ p99Ms }) => p99Ms)),
        baseP99Ms: median(base.map(({ p99Ms }) => p99Ms)),
      }))
    }
    for (const isKept of [true, false]) {
      const how = isKept ? '' : ', one connection a request'
      const full = await compare((name) =>
        wrk(enterOf(name), urls[name], isKept ? [] : ['-H', 'Connection: close']),
      )
      for (const [at, { rate, ratio, p99Ms, baseP99Ms }] of full.entries()) {
        const name = pairs[at]?.[0]
        report.add(`throughput-${name}${how}`, 'requests/s', rate * ratio, rate)
        report.add(`p99-at-capacity-${name}${how}`, 'ms', p99Ms, baseP99Ms)
      }
      if (!isKept) continue
      // At capacity a percentile says how long the queue is; at half of it, how long the way is.
      const paced = await compare((name, at) =>
        wrkPaced(enterOf(name), urls[name], (full[at]?.rate ?? 0) / 2),
      )
      for (const [at, { rate, ratio, p99Ms, baseP99Ms }] of paced.entries()) {
        const name = pairs[at]?.[0]
        report.add(`rate-at-half-${name}`, 'requests/s', rate * ratio, rate)
        report.add(`p99-at-half-${name}`, 'ms', p99Ms, baseP99Ms)
      }
    }
    await docker('service', 'rm', 'near', 'far', ...[...enters.keys()].map((name) => `by-${name}`))
    await first.dockerOk('rm', '-f', 'plain')
  }

  async function measureCase(name: (typeof underLoadCases)[number]): Promise<void> {
    if (name === 'leader-killed') {
      await docker('node', 'promote', 'node2', 'node3')
      await eventually(
        'three managers',
        async () => {
          const list = await docker('node', 'ls', '--format', '{{.ManagerStatus}}')
          return list.split('\n').filter((line) => /Leader|Reachable/.test(line)).length === 3
        },
        120_000,
      )
    }
    const counts = new RequestCounts(name)
    /** Of new connections, and of kept ones to the host that is gone: those end one by one, as they are used. */
    const errorSeconds = { new: [0], kept: [0] }
    for (const order of name === 'update' ? orders : orders.slice(0, 1)) {
      for (const { name: service, port, flags } of services) {
        await docker(
          ...[...create, service, '--replicas', '3', '-p', `${port}:80`, ...flags],
          ...['--update-order', order, '--update-monitor', '500ms', '--rollback-order', order],
          ...['--rollback-monitor', '500ms', image],
        )
      }
      await allSettled(3)
      if (name === 'rollback') await update('completed', '--env-add', 'VERSION=v2')
      for (let number = 0; number < runs; number++) {
        // Else node3, which was empty at the end of the run before, has nothing to lose.
        if (number > 0 && (name === 'drain' || name === 'power-off')) {
          await update('completed', '--force')
        }
        const { result, lostMs } = await underLoad(name)
        counts.add(result, `${order}, run ${number}`, lostMs)
        if (name !== 'power-off') continue
        for (const stream of result.flatMap(({ streams }) => streams)) {
          const last = stream.failures.at(-1)
          const isKept = stream.name.endsWith('kept')
          errorSeconds[isKept ? 'kept' : 'new'].push(last ? (last.atMs - lostMs) / 1000 : 0)
        }
      }
      await docker('service', 'rm', ...services.map((service) => service.name))
      await eventually('the end of all tasks', async () => {
        const left = await Promise.all(
          lab.hosts.flatMap((host) =>
            services.map((service) =>
              host.dockerOk('ps', '-q', '--filter', `name=${service.name}.`),
            ),
          ),
        )
        return left.join('') === ''
      })
    }
    if (name === 'power-off') {
      report.add('power-off-error-seconds', 's', Math.max(...errorSeconds.new))
      report.add('power-off-error-seconds, kept connections', 's', Math.max(...errorSeconds.kept))
    }
    counts.addTo(report)
  }

  /** Does what the case is about under load, for some seconds at least. */
  async function underLoad(name: (typeof underLoadCases)[number]) {
    const share = perSecond / 4 / services.length
    const outside = startLoad(
      [],
      services.flatMap(({ server, port }) =>
        [first, second].flatMap((host) =>
          connections.map((each) => ({
            name: `${server}, outside, ${host.name}, ${each}`,
            ...{ host: host.address, port, isKept: each === 'kept', perSecond: share / 2 },
          })),
        ),
      ),
    )
    const inside = startLoad(
      await inClient(first),
      services.flatMap(({ name: host, server }) =>
        connections.map((each) => ({
          name: `${server}, inside, ${each}`,
          ...{ host, port: 80, isKept: each === 'kept', perSecond: share },
        })),
      ),
    )
    const beganMs = performance.now()
    await sleep(1500)
    const lostMs = Date.now()
    try {
      await act(name)
    } finally {
      await sleep(Math.max(1000, seconds * 1000 - (performance.now() - beganMs)))
    }
    const result: readonly LoadResult[] = [await outside.stop(), await inside.stop()]
    if (name === 'power-off') {
      await third.powerOn()
      await third.startDaemon()
      await isReady('node3')
      await settled('client', lab.hosts.length)
      await allSettled(3)
    }
    return { result, lostMs }
  }

  async function act(name: (typeof underLoadCases)[number]): Promise<void> {
    switch (name) {
      case 'update':
        return update('completed', '--force')
      case 'scale':
        await docker('service', 'scale', '-d', ...services.map((one) => `${one.name}=10`))
        await allSettled(10)
        await docker('service', 'scale', '-d', ...services.map((one) => `${one.name}=3`))
        return allSettled(3)
      case 'drain':
        await docker('node', 'update', '--availability', 'drain', 'node3')
        await eventually('an empty node', async () => {
          const left = await Promise.all(
            services.map((one) => third.dockerOk('ps', '-q', '--filter', `name=${one.name}.`)),
          )
          return left.join('') === ''
        })
        await docker('node', 'update', '--availability', 'active', 'node3')
        return settled('client', lab.hosts.length)
      case 'rollback':
        for (const one of services) await docker('service', 'rollback', '-d', one.name)
        return isUpdated('rollback_completed')
      case 'daemons-killed':
        await Promise.all(lab.hosts.map((host) => host.stopDaemon('SIGKILL')))
        await sleep((seconds * 1000) / 2)
        await Promise.all(lab.hosts.map((host) => host.startDaemon()))
        return isReady('node2')
      case 'leader-killed': {
        const leader = lab.hosts.find(({ name }) => name === leaderName)
        await leader?.stopDaemon('SIGKILL')
        manager = lab.hosts.find((host) => host !== leader) ?? first
        leaderName = await eventually('another leader', async () => await findLeader(), 60_000)
        await leader?.startDaemon()
        return allSettled(3)
      }
      case 'power-off':
        return third.powerOff()
      default:
        throw new Error(`${String(name satisfies never)} is no case`)
    }
  }

  async function update(state: string, ...flags: readonly string[]): Promise<void> {
    for (const { name } of services) {
      await docker('service', 'update', '-d', '--no-resolve-image', ...flags, name)
    }
    await isUpdated(state)
  }

  async function isUpdated(state: string): Promise<void> {
    const format = '{{.UpdateStatus.State}}'
    for (const { name } of services) {
      await eventually(
        `an update of ${name} that is ${state}`,
        async () => (await docker('service', 'inspect', '-f', format, name)) === state,
        180_000,
      )
    }
    await allSettled(3)
  }

  async function allSettled(count: number): Promise<void> {
    for (const { name } of services) await settled(name, count)
  }

  async function isReady(node: string): Promise<void> {
    await eventually(
      `${node} is ready`,
      async () =>
        (
          await manager.skepDocker('node', 'inspect', '-f', '{{.Status.State}}', node)
        ).stdout.trim() === 'ready',
      60_000,
    )
  }

  async function findLeader(): Promise<string | undefined> {
    const format = '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'
    const { stdout } = await manager.skepDocker('node', 'ls', '--format', format)
    const name = /^(\S+) Ready Leader/m.exec(stdout)?.[1]
    return name === leaderName ? undefined : name
  }

  /** What clients notice of a container that is replaced by hand, as one does who has no orchestrator. */
  async function measureDockerRun(): Promise<void> {
    const counts = new RequestCounts('update-docker-run')
    const words = ['run', '-d', '--name', 'plain', '-p', '8083:80', image]
    await first.dockerOk(...words)
    for (let number = 0; number < runs; number++) {
      const load = startOutside([first], 8083)
      const beganMs = Date.now()
      await sleep(1500)
      await first.dockerOk('stop', 'plain')
      await first.dockerOk('rm', 'plain')
      await first.dockerOk(...words)
      await sleep(Math.max(1000, seconds * 1000 - (Date.now() - beganMs)))
      counts.add([await load.stop()], `run ${number}`, beganMs + 1500)
    }
    counts.addTo(report)
    await first.dockerOk('rm', '-f', 'plain')
  }

  /** What deploying, scaling and removing leaves behind. */
  async function measureChurn(): Promise<void> {
    let loops = 0
    const turn = async () => {
      loops++
      await docker(...create, 'churn', '--replicas', '3', '-p', '8085:80', image)
      await settled('churn', 3)
      await docker('service', 'scale', '-d', 'churn=6')
      await settled('churn', 6)
      await docker('service', 'rm', 'churn')
      await eventually('nothing is left', async () => {
        const left = await Promise.all(
          lab.hosts.map((host) => host.dockerOk('ps', '-aq', '--filter', 'name=churn.')),
        )
        return left.join('') === ''
      })
    }
    for (let warm = 0; warm < 3; warm++) await turn()
    const before = await footprint(lab)
    const endMs = performance.now() + churnSeconds * 1000
    while (performance.now() < endMs) await turn()
    await sleep(11_000) // An audit may remove what was still in use.
    const after = await footprint(lab)
    report.add('churn-loops', 'loops', loops)
    for (const [name, count] of Object.entries(after)) {
      const was = before[name] ?? 0
      report.add(`churn-growth, ${name}`, name.endsWith('MiB') ? 'MiB' : 'count', count - was)
    }
  }
}

/** The whole steady load to one published port. */
function startOutside(hosts: readonly LabHost[], port: number) {
  return startLoad(
    [],
    hosts.flatMap((host) =>
      connections.map((each) => ({
        name: `outside, ${host.name}, ${each}`,
        ...{ host: host.address, port, isKept: each === 'kept' },
        perSecond: perSecond / hosts.length / connections.length,
      })),
    ),
  )
}

/** Docker Swarm's own rolling update on hosts of the same kind, under the same load from outside. */
async function measureSwarm(lab: Lab): Promise<void> {
  const cluster = new LabCluster(lab, 'swarm')
  const [first, second] = [lab.host(1), lab.host(2)]
  const hasMesh = existsSync('/proc/net/ip_vs')
  const counts = new RequestCounts(`update-swarm${hasMesh ? '' : ', host ports'}`)
  try {
    await cluster.init(first)
    for (const host of lab.hosts.slice(1)) await cluster.join(host, 'worker', first)
    const publish = `mode=${hasMesh ? 'ingress' : 'host'},target=80,published=8080`
    const [{ name, flags }] = services
    await cluster.ok(
      first,
      ...['service', 'create', '-d', '--no-resolve-image', '--name', name, '--publish', publish],
      ...['--replicas', `${lab.hosts.length}`, '--replicas-max-per-node', '1'],
      ...['--update-monitor', '500ms', ...flags, image],
    )
    const api = cluster.api(first)
    await untilRunning(api, name, lab.hosts.length)
    for (let number = 0; number < runs; number++) {
      const load = startOutside([first, second], 8080)
      const beganMs = Date.now()
      await sleep(1500)
      await cluster.ok(first, 'service', 'update', '-d', '--no-resolve-image', '--force', name)
      await sleep(1000)
      await untilUpdated(api, name)
      await sleep(Math.max(1000, seconds * 1000 - (Date.now() - beganMs)))
      counts.add([await load.stop()], `run ${number}`, beganMs + 1500)
    }
    counts.addTo(report)
  } finally {
    cluster.close()
  }
}

function sumOf(slices: readonly Wrk[]): number {
  return slices.reduce((total, slice) => total + slice.perSecond, 0)
}

interface Wrk {
  readonly perSecond: number
  readonly p99Ms: number
}

/** As many requests as 16 connections can make. */
function wrk(enter: readonly string[], url: string, flags: readonly string[]): Promise<Wrk> {
  return runWrk([...enter, 'wrk', '-t1', '-c16', '-d1s', '--latency', ...flags, url])
}

/** About so many requests a second. */
function wrkPaced(enter: readonly string[], url: string, rate: number): Promise<Wrk> {
  const waitMs = Math.max(1, Math.round((pacedConnections / rate) * 1000))
  return runWrk([
    ...[...enter, 'wrk', '-t1', `-c${pacedConnections}`, '-d1s', '--latency', '-s', pacedScript],
    ...[url, '--', `${waitMs}`],
  ])
}

async function runWrk([program = '', ...args]: readonly string[]): Promise<Wrk> {
  const { stdout, stderr, code } = await run(program, args)
  const [, amount = '', unit = ''] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? []
  const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0)
  if (code !== 0 || perSecond === 0) throw new Error(`${args.join(' ')}: ${stdout}${stderr}`)
  const inMs = { us: 0.001, ms: 1, s: 1000 }[unit] ?? Number.NaN
  return { perSecond, p99Ms: Number(amount) * inMs }
}

/** What the network has on all hosts, and what the daemons take. */
async function footprint(lab: Lab): Promise<Record<string, number>> {
  const sums: Record<string, number> = {}
  const add = (name: string, count: number) => {
    sums[name] = (sums[name] ?? 0) + count
  }
  for (const host of lab.hosts) {
    const lines = async (...words: readonly string[]) =>
      (await host.run(...words)).stdout.split('\n').filter((line) => line !== '').length
    add('devices', await lines('ip', '-br', 'link'))
    add('addresses', await lines('ip', '-br', '-4', 'address'))
    add('routes', await lines('ip', '-4', 'route', 'show', 'table', 'all'))
    add('neighbours', await lines('ip', '-4', 'neigh', 'show', 'nud', 'permanent'))
    add('forwarding entries', await lines('bridge', 'fdb', 'show'))
    add('nft lines', await lines('nft', 'list', 'ruleset'))
    add('iptables rules', await lines('iptables', '-S'))
    // The shell that looks has these words in its own.
    const script =
      'for pid in /proc/[0-9]*; do [ $pid = /proc/$$ ] && continue; case "$(tr "\\0" " " <$pid/cmdline 2>/dev/null)" in *"daemon --data-root"*|skep-resolver*) basename $pid; awk "/VmRSS/{print \\$2}" $pid/status; ls $pid/fd | wc -l;; esac; done'
    const numbers = (await host.run('bash', '-c', script)).stdout.split('\n').map(Number)
    for (let index = 0; index + 2 < numbers.length; index += 3) {
      const [pid = 0, memoryKiB = 0, files = 0] = numbers.slice(index, index + 3)
      const { stdout, stderr } = await host.run(process.execPath, liveHeapScript, `${pid}`)
      if (stdout === '') throw new Error(`what lives in process ${pid} is not known: ${stderr}`)
      add('memory of daemons and resolvers, MiB', memoryKiB / 1024)
      add('live heap of daemons and resolvers, MiB', Number(stdout) / 1024 ** 2)
      add('open files', files)
    }
  }
  return sums
}
