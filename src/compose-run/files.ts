import { createHash } from 'node:crypto'
import { UserError, unreachable } from '../base/index.ts'
import type { ComposeSecret, ComposeService, FileReference, Project } from '../compose/index.ts'

/** A file of the host that a container sees as one of its secrets or configs. */
export interface FileMount {
  /** Absolute, on the host. */
  readonly path: string
  readonly target: string
}

/** Bytes that are put into a container before it starts. */
export interface FileCopy {
  readonly target: string
  readonly data: Buffer
  readonly uid: number
  readonly gid: number
  /** Permission bits. */
  readonly mode: number
}

export interface ServiceFiles {
  readonly mounts: readonly FileMount[]
  readonly copies: readonly FileCopy[]
  /** Digests by kind and source, for the service's hash. */
  readonly contents: Readonly<Record<string, string>>
}

/** What reading a secret or config touches: rejects with the code `EISDIR` for a directory. */
export type ReadFile = (path: string) => Promise<Buffer>

/**
 * Reads the secrets and configs of a service. A file without owner and mode of its own is bound from where it lies;
 * everything else is copied in. Throws `invalidInput` on what is missing, `unsupported` on what a cluster alone has.
 */
export async function readServiceFiles(
  project: Project,
  name: string,
  service: ComposeService,
  readFile: ReadFile,
): Promise<ServiceFiles> {
  const mounts: FileMount[] = []
  const copies: FileCopy[] = []
  const contents: Record<string, string> = {}
  const kinds = [
    {
      kind: 'secret',
      references: service.secrets,
      definitions: project.secrets,
      folder: '/run/secrets/',
    },
    { kind: 'config', references: service.configs, definitions: project.configs, folder: '/' },
  ] as const
  for (const { kind, references = [], definitions, folder } of kinds) {
    for (const reference of references) {
      const definition = definitions[reference.source]
      if (definition === undefined) {
        throw new UserError(
          'invalidInput',
          `service ${name} uses the ${kind} ${reference.source}, which the files don't define`,
          { next: `Define it below ${kind}s.` },
        )
      }
      const what = `${kind} ${reference.source}`
      const { data, path } = await readSource(project, what, definition, readFile)
      contents[`${kind}:${reference.source}`] =
        data === undefined ? `directory:${path}` : sha256(data)
      const target = targetOf(reference, folder)
      const isPlain =
        reference.uid === undefined && reference.gid === undefined && reference.mode === undefined
      if (path !== undefined && (isPlain || data === undefined)) mounts.push({ path, target })
      else if (data !== undefined) {
        if (service.readOnly) {
          throw new UserError(
            'unsupported',
            `the ${what} of service ${name} has to be copied into its container, which is read_only`,
            { next: 'Give it as a file without uid, gid and mode: that is mounted.' },
          )
        }
        copies.push({ target, data, ...ownerOf(what, reference) })
      }
    }
  }
  return { mounts, copies, contents }
}

function targetOf({ source, target = source }: FileReference, folder: string): string {
  return target.startsWith('/') ? target : `${folder}${target}`
}

function ownerOf(
  what: string,
  { uid, gid, mode }: FileReference,
): Pick<FileCopy, 'uid' | 'gid' | 'mode'> {
  const number = (text: string | undefined, key: string): number => {
    if (text === undefined) return 0
    if (!/^\d+$/.test(text)) {
      throw new UserError('invalidInput', `the ${key} "${text}" of the ${what} is no number`, {
        next: 'Names of users are not known before the container runs: write the number.',
      })
    }
    return Number(text)
  }
  return { uid: number(uid, 'uid'), gid: number(gid, 'gid'), mode: mode ?? 0o444 }
}

async function readSource(
  project: Project,
  what: string,
  { source }: ComposeSecret,
  readFile: ReadFile,
): Promise<{ readonly data: Buffer | undefined; readonly path?: string }> {
  switch (source.type) {
    case 'content':
      return { data: Buffer.from(source.content) }
    case 'environment': {
      const value = project.environment[source.variable]
      if (value === undefined) {
        throw new UserError(
          'invalidInput',
          `the ${what} is the variable ${source.variable}, which is not set`,
          { next: `Set ${source.variable} in the shell or in .env.` },
        )
      }
      return { data: Buffer.from(value) }
    }
    case 'file':
      try {
        return { data: await readFile(source.path), path: source.path }
      } catch (cause) {
        const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
        if (code === 'EISDIR') return { data: undefined, path: source.path }
        throw new UserError(
          'invalidInput',
          `the ${what} can't be read from ${source.path} (${code})`,
          {
            next: 'Make the file, or correct its path.',
            cause,
          },
        )
      }
    case 'external':
    case 'driver':
      throw new UserError('unsupported', `the ${what} is kept by a cluster, and Compose has none`, {
        next: 'Give it as file, environment or content, or deploy with skep stack deploy.',
      })
    default:
      return unreachable(source)
  }
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}
