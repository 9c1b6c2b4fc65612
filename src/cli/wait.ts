import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf, UserError } from '../base/index.ts'
import { parseDurationNs } from '../compose/index.ts'
import type { ApiService, ApiTask, Explanation } from './api.ts'
import { type Client, filtersQuery } from './client.ts'
import { Exit } from './command.ts'
import type { Io } from './io.ts'
import { formatDurationNs } from './output.ts'

/** Pause between looks when no event comes, ms: tasks on other nodes and restart delays send none here. */
const lookPauseMs = 1000
/** Shortest pause between looks, ms, however many events come. */
const lookPauseMinMs = 150
/** How long a global service may have no task before it counts as wanted nowhere, ms. */
const noTaskGraceMs = 3000

export interface Progress {
  readonly running: number
  readonly wanted: number
  /** Whether all is as declared, but for the time it has to stay so. */
  readonly isThere: boolean
  /** Why it will not get there by itself. */
  readonly failed?: string
  readonly note?: string
}

/**
 * How far a service is. Pure. `stale` is the update status of before the change: it tells nothing of this one. `isRollback` says
 * that a finished rollback is what was asked for. `waitedMs` is the time since the change.
 */
export function progressOf(
  service: ApiService,
  tasks: readonly ApiTask[],
  {
    stale,
    isRollback,
    waitedMs,
  }: {
    readonly stale: string | undefined
    readonly isRollback: boolean
    readonly waitedMs: number
  },
): Progress {
  const { Mode } = service.Spec
  const update = service.UpdateStatus
  const isStale = JSON.stringify(update) === stale
  const current = tasks.filter((task) => task.ServiceID === service.ID)
  const note = noteOf(current)
  if (Mode.ReplicatedJob || Mode.GlobalJob) {
    const iteration = service.JobStatus?.JobIteration.Index ?? 0
    const ofJob = current.filter((task) => (task.JobIteration?.Index ?? 0) === iteration)
    const done = ofJob.filter(({ Status }) => Status.State === 'complete').length
    const wanted = Mode.ReplicatedJob
      ? (Mode.ReplicatedJob.TotalCompletions ?? Mode.ReplicatedJob.MaxConcurrent ?? 1)
      : new Set(ofJob.map(({ NodeID }) => NodeID)).size
    const isThere = done >= wanted && (wanted > 0 || waitedMs > noTaskGraceMs)
    return { running: done, wanted, isThere, ...(note && { note }) }
  }
  const running = new Set(
    current
      .filter(
        ({ Status, DesiredState }) => Status.State === 'running' && DesiredState === 'running',
      )
      .map(({ Slot, NodeID, ID }) => Slot ?? NodeID ?? ID),
  ).size
  const wanted = Mode.Replicated
    ? (Mode.Replicated.Replicas ?? 1)
    : Math.max(
        service.ServiceStatus?.DesiredTasks ?? 0,
        new Set(
          current
            .filter(({ DesiredState }) => DesiredState === 'running')
            .map(({ NodeID }) => NodeID),
        ).size,
      )
  const state = isStale ? undefined : update?.State
  const base = { running, wanted, ...(note && { note }) }
  if (state === 'paused' || state === 'rollback_paused') {
    return { ...base, isThere: false, failed: update?.Message ?? `the update is ${state}` }
  }
  if (state === 'rollback_completed' && !isRollback) {
    return { ...base, isThere: false, failed: 'the update failed and was rolled back' }
  }
  const isMoving = state === 'updating' || state === 'rollback_started'
  const total = service.ServiceStatus?.RunningTasks ?? running
  const isThere =
    !isMoving &&
    running === wanted &&
    total <= wanted &&
    (wanted > 0 || Boolean(Mode.Replicated) || waitedMs > noTaskGraceMs)
  return { ...base, isThere }
}

/** What holds up the newest task that does not run. */
function noteOf(tasks: readonly ApiTask[]): string | undefined {
  const waiting = tasks
    .filter(({ Status }) => Status.Err && Status.State !== 'running' && Status.State !== 'complete')
    .sort((a, b) => (a.Status.Timestamp < b.Status.Timestamp ? 1 : -1))
  return waiting[0]?.Status.Err
}

export interface WaitFlags {
  readonly wait?: boolean
  readonly timeout?: string
}

export interface WaitOptions {
  readonly timeoutMs: number
  readonly quiet?: boolean
  readonly isRollback?: boolean
  /** Update statuses of before the change, as JSON, by service id. */
  readonly staleById?: ReadonlyMap<string, string | undefined>
}

/** Reads `--timeout`, 5 minutes without one. */
export function timeoutMsOf({ timeout = '5m' }: WaitFlags): number {
  const ms = parseDurationNs(timeout) / 1e6
  if (ms > 0) return ms
  throw new UserError('invalidInput', `--timeout ${timeout} leaves no time`, {
    next: 'Write it as 90s or 5m.',
  })
}

/** Waits until the services are as declared and stay so for their monitor time. Failure is told on stderr and thrown as `Exit` 1. */
export async function waitForServices(
  client: Client,
  io: Io,
  ids: readonly string[],
  options: WaitOptions,
): Promise<void> {
  const startedMs = io.nowMs()
  const thereSinceMs = new Map<string, number>()
  const lines = new ProgressLines(io, options.quiet ?? false)
  await using wakeUps = openWakeUps(client, io.signal)
  for (;;) {
    io.signal.throwIfAborted()
    const nowMs = io.nowMs()
    const query = filtersQuery({ id: ids })
    const [services, tasks] = await Promise.all([
      client.call<ApiService[]>('/services', {
        query: { ...query, status: true },
        signal: io.signal,
      }),
      tasksOf(client, ids, io.signal),
    ])
    const shown: string[] = []
    const failures: { readonly service: ApiService; readonly why: string }[] = []
    let waiting = 0
    for (const id of ids) {
      const service = services.find(({ ID }) => ID === id)
      if (service === undefined) {
        throw new UserError('notFound', `the service ${id} was removed while it was waited for`)
      }
      const progress = progressOf(service, tasks, {
        stale: options.staleById?.get(id),
        isRollback: options.isRollback ?? false,
        waitedMs: nowMs - startedMs,
      })
      if (!progress.isThere) thereSinceMs.delete(id)
      else if (!thereSinceMs.has(id)) thereSinceMs.set(id, nowMs)
      const settledMs = nowMs - (thereSinceMs.get(id) ?? nowMs)
      const isSettled = progress.isThere && settledMs >= settleMsOf(service)
      if (progress.failed !== undefined) failures.push({ service, why: progress.failed })
      else if (!isSettled) waiting++
      shown.push(progressLine(service, progress, isSettled, lines.isLive))
    }
    lines.show(shown)
    if (waiting === 0 || failures.length > 0) {
      lines.end()
      if (failures.length === 0) return
      for (const { service, why } of failures) {
        io.stderr.write(`skep: service ${service.Spec.Name}: ${why}\n`)
        await tellLastError(client, io, service, startedMs)
        await tellReasons(client, io, service)
      }
      throw new Exit(1)
    }
    if (nowMs - startedMs >= options.timeoutMs) {
      lines.end()
      const late = services.filter(({ ID }) => !thereSinceMs.has(ID))
      const names = late.map(({ Spec }) => Spec.Name).join(', ') || 'the tasks did not stay up'
      io.stderr.write(
        `skep: not as declared after ${formatDurationNs(options.timeoutMs * 1e6)}: ${names}\n`,
      )
      for (const service of late) await tellReasons(client, io, service)
      throw new Exit(1)
    }
    await wakeUps.next(Math.min(lookPauseMs, startedMs + options.timeoutMs - nowMs))
  }
}

/** Jobs are over when they are over; the others have to stay up for their monitor time, 5 s as docker's. */
function settleMsOf({ Spec }: ApiService): number {
  if (Spec.Mode.ReplicatedJob || Spec.Mode.GlobalJob) return 0
  return (Spec.UpdateConfig?.Monitor ?? 5e9) / 1e6
}

async function tasksOf(
  client: Client,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<ApiTask[]> {
  return await client.call<ApiTask[]>('/tasks', {
    query: filtersQuery({ service: ids, '_up-to-date': ['true'] }),
    signal,
  })
}

/** After a rollback the task that failed is history: its error is the one to know. */
async function tellLastError(
  client: Client,
  io: Io,
  { ID }: ApiService,
  sinceMs: number,
): Promise<void> {
  const tasks = await client.call<ApiTask[]>('/tasks', { query: filtersQuery({ service: [ID] }) })
  // A second of slack: the daemon's clock may be another machine's.
  const recent = tasks.filter(({ Status }) => Date.parse(Status.Timestamp) >= sinceMs - 1000)
  const error = noteOf(recent)
  if (error !== undefined) io.stderr.write(`The last task to fail said: ${error}\n`)
}

async function tellReasons(client: Client, io: Io, { ID, Spec }: ApiService): Promise<void> {
  try {
    const { summary, reasons } = await client.call<Explanation>(`/skep/v1/explain/${ID}`)
    io.stderr.write([summary, ...reasons.map((reason) => `  - ${reason}`)].join('\n').concat('\n'))
  } catch (error) {
    // A daemon that is not ours explains nothing; what happened is told already.
    io.stderr.write(`See why with: skep service ps --no-trunc ${Spec.Name} (${messageOf(error)})\n`)
  }
}

/** Waits until no task of the removed services is left, or all have ended. */
export async function waitForRemoval(
  client: Client,
  io: Io,
  ids: readonly string[],
  { timeoutMs }: WaitOptions,
): Promise<void> {
  const startedMs = io.nowMs()
  await using wakeUps = openWakeUps(client, io.signal)
  for (;;) {
    io.signal.throwIfAborted()
    const tasks = await client.call<ApiTask[]>('/tasks', { signal: io.signal })
    const left = tasks.filter(
      ({ ServiceID = '', Status }) => ids.includes(ServiceID) && !endStates.includes(Status.State),
    )
    if (left.length === 0) return
    if (io.nowMs() - startedMs >= timeoutMs) {
      throw new UserError(
        'unavailable',
        `${left.length} tasks are still ending after ${formatDurationNs(timeoutMs * 1e6)}`,
        { next: 'They end when their grace period is over; wait longer with --timeout.' },
      )
    }
    await wakeUps.next(lookPauseMs)
  }
}

const endStates = ['complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned']

const barWidth = 20

/** `web  [=====>    ] 3/5 running  no suitable node`. */
export function progressLine(
  { Spec }: ApiService,
  { running, wanted, isThere, failed, note }: Progress,
  isSettled: boolean,
  withBar: boolean,
): string {
  const isJob = Boolean(Spec.Mode.ReplicatedJob ?? Spec.Mode.GlobalJob)
  const filled =
    wanted === 0 ? barWidth : Math.round((Math.min(running, wanted) / wanted) * barWidth)
  const bar = `[${'='.repeat(filled)}${filled < barWidth ? '>' : ''}${' '.repeat(Math.max(0, barWidth - filled - 1))}] `
  const state = failed ?? (isSettled ? 'done' : isThere ? 'there, watching that it stays' : note)
  const word = isJob ? 'complete' : 'running'
  return `${Spec.Name}: ${withBar ? bar : ''}${running}/${wanted} ${word}${state ? `, ${state}` : ''}`
}

/** Progress on stderr: redrawn in place on a terminal, else a line for each change. */
export class ProgressLines {
  readonly isLive: boolean
  readonly #io: Io
  readonly #quiet: boolean
  #shown: readonly string[] = []

  constructor(io: Io, quiet: boolean) {
    this.#io = io
    this.#quiet = quiet
    this.isLive = io.stderr.isTTY === true
  }

  show(lines: readonly string[]): void {
    if (this.#quiet) return
    if (this.isLive) {
      const width = Math.max(20, (this.#io.stdout.columns || 80) - 1)
      const up = this.#shown.length > 0 ? `\x1b[${this.#shown.length}A` : ''
      this.#io.stderr.write(
        `${up}${lines.map((line) => `\r\x1b[2K${line.slice(0, width)}\n`).join('')}`,
      )
    } else {
      for (const line of lines) if (!this.#shown.includes(line)) this.#io.stderr.write(`${line}\n`)
    }
    this.#shown = lines
  }

  end(): void {
    this.#shown = []
  }
}

interface WakeUps extends AsyncDisposable {
  /** Resolves at the next event, or after `ms`. */
  next(ms: number): Promise<void>
}

/** Listens to the daemon's events. They only say when to look again: losing them costs time, not truth. */
export function openWakeUps(client: Client, signal: AbortSignal): WakeUps {
  const closed = new AbortController()
  const both = AbortSignal.any([signal, closed.signal])
  let woken = false
  let wake = () => {}
  const listening = (async () => {
    const events = await client.open('/events', {
      query: filtersQuery({ type: ['service', 'container', 'node'] }),
      signal: both,
    })
    for await (const _ of events) {
      woken = true
      wake()
    }
  })().catch(() => {})
  return {
    async next(ms) {
      await sleep(Math.min(ms, lookPauseMinMs), undefined, { signal }).catch(() => {})
      if (!woken) {
        const timer = new AbortController()
        const event = new Promise<void>((resolve) => {
          wake = resolve
        })
        await Promise.race([
          event,
          sleep(Math.max(0, ms - lookPauseMinMs), undefined, {
            signal: AbortSignal.any([signal, timer.signal]),
          }).catch(() => {}),
        ])
        timer.abort()
      }
      woken = false
    },
    async [Symbol.asyncDispose]() {
      closed.abort()
      await listening
    },
  }
}
