import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { idFrom } from '../../src/model/index.ts'
import { RealBench, whyNotReal } from '../../src/network/test-bench.ts'
import { backendOf, buildEndpoint } from '../../src/network/test-objects.ts'
import { median, type Report } from './rows.ts'

const endpointCount = 1000
const tasksEach = 10
const containers = 10
const changes = 40

/**
 * How long a node takes to have 1,000 services of 10 tasks each in kernel and resolver, from nothing and after a change of one backend.
 * Every service has a VIP, a published port and 10 backends on five nodes; their addresses are made up. Ten real
 * containers are on the network.
 */
export async function measureProgramming(report: Report): Promise<void> {
  const why = await whyNotReal()
  if (why !== undefined) {
    report.skip('program', why)
    return
  }
  const bench = await RealBench.open('bench-net')
  try {
    const mac = '02:42:0a:f1:ff:fe'
    const nodeAddress = { address: '10.241.255.254', mac }
    const net = bench.network('net', 60, { subnet: '10.240.0.0/16', gateway: '10.240.0.1' })
    const ingress = bench.network('ingress', 61, {
      ...{ ingress: true, subnet: '10.241.0.0/16', gateway: '10.241.0.1', nodeAddress },
    })
    const networks = [net, ingress]
    for (const network of networks) await bench.plane.ensureNetwork(network)
    const tasks = await Promise.all(
      Array.from({ length: containers }, (_, index) =>
        bench.container(`task${index}`, [{ network: net, address: `10.240.240.${index + 2}` }]),
      ),
    )
    const address = (second: number, index: number) =>
      `10.${second}.${(index >> 8) + 1}.${index & 255}`
    const service = (number: number, count: number) =>
      buildEndpoint(`service${number}`, {
        networks: [
          { networkId: net.id, vip: `10.240.${200 + (number >> 8)}.${number & 255}`, aliases: [] },
        ],
        ports: [{ publishedPort: 20_000 + number }],
        backends: Array.from({ length: count }, (_, task) => ({
          taskId: idFrom<'task'>(`task${number}x${task}`),
          taskName: `service${number}.${task + 1}`,
          nodeId: idFrom<'node'>(`node${task % 5}`),
          weight: 10,
          addresses: {
            [net.id]: address(240, number * tasksEach + task),
            [ingress.id]: address(241, number * tasksEach + task),
          },
        })),
      })
    const own = buildEndpoint('own', { backends: tasks.map((task) => backendOf(task)) })
    const node = { id: idFrom<'node'>('node0') }
    let endpoints = Array.from({ length: endpointCount }, (_, number) => service(number, tasksEach))
    const apply = async () => {
      const startedMs = performance.now()
      await bench.plane.apply({ networks, endpoints: [...endpoints, own], tasks, node })
      return performance.now() - startedMs
    }
    const cpu = () => processorMs(join(bench.stateDir, 'resolver.pid'))
    const atStart = cpu()
    report.add('program-start-ms', 'ms', await apply())
    const before = cpu()
    report.add('program-start-cpu-ms', 'ms', sum(before) - sum(atStart))
    const took: number[] = []
    for (let change = 0; change < changes; change++) {
      const changed = service(change * 7, tasksEach - 1)
      endpoints = endpoints.map((one) => (one.id === changed.id ? changed : one))
      took.push(await apply())
    }
    report.add('program-change-ms', 'ms', median(took))
    const after = cpu()
    report.add('program-change-cpu-ms', 'ms', (sum(after) - sum(before)) / changes)
    for (const [part, spentMs] of Object.entries(after)) {
      report.add(`program-change-cpu-ms, ${part}`, 'ms', (spentMs - (before[part] ?? 0)) / changes)
    }
  } finally {
    await bench.close()
  }
}

/** The kernel counts processor time in these. Source: proc_pid_stat(5), with the usual 100 ticks a second. */
const tickMs = 10

/** Processor time spent so far, in ms: a busy machine makes everything wait, but not work more. */
function processorMs(resolverPidFile: string): Record<string, number> {
  const { user, system } = process.cpuUsage()
  return {
    daemon: (user + system) / 1000,
    'nft, ip and others': (ticks('self', [15, 16]) + shellTicks()) * tickMs,
    resolver: ticks(resolverPid(resolverPidFile), [13, 14]) * tickMs,
  }
}

/** Of the shell that is kept to start programs, and what it started. */
function shellTicks(): number {
  const shells = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8')
  return shells
    .split(' ')
    .filter((pid) => pid !== '' && readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'sh')
    .reduce((total, pid) => total + ticks(pid, [13, 14, 15, 16]), 0)
}

/** The one of before the first programming is not there yet. */
function resolverPid(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}

function ticks(pid: string, places: readonly number[]): number {
  if (pid === '') return 0
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return places.reduce((total, place) => total + Number(fields[place - 2]), 0)
}

function sum(parts: Record<string, number>): number {
  return Object.values(parts).reduce((total, spentMs) => total + spentMs, 0)
}
