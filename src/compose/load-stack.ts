import { dirname } from 'node:path'
import { UserError } from '../base/index.ts'
import type { Environment } from './interpolate.ts'
import type { FileModel } from './keys.ts'
import type { LoadOptions } from './load-options.ts'
import { loadMerged, loadProject } from './load-project.ts'
import { lowerStack, type Stack } from './lower.ts'
import { writeModel } from './render-project.ts'

/** Where the loader gets files and variables from. */
export interface StackSources {
  readonly readFile: (path: string) => Promise<Buffer>
  readonly env: Environment
  /** Hears of what has no effect. */
  readonly warn: (text: string) => void
  /** Where the command was given: paths of a file from standard input start there. */
  readonly directory?: string
  /** Profiles that are active beside `COMPOSE_PROFILES`. */
  readonly profiles?: readonly string[]
}

/** Reads stack files (absolute paths), later ones over earlier ones, into one stack. Throws `invalidInput`. */
export async function loadStack(
  name: string,
  paths: readonly string[],
  sources: StackSources,
): Promise<Stack> {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) {
    throw new UserError('invalidInput', `"${name}" is no name for a stack`, {
      next: 'Use letters, digits, "-", "_" and ".".',
    })
  }
  return lowerStack(await loadProject({ ...optionsOf(paths, sources), projectName: name }))
}

/** The files as one, before they are named for a stack. */
export async function readStackFiles(
  paths: readonly string[],
  sources: StackSources,
): Promise<FileModel> {
  return await loadMerged(optionsOf(paths, sources))
}

/** The files as one document of the Compose format, in long form: loading it again gives the same stack. */
export function raiseStackFile(file: FileModel): Record<string, unknown> {
  // Variables are put in when a file is read: a dollar sign has to be doubled to come through that.
  return {
    version: '3.13',
    ...writeModel(file, (text) => text.replaceAll('$', '$$$$')),
  }
}

function optionsOf(
  paths: readonly string[],
  { readFile, env, warn, profiles, directory }: StackSources,
): LoadOptions {
  return {
    dialect: 'stack',
    directory: directory ?? dirname(paths[0] ?? '/'),
    files: paths,
    environment: env,
    readFile,
    warn,
    ...(profiles !== undefined && { profiles }),
  }
}
