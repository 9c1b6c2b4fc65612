import { createHash } from 'node:crypto'
import { isAbsolute, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { UserError } from '../base/index.ts'
import type { LoadOptions } from '../compose/index.ts'
import type { Engine } from '../engine/index.ts'
import { type CliContext, usageError } from './command.ts'
import type { Io } from './io.ts'

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

/** What a command is built with. */
export interface ComposeContext {
  readonly context: CliContext
  readonly io: Io
  readonly flags: () => ComposeFlags
}

/** A subcommand that is added to `compose`. */
export type AddCommand = (parent: Command, compose: ComposeContext) => void

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

/** The engine of `-H`, `DOCKER_HOST`, the docker CLI's context, or this machine's. */
export async function openComposeEngine({
  context,
  io,
}: Pick<ComposeContext, 'context' | 'io'>): Promise<Engine> {
  const given = context.host() || io.env['DOCKER_HOST'] || (await contextHost(io))
  if (io.env['DOCKER_TLS_VERIFY'] && given?.startsWith('tcp://')) {
    throw new UserError(
      'unsupported',
      `${given} is to be reached by TLS, which skep compose does not speak`,
      {
        next: 'Reach the engine by its socket, or by a tunnel (ssh -L), and unset DOCKER_TLS_VERIFY.',
      },
    )
  }
  const { openEngine } = await import('../engine/index.ts')
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

export function absolute(io: Io, path: string): string {
  return isAbsolute(path) ? path : resolve(io.directory, path)
}
