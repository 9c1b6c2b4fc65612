import type { Command } from 'commander'
import { type CliContext, newCommand, usageError } from './command.ts'
import { type CopyFlags, copyIn, copyOut, parsePlace } from './container-copy.ts'
import { withTaskEngine } from './running-task.ts'

export async function buildCommand(context: CliContext): Promise<Command> {
  return newCommand(
    'cp',
    'Copy between a task (task:path), on whichever node it is, and this machine',
  )
    .argument('<source>', 'task:path, a path here, or - for a tar of standard input')
    .argument('<target>', 'A path here, - for a tar to standard output, or task:path')
    .option('-a, --archive', 'Keep owners')
    .option('-L, --follow-link', 'Copy what a link leads to')
    .action((source: string, target: string, flags: CopyFlags) =>
      copy(context, source, target, flags),
    )
}

async function copy(
  context: CliContext,
  source: string,
  target: string,
  flags: CopyFlags,
): Promise<void> {
  const [fromTask, from] = parsePlace(source)
  const [toTask, to] = parsePlace(target)
  if ((fromTask === undefined) === (toTask === undefined)) {
    throw usageError('copy between a task (task:path) and this machine: one of each')
  }
  const { io } = context
  const warn = (text: string): void => {
    io.stderr.write(`skep: warning: ${text}\n`)
  }
  await withTaskEngine(context, fromTask ?? toTask ?? '', async (task, engine) => {
    const container = { id: task.ContainerID, name: task.Name }
    const world = { io, engine, signal: io.signal, warn }
    if (fromTask === undefined) await copyIn(world, from, container, to, flags)
    else await copyOut(world, container, from, to)
  })
}
