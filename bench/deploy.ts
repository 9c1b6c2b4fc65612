/**
 * Seconds from the request until 30 replicas of a small image run, against 30 container create and start calls, eight
 * at a time, on the same engine; and Docker Swarm at the same work. Rounds of the three take turns.
 *
 *   node bench/deploy.ts [--json] [--rounds 3]
 */
import { median, Report, readOptions } from './support/rows.ts'
import { measureStartUp } from './support/start-up.ts'

const replicas = 30
const { json, rounds } = readOptions(3)
const report = new Report('deploy', json)
const seconds = await measureStartUp('bench-deploy', replicas, 8, rounds)
const raw = median(seconds.raw)
const skep = median(seconds.skep)
report.add(`${replicas} replicas until all run`, 's', skep, raw)
if (typeof seconds.swarm === 'string') report.skip('beside Docker Swarm', seconds.swarm)
else {
  const swarm = median(seconds.swarm)
  report.add(`${replicas} replicas, Docker Swarm`, 's', swarm, raw)
  report.add(`${replicas} replicas, Skep against Swarm`, 's', skep, swarm)
}
