import { createReadStream } from 'node:fs'
import { chmod, lstat, mkdir, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join, normalize, relative, resolve } from 'node:path'
import { UserError } from '../base/index.ts'
import {
  directoryEntries,
  ignoreRules,
  packTar,
  type TarEntry,
  unpackTar,
} from '../compose-run/index.ts'
import { usageError } from './command.ts'
import { type AddCommand, absolute } from './compose-files.ts'
import {
  parseIndex,
  pickContainer,
  pickContainers,
  type Session,
  withSession,
} from './compose-session.ts'

interface CopyFlags {
  readonly archive?: boolean
  readonly followLink?: boolean
  readonly index?: number
  readonly all?: boolean
}

export const addCopyCommand: AddCommand = (parent, compose) => {
  parent
    .command('cp')
    .argument('<source>')
    .argument('<target>')
    .description('Copy between a service (service:path) and this machine')
    .option('-a, --archive', 'Keep owners')
    .option('--all', 'Into every container of the service, one-off ones too')
    .option('-L, --follow-link', 'Copy what a link leads to')
    .option('--index <number>', 'Number of the container', parseIndex)
    .action((source: string, target: string, flags: CopyFlags) => {
      const [fromService, from] = parsePlace(source)
      const [toService, to] = parsePlace(target)
      if ((fromService === undefined) === (toService === undefined)) {
        throw usageError('copy between a service (service:path) and this machine: one of each')
      }
      const service = fromService ?? toService ?? ''
      return withSession(compose, { files: 'optional', services: [service] }, (session) =>
        fromService === undefined
          ? copyIn(session, from, service, to, flags)
          : copyOut(session, service, from, to, flags),
      )
    })
}

/** `web:/etc/x` as service and path; `./x:y` and `/x` are paths here. */
function parsePlace(text: string): readonly [string | undefined, string] {
  const colon = text.indexOf(':')
  if (colon <= 0 || /^[./~]/.test(text)) return [undefined, text]
  return [text.slice(0, colon), text.slice(colon + 1)]
}

async function copyIn(
  session: Session,
  from: string,
  service: string,
  to: string,
  flags: CopyFlags,
): Promise<void> {
  const { io, world } = session
  const { engine, signal } = world
  const targets = flags.all
    ? await pickContainers(session, [service], { oneOff: true })
    : [await pickContainer(session, service, flags.index, true)]
  for (const container of targets) {
    const there = await engine.containers.statArchive(container.id, to, signal)
    if (from === '-') {
      await engine.containers.putArchive(container.id, to, io.stdin, signal)
      continue
    }
    const path = absolute(io, from)
    const found = await (flags.followLink ? stat(path) : lstat(path)).catch((cause: unknown) => {
      throw new UserError('notFound', `there is no ${path} to copy`, { cause })
    })
    const isInto = there?.isDirectory === true
    if (to.endsWith('/') && !isInto) {
      throw new UserError('notFound', `${container.name} has no directory ${to}`, {
        next: 'Make it first, or leave out the last slash.',
      })
    }
    // As docker cp: into a directory that is there under its own name, else as the last part of the path.
    const copiesContents = isInto && /(^|\/)\.$/.test(from)
    const folder = isInto ? to : dirname(to)
    const name = copiesContents ? '' : isInto ? basename(path) : basename(to)
    const entries = entriesOf(path, name, found, flags)
    await engine.containers.putArchive(container.id, folder, packTar(entries), signal)
  }
}

async function* entriesOf(
  path: string,
  name: string,
  found: Awaited<ReturnType<typeof lstat>>,
  { archive }: CopyFlags,
): AsyncGenerator<TarEntry> {
  const owner = archive ? { uid: Number(found.uid), gid: Number(found.gid) } : {}
  const { mode, mtimeMs, size } = found
  const own = { name, mode: Number(mode), mtimeMs: Number(mtimeMs), ...owner }
  if (found.isSymbolicLink()) yield { ...own, type: 'symlink', target: await readlink(path) }
  else if (found.isDirectory()) {
    if (name !== '') yield { ...own, type: 'directory' }
    for await (const entry of directoryEntries(path, '', ignoreRules([]))) {
      yield { ...entry, ...owner, name: name === '' ? entry.name : `${name}/${entry.name}` }
    }
  } else {
    yield { ...own, type: 'file', size: Number(size), data: () => createReadStream(path) }
  }
}

async function copyOut(
  session: Session,
  service: string,
  from: string,
  to: string,
  flags: CopyFlags,
): Promise<void> {
  const { io, world } = session
  const container = await pickContainer(session, service, flags.index, true)
  const archive = await world.engine.containers.getArchive(container.id, from, world.signal)
  if (to === '-') {
    for await (const part of archive) io.stdout.write(part)
    return
  }
  const path = absolute(io, to)
  const there = await stat(path).catch(() => undefined)
  const isInto = there?.isDirectory() === true
  if (to.endsWith('/') && !isInto) {
    throw new UserError('notFound', `there is no directory ${path}`, {
      next: 'Make it first, or leave out the last slash.',
    })
  }
  const copiesContents = /(^|\/)\.$/.test(from)
  const root = isInto ? path : dirname(path)
  for await (const entry of unpackTar(archive)) {
    const parts = entry.name.replace(/\/+$/, '').split('/')
    const rest = parts.slice(1)
    const renamed = isInto ? (copiesContents ? rest : parts) : [basename(path), ...rest]
    const target = resolve(root, normalize(join(...renamed, '')))
    // An archive may not lead out of the place it is unpacked to.
    if (relative(root, target).startsWith('..')) continue
    if (entry.type === 'directory') await mkdir(target, { recursive: true, mode: entry.mode })
    else if (entry.type === 'symlink') await symlink(entry.target, target)
    else if (entry.type === 'file') {
      await writeFile(target, entry.data)
      await chmod(target, entry.mode & 0o7777)
    } else world.warn(`${entry.name} is neither file, directory nor link, and was passed over`)
  }
}
