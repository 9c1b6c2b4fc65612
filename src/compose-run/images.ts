import { messageOf, UserError } from '../base/index.ts'
import { type ComposeService, imageOf, type Project } from '../compose/index.ts'
import type { ImageInspect, PullProgress } from '../engine/index.ts'
import { buildImage } from './build.ts'
import { type RunWorld, shown } from './run-world.ts'

export interface ImageOptions {
  /** Over `pull_policy` of the services. */
  readonly pull?: string
  /** Build what has a `build`, although there is an image. */
  readonly build?: boolean
  readonly noBuild?: boolean
  /** Containers that are there are started, whatever became of their images. */
  readonly skip?: boolean
  /** Layers are not shown. */
  readonly quietPull?: boolean
  readonly onBuildOutput?: (service: string, text: string) => void
}

/** Has the images of these services there, by pulling and building. By service. */
export async function ensureImages(
  world: RunWorld,
  project: Project,
  services: Readonly<Record<string, ComposeService>>,
  options: ImageOptions,
): Promise<ReadonlyMap<string, ImageInspect>> {
  const found = new Map<string, ImageInspect>()
  // Services of one image look, pull and build once.
  const work = new Map<string, Promise<ImageInspect>>()
  await Promise.all(
    Object.entries(services).map(async ([name, service]) => {
      const key = `${imageOf(project, name, service)} ${service.platform ?? ''}`
      const known = work.get(key)
      const promise = known ?? ensureImage(world, project, name, service, options)
      if (!known) work.set(key, promise)
      found.set(name, await promise)
    }),
  )
  return found
}

async function ensureImage(
  world: RunWorld,
  project: Project,
  name: string,
  service: ComposeService,
  options: ImageOptions,
): Promise<ImageInspect> {
  const image = imageOf(project, name, service)
  const policy = options.pull ?? service.pullPolicy ?? 'missing'
  const local = await inspectImage(world, image)
  const mayBuild = service.build !== undefined && !options.noBuild
  const build = async (): Promise<ImageInspect> => {
    await buildImage(world, project, name, service, {
      ...(options.onBuildOutput && { onOutput: options.onBuildOutput }),
    })
    return inspected(world, image)
  }
  if (mayBuild && (options.build || policy === 'build')) return build()
  if (local && !isStale(policy, service, local, world.nowMs())) return local
  if (policy === 'never') {
    throw new UserError(
      'notFound',
      `service ${name} has pull_policy never, and there is no image ${image}`,
      {
        next: `Pull it (docker pull ${image}), or take pull_policy away.`,
      },
    )
  }
  // What has a build is built, unless pulling was asked for.
  if (mayBuild && !pullsAlways(policy)) return build()
  if (service.image === undefined) {
    if (service.build === undefined) {
      throw new UserError('invalidInput', `service ${name} has neither image nor build`, {
        next: 'Give it one of the two.',
      })
    }
    if (mayBuild) return build()
    throw new UserError(
      'notFound',
      `there is no image ${image} for service ${name}, and --no-build was given`,
      {
        next: 'Leave --no-build out, or build it with skep compose build.',
      },
    )
  }
  try {
    const quiet: RunWorld = {
      ...world,
      progress: (step) => {
        if (step.parent === undefined) world.progress(step)
      },
    }
    await pullImage(options.quietPull ? quiet : world, image, service.platform, name)
  } catch (error) {
    if (!mayBuild || world.signal.aborted) throw error
    world.warn(`${messageOf(error)}; it is built instead`)
    return build()
  }
  return inspected(world, image)
}

const pullsAlways = (policy: string): boolean =>
  policy === 'always' || policy === 'refresh' || /^(daily|weekly|every_)/.test(policy)

/** Whether an image that is there has to be pulled again. */
function isStale(
  policy: string,
  service: ComposeService,
  image: ImageInspect,
  nowMs: number,
): boolean {
  if (policy === 'always') return true
  const maxAgeMs = maxAgeOf(policy, service)
  if (maxAgeMs === undefined) return false
  const pulledMs = Date.parse(image.Metadata?.LastTagTime ?? '')
  return !(nowMs - pulledMs < maxAgeMs)
}

const dayMs = 24 * 3_600_000

function maxAgeOf(policy: string, service: ComposeService): number | undefined {
  if (policy === 'daily') return dayMs
  if (policy === 'weekly') return 7 * dayMs
  const text = policy === 'refresh' ? service.pullRefreshAfter : /^every_(.+)$/.exec(policy)?.[1]
  return text === undefined ? undefined : ageMs(text)
}

const unitMs: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: dayMs,
  w: 7 * dayMs,
}

/** `1w2d12h` in ms. */
function ageMs(text: string): number {
  if (!/^(\d+[smhdw])+$/.test(text)) {
    throw new UserError('invalidInput', `"${text}" is no time after which to pull again`, {
      next: 'Write it as 12h, 3d or 1w2d.',
    })
  }
  let ms = 0
  for (const [, amount, unit] of text.matchAll(/(\d+)([smhdw])/g)) {
    ms += Number(amount) * (unitMs[unit ?? ''] ?? 0)
  }
  return ms
}

/** The image, or `undefined` where the engine has none of that name. */
export async function inspectImage(
  { engine, signal }: Pick<RunWorld, 'engine' | 'signal'>,
  image: string,
): Promise<ImageInspect | undefined> {
  try {
    return await engine.images.inspect(image, signal)
  } catch (error) {
    if (error instanceof UserError && error.code === 'notFound') return undefined
    throw error
  }
}

async function inspected(world: RunWorld, image: string): Promise<ImageInspect> {
  const found = await inspectImage(world, image)
  if (found) return found
  if (world.isDryRun) return { Id: '', Architecture: '', Os: '', Size: 0 }
  throw new UserError('internal', `the engine has no image ${image} although it was just made`, {
    next: 'See whether something removes images at the same time, and try again.',
  })
}

/** Pulls one image and shows its layers. */
export async function pullImage(
  world: RunWorld,
  image: string,
  platform: string | undefined,
  service: string,
): Promise<void> {
  const id = `Image ${image}`
  await shown(world, id, ['Pulling', 'Pulled'], async () => {
    const registryAuth = await world.registryAuth(image)
    try {
      await world.engine.images.pull(
        image,
        {
          registryAuth,
          ...(platform !== undefined && { platform }),
          onProgress: (progress) => showLayer(world, id, progress),
        },
        world.signal,
      )
    } catch (error) {
      if (world.signal.aborted) throw error
      const code = error instanceof UserError ? error.code : 'internal'
      throw new UserError(
        code,
        `image ${image} of service ${service} can't be pulled: ${messageOf(error)}`,
        {
          next: 'Check its name and tag, log in with docker login, or give the service a build.',
          cause: error,
        },
      )
    }
  })
}

/** Pushes one image. */
export async function pushImage(world: RunWorld, image: string): Promise<void> {
  const id = `Image ${image}`
  await shown(world, id, ['Pushing', 'Pushed'], async () => {
    const registryAuth = (await world.registryAuth(image)) ?? 'e30='
    try {
      await world.engine.images.push(
        image,
        { registryAuth, onProgress: (progress) => showLayer(world, id, progress) },
        world.signal,
      )
    } catch (error) {
      if (world.signal.aborted) throw error
      const code = error instanceof UserError ? error.code : 'internal'
      throw new UserError(code, `image ${image} can't be pushed: ${messageOf(error)}`, {
        next: 'Check its name and log in with docker login.',
        cause: error,
      })
    }
  })
}

function showLayer(world: RunWorld, parent: string, progress: PullProgress): void {
  const { id, status = '', progressDetail } = progress
  if (id === undefined || !/^[0-9a-f]{12}$/.test(id)) return
  const { current = 0, total = 0 } = progressDetail ?? {}
  const share = total > 0 ? ` ${Math.min(100, Math.round((current / total) * 100))}%` : ''
  const isDone = /complete|exists|Pushed|Mounted/.test(status)
  world.progress({ id, parent, text: `${status}${share}`, state: isDone ? 'done' : 'working' })
}
