import { createReadStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { isAbsolute, join, relative, sep } from 'node:path'
import { messageOf, UserError } from '../base/index.ts'
import { type Build, type ComposeService, imageOf, type Project } from '../compose/index.ts'
import type { ImageBuildQuery } from '../engine/index.ts'
import { type IgnoreRules, ignoreRules, parseIgnoreFile } from './ignore-file.ts'
import { label } from './labels.ts'
import { type RunWorld, shown } from './run-world.ts'
import { packTar, type TarEntry } from './tar.ts'

export interface BuildOptions {
  readonly noCache?: boolean
  readonly pull?: boolean
  /** Over the file's. */
  readonly args?: Readonly<Record<string, string | null>>
  readonly onOutput?: (service: string, text: string) => void
}

/** Name that a Dockerfile has in the context where it does not lie in it. */
const ownDockerfile = '.skep.Dockerfile'

/** Builds the image of a service with the engine's own builder, and tags it. Throws `unsupported` on what only BuildKit can. */
export async function buildImage(
  world: RunWorld,
  project: Project,
  name: string,
  service: ComposeService,
  options: BuildOptions = {},
): Promise<void> {
  const { build } = service
  if (build === undefined) return
  refuseUnsupported(name, build)
  const image = imageOf(project, name, service)
  const { context, dockerfile, remote } = await contextOf(world, name, build)
  const query: ImageBuildQuery = {
    t: image,
    rm: true,
    forcerm: true,
    dockerfile,
    labels: {
      ...build.labels,
      [label.project]: project.name,
      [label.service]: name,
      [label.version]: world.version,
    },
    ...(remote !== undefined && { remote }),
    ...((options.noCache ?? build.noCache) && { nocache: true }),
    ...((options.pull ?? build.pull) && { pull: true }),
    ...(build.target !== undefined && { target: build.target }),
    ...(build.network !== undefined && { networkmode: build.network }),
    ...((build.platforms?.[0] ?? service.platform) !== undefined && {
      platform: build.platforms?.[0] ?? service.platform ?? '',
    }),
    ...(build.isolation !== undefined && { isolation: build.isolation }),
    ...(build.shmSizeBytes !== undefined && { shmsize: build.shmSizeBytes }),
    ...(build.extraHosts && {
      extrahosts: build.extraHosts.map(({ host, address }) => `${host}:${address}`).join(','),
    }),
    ...((build.args ?? options.args) && { buildargs: { ...build.args, ...options.args } }),
    ...(build.cacheFrom && { cachefrom: build.cacheFrom }),
  }
  await shown(world, `Image ${image}`, ['Building', 'Built'], async () => {
    const output: string[] = []
    try {
      await world.engine.images.build(
        context,
        {
          query,
          onOutput: (text) => {
            output.push(text)
            options.onOutput?.(name, text)
          },
        },
        world.signal,
      )
    } catch (error) {
      if (world.signal.aborted) throw error
      const code = error instanceof UserError ? error.code : 'internal'
      const step = output.findLast((text) => text.startsWith('Step '))?.trim()
      throw new UserError(
        code,
        `building ${image} for service ${name} failed${step ? ` at "${step}"` : ''}: ${messageOf(error)}`,
        {
          next: `Correct ${build.dockerfileInline === undefined ? dockerfile : 'dockerfile_inline'} and build again.`,
          cause: error,
        },
      )
    }
    for (const tag of build.tags ?? []) {
      const colon = tag.lastIndexOf(':')
      const [repo, ofRepo] =
        colon > tag.lastIndexOf('/') ? [tag.slice(0, colon), tag.slice(colon + 1)] : [tag, 'latest']
      await world.engine.images.tag(image, { repo, tag: ofRepo }, world.signal)
    }
  })
}

function refuseUnsupported(name: string, build: Build): void {
  const refused: readonly (readonly [string, unknown])[] = [
    ['secrets', build.secrets?.length],
    ['ssh', build.ssh],
    ['cache_to', build.cacheTo?.length],
    ['additional_contexts', Object.keys(build.additionalContexts ?? {}).length],
    ['entitlements', build.entitlements?.length],
    ['privileged', build.privileged],
    ['more than one of platforms', (build.platforms?.length ?? 0) > 1],
    ['ulimits', build.ulimits],
    ['provenance', build.provenance !== undefined && build.provenance !== 'false'],
    ['sbom', build.sbom !== undefined && build.sbom !== 'false'],
  ]
  for (const [key, value] of refused) {
    if (!value) continue
    throw new UserError(
      'unsupported',
      `the build of service ${name} has ${key}, which the engine's own builder can't do`,
      { next: `Build it with docker buildx build, and give the service that image.` },
    )
  }
}

async function contextOf(
  world: RunWorld,
  name: string,
  build: Build,
): Promise<{
  readonly context: ReturnType<typeof packTar>
  readonly dockerfile: string
  readonly remote?: string
}> {
  const dockerfile = build.dockerfile ?? 'Dockerfile'
  if (!isAbsolute(build.context)) {
    if (build.dockerfileInline !== undefined) {
      throw new UserError(
        'unsupported',
        `service ${name} has dockerfile_inline with the remote context ${build.context}`,
        {
          next: 'Put the Dockerfile into that context.',
        },
      )
    }
    return { context: packTar([]), dockerfile, remote: build.context }
  }
  const stat = await lstat(build.context).catch(() => undefined)
  if (!stat?.isDirectory() && !stat?.isSymbolicLink()) {
    throw new UserError(
      'invalidInput',
      `the build context ${build.context} of service ${name} is no directory`,
      {
        next: 'Correct build.context.',
      },
    )
  }
  const path = isAbsolute(dockerfile) ? dockerfile : join(build.context, dockerfile)
  const inside = relative(build.context, path)
  const isOutside = inside.startsWith('..') || isAbsolute(inside)
  const extra: TarEntry[] = []
  if (build.dockerfileInline !== undefined || isOutside) {
    const data =
      build.dockerfileInline === undefined
        ? await readDockerfile(world, name, path)
        : Buffer.from(build.dockerfileInline)
    extra.push({
      name: ownDockerfile,
      type: 'file',
      mode: 0o644,
      size: data.length,
      data: () => [data],
    })
  } else await readDockerfile(world, name, path)
  const inContext = extra.length > 0 ? ownDockerfile : inside.split(sep).join('/')
  const ignored = await ignoreRulesOf(world, build.context, path)
  const keep: IgnoreRules = {
    // The builder reads these two although they are not for the image.
    ignores: (one) => one !== inContext && one !== '.dockerignore' && ignored.ignores(one),
    ignoresAllIn: (one) => !inContext.startsWith(`${one}/`) && ignored.ignoresAllIn(one),
  }
  return { context: packTar(contextEntries(build.context, keep, extra)), dockerfile: inContext }
}

async function readDockerfile(world: RunWorld, name: string, path: string): Promise<Buffer> {
  return world.readFile(path).catch((cause: unknown) => {
    throw new UserError('invalidInput', `the Dockerfile ${path} of service ${name} can't be read`, {
      next: 'Make it, or name another one with build.dockerfile.',
      cause,
    })
  })
}

/** `<Dockerfile>.dockerignore` beside the Dockerfile, else the context's `.dockerignore`. */
async function ignoreRulesOf(
  world: RunWorld,
  context: string,
  dockerfile: string,
): Promise<IgnoreRules> {
  for (const path of [`${dockerfile}.dockerignore`, join(context, '.dockerignore')]) {
    const text = await world.readFile(path).catch(() => undefined)
    if (text !== undefined) return parseIgnoreFile(text.toString())
  }
  return ignoreRules([])
}

async function* contextEntries(
  root: string,
  ignored: IgnoreRules,
  extra: readonly TarEntry[],
): AsyncGenerator<TarEntry> {
  yield* directoryEntries(root, '', ignored)
  yield* extra
}

/** The entries of a directory, deep, in the order of their names; sockets and devices are passed over. */
export async function* directoryEntries(
  root: string,
  folder: string,
  ignored: IgnoreRules,
): AsyncGenerator<TarEntry> {
  const names = (await readdir(join(root, folder))).sort()
  for (const part of names) {
    const name = folder === '' ? part : `${folder}/${part}`
    const path = join(root, name)
    const isIgnored = ignored.ignores(name)
    const stat = await lstat(path)
    if (stat.isDirectory()) {
      if (isIgnored && ignored.ignoresAllIn(name)) continue
      if (!isIgnored) {
        yield { name, type: 'directory', mode: stat.mode, mtimeMs: stat.mtimeMs }
      }
      yield* directoryEntries(root, name, ignored)
    } else if (isIgnored) continue
    else if (stat.isSymbolicLink()) {
      const target = await readlink(path)
      yield { name, type: 'symlink', mode: stat.mode, mtimeMs: stat.mtimeMs, target }
    } else if (stat.isFile()) {
      const { mode, mtimeMs, size } = stat
      yield { name, type: 'file', mode, mtimeMs, size, data: () => createReadStream(path) }
    }
  }
}
