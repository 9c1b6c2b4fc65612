import { UserError } from '../base/index.ts'
import {
  ContainerWatch,
  down,
  explainStart,
  forContainers,
  graphFor,
  isRunning,
  type Observed,
  removeContainer,
  shown,
  startContainer,
  stopContainer,
  up,
} from '../compose-run/index.ts'
import { Exit, usageError } from './command.ts'
import type { AddCommand, ComposeContext } from './compose-files.ts'
import {
  checkServices,
  parseSeconds,
  pickContainers,
  type Session,
  withSession,
} from './compose-session.ts'

interface OrderOptions {
  readonly order: 'needsFirst' | 'needsLast'
}

/** Works on the containers of the named services (all without names), in the order of what needs what. */
async function onContainers(
  session: Session,
  services: readonly string[],
  { order }: OrderOptions,
  which: (container: Observed) => boolean,
  work: (container: Observed) => Promise<void>,
): Promise<readonly Observed[]> {
  const containers = await pickContainers(session, services)
  const own = containers.filter(which)
  await forContainers(graphFor(session.project, containers), own, order, work)
  return containers
}

function nothingThere(session: Session, services: readonly string[]): UserError {
  const of = services.length > 0 ? `services ${services.join(', ')}` : `project ${session.name}`
  return new UserError('notFound', `${of} has no containers`, {
    next: 'Make them with skep compose up -d.',
  })
}

export const addLifeCommands: AddCommand = (parent, compose) => {
  addStart(parent, compose)
  const command = (name: string, description: string) =>
    parent.command(name).argument('[service...]').description(description)

  command('stop', 'Stop containers, and leave them there')
    .option('-t, --timeout <seconds>', 'Time to stop in, then it is killed', parseSeconds)
    .action((services: string[], { timeout }: { timeout?: number }) =>
      withSession(compose, { files: 'optional', services }, async (session) => {
        await onContainers(session, services, { order: 'needsLast' }, isRunning, (container) =>
          stopContainer(
            session.world,
            container,
            session.project?.services[container.service],
            timeout,
          ),
        )
      }),
    )

  command('restart', 'Restart containers, without changing them')
    .option('-t, --timeout <seconds>', 'Time to stop in, then it is killed', parseSeconds)
    .option('--no-deps', 'Without those that restart along (depends_on with restart: true)')
    .action((services: string[], flags: { timeout?: number; deps: boolean }) =>
      withSession(compose, { files: 'optional', services }, async (session) => {
        const wanted = flags.deps ? withDependants(session, services) : services
        const { world } = session
        const found = await onContainers(
          session,
          wanted,
          { order: 'needsFirst' },
          () => true,
          (container) =>
            shown(world, `Container ${container.name}`, ['Restarting', 'Started'], async () => {
              const { timeout } = flags
              await world.engine.containers
                .restart(
                  container.id,
                  { ...(timeout !== undefined && { timeoutSeconds: timeout }) },
                  world.signal,
                )
                .catch((error: unknown) => {
                  throw explainStart(container.name, error)
                })
            }),
        )
        if (found.length === 0) throw nothingThere(session, services)
      }),
    )

  for (const [name, words, state] of [
    ['pause', ['Pausing', 'Paused'], 'running'],
    ['unpause', ['Unpausing', 'Unpaused'], 'paused'],
  ] as const) {
    command(name, name === 'pause' ? 'Freeze containers' : 'Let frozen containers go on').action(
      (services: string[]) =>
        withSession(compose, { files: 'optional', services }, async (session) => {
          const { world } = session
          await onContainers(
            session,
            services,
            { order: 'needsLast' },
            (container) => container.state === state,
            (container) =>
              shown(world, `Container ${container.name}`, words, () =>
                world.engine.containers[name](container.id, world.signal),
              ),
          )
        }),
    )
  }

  command('kill', 'Send containers a signal')
    .option('-s, --signal <signal>', 'Signal', 'SIGKILL')
    .option('--remove-orphans', 'Remove containers of services that the files no longer have')
    .action((services: string[], flags: { signal: string; removeOrphans?: boolean }) =>
      withSession(compose, { files: 'optional', services }, async (session) => {
        const { world } = session
        const found = await onContainers(
          session,
          services,
          { order: 'needsLast' },
          isRunning,
          (container) =>
            shown(world, `Container ${container.name}`, ['Killing', 'Killed'], () =>
              world.engine.containers.kill(container.id, flags.signal, world.signal),
            ),
        )
        if (found.length === 0) throw nothingThere(session, services)
        if (flags.removeOrphans) await removeOrphans(session)
      }),
    )

  command('rm', 'Remove stopped containers')
    .option('-f, --force', 'Ask nothing')
    .option('-s, --stop', 'Stop them first')
    .option('-v, --volumes', 'Remove their anonymous volumes, too')
    .action((services: string[], flags: { force?: boolean; stop?: boolean; volumes?: boolean }) =>
      withSession(compose, { files: 'optional', services }, (session) =>
        removeStopped(session, services, flags),
      ),
    )

  parent
    .command('wait')
    .argument('<service...>')
    .description('Wait until the first of these ends, and end with its code')
    .option('--down-project', 'Then take the project down')
    .action((services: string[], flags: { downProject?: boolean }) =>
      withSession(compose, { files: 'optional', services }, (session) =>
        waitForEnd(session, services, flags.downProject === true),
      ),
    )
}

function addStart(parent: Parameters<AddCommand>[0], compose: ComposeContext): void {
  parent
    .command('start')
    .argument('[service...]')
    .description('Start containers that are there')
    .option('--wait', 'Come back when all run and are healthy')
    .option('--wait-timeout <seconds>', 'Longest wait', parseSeconds)
    .action((services: string[], flags: { wait?: boolean; waitTimeout?: number }) =>
      withSession(compose, { files: 'optional', services }, async (session) => {
        const { world, project, name } = session
        if (project !== undefined) {
          const found = await pickContainers(session, services)
          if (found.length === 0) throw nothingThere(session, services)
          // Conditions of depends_on hold for a start, too; nothing is made or changed.
          const present = new Set(found.map(({ service }) => service))
          const counts = Object.fromEntries(
            [...present].map((service) => [
              service,
              found.filter((container) => container.service === service).length,
            ]),
          )
          const named = services.length > 0 ? services : [...present]
          const known = named.filter(
            (service) => project.services[service] ?? project.disabledServices[service],
          )
          await up(world, project, {
            services: known,
            noDeps: false,
            recreate: 'never',
            recreateNeeds: 'never',
            start: true,
            scale: {
              ...Object.fromEntries(Object.keys(project.services).map((service) => [service, 0])),
              ...counts,
            },
            removeOrphans: false,
            renewVolumes: false,
            images: { skip: true },
            ...(flags.wait && {
              wait: flags.waitTimeout === undefined ? {} : { timeoutMs: flags.waitTimeout * 1000 },
            }),
          })
          return
        }
        if (flags.wait) throw usageError('--wait needs the Compose file: name it with -f')
        const found = await onContainers(
          session,
          services,
          { order: 'needsFirst' },
          (container) => !isRunning(container),
          (container) =>
            shown(world, `Container ${container.name}`, ['Starting', 'Started'], () =>
              startContainer(world, container, {}),
            ),
        )
        if (found.length === 0) {
          throw new UserError('notFound', `project ${name} has no containers`, {
            next: 'Make them with skep compose up -d.',
          })
        }
      }),
    )
}

/** The services, and those that asked to be restarted with them. */
function withDependants(session: Session, services: readonly string[]): readonly string[] {
  if (services.length === 0) return services
  const found = new Set(services)
  const all = Object.entries(session.project?.services ?? {})
  for (let before = -1; before !== found.size; ) {
    before = found.size
    for (const [name, { dependsOn = {} }] of all) {
      if (Object.entries(dependsOn).some(([other, { restart }]) => restart && found.has(other))) {
        found.add(name)
      }
    }
  }
  return [...found]
}

async function removeOrphans(session: Session): Promise<void> {
  const { project, world } = session
  if (project === undefined)
    throw usageError('--remove-orphans needs the Compose file: name it with -f')
  const known = { ...project.services, ...project.disabledServices }
  const containers = await pickContainers(session, [])
  await Promise.all(
    containers
      .filter(({ service }) => !Object.hasOwn(known, service))
      .map((container) => removeContainer(world, container, { volumes: false, force: true })),
  )
}

async function removeStopped(
  session: Session,
  services: readonly string[],
  flags: { readonly force?: boolean; readonly stop?: boolean; readonly volumes?: boolean },
): Promise<void> {
  const { world, io, project } = session
  const all = await pickContainers(session, services, { oneOff: true })
  const chosen = all.filter((container) => flags.stop || !isRunning(container))
  if (chosen.length === 0) {
    io.stdout.write('There are no stopped containers\n')
    return
  }
  if (!flags.force) {
    const names = chosen.map(({ name }) => name).join(', ')
    io.stderr.write(`Going to remove ${names}\nReally? [y/N] `)
    const answer = await firstLine(io.stdin)
    if (!/^y(es)?$/i.test(answer.trim())) return
  }
  await forContainers(graphFor(project, all), chosen, 'needsLast', async (container) => {
    await stopContainer(world, container, project?.services[container.service], undefined)
    await removeContainer(world, container, { volumes: flags.volumes === true })
  })
}

async function firstLine(input: AsyncIterable<Buffer | string>): Promise<string> {
  let text = ''
  for await (const part of input) {
    text += part.toString()
    if (text.includes('\n')) break
  }
  return text.split('\n')[0] ?? ''
}

async function waitForEnd(
  session: Session,
  services: readonly string[],
  downProject: boolean,
): Promise<void> {
  checkServices(session, services, await pickContainers(session, []))
  const containers = await pickContainers(session, services)
  if (containers.length === 0) throw nothingThere(session, services)
  const watch = new ContainerWatch(session.world, session.name)
  try {
    const code = await Promise.race(
      containers.map(({ id }) =>
        watch.until(id, ({ State }) =>
          State.Status === 'exited' || State.Status === 'dead' ? State.ExitCode : undefined,
        ),
      ),
    )
    session.io.stdout.write(`${code}\n`)
    if (downProject) {
      await down(session.world, session.name, session.project, {
        volumes: false,
        removeOrphans: false,
        services: [],
      })
    }
    if (code !== 0) throw new Exit(code)
  } finally {
    watch.close()
  }
}
