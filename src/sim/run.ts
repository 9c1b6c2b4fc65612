import { isJob, isStopWanted, isTerminal, type Workload } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { Chance } from './chance.ts'
import { addresses, addressesHaveNetworks } from './checkers/addresses.ts'
import { containers, stopsAfterTraffic } from './checkers/containers.ts'
import { ended } from './checkers/ended.ts'
import { forward } from './checkers/forward.ts'
import { placement } from './checkers/placement.ts'
import { reasons } from './checkers/reasons.ts'
import { rollout } from './checkers/rollout.ts'
import { secrets } from './checkers/secrets.ts'
import { SimulatedCluster } from './cluster.ts'
import { unconverged } from './convergence.ts'
import { Faults } from './faults.ts'
import { Followers } from './followers.ts'
import { History } from './history.ts'
import { Judge, type Violation } from './judge.ts'
import { lightenAborts } from './light-abort.ts'
import { People } from './people.ts'
import { behaviourOf } from './services.ts'
import { Trace } from './trace.ts'

export interface Outcome {
  readonly seed: number
  readonly violation: Violation | undefined
  /** Follows from everything that happened, in order. */
  readonly traceHash: string
  readonly simulatedMs: number
  readonly cpuMs: number
  readonly faults: Readonly<Record<string, number>>
  /** Those that were struck, without what the network did by itself. */
  readonly faultCount: number
  readonly operations: Readonly<Record<string, number>>
  readonly commits: number
  readonly calls: number
  readonly uncheckedHistories: number
  /** From the last heal to everything as declared, in simulated ms. */
  readonly convergedAfterMs: number
  readonly lastEvents: readonly string[]
}

export interface RunOptions {
  readonly print?: (line: string) => void
}

/** How long things go wrong, in simulated ms. */
const troubleMs = 512_000
/** They go on going wrong until so many things have. */
const faultsMin = 20
/** After the last fault heals the cluster has to be as declared within this, in simulated ms. */
const convergenceMsMax = 30_000
/** Restart delays that begin later after the last heal are a failure of their own, in simulated ms. */
const delayMsMax = 240_000
/** Monitor periods and restart delays may end after that; then nothing may be written any more. */
const settlingMs = 25_000
const settlingMsMax = 900_000
/** What is written tells that more may follow, within this, in simulated ms. */
const restMs = 10_000
const quietMs = 60_000
/** Once a revision has served for its monitor period, that is noted within this, in ms. */
const provingMs = 5_000
/** A clock that is ahead takes longer for a second, until time has caught up with it. */
const slowedAtMost = 1.2
const eventsShown = 50

lightenAborts()

/** Runs one cluster through one life that follows from the seed alone, and says how it went. */
export async function runSeed(seed: number, options: RunOptions = {}): Promise<Outcome> {
  const began = process.cpuUsage()
  const cluster = new SimulatedCluster(seed, Chance.of(seed, 'managers').oneIn(2) ? 3 : 1)
  const { time } = cluster
  const trace = new Trace(time, options.print)
  const judge = new Judge(cluster, trace)
  const history = new History()
  const faults = new Faults(cluster, trace)
  const people = new People(cluster, judge, history, trace)
  const followers = new Followers(cluster, judge, trace)
  cluster.trace = trace
  cluster.observer = judge
  const end = ended(cluster)
  judge.checkers.push(
    forward(),
    addresses(cluster),
    addressesHaveNetworks(),
    placement(judge.past),
    rollout(judge.past),
    containers(cluster),
    end.checker,
    secrets(),
    reasons(cluster),
    {
      name: 'history',
      change({ before, after }) {
        if (before?.kind !== 'workload' || after?.kind !== 'workload') return undefined
        const isByItself = (after.status.update?.message ?? '').startsWith('update rolled back')
        if (before.spec.revisionId !== after.spec.revisionId && isByItself)
          history.happened(`services/${after.name}`, {
            type: 'become',
            mark: after.labels['mark'] ?? '',
          })
        return undefined
      },
    },
  )
  cluster.beforeStart = (host, taskId) => {
    const what = end.wrongStart(host, taskId)
    if (what !== undefined) judge.fail(end.checker.name, what)
  }
  const wrongStop = stopsAfterTraffic(cluster, () => judge.view)
  cluster.beforeStop = (host, taskId) => {
    const what = wrongStop(host, taskId)
    if (what !== undefined) judge.fail('no traffic to a task that stops', what)
  }
  let isHealed = false
  const behaviourChance = Chance.of(seed, 'containers')
  cluster.behave = (assignment) => behaviourOf(behaviourChance, assignment, isHealed)
  cluster.isCalm = ({ task }) => isHealed && task.jobIteration === undefined

  const onCrash = (error: unknown): void => judge.crashed(error)
  process.on('uncaughtException', onCrash)
  process.on('unhandledRejection', onCrash)
  const startMs = time.nowMs
  const isOver = (): boolean => judge.violation !== undefined
  let convergedAfterMs = 0
  const settle = async (): Promise<void> => {
    people.isAsleep = true
    followers.isAsleep = true
    isHealed = true
    trace.say('everything heals')
    faults.healAll()
    for (const host of cluster.hosts) cluster.powerOn(host)
    const healedAtMs = time.nowMs
    let delayedUntilMs = 0
    let isTidy = false
    void people.tidyUp().then(() => {
      isTidy = true
    })
    for (let lag: string | undefined = ''; lag !== undefined; ) {
      await time.runUntil(time.nowMs + 500, isOver)
      if (isOver()) return
      lag = isTidy ? unconverged(cluster, judge.view) : 'people still tidy up'
      const sinceMs = time.nowMs - healedAtMs
      if (sinceMs < delayMsMax)
        delayedUntilMs = Math.max(delayedUntilMs, time.nowMs + delayLeftMs(judge, cluster))
      const patientUntilMs = Math.max(healedAtMs, delayedUntilMs) + patienceFor(judge)
      if (lag !== undefined && time.nowMs > patientUntilMs + convergenceMsMax)
        judge.fail('convergence', `${sinceMs / 1000} s after the last fault healed: ${lag}`)
    }
    convergedAfterMs = time.nowMs - healedAtMs
    trace.say(`as declared after ${convergedAfterMs} ms`)
    void followers.judgeAll()
    const restlessAtMs = time.nowMs + settlingMsMax
    // What waits out a restart delay is at rest until that ends.
    for (let untilMs = time.nowMs + settlingMs; time.nowMs < untilMs && !isOver(); ) {
      await time.runUntil(untilMs, isOver)
      untilMs = Math.max(untilMs, heldUntilMs(judge, cluster), judge.committedAtMs + restMs)
      if (time.nowMs > restlessAtMs)
        judge.fail('quiet', `it is still at work ${settlingMsMax / 60_000} min later`)
    }
    const { commitCount } = judge
    await time.runUntil(time.nowMs + quietMs, isOver)
    if (isOver()) return
    if (judge.commitCount > commitCount)
      judge.fail(
        'quiet',
        `${judge.commitCount - commitCount} commits were made although nothing happened`,
      )
    const last = unconverged(cluster, judge.view)
    if (last !== undefined) judge.fail('stability', `it was as declared, and is no more: ${last}`)
  }
  try {
    await begin(cluster, seed)
    const everySecond = (): void => {
      if (!cluster.isLed) cluster.ledSinceMs = time.nowMs
      judge.second()
      time.after(1_000, everySecond)
    }
    time.after(1_000, everySecond)
    for (const host of cluster.hosts)
      history.ended(`nodes/${host.nodeId}`, history.began(), { type: 'create', mark: '' }, true)
    for (let person = 1; person <= 2; person++) people.begin(person)
    followers.begin()
    faults.begin()
    await time.runUntil(time.nowMs + troubleMs, isOver)
    while (faults.count < faultsMin && !isOver()) await time.runUntil(time.nowMs + 1_000, isOver)

    if (!isOver()) await settle()
    if (people.leaked !== undefined)
      judge.fail('secrets are only where a task needs them', people.leaked)
  } catch (error) {
    judge.crashed(error)
  } finally {
    process.off('uncaughtException', onCrash)
    process.off('unhandledRejection', onCrash)
  }
  const verdict = history.judge()
  if (verdict.wrong !== undefined) judge.fail('linearizability', verdict.wrong)
  const { user, system } = process.cpuUsage(began)
  return {
    seed,
    violation: judge.violation,
    traceHash: trace.hash,
    simulatedMs: time.nowMs - startMs,
    cpuMs: (user + system) / 1000,
    faults: { ...Object.fromEntries(faults.counts), ...cluster.networkFaults() },
    faultCount: faults.count,
    operations: {
      ...Object.fromEntries(people.counts),
      'follow logs': followers.followedCount,
      'lines followed': followers.lineCount,
    },
    commits: judge.commitCount,
    calls: history.callCount,
    uncheckedHistories: verdict.unchecked,
    convergedAfterMs,
    lastEvents: trace.last(eventsShown),
  }
}

async function begin(cluster: SimulatedCluster, seed: number): Promise<void> {
  const { time } = cluster
  const chance = Chance.of(seed, 'cluster')
  await cluster.found()
  const count = chance.between(3, 6)
  for (let i = 0; i < count; i++) {
    const host = cluster.addHost({
      nanoCpus: chance.between(2, 4) * 1e9,
      memoryBytes: chance.between(2, 8) * 1024 ** 3,
      gpus: chance.below(3),
    })
    host.isFounder = true
    if (i === 0) {
      cluster.startDaemon(host)
      await time.runUntil(time.nowMs + 2_000)
    }
    const isManager = cluster.managerHosts.includes(host)
    const done = cluster.enrol(host, isManager ? 'manager' : 'worker')
    await time.runUntil(time.nowMs + 100)
    await done
    cluster.startDaemon(host)
  }
  await time.runUntil(time.nowMs + 3_000)
}

/** When what is still declared to come has ended and what follows from it is done, in true ms: delays of restarts, monitoring, jobs. */
function heldUntilMs({ view }: Judge, { time, leaderMs }: SimulatedCluster): number {
  let untilMs = 0
  for (const workload of view.list('workload')) {
    if (isAtWork(workload, view)) untilMs = time.nowMs + settlingMs
    const leftMs = (provenAtMs(workload, view) - leaderMs) * slowedAtMost
    if (leftMs > 0) untilMs = Math.max(untilMs, time.nowMs + leftMs + provingMs)
    // A task may have much longer to begin than a life lasts: only what ends while all should be quiet is waited for.
    for (const deadlineMs of deadlinesMs(workload, view)) {
      const endsInMs = deadlineMs - leaderMs
      if (endsInMs > 0 && endsInMs < settlingMs + quietMs * slowedAtMost)
        untilMs = Math.max(untilMs, time.nowMs + endsInMs * slowedAtMost + settlingMs)
    }
  }
  const delayMs = delayLeftMs({ view }, { leaderMs })
  return delayMs > 0 ? Math.max(untilMs, time.nowMs + delayMs + settlingMs) : untilMs
}

/** How long the longest restart delay still runs, in ms; 0: none does. */
function delayLeftMs(
  { view }: Pick<Judge, 'view'>,
  { leaderMs }: Pick<SimulatedCluster, 'leaderMs'>,
): number {
  let longestMs = 0
  for (const { startNotBeforeMs = 0, desiredState, status } of view.list('task')) {
    const isHeld = desiredState === 'ready' || status.state === 'rejected'
    if (isHeld) longestMs = Math.max(longestMs, (startNotBeforeMs - leaderMs) * slowedAtMost)
  }
  return longestMs
}

/** Whether a job has tasks that go on; one that fits nowhere waits for good. */
function isAtWork({ id, spec }: Workload, view: View): boolean {
  return (
    isJob(spec) &&
    view
      .tasksOfWorkload(id)
      .some(({ nodeId, status }) => nodeId !== undefined && !isTerminal(status.state))
  )
}

/** When a revision has served for its monitor period, which is noted once; 0: nothing is left to note. */
function provenAtMs({ id, spec }: Workload, view: View): number {
  if (view.get('revision', spec.revisionId)?.healthyAtMs !== undefined) return 0
  const monitorMs = Math.max(spec.update.monitorMs, spec.rollback.monitorMs)
  const readyAtMs = view.tasksOfWorkload(id).map(({ status }) => status.readyAtMs ?? 0)
  return Math.max(0, ...readyAtMs) + monitorMs
}

/** When tasks of an update under way have had the time they may take to begin: that one counts as failed then. */
function deadlinesMs({ id, spec, status: { update } }: Workload, view: View): readonly number[] {
  const isRollback = update?.state === 'rollbackStarted'
  if (!isRollback && update?.state !== 'updating') return []
  const { progressDeadlineMs } = isRollback ? spec.rollback : spec.update
  return view
    .tasksOfWorkload(id)
    .filter((task) => !isStopWanted(task) && task.status.readyAtMs === undefined)
    .map((task) => Math.max(task.createdAtMs, task.startNotBeforeMs ?? 0) + progressDeadlineMs)
}

/** What is declared still takes, once no restart is delayed any more: updates under way, jobs that run. */
function patienceFor(judge: Judge): number {
  let longest = 0
  for (const { id, spec, status } of judge.view.list('workload')) {
    const tasks = judge.view.tasksOfWorkload(id)
    let own = 0
    if (isJob(spec)) own += 60_000
    if (status.update) {
      const policy = status.update.state.startsWith('rollback') ? spec.rollback : spec.update
      const rounds = Math.ceil(tasks.length / Math.max(1, policy.parallelism || tasks.length))
      own += rounds * (policy.delayMs + policy.monitorMs + 14_000)
    }
    longest = Math.max(longest, own)
  }
  return longest
}
