import { execFileSync } from 'node:child_process'
import { bridgeName } from './bridge-name.ts'
import { describeDataPlaneContract } from './contract.ts'
import type { LocalTask } from './data-plane.ts'
import { SimulatedDataPlane } from './simulated-data-plane.ts'
import { type Probe, RealBench, whyNotReal } from './test-bench.ts'
import { buildNetwork, buildTask } from './test-objects.ts'

describeDataPlaneContract('simulated', async () => {
  const plane = new SimulatedDataPlane()
  return {
    plane,
    network: (name, third, extra) =>
      buildNetwork(name, {
        subnet: `10.213.${third}.0/24`,
        gateway: `10.213.${third}.1`,
        ...extra,
      }),
    task: async (name, places) => buildTask(name, places),
    connect: async (from, address) => {
      const connection = plane.connect(from, address)
      return connection === 'refused' ? 'refused' : connection.taskName
    },
    resolve: async (from, name, type) => plane.resolve(from, name, type) ?? [],
    sabotage: async () => plane.breakSomething('the rules of the host had been changed'),
    close: () => plane.close(),
  }
})

const reason = await whyNotReal()
describeDataPlaneContract(
  'Linux',
  async () => {
    const bench = await RealBench.open('net-c')
    const probes = new Map<LocalTask, Probe>()
    const probeOf = (task: LocalTask) => {
      const probe = probes.get(task) ?? bench.probe(task)
      probes.set(task, probe)
      return probe
    }
    return {
      get plane() {
        return bench.plane
      },
      network: (name, third, extra) => bench.network(name, third, extra),
      task: (name, places) => bench.container(name, places, { server: true }),
      connect: async (from, address) => {
        try {
          return `net-c-${(await probeOf(from).http(address, 80)).hostname}`
        } catch (error) {
          if (error instanceof Error && error.message === 'ECONNREFUSED') return 'refused'
          throw error
        }
      },
      resolve: async (from, name, type) => (await probeOf(from).dns('127.0.0.11', name, type)).data,
      sabotage: async () => {
        execFileSync('nft', ['flush', 'table', 'ip', 'net-c'])
        const tables = execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
        if (!tables.includes('table ip6 net-c')) return
        execFileSync('nft', ['flush', 'table', 'ip6', 'net-c'])
        execFileSync('ip', [
          '-6',
          'address',
          'flush',
          'dev',
          bridgeName('netc21six'.padEnd(25, '0')),
          'scope',
          'global',
        ])
      },
      close: () => bench.close(),
    }
  },
  reason ?? false,
)
