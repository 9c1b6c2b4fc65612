/**
 * Seconds from the request until one replica runs, against one container create and start on the same engine; and
 * Docker Swarm at the same work. Rounds take turns.
 *
 *   node bench/one.ts [--json] [--rounds 9]
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

const image = 'whoami:v1'
const { json, rounds } = readOptions(9)
const report = new Report('one', json)

await using daemon = await startDaemon()
const engine = new EngineApi(sharedEngine)
const skep = new EngineApi(daemon.host)
const peer = await openSwarmPeer([image])
const swarm = typeof peer === 'string' ? undefined : new EngineApi(peer.engine.address)
const seconds = { raw: [] as number[], skep: [] as number[], swarm: [] as number[] }

async function one(api: EngineApi, its: EngineApi, name: string): Promise<number> {
  const took = await secondsOf(async () => {
    await api.ok('POST', '/services/create', serviceSpec('bench-one', name, 1))
    await untilRunning(api, 'bench-one', 1)
  })
  await removeService(api, its, 'bench-one')
  return took
}

try {
  for (let round = 0; round < rounds; round++) {
    let ids: readonly string[] = []
    seconds.raw.push(
      await secondsOf(async () => {
        ids = await startRaw(engine, image, 1, 1)
      }),
    )
    await removeRaw(engine, ids)
    seconds.skep.push(await one(skep, engine, image))
    if (swarm && typeof peer !== 'string') {
      seconds.swarm.push(await one(swarm, swarm, peer.imageOf(image)))
    }
  }
} finally {
  for (const api of [engine, skep, swarm]) api?.close()
  if (typeof peer !== 'string') await peer[Symbol.asyncDispose]()
}
const raw = median(seconds.raw)
report.add('one replica until it runs', 's', median(seconds.skep), raw)
report.add('of which over create and start', 'ms', (median(seconds.skep) - raw) * 1000)
if (typeof peer === 'string') report.skip('beside Docker Swarm', peer)
else report.add('one replica, Docker Swarm', 's', median(seconds.swarm), raw)
