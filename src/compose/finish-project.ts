import { posix } from 'node:path'
import { UserError } from '../base/index.ts'
import type {
  External,
  FileModel,
  FileObjectModel,
  NetworkModel,
  ServiceModel,
  VolumeModel,
} from './keys.ts'
import { faultIn } from './load-files.ts'
import type { Dialect } from './load-options.ts'
import type {
  ComposeModel,
  ComposeNetwork,
  ComposeSecret,
  ComposeService,
  ComposeVolume,
  Dependency,
  FileObjectSource,
  Project,
} from './project.ts'
import { nearest } from './reader.ts'
import { EnvFileFault, withFileEnvironment } from './service-environment.ts'
import type { RecordOf } from './shape.ts'
import type { Step, YamlSource } from './yaml-source.ts'

export interface MergedFiles {
  readonly name: string
  readonly directory: string
  readonly environment: Readonly<Record<string, string>>
  readonly profiles: readonly string[]
  readonly model: FileModel
  readonly sources: readonly YamlSource[]
}

export interface FinishOptions {
  readonly dialect: Dialect
  readonly readFile: (path: string) => Promise<Buffer>
  /** Active whatever their profiles are, with what they depend on. */
  readonly services: readonly string[]
  readonly onMissing: (name: string) => void
  /** Hears of what has no effect: its path, and why. */
  readonly onIdle: (path: string, why: string) => void
}

type Fail = (path: readonly Step[], what: string, next?: string) => UserError

/** Gives merged files their names, variables and implied parts, and checks what belongs together. Throws `invalidInput`. */
export async function finishProject(files: MergedFiles, options: FinishOptions): Promise<Project> {
  const { model, name, directory, environment, sources } = files
  const fail: Fail = (path, what, next) => faultIn(sources, path, what, next)
  const all = Object.entries(model.services ?? {})
  if (all.length === 0) {
    throw fail([], 'has no services', 'A Compose file begins with services:.')
  }
  const complete = Object.fromEntries(
    all.map(([key, service]) => [key, completeService(service, files)]),
  )
  const active = activeServices(complete, files.profiles, options.services)
  const services: [string, ComposeService][] = []
  const disabled: [string, ComposeService][] = []
  for (const [key, service] of Object.entries(complete)) {
    if (!active.has(key)) disabled.push([key, service])
    else if (options.dialect === 'stack') services.push([key, service])
    else services.push([key, await withFiles(key, service, environment, options, fail)])
  }
  const named = Object.fromEntries(services)
  const networks = finishNetworks(name, model.networks ?? {}, Object.values(named))
  const project: Project = {
    name,
    workingDirectory: directory,
    files: [...new Set(sources.map(({ file }) => file))],
    environment,
    services: withoutLostDependencies(named, options),
    disabledServices: Object.fromEntries(disabled),
    networks,
    volumes: mapValues(model.volumes ?? {}, (key, volume) =>
      finishVolume(name, key, volume, directory),
    ),
    secrets: mapValues(model.secrets ?? {}, (key, object) =>
      finishFileObject(name, ['secrets', key], object, fail),
    ),
    configs: mapValues(model.configs ?? {}, (key, object) =>
      finishFileObject(name, ['configs', key], object, fail),
    ),
    models: mapValues(
      model.models ?? {},
      (key, one): ComposeModel => ({ ...one, name: one.name ?? `${name}_${key}` }),
    ),
    profiles: files.profiles,
    extensions: model.extensions ?? {},
  }
  checkProject(project, complete, options.dialect, fail)
  return project
}

/** Without keys that no project has, with what other keys imply. */
function completeService(
  service: ServiceModel,
  { directory, environment }: MergedFiles,
): ComposeService {
  const { extends: _extends, cgroupnsMode: _mode, volumeDriver: _driver, ...own } = service
  const implied = Object.fromEntries(
    impliedServices(service).map((name): [string, Dependency] => [
      name,
      { condition: 'service_started', restart: true, required: true },
    ]),
  )
  const dependsOn = { ...implied, ...own.dependsOn }
  const { build } = own
  return {
    ...own,
    ...(build !== undefined && {
      build: {
        ...build,
        context: build.context ?? directory,
        ...(build.args !== undefined && {
          args: mapValues(build.args, (key, value) => value ?? environment[key] ?? null),
        }),
      },
    }),
    ...(own.networkMode === undefined &&
      Object.keys(own.networks ?? {}).length === 0 && { networks: { default: {} } }),
    ...((Object.keys(implied).length > 0 || own.dependsOn !== undefined) && { dependsOn }),
  }
}

/** Services that have to be there first: of `links`, `volumes_from` and modes of the form `service:name`. */
function impliedServices(service: ServiceModel): readonly string[] {
  const ofModes = [service.networkMode, service.ipc, service.pid].flatMap((mode) =>
    mode?.startsWith('service:') ? [mode.slice('service:'.length)] : [],
  )
  const ofLinks = (service.links ?? []).map((link) => link.split(':')[0] ?? link)
  const ofVolumes = (service.volumesFrom ?? []).flatMap((from) =>
    from.startsWith('container:') ? [] : [from.split(':')[0] ?? from],
  )
  return [...new Set([...ofModes, ...ofLinks, ...ofVolumes])]
}

function activeServices(
  services: RecordOf<ComposeService>,
  profiles: readonly string[],
  named: readonly string[],
): ReadonlySet<string> {
  const active = new Set(
    Object.entries(services)
      .filter(
        ([, { profiles: own = [] }]) =>
          own.length === 0 || profiles.includes('*') || own.some((one) => profiles.includes(one)),
      )
      .map(([key]) => key),
  )
  const waiting = [...named]
  const seen = new Set<string>()
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const service = services[name]
    if (service === undefined || seen.has(name)) continue
    seen.add(name)
    active.add(name)
    waiting.push(...Object.keys(service.dependsOn ?? {}))
  }
  return active
}

async function withFiles(
  key: string,
  service: ComposeService,
  environment: Readonly<Record<string, string>>,
  { readFile, onMissing }: FinishOptions,
  fail: Fail,
): Promise<ComposeService> {
  if (
    service.envFiles === undefined &&
    service.labelFiles === undefined &&
    service.environment === undefined
  ) {
    return service
  }
  try {
    return await withFileEnvironment(service, { environment, readFile, onMissing })
  } catch (error) {
    if (!(error instanceof EnvFileFault)) throw error
    throw fail(['services', key, error.key], `: ${error.message}`)
  }
}

/**
 * A dependency that is not required and not there is passed over. In a stack any is, and told: the stock CLI deploys such
 * files, and waiting for what never comes would hold the service for ever.
 */
function withoutLostDependencies(
  services: RecordOf<ComposeService>,
  { dialect, onIdle }: FinishOptions,
): Readonly<Record<string, ComposeService>> {
  return mapValues(services, (key, service) => {
    const { dependsOn } = service
    if (dependsOn === undefined) return service
    const kept = Object.entries(dependsOn).filter(([name, { required }]) => {
      if (services[name] !== undefined) return true
      if (required === false) return false
      if (dialect === 'stack') {
        onIdle(`services.${key}.depends_on.${name}`, `${name} is not a service here`)
      }
      return dialect !== 'stack'
    })
    return { ...service, dependsOn: Object.fromEntries(kept) }
  })
}

function finishNetworks(
  project: string,
  networks: RecordOf<NetworkModel>,
  services: readonly ComposeService[],
): Readonly<Record<string, ComposeNetwork>> {
  const usesDefault = services.some(({ networks: own }) => own?.['default'] !== undefined)
  const all =
    usesDefault && networks['default'] === undefined ? { ...networks, default: {} } : networks
  return mapValues(all, (key, { name, external, ...rest }) => ({
    ...named(project, key, { name, external }),
    ...rest,
  }))
}

function named(
  project: string,
  key: string,
  {
    name,
    external,
  }: { readonly name?: string | undefined; readonly external?: External | undefined },
): { readonly name: string; readonly external: boolean } {
  const isExternal = external?.isExternal ?? false
  const ownName = name ?? external?.name
  return { name: ownName ?? (isExternal ? key : `${project}_${key}`), external: isExternal }
}

function finishVolume(
  project: string,
  key: string,
  { name, external, ...rest }: VolumeModel,
  directory: string,
): ComposeVolume {
  const { driver = 'local', driverOpts } = rest
  const device = driverOpts?.['device']
  // A bind mount in a volume's clothes: its path starts where the others do.
  const isLocalBind =
    driver === 'local' && device !== undefined && /\bbind\b/.test(driverOpts?.['o'] ?? '')
  return {
    ...named(project, key, { name, external }),
    ...rest,
    ...(isLocalBind &&
      !posix.isAbsolute(device) && {
        driverOpts: { ...driverOpts, device: posix.join(directory, device) },
      }),
  }
}

function finishFileObject(
  project: string,
  path: readonly Step[],
  object: FileObjectModel,
  fail: Fail,
): ComposeSecret {
  const { name, external, file, environment, content, driver, driverOpts, ...rest } = object
  const key = String(path.at(-1))
  const source = ((): FileObjectSource => {
    if (external?.isExternal) return { type: 'external' }
    if (driver !== undefined) {
      return { type: 'driver', driver, ...(driverOpts !== undefined && { driverOpts }) }
    }
    if (file !== undefined) return { type: 'file', path: file }
    if (environment !== undefined) return { type: 'environment', variable: environment }
    if (content !== undefined) return { type: 'content', content }
    throw fail(
      path,
      'has no file',
      `Name one with file:, or write environment:${path[0] === 'configs' ? ', content:' : ''} or external: true.`,
    )
  })()
  return { name: named(project, key, { name, external }).name, source, ...rest }
}

function checkProject(
  project: Project,
  all: RecordOf<ComposeService>,
  dialect: Dialect,
  fail: Fail,
): void {
  for (const [key, service] of Object.entries(project.services)) {
    const at = (...steps: Step[]): readonly Step[] => ['services', key, ...steps]
    checkReferences(project, service, at, fail)
    if (dialect === 'stack') {
      checkForStack(service, at, fail)
      continue
    }
    checkOneWay(service, at, fail)
    checkDependencies(project, all, service, at, fail)
  }
  if (dialect === 'stack') checkVariables(project, fail)
  checkCircle(project, fail)
}

type At = (...steps: Step[]) => readonly Step[]

function checkReferences(project: Project, service: ComposeService, at: At, fail: Fail): void {
  for (const name of Object.keys(service.networks ?? {})) {
    if (project.networks[name] !== undefined) continue
    throw fail(
      at('networks', name),
      `names ${name}, which the file does not have`,
      'Add it to the top-level networks.',
    )
  }
  for (const [index, { type, source }] of (service.volumes ?? []).entries()) {
    if (type !== 'volume' || !source || project.volumes[source] !== undefined) continue
    throw fail(
      at('volumes', index),
      `names the volume ${source}, which the file does not have`,
      'Add it to the top-level volumes.',
    )
  }
  for (const kind of ['secrets', 'configs'] as const) {
    const wanted = [
      ...(service[kind] ?? []).map(({ source }, index) => ({ source, path: at(kind, index) })),
      ...(kind === 'secrets' ? (service.build?.secrets ?? []) : []).map(({ source }, index) => ({
        source,
        path: at('build', kind, index),
      })),
    ]
    for (const { source, path } of wanted) {
      if (project[kind][source] !== undefined) continue
      throw fail(
        path,
        `names ${source}, which the file does not have`,
        `Add it to the top-level ${kind}.`,
      )
    }
  }
  const config = service.credentialSpec?.config
  if (config !== undefined && project.configs[config] === undefined) {
    throw fail(
      at('credential_spec', 'config'),
      `names the config ${config}, which the file does not have`,
    )
  }
}

/** What a cluster needs to be said, and may not be. */
function checkForStack(service: ComposeService, at: At, fail: Fail): void {
  const { image, deploy, healthcheck: health, scale } = service
  if (!image) {
    throw fail(at('image'), 'is missing', 'A stack runs images, it does not build them.')
  }
  const mode = deploy?.mode ?? 'replicated'
  if (mode.startsWith('global') && (deploy?.replicas ?? scale) !== undefined) {
    const path = deploy?.replicas === undefined ? at('scale') : at('deploy', 'replicas')
    throw fail(path, `does not go with the mode ${mode}`, 'It runs once on every node.')
  }
  if (health?.disable && (health.test?.[0] ?? 'NONE') !== 'NONE') {
    throw fail(at('healthcheck'), 'is disabled and has a test', 'Remove one of the two.')
  }
}

/** Secrets and configs are made when a stack is deployed: what they take from variables has to be set. */
function checkVariables({ environment, secrets, configs }: Project, fail: Fail): void {
  for (const [section, objects] of Object.entries({ secrets, configs })) {
    for (const [key, { source }] of Object.entries(objects)) {
      if (source.type !== 'environment' || environment[source.variable] !== undefined) continue
      throw fail(
        [section, key, 'environment'],
        `names the variable ${source.variable}, which is not set`,
        `Set ${source.variable} in the shell or in .env.`,
      )
    }
  }
}

/** What may be said in two ways is said in one. */
function checkOneWay(service: ComposeService, at: At, fail: Fail): void {
  const { deploy, networks, networkMode } = service
  if (
    service.image === undefined &&
    service.build === undefined &&
    service.provider === undefined
  ) {
    throw fail(at(), 'has neither image nor build', 'Name an image, or write how to build one.')
  }
  if (networkMode !== undefined && networks !== undefined && Object.keys(networks).length > 0) {
    throw fail(at('network_mode'), 'does not go with networks', 'Keep one of them.')
  }
  const limits = deploy?.resources?.limits
  const pairs: readonly (readonly [string, number | undefined, string, number | undefined])[] = [
    ['scale', service.scale, 'deploy.replicas', deploy?.replicas],
    ['mem_limit', service.memLimitBytes, 'deploy.resources.limits.memory', limits?.memoryBytes],
    ['cpus', service.cpusNano, 'deploy.resources.limits.cpus', limits?.cpusNano],
    ['pids_limit', service.pidsLimit, 'deploy.resources.limits.pids', limits?.pids],
    [
      'mem_reservation',
      service.memReservationBytes,
      'deploy.resources.reservations.memory',
      deploy?.resources?.reservations?.memoryBytes,
    ],
  ]
  for (const [key, value, other, otherValue] of pairs) {
    if (value === undefined || otherValue === undefined || value === otherValue) continue
    throw fail(at(key), `and ${other} differ`, 'Keep one of them.')
  }
  if (service.containerName !== undefined && (service.scale ?? deploy?.replicas ?? 1) > 1) {
    throw fail(at('container_name'), 'is one name for several containers', 'Remove it.')
  }
  const { build } = service
  if (build?.dockerfile !== undefined && build.dockerfileInline !== undefined) {
    throw fail(at('build'), 'has both dockerfile and dockerfile_inline', 'Keep one of them.')
  }
}

function checkDependencies(
  project: Project,
  all: RecordOf<ComposeService>,
  service: ComposeService,
  at: At,
  fail: Fail,
): void {
  for (const name of Object.keys(service.dependsOn ?? {})) {
    if (project.services[name] !== undefined) continue
    const path = at('depends_on', name)
    const profiles = all[name]?.profiles ?? []
    throw profiles.length > 0
      ? fail(
          path,
          `names ${name}, whose profiles are not active`,
          `Activate one: --profile ${profiles[0]}, or write required: false.`,
        )
      : fail(path, `names ${name}, which is not a service here`, nextOf(all, name))
  }
}

function nextOf(all: RecordOf<ComposeService>, name: string): string {
  const near = nearest(name, Object.keys(all))
  return near === undefined ? 'Add it to services.' : `Did you mean ${near}?`
}

/** Services that wait for each other never start. */
function checkCircle(project: Project, fail: Fail): void {
  const done = new Set<string>()
  const visit = (name: string, way: readonly string[]): void => {
    if (way.includes(name)) {
      const circle = [...way.slice(way.indexOf(name)), name]
      throw fail(['services', name, 'depends_on'], `wait in a circle: ${circle.join(' → ')}`)
    }
    if (done.has(name)) return
    for (const next of Object.keys(project.services[name]?.dependsOn ?? {})) {
      visit(next, [...way, name])
    }
    done.add(name)
  }
  for (const name of Object.keys(project.services)) visit(name, [])
}

/** The project with these services only, and what they depend on where that is asked for; all of it without names. Throws `notFound`. */
export function selectServices(
  project: Project,
  names: readonly string[],
  { withDependencies }: { readonly withDependencies: boolean },
): Project {
  if (names.length === 0) return project
  const kept = new Set<string>()
  const waiting = [...names]
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (kept.has(name)) continue
    const service = project.services[name]
    if (service === undefined) {
      const near = nearest(name, Object.keys(project.services))
      throw new UserError(
        'notFound',
        `there is no service ${name} in the project ${project.name}`,
        {
          next:
            near === undefined
              ? `Choose of ${Object.keys(project.services).join(', ')}.`
              : `Did you mean ${near}?`,
        },
      )
    }
    kept.add(name)
    if (withDependencies) waiting.push(...Object.keys(service.dependsOn ?? {}))
  }
  const services = Object.entries(project.services).filter(([name]) => kept.has(name))
  return { ...project, services: Object.fromEntries(services) }
}

function mapValues<T, U>(
  values: RecordOf<T>,
  change: (key: string, value: T) => U,
): Record<string, U> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, change(key, value)]))
}
