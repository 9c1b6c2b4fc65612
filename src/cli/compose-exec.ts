import { randomBytes } from 'node:crypto'
import type { Command } from 'commander'
import { UserError } from '../base/index.ts'
import { type ComposeService, serviceHash, splitShellWords } from '../compose/index.ts'
import {
  createContainer,
  ensureImages,
  ensureNetworks,
  ensureVolumes,
  explainStart,
  graphOf,
  listContainers,
  readServiceFiles,
  removeContainer,
  selectServices,
  sharedWith,
  up,
} from '../compose-run/index.ts'
import { collect, Exit, usageError } from './command.ts'
import { addCopyCommand } from './compose-copy.ts'
import type { AddCommand, ComposeContext } from './compose-files.ts'
import {
  parseIndex,
  pickContainer,
  projectOf,
  type Session,
  withSession,
} from './compose-session.ts'
import { joinStreams } from './compose-terminal.ts'

interface ExecFlags {
  readonly detach?: boolean
  readonly env?: readonly string[]
  readonly index?: number
  readonly privileged?: boolean
  readonly user?: string
  readonly workdir?: string
  /** False with `-T`. */
  readonly tty?: boolean
  readonly interactive?: boolean
}

interface RunFlags {
  readonly build?: boolean
  readonly capAdd?: readonly string[]
  readonly capDrop?: readonly string[]
  readonly detach?: boolean
  readonly entrypoint?: string
  readonly env?: readonly string[]
  readonly interactive?: boolean
  readonly label?: readonly string[]
  readonly name?: string
  readonly deps?: boolean
  readonly publish?: readonly string[]
  readonly pull?: string
  readonly quietPull?: boolean
  readonly removeOrphans?: boolean
  readonly rm?: boolean
  readonly servicePorts?: boolean
  readonly useAliases?: boolean
  readonly user?: string
  readonly volume?: readonly string[]
  readonly workdir?: string
}

export const addExecCommands: AddCommand = (parent, compose) => {
  passThrough(parent.command('exec'))
    .argument('<service>')
    .argument('<command...>')
    .description('Run a command in a container that runs')
    .option('-d, --detach', 'Leave it running, and come back')
    .option('-e, --env <name=value>', 'Variable (may be repeated)', collect)
    .option('--index <number>', 'Number of the container', parseIndex)
    .option('-i, --interactive', 'Pass input on; the default')
    .option('-T, --no-tty', 'Without a terminal')
    .option('-t, --tty', 'With a terminal; the default where there is one')
    .option('--privileged', 'With all capabilities')
    .option('-u, --user <user>', 'Run as this user')
    .option('-w, --workdir <path>', 'Run in this directory')
    .action((service: string, command: string[], flags: ExecFlags) =>
      withSession(compose, { files: 'optional', services: [service], quiet: true }, (session) =>
        runExec(session, service, command, flags),
      ),
    )

  passThrough(parent.command('run'))
    .argument('<service>')
    .argument('[command...]')
    .description('Run a command in a new container of a service, once')
    .option('--build', 'Build the image first')
    .option('--cap-add <capability>', 'Add a capability', collect)
    .option('--cap-drop <capability>', 'Take a capability away', collect)
    .option('-d, --detach', 'Leave it running, and print its name')
    .option('--entrypoint <command>', 'Instead of the service’s entrypoint')
    .option('-e, --env <name=value>', 'Variable (may be repeated)', collect)
    .option('-i, --interactive', 'Pass input on; the default')
    .option('--no-interactive', 'Pass no input on')
    .option('-l, --label <name=value>', 'Label (may be repeated)', collect)
    .option('--name <name>', 'Name of the container')
    .option('-T, --no-tty', 'Without a terminal')
    .option('-t, --tty', 'With a terminal; the default where there is one')
    .option('--no-deps', 'Do not start what the service needs')
    .option('-p, --publish <port>', 'Publish a port (may be repeated)', collect)
    .option('--pull <policy>', 'always, missing or never')
    .option('--quiet-pull', 'Show no layers while pulling')
    .option('--remove-orphans', 'Remove containers of services that the files no longer have')
    .option('--rm', 'Remove the container when it ends')
    .option('-P, --service-ports', 'Publish the ports of the service')
    .option('--use-aliases', 'Answer to the names of the service in its networks')
    .option('-u, --user <user>', 'Run as this user')
    .option('-v, --volume <volume>', 'Mount, source:target[:ro] (may be repeated)', collect)
    .option('-w, --workdir <path>', 'Run in this directory')
    .action((service: string, command: string[], flags: RunFlags & { tty?: boolean }) =>
      runOnce(compose, service, command, flags),
    )

  addCopyCommand(parent, compose)
}

/** Words behind the service are the container's, whatever they look like. */
function passThrough(command: Command): Command {
  return command.passThroughOptions()
}

/** Whether the other side gets a terminal: as asked, else where this side has one. */
function wantsTty(session: Session, tty: boolean | undefined): boolean {
  if (tty === false) return false
  const has = session.io.stdin.isTTY === true && session.io.stdout.isTTY === true
  return tty === true || has
}

function refuseDryRun({ isDryRun }: Session): void {
  if (isDryRun)
    throw usageError('--dry-run: what a command would do can’t be told without running it')
}

function variablesOf(session: Session, texts: readonly string[] | undefined): readonly string[] {
  return (texts ?? []).flatMap((text) => {
    if (text.includes('=')) return [text]
    const value = session.io.env[text]
    return value === undefined ? [] : [`${text}=${value}`]
  })
}

async function runExec(
  session: Session,
  service: string,
  command: readonly string[],
  flags: ExecFlags,
): Promise<void> {
  const { world, io } = session
  const { engine, signal } = world
  refuseDryRun(session)
  const container = await pickContainer(session, service, flags.index)
  const tty = !flags.detach && wantsTty(session, flags.tty)
  const stdin = !flags.detach && flags.interactive !== false
  const env = variablesOf(session, flags.env)
  const { Id } = await engine.execs.create(
    container.id,
    {
      Cmd: command,
      AttachStdin: stdin,
      AttachStdout: !flags.detach,
      AttachStderr: !flags.detach,
      Tty: tty,
      ...(env.length > 0 && { Env: env }),
      ...(flags.user !== undefined && { User: flags.user }),
      ...(flags.workdir !== undefined && { WorkingDir: flags.workdir }),
      ...(flags.privileged && { Privileged: true }),
    },
    signal,
  )
  if (flags.detach) {
    await engine.execs.startDetached(Id, { tty }, signal)
    return
  }
  const stream = await engine.execs.hijack(Id, { tty })
  await joinStreams(io, stream, {
    tty,
    stdin,
    resize: (size) => engine.execs.resize(Id, size),
  })
  const { ExitCode } = await engine.execs.inspect(Id)
  if (ExitCode !== 0) throw new Exit(ExitCode ?? 1)
}

/** The service as `run` changes it: no published ports, no restarts, and what the flags say. */
function oneOffService(
  session: Session,
  service: ComposeService,
  command: readonly string[],
  flags: RunFlags,
  tty: boolean,
  stdin: boolean,
): ComposeService {
  const {
    ports: servicePorts,
    restart: _restart,
    containerName: _containerName,
    healthcheck: _healthcheck,
    deploy,
    networks,
    ...kept
  } = service
  const published = (flags.publish ?? []).flatMap((text) => parsePublished(text))
  const ports = [...(flags.servicePorts ? (servicePorts ?? []) : []), ...published]
  const environment = Object.fromEntries(
    variablesOf(session, flags.env).map((text) => {
      const at = text.indexOf('=')
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
  const labels = Object.fromEntries(
    (flags.label ?? []).map((text) => {
      const [name = '', ...value] = text.split('=')
      return [name, value.join('=')]
    }),
  )
  const { restartPolicy: _policy, ...keptDeploy } = deploy ?? {}
  const withoutAddress = Object.fromEntries(
    Object.entries(networks ?? {}).map(([name, { ipv4Address: _4, ipv6Address: _6, ...rest }]) => [
      name,
      // A fixed address is the service's own container's.
      rest,
    ]),
  )
  return {
    ...kept,
    ...(networks && { networks: flags.useAliases ? networks : withoutAddress }),
    ...(deploy && { deploy: keptDeploy }),
    ...(ports.length > 0 && { ports }),
    tty,
    stdinOpen: stdin,
    environment: { ...service.environment, ...environment },
    labels: { ...service.labels, ...labels },
    ...(command.length > 0 && { command }),
    ...(flags.entrypoint !== undefined && {
      entrypoint: splitShellWords(flags.entrypoint),
      // The command was meant for the entrypoint that is replaced.
      command,
    }),
    ...(flags.user !== undefined && { user: flags.user }),
    ...(flags.workdir !== undefined && { workingDir: flags.workdir }),
    ...(flags.capAdd && { capAdd: [...(service.capAdd ?? []), ...flags.capAdd] }),
    ...(flags.capDrop && { capDrop: [...(service.capDrop ?? []), ...flags.capDrop] }),
    ...(flags.volume && {
      volumes: [
        ...(service.volumes ?? []),
        ...flags.volume.map((text) => parseVolume(session, text)),
      ],
    }),
  }
}

/** Reads `80`, `8080:80`, `127.0.0.1:8080:80/udp`, `9000-9001:90-91` of `--publish`. */
export function parsePublished(text: string): NonNullable<ComposeService['ports']> {
  const match =
    /^(?:(\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):)?(?:(\d*)(?:-(\d+))?:)?(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(
      text,
    )
  if (!match) throw usageError(`--publish ${text}: write it as 8080:80 or 127.0.0.1:53:53/udp`)
  const [, address, published = '', publishedLast, target, targetLast = target, protocol] = match
  const from = Number(target)
  const count = Number(targetLast) - from + 1
  const publishedFrom = Number(published)
  const publishedCount = publishedLast === undefined ? 1 : Number(publishedLast) - publishedFrom + 1
  // Of a range for one port, the engine takes the first that is free.
  const isRange = count === 1 && publishedCount > 1
  if (count < 1 || (published !== '' && !isRange && publishedCount !== count)) {
    throw usageError(`--publish ${text}: the ranges are of unequal length`)
  }
  return Array.from({ length: count }, (_, index) => ({
    target: from + index,
    protocol: protocolOf(protocol),
    ...(address !== undefined && { hostIp: address.replace(/^\[|\]$/g, '') }),
    ...(published !== '' && {
      published: isRange
        ? { first: publishedFrom, last: Number(publishedLast) }
        : { first: publishedFrom + index, last: publishedFrom + index },
    }),
  }))
}

function protocolOf(text = 'tcp'): 'tcp' | 'udp' | 'sctp' {
  const lower = text.toLowerCase()
  return lower === 'udp' || lower === 'sctp' ? lower : 'tcp'
}

function parseVolume(
  { io, project }: Session,
  text: string,
): NonNullable<ComposeService['volumes']>[number] {
  const [source = '', target, mode] = text.split(':')
  if (target === undefined) return { type: 'volume', target: source }
  const readOnly = mode?.split(',').includes('ro') ? { readOnly: true } : {}
  if (!/^[./~]/.test(source)) {
    if (project?.volumes[source] === undefined) {
      throw usageError(
        `-v ${text}: the files define no volume ${source}; a path begins with / or ./`,
      )
    }
    return { type: 'volume', source, target, ...readOnly }
  }
  const home = source.replace(/^~(?=\/|$)/, io.env['HOME'] ?? '~')
  const path = new URL(home, `file://${io.directory}/`).pathname
  return { type: 'bind', source: path, target, ...readOnly, bind: { createHostPath: true } }
}

async function runOnce(
  compose: ComposeContext,
  name: string,
  command: readonly string[],
  flags: RunFlags & { readonly tty?: boolean },
): Promise<void> {
  await withSession(compose, { files: 'needed', services: [name] }, async (session) => {
    const { world, io, view } = session
    refuseDryRun(session)
    const project = projectOf(session)
    const { services } = selectServices(project, [name], true)
    const declared = services[name]
    if (declared === undefined) return
    const tty = !flags.detach && wantsTty(session, flags.tty)
    const stdin = !flags.detach && flags.interactive !== false
    const needs = graphOf({ ...project.services, ...project.disabledServices })[name] ?? []
    if (flags.deps !== false && needs.length > 0) {
      await up(world, project, {
        services: needs,
        noDeps: false,
        recreate: 'changed',
        recreateNeeds: 'changed',
        start: true,
        scale: {},
        removeOrphans: flags.removeOrphans === true,
        renewVolumes: false,
        images: { ...(flags.quietPull && { quietPull: true }) },
        conditions: declared.dependsOn ?? {},
      })
    }
    const service = oneOffService(session, declared, command, flags, tty, stdin)
    const slug = randomBytes(32).toString('hex')
    const containerName = flags.name ?? `${project.name}-${name}-run-${slug.slice(0, 12)}`
    const id = await makeOneOff(session, name, service, containerName, slug, flags)
    view.end()
    const container = { id, name: containerName }
    const { engine } = world
    if (flags.detach) {
      await startOrExplain(session, container)
      io.stdout.write(`${containerName}\n`)
      return
    }
    const stream = await engine.containers.attach(id, {
      stdin,
      stdout: true,
      stderr: true,
    })
    // Ctrl-C and its like go to the container, which ends as it likes.
    let interrupted = false
    const pass = (signal: NodeJS.Signals): void => {
      interrupted = true
      engine.containers.kill(id, signal).catch(() => {})
    }
    process.on('SIGINT', pass)
    process.on('SIGTERM', pass)
    try {
      const ended = engine.containers.wait(id, 'next-exit')
      // Heard of below, and not before the output is through.
      ended.catch(() => {})
      const joined = joinStreams(io, stream, {
        tty,
        stdin,
        resize: (size) => engine.containers.resize(id, size),
      })
      joined.catch(() => {})
      await startOrExplain(session, container).catch((error: unknown) => {
        stream.destroy()
        // It was ended before it had begun.
        throw interrupted ? new Exit(130) : error
      })
      await joined
      const { StatusCode } = await ended
      if (StatusCode !== 0) throw new Exit(StatusCode)
    } finally {
      process.off('SIGINT', pass)
      process.off('SIGTERM', pass)
      if (flags.rm) {
        const quiet = { ...session.with(new AbortController().signal), progress: () => {} }
        const [observed] = (await listContainers(quiet, session.name)).filter(
          (one) => one.id === id,
        )
        if (observed) await removeContainer(quiet, observed, { volumes: true, force: true })
      }
    }
  })
}

async function startOrExplain(
  { world }: Session,
  container: { readonly id: string; readonly name: string },
): Promise<void> {
  await world.engine.containers.start(container.id, world.signal).catch((error: unknown) => {
    throw explainStart(container.name, error)
  })
}

async function makeOneOff(
  session: Session,
  name: string,
  service: ComposeService,
  containerName: string,
  slug: string,
  flags: RunFlags,
): Promise<string> {
  const { world } = session
  const project = projectOf(session)
  const { engine, signal } = world
  const volumeKeys = (service.volumes ?? []).flatMap(({ type, source }) =>
    type === 'volume' && source !== undefined ? [source] : [],
  )
  const [networks, volumes, images, files, containers] = await Promise.all([
    engine.networks.list({}, signal),
    volumeKeys.length > 0 ? engine.volumes.list({}, signal) : [],
    ensureImages(
      world,
      project,
      { [name]: service },
      {
        ...(flags.build && { build: true }),
        ...(flags.pull !== undefined && { pull: flags.pull }),
        ...(flags.quietPull && { quietPull: true }),
      },
    ),
    readServiceFiles(project, name, service, world.readFile),
    listContainers(world, project.name),
  ])
  await Promise.all([
    ensureNetworks(world, project, Object.keys(service.networks ?? {}), networks),
    ensureVolumes(world, project, volumeKeys, volumes),
  ])
  const links = (service.links ?? []).map((text) => text.split(':')[0] ?? '')
  for (const other of [...sharedWith(service), ...links]) {
    if (containers.some((one) => one.service === other && !one.isOneOff)) continue
    throw new UserError(
      'failedPrecondition',
      `service ${name} needs a container of ${other}, and there is none`,
      {
        next: `Start it with skep compose up -d ${other}.`,
      },
    )
  }
  return createContainer(world, project, {
    name,
    service,
    number: 1,
    containerName,
    hash: serviceHash(service, files.contents),
    image: images.get(name),
    files,
    containerIdOf: (other) => containers.find((one) => one.service === other && !one.isOneOff)?.id,
    slug,
    useAliases: flags.useAliases === true,
    // Attached to its input once, so that a program that reads to the end comes to one.
    stdinOnce: !flags.detach,
    autoRemove: flags.rm === true && flags.detach === true,
  })
}
