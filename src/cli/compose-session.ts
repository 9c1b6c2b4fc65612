import { createHash } from 'node:crypto'
import { isAbsolute, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { Semaphore, UserError } from '../base/index.ts'
import { type LoadOptions, loadProject, nearest, type Project } from '../compose/index.ts'
import { listContainers, type Observed, type RunWorld } from '../compose-run/index.ts'
import { version } from '../daemon/version.ts'
import { type Engine, openEngine } from '../engine/index.ts'
import { type CliContext, usageError } from './command.ts'
import { dryRunEngine } from './compose-dry-run.ts'
import { openProgress, type ProgressMode, type ProgressView } from './compose-progress.ts'
import type { Io } from './io.ts'
import { registryAuth } from './registry.ts'

/** The flags before the command: `skep compose -f … up`. */
export interface ComposeFlags {
  readonly file?: readonly string[]
  readonly projectName?: string
  readonly profile?: readonly string[]
  readonly envFile?: readonly string[]
  readonly projectDirectory?: string
  readonly progress?: string
  readonly ansi?: string
  readonly parallel?: string
  readonly dryRun?: boolean
}

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

/** What a command is built with. */
export interface ComposeContext {
  readonly context: CliContext
  readonly io: Io
  readonly flags: () => ComposeFlags
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

/** Whether a stream may be coloured. */
export function mayColour(
  { ansi = 'auto' }: ComposeFlags,
  io: Io,
  stream: { readonly isTTY?: boolean | undefined },
): boolean {
  if (!['auto', 'always', 'never'].includes(ansi)) {
    throw usageError(`--ansi ${ansi}: choose of auto, always, never`)
  }
  if (ansi !== 'auto') return ansi === 'always'
  return stream.isTTY === true && !io.env['NO_COLOR']
}

export function loadOptionsOf(
  { io }: Pick<ComposeContext, 'io'>,
  flags: ComposeFlags,
  warn: (text: string) => void,
  services: readonly string[] = [],
): LoadOptions {
  return {
    directory: io.directory,
    environment: io.env,
    readFile: (path) => io.readFile(path),
    warn,
    ...(flags.file && { files: flags.file }),
    ...(flags.projectName !== undefined && { projectName: flags.projectName }),
    ...(flags.projectDirectory !== undefined && { projectDirectory: flags.projectDirectory }),
    ...(flags.envFile && { envFiles: flags.envFile }),
    ...(flags.profile && { profiles: flags.profile }),
    ...(services.length > 0 && { services }),
  }
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
      registryAuth: (image) => registryAuth(io, image),
      nowMs: () => io.nowMs(),
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

/** The engine of `-H`, `DOCKER_HOST`, the docker CLI's context, or this machine's. */
export async function openComposeEngine({
  context,
  io,
}: Pick<ComposeContext, 'context' | 'io'>): Promise<Engine> {
  const given = context.host() || io.env['DOCKER_HOST'] || (await contextHost(io))
  return openEngine({ address: given || 'unix:///var/run/docker.sock' })
}

async function contextHost(io: Io): Promise<string | undefined> {
  const folder = io.env['DOCKER_CONFIG'] ?? join(io.env['HOME'] ?? '/', '.docker')
  const name = io.env['DOCKER_CONTEXT'] || (await currentContext(io, folder))
  if (name === undefined || name === '' || name === 'default') return undefined
  const id = createHash('sha256').update(name).digest('hex')
  const path = join(folder, 'contexts/meta', id, 'meta.json')
  const text = await io.readFile(path).catch((cause: unknown) => {
    throw new UserError('notFound', `there is no docker context ${name}`, {
      next: 'List them with docker context ls, and choose one with docker context use.',
      cause,
    })
  })
  const host = textAt(JSON.parse(text.toString()), 'Endpoints', 'docker', 'Host')
  return host === undefined || host === '' ? undefined : host
}

async function currentContext(io: Io, folder: string): Promise<string | undefined> {
  const text = await io.readFile(join(folder, 'config.json')).catch(() => undefined)
  return text === undefined ? undefined : textAt(JSON.parse(text.toString()), 'currentContext')
}

function textAt(value: unknown, ...path: readonly string[]): string | undefined {
  let at = value
  for (const key of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = Reflect.get(at, key)
  }
  return typeof at === 'string' ? at : undefined
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

export function absolute(io: Io, path: string): string {
  return isAbsolute(path) ? path : resolve(io.directory, path)
}

/** A subcommand that is added to `compose`. */
export type AddCommand = (parent: Command, compose: ComposeContext) => void
