import { compare, type FailoverBench, Sampler } from './failover-bench.ts'
import { msOf } from './lab-cluster.ts'

const service = 'bench-twelve'

/** Twelve hosts, three of them managers: from the first command until all are ready and each of two tasks a host runs. */
export async function measureTwelve(bench: FailoverBench): Promise<void> {
  const { lab, image } = bench
  const [first, second, third, ...workers] = lab.hosts
  if (!first || !second || !third) return
  await compare(bench, async (cluster) => {
    const sampler = new Sampler()
    const ms = await msOf(async () => {
      await cluster.init(first)
      for (const host of [second, third]) await cluster.join(host, 'manager', first)
      await Promise.all(workers.map((host) => cluster.join(host, 'worker', first)))
      await cluster.settled(first, lab.hosts.length)
      await cluster.create(first, service, image, lab.hosts.length)
      await cluster.untilRunning(first, service, lab.hosts.length)
    })
    sampler.add(`lab-${lab.hosts.length}-converges-ms`, ms)
    return sampler.samples
  })
}
