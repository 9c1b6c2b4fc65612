import type { Command } from 'commander'
import { UserError } from '../base/index.ts'
import { type CliContext, collect, Exit, newCommand } from './command.ts'
import { joinStreams } from './compose-terminal.ts'
import type { Io } from './io.ts'
import { withTaskEngine } from './running-task.ts'

interface ExecFlags {
  readonly detach?: boolean
  readonly env?: readonly string[]
  readonly interactive?: boolean
  readonly privileged?: boolean
  readonly tty?: boolean
  readonly user?: string
  readonly workdir?: string
}

export async function buildCommand(context: CliContext): Promise<Command> {
  return newCommand('exec', 'Run a command in a task, on whichever node it is')
    .passThroughOptions()
    .argument('<task>', 'Service, service.slot, or beginning of a task’s id')
    .argument('<command...>')
    .option('-d, --detach', 'Leave it running, and come back')
    .option('-e, --env <name=value>', 'Variable (may be repeated)', collect)
    .option('-i, --interactive', 'Pass input on')
    .option('--privileged', 'With all capabilities')
    .option('-t, --tty', 'With a terminal')
    .option('-u, --user <user>', 'Run as this user')
    .option('-w, --workdir <path>', 'Run in this directory')
    .action((task: string, command: string[], flags: ExecFlags) =>
      exec(context, task, command, flags),
    )
}

async function exec(
  context: CliContext,
  name: string,
  command: readonly string[],
  flags: ExecFlags,
): Promise<void> {
  const { io } = context
  const attached = !flags.detach
  const stdin = attached && flags.interactive === true
  const tty = flags.tty === true
  if (stdin && tty && io.stdin.isTTY !== true) {
    throw new UserError('invalidInput', 'the input is no terminal', {
      next: 'Leave out -t to pipe into the command.',
    })
  }
  await withTaskEngine(context, name, async ({ ContainerID }, engine) => {
    const env = variablesOf(io, flags.env)
    const { Id } = await engine.execs.create(ContainerID, {
      Cmd: command,
      AttachStdin: stdin,
      AttachStdout: attached,
      AttachStderr: attached,
      Tty: tty,
      ...(env.length > 0 && { Env: env }),
      ...(flags.user !== undefined && { User: flags.user }),
      ...(flags.workdir !== undefined && { WorkingDir: flags.workdir }),
      ...(flags.privileged && { Privileged: true }),
    })
    if (flags.detach) {
      await engine.execs.startDetached(Id, { tty })
      return
    }
    const stream = await engine.execs.hijack(Id, { tty })
    await joinStreams(io, stream, {
      tty,
      stdin,
      resize: (size) => engine.execs.resize(Id, size),
    })
    const { ExitCode, Running } = await engine.execs.inspect(Id)
    if (Running) {
      throw new UserError('unavailable', 'the connection to the command broke; it still runs')
    }
    if (ExitCode !== 0) throw new Exit(ExitCode ?? 1)
  })
}

/** `NAME=value`, or `NAME` with the value that it has here. */
function variablesOf(io: Io, texts: readonly string[] | undefined): readonly string[] {
  return (texts ?? []).flatMap((text) => {
    if (text.includes('=')) return [text]
    const value = io.env[text]
    return value === undefined ? [] : [`${text}=${value}`]
  })
}
