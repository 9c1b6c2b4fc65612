import { createReadStream, type FSWatcher, statSync, watch } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { messageOf, UserError } from '../base/index.ts'
import type { Project, WatchRule } from '../compose/index.ts'
import {
  directoryEntries,
  type IgnoreRules,
  ignoreRules,
  listContainers,
  type Observed,
  packTar,
  parseIgnoreFile,
  type RunWorld,
  runInside,
  type TarEntry,
  type UpOptions,
  up,
} from '../compose-run/index.ts'
import type { AddCommand } from './compose-files.ts'
import { projectOf, type Session, withSession } from './compose-session.ts'

/** Changes that come within this time are handled together, ms. */
const gatherMs = 200
/** Changed paths that are handled at a time; more are taken as "everything below the rule's path". */
const changesMax = 4096

export const addWatchCommand: AddCommand = (parent, compose) => {
  parent
    .command('watch')
    .argument('[service...]')
    .description('Follow changes of the sources, as develop.watch says')
    .option('--no-up', 'Do not build and start the services first')
    .action((services: string[], flags: { up: boolean }) =>
      withSession(compose, { files: 'needed', services }, async (session) => {
        rulesOf(projectOf(session), services)
        if (flags.up) {
          await up(session.world, projectOf(session), upOptions(services, false))
        }
        session.view.end()
        await watchProject(session, session.world, services)
      }),
    )
}

function upOptions(services: readonly string[], isRebuild: boolean): UpOptions {
  return {
    services,
    noDeps: isRebuild,
    recreate: 'changed',
    recreateNeeds: 'changed',
    start: true,
    scale: {},
    removeOrphans: false,
    renewVolumes: false,
    images: isRebuild ? { build: true } : {},
  }
}

interface Watched {
  readonly service: string
  readonly rule: WatchRule
  readonly ignored: IgnoreRules
}

function rulesOf(
  project: Project,
  services: readonly string[],
): readonly { readonly service: string; readonly rule: WatchRule }[] {
  const rules = Object.entries(project.services)
    .filter(([name]) => services.length === 0 || services.includes(name))
    .flatMap(([service, { develop }]) => (develop?.watch ?? []).map((rule) => ({ service, rule })))
  if (rules.length === 0) {
    throw new UserError(
      'invalidInput',
      'no service has develop.watch, so there is nothing to watch',
      {
        next: 'Write rules below develop.watch of a service.',
      },
    )
  }
  return rules
}

/** Follows the sources of services until the world's signal. A failure is told, and the next change is tried again. */
export async function watchProject(
  session: Session,
  world: RunWorld,
  services: readonly string[],
): Promise<void> {
  const { view } = session
  const project = projectOf(session)
  const watched: Watched[] = await Promise.all(
    rulesOf(project, services).map(async ({ service, rule }) => ({
      service,
      rule,
      ignored: await ignoredBy(session, project, service, rule),
    })),
  )
  const changed = new Map<Watched, Set<string>>()
  let wake = (): void => {}
  const watchers = watched.map((one) =>
    watchPath(one.rule.path, (path) => {
      const inside = relative(one.rule.path, path)
      if (inside !== '' && one.ignored.ignores(inside)) return
      const paths = changed.get(one) ?? new Set()
      changed.set(one, paths)
      paths.add(paths.size < changesMax ? path : one.rule.path)
      wake()
    }),
  )
  try {
    for (const one of watched) {
      if (one.rule.initialSync && one.rule.action.startsWith('sync')) {
        await sync(world, project, one, new Set([one.rule.path]))
      }
    }
    view.say(`Watching ${[...new Set(watched.map(({ rule }) => rule.path))].join(', ')}`)
    for (;;) {
      if (changed.size === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve
          world.signal.addEventListener('abort', () => resolve(), { once: true })
        })
        wake = () => {}
      }
      world.signal.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, gatherMs))
      const batch = new Map(changed)
      changed.clear()
      await handle(session, world, project, batch)
    }
  } finally {
    for (const watcher of watchers) watcher.close()
  }
}

/** A file is watched by its directory: editors put a new file into its place. */
function watchPath(path: string, onChange: (path: string) => void): FSWatcher {
  const open = (
    folder: string,
    recursive: boolean,
    accepts: (name: string) => boolean,
  ): FSWatcher =>
    watch(folder, { recursive }, (_, name) => {
      if (name !== null && accepts(name)) onChange(join(folder, name))
    })
  try {
    if (statSync(path).isFile())
      return open(dirname(path), false, (name) => name === basename(path))
    return open(path, true, () => true)
  } catch (cause) {
    throw new UserError('invalidInput', `${path} can't be watched: ${messageOf(cause)}`, {
      next: 'Correct the path below develop.watch.',
      cause,
    })
  }
}

async function ignoredBy(
  session: Session,
  project: Project,
  service: string,
  rule: WatchRule,
): Promise<IgnoreRules> {
  const context = project.services[service]?.build?.context
  const path = context?.startsWith('/') ? join(context, '.dockerignore') : undefined
  const text =
    path === undefined ? undefined : await session.io.readFile(path).catch(() => undefined)
  const ofContext = text === undefined ? undefined : parseIgnoreFile(text.toString())
  const own = ignoreRules([...(rule.ignore ?? []).flatMap((one) => [one, `**/${one}`]), '**/.git'])
  const only = rule.include
    ? ignoreRules(rule.include.flatMap((one) => [one, `**/${one}`]))
    : undefined
  const inContext = context === undefined ? '' : relative(context, rule.path)
  return {
    ignores: (inside) => {
      if (own.ignores(inside)) return true
      if (only && !only.ignores(inside)) return true
      const fromContext = inContext === '' ? inside : `${inContext}/${inside}`
      return (
        ofContext !== undefined && !inContext.startsWith('..') && ofContext.ignores(fromContext)
      )
    },
    ignoresAllIn: (inside) => own.ignoresAllIn(inside),
  }
}

async function handle(
  session: Session,
  world: RunWorld,
  project: Project,
  batch: ReadonlyMap<Watched, ReadonlySet<string>>,
): Promise<void> {
  const { view } = session
  const rebuilt = new Set<string>()
  for (const [{ service, rule }] of batch) if (rule.action === 'rebuild') rebuilt.add(service)
  const restarted = new Set<string>()
  try {
    if (rebuilt.size > 0) {
      const names = [...rebuilt]
      view.say(`Rebuilding ${names.join(', ')}`)
      await up(world, project, upOptions(names, true))
      view.say(`Rebuilt ${names.join(', ')}`)
    }
    for (const [one, paths] of batch) {
      const { service, rule } = one
      // A new container has the new sources already.
      if (rebuilt.has(service)) continue
      if (rule.action !== 'restart') {
        await sync(world, project, one, paths)
        view.say(`Synced ${paths.size} ${paths.size === 1 ? 'path' : 'paths'} to ${service}`)
      }
      if (rule.action === 'restart' || rule.action === 'sync+restart') restarted.add(service)
      if (rule.action === 'sync+exec' && rule.exec) await runInAll(world, project, one)
    }
    for (const service of restarted) {
      for (const { id } of await runningOf(world, project, service)) {
        await world.engine.containers.restart(id, {}, world.signal)
      }
      view.say(`Restarted ${service}`)
    }
  } catch (error) {
    if (world.signal.aborted) throw error
    const next = error instanceof UserError && error.next !== undefined ? `. ${error.next}` : ''
    view.say(`skep: ${messageOf(error)}${next}`)
  }
}

async function runningOf(
  world: RunWorld,
  project: Project,
  service: string,
): Promise<readonly Observed[]> {
  return (await listContainers(world, project.name)).filter(
    (one) => one.service === service && !one.isOneOff && one.state === 'running',
  )
}

/** Brings changed paths into the containers; what is gone here is removed there. */
async function sync(
  world: RunWorld,
  project: Project,
  { service, rule, ignored }: Watched,
  paths: ReadonlySet<string>,
): Promise<void> {
  const { target } = rule
  if (target === undefined) {
    throw new UserError(
      'invalidInput',
      `a rule below develop.watch of ${service} has action ${rule.action} and no target`,
      {
        next: 'Say with target where the files go in the container.',
      },
    )
  }
  const containers = await runningOf(world, project, service)
  const gone: string[] = []
  const present: string[] = []
  for (const path of paths) {
    const found = await lstat(path).catch(() => undefined)
    if (found) present.push(path)
    else gone.push(join(target, relative(rule.path, path)))
  }
  for (const { id } of containers) {
    if (gone.length > 0) await execIn(world, id, { command: ['rm', '-rf', '--', ...gone] })
    if (present.length > 0) {
      const tar = packTar(changedEntries(rule, target, present, ignored))
      await world.engine.containers.putArchive(id, '/', tar, world.signal)
    }
  }
}

async function* changedEntries(
  rule: WatchRule,
  target: string,
  paths: readonly string[],
  ignored: IgnoreRules,
): AsyncGenerator<TarEntry> {
  for (const path of paths) {
    const found = await lstat(path).catch(() => undefined)
    if (found === undefined) continue
    const inside = relative(rule.path, path)
    const name = join(target, inside).replace(/^\/+/, '').replace(/\/$/, '')
    if (found.isDirectory()) {
      const under: IgnoreRules = {
        ignores: (one) => ignored.ignores(inside === '' ? one : `${inside}/${one}`),
        ignoresAllIn: (one) => ignored.ignoresAllIn(inside === '' ? one : `${inside}/${one}`),
      }
      for await (const entry of directoryEntries(path, '', under)) {
        yield { ...entry, name: `${name}/${entry.name}` }
      }
    } else if (found.isFile()) {
      const { mode, mtimeMs, size } = found
      yield { name, type: 'file', mode, mtimeMs, size, data: () => createReadStream(path) }
    }
  }
}

async function runInAll(
  world: RunWorld,
  project: Project,
  { service, rule }: Watched,
): Promise<void> {
  if (rule.exec === undefined) return
  for (const { id } of await runningOf(world, project, service)) {
    await execIn(world, id, rule.exec)
  }
}

async function execIn(world: RunWorld, id: string, hook: NonNullable<WatchRule['exec']>) {
  const { exitCode, output } = await runInside(world, id, hook)
  if (exitCode === 0) return
  throw new UserError(
    'failedPrecondition',
    `"${hook.command.join(' ')}" ended with ${exitCode}: ${output.trim().slice(-500)}`,
    {
      next: 'Correct the command, or give the image what it needs.',
    },
  )
}
