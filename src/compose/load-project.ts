import { basename, dirname, resolve } from 'node:path'
import { UserError } from '../base/index.ts'
import { type FinishOptions, finishProject } from './finish-project.ts'
import { type Environment, interpolate } from './interpolate.ts'
import type { FileModel } from './keys.ts'
import {
  documentsOf,
  type FileSet,
  type Loading,
  loadFiles,
  readEnvironment,
} from './load-files.ts'
import type { LoadOptions } from './load-options.ts'
import { isMissingFile } from './missing-file.ts'
import type { Project } from './project.ts'
import type { YamlSource } from './yaml-source.ts'

/** The names that are looked for, with those laid over them. Source: Compose specification, "The Compose file". */
const usualNames = ['compose.yaml', 'compose.yml', 'docker-compose.yml', 'docker-compose.yaml']
const overrideNames = [
  'compose.override.yml',
  'compose.override.yaml',
  'docker-compose.override.yml',
  'docker-compose.override.yaml',
]

/** The files of a project as one model, before it is given names. */
export interface LoadedFiles {
  readonly name: string
  readonly directory: string
  readonly environment: Readonly<Record<string, string>>
  readonly profiles: readonly string[]
  readonly model: FileModel
  readonly sources: readonly YamlSource[]
}

/**
 * Reads a Compose project: finds its files, reads env files, puts variables in, follows `include` and `extends`, merges, checks
 * every key and says of each without effect that it has none. Throws `invalidInput` naming file, line, column and key.
 */
export async function loadProject(options: LoadOptions): Promise<Project> {
  return await loadWithPlaces(options, false, async (loading) => {
    const files = await loadModel(options, loading)
    const project = await finishProject(files, finishOptions(options, loading))
    return { result: project, quiet: Object.keys(project.disabledServices) }
  })
}

/** The merged files with their variables put in and all their services, checked, before they are named for a project. */
export async function loadMerged(options: LoadOptions): Promise<FileModel> {
  return await loadWithPlaces(options, false, async (loading) => {
    const files = await loadModel(options, loading)
    const { disabledServices } = await finishProject(files, finishOptions(options, loading))
    return { result: files.model, quiet: Object.keys(disabledServices) }
  })
}

/** The merged files with their variables left in, for `config --no-interpolate`. */
export async function loadRawModel(options: LoadOptions): Promise<LoadedFiles> {
  return await loadWithPlaces(options, true, async (loading) => ({
    result: await loadModel(options, loading),
    quiet: [],
  }))
}

/**
 * Loads quickly; what is refused then is loaded once more with the place of everything, so that the refusal tells it. `quiet`
 * services have no warnings.
 */
async function loadWithPlaces<T>(
  options: LoadOptions,
  isRaw: boolean,
  load: (loading: Loading) => Promise<{ readonly result: T; readonly quiet: readonly string[] }>,
): Promise<T> {
  const texts = new Map<string, string>()
  const attempt = async ({ loading, flush }: OpenLoading): Promise<T> => {
    const { result, quiet } = await load(loading)
    flush(new Set(quiet))
    return result
  }
  const quick = openLoading(options, { isRaw, isQuick: true, texts })
  try {
    return await attempt(quick)
  } catch (error) {
    const isPlaced = quick.loading.sources.every(({ hasPlaces }) => hasPlaces)
    if (!(error instanceof UserError) || isPlaced) throw error
  }
  return await attempt(openLoading(options, { isRaw, isQuick: false, texts }))
}

function finishOptions(options: LoadOptions, loading: Loading): FinishOptions {
  return {
    dialect: loading.dialect,
    readFile: options.readFile,
    services: options.services ?? [],
    onMissing: loading.onMissing,
    onIdle: loading.onIdle,
  }
}

interface Idle {
  readonly path: string
  readonly why: string
  readonly services: string[]
}

interface OpenLoading {
  readonly loading: Loading
  readonly flush: (quiet: ReadonlySet<string>) => void
}

/** `flush` tells what was gathered: a key without effect once for all services that have it. */
function openLoading(
  options: LoadOptions,
  mode: Pick<Loading, 'isRaw' | 'isQuick' | 'texts'>,
): OpenLoading {
  const idle = new Map<string, Idle>()
  const told = new Set<string>()
  const missing = new Set<string>()
  const loading: Loading = {
    dialect: options.dialect ?? 'compose',
    readFile: options.readFile,
    ...mode,
    onMissing: (name) => missing.add(name),
    onIdle: (path, why) => {
      const service = /^services\.([^.[]+)/.exec(path)?.[1] ?? ''
      const key = `${path.replace(`services.${service}`, '')} ${why}`
      const known = idle.get(key)
      if (known === undefined) idle.set(key, { path, why, services: [service] })
      else if (!known.services.includes(service)) known.services.push(service)
    },
    onDeprecated: (text) => told.add(text),
    sources: [],
    documentsByFile: new Map(),
    readDocuments: new WeakMap(),
  }
  const flush = (quiet: ReadonlySet<string>): void => {
    for (const { path, why, services } of idle.values()) {
      const loud = services.filter((service) => !quiet.has(service))
      const [first, ...others] = loud
      if (first === undefined) continue
      const where = path.replace(/^services\.[^.[]+/, `services.${first}`)
      const because = why === '' ? '' : `: ${why}`
      const also = others.length === 0 ? '' : ` (also in ${others.join(', ')})`
      options.warn(`${where} has no effect${because}${also}`)
    }
    for (const text of told) options.warn(text)
    for (const name of missing) {
      options.warn(`the variable ${name} is not set: an empty string is used`)
    }
  }
  return { loading, flush }
}

async function loadModel(options: LoadOptions, loading: Loading): Promise<LoadedFiles> {
  const shell = definedOf(options.environment)
  const { paths, directory, environment: found } = await findFiles(options, loading, shell)
  const name = await projectName(options, loading, { paths, directory, environment: found })
  // The name is there for the files' variables. Source: Compose specification, "Version and name top-level elements".
  const environment = { ...found, COMPOSE_PROJECT_NAME: name }
  const model = await loadFiles(loading, { paths, directory, environment })
  return {
    name,
    directory,
    environment: found,
    profiles: [...new Set([...(options.profiles ?? []), ...split(found['COMPOSE_PROFILES'], ',')])],
    model,
    sources: loading.sources,
  }
}

function definedOf(environment: Environment): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    ),
  )
}

function split(text: string | undefined, separator: string): readonly string[] {
  return (text ?? '')
    .split(separator)
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

async function findFiles(
  options: LoadOptions,
  loading: Loading,
  shell: Readonly<Record<string, string>>,
): Promise<FileSet & { readonly environment: Readonly<Record<string, string>> }> {
  const at = (path: string) => resolve(options.directory, path)
  const named = (options.envFiles ?? split(shell['COMPOSE_ENV_FILES'], ',')).map(at)
  const isDisabled = /^(1|true)$/i.test(shell['COMPOSE_DISABLE_ENV_FILE'] ?? '')
  const environmentOf = async (directory: string) => ({
    ...(isDisabled
      ? {}
      : await readEnvironment(loading, named.length > 0 ? named : [resolve(directory, '.env')], {
          environment: shell,
          isOptional: named.length === 0,
        })),
    ...shell,
  })
  const given = options.projectDirectory ?? shell['COMPOSE_PROJECT_DIRECTORY']
  const projectDirectory = given === undefined ? undefined : at(given)
  let files = options.files ?? []
  if (files.length === 0) {
    const here = await environmentOf(projectDirectory ?? options.directory)
    files = split(here['COMPOSE_FILE'], here['COMPOSE_PATH_SEPARATOR'] ?? ':')
  }
  const paths =
    files.length > 0
      ? files.map((file) => (file === '-' ? '/dev/stdin' : at(file)))
      : await usualFiles(loading, projectDirectory ?? options.directory)
  const [first = ''] = paths
  const directory =
    projectDirectory ?? (first === '/dev/stdin' ? options.directory : dirname(first))
  return { paths, directory, environment: await environmentOf(directory) }
}

/** The usual file of a directory or of one above it, with its override. */
async function usualFiles(
  loading: Pick<Loading, 'readFile'>,
  from: string,
): Promise<readonly string[]> {
  const first = async (directory: string, names: readonly string[]) => {
    for (const name of names) {
      const path = resolve(directory, name)
      const isThere = await loading.readFile(path).then(
        () => true,
        (error: unknown) => {
          if (isMissingFile(error)) return false
          throw error
        },
      )
      if (isThere) return path
    }
    return undefined
  }
  for (let directory = from; ; directory = dirname(directory)) {
    const path = await first(directory, usualNames)
    if (path !== undefined) {
      const override = await first(directory, overrideNames)
      return override === undefined ? [path] : [path, override]
    }
    if (directory === dirname(directory)) {
      throw new UserError('notFound', `there is no Compose file in ${from} or above`, {
        next: `Write ${usualNames[0]}, or name a file with -f.`,
      })
    }
  }
}

/** `-p`, else the variable, else the last `name` of the files, else the directory's name. */
async function projectName(
  options: LoadOptions,
  loading: Loading,
  { paths, directory, environment }: FileSet,
): Promise<string> {
  const given = options.projectName ?? (environment['COMPOSE_PROJECT_NAME'] || undefined)
  if (given !== undefined) return loading.dialect === 'stack' ? given : checkedName(given)
  let name: string | undefined
  for (const path of paths) {
    for (const source of await documentsOf(loading, path)) {
      const text = source.topText('name')
      if (text === undefined) continue
      name = loading.isRaw ? text : interpolate(text, environment)
    }
  }
  if (name !== undefined && name !== '') {
    return loading.dialect === 'stack' || loading.isRaw ? name : checkedName(name)
  }
  const fromDirectory = normalName(basename(directory))
  return fromDirectory === '' ? 'project' : fromDirectory
}

function checkedName(name: string): string {
  if (/^[a-z0-9][a-z0-9_-]*$/.test(name)) return name
  const likely = normalName(name)
  throw new UserError('invalidInput', `"${name}" is no name for a project`, {
    next: `Use lower case letters, digits, "-" and "_", and begin with a letter or digit${likely === '' ? '' : `: ${likely}`}.`,
  })
}

function normalName(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9_-]/g, '')
    .replace(/^[_-]+/, '')
}
