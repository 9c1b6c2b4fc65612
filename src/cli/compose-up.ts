import type { Command } from 'commander'
import { messageOf, UserError, untilAborted } from '../base/index.ts'
import {
  type ContainerExit,
  down,
  Follower,
  forContainers,
  graphFor,
  LogPrinter,
  listContainers,
  type RunWorld,
  selectServices,
  stopContainer,
  type UpContainer,
  type UpOptions,
  up,
} from '../compose-run/index.ts'
import { collect, Exit, usageError } from './command.ts'
import { outputOf } from './compose-build-output.ts'
import type { AddCommand, ComposeContext } from './compose-files.ts'
import { parseSeconds, projectOf, type Session, withSession } from './compose-session.ts'
import { watchProject } from './compose-watch.ts'
import { Interrupted } from './io.ts'

interface MakeFlags {
  /** False with `--no-build`. */
  readonly build?: boolean
  readonly forceRecreate?: boolean
  readonly recreate?: boolean
  readonly pull?: string
  readonly quietPull?: boolean
  readonly removeOrphans?: boolean
  readonly scale?: readonly string[]
  readonly renewAnonVolumes?: boolean
  readonly alwaysRecreateDeps?: boolean
}

interface UpFlags extends MakeFlags {
  readonly detach?: boolean
  readonly abortOnContainerExit?: boolean
  readonly abortOnContainerFailure?: boolean
  readonly exitCodeFrom?: string
  readonly attach?: readonly string[]
  readonly attachDependencies?: boolean
  readonly noAttach?: readonly string[]
  readonly color?: boolean
  readonly deps?: boolean
  readonly logPrefix?: boolean
  readonly start?: boolean
  readonly timeout?: number
  readonly timestamps?: boolean
  readonly wait?: boolean
  readonly waitTimeout?: number
  readonly watch?: boolean
}

function addMakeOptions(command: Command): Command {
  return command
    .option('--build', 'Build images before containers are made')
    .option('--no-build', 'Build no image, even if it is missing')
    .option('--force-recreate', 'Make containers anew although nothing changed')
    .option('--no-recreate', 'Leave containers as they are although something changed')
    .option('--always-recreate-deps', 'Make the services that are needed anew, too')
    .option('--pull <policy>', 'always, missing, never, build or newer words of pull_policy')
    .option('--quiet-pull', 'Show no layers while pulling')
    .option('--remove-orphans', 'Remove containers of services that the files no longer have')
    .option('--scale <service=number>', 'Containers of a service (may be repeated)', collect)
    .option('-V, --renew-anon-volumes', 'New anonymous volumes instead of the old container’s')
    .option('-y, --yes', 'Ask nothing; nothing is asked anyway')
}

export const addUpCommands: AddCommand = (parent, compose) => {
  addMakeOptions(
    parent.command('up').argument('[service...]').description('Have the project run as declared'),
  )
    .option('-d, --detach', 'Leave the containers running, and come back')
    .option('--abort-on-container-exit', 'Stop all when one ends')
    .option('--abort-on-container-failure', 'Stop all when one fails')
    .option('--exit-code-from <service>', 'End with the code of this one; stops all when it ends')
    .option('--attach <service>', 'Show only the output of this one (may be repeated)', collect)
    .option('--attach-dependencies', 'Show the output of the services that are needed, too')
    .option('--no-attach <service>', 'Do not show the output of this one', collect)
    .option('--no-color', 'Output without colours')
    .option('--no-deps', 'Only the named services, without what they need')
    .option('--no-log-prefix', 'Lines of output without their container’s name')
    .option('--no-start', 'Make the containers, but start none')
    .option('-t, --timeout <seconds>', 'Time to stop in, then it is killed', parseSeconds)
    .option('--timestamps', 'Show the time of each line')
    .option('--wait', 'Come back when all run and are healthy')
    .option('--wait-timeout <seconds>', 'Longest wait', parseSeconds)
    .option('-w, --watch', 'Follow changes of the sources, as develop.watch says')
    .action((services: string[], flags: UpFlags) => runUp(compose, services, flags))

  addMakeOptions(
    parent
      .command('create')
      .argument('[service...]')
      .description('Make the containers of services, but start none'),
  ).action((services: string[], flags: MakeFlags) =>
    withSession(compose, { files: 'needed', services }, async (session) => {
      await up(session.world, projectOf(session), {
        ...makeOptions(services, flags, session),
        start: false,
        noDeps: false,
      })
    }),
  )

  parent
    .command('scale')
    .argument('<service=number...>')
    .description('Change how many containers services have')
    .option('--no-deps', 'Without what the services need')
    .action((pairs: string[], flags: { deps: boolean }) => {
      const scale = parseScale(pairs)
      const services = Object.keys(scale)
      return withSession(compose, { files: 'needed', services }, async (session) => {
        await up(session.world, projectOf(session), {
          ...makeOptions(services, { scale: pairs }, session),
          start: true,
          noDeps: !flags.deps,
        })
      })
    })

  parent
    .command('down')
    .argument('[service...]')
    .description('Stop and remove containers and networks')
    .option('-v, --volumes', 'Remove volumes of the project, and anonymous ones')
    .option('--rmi <which>', 'Remove images: all, or local (those without a name of their own)')
    .option('--remove-orphans', 'Remove containers of services that the files no longer have')
    .option('-t, --timeout <seconds>', 'Time to stop in, then it is killed', parseSeconds)
    .action(
      (
        services: string[],
        flags: { volumes?: boolean; rmi?: string; removeOrphans?: boolean; timeout?: number },
      ) => {
        const { rmi } = flags
        if (rmi !== undefined && rmi !== 'all' && rmi !== 'local') {
          throw usageError(`--rmi ${rmi}: choose all or local`)
        }
        return withSession(compose, { files: 'optional', services }, (session) =>
          down(session.world, session.name, session.project, {
            volumes: flags.volumes === true,
            removeOrphans: flags.removeOrphans === true,
            services,
            ...(rmi && { images: rmi }),
            ...(flags.timeout !== undefined && { timeoutSeconds: flags.timeout }),
          }),
        )
      },
    )
}

/** Reads `web=3 worker=2`. */
function parseScale(pairs: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const [, service = '', number = ''] = /^([^=]+)=(\d+)$/.exec(pair) ?? []
      if (service === '') throw usageError(`"${pair}": write it as service=number`)
      return [service, Number(number)]
    }),
  )
}

const pullPolicies = ['always', 'missing', 'never', 'build', 'if_not_present', 'daily', 'weekly']

function makeOptions(
  services: readonly string[],
  flags: MakeFlags,
  session: Session,
): Omit<UpOptions, 'start' | 'noDeps'> {
  const { pull } = flags
  if (pull !== undefined && !pullPolicies.includes(pull)) {
    throw usageError(`--pull ${pull}: choose of ${pullPolicies.join(', ')}`)
  }
  if (flags.forceRecreate && flags.recreate === false) {
    throw usageError('--force-recreate and --no-recreate contradict each other')
  }
  const recreate = flags.forceRecreate ? 'always' : flags.recreate === false ? 'never' : 'changed'
  return {
    services,
    recreate,
    recreateNeeds: flags.alwaysRecreateDeps ? 'always' : recreate === 'never' ? 'never' : 'changed',
    scale: parseScale(flags.scale ?? []),
    removeOrphans: flags.removeOrphans === true,
    renewVolumes: flags.renewAnonVolumes === true,
    images: {
      onBuildOutput: outputOf(session),
      ...(flags.quietPull && { quietPull: true }),
      ...(pull !== undefined && { pull }),
      ...(flags.build === true && { build: true }),
      ...(flags.build === false && { noBuild: true }),
    },
  }
}

async function runUp(compose: ComposeContext, services: string[], flags: UpFlags): Promise<void> {
  const isDetached = flags.detach === true || flags.wait === true || flags.start === false
  const aborts =
    flags.abortOnContainerExit || flags.abortOnContainerFailure || flags.exitCodeFrom !== undefined
  if (isDetached && aborts) {
    throw usageError(
      '--abort-on-container-exit, --abort-on-container-failure and --exit-code-from need the output: leave -d, --wait and --no-start out',
    )
  }
  if (isDetached && flags.watch) throw usageError('--watch needs the output: leave -d out')
  await withSession(compose, { files: 'needed', services }, async (session) => {
    const options: UpOptions = {
      ...makeOptions(services, flags, session),
      start: flags.start !== false,
      noDeps: flags.deps === false,
      ...(flags.timeout !== undefined && { timeoutSeconds: flags.timeout }),
      ...(flags.wait && {
        wait:
          flags.waitTimeout === undefined
            ? {}
            : { timeoutMs: Math.max(0, flags.waitTimeout) * 1000 },
      }),
    }
    if (isDetached || session.isDryRun) {
      await up(session.world, projectOf(session), options)
      return
    }
    const code = await upAttached(session, options, flags)
    if (code !== 0) throw new Exit(code)
  })
}

/** What Ctrl-C and a container's end ask of an attached `up`. */
interface Ending {
  readonly stop: AbortSignal
  readonly kill: AbortSignal
  readonly close: () => void
}

/** The first signal asks to stop, the second to kill. */
function listenForEnd(): Ending {
  const stop = new AbortController()
  const kill = new AbortController()
  const onSignal = (): void => {
    if (stop.signal.aborted) kill.abort(new Interrupted())
    else stop.abort(new Interrupted())
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  return {
    stop: stop.signal,
    kill: kill.signal,
    close: () => {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
    },
  }
}

async function upAttached(session: Session, options: UpOptions, flags: UpFlags): Promise<number> {
  const { io, name, view } = session
  const project = projectOf(session)
  const selection = selectServices(project, options.services, options.noDeps)
  if (flags.exitCodeFrom !== undefined && !Object.hasOwn(selection.services, flags.exitCodeFrom)) {
    throw usageError(`--exit-code-from ${flags.exitCodeFrom}: that service is not started`)
  }
  const isShown = (service: string): boolean => {
    if (flags.noAttach?.includes(service)) return false
    if (flags.attach) return flags.attach.includes(service)
    if (selection.services[service]?.attach === false) return false
    return flags.attachDependencies === true || selection.named.includes(service)
  }
  const ending = listenForEnd()
  // Output is followed until everything is stopped: it has a world that Ctrl-C does not end.
  const lasting = session.with(ending.kill)
  const printer = new LogPrinter(io, {
    colour: session.colour && flags.color !== false,
    prefix: flags.logPrefix !== false,
    timestamps: flags.timestamps === true,
  })
  let code = 0
  const aborted = new AbortController()
  const onExit = (exit: ContainerExit): void => {
    const isFailure = exit.code !== 0
    const isAsked = flags.exitCodeFrom === undefined || flags.exitCodeFrom === exit.service
    const aborts =
      flags.exitCodeFrom !== undefined
        ? isAsked
        : flags.abortOnContainerExit || (flags.abortOnContainerFailure && isFailure)
    if (!aborts || aborted.signal.aborted) return
    code = exit.code
    aborted.abort(exit)
  }
  const follower = new Follower(lasting, name, printer, {
    timestamps: flags.timestamps === true,
    onExit,
    // Containers that `watch` makes anew, or another command adds.
    accepts: (service) => isShown(service),
  })
  const shownNames = new Set<string>()
  const started: UpContainer[] = []
  try {
    await follower.open()
    const running = up(session.with(AbortSignal.any([ending.stop, aborted.signal])), project, {
      ...options,
      onContainer: async (container) => {
        if (started.length === 0) view.end()
        started.push(container)
        if (isShown(container.service)) shownNames.add(container.name)
        await follower.add(container, isShown(container.service))
      },
    })
    try {
      await running
    } catch (error) {
      if (!ending.stop.aborted && !aborted.signal.aborted) {
        // What was started goes on running, as with -d: the failure is told, and may be repaired.
        throw error
      }
    }
    if (started.length === 0 && !ending.stop.aborted) return code
    const ends: Promise<unknown>[] = [untilAborted(ending.stop), untilAborted(aborted.signal)]
    // What is watched is made anew and started again: its end is not the end.
    if (!flags.watch) ends.push(follower.ended())
    const watching = new AbortController()
    if (flags.watch) {
      const world = session.with(AbortSignal.any([watching.signal, ending.stop]))
      void watchProject(session, world, options.services).catch((error: unknown) => {
        if (!world.signal.aborted) view.say(`skep: warning: watching ended: ${messageOf(error)}`)
      })
    }
    await Promise.race(ends)
    watching.abort(new Interrupted())
    if (aborted.signal.aborted || ending.stop.aborted) {
      await stopAll(session, lasting, ending, options, aborted.signal.aborted)
      await follower.ended()
      if (ending.stop.aborted && !aborted.signal.aborted) return 130
    }
    return code
  } catch (error) {
    if (ending.kill.aborted) {
      await killAll(session)
      return 130
    }
    throw error
  } finally {
    follower.close()
    ending.close()
  }
}

async function stopAll(
  session: Session,
  world: RunWorld,
  ending: Ending,
  options: UpOptions,
  isAbort: boolean,
): Promise<void> {
  const { io, project } = session
  io.stderr.write(
    isAbort ? 'Stopping, because a container ended\n' : '\nStopping (press Ctrl-C again to kill)\n',
  )
  const plain: RunWorld = {
    ...world,
    progress: ({ id, text }) => io.stderr.write(` ${id}  ${text}\n`),
  }
  const containers = (await listContainers(plain, session.name)).filter(({ isOneOff }) => !isOneOff)
  const chosen = projectServices(session, options)
  const own = containers.filter(({ service }) => chosen.includes(service))
  await forContainers(graphFor(project, containers), own, 'needsLast', (container) =>
    stopContainer(plain, container, project?.services[container.service], options.timeoutSeconds),
  )
  if (ending.kill.aborted) throw new Interrupted()
}

function projectServices(session: Session, options: UpOptions): readonly string[] {
  const { services } = selectServices(projectOf(session), options.services, options.noDeps)
  return Object.keys(services)
}

async function killAll(session: Session): Promise<void> {
  const world = session.with(new AbortController().signal)
  session.io.stderr.write('Killing\n')
  const containers = await listContainers(world, session.name)
  await Promise.all(
    containers
      .filter(({ state, isOneOff }) => !isOneOff && state === 'running')
      .map(({ id }) =>
        world.engine.containers.kill(id, undefined, world.signal).catch((error: unknown) => {
          // It ended by itself in the meantime.
          if (!(error instanceof UserError) || error.code !== 'conflict') throw error
        }),
      ),
  )
}
