import { FrameReader } from '../engine/index.ts'
import type { TaskId } from '../model/index.ts'
import { Chance } from './chance.ts'
import { FollowedLogs, type WrittenBy } from './checkers/followed-logs.ts'
import type { Daemon, SimulatedCluster } from './cluster.ts'
import type { Judge } from './judge.ts'
import type { Trace } from './trace.ts'

/** Logs that are followed at once. */
const openMax = 3
/** The last change of a service may not have come to every manager yet, in ms. */
const newsMs = 30_000
/** In which each line that was written before has to have come, once everything is in reach, in ms. */
const arrivesMs = 10_000

/** One `service logs --follow` that has not ended. */
interface Open {
  readonly logs: FollowedLogs
  readonly daemon: Daemon
  readonly hangUp: () => void
}

/** People who follow logs of services: some for a while, some to the end of the life. */
export class Followers {
  /** Lines that came. */
  lineCount = 0
  followedCount = 0
  isAsleep = false
  readonly #cluster: SimulatedCluster
  readonly #judge: Judge
  readonly #trace: Trace
  readonly #open = new Set<Open>()

  constructor(cluster: SimulatedCluster, judge: Judge, trace: Trace) {
    this.#cluster = cluster
    this.#judge = judge
    this.#trace = trace
  }

  begin(): void {
    void this.#live(Chance.of(this.#cluster.seed, 'followers'))
  }

  /** Everything has been in reach for a while, and goes on so: what was written must come. */
  async judgeAll(): Promise<void> {
    const before = new Map<TaskId, ReturnType<WrittenBy>>()
    for (const { engine } of this.#cluster.hosts)
      for (const taskId of engine.knownTasks()) before.set(taskId, this.#writtenBy(taskId))
    await this.#sleep(arrivesMs)
    for (const { logs, hangUp } of [...this.#open]) {
      const what = logs.missing(this.#judge.view, (taskId) => before.get(taskId) ?? [])
      if (what !== undefined) this.#fail(logs, what)
      hangUp()
    }
  }

  async #live(chance: Chance): Promise<void> {
    while (!this.isAsleep) {
      await this.#sleep(chance.between(2_000, 40_000))
      const workload = chance.pick([...this.#judge.view.list('workload')])
      const daemon = chance.pick(this.#cluster.managers())
      const forMs = chance.oneIn(3) ? Number.POSITIVE_INFINITY : chance.between(5_000, 120_000)
      if (this.isAsleep || !workload || !daemon || this.#open.size >= openMax) continue
      this.#follow(workload.name, daemon, forMs)
    }
  }

  #follow(service: string, daemon: Daemon, forMs: number): void {
    const api = daemon.manager?.api
    if (!api) return
    const { process } = daemon
    const logs = new FollowedLogs(service, (taskId) => this.#writtenBy(taskId))
    const reader = new FrameReader()
    const url = `/v1.41/services/${service}/logs?stdout=1&stderr=1&follow=1&details=1`
    this.#trace.say(`follower: ${service} on ${process.name}`)
    let open: Open | undefined
    let isOver = false
    let lineCount = 0
    const over = (why: string): void => {
      if (isOver) return
      isOver = true
      if (open) this.#open.delete(open)
      this.#trace.say(`follower: ${service} on ${process.name} after ${lineCount} lines: ${why}`)
    }
    const heard = (bytes: Buffer): void => {
      if (isOver) return
      for (const { data } of reader.push(bytes)) {
        lineCount += 1
        this.lineCount += 1
        const what = logs.heard(data.toString())
        if (what !== undefined) this.#fail(logs, what)
      }
    }
    const ended = (): void => {
      if (isOver) return
      over('it ended')
      const { view } = this.#judge
      const workload = [...view.list('workload')].find(({ name }) => name === service)
      const isNews = workload && this.#cluster.leaderMs - workload.updatedAtMs < newsMs
      const what = isNews ? undefined : logs.goesOn(view)
      if (what !== undefined) this.#fail(logs, what)
    }
    process.onKilled(() => over('its manager ended'))
    process.post(() => {
      void process.gate(api.stream({ method: 'GET', url }, { heard, ended })).then(
        ({ status, hangUp }) => {
          if (status !== 200) over(`it was refused with ${status}`)
          if (isOver) return
          this.followedCount += 1
          open = {
            logs,
            daemon,
            hangUp: () => {
              over('hung up')
              process.post(hangUp)
            },
          }
          this.#open.add(open)
          if (forMs !== Number.POSITIVE_INFINITY) this.#cluster.time.after(forMs, open.hangUp)
        },
        () => over('it failed'),
      )
    })
  }

  /** Of the machine that the task is on: it changes it never. */
  #writtenBy(taskId: TaskId): ReturnType<WrittenBy> {
    for (const { engine } of this.#cluster.hosts) {
      const written = engine.written(taskId)
      if (written.length > 0)
        return written.map((lines) => lines.map(({ data }) => Buffer.from(data).toString()))
    }
    return []
  }

  #fail(logs: FollowedLogs, what: string): void {
    this.#judge.fail('followed logs are whole', `logs of ${logs.service}: ${what}`)
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#cluster.time.after(ms, resolve))
  }
}
