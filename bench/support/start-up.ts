import { sharedEngine, startDaemon } from '../../test/support/daemon.ts'
import { EngineApi } from '../../test/support/engine-api.ts'
import { secondsOf } from './rows.ts'
import { removeRaw, removeService, serviceSpec, startRaw, untilRunning } from './services.ts'
import { openSwarmPeer } from './swarm-peer.ts'

const image = 'whoami:v1'

/** Seconds of each round. */
export interface StartUp {
  readonly raw: readonly number[]
  readonly skep: readonly number[]
  /** Or why there is no Swarm to measure. */
  readonly swarm: readonly number[] | string
}

/**
 * How long a service takes until all its replicas run, against create and start calls of as many containers (`atOnce` at
 * a time) on the same engine, and Docker Swarm at the same work. Rounds of the three take turns.
 */
export async function measureStartUp(
  service: string,
  replicas: number,
  atOnce: number,
  rounds: number,
): Promise<StartUp> {
  await using daemon = await startDaemon()
  const engine = new EngineApi(sharedEngine)
  const skep = new EngineApi(daemon.host)
  const peer = await openSwarmPeer([image])
  const swarm = typeof peer === 'string' ? undefined : new EngineApi(peer.engine.address)
  const seconds = { raw: [] as number[], skep: [] as number[], swarm: [] as number[] }

  async function start(api: EngineApi, its: EngineApi, name: string): Promise<number> {
    const took = await secondsOf(async () => {
      await api.ok('POST', '/services/create', serviceSpec(service, name, replicas))
      await untilRunning(api, service, replicas)
    })
    await removeService(api, its, service)
    return took
  }

  try {
    for (let round = 0; round < rounds; round++) {
      let ids: readonly string[] = []
      seconds.raw.push(
        await secondsOf(async () => {
          ids = await startRaw(engine, image, replicas, atOnce)
        }),
      )
      await removeRaw(engine, ids)
      seconds.skep.push(await start(skep, engine, image))
      if (swarm && typeof peer !== 'string') {
        seconds.swarm.push(await start(swarm, swarm, peer.imageOf(image)))
      }
    }
    return { ...seconds, swarm: typeof peer === 'string' ? peer : seconds.swarm }
  } finally {
    for (const api of [engine, skep, swarm]) api?.close()
    if (typeof peer !== 'string') await peer[Symbol.asyncDispose]()
  }
}
