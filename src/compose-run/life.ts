import { buffer } from 'node:stream/consumers'
import { UserError } from '../base/index.ts'
import type { ComposeService, Hook, Project } from '../compose/index.ts'
import { type Graph, graphOf, reversed, runInOrder } from './graph.ts'
import { label } from './labels.ts'
import { byServiceAndNumber, isRunning, type Observed, observe } from './observed.ts'
import { type RunWorld, shown } from './run-world.ts'

/** All containers of a project, one-off ones too. */
export async function listContainers(
  { engine, signal }: Pick<RunWorld, 'engine' | 'signal'>,
  project: string,
): Promise<readonly Observed[]> {
  const items = await engine.containers.list(
    { all: true, filters: { label: [`${label.project}=${project}`] } },
    signal,
  )
  return items.flatMap((item) => observe(item) ?? []).sort(byServiceAndNumber)
}

/** Which services need which: of the files, and of the containers' labels for those the files don't have. */
export function graphFor(project: Project | undefined, containers: readonly Observed[]): Graph {
  const ofFiles = project ? graphOf({ ...project.services, ...project.disabledServices }) : {}
  const graph: Record<string, readonly string[]> = {}
  for (const { service, dependsOn } of containers) graph[service] ??= dependsOn
  return { ...graph, ...ofFiles }
}

/** Works on containers service by service: what a service needs before it, or with `last`, what needs it before it. */
export async function forContainers(
  graph: Graph,
  containers: readonly Observed[],
  order: 'needsFirst' | 'needsLast',
  work: (container: Observed) => Promise<void>,
): Promise<void> {
  const names = new Set(containers.map(({ service }) => service))
  const known = Object.fromEntries([...names].map((name) => [name, graph[name] ?? []]))
  // A service between two that have containers may have none itself.
  const whole = withoutCircles({ ...graph, ...known })
  await runInOrder(order === 'needsFirst' ? whole : reversed(whole), async (name) => {
    const own = containers.filter(({ service }) => service === name)
    const done = await Promise.allSettled(own.map(work))
    const failed = done.find((one) => one.status === 'rejected')
    if (failed) throw failed.reason
  })
}

/** Labels of containers from several versions of the files may name a circle: then what closes it is left out. */
function withoutCircles(graph: Graph): Graph {
  const out: Record<string, string[]> = {}
  const reaches = (from: string, to: string): boolean =>
    from === to || (out[from] ?? []).some((next) => reaches(next, to))
  for (const [name, needs] of Object.entries(graph)) {
    for (const other of needs) {
      out[other] ??= []
      if (!reaches(other, name)) out[name] = [...(out[name] ?? []), other]
    }
    out[name] ??= []
  }
  return out
}

/** Stops one container, after the hooks of its service. */
export async function stopContainer(
  world: RunWorld,
  container: Observed,
  service: ComposeService | undefined,
  timeoutSeconds: number | undefined,
): Promise<void> {
  if (!isRunning(container)) return
  await shown(world, `Container ${container.name}`, ['Stopping', 'Stopped'], async () => {
    if (container.state === 'running') {
      for (const hook of service?.preStop ?? []) await runHook(world, container, 'pre_stop', hook)
    }
    await world.engine.containers.stop(
      container.id,
      { ...(timeoutSeconds !== undefined && { timeoutSeconds }) },
      world.signal,
    )
  })
}

export async function removeContainer(
  world: RunWorld,
  container: Observed,
  options: { readonly volumes: boolean; readonly force?: boolean },
): Promise<void> {
  await shown(world, `Container ${container.name}`, ['Removing', 'Removed'], async () => {
    try {
      await world.engine.containers.remove(
        container.id,
        { volumes: options.volumes, ...(options.force && { force: true }) },
        world.signal,
      )
    } catch (error) {
      // Gone already, or on its way (a container that removes itself).
      if (!(error instanceof UserError) || !/notFound|conflict/.test(error.code)) throw error
      if (error.code === 'conflict' && !/already in progress/.test(error.message)) throw error
    }
  })
}

/** Runs one hook in a container. Throws `failedPrecondition` when it fails. */
export async function runHook(
  world: RunWorld,
  container: { readonly id: string; readonly name: string },
  kind: 'post_start' | 'pre_stop',
  hook: Hook,
): Promise<void> {
  if (world.isDryRun) return
  const { exitCode, output } = await runInside(world, container.id, hook)
  if (exitCode === 0) return
  const said = output.trim().split('\n').at(-1) ?? ''
  throw new UserError(
    'failedPrecondition',
    `the ${kind} hook "${hook.command.join(' ')}" in ${container.name} ended with ${exitCode}${said === '' ? '' : `: ${said}`}`,
    { next: `Correct the command below ${kind}.` },
  )
}

/** Runs a command in a container to its end. */
export async function runInside(
  { engine, signal }: RunWorld,
  id: string,
  hook: Hook,
): Promise<{ readonly exitCode: number | null; readonly output: string }> {
  const { Id } = await engine.execs.create(
    id,
    {
      Cmd: hook.command,
      AttachStdout: true,
      AttachStderr: true,
      ...(hook.user !== undefined && { User: hook.user }),
      ...(hook.workingDir !== undefined && { WorkingDir: hook.workingDir }),
      ...(hook.privileged && { Privileged: true }),
      ...(hook.environment && {
        Env: Object.entries(hook.environment).map(([key, value]) =>
          value === null ? key : `${key}=${value}`,
        ),
      }),
    },
    signal,
  )
  const output = await buffer(await engine.execs.start(Id, { tty: true }, signal))
  const { ExitCode } = await engine.execs.inspect(Id, signal)
  return { exitCode: ExitCode, output: output.toString() }
}

export interface DownOptions {
  readonly volumes: boolean
  /** Remove the images of the services: all, or only those without `image`. */
  readonly images?: 'all' | 'local'
  readonly removeOrphans: boolean
  readonly timeoutSeconds?: number
  /** Only these services; then networks and volumes stay. */
  readonly services: readonly string[]
}

/** Stops and removes a project. Without files (`project` absent) it is known by its labels. */
export async function down(
  world: RunWorld,
  name: string,
  project: Project | undefined,
  options: DownOptions,
): Promise<void> {
  const { engine, signal } = world
  const filters = { label: [`${label.project}=${name}`] }
  const [containers, networks, volumes] = await Promise.all([
    listContainers(world, name),
    engine.networks.list({ filters }, signal),
    options.volumes ? engine.volumes.list({ filters }, signal) : [],
  ])
  const known =
    project && new Set(Object.keys({ ...project.services, ...project.disabledServices }))
  const isWanted = ({ service }: Observed): boolean => {
    if (options.services.length > 0) return options.services.includes(service)
    return known === undefined || known.has(service) || options.removeOrphans
  }
  const wanted = containers.filter(isWanted)
  const orphans = known
    ? containers.filter(({ service }) => !known.has(service) && !options.removeOrphans)
    : []
  await forContainers(graphFor(project, containers), wanted, 'needsLast', async (container) => {
    const service = project?.services[container.service]
    await stopContainer(world, container, service, options.timeoutSeconds)
    await removeContainer(world, container, { volumes: options.volumes, force: true })
  })
  if (orphans.length > 0 && options.services.length === 0) warnOfOrphans(world, orphans)
  const work: Promise<void>[] = []
  if (options.services.length === 0) {
    work.push(...networks.map(({ Id, Name }) => removeNetwork(world, Id, Name)))
  }
  if (options.volumes && options.services.length === 0) {
    work.push(...volumes.map((volume) => removeVolume(world, volume.Name)))
  }
  if (options.images)
    work.push(...imagesOf(wanted, name, project, options).map((image) => removeImage(world, image)))
  await Promise.all(work)
}

export function warnOfOrphans(world: RunWorld, orphans: readonly Observed[]): void {
  const names = orphans.map(({ name }) => name).join(', ')
  const one = orphans.length === 1
  world.warn(
    `${one ? 'the container' : 'the containers'} ${names} ${one ? 'belongs' : 'belong'} to the project, but to none of its services; --remove-orphans removes ${one ? 'it' : 'them'}`,
  )
}

async function removeNetwork(world: RunWorld, id: string, name: string): Promise<void> {
  const step = `Network ${name}`
  world.progress({ id: step, text: 'Removing', state: 'working' })
  try {
    await world.engine.networks.remove(id, world.signal)
    world.progress({ id: step, text: 'Removed', state: 'done' })
  } catch (error) {
    if (error instanceof UserError && error.code === 'notFound') {
      world.progress({ id: step, text: 'Removed', state: 'done' })
    } else if (error instanceof UserError && /active endpoints/.test(error.message)) {
      world.progress({ id: step, text: 'Still in use', state: 'warning' })
    } else throw error
  }
}

const removeVolume = (world: RunWorld, name: string): Promise<void> =>
  removeUnused(world, `Volume ${name}`, () => world.engine.volumes.remove(name, {}, world.signal))

const removeImage = (world: RunWorld, image: string): Promise<void> =>
  removeUnused(world, `Image ${image}`, () => world.engine.images.remove(image, {}, world.signal))

/** Removes what may be in use elsewhere, or gone already: either is told and no failure. */
async function removeUnused(
  world: RunWorld,
  step: string,
  remove: () => Promise<unknown>,
): Promise<void> {
  world.progress({ id: step, text: 'Removing', state: 'working' })
  try {
    await remove()
    world.progress({ id: step, text: 'Removed', state: 'done' })
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    if (error.code !== 'conflict' && error.code !== 'notFound') throw error
    const text = error.code === 'conflict' ? 'Still in use' : 'Not there'
    world.progress({ id: step, text, state: 'warning' })
  }
}

function imagesOf(
  containers: readonly Observed[],
  name: string,
  project: Project | undefined,
  { images }: DownOptions,
): readonly string[] {
  const found = new Set<string>()
  for (const { service, image } of containers) {
    const isLocal = image === `${name}-${service}`
    if (images === 'all' || isLocal) found.add(image)
  }
  for (const [service, { image }] of Object.entries(project?.services ?? {})) {
    if (image === undefined) found.add(`${name}-${service}`)
    else if (images === 'all') found.add(image)
  }
  return [...found].filter((image) => !image.startsWith('sha256:'))
}
