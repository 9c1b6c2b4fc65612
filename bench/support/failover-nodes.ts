import { setTimeout as pause } from 'node:timers/promises'
import type { LabHost } from '../../test/lab/host.ts'
import { compare, type FailoverBench, Sampler } from './failover-bench.ts'
import { type LabCluster, msOf } from './lab-cluster.ts'
import { until } from './services.ts'

const service = 'bench-failover'
const replicas = 6
const flapMs = 1_000

/** Joining, draining, and from the loss of a worker until the replacements of its tasks run. */
export async function measureNodes(bench: FailoverBench): Promise<void> {
  const { lab, report, runs, image } = bench
  const flapped: number[] = []
  await compare(bench, async (cluster) => {
    const [manager, other, lost] = [lab.host(1), lab.host(2), lab.host(3)]
    const sampler = new Sampler()
    await cluster.init(manager)
    await cluster.join(other, 'worker', manager)
    await cluster.create(manager, service, image, replicas)
    await cluster.untilRunning(manager, service, replicas)
    for (let run = 0; run < runs; run++) {
      sampler.add('join-ms', await msOf(() => cluster.join(lost, 'worker', manager)))
      if (cluster.contender === 'skep') flapped.push(await flap(cluster, manager, lost))
      await measureLosses(cluster, sampler, manager, lost)
      sampler.add('drain-ms', await drain(cluster, manager, lost))
      await cluster.leave(lost, manager)
    }
    return sampler.samples
  })
  report.add(
    'flap-replacements',
    'tasks',
    flapped.reduce((sum, count) => sum + count, 0),
  )
}

async function measureLosses(
  cluster: LabCluster,
  sampler: Sampler,
  manager: LabHost,
  lost: LabHost,
): Promise<void> {
  const { lab, contender } = cluster
  const lose = async (how: () => Promise<void>, mend: () => Promise<void>): Promise<number> => {
    const nodeId = (await cluster.nodeOf(lost, manager))?.id ?? ''
    await cluster.spreadTo(nodeId, manager, service, replicas)
    const ms = await msOf(async () => {
      await how()
      await cluster.untilRunning(manager, service, replicas, nodeId)
    })
    await mend()
    await until('the host is back', async () => {
      return (await cluster.nodeOf(lost, manager))?.isReady ?? false
    })
    return ms
  }
  const powered = await lose(
    () => cluster.powerOff(lost),
    () => cluster.powerOn(lost),
  )
  sampler.add('node-loss-ms', powered)
  const cut = await lose(
    () => lab.cut(lost.number),
    () => lab.heal(),
  )
  sampler.add('node-cut-ms', cut)
  if (contender === 'swarm') return // Its node is its engine.
  const killed = await lose(
    () => cluster.killDaemon(lost),
    () => lost.startDaemon(),
  )
  sampler.add('daemon-loss-ms', killed)
}

/** Tasks that were replaced because the cable of their host was out for a second. */
async function flap(cluster: LabCluster, manager: LabHost, host: LabHost): Promise<number> {
  const nodeId = (await cluster.nodeOf(host, manager))?.id ?? ''
  await cluster.spreadTo(nodeId, manager, service, replicas)
  const before = new Set((await cluster.tasks(manager, service)).map(({ id }) => id))
  await cluster.lab.cut(host.number)
  await pause(flapMs)
  await cluster.lab.heal()
  await pause(6_000)
  await cluster.untilRunning(manager, service, replicas)
  return (await cluster.tasks(manager, service)).filter(({ id }) => !before.has(id)).length
}

/** Until all tasks of a host run elsewhere and it has no container of them. */
async function drain(cluster: LabCluster, manager: LabHost, host: LabHost): Promise<number> {
  const nodeId = (await cluster.nodeOf(host, manager))?.id ?? ''
  await cluster.spreadTo(nodeId, manager, service, replicas)
  const ms = await msOf(async () => {
    await cluster.ok(manager, 'node', 'update', '--availability', 'drain', nodeId)
    await cluster.untilRunning(manager, service, replicas, nodeId)
    await until('the host is empty', async () => (await cluster.containers(host)).length === 0)
  })
  await cluster.ok(manager, 'node', 'update', '--availability', 'active', nodeId)
  return ms
}
