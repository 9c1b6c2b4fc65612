import type { Lab } from '../../test/lab/open-lab.ts'
import { type Contender, LabCluster } from './lab-cluster.ts'
import { median, type Report } from './rows.ts'

/** What each part of the benchmark is given: a lab of its own, and how often to measure. */
export interface FailoverBench {
  readonly lab: Lab
  readonly report: Report
  readonly image: string
  readonly runs: number
  readonly kills: number
  readonly hasBaseline: boolean
}

export type Measure = (bench: FailoverBench) => Promise<void>

/** Milliseconds of each run by figure, in the order in which they are to be told. */
export type Samples = ReadonlyMap<string, readonly number[]>

export class Sampler {
  readonly #byFigure = new Map<string, number[]>()

  add(figure: string, ms: number): void {
    const known = this.#byFigure.get(figure)
    if (known) known.push(ms)
    else this.#byFigure.set(figure, [ms])
    // On the way, for who watches.
    console.error(`  ${figure} ${Math.round(ms)}`)
  }

  get samples(): Samples {
    return this.#byFigure
  }
}

/** Measures Skep, and then Swarm on the same hosts, and tells the medians. */
export async function compare(
  { lab, report, hasBaseline }: FailoverBench,
  measure: (cluster: LabCluster) => Promise<Samples>,
): Promise<void> {
  const of = async (contender: Contender): Promise<Samples> => {
    const cluster = new LabCluster(lab, contender)
    try {
      return await measure(cluster)
    } finally {
      await cluster.end()
    }
  }
  const samples = await of('skep')
  let baseline: Samples | undefined
  if (hasBaseline) {
    // Nothing of Skep may be at work beside it.
    await Promise.all(lab.hosts.map((host) => host.stopDaemon()))
    try {
      baseline = await of('swarm')
    } catch (error) {
      report.skip('baseline', error instanceof Error ? error.message : String(error))
    }
  }
  for (const [figure, values] of samples) {
    const other = baseline?.get(figure)
    report.add(figure, 'ms', median(values), other && median(other))
  }
}
