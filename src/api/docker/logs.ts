import type { ServerResponse } from 'node:http'
import { type Clock, messageOf, Semaphore, UserError, WakeUp } from '../../base/index.ts'
import {
  idFrom,
  isJob,
  isTerminal,
  rankOf,
  type Task,
  type TaskId,
  type Workload,
  type WorkloadId,
} from '../../model/index.ts'
import type { Store, View } from '../../store/store.ts'
import type { LogLine, LogOptions } from '../../wire/index.ts'
import type { Answer, Call } from './call.ts'
import { type ApiContext, commonHeaders } from './context.ts'
import { minorOf } from './downgrade.ts'
import { DockerError } from './errors.ts'

/** Tasks whose logs one `--follow` can follow. */
const followedTasksMax = 1_000
/** Tasks whose logs are read at once when nothing is followed. */
const readersMax = 16

interface Wish extends LogOptions {
  readonly timestamps: boolean
  readonly details: boolean
}

/** Streams the logs of tasks to the client, all of them into one another. `tasksNow` is asked again after changes. */
export async function streamLogs(
  api: ApiContext,
  call: Call,
  store: Store,
  workload: Workload | undefined,
  tasksNow: (view: View) => readonly Task[],
): Promise<Answer> {
  const wish = readWish(call)
  const first = tasksNow(store.view)
  if (wish.follow && first.filter(hasLogs).length > followedTasksMax) {
    throw new UserError(
      'tooLarge',
      `the service has more than ${followedTasksMax} tasks to follow`,
      {
        next: 'Follow one task with `docker service logs --follow <task>`.',
      },
    )
  }
  const isTty = isTtyOf(store.view, workload, first)
  const identity = await api.identity()
  const { response, signal } = call.stream()
  response.writeHead(200, {
    ...commonHeaders(identity),
    'Content-Type':
      isTty || minorOf(call.version) < 42
        ? 'application/vnd.docker.raw-stream'
        : 'application/vnd.docker.multiplexed-stream',
  })
  response.flushHeaders()
  const write = (task: Task, line: LogLine) =>
    writeLine(response, task, line, { ...wish, isTty }, signal)
  const missing = new Set<string>()
  const read = async (task: Task) => {
    const place = new LogPlace()
    const changed = new WakeUp()
    const stop = store.subscribe(({ changes }) => {
      if (changes.some(({ id }) => id === task.id)) changed.ring()
    })
    try {
      while (!signal.aborted) {
        // An engine ends the log of a container that does not run yet, or not any more; it may be started again.
        const isLast = !wish.follow || hasEnded(store.view, task.id)
        const result = await readOnce(task, place)
        if (result === 'failed' || (result === 'whole' && isLast)) return
        if (result === 'whole') await changed.wait(api.clock, signal)
        else if (!(await nodeIsBack(api.clock, store, task.id, signal))) return
      }
    } finally {
      stop()
    }
  }
  /** `broken`: the node can't be reached, and the rest comes when it is back. */
  const readOnce = async (task: Task, place: LogPlace): Promise<'whole' | 'broken' | 'failed'> => {
    try {
      for await (const line of api.logs.logs(task.id, place.wish(wish), signal)) {
        if (place.isNews(line)) await write(task, line)
      }
      return 'whole'
    } catch (error) {
      if (signal.aborted) return 'failed'
      api.log.debug('logs of a task could not be read', { taskId: task.id, error: String(error) })
      const node = task.nodeId && store.view.get('node', task.nodeId)
      const isAway = error instanceof UserError && error.code === 'unavailable'
      const name = node ? node.name : task.nodeId
      const why = isAway ? `node ${name} is not available` : `node ${name}: ${messageOf(error)}`
      missing.add(why)
      if (wish.follow) await write(task, warningLine(task, why, api.clock.nowMs()))
      return wish.follow && isAway ? 'broken' : 'failed'
    }
  }
  try {
    if (wish.follow) await follow(store, workload?.id, tasksNow, read, signal)
    else {
      const readers = new Semaphore(readersMax)
      await Promise.all(first.filter(hasLogs).map((task) => readers.run(() => read(task))))
      if (missing.size > 0) writeEnd(response, incomplete([...missing]), isTty)
    }
  } finally {
    response.end()
  }
  return { type: 'streamed' }
}

/** Between a break and the next attempt, at least, in ms. */
const resumeMs = 1_000

/** Waits until the task's node is ready again. False: its logs will not come any more, or the client has gone. */
async function nodeIsBack(
  clock: Clock,
  store: Store,
  taskId: TaskId,
  signal: AbortSignal,
): Promise<boolean> {
  const changed = new WakeUp()
  const stop = store.subscribe(({ changes }) => {
    if (changes.some(({ kind, id }) => kind === 'node' || id === taskId)) changed.ring()
  })
  try {
    await clock.sleep(resumeMs, signal)
    while (!signal.aborted) {
      const task = store.view.get('task', taskId)
      const node = task?.nodeId === undefined ? undefined : store.view.get('node', task.nodeId)
      if (!task || !node || task.status.state === 'orphaned') return false
      if (node.status.state === 'ready') return true
      await changed.wait(clock, signal)
    }
    return false
  } finally {
    stop()
  }
}

/** How far a task's log has been told, so that it goes on there. */
class LogPlace {
  /** The newest line's, as digits that can be compared; empty before the first line. */
  #at = ''
  /** Lines that have been told of that time. */
  #told = 0
  /** Lines of that time that came again; undefined while nothing comes again. */
  #again: number | undefined

  /** What to ask for: all from the newest line on. */
  wish(wish: LogOptions): LogOptions {
    if (this.#at === '') return wish
    this.#again = 0
    return { ...wish, tail: 'all', sinceMs: Math.floor(Date.parse(this.#at)) }
  }

  isNews({ timestamp }: LogLine): boolean {
    const at = comparable(timestamp)
    if (this.#again !== undefined) {
      if (at < this.#at) return false
      if (at === this.#at && ++this.#again <= this.#told) return false
      if (at > this.#at) this.#again = undefined
    }
    if (at > this.#at) {
      this.#at = at
      this.#told = 1
    } else if (at === this.#at) this.#told += 1
    return true
  }
}

/** RFC 3339 in UTC with all nine digits, which engines leave out where they are zeros. */
function comparable(timestamp: string): string {
  const match = /^([^.Z]*)(?:\.(\d*))?Z$/.exec(timestamp)
  return match ? `${match[1]}.${(match[2] ?? '').padEnd(9, '0')}Z` : timestamp
}

/** Reads each task's logs once it has some, those of tasks that come later too, until the client goes. */
async function follow(
  store: Store,
  workloadId: WorkloadId | undefined,
  tasksNow: (view: View) => readonly Task[],
  read: (task: Task) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const begun = new Set<TaskId>()
  const reading = new Set<Promise<void>>()
  const ended = Promise.withResolvers<void>()
  const look = () => {
    const tasks = tasksNow(store.view)
    for (const task of tasks) {
      if (begun.has(task.id) || !hasLogs(task) || reading.size >= followedTasksMax) continue
      begun.add(task.id)
      const done = read(task).then(() => {
        reading.delete(done)
        if (isOver()) ended.resolve()
      })
      reading.add(done)
    }
    if (isOver()) ended.resolve()
  }
  /** Nothing can come any more: every task is gone or has ended for good, and their logs have been read. */
  const isOver = () => {
    if (reading.size > 0) return false
    const tasks = tasksNow(store.view)
    const workload = workloadId && store.view.get('workload', workloadId)
    return (
      tasks.every((task) => isTerminal(task.status.state)) &&
      !(workload && isContinued(store.view, workload, tasks))
    )
  }
  const stop = store.subscribe(({ changes }) => {
    if (changes.some(({ kind }) => kind === 'task' || kind === 'workload')) look()
  })
  signal.addEventListener('abort', () => ended.resolve(), { once: true })
  try {
    look()
    await ended.promise
  } finally {
    stop()
  }
}

/** Whether a service whose tasks have all ended gets new ones: `tasks` come in order of creation. */
function isContinued(view: View, workload: Workload, tasks: readonly Task[]): boolean {
  const { mode, revisionId } = workload.spec
  const condition = view.get('revision', revisionId)?.template.restart.condition ?? 'none'
  if (condition === 'none' || (mode.type === 'replicated' && mode.replicas === 0)) return false
  if (condition === 'any' && !isJob(workload.spec)) return true
  const lastByPlace = new Map(tasks.map((task) => [task.slot ?? task.pinnedNodeId, task]))
  return [...lastByPlace.values()].some(
    ({ status: { state } }) => state === 'failed' || state === 'rejected' || state === 'orphaned',
  )
}

function hasEnded(view: View, taskId: TaskId): boolean {
  const task = view.get('task', taskId)
  return !task || isTerminal(task.status.state)
}

/** Whether a container of the task may have written something. */
function hasLogs(task: Task): boolean {
  return task.nodeId !== undefined && rankOf(task.status.state) >= rankOf('starting')
}

function isTtyOf(view: View, workload: Workload | undefined, tasks: readonly Task[]): boolean {
  const revisionId = workload?.spec.revisionId ?? tasks[0]?.revisionId
  const revision = revisionId && view.get('revision', revisionId)
  return revision ? (revision.template.containers[0]?.tty ?? false) : false
}

function readWish(call: Call): Wish {
  const stdout = call.flag('stdout')
  const stderr = call.flag('stderr')
  if (!stdout && !stderr) {
    throw new DockerError(500, 'Bad parameters: you must choose at least one stream')
  }
  const tail = call.query('tail') ?? 'all'
  const sinceMs = readTime(call.query('since'))
  const untilMs = readTime(call.query('until'))
  return {
    stdout,
    stderr,
    follow: call.flag('follow'),
    // As the Engine: what is no number means all.
    tail: /^\d{1,9}$/.test(tail) ? Number(tail) : 'all',
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(untilMs === undefined ? {} : { untilMs }),
    timestamps: call.flag('timestamps'),
    details: call.flag('details'),
  }
}

/** Reads `1700000000`, `1700000000.123456789` or RFC 3339, as ms. `0` and absent mean none. */
export function readTime(text: string | undefined): number | undefined {
  if (!text || text === '0') return undefined
  if (/^\d{1,12}(\.\d{1,9})?$/.test(text)) return Number(text) * 1_000
  const ms = Date.parse(text)
  if (!Number.isNaN(ms)) return ms
  throw new UserError('invalidInput', `"${text}" is not a time`, {
    next: 'Write it in seconds since 1970, or as 2006-01-02T15:04:05Z.',
  })
}

interface Form {
  readonly timestamps: boolean
  readonly details: boolean
  readonly isTty: boolean
}

async function writeLine(
  response: ServerResponse,
  task: Task,
  line: LogLine,
  { timestamps, details, isTty }: Form,
  signal: AbortSignal,
): Promise<void> {
  const prefix =
    (timestamps ? `${line.timestamp} ` : '') + (details ? `${detailsOf(task, line)} ` : '')
  const payload = Buffer.concat([Buffer.from(prefix), line.data])
  const header = Buffer.alloc(isTty ? 0 : 8)
  if (!isTty) {
    header[0] = line.stream === 'stdout' ? 1 : 2
    header.writeUInt32BE(payload.length, 4)
  }
  if (response.write(Buffer.concat([header, payload])) || signal.aborted) return
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off('drain', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    response.once('drain', done)
    signal.addEventListener('abort', done, { once: true })
  })
}

/** A line in the place of those that can't come, told as the task's own. */
function warningLine(task: Task, why: string, nowMs: number): LogLine {
  return {
    taskId: task.id,
    nodeId: task.nodeId ?? idFrom(''),
    stream: 'stderr',
    timestamp: new Date(nowMs).toISOString(),
    details: {},
    data: Buffer.from(`warning: incomplete log stream: ${why}\n`),
  }
}

function incomplete(why: readonly string[]): string {
  return `warning: incomplete log stream. some logs could not be retrieved for the following reasons: ${why.join(', ')}`
}

/** What clients show as an error after all lines: a frame of the kind that Docker calls a system error. */
function writeEnd(response: ServerResponse, text: string, isTty: boolean): void {
  const payload = Buffer.from(isTty ? `${text}\n` : `Error grabbing logs: ${text}`)
  const header = Buffer.alloc(isTty ? 0 : 8)
  if (!isTty) {
    header[0] = systemErrorStream
    header.writeUInt32BE(payload.length, 4)
  }
  response.write(Buffer.concat([header, payload]))
}

const systemErrorStream = 3

/** `k=v` in order, joined by commas, with what every client of a swarm expects in it. */
function detailsOf(task: Task, line: LogLine): string {
  const all = {
    ...line.details,
    'com.docker.swarm.node.id': line.nodeId,
    'com.docker.swarm.service.id': task.workloadId,
    'com.docker.swarm.task.id': task.id,
  }
  return Object.entries(all)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${queryEscape(key)}=${queryEscape(value)}`)
    .join(',')
}

/** As Go's `url.QueryEscape`. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%20/g, '+')
}
