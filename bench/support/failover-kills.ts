import { setTimeout as pause } from 'node:timers/promises'
import { judge, Writer } from '../../test/support/write-history.ts'
import type { FailoverBench } from './failover-bench.ts'
import { beginWithManagers } from './failover-leader.ts'
import { LabCluster, memoryMb } from './lab-cluster.ts'
import { median } from './rows.ts'
import { until } from './services.ts'

/** After which a daemon that was killed is started again, as its service manager does, in ms. */
const startAgainMs = 500

/**
 * Kills the leader's whole daemon again and again while every manager is written to: how long until the others take
 * writes and a new service runs, what of the acknowledged is lost, and whether a task was restarted.
 */
export async function measureKills({ lab, report, image, kills }: FailoverBench): Promise<void> {
  const cluster = new LabCluster(lab, 'skep')
  const managers = [lab.host(1), lab.host(2), lab.host(3)]
  await beginWithManagers(cluster, image)
  const containersOf = async () => {
    return (await Promise.all(lab.hosts.map((host) => cluster.containers(host)))).flat()
  }
  const before = await containersOf()
  const writers = managers.map((host) => new Writer(host.api, host.name))
  for (const writer of writers) writer.start()
  const writeMs: number[] = []
  const loopsMs: number[] = []
  const backMs: number[] = []
  for (let kill = 0; kill < kills; kill++) {
    const leader = await cluster.leader(managers[kill % 3] ?? lab.host(1))
    const others = managers.filter((host) => host !== leader)
    const [by = leader] = others
    const name = `late-${kill}`
    const killedAtMs = performance.now()
    await cluster.killDaemon(leader)
    const back = pause(startAgainMs)
      .then(() => leader.startDaemon())
      .then(() => backMs.push(performance.now() - killedAtMs))
    await cluster.createAtLast(by, name, image)
    await cluster.untilRunning(by, name, 1)
    loopsMs.push(performance.now() - killedAtMs)
    const firsts = others.map((host) => writers[managers.indexOf(host)])
    await until('writes on both', async () => {
      return firsts.every((writer) => writer?.firstDoneSince(killedAtMs) !== undefined)
    })
    const taken = firsts.map((writer) => writer?.firstDoneSince(killedAtMs) ?? Number.NaN)
    writeMs.push(Math.max(...taken) - killedAtMs)
    await back
    await cluster.ok(by, 'service', 'rm', name)
    await cluster.settled(by, lab.hosts.length)
    const figures = [writeMs, loopsMs, backMs].map((of) => `${Math.round(of.at(-1) ?? 0)}`)
    console.error(`  kill ${kill + 1}: ${figures.join(' ')}`)
  }
  await Promise.all(writers.map((writer) => writer.stop()))
  const verdict = await judge(writers, cluster.api(lab.host(2)))
  const now = new Set(await containersOf())
  report.add('leader-kills', 'kills', kills)
  report.add('leader-kill-write-ms', 'ms', median(writeMs))
  report.add('leader-kill-write-max-ms', 'ms', Math.max(...writeMs))
  report.add('leader-kill-loops-ms', 'ms', median(loopsMs))
  report.add('leader-kill-loops-max-ms', 'ms', Math.max(...loopsMs))
  report.add('acknowledged-writes', 'writes', verdict.acknowledged)
  report.add('unknown-writes', 'writes', verdict.unknown)
  report.add(
    'lost-writes',
    'writes',
    verdict.lost.length + verdict.phantom.length + verdict.doubled.length,
  )
  report.add('kill-restarted-tasks', 'tasks', before.filter((id) => !now.has(id)).length)
  report.add(
    'rss-manager-mb',
    'MB',
    median(await Promise.all(managers.map((host) => memoryMb(host, 'daemon')))),
  )
  report.add(
    'rss-etcd-mb',
    'MB',
    median(await Promise.all(managers.map((host) => memoryMb(host, 'etcd')))),
  )
  const workers = lab.hosts.filter((host) => !managers.includes(host))
  report.add(
    'rss-worker-mb',
    'MB',
    median(await Promise.all(workers.map((host) => memoryMb(host, 'daemon')))),
  )
  await cluster.end()
}
