import { messageOf, UserError } from '../base/index.ts'
import type { ComposeService, Dependency, Project } from '../compose/index.ts'
import { serviceHash } from '../compose/index.ts'
import type { ContainerInspect, ImageInspect } from '../engine/index.ts'
import { containerPlan, isAnonymous, refuseUnsupported, soloPorts } from './container-body.ts'
import { readServiceFiles, type ServiceFiles } from './files.ts'
import { checkNoCircle, graphOf, needsOf, runInOrder, sharedWith, withNeeds } from './graph.ts'
import { ensureImages, type ImageOptions } from './images.ts'
import { containerLabels, scaleOf } from './labels.ts'
import { listContainers, removeContainer, runHook, stopContainer, warnOfOrphans } from './life.ts'
import type { Observed } from './observed.ts'
import { type Action, decideUp, halfName, type WantedService } from './plan.ts'
import { ensureNetworks, ensureVolumes } from './resources.ts'
import { ContainerWatch, type RunWorld, shown } from './run-world.ts'
import { packTar } from './tar.ts'

export interface UpOptions {
  /** Which of the project's services; empty: all. */
  readonly services: readonly string[]
  readonly noDeps: boolean
  readonly recreate: 'always' | 'changed' | 'never'
  /** For what the named services need. */
  readonly recreateNeeds: 'always' | 'changed' | 'never'
  readonly start: boolean
  /** Containers by service, over the files'. */
  readonly scale: Readonly<Record<string, number>>
  readonly removeOrphans: boolean
  /** New anonymous volumes instead of those of the container before. */
  readonly renewVolumes: boolean
  readonly timeoutSeconds?: number
  readonly images: ImageOptions
  /** Until all run, and are healthy where they have a check. */
  readonly wait?: { readonly timeoutMs?: number }
  /** How far the named services shall be before this is over, as a service that depends on them asks. */
  readonly conditions?: Readonly<Record<string, Dependency>>
  /** Hears of each container before it starts. */
  readonly onContainer?: (container: UpContainer) => Promise<void> | void
}

/** A container that `up` has there. */
export interface UpContainer {
  readonly id: string
  readonly name: string
  readonly service: string
  readonly number: number
  /** Whether it ran before, and is left alone. */
  readonly isKept: boolean
}

/** Time for which `--wait` wants to see a container running, ms. */
const steadyMs = 500

/** Has a project's services there as its files say. Gives their containers. */
export async function up(
  world: RunWorld,
  project: Project,
  options: UpOptions,
): Promise<readonly UpContainer[]> {
  const selection = selectServices(project, options.services, options.noDeps)
  return new UpRun(world, project, selection, options).run()
}

export interface Selection {
  readonly services: Readonly<Record<string, ComposeService>>
  /** Those that were asked for by name, or all. */
  readonly named: readonly string[]
}

/** The services that are asked for and what they need. Naming a service makes its profiles active for it. */
export function selectServices(
  project: Project,
  names: readonly string[],
  noDeps: boolean,
): Selection {
  const every = { ...project.services, ...project.disabledServices }
  for (const name of names) {
    if (Object.hasOwn(every, name)) continue
    throw new UserError('notFound', `there is no service ${name} in the project ${project.name}`, {
      next: `It has ${Object.keys(every).join(', ') || 'none'}.`,
    })
  }
  const named = names.length > 0 ? names : Object.keys(project.services)
  const graph = graphOf(every)
  const chosen = noDeps ? named : withNeeds(graph, named)
  const services = Object.fromEntries(
    Object.entries(every).filter(([name, service]) => {
      if (!chosen.includes(name)) return false
      if (named.includes(name) || Object.hasOwn(project.services, name)) return true
      // In a profile that is not active, and needed only if it can be had.
      return isRequired(name, chosen, every) && service !== undefined
    }),
  )
  checkNoCircle(graphOf(services))
  return { services, named }
}

function isRequired(
  name: string,
  chosen: readonly string[],
  every: Readonly<Record<string, ComposeService>>,
): boolean {
  return chosen.some((other) => {
    const service = every[other]
    if (service === undefined || !needsOf(service).includes(name)) return false
    return service.dependsOn?.[name]?.required !== false
  })
}

class UpRun {
  readonly #world: RunWorld
  readonly #project: Project
  readonly #services: Readonly<Record<string, ComposeService>>
  readonly #named: readonly string[]
  readonly #options: UpOptions
  readonly #watch: ContainerWatch
  #images: ReadonlyMap<string, ImageInspect> = new Map()
  #files: ReadonlyMap<string, ServiceFiles> = new Map()
  #hashes: ReadonlyMap<string, string> = new Map()
  /** Containers of each service that are there by now, in the order of their numbers. */
  readonly #present = new Map<string, Map<number, UpContainer>>()
  /** Services that were not asked for now, by their containers. */
  #others: readonly Observed[] = []

  constructor(world: RunWorld, project: Project, selection: Selection, options: UpOptions) {
    this.#world = world
    this.#project = project
    this.#services = selection.services
    this.#named = selection.named
    this.#options = options
    this.#watch = new ContainerWatch(world, project.name)
  }

  async run(): Promise<readonly UpContainer[]> {
    try {
      const actions = await this.#prepare()
      await this.#execute(actions)
      if (this.#options.conditions) await this.#waitFor(undefined, this.#options.conditions)
      if (this.#options.wait && this.#options.start && !this.#world.isDryRun) {
        await this.#waitForAll(this.#options.wait.timeoutMs)
      }
      return [...this.#present.values()].flatMap((byNumber) => [...byNumber.values()])
    } finally {
      this.#watch.close()
    }
  }

  /** Images, networks and volumes; then what to do about containers. */
  async #prepare(): Promise<readonly Action[]> {
    const { engine, signal } = this.#world
    const project = this.#project
    const services = Object.entries(this.#services)
    // Before anything is made of a project that can't be run whole.
    const apiVersion = await engine.apiVersion(signal)
    for (const [serviceName, service] of services) {
      refuseUnsupported({ service, serviceName, apiVersion })
    }
    const usesVolumes = Object.keys(project.volumes).length > 0
    const [containers, networks, volumes, images, files] = await Promise.all([
      listContainers(this.#world, project.name),
      engine.networks.list({}, signal),
      usesVolumes ? engine.volumes.list({}, signal) : [],
      this.#options.images.skip
        ? new Map<string, ImageInspect>()
        : ensureImages(this.#world, project, this.#services, this.#options.images),
      Promise.all(
        services.map(async ([name, service]) => {
          const read = await readServiceFiles(project, name, service, this.#world.readFile)
          return [name, read] as const
        }),
      ),
    ])
    this.#images = images
    this.#files = new Map(files)
    this.#hashes = new Map(
      services.map(([name, service]) => [
        name,
        serviceHash(service, this.#files.get(name)?.contents ?? {}),
      ]),
    )
    this.#others = containers.filter(
      ({ service, isOneOff }) => !isOneOff && this.#services[service] === undefined,
    )
    const networkKeys = new Set(services.flatMap(([, one]) => Object.keys(one.networks ?? {})))
    const volumeKeys = new Set(
      services.flatMap(([, { volumes: mounts = [] }]) =>
        mounts.flatMap(({ type, source }) => (type === 'volume' && source ? [source] : [])),
      ),
    )
    const [networkIds] = await Promise.all([
      ensureNetworks(this.#world, project, [...networkKeys], networks),
      ensureVolumes(this.#world, project, [...volumeKeys], volumes),
    ])
    const known = Object.keys({ ...project.services, ...project.disabledServices })
    const orphans = containers.filter(
      ({ service, isOneOff }) => !known.includes(service) && !isOneOff,
    )
    if (orphans.length > 0 && !this.#options.removeOrphans) warnOfOrphans(this.#world, orphans)
    return decideUp({
      project: project.name,
      services: this.#inSharingOrder().map((name) => this.#wanted(name, networkIds)),
      containers,
      known,
      removeOrphans: this.#options.removeOrphans,
    })
  }

  #inSharingOrder(): readonly string[] {
    const order: string[] = []
    const visit = (name: string): void => {
      if (order.includes(name)) return
      const service = this.#services[name]
      if (service === undefined) return
      for (const other of needsOf(service)) visit(other)
      order.push(name)
    }
    for (const name of Object.keys(this.#services)) visit(name)
    return order
  }

  #wanted(name: string, networkIds: ReadonlyMap<string, string>): WantedService {
    const service = this.#service(name)
    const isNamed = this.#named.includes(name)
    const keys = service.networkMode === undefined ? Object.keys(service.networks ?? {}) : []
    const scale = this.#options.scale[name] ?? scaleOf(service)
    const solo = soloPorts(service).map(({ published }) => published?.first)
    if (scale > 1 && solo.length > 0) {
      this.#world.warn(
        `port ${solo.join(' and ')} goes to the first of the ${scale} containers of ${name}; the others are reached by the name ${name}`,
      )
    }
    return {
      name,
      scale,
      hash: this.#hashes.get(name) ?? '',
      imageId: this.#images.get(name)?.Id,
      ...(service.containerName !== undefined && { containerName: service.containerName }),
      networkIdByName: Object.fromEntries(
        keys.map((key) => {
          const engineName = this.#project.networks[key]?.name ?? key
          return [engineName, networkIds.get(engineName) ?? '']
        }),
      ),
      recreate: isNamed ? this.#options.recreate : this.#options.recreateNeeds,
      sharedWith: sharedWith(service),
      restartsWith: Object.entries(service.dependsOn ?? {})
        .filter(([, { restart }]) => restart)
        .map(([other]) => other),
    }
  }

  #service(name: string): ComposeService {
    const service = this.#services[name]
    if (service === undefined) throw new Error(`broken invariant: no service ${name}`)
    return service
  }

  /**
   * Containers are made as soon as those are whose ids they hold, and started as soon as what their service depends on is as far as
   * it asks: making does not wait for starting.
   */
  async #execute(actions: readonly Action[]): Promise<void> {
    const removed = Promise.all(
      actions
        .filter((action) => action.type === 'remove')
        .map(async ({ container }) => {
          const service = this.#services[container.service]
          await stopContainer(this.#world, container, service, this.#options.timeoutSeconds)
          await removeContainer(this.#world, container, { volumes: false, force: true })
        }),
    )
    for (const action of actions) {
      if (action.type !== 'rename') continue
      await removed
      await this.#world.engine.containers.rename(
        action.container.id,
        action.name,
        this.#world.signal,
      )
    }
    const actionsOf = (name: string) =>
      actions.filter((action) => 'service' in action && action.service === name)
    /** What is left to do to each container once its service may start. */
    const starts = new Map<string, (() => Promise<void>)[]>()
    const sharing = Object.fromEntries(
      Object.entries(this.#services).map(([name, service]) => [
        name,
        [
          ...sharedWith(service),
          ...(service.links ?? []).map((text) => text.split(':')[0] ?? ''),
        ].filter((other) => Object.hasOwn(this.#services, other)),
      ]),
    )
    const made = new Map<string, Promise<void>>()
    const makeAll = (name: string): Promise<void> => {
      const known = made.get(name)
      if (known) return known
      const promise = (async () => {
        await Promise.all((sharing[name] ?? []).map(makeAll))
        const left = await settled(actionsOf(name).map((action) => this.#make(action)))
        starts.set(name, left)
      })()
      made.set(name, promise)
      return promise
    }
    const making = settled(Object.keys(this.#services).map(makeAll))
    // Both are awaited below; until then a failure is nobody's.
    making.catch(() => {})
    removed.catch(() => {})
    if (!this.#options.start) {
      await making
      await removed
      // Without a start there is nothing that a new container takes over yet but its place.
      for (const action of actions) {
        if (action.type === 'recreate') await this.#takeOver(action)
      }
      return
    }
    const failures: unknown[] = []
    await runInOrder(graphOf(this.#services), async (name) => {
      await makeAll(name)
      await removed
      if (failures.length > 0) return
      await this.#waitForNeeds(name)
      await settled((starts.get(name) ?? []).map((start) => start()))
    }).catch((error: unknown) => failures.push(error))
    await making
    if (failures.length > 0) throw failures[0]
  }

  /** The first part of an action, which changes nothing that runs; gives the second. */
  async #make(action: Action): Promise<() => Promise<void>> {
    switch (action.type) {
      case 'create': {
        const id = await this.#create(action, action.name, undefined)
        const one = this.#put(action, id, action.name, false)
        return () => this.#start(one)
      }
      case 'recreate': {
        const temporary = halfName(action.old, action.name)
        const id = await this.#create(action, temporary, action.old)
        const one = this.#put(action, id, action.name, false)
        return async () => {
          await this.#takeOver(action)
          await this.#start(one)
        }
      }
      case 'start':
      case 'restart':
      case 'unpause':
      case 'keep': {
        const { container } = action
        const isKept = action.type === 'keep' || action.type === 'unpause'
        const one = this.#put(container, container.id, container.name, isKept)
        return () => this.#bring(action.type, one)
      }
      default:
        return async () => {}
    }
  }

  #put(
    { service, number }: { readonly service: string; readonly number: number },
    id: string,
    name: string,
    isKept: boolean,
  ): UpContainer {
    const container = { id, name, service, number, isKept }
    const byNumber = this.#present.get(service) ?? new Map<number, UpContainer>()
    this.#present.set(service, byNumber.set(number, container))
    return container
  }

  async #bring(
    type: 'start' | 'restart' | 'unpause' | 'keep',
    container: UpContainer,
  ): Promise<void> {
    const { engine, signal } = this.#world
    const id = `Container ${container.name}`
    if (type === 'start') return this.#start(container)
    await this.#options.onContainer?.(container)
    if (type === 'keep') this.#world.progress({ id, text: 'Running', state: 'done' })
    else if (type === 'unpause') {
      await shown(this.#world, id, ['Unpausing', 'Running'], () =>
        engine.containers.unpause(container.id, signal),
      )
    } else {
      const { timeoutSeconds } = this.#options
      await shown(this.#world, id, ['Restarting', 'Started'], () =>
        engine.containers.restart(
          container.id,
          { ...(timeoutSeconds !== undefined && { timeoutSeconds }) },
          signal,
        ),
      )
    }
  }

  async #create(
    { service: name, number }: { readonly service: string; readonly number: number },
    containerName: string,
    old: Observed | undefined,
  ): Promise<string> {
    const words = old ? (['Recreate', 'Recreated'] as const) : (['Creating', 'Created'] as const)
    const shownName = old ? containerName.slice(13) : containerName
    return shown(this.#world, `Container ${shownName}`, words, async () => {
      const made = await createContainer(this.#world, this.#project, {
        name,
        service: this.#service(name),
        number,
        containerName,
        hash: this.#hashes.get(name) ?? '',
        image: this.#images.get(name),
        files: this.#files.get(name),
        containerIdOf: (other) => this.#containerIdOf(other),
        ...(old && !this.#options.renewVolumes && { heir: old }),
      })
      return made
    })
  }

  /** The first container of a service: of this run, or one that was there. */
  #containerIdOf(service: string): string | undefined {
    const here = [...(this.#present.get(service)?.values() ?? [])]
    const first = here.sort((one, other) => one.number - other.number)[0]
    return first?.id ?? this.#others.find((one) => one.service === service)?.id
  }

  /** Stops and removes the old container; the new one gets its place and name. */
  async #takeOver({
    old,
    name,
    service,
    number,
  }: Extract<Action, { type: 'recreate' }>): Promise<void> {
    const { engine, signal } = this.#world
    const created = this.#present.get(service)?.get(number)
    if (created === undefined) return
    const quiet: RunWorld = { ...this.#world, progress: () => {} }
    await stopContainer(quiet, old, this.#services[service], this.#options.timeoutSeconds)
    await removeContainer(quiet, old, { volumes: this.#options.renewVolumes, force: true })
    await engine.containers.rename(created.id, name, signal)
  }

  async #start(container: UpContainer): Promise<void> {
    await this.#options.onContainer?.(container)
    const service = this.#service(container.service)
    await shown(this.#world, `Container ${container.name}`, ['Starting', 'Started'], async () => {
      await startContainer(this.#world, container, service)
    })
  }

  async #waitForNeeds(name: string): Promise<void> {
    if (this.#options.noDeps) return
    await this.#waitFor(name, this.#service(name).dependsOn ?? {})
  }

  async #waitFor(
    name: string | undefined,
    dependencies: Readonly<Record<string, Dependency>>,
  ): Promise<void> {
    if (this.#world.isDryRun) return
    await settled(
      Object.entries(dependencies).map(async ([other, dependency]) => {
        try {
          await this.#waitForNeed(other, dependency)
        } catch (error) {
          if (dependency.required !== false || this.#world.signal.aborted) throw error
          this.#world.warn(`${name ?? 'the command'} starts without ${other}: ${messageOf(error)}`)
        }
      }),
    )
  }

  async #waitForNeed(other: string, { condition }: Dependency): Promise<void> {
    if (condition === 'service_started') return
    const containers = [...(this.#present.get(other)?.values() ?? [])]
    const words =
      condition === 'service_healthy'
        ? (['Waiting', 'Healthy'] as const)
        : (['Waiting', 'Exited'] as const)
    await settled(
      containers.map(async (container) => {
        const { id } = container
        const step = `Container ${container.name}`
        const look = condition === 'service_healthy' ? lookHealthy : lookCompleted
        await shown(this.#world, step, words, () =>
          this.#watch.until(id, (state) => look(container, state)),
        )
      }),
    )
  }

  async #waitForAll(timeoutMs: number | undefined): Promise<void> {
    const timeout = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)
    const signal = timeout ? AbortSignal.any([timeout, this.#world.signal]) : this.#world.signal
    const mayEnd = new Set(
      Object.values(this.#services).flatMap(({ dependsOn = {} }) =>
        Object.entries(dependsOn)
          .filter(([, { condition }]) => condition === 'service_completed_successfully')
          .map(([name]) => name),
      ),
    )
    try {
      const containers = [...this.#present.values()].flatMap((byNumber) => [...byNumber.values()])
      await settled(
        containers.map((container) =>
          shown(this.#world, `Container ${container.name}`, ['Waiting', 'Ready'], async () => {
            const look = (state: ContainerInspect): true | undefined =>
              lookReady(container, state, mayEnd.has(container.service))
            await this.#watch.until(container.id, look, signal)
            // What falls over at its start was seen running: it has to stay so.
            await this.#world.sleep(steadyMs, signal)
            await this.#watch.until(container.id, look, signal)
          }),
        ),
      )
    } catch (error) {
      if (!timeout?.aborted || this.#world.signal.aborted) throw error
      throw new UserError(
        'failedPrecondition',
        `not all services are running and healthy after ${(timeoutMs ?? 0) / 1000} s`,
        { next: 'See skep compose ps and skep compose logs, or give --wait-timeout more.' },
      )
    }
  }
}

/** Awaits all, then throws the first failure, so that nothing goes on behind the caller's back. */
async function settled<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(work)
  const out: T[] = []
  for (const result of results) {
    if (result.status === 'rejected') throw result.reason
    out.push(result.value)
  }
  return out
}

function exitedEarly({ name, service }: UpContainer, { State }: ContainerInspect): UserError {
  return new UserError(
    'failedPrecondition',
    `container ${name} exited with code ${State.ExitCode}${State.OOMKilled ? ' (out of memory)' : ''}`,
    { next: `See why with skep compose logs ${service}.` },
  )
}

const isOver = ({ State }: ContainerInspect): boolean =>
  State.Status === 'exited' || State.Status === 'dead'

function unhealthy({ name, service }: UpContainer, { State }: ContainerInspect): UserError {
  const last = State.Health?.Log?.at(-1)?.Output.trim().split('\n').at(-1) ?? ''
  return new UserError(
    'failedPrecondition',
    `container ${name} is unhealthy${last === '' ? '' : `: ${last}`}`,
    { next: `See skep compose logs ${service}, and the healthcheck of ${service}.` },
  )
}

function lookHealthy(container: UpContainer, state: ContainerInspect): true | undefined {
  if (isOver(state)) throw exitedEarly(container, state)
  const status = state.State.Health?.Status
  if (status === 'healthy') return true
  if (status === 'unhealthy') throw unhealthy(container, state)
  if (status !== 'starting') {
    throw new UserError(
      'invalidInput',
      `container ${container.name} has no health check to wait for`,
      {
        next: `Give ${container.service} a healthcheck, or depend on it with service_started.`,
      },
    )
  }
  return undefined
}

function lookCompleted(container: UpContainer, state: ContainerInspect): true | undefined {
  if (!isOver(state)) return undefined
  if (state.State.ExitCode === 0) return true
  throw exitedEarly(container, state)
}

function lookReady(
  container: UpContainer,
  state: ContainerInspect,
  mayEnd: boolean,
): true | undefined {
  if (isOver(state)) {
    if (mayEnd && state.State.ExitCode === 0) return true
    throw exitedEarly(container, state)
  }
  if (!state.State.Running || state.State.Status === 'restarting') return undefined
  const status = state.State.Health?.Status ?? 'none'
  if (status === 'unhealthy') throw unhealthy(container, state)
  return status === 'starting' ? undefined : true
}

/** What a container is made from. */
export interface ContainerOrder {
  readonly name: string
  readonly service: ComposeService
  readonly number: number
  readonly containerName: string
  readonly hash: string
  readonly image: ImageInspect | undefined
  readonly files: ServiceFiles | undefined
  readonly containerIdOf: (service: string) => string | undefined
  /** The container whose anonymous volumes it takes over. */
  readonly heir?: Observed
  /** Of a one-off container. */
  readonly slug?: string
  /** Whether the service's name leads to a one-off container too. */
  readonly useAliases?: boolean
  /** Whether its input ends with the first that was attached. */
  readonly stdinOnce?: boolean
  /** Whether the engine removes it when it ends. */
  readonly autoRemove?: boolean
}

/** Makes one container with its networks, secrets and configs, and gives its id. It is not started. */
export async function createContainer(
  world: RunWorld,
  project: Project,
  order: ContainerOrder,
): Promise<string> {
  const { engine, signal } = world
  const { service, name, image, slug } = order
  const inherited = order.heir ? await anonymousVolumesOf(world, order.heir, service, image) : {}
  const { body, connects } = containerPlan({
    project,
    serviceName: name,
    service,
    labels: containerLabels(
      project,
      service,
      {
        service: name,
        number: order.number,
        hash: order.hash,
        imageId: image?.Id ?? '',
        ...(slug !== undefined && { slug }),
      },
      world,
    ),
    image: service.image ?? `${project.name}-${name}`,
    imageConfig: image?.Config,
    apiVersion: await engine.apiVersion(signal),
    containerIdOf: order.containerIdOf,
    fileMounts: order.files?.mounts ?? [],
    inheritedVolumes: inherited,
    isOneOff: slug !== undefined && !order.useAliases,
    isFurther: slug === undefined && order.number > 1,
  })
  const platform = service.platform
  const asOrdered = {
    ...body,
    ...(order.stdinOnce && service.stdinOpen && { StdinOnce: true, AttachStdin: true }),
    ...(order.autoRemove && { HostConfig: { ...body.HostConfig, AutoRemove: true } }),
  }
  const { Id } = await engine.containers
    .create(order.containerName, asOrdered, signal, ...(platform === undefined ? [] : [platform]))
    .catch((error: unknown) => {
      throw explainCreate(order, error)
    })
  for (const { network, endpoint } of connects) {
    await engine.networks.connect(network, Id, endpoint, signal)
  }
  const copies = order.files?.copies ?? []
  if (copies.length > 0) {
    const tar = packTar(
      copies.map(({ target, data, uid, gid, mode }) => ({
        name: target.replace(/^\/+/, ''),
        type: 'file' as const,
        mode,
        uid,
        gid,
        size: data.length,
        data: () => [data],
      })),
    )
    await engine.containers.putArchive(Id, '/', tar, signal)
  }
  return Id
}

function explainCreate({ name, containerName }: ContainerOrder, error: unknown): unknown {
  if (!(error instanceof UserError)) return error
  if (error.code === 'conflict' && /name .* is already in use/.test(error.message)) {
    return new UserError(
      'conflict',
      `service ${name} needs the container name ${containerName}, which another container has`,
      { next: `Remove or rename that one (docker rm ${containerName}).`, cause: error },
    )
  }
  return new UserError(error.code, `container ${containerName} can't be made: ${error.message}`, {
    ...(error.next !== undefined && { next: error.next }),
    cause: error,
  })
}

/** Volumes without a name that the service's files or image put there: name by path. */
async function anonymousVolumesOf(
  { engine, signal }: RunWorld,
  container: Observed,
  service: ComposeService,
  image: ImageInspect | undefined,
): Promise<Record<string, string>> {
  const ofImage = Object.keys(image?.Config?.Volumes ?? {})
  const volumes = service.volumes ?? []
  const ofService = volumes.filter(isAnonymous).map(({ target }) => target)
  const anonymous = new Set([...ofImage, ...ofService])
  for (const volume of volumes) if (!isAnonymous(volume)) anonymous.delete(volume.target)
  if (anonymous.size === 0) return {}
  const { Mounts } = await engine.containers.inspect(container.id, signal)
  return Object.fromEntries(
    (Mounts ?? [])
      .filter(({ Type, Destination }) => Type === 'volume' && anonymous.has(Destination))
      .flatMap(({ Name, Destination }) => (Name === undefined ? [] : [[Destination, Name]])),
  )
}

/** Starts a container and runs the hooks that follow. */
export async function startContainer(
  world: RunWorld,
  container: { readonly id: string; readonly name: string },
  service: ComposeService,
): Promise<void> {
  try {
    await world.engine.containers.start(container.id, world.signal)
  } catch (error) {
    throw explainStart(container.name, error)
  }
  for (const hook of service.postStart ?? []) await runHook(world, container, 'post_start', hook)
}

/** The engine's words for why a container can't start, with what to do about it. */
export function explainStart(name: string, error: unknown): unknown {
  if (!(error instanceof UserError)) return error
  const text = error.message
  const told = (why: string, next: string): UserError =>
    new UserError(error.code, `container ${name} can't start: ${why}`, { next, cause: error })
  const port =
    /Bind for (\S+?):(\d+) failed: port is already allocated/.exec(text) ??
    /listen \w+ (\S+?):(\d+): bind: address already in use/.exec(text)
  if (port) {
    return told(
      `port ${port[2]} of ${port[1]} is in use by something else`,
      `Stop what uses it (docker ps --filter publish=${port[2]}), or publish another port.`,
    )
  }
  if (/Address already in use/i.test(text)) {
    return told('the address it shall have in a network is in use', 'Change ipv4_address.')
  }
  if (/executable file not found|no such file or directory/.test(text) && /exec/.test(text)) {
    const program = /exec: "([^"]+)"/.exec(text)?.[1]
    return told(
      program === undefined ? lastSentence(text) : `its image has no program "${program}"`,
      'Correct command or entrypoint.',
    )
  }
  return told(lastSentence(text), 'Correct the service, and run up again.')
}

/** Runtimes put their own story before the reason. */
function lastSentence(text: string): string {
  const parts = text.replace(/: unknown$/, '').split(': ')
  return parts.slice(-3).join(': ')
}
