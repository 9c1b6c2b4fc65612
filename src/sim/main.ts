/**
 * Runs seeds of the simulator behind `./dev sim`: in worker processes, or one seed here with its trace. Says what was
 * found, how often what was tried, and how fast. Exit status 1: a seed failed.
 */
import { fork } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { plantedFaults } from './planted.ts'
import { type Outcome, runSeed } from './run.ts'

interface Wish {
  readonly from: number
  readonly seeds: number
  readonly minutes: number
  readonly workers: number
  /** A fault to plant into the code. */
  readonly planted?: string
}

const workerFile = resolve(import.meta.dirname, 'seed-worker.ts')
/** Within so many seeds a planted fault has to be found. */
const plantedSeedsMax = 2_000

const usage = `./dev sim [--seeds N] [--from N] [--minutes M] [--workers N]   run N seeds (1000), from one on (1), for M minutes at most
./dev sim --fresh [--seeds N]                                seeds that nobody has seen: from a number drawn at random on
./dev sim --seed N [--trace]                                 run one seed again, with everything that happened in words
./dev sim --planted [NAME]                                   plant faults into the code, one by one, and find each`

const failuresShown = 3
/** After this a seed counts as one that does not end: it takes some seconds. */
const seedMsMax = 120_000
/** Where runs of fresh seeds begin: above all that are tried by hand. */
const freshMin = 1_000_000
const freshMax = 2 ** 31
const flags = {
  seeds: { type: 'string', default: '1000' },
  from: { type: 'string', default: '1' },
  seed: { type: 'string' },
  minutes: { type: 'string', default: '0' },
  workers: { type: 'string', default: '2' },
  trace: { type: 'boolean', default: false },
  fresh: { type: 'boolean', default: false },
  planted: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const

function whole(text: string, name: string): number {
  const number = Number(text)
  if (Number.isInteger(number) && number >= 0) return number
  throw new Error(`--${name} takes a whole number, not "${text}"`)
}

async function one(seed: number, isTraced: boolean): Promise<number> {
  const outcome = await runSeed(seed, isTraced ? { print: (line) => console.log(line) } : {})
  if (outcome.violation) report(outcome, !isTraced)
  else
    console.log(
      `seed ${seed}: nothing broke (${outcome.commits} commits, trace ${outcome.traceHash})`,
    )
  return outcome.violation ? 1 : 0
}

function report({ seed, violation, lastEvents }: Outcome, withEvents: boolean): void {
  if (!violation) return
  console.log(`\nseed ${seed} broke "${violation.checker}": ${violation.what}`)
  if (withEvents) console.log(lastEvents.map((line) => `  ${line}`).join('\n'))
  console.log(`replay it: ./dev sim --seed ${seed} --trace`)
}

/** Adds the counts of one run to those of all. */
function add(to: Map<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(counts)) to.set(name, (to.get(name) ?? 0) + count)
}

function listOf(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ')
}

interface Summary {
  readonly outcomes: number
  readonly failures: readonly Outcome[]
  readonly tookMs: number
}

/** Runs seeds in worker processes. `onFailure` returns whether to go on. At Ctrl-C the lives under way come to their end, and are summed up. */
async function many(
  wish: Wish,
  onFailure: (outcome: Outcome) => boolean,
  isSilent = false,
): Promise<Summary> {
  const startedMs = performance.now()
  const faults = new Map<string, number>()
  const operations = new Map<string, number>()
  const failures: Outcome[] = []
  let [next, done, simulatedMs, cpuMs, commits, calls, unchecked, slowestMs] = [
    wish.from,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ]
  let [fewestFaults, shortestMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  let goesOn = true
  const stop = (): void => {
    goesOn = false
  }
  if (!isSilent) process.once('SIGINT', stop).once('SIGTERM', stop)
  const hasNext = (): boolean =>
    goesOn &&
    next < wish.from + wish.seeds &&
    (wish.minutes === 0 || performance.now() - startedMs < wish.minutes * 60_000)
  await Promise.all(
    Array.from({ length: Math.min(wish.workers, wish.seeds) }, () => {
      const worker = fork(workerFile, wish.planted === undefined ? [] : [wish.planted])
      return new Promise<void>((resolve, reject) => {
        let hangs: NodeJS.Timeout | undefined
        const give = (): void => {
          clearTimeout(hangs)
          if (hasNext()) {
            const seed = next++
            hangs = setTimeout(() => {
              worker.kill('SIGKILL')
              reject(new Error(`seed ${seed} has not ended after ${seedMsMax / 60_000} minutes`))
            }, seedMsMax)
            worker.send(seed)
          } else {
            worker.disconnect()
            resolve()
          }
        }
        worker.on('error', reject)
        worker.on('exit', (code) => {
          if (code !== 0) reject(new Error(`a worker ended with ${code} near seed ${next - 1}`))
        })
        worker.on('message', (outcome: Outcome) => {
          done += 1
          simulatedMs += outcome.simulatedMs
          cpuMs += outcome.cpuMs
          commits += outcome.commits
          calls += outcome.calls
          unchecked += outcome.uncheckedHistories
          slowestMs = Math.max(slowestMs, outcome.convergedAfterMs)
          if (!outcome.violation) {
            fewestFaults = Math.min(fewestFaults, outcome.faultCount)
            shortestMs = Math.min(shortestMs, outcome.simulatedMs)
          }
          add(faults, outcome.faults)
          add(operations, outcome.operations)
          if (outcome.violation) {
            failures.push(outcome)
            if (goesOn) goesOn = onFailure(outcome)
          }
          give()
        })
        give()
      })
    }),
  )
  process.off('SIGINT', stop).off('SIGTERM', stop)
  const tookMs = performance.now() - startedMs
  if (isSilent) return { outcomes: done, failures, tookMs }
  console.log(`\nfaults: ${listOf(faults)}`)
  console.log(`people: ${listOf(operations)}`)
  console.log(
    `${done} seeds in ${(tookMs / 1000).toFixed(1)} s: ${(done / (tookMs / 1000)).toFixed(2)} seeds/s, ` +
      `${(cpuMs / 1000 / Math.max(1, done)).toFixed(2)} CPU s a seed; ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours, ` +
      `${commits} commits, ${calls} recorded calls (${unchecked} histories not checked to the end), ` +
      `at least ${fewestFaults} faults and ${(shortestMs / 60_000).toFixed(1)} simulated minutes a seed, slowest convergence ${slowestMs / 1000} s`,
  )
  console.log(
    failures.length === 0
      ? 'nothing broke'
      : `${failures.length} seeds failed: ${failures.map(({ seed }) => seed).join(', ')}`,
  )
  return { outcomes: done, failures, tookMs }
}

/** Whether nothing breaks in a life without any fault in the code. */
async function isFine(seed: number): Promise<boolean> {
  const { failures } = await many(
    { from: seed, seeds: 1, minutes: 0, workers: 1 },
    () => false,
    true,
  )
  return failures.length === 0
}

/** Plants one fault after the other, and runs seeds until one of them finds it. */
async function findPlanted(
  names: readonly string[],
  from: number,
  workers: number,
): Promise<number> {
  let missed = 0
  const wanted = plantedFaults.filter(({ name }) => names.length === 0 || names.includes(name))
  for (const { name, what } of wanted) {
    const startedMs = performance.now()
    let tried = 0
    let found: Outcome | undefined
    while (!found && tried < plantedSeedsMax) {
      const wish = { from: from + tried, seeds: plantedSeedsMax - tried, minutes: 0, workers }
      const { outcomes, failures } = await many({ ...wish, planted: name }, () => false, true)
      tried += outcomes
      const [first] = failures
      // Only what does not happen without the fault tells of it.
      if (first && (await isFine(first.seed))) found = first
    }
    if (!found) missed += 1
    const verdict = found
      ? `found after ${tried} ${tried === 1 ? 'seed' : 'seeds'} (seed ${found.seed}) by "${found.violation?.checker}"`
      : `NOT FOUND in ${tried} seeds`
    const tookMs = performance.now() - startedMs
    console.log(`${name}: ${what}: ${verdict}, ${(tookMs / 1000).toFixed(1)} s`)
  }
  console.log(
    missed === 0 ? `all ${wanted.length} planted faults were found` : `${missed} were not found`,
  )
  return missed === 0 ? 0 : 1
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ options: flags, allowPositionals: true })
  if (values.help) {
    console.log(usage)
    return 0
  }
  const workers = whole(values.workers, 'workers')
  if (values.planted) return findPlanted(positionals, whole(values.from, 'from'), workers)
  if (positionals.length > 0) throw new Error(`what is "${positionals.join(' ')}"?\n${usage}`)
  if (values.seed !== undefined) return one(whole(values.seed, 'seed'), values.trace)
  const from = values.fresh ? randomInt(freshMin, freshMax) : whole(values.from, 'from')
  const seeds = whole(values.seeds, 'seeds')
  console.log(`seeds ${from} to ${from + seeds - 1}`)
  let shown = 0
  const { failures } = await many(
    {
      from,
      seeds,
      minutes: Number(values.minutes),
      workers,
    },
    (outcome) => {
      if (shown++ < failuresShown) report(outcome, true)
      return true
    },
  )
  return failures.length > 0 ? 1 : 0
}

main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error)
    process.exit(2)
  },
)
