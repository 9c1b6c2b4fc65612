import { dirname, resolve } from 'node:path'
import { isDeepEqual, messageOf, UserError } from '../base/index.ts'
import { parseDotenv } from './dotenv.ts'
import { type Environment, interpolate } from './interpolate.ts'
import { type FileModel, fileShape, type Include, type ServiceModel, serviceShape } from './keys.ts'
import type { Dialect } from './load-options.ts'
import { isMissingFile } from './missing-file.ts'
import { isMapping } from './reader.ts'
import { EnvFileFault, withFileEnvironment } from './service-environment.ts'
import { Place, type Reading } from './shape.ts'
import { placedFault, quickSource, type Step, type YamlSource } from './yaml-source.ts'

/** What a loading shares among its files. */
export interface Loading {
  readonly dialect: Dialect
  readonly readFile: (path: string) => Promise<Buffer>
  readonly isRaw: boolean
  /** Hears of variables that are not set, each once for all. */
  readonly onMissing: (name: string) => void
  readonly onIdle: Reading['onIdle']
  readonly onDeprecated: Reading['onDeprecated']
  /** All documents that were read, in order. */
  readonly sources: YamlSource[]
  readonly documentsByFile: Map<string, Promise<readonly YamlSource[]>>
  /** Files are read by the quick reader where it can; then refusals tell no places. */
  readonly isQuick: boolean
  /** What files held when they were read. */
  readonly texts: Map<string, string>
  /** Documents that were read already, by the variables they saw and by the directory of their paths. */
  readonly readDocuments: WeakMap<Environment, Map<string, ReadDocument>>
}

/** Files that belong together: their relative paths start in one directory, and they see the same variables. */
export interface FileSet {
  readonly paths: readonly string[]
  readonly directory: string
  readonly environment: Environment
}

/** Files that are being included or extended, to tell a circle. */
type Chain = readonly string[]

/** Longest way through `include` and `extends`. */
const chainMax = 100

interface ReadDocument {
  readonly model: FileModel
  readonly reading: Reading
}

/** The files laid over each other, with what they include and extend. Throws `invalidInput`. */
export async function loadFiles(
  loading: Loading,
  set: FileSet,
  chain: Chain = [],
): Promise<FileModel> {
  let merged: FileModel = {}
  for (const path of set.paths) {
    for (const source of await documentsOf(loading, path)) {
      const { model, reading } = readDocument(loading, source, set)
      const included = await loadIncludes(loading, set, { model, reading }, [...chain, path])
      const extended = await resolveExtends(
        loading,
        set,
        { model, reading },
        {
          ...merged.services,
          ...included.services,
        },
      )
      // The stock CLI puts a stack's env files in before it merges.
      const ready =
        loading.dialect === 'stack' && !loading.isRaw
          ? await withEnvFiles(loading, set, { model: extended, reading })
          : extended
      const { include: _done, ...own } = ready
      const withIncluded = joinIncluded(included, own, reading)
      merged = fileShape.merge(without(merged, reading.cleared), withIncluded, loading.dialect)
    }
  }
  return merged
}

/** The documents of a file. Throws `invalidInput` where it can't be read. */
export async function documentsOf(
  loading: Pick<Loading, 'readFile' | 'documentsByFile' | 'sources' | 'isQuick' | 'texts'>,
  path: string,
): Promise<readonly YamlSource[]> {
  const known = loading.documentsByFile.get(path)
  if (known !== undefined) return await known
  const reading = (async () => {
    const text = loading.texts.get(path) ?? (await readText(loading, path))
    loading.texts.set(path, text)
    const quick = loading.isQuick ? quickSource(path, text) : undefined
    if (quick !== undefined) return [quick]
    const { parseWhole } = await import('./whole-yaml.ts')
    return parseWhole(path, text)
  })()
  loading.documentsByFile.set(path, reading)
  const sources = await reading
  loading.sources.push(...sources)
  return sources
}

async function readText(loading: Pick<Loading, 'readFile'>, path: string): Promise<string> {
  const bytes = await loading.readFile(path).catch((cause: unknown) => {
    throw new UserError('invalidInput', `cannot read ${path}: ${messageOf(cause)}`, { cause })
  })
  return bytes.toString()
}

function readDocument(
  loading: Loading,
  source: YamlSource,
  { directory, environment }: FileSet,
): ReadDocument {
  const known = loading.readDocuments.get(environment) ?? new Map<string, ReadDocument>()
  loading.readDocuments.set(environment, known)
  const key = JSON.stringify([source.file, source.index, directory])
  const earlier = known.get(key)
  if (earlier !== undefined) return earlier
  const reading: Reading = {
    source,
    dialect: loading.dialect,
    directory,
    environment,
    isRaw: loading.isRaw,
    onIdle: loading.onIdle,
    onDeprecated: loading.onDeprecated,
    cleared: [],
  }
  const change = (text: string) => interpolate(text, environment, loading.onMissing)
  const tree = source.readTree(loading.isRaw ? undefined : change)
  const root = Place.root(reading)
  if (!isMapping(tree)) {
    throw root.fault('is not a mapping', 'A Compose file begins with services:.')
  }
  const document = { model: fileShape.parse(tree, root), reading }
  known.set(key, document)
  return document
}

async function loadIncludes(
  loading: Loading,
  set: FileSet,
  { model, reading }: ReadDocument,
  chain: Chain,
): Promise<FileModel> {
  let all: FileModel = {}
  for (const [index, include] of (model.include ?? []).entries()) {
    const here = Place.root(reading).to('include').to(index)
    const circle = include.paths.find((path) => chain.includes(path))
    if (circle !== undefined) {
      throw here.fault(`includes in a circle: ${[...chain, circle].join(' → ')}`)
    }
    if (chain.length > chainMax) throw here.fault(`lies more than ${chainMax} files deep`)
    const remote = include.paths.find((path) => /:\/|\.git(#|$)/.test(path))
    if (remote !== undefined) {
      throw here.fault(
        `names ${remote}, which is not on this machine`,
        'Fetch it and name the file.',
      )
    }
    const inner = await loadFiles(loading, await includedSet(loading, set, include), chain)
    const { name: _name, version: _version, ...parts } = inner
    all = joinIncluded(all, parts, reading, here)
  }
  return all
}

async function includedSet(loading: Loading, set: FileSet, include: Include): Promise<FileSet> {
  const directory = include.projectDirectory ?? dirname(include.paths[0] ?? set.directory)
  const files = include.envFiles ?? [resolve(directory, '.env')]
  const own = await readEnvironment(loading, files, {
    environment: set.environment,
    isOptional: include.envFiles === undefined,
  })
  return { paths: include.paths, directory, environment: { ...own, ...set.environment } }
}

/** Variables of env files, later ones over earlier ones; the environment is what they may name. */
export async function readEnvironment(
  loading: Pick<Loading, 'readFile' | 'onMissing'>,
  files: readonly string[],
  { environment, isOptional }: { readonly environment: Environment; readonly isOptional: boolean },
): Promise<Readonly<Record<string, string>>> {
  let all: Readonly<Record<string, string>> = {}
  for (const file of files) {
    const text = await loading.readFile(file).catch((cause: unknown) => {
      if (isOptional && isMissingFile(cause)) return undefined
      throw new UserError('invalidInput', `cannot read the env file ${file}: ${messageOf(cause)}`, {
        cause,
      })
    })
    if (text === undefined) continue
    all = {
      ...all,
      ...parseDotenv(file, text.toString(), { ...all, ...environment }, loading.onMissing),
    }
  }
  return all
}

const sections = ['services', 'networks', 'volumes', 'secrets', 'configs', 'models'] as const

/** What was included with what includes it: neither may say something else of one name. */
function joinIncluded(
  included: FileModel,
  own: FileModel,
  reading: Reading,
  at?: Place,
): FileModel {
  for (const section of sections) {
    for (const [name, value] of Object.entries(included[section] ?? {})) {
      const other = own[section]?.[name]
      if (other === undefined || isDeepEqual(other, value)) continue
      const place = at ?? Place.root(reading).to(section).to(name)
      throw place.fault(
        at === undefined
          ? 'is also in a file that is included, and differs'
          : `brings ${section}.${name}, which another included file has too, and differs`,
        'Rename one, or change it in a file of its own with -f.',
      )
    }
  }
  const joined = Object.fromEntries(
    sections.flatMap((section) => {
      const parts = { ...included[section], ...own[section] }
      return Object.keys(parts).length > 0 || own[section] !== undefined ? [[section, parts]] : []
    }),
  )
  const extensions = { ...included.extensions, ...own.extensions }
  return {
    ...own,
    ...joined,
    ...(Object.keys(extensions).length > 0 && { extensions }),
  }
}

/** Each service laid over the one it extends. `others` are those of earlier and included files. */
async function resolveExtends(
  loading: Loading,
  set: FileSet,
  { model, reading }: ReadDocument,
  others: Readonly<Record<string, ServiceModel>>,
): Promise<FileModel> {
  const services: [string, ServiceModel][] = []
  for (const name of Object.keys(model.services ?? {})) {
    services.push([name, await extendedService(loading, set, { model, reading, others }, name, [])])
  }
  return services.length === 0 ? model : { ...model, services: Object.fromEntries(services) }
}

async function extendedService(
  loading: Loading,
  set: FileSet,
  file: ReadDocument & { readonly others: Readonly<Record<string, ServiceModel>> },
  name: string,
  chain: Chain,
): Promise<ServiceModel> {
  const service = file.model.services?.[name] ?? {}
  if (service.extends === undefined) return service
  const { extends: wanted, ...own } = service
  const path = file.reading.source.file
  const here = Place.root(file.reading).to('services').to(name).to('extends')
  const link = `${path}: ${name}`
  if (chain.includes(link)) {
    throw here.fault(
      `extends in a circle: ${[...chain.slice(chain.indexOf(link)), link].join(' → ')}`,
    )
  }
  if (chain.length > chainMax) throw here.fault(`lies more than ${chainMax} services deep`)
  const base = await baseOf(loading, set, file, { wanted, here, chain: [...chain, link] })
  const cleared = file.reading.cleared
    .filter(([section, key]) => section === 'services' && key === name)
    .map((steps) => steps.slice(2))
    .filter((steps) => steps.length > 0)
  return serviceShape.merge(without(base, cleared), own, loading.dialect)
}

async function baseOf(
  loading: Loading,
  set: FileSet,
  file: ReadDocument & { readonly others: Readonly<Record<string, ServiceModel>> },
  link: {
    readonly wanted: NonNullable<ServiceModel['extends']>
    readonly here: Place
    readonly chain: Chain
  },
): Promise<ServiceModel> {
  const { wanted, here, chain } = link
  if (wanted.file === undefined || wanted.file === file.reading.source.file) {
    if (file.model.services?.[wanted.service] !== undefined) {
      return await extendedService(loading, set, file, wanted.service, chain)
    }
    const other = file.others[wanted.service]
    if (other !== undefined) return other
    throw here.fault(
      `names the service ${wanted.service}, which is not there`,
      'Name its file too: extends: {file: …, service: …}.',
    )
  }
  const directory = dirname(wanted.file)
  for (const source of await documentsOf(loading, wanted.file).catch((error: unknown) => {
    if (!(error instanceof UserError) || !error.message.startsWith('cannot read')) throw error
    throw here.fault(`: ${error.message}`)
  })) {
    const inner = { ...set, directory }
    const read = readDocument(loading, source, inner)
    if (read.model.services?.[wanted.service] === undefined) continue
    return await extendedService(loading, inner, { ...read, others: {} }, wanted.service, chain)
  }
  throw here.fault(`names the service ${wanted.service}, which ${wanted.file} does not have`)
}

async function withEnvFiles(
  loading: Loading,
  { environment }: FileSet,
  { model, reading }: ReadDocument,
): Promise<FileModel> {
  const services: [string, ServiceModel][] = []
  for (const [name, service] of Object.entries(model.services ?? {})) {
    const ready = await withFileEnvironment(service, {
      environment,
      readFile: loading.readFile,
      dialect: loading.dialect,
      onMissing: loading.onMissing,
    }).catch((error: unknown) => {
      if (!(error instanceof EnvFileFault)) throw error
      throw Place.root(reading).to('services').to(name).to(error.key).fault(`: ${error.message}`)
    })
    services.push([name, ready])
  }
  return { ...model, services: Object.fromEntries(services) }
}

/** The model without what lies at the paths. */
function without<T extends object>(model: T, paths: readonly (readonly string[])[]): T {
  let result: unknown = model
  for (const path of paths) result = cut(result, path)
  return result as T
}

function cut(value: unknown, [step, ...rest]: readonly string[]): unknown {
  if (step === undefined || !isMapping(value) || !(step in value)) return value
  if (rest.length > 0) return { ...value, [step]: cut(value[step], rest) }
  return Object.fromEntries(Object.entries(value).filter(([key]) => key !== step))
}

/** A fault at a path of the merged files, told where the last of them that has it writes it. */
export function faultIn(
  sources: readonly YamlSource[],
  path: readonly Step[],
  what: string,
  next?: string,
): UserError {
  let best: { source: YamlSource; offset: number; depth: number } | undefined
  for (const source of sources) {
    const found = source.find(path)
    if (best === undefined || found.depth >= best.depth) best = { source, ...found }
  }
  const message = best
    ? placedFault(best.source, path, best.offset, what).message
    : `${path.join('.')} ${what}`
  return new UserError('invalidInput', message, next === undefined ? {} : { next })
}
