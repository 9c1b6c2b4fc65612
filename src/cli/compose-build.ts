import { messageOf } from '../base/index.ts'
import { type ComposeService, imageOf, type Project } from '../compose/index.ts'
import { buildImage, pullImage, pushImage, selectServices } from '../compose-run/index.ts'
import { collect, Exit, usageError } from './command.ts'
import { outputOf } from './compose-build-output.ts'
import type { AddCommand } from './compose-files.ts'
import { projectOf, withSession } from './compose-session.ts'

type Entry = readonly [name: string, service: ComposeService]

function entriesOf(
  project: Project,
  services: readonly string[],
  withNeeds: boolean,
): readonly Entry[] {
  return Object.entries(selectServices(project, services, !withNeeds).services)
}

/** One image once, however many services have it. */
function distinct(project: Project, entries: readonly Entry[]): readonly Entry[] {
  const byImage = new Map<string, Entry>()
  for (const entry of entries) {
    const image = imageOf(project, ...entry)
    const key = `${image} ${entry[1].platform ?? ''}`
    if (!byImage.has(key) || byImage.get(key)?.[1].build === undefined) byImage.set(key, entry)
  }
  return [...byImage.values()]
}

export const addBuildCommands: AddCommand = (parent, compose) => {
  parent
    .command('build')
    .argument('[service...]')
    .description('Build the images of services')
    .option('--build-arg <name=value>', 'Argument of the build (may be repeated)', collect)
    .option('--no-cache', 'Build every step anew')
    .option('--pull', 'Ask the registry for newer base images')
    .option('--push', 'Push what was built')
    .option('-q, --quiet', 'Show no output of the build')
    .option('--with-dependencies', 'Also those that the services need')
    .action(
      (
        services: string[],
        flags: {
          buildArg?: readonly string[]
          cache: boolean
          pull?: boolean
          push?: boolean
          quiet?: boolean
          withDependencies?: boolean
        },
      ) =>
        withSession(compose, { files: 'needed', services }, async (session) => {
          const project = projectOf(session)
          const args = Object.fromEntries(
            (flags.buildArg ?? []).map((text) => {
              const [, name = '', , value] = /^([^=]+)(=(.*))?$/s.exec(text) ?? []
              if (name === '') throw usageError(`--build-arg ${text}: write it as name=value`)
              return [name, value ?? session.io.env[name] ?? null]
            }),
          )
          const entries = entriesOf(project, services, flags.withDependencies === true)
          const built = distinct(project, entries).filter(([, { build }]) => build !== undefined)
          if (built.length === 0) {
            session.view.say('No service is to be built')
            return
          }
          await eachSettled(built, ([name, service]) =>
            buildImage(session.world, project, name, service, {
              ...(!flags.cache && { noCache: true }),
              ...(flags.pull && { pull: true }),
              ...(Object.keys(args).length > 0 && { args }),
              ...(!flags.quiet && { onOutput: outputOf(session) }),
            }),
          )
          if (!flags.push) return
          await eachSettled(built, ([name, service]) =>
            pushImage(session.world, imageOf(project, name, service)),
          )
        }),
    )

  parent
    .command('pull')
    .argument('[service...]')
    .description('Pull the images of services')
    .option('--ignore-pull-failures', 'Go on with the others')
    .option('--ignore-buildable', 'Leave out what can be built')
    .option('--include-deps', 'Also those that the services need')
    .option('--policy <policy>', 'missing or always')
    .option('-q, --quiet', 'Show no progress')
    .action(
      (
        services: string[],
        flags: {
          ignorePullFailures?: boolean
          ignoreBuildable?: boolean
          includeDeps?: boolean
          policy?: string
          quiet?: boolean
        },
      ) => {
        const { policy } = flags
        if (policy !== undefined && policy !== 'missing' && policy !== 'always') {
          throw usageError(`--policy ${policy}: choose missing or always`)
        }
        const quiet = flags.quiet === true
        return withSession(compose, { files: 'needed', services, quiet }, async (session) => {
          const project = projectOf(session)
          const entries = entriesOf(project, services, flags.includeDeps === true)
          const wanted = distinct(project, entries).filter(([, service]) => {
            if (service.image === undefined || service.provider) return false
            if (flags.ignoreBuildable && service.build) return false
            return service.pullPolicy !== 'never' && service.pullPolicy !== 'build'
          })
          await eachSettled(wanted, async ([name, service]) => {
            const image = imageOf(project, name, service)
            if (policy === 'missing') {
              const has = await session.world.engine.images
                .inspect(image, session.world.signal)
                .catch(() => undefined)
              if (has) return
            }
            try {
              await pullImage(session.world, image, service.platform, name)
            } catch (error) {
              const isPassed = flags.ignorePullFailures || service.build !== undefined
              if (!isPassed || session.world.signal.aborted) throw error
              session.world.warn(messageOf(error))
            }
          })
        })
      },
    )

  parent
    .command('push')
    .argument('[service...]')
    .description('Push the images of services that are built')
    .option('--ignore-push-failures', 'Go on with the others')
    .option('--include-deps', 'Also those that the services need')
    .option('-q, --quiet', 'Show no progress')
    .action(
      (
        services: string[],
        flags: { ignorePushFailures?: boolean; includeDeps?: boolean; quiet?: boolean },
      ) => {
        const quiet = flags.quiet === true
        return withSession(compose, { files: 'needed', services, quiet }, async (session) => {
          const project = projectOf(session)
          const entries = entriesOf(project, services, flags.includeDeps === true)
          const wanted = distinct(project, entries).filter(
            ([, { build, image }]) => build !== undefined && image !== undefined,
          )
          const failures: unknown[] = []
          await eachSettled(wanted, async ([name, service]) => {
            for (const image of [imageOf(project, name, service), ...(service.build?.tags ?? [])]) {
              try {
                await pushImage(session.world, image)
              } catch (error) {
                if (!flags.ignorePushFailures || session.world.signal.aborted) throw error
                failures.push(error)
                session.world.warn(messageOf(error))
              }
            }
          })
          if (wanted.length === 0) session.view.say('No service has both build and image')
          if (failures.length > 0 && failures.length === wanted.length) throw new Exit(1)
        })
      },
    )
}

/** Works on all at the same time, awaits all, and throws the first failure. */
async function eachSettled<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const results = await Promise.allSettled(items.map(work))
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
