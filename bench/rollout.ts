/**
 * Seconds that a rolling update of 30 replicas takes, five at a time, no delay, until it is completed, against Docker
 * Swarm at the same work. Rounds take turns.
 *
 *   node bench/rollout.ts [--json] [--rounds 3]
 */
import { sharedEngine, startDaemon } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'
import {
  imagesRunning,
  removeService,
  serviceSpec,
  until,
  untilRunning,
  untilUpdated,
  updateImage,
} from './support/services.ts'
import { openSwarmPeer } from './support/swarm-peer.ts'

const replicas = 30
const images = ['whoami:v1', 'whoami:v2'] as const
const name = 'bench-rollout'
const { json, rounds } = readOptions(3)
const report = new Report('rollout', json)

await using daemon = await startDaemon()
const engine = new EngineApi(sharedEngine)
const skep = new EngineApi(daemon.host)
const peer = await openSwarmPeer(images)
const swarm = typeof peer === 'string' ? undefined : new EngineApi(peer.engine.address)

interface Rollout {
  readonly replacedSeconds: number
  readonly completedSeconds: number
}

async function rollOut(api: EngineApi, to: string): Promise<Rollout> {
  const startedMs = performance.now()
  const since = () => (performance.now() - startedMs) / 1000
  await updateImage(api, name, to)
  await until('all replaced', async () => {
    const running = await imagesRunning(api, name)
    return running.length === replicas && running.every((image) => image === to)
  })
  const replacedSeconds = since()
  await untilUpdated(api, name)
  return { replacedSeconds, completedSeconds: since() }
}

const ours: Rollout[] = []
const theirs: Rollout[] = []
try {
  await skep.ok('POST', '/services/create', serviceSpec(name, images[0], replicas))
  await untilRunning(skep, name, replicas)
  if (swarm && typeof peer !== 'string') {
    const spec = serviceSpec(name, peer.imageOf(images[0]), replicas)
    await swarm.ok('POST', '/services/create', spec)
    await untilRunning(swarm, name, replicas)
  }
  for (let round = 0; round < rounds; round++) {
    const to = images[(round + 1) % 2] ?? images[0]
    ours.push(await rollOut(skep, to))
    if (swarm && typeof peer !== 'string') theirs.push(await rollOut(swarm, peer.imageOf(to)))
  }
  const took = await secondsOf(() => removeService(skep, engine, name))
  report.add(`remove ${replicas} replicas`, 's', took)
} finally {
  for (const api of [engine, skep, swarm]) api?.close()
  if (typeof peer !== 'string') await peer[Symbol.asyncDispose]()
}
const medianOf = (key: keyof Rollout, of: readonly Rollout[]) => median(of.map((one) => one[key]))
const isBeside = theirs.length > 0
if (typeof peer === 'string') report.skip('beside Docker Swarm', peer)
for (const [figure, key] of [
  ['until the update is completed', 'completedSeconds'],
  ['until all new tasks run', 'replacedSeconds'],
] as const) {
  const baseline = isBeside ? medianOf(key, theirs) : undefined
  report.add(`${replicas} replicas by 5, ${figure}`, 's', medianOf(key, ours), baseline)
}
