import { createReadStream } from 'node:fs'
import { chmod, lstat, mkdir, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join, normalize, relative, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { UserError } from '../base/index.ts'
import {
  directoryEntries,
  ignoreRules,
  packTar,
  type TarEntry,
  unpackTar,
} from '../compose-run/index.ts'
import type { Engine } from '../engine/index.ts'
import { absolute } from './compose-files.ts'
import type { Io } from './io.ts'

export interface CopyFlags {
  /** Owners are kept. */
  readonly archive?: boolean
  readonly followLink?: boolean
}

/** The container of a copy, by id and by the name that people know. */
export interface CopyEnd {
  readonly id: string
  readonly name: string
}

export interface CopyWorld {
  readonly io: Io
  readonly engine: Engine
  readonly signal: AbortSignal
  readonly warn: (text: string) => void
}

/** `web:/etc/x` as a container's name and path; `./x:y` and `/x` are paths here. */
export function parsePlace(text: string): readonly [string | undefined, string] {
  const colon = text.indexOf(':')
  if (colon <= 0 || /^[./~]/.test(text)) return [undefined, text]
  return [text.slice(0, colon), text.slice(colon + 1)]
}

/** Copies a file, a directory or (`-`) a tar of standard input into a container. */
export async function copyIn(
  { io, engine, signal }: CopyWorld,
  from: string,
  container: CopyEnd,
  to: string,
  flags: CopyFlags,
): Promise<void> {
  const there = await engine.containers.statArchive(container.id, to, signal)
  if (from === '-') {
    await engine.containers.putArchive(container.id, to, io.stdin, signal)
    return
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

/** Copies out of a container to a path here, or (`-`) as a tar to standard output. */
export async function copyOut(
  { io, engine, signal, warn }: CopyWorld,
  container: CopyEnd,
  from: string,
  to: string,
): Promise<void> {
  const archive = await engine.containers.getArchive(container.id, from, signal)
  if (to === '-') {
    await pipeline(archive, io.stdout, { end: false })
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
    } else warn(`${entry.name} is neither file, directory nor link, and was passed over`)
  }
}
