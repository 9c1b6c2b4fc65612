import { Writer } from '../../test/support/write-history.ts'
import type { FailoverBench } from './failover-bench.ts'
import { LabCluster, msOf } from './lab-cluster.ts'

const service = 'bench-grow'
const taskCount = 100

/** A cluster of one manager with 100 tasks gets two more managers while it is written to. */
export async function measureGrowth({ lab, report, image }: FailoverBench): Promise<void> {
  const cluster = new LabCluster(lab, 'skep')
  const [first, ...others] = lab.hosts
  if (!first) return
  await cluster.init(first)
  await cluster.create(first, service, image, taskCount)
  await cluster.untilRunning(first, service, taskCount)
  const before = await cluster.containers(first)
  const writer = new Writer(first.api, 'grow')
  writer.start()
  for (const host of others) {
    const ms = await msOf(() => cluster.join(host, 'manager', first))
    console.error(`  ${host.name} joined as manager in ${Math.round(ms)} ms`)
  }
  await cluster.settled(first, lab.hosts.length)
  await writer.stop()
  const writes = [...writer.writes.values()]
  const now = new Set(await cluster.containers(first))
  report.add('grow-restarts', 'tasks', before.filter((id) => !now.has(id)).length)
  report.add(
    'grow-pause-ms',
    'ms',
    Math.max(...writes.map((write) => write.endedAtMs - write.beganAtMs)),
  )
  report.add(
    'grow-failed-writes',
    'writes',
    writes.filter(({ outcome }) => outcome !== 'done').length,
  )
  await cluster.end()
}
