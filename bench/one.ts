/**
 * Seconds from the request until one replica runs, against one container create and start on the same engine; and
 * Docker Swarm at the same work. Rounds take turns.
 *
 *   node bench/one.ts [--json] [--rounds 9]
 */
import { median, Report, readOptions } from './support/rows.ts'
import { measureStartUp } from './support/start-up.ts'

const { json, rounds } = readOptions(9)
const report = new Report('one', json)
const seconds = await measureStartUp('bench-one', 1, 1, rounds)
const raw = median(seconds.raw)
const skep = median(seconds.skep)
report.add('one replica until it runs', 's', skep, raw)
report.add('of which over create and start', 'ms', (skep - raw) * 1000)
if (typeof seconds.swarm === 'string') report.skip('beside Docker Swarm', seconds.swarm)
else report.add('one replica, Docker Swarm', 's', median(seconds.swarm), raw)
