import type { Command } from 'commander'
import { version } from '../daemon/version.ts'
import { type CliContext, collect, newCommand } from './command.ts'
import type { AddCommand, ComposeContext, ComposeFlags } from './compose-files.ts'

/** The commands of each part, which is loaded only when one of them is asked for. */
const parts: readonly {
  readonly names: readonly string[]
  readonly load: () => Promise<AddCommand>
}[] = [
  {
    names: ['up', 'create', 'scale', 'down'],
    load: async () => (await import('./compose-up.ts')).addUpCommands,
  },
  {
    names: ['start', 'stop', 'restart', 'pause', 'unpause', 'kill', 'rm', 'wait'],
    load: async () => (await import('./compose-life.ts')).addLifeCommands,
  },
  {
    names: ['build', 'pull', 'push'],
    load: async () => (await import('./compose-build.ts')).addBuildCommands,
  },
  {
    names: ['ps', 'ls', 'top', 'port', 'images', 'events', 'stats', 'version'],
    load: async () => (await import('./compose-look.ts')).addLookCommands,
  },
  {
    names: ['config', 'convert'],
    load: async () => (await import('./compose-config.ts')).addConfigCommand,
  },
  { names: ['logs'], load: async () => (await import('./compose-logs.ts')).addLogsCommand },
  {
    names: ['exec', 'run', 'cp'],
    load: async () => (await import('./compose-exec.ts')).addExecCommands,
  },
  { names: ['watch'], load: async () => (await import('./compose-watch.ts')).addWatchCommand },
  {
    names: ['install-alias'],
    load: async () => (await import('./compose-install.ts')).addInstallCommand,
  },
]

/** `skep compose`: projects of Compose files on one Docker Engine, without a daemon of ours. */
export async function buildCommand(context: CliContext): Promise<Command> {
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
    .version(`Skep Compose version ${version}`, '-v, --version', 'Print the version')
  const compose: ComposeContext = {
    context,
    io: context.io,
    flags: () => command.opts<ComposeFlags>(),
  }
  const word = commandOf(command, context.args ?? [])
  const part = parts.find(({ names }) => names.includes(word ?? ''))
  const loads = (part ? [part] : parts).map(({ load }) => load())
  for (const add of await Promise.all(loads)) add(command, compose)
  return command
}

/** The word behind `compose` that is neither a flag nor the value of one. */
function commandOf(compose: Command, args: readonly string[]): string | undefined {
  const words = args.slice(args.indexOf('compose') + 1)
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ''
    if (!word.startsWith('-')) return word
    const option = compose.options.find(({ short, long }) => word === short || word === long)
    if (option?.required) index++
  }
  return undefined
}
