import { setTimeout as pause } from 'node:timers/promises'
import type { LabHost } from '../../test/lab/host.ts'
import { compare, type FailoverBench, Sampler } from './failover-bench.ts'
import type { LabCluster } from './lab-cluster.ts'

const base = 'bench-base'
const replicas = 10
/** For one write to be taken, in ms, before it is tried again: a manager may wait for a majority. */
const writeMs = 2_000

/** A cluster of three managers and two workers, with a service on it. */
export async function beginWithManagers(cluster: LabCluster, image: string): Promise<void> {
  const [first, ...others] = cluster.lab.hosts
  if (!first) throw new Error('a lab has hosts')
  await cluster.init(first)
  for (const host of others)
    await cluster.join(host, host.number <= 3 ? 'manager' : 'worker', first)
  await cluster.settled(first, cluster.lab.hosts.length)
  await cluster.create(first, base, image, replicas)
  await cluster.untilRunning(first, base, replicas)
}

/** From the loss of the leader's host until another manager takes a write, and until a new service runs. */
export async function measureLeaderLoss(bench: FailoverBench): Promise<void> {
  const { lab, runs, image } = bench
  const managers = [lab.host(1), lab.host(2), lab.host(3)]
  await compare(bench, async (cluster) => {
    const sampler = new Sampler()
    await beginWithManagers(cluster, image)
    for (let run = 0; run < runs; run++) {
      const leader = await cluster.leader(managers[run % 3] ?? lab.host(1))
      const others = managers.filter((host) => host !== leader)
      const [by = leader] = others
      const nodeId = (await cluster.nodeOf(leader, by))?.id ?? ''
      await cluster.spreadTo(nodeId, by, base, replicas)
      const name = `late-${run}`
      const lostAtMs = performance.now()
      await cluster.powerOff(leader)
      const writing = firstWrite(cluster, others, `write-${run}`)
      const taken = writing.then(() =>
        sampler.add('leader-loss-write-ms', performance.now() - lostAtMs),
      )
      await cluster.createAtLast(by, name, image)
      await cluster.untilRunning(by, name, 1)
      sampler.add('leader-loss-loops-ms', performance.now() - lostAtMs)
      await taken
      await cluster.untilRunning(by, base, replicas, nodeId)
      sampler.add('leader-loss-replaced-ms', performance.now() - lostAtMs)
      await cluster.powerOn(leader)
      await cluster.settled(by, lab.hosts.length)
      await cluster.ok(by, 'service', 'rm', name)
    }
    return sampler.samples
  })
}

/** Resolves when any of these managers has taken a write. */
async function firstWrite(
  cluster: LabCluster,
  managers: readonly LabHost[],
  name: string,
): Promise<void> {
  let isDone = false
  await Promise.any(
    managers.map(async (host) => {
      for (let count = 0; !isDone; count++) {
        const body = { Name: `${name}-${host.name}-${count}`, Data: 'eA==' }
        const answer = await Promise.race([
          cluster
            .api(host)
            .call('POST', '/configs/create', body)
            .catch(() => undefined),
          pause(writeMs),
        ])
        if (answer?.status === 201) {
          isDone = true
          return
        }
        await pause(20)
      }
    }),
  )
}
