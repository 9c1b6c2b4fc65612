/**
 * Milliseconds that a cluster of three hosts needs: for a host to join, and from the loss of a host (its cable cut, its
 * plug pulled) until the replacements of its tasks run.
 *
 *   node bench/failover.ts [--json] [--rounds 5]
 */
import { type Lab, openLab, whyNoLab } from '../test/lab/open-lab.ts'
import { listAt, textAt } from '../test/support/look.ts'
import { EngineApi } from './support/engine-api.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'
import { serviceSpec, until } from './support/services.ts'

const image = 'whoami:v1'
const service = 'bench-failover'
const replicas = 6

const { json, rounds } = readOptions(5)
const report = new Report('failover', json)

const why = await whyNoLab()
if (why === undefined) {
  const lab = await openLab({ hosts: 3, daemons: true, images: [image] })
  try {
    await measure(lab)
  } finally {
    await lab.down()
  }
} else report.skip('every figure', why)

async function measure(lab: Lab): Promise<void> {
  const [manager, other, lost] = [lab.host(1), lab.host(2), lab.host(3)]
  const api = new EngineApi(manager.api)
  const ms = { join: [] as number[], cut: [] as number[], power: [] as number[] }
  await manager.skepDockerOk('swarm', 'init', '--advertise-addr', manager.address)
  const token = await manager.skepDockerOk('swarm', 'join-token', '-q', 'worker')
  await other.skepDockerOk('swarm', 'join', '--token', token, manager.address)
  await api.ok('POST', '/services/create', serviceSpec(service, image, replicas))

  const wanted = encodeURIComponent(
    JSON.stringify({ service: [service], 'desired-state': ['running'] }),
  )
  const runningElsewhere = async (nodeId: string) =>
    listAt(await api.ok('GET', `/tasks?filters=${wanted}`)).filter(
      (task) => textAt(task, 'Status', 'State') === 'running' && textAt(task, 'NodeID') !== nodeId,
    ).length
  const isReady = async (nodeId: string) =>
    textAt(await api.ok('GET', `/nodes/${nodeId}`), 'Status', 'State') === 'ready'

  async function loseAndReplace(
    nodeId: string,
    lose: () => Promise<void>,
    mend: () => Promise<void>,
  ): Promise<number> {
    while ((await runningElsewhere(nodeId)) === replicas) {
      // Waits until all are replaced and stay.
      await manager.skepDockerOk('service', 'update', '-q', '--force', service)
    }
    const seconds = await secondsOf(async () => {
      await lose()
      await until('replacements', async () => (await runningElsewhere(nodeId)) === replicas)
    })
    await mend()
    await until('the host is back', () => isReady(nodeId))
    return seconds * 1000
  }

  for (let round = 0; round < rounds; round++) {
    const joined = await secondsOf(async () => {
      await lost.skepDockerOk('swarm', 'join', '--token', token, manager.address)
    })
    ms.join.push(joined * 1000)
    const nodeId = await lost.skepDockerOk('info', '--format', '{{.Swarm.NodeID}}')
    ms.cut.push(
      await loseAndReplace(
        nodeId,
        () => lab.cut(lost.number),
        () => lab.heal(),
      ),
    )
    ms.power.push(
      await loseAndReplace(
        nodeId,
        () => lost.powerOff(),
        async () => {
          await lost.powerOn()
          await lost.startEngine()
          await lost.startDaemon()
        },
      ),
    )
    await lost.skepDockerOk('swarm', 'leave')
  }
  api.close()
  report.add('join-ms', 'ms', median(ms.join))
  report.add('node-loss-ms', 'ms', median(ms.power))
  report.add('node-cut-ms', 'ms', median(ms.cut))
}
