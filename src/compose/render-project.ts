import { type FileModel, type FileObjectModel, fileShape } from './keys.ts'
import type { ComposeSecret, ComposeService, Project } from './project.ts'
import { isMapping } from './reader.ts'
import { serviceHash } from './service-hash.ts'
import type { RecordOf } from './shape.ts'
import { writeYaml } from './write-yaml.ts'

export type ConfigFormat = 'yaml' | 'json'

/** The project as one Compose file in long form: loading it again gives the same project. Dollar signs are doubled. */
export function renderProject(project: Project, format: ConfigFormat): string {
  return renderModel(modelOf(project), format, (text) => text.replaceAll('$', '$$$$'))
}

/** Merged files as one file. `change` sees every text. */
export function renderModel(
  model: FileModel,
  format: ConfigFormat,
  change: (text: string) => string = (text) => text,
): string {
  const document = writeModel(model, change)
  return format === 'json' ? `${JSON.stringify(document, null, 2)}\n` : writeYaml(document)
}

/** Merged files as the data of one file. */
export function writeModel(
  { version: _version, include: _include, ...parts }: FileModel,
  change: (text: string) => string,
): Record<string, unknown> {
  const document = changeTexts(fileShape.write(parts), change)
  return isMapping(document) ? { ...document } : {}
}

function changeTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value)
  if (Array.isArray(value)) return value.map((item) => changeTexts(item, change))
  if (!isMapping(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, changeTexts(item, change)]),
  )
}

function modelOf(project: Project): FileModel {
  const { name, services, networks, volumes, secrets, configs, models, extensions } = project
  const outside = <T extends { readonly external: boolean }>({ external, ...rest }: T) => ({
    ...rest,
    ...(external && { external: { isExternal: true } }),
  })
  return {
    name,
    services: mapValues(services, withoutFiles),
    ...filled('networks', mapValues(networks, outside)),
    ...filled('volumes', mapValues(volumes, outside)),
    ...filled('secrets', mapValues(secrets, fileObjectOf)),
    ...filled('configs', mapValues(configs, fileObjectOf)),
    ...filled('models', models),
    ...(Object.keys(extensions).length > 0 && { extensions }),
  }
}

/** What env and label files hold is in the service already. */
function withoutFiles({
  envFiles: _env,
  labelFiles: _labels,
  ...service
}: ComposeService): ComposeService {
  return service
}

function filled<Key extends string, T extends object>(key: Key, value: T): { [K in Key]?: T } {
  return Object.keys(value).length > 0 ? ({ [key]: value } as { [K in Key]?: T }) : {}
}

function fileObjectOf({ name, source, ...rest }: ComposeSecret): FileObjectModel {
  const given = ((): FileObjectModel => {
    switch (source.type) {
      case 'external':
        return { external: { isExternal: true } }
      case 'file':
        return { file: source.path }
      case 'environment':
        return { environment: source.variable }
      case 'content':
        return { content: source.content }
      case 'driver':
        return {
          driver: source.driver,
          ...(source.driverOpts !== undefined && { driverOpts: source.driverOpts }),
        }
    }
  })()
  return { name, ...given, ...rest }
}

function mapValues<T, U>(values: RecordOf<T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, change(value)]))
}

/** What `config` can tell beside the file. */
export type ProjectList =
  | 'services'
  | 'images'
  | 'hash'
  | 'volumes'
  | 'networks'
  | 'profiles'
  | 'environment'

/** One line for each; `hash` is of the named services, or of all. Sorted, and each once. */
export function listProject(
  project: Project,
  what: ProjectList,
  only: readonly string[] = [],
): readonly string[] {
  const services = Object.entries(project.services).filter(
    ([name]) => only.length === 0 || only.includes(name),
  )
  const lines = ((): readonly string[] => {
    switch (what) {
      case 'services':
        return services.map(([name]) => name)
      case 'images':
        return services.map(([name, service]) => imageOf(project, name, service))
      case 'hash':
        return services.map(([name, service]) => `${name} ${serviceHash(service)}`)
      case 'volumes':
        return Object.keys(project.volumes)
      case 'networks':
        return Object.keys(project.networks)
      case 'profiles':
        return [
          ...Object.values(project.services),
          ...Object.values(project.disabledServices),
        ].flatMap(({ profiles = [] }) => profiles)
      case 'environment':
        return Object.entries(project.environment).map(([name, value]) => `${name}=${value}`)
    }
  })()
  return [...new Set(lines)].sort()
}

/** The image a service runs: the one it names, else the one that its build makes. */
export function imageOf(
  project: Pick<Project, 'name'>,
  key: string,
  { image }: ComposeService,
): string {
  return image ?? `${project.name}-${key}`
}

/** The project with images pinned to digests. `digestOf` gives `undefined` for one that is only here. */
export async function pinImages(
  project: Project,
  digestOf: (image: string) => Promise<string | undefined>,
): Promise<Project> {
  const services = await Promise.all(
    Object.entries(project.services).map(async ([key, service]) => {
      const { image } = service
      if (image === undefined || image.includes('@')) return [key, service] as const
      const digest = await digestOf(image)
      return [
        key,
        digest === undefined ? service : { ...service, image: `${image}@${digest}` },
      ] as const
    }),
  )
  return { ...project, services: Object.fromEntries(services) }
}
