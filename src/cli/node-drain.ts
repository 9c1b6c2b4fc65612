import { UserError } from '../base/index.ts'
import { parseDurationNs } from '../compose/index.ts'
import type { ApiNode } from './api.ts'
import type { Client } from './client.ts'
import { Exit } from './command.ts'
import type { Io } from './io.ts'
import { formatDurationNs } from './output.ts'
import { openWakeUps, ProgressLines } from './wait.ts'

/** What `GET /skep/v1/nodes/<node>/drain` says. */
export interface ApiDrain {
  readonly Availability: string
  readonly Tasks: readonly {
    readonly ID: string
    readonly Name: string
    readonly State: string
    readonly How: 'move' | 'moveStopFirst' | 'stop' | 'strand'
    readonly Because: string
  }[]
}

export interface DrainFlags {
  readonly wait?: boolean
  readonly deadline?: string
  readonly dryRun?: boolean
  readonly force?: boolean
}

const lookPauseMs = 1_000
const deadlineDefault = '5m'
/** Tasks that are shown one by one. */
const shownMax = 20

const how = {
  move: 'moves',
  moveStopFirst: 'stops, then its successor starts',
  stop: 'stops',
  strand: 'stops',
} as const

/** Empties a node. Throws `Exit` 1 when something is left at the deadline, `UserError` when a task has nowhere to go. */
export async function drainNode(
  client: Client,
  io: Io,
  node: ApiNode,
  flags: DrainFlags,
): Promise<void> {
  const name = node.Description.Hostname
  const deadlineMs = deadlineMsOf(flags)
  const look = () => client.call<ApiDrain>(`/skep/v1/nodes/${node.ID}/drain`, { signal: io.signal })
  const { Tasks } = await look()
  if (flags.dryRun) {
    for (const task of Tasks) io.stdout.write(`${task.Name} ${how[task.How]}: ${task.Because}\n`)
    io.stdout.write(`${tasksWords(Tasks.length)} on ${name}. Nothing was changed.\n`)
    return
  }
  const stranded = Tasks.filter(({ How }) => How === 'strand')
  if (stranded.length > 0 && !flags.force && node.Spec.Availability !== 'drain') {
    const named = stranded.slice(0, 3).map((task) => `${task.Name} (${task.Because})`)
    const more = stranded.length > 3 ? ` and ${stranded.length - 3} more` : ''
    throw new UserError(
      'failedPrecondition',
      `${tasksWords(stranded.length)} would stop for want of another node: ${named.join(', ')}${more}`,
      { next: 'Make room elsewhere, or drain all the same with --force.' },
    )
  }
  await setAvailability(client, node, 'drain')
  if (!flags.wait) {
    io.stdout.write(`${name}\n`)
    return
  }
  const startedMs = io.nowMs()
  const lines = new ProgressLines(io, false)
  await using wakeUps = openWakeUps(client, io.signal)
  for (;;) {
    io.signal.throwIfAborted()
    const { Availability, Tasks: left } = await look()
    if (left.length === 0) {
      lines.end()
      io.stdout.write(`${name} is empty.\n`)
      return
    }
    if (Availability !== 'drain') {
      lines.end()
      throw new UserError('conflict', `${name} was made ${Availability} while it was drained`)
    }
    const shown = left
      .slice(0, shownMax)
      .map((task) => `${task.Name}: ${task.State}, ${task.Because}`)
    lines.show([`${tasksWords(left.length)} left on ${name}`, ...shown])
    if (io.nowMs() - startedMs >= deadlineMs) {
      lines.end()
      const after = formatDurationNs(deadlineMs * 1e6)
      io.stderr.write(`skep: ${tasksWords(left.length)} still on ${name} after ${after}:\n`)
      for (const task of left)
        io.stderr.write(`  - ${task.Name} is ${task.State}: ${task.Because}\n`)
      io.stderr.write(`It goes on draining. Take it back with: skep node activate ${name}\n`)
      throw new Exit(1)
    }
    await wakeUps.next(Math.min(lookPauseMs, Math.max(1, startedMs + deadlineMs - io.nowMs())))
  }
}

/** Makes a node active, pause or drain; nothing else of it changes. */
export async function setAvailability(
  client: Client,
  node: ApiNode,
  availability: 'active' | 'pause' | 'drain',
): Promise<void> {
  if (node.Spec.Availability === availability) return
  await client.call(`/nodes/${node.ID}/update`, {
    method: 'POST',
    query: { version: node.Version.Index },
    body: { ...node.Spec, Availability: availability },
  })
}

function deadlineMsOf({ deadline = deadlineDefault }: DrainFlags): number {
  const ms = parseDurationNs(deadline) / 1e6
  if (ms > 0) return ms
  throw new UserError('invalidInput', `--deadline ${deadline} leaves no time`, {
    next: 'Write it as 90s or 5m.',
  })
}

function tasksWords(count: number): string {
  return `${count} task${count === 1 ? '' : 's'}`
}
