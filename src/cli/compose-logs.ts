import { messageOf } from '../base/index.ts'
import {
  Follower,
  isNoLog,
  LogPrinter,
  type LogQuery,
  mergeLogs,
  type Observed,
  readLog,
  shortName,
} from '../compose-run/index.ts'
import { usageError } from './command.ts'
import type { AddCommand } from './compose-files.ts'
import { parseIndex, pickContainers, type Session, withSession } from './compose-session.ts'
import { sinceOf } from './compose-since.ts'

interface LogsFlags {
  readonly follow?: boolean
  readonly index?: number
  readonly color?: boolean
  readonly logPrefix?: boolean
  readonly since?: string
  readonly until?: string
  readonly tail: string
  readonly timestamps?: boolean
}

export const addLogsCommand: AddCommand = (parent, compose) => {
  parent
    .command('logs')
    .argument('[service...]')
    .description('Show what containers printed, in the order of time')
    .option('-f, --follow', 'Show what comes, too')
    .option('--index <number>', 'Only the container with this number', parseIndex)
    .option('--no-color', 'Without colours')
    .option('--no-log-prefix', 'Lines without their container’s name')
    .option('--since <time>', 'From this time on: 2026-01-02T13:23:37Z, or 42m ago')
    .option('--until <time>', 'Up to this time')
    .option('-n, --tail <lines>', 'Lines from the end of each container’s, or all', 'all')
    .option('-t, --timestamps', 'Show the time of each line')
    .action((services: string[], flags: LogsFlags) => {
      if (!/^(all|\d+)$/.test(flags.tail)) {
        throw usageError(`--tail ${flags.tail}: give a whole number, or all`)
      }
      return withSession(compose, { files: 'optional', services }, (session) =>
        printLogs(session, services, flags),
      )
    })
}

async function printLogs(
  session: Session,
  services: readonly string[],
  flags: LogsFlags,
): Promise<void> {
  const { world, io, name } = session
  const nowMs = io.nowMs()
  const printer = new LogPrinter(io, {
    colour: session.colour && flags.color !== false,
    prefix: flags.logPrefix !== false,
    timestamps: flags.timestamps === true,
  })
  const follower = flags.follow
    ? new Follower(world, name, printer, {
        timestamps: flags.timestamps === true,
        accepts: (service) =>
          flags.index === undefined && (services.length === 0 || services.includes(service)),
      })
    : undefined
  // From before the list on, so that no container is missed.
  await follower?.open()
  try {
    const containers = (await pickContainers(session, services)).filter(
      ({ number }) => flags.index === undefined || number === flags.index,
    )
    for (const container of containers) printer.add(shortName(name, container.name))
    const query: LogQuery = {
      timestamps: true,
      tail: flags.tail,
      ...(flags.since !== undefined && { since: await sinceOf(flags.since, nowMs) }),
      ...(flags.until !== undefined && { until: await sinceOf(flags.until, nowMs) }),
    }
    if (follower === undefined) {
      await printPast(session, printer, containers, query)
      return
    }
    await Promise.all(
      containers.map(({ id, name: containerName, service, state }) =>
        follower.add(
          { id, name: containerName, service, isKept: state === 'running' || state === 'paused' },
          true,
          { tail: flags.tail, ...(query.since !== undefined && { since: query.since }) },
        ),
      ),
    )
    await follower.ended()
  } finally {
    follower?.close()
  }
}

async function printPast(
  session: Session,
  printer: LogPrinter,
  containers: readonly Observed[],
  query: LogQuery,
): Promise<void> {
  const { world, name } = session
  const sources = await Promise.all(
    containers.map(async (container) => {
      const { Config } = await world.engine.containers.inspect(container.id, world.signal)
      const lines = readLog(world, { id: container.id, isTty: Config.Tty }, query)
      return { name: shortName(name, container.name), lines: told(session, container, lines) }
    }),
  )
  for await (const { name: container, line } of mergeLogs(sources)) {
    await printer.print(container, line)
  }
}

/** A log that can't be read is told, and does not hide the others. */
async function* told<T>(
  { world }: Session,
  container: Observed,
  lines: AsyncIterable<T>,
): AsyncGenerator<T> {
  try {
    yield* lines
  } catch (error) {
    if (!isNoLog(error)) throw error
    world.warn(`${container.name}: ${messageOf(error)}`)
  }
}
