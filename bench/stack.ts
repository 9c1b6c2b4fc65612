/**
 * Seconds from `docker stack deploy` of examples/production, its images present, until every service has what it
 * declares, health checks and all; against Docker Swarm with the same file.
 *
 *   node bench/stack.ts [--json] [--rounds 3]
 */
import { sharedEngine, startDaemon } from '../test/support/daemon.ts'
import { EngineApi } from '../test/support/engine-api.ts'
import { ProductionStack } from './support/production.ts'
import { median, Report, readOptions, secondsOf } from './support/rows.ts'
import { openSwarmPeer } from './support/swarm-peer.ts'

/** Where the kernel has no IPVS, Swarm's virtual addresses carry nothing, and its api never finds its database. */
const swarmLimitMs = 75_000
const images = ['nginx:alpine', 'my-registry.com/api:1.0.0', 'postgres:15-alpine', 'redis:7-alpine']
const { json, rounds } = readOptions(3)
const report = new Report('stack', json)

async function measure(
  host: string,
  engine: string,
  times: number,
  withinMs?: number,
): Promise<number> {
  const api = new EngineApi(host)
  const seconds: number[] = []
  try {
    await using production = await ProductionStack.prepare(host, engine)
    for (let round = 0; round < times; round++) {
      seconds.push(
        await secondsOf(async () => {
          await production.deploy()
          await production.untilConverged(api, withinMs)
        }),
      )
      await production.remove()
    }
  } finally {
    api.close()
  }
  return median(seconds)
}

let ours: number
{
  await using daemon = await startDaemon()
  ours = await measure(daemon.host, sharedEngine, rounds)
}
let theirs: number | undefined
let reason = ''
{
  const peer = await openSwarmPeer([])
  if (typeof peer === 'string') reason = peer
  else {
    try {
      await peer.engine.load(...images)
      // Swarm waits whole health intervals, so that rounds differ little.
      theirs = await measure(peer.engine.address, peer.engine.address, 1, swarmLimitMs)
    } catch (error) {
      reason = String(error)
    } finally {
      await peer[Symbol.asyncDispose]()
    }
  }
}
report.add('the production stack until all converged', 's', ours, theirs)
if (theirs === undefined) report.skip('beside Docker Swarm', reason)
