/**
 * Seconds from the request until 30 replicas of a small image run, against 30 container create and start calls, eight
 * at a time, on the same engine; and Docker Swarm at the same work. Rounds of the three take turns.
 *
 *   node bench/deploy.ts [--json] [--rounds 3]
 */
import { sharedEngine, startDaemon } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'
import {
  removeRaw,
  removeService,
  serviceSpec,
  startRaw,
  untilRunning,
} from './support/services.ts'
import { openSwarmPeer } from './support/swarm-peer.ts'

const replicas = 30
const image = 'whoami:v1'
const { json, rounds } = readOptions(3)
const report = new Report('deploy', json)

await using daemon = await startDaemon()
const engine = new EngineApi(sharedEngine)
const skep = new EngineApi(daemon.host)
const peer = await openSwarmPeer([image])
const swarm = typeof peer === 'string' ? undefined : new EngineApi(peer.engine.address)
const seconds = { raw: [] as number[], skep: [] as number[], swarm: [] as number[] }

async function deploy(api: EngineApi, its: EngineApi, name: string): Promise<number> {
  const took = await secondsOf(async () => {
    await api.ok('POST', '/services/create', serviceSpec('bench-deploy', name, replicas))
    await untilRunning(api, 'bench-deploy', replicas)
  })
  await removeService(api, its, 'bench-deploy')
  return took
}

try {
  for (let round = 0; round < rounds; round++) {
    let ids: readonly string[] = []
    seconds.raw.push(
      await secondsOf(async () => {
        ids = await startRaw(engine, image, replicas, 8)
      }),
    )
    await removeRaw(engine, ids)
    seconds.skep.push(await deploy(skep, engine, image))
    if (swarm && typeof peer !== 'string') {
      seconds.swarm.push(await deploy(swarm, swarm, peer.imageOf(image)))
    }
  }
} finally {
  for (const api of [engine, skep, swarm]) api?.close()
  if (typeof peer !== 'string') await peer[Symbol.asyncDispose]()
}
const raw = median(seconds.raw)
report.add(`${replicas} replicas until all run`, 's', median(seconds.skep), raw)
if (typeof peer === 'string') report.skip('beside Docker Swarm', peer)
else {
  report.add(`${replicas} replicas, Docker Swarm`, 's', median(seconds.swarm), raw)
  report.add(
    `${replicas} replicas, Skep against Swarm`,
    's',
    median(seconds.skep),
    median(seconds.swarm),
  )
}
