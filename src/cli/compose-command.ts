import type { Command } from 'commander'
import { type CliContext, collect, newCommand } from './command.ts'
import { addBuildCommands } from './compose-build.ts'
import { addExecCommands } from './compose-exec.ts'
import { addInstallCommand } from './compose-install.ts'
import { addLifeCommands } from './compose-life.ts'
import { addLogsCommand } from './compose-logs.ts'
import { addLookCommands } from './compose-look.ts'
import type { ComposeContext, ComposeFlags } from './compose-session.ts'
import { addUpCommands } from './compose-up.ts'
import { addWatchCommand } from './compose-watch.ts'

/** `skep compose`: projects of Compose files on one Docker Engine, without a daemon of ours. */
export function buildCommand(context: CliContext): Command {
  const command = newCommand('compose', 'Run a Compose project on one Docker Engine')
    .option('-f, --file <path>', 'Compose file; later ones lie over earlier ones', collect)
    .option('-p, --project-name <name>', 'Name of the project')
    .option('--profile <name>', 'Profile to make active; * is all', collect)
    .option('--env-file <path>', 'File with variables instead of .env', collect)
    .option('--project-directory <path>', 'Where relative paths of the files start')
    .option('--progress <kind>', 'auto, tty, plain, json or quiet')
    .option('--ansi <when>', 'Escape sequences: auto, always or never')
    .option('--parallel <number>', 'Calls of the engine at a time; -1 is no limit')
    .option('--dry-run', 'Show what would be done, and do nothing')
  const compose: ComposeContext = {
    context,
    io: context.io,
    flags: () => command.opts<ComposeFlags>(),
  }
  for (const add of [
    addUpCommands,
    addLifeCommands,
    addBuildCommands,
    addLookCommands,
    addLogsCommand,
    addExecCommands,
    addWatchCommand,
    addInstallCommand,
  ]) {
    add(command, compose)
  }
  return command
}
