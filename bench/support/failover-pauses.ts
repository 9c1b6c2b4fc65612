import { setTimeout as pause } from 'node:timers/promises'
import { DownWatch } from '../../test/lab/down-watch.ts'
import type { FailoverBench } from './failover-bench.ts'
import { beginWithManagers } from './failover-leader.ts'
import { LabCluster, scale } from './lab-cluster.ts'

const lengthsMs = [1_000, 3_000, 8_000, 15_000, 30_000]
/** Silence that is none yet: a node that stands still for no longer is not to be called down itself. */
const silenceMs = 2_500
const service = 'bench-paused'

/**
 * Has the leader's host stand still, etcd and engine and all, while a service is scaled: nodes that were called down
 * though they were there, and tasks that are there twice.
 */
export async function measurePauses({ lab, report, image, runs }: FailoverBench): Promise<void> {
  const cluster = new LabCluster(lab, 'skep')
  const managers = [lab.host(1), lab.host(2), lab.host(3)]
  await beginWithManagers(cluster, image)
  await cluster.create(lab.host(1), service, image, 4)
  await cluster.untilRunning(lab.host(1), service, 4)
  let wrongDowns = 0
  let doubled = 0
  for (let run = 0; run < runs; run++) {
    const lengthMs = lengthsMs[run % lengthsMs.length] ?? 1_000
    const leader = await cluster.leader(managers[run % 3] ?? lab.host(1))
    const by = managers.find((host) => host !== leader) ?? leader
    const own = (await cluster.nodeOf(leader, by))?.id ?? ''
    const downs = new DownWatch(lab)
    const replicas = run % 2 === 0 ? 6 : 4
    await leader.pause()
    const paused = pause(lengthMs).then(() => leader.resume())
    let isScaled = false
    while (!isScaled)
      isScaled = await scale(cluster, by, service, replicas).then(
        () => true,
        () => false,
      )
    await paused
    await cluster.settled(by, lab.hosts.length)
    await cluster.untilRunning(by, service, replicas)
    // What a leader that came back might still do, it has done by then.
    await pause(5_000)
    const called = downs.take()
    wrongDowns += called.filter(({ nodeId }) => nodeId !== own || lengthMs <= silenceMs).length
    const tasks = await cluster.tasks(by, service)
    doubled += Math.max(0, tasks.length - replicas)
    console.error(
      `  paused for ${lengthMs} ms: ${called.length} called down, ${tasks.length} of ${replicas} tasks`,
    )
  }
  report.add('paused-leader-wrong-downs', 'nodes', wrongDowns)
  report.add('paused-leader-double-tasks', 'tasks', doubled)
  await cluster.end()
}
