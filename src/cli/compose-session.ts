import { resolve } from 'node:path'
import { Semaphore, UserError } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { loadProject, nearest, type Project } from '../compose/index.ts'
import { listContainers, type Observed, type RunWorld } from '../compose-run/index.ts'
import { version } from '../daemon/version.ts'
import type { Engine } from '../engine/index.ts'
import { usageError } from './command.ts'
import { dryRunEngine } from './compose-dry-run.ts'
import {
  type ComposeContext,
  type ComposeFlags,
  loadOptionsOf,
  mayColour,
  openComposeEngine,
} from './compose-files.ts'
import { openProgress, type ProgressMode, type ProgressView } from './compose-progress.ts'
import type { Io } from './io.ts'

const clock = openRealClock()

/** One command on one project. */
export interface Session {
  readonly io: Io
  readonly world: RunWorld
  /** Of the project. */
  readonly name: string
  /** Absent where no files are found, and a name was given. */
  readonly project: Project | undefined
  readonly view: ProgressView
  readonly colour: boolean
  readonly isDryRun: boolean
  /** The same with another signal. */
  readonly with: (signal: AbortSignal) => RunWorld
}

const progressModes: readonly string[] = ['auto', 'tty', 'plain', 'json', 'quiet']

export function progressModeOf({ progress = 'auto' }: ComposeFlags): ProgressMode {
  if (!isProgressMode(progress)) {
    throw usageError(`--progress ${progress}: choose of ${progressModes.join(', ')}`)
  }
  return progress
}

function isProgressMode(text: string): text is ProgressMode {
  return progressModes.includes(text)
}

/**
 * Opens a project on its engine, does the work, and closes. `files`: `needed`, or `optional` for what can be done to containers
 * by their labels alone, when `-p` names the project.
 */
export async function withSession<T>(
  compose: ComposeContext,
  options: {
    readonly files: 'needed' | 'optional'
    readonly services?: readonly string[]
    readonly quiet?: boolean
  },
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const { io } = compose
  const flags = compose.flags()
  const colour = mayColour(flags, io, io.stderr)
  const mode = options.quiet ? 'quiet' : progressModeOf(flags)
  const view = openProgress(io, mode, colour)
  const warn = (text: string): void => view.say(`skep: warning: ${text}`)
  const isDryRun = flags.dryRun === true
  const real = await openComposeEngine(compose)
  const limited = withParallel(real, flags.parallel)
  const engine = isDryRun ? dryRunEngine(limited) : limited
  try {
    const { name, project } = await openProject(compose, flags, warn, options)
    const worldWith = (signal: AbortSignal): RunWorld => ({
      engine,
      readFile: (path) => io.readFile(path),
      progress: (step) => view.put(isDryRun ? { ...step, id: `DRY-RUN ${step.id}` } : step),
      warn,
      version,
      envFiles: (flags.envFile ?? []).map((path) => resolve(io.directory, path)),
      registryAuth: async (image) => (await import('./registry.ts')).registryAuth(io, image),
      isDryRun,
      nowMs: () => io.nowMs(),
      sleep: (ms, waiting) => clock.sleep(ms, waiting),
      signal,
    })
    return await work({
      io,
      world: worldWith(io.signal),
      name,
      project,
      view,
      colour: mayColour(flags, io, io.stdout),
      isDryRun,
      with: worldWith,
    })
  } finally {
    view.end()
    real.close()
  }
}

async function openProject(
  compose: ComposeContext,
  flags: ComposeFlags,
  warn: (text: string) => void,
  options: { readonly files: 'needed' | 'optional'; readonly services?: readonly string[] },
): Promise<{ readonly name: string; readonly project: Project | undefined }> {
  const given = flags.projectName ?? compose.io.env['COMPOSE_PROJECT_NAME']
  const isFree = options.files === 'optional' && given !== undefined && flags.file === undefined
  try {
    const load = loadOptionsOf(compose, flags, warn, options.services)
    const project = await loadProject(load)
    return { name: project.name, project }
  } catch (error) {
    const isMissing = error instanceof UserError && error.code === 'notFound'
    if (!isFree || !isMissing) throw error
    return { name: given, project: undefined }
  }
}

/** At most so many of the engine's changing calls at a time: `--parallel`, `COMPOSE_PARALLEL_LIMIT`; -1 is without limit. */
function withParallel(engine: Engine, text: string | undefined): Engine {
  const limit = Number(text ?? process.env['COMPOSE_PARALLEL_LIMIT'] ?? -1)
  if (!Number.isInteger(limit) || limit === 0 || limit < -1) {
    throw usageError(`--parallel ${text}: give a whole number, or -1 for no limit`)
  }
  if (limit < 0) return engine
  const places = new Semaphore(limit)
  const { containers, images } = engine
  return {
    ...engine,
    containers: {
      ...containers,
      create: (...args) => places.run(() => containers.create(...args)),
      start: (...args) => places.run(() => containers.start(...args)),
      stop: (...args) => places.run(() => containers.stop(...args)),
      remove: (...args) => places.run(() => containers.remove(...args)),
      restart: (...args) => places.run(() => containers.restart(...args)),
    },
    images: {
      ...images,
      pull: (...args) => places.run(() => images.pull(...args)),
      push: (...args) => places.run(() => images.push(...args)),
      build: (...args) => places.run(() => images.build(...args)),
    },
  }
}

/** The containers of a project, or of the named services of it. Throws `notFound` for a name that is no service. */
export async function pickContainers(
  session: Session,
  services: readonly string[],
  options: { readonly oneOff?: boolean } = {},
): Promise<readonly Observed[]> {
  const all = await listContainers(session.world, session.name)
  checkServices(session, services, all)
  return all.filter(
    ({ service, isOneOff }) =>
      (options.oneOff || !isOneOff) && (services.length === 0 || services.includes(service)),
  )
}

export function checkServices(
  { project, name }: Session,
  services: readonly string[],
  containers: readonly Observed[] = [],
): void {
  const known = new Set([
    ...Object.keys(project?.services ?? {}),
    ...Object.keys(project?.disabledServices ?? {}),
    ...containers.map(({ service }) => service),
  ])
  for (const service of services) {
    if (known.has(service)) continue
    const near = nearest(service, [...known])
    const list = [...known].join(', ') || 'none'
    throw new UserError('notFound', `there is no service ${service} in the project ${name}`, {
      next: near === undefined ? `It has ${list}.` : `Did you mean ${near}?`,
    })
  }
}

/** One container of a service, by `--index` or the first. Throws when it does not run, unless `any`. */
export async function pickContainer(
  session: Session,
  service: string,
  index: number | undefined,
  any = false,
): Promise<Observed> {
  const own = await pickContainers(session, [service])
  const found = index === undefined ? own[0] : own.find(({ number }) => number === index)
  if (found === undefined) {
    const which = index === undefined ? '' : ` with the index ${index}`
    throw new UserError('notFound', `service ${service} has no container${which}`, {
      next: `Start it with skep compose up -d ${service}.`,
    })
  }
  if (!any && found.state !== 'running') {
    throw new UserError(
      'failedPrecondition',
      `container ${found.name} is ${found.state}, not running`,
      {
        next: `Start it with skep compose up -d ${service}.`,
      },
    )
  }
  return found
}

/** Reads `-t` and its like: whole seconds. */
export function parseSeconds(text: string): number {
  if (/^-?\d+$/.test(text)) return Number(text)
  throw usageError(`"${text}" is no whole number of seconds`)
}

export function parseIndex(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text)
  throw usageError(`--index ${text}: give a whole number of 1 or more`)
}

/** The project's files, which this command needs. */
export function projectOf({ project }: Session): Project {
  if (project !== undefined) return project
  throw new UserError('notFound', 'there is no Compose file here', { next: 'Name one with -f.' })
}
