/**
 * What a cluster of several hosts needs when hosts and daemons come and go: on a lab, with Docker Swarm in the engines
 * of the same hosts as `baseline` where it can do the same.
 *
 *   node bench/failover.ts [--json] [--runs 5] [--kills 50] [--only nodes,leader,kills,pauses,grow,twelve] [--no-baseline]
 *
 * Every figure is the median of the runs, but for those that count.
 */
import { parseArgs } from 'node:util'
import { type Lab, type LabOptions, openLab, whyNoLab } from '../test/lab/open-lab.ts'
import type { FailoverBench, Measure } from './support/failover-bench.ts'
import { measureGrowth } from './support/failover-grow.ts'
import { measureKills } from './support/failover-kills.ts'
import { measureLeaderLoss } from './support/failover-leader.ts'
import { measureNodes } from './support/failover-nodes.ts'
import { measurePauses } from './support/failover-pauses.ts'
import { measureTwelve } from './support/failover-twelve.ts'
import { Report } from './support/rows.ts'

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '5' },
    kills: { type: 'string', default: '50' },
    only: { type: 'string', default: 'nodes,leader,kills,pauses,grow,twelve' },
    'no-baseline': { type: 'boolean', default: false },
  },
})

const sections: Readonly<Record<string, { readonly hosts: number; readonly measure: Measure }>> = {
  nodes: { hosts: 3, measure: measureNodes },
  leader: { hosts: 5, measure: measureLeaderLoss },
  kills: { hosts: 5, measure: measureKills },
  pauses: { hosts: 5, measure: measurePauses },
  grow: { hosts: 3, measure: measureGrowth },
  twelve: { hosts: 12, measure: measureTwelve },
}

function countOf(name: 'runs' | 'kills'): number {
  const count = Number(values[name])
  if (Number.isInteger(count) && count >= 1) return count
  console.error(`--${name} ${values[name]}: give a whole number of at least 1`)
  process.exit(2)
}

const wanted = values.only.split(',')
const unknown = wanted.filter((name) => !(name in sections))
if (unknown.length > 0) {
  console.error(`--only ${unknown.join(',')}: there are ${Object.keys(sections).join(', ')}`)
  process.exit(2)
}

const report = new Report('failover', values.json)
const runs = countOf('runs')
const kills = countOf('kills')
const image = 'whoami:v1'
const why = await whyNoLab()
if (why !== undefined) report.skip('every figure', why)
else {
  for (const name of wanted) {
    const section = sections[name]
    if (!section) continue
    const options: LabOptions = { hosts: section.hosts, daemons: true, images: [image] }
    const lab: Lab = await openLab(options)
    const bench: FailoverBench = {
      lab,
      report,
      image,
      runs,
      kills,
      hasBaseline: !values['no-baseline'],
    }
    try {
      await section.measure(bench)
    } finally {
      await lab.down()
    }
  }
}
