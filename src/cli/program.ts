import { Command, CommanderError } from 'commander'
import packageJson from '../../package.json' with { type: 'json' }
import { messageOf, UserError } from '../base/index.ts'
import { type CliContext, Exit, usageError } from './command.ts'
import { Interrupted, type Io } from './io.ts'

interface Group {
  readonly description: string
  readonly load: (context: CliContext) => Promise<Command>
}

/** Every group, in the order of the help. Only the one that is asked for is loaded. */
const groups: Readonly<Record<string, Group>> = {
  service: {
    description: 'Services: what should run',
    load: async (context) => (await import('./service-command.ts')).buildCommand(context),
  },
  stack: {
    description: 'Stacks: services that are deployed together',
    load: async (context) => (await import('./stack-command.ts')).buildCommand(context),
  },
  exec: {
    description: 'Run a command in a task, on whichever node it is',
    load: async (context) => (await import('./exec-command.ts')).buildCommand(context),
  },
  cp: {
    description: 'Copy between a task, on whichever node it is, and this machine',
    load: async (context) => (await import('./cp-command.ts')).buildCommand(context),
  },
  'port-forward': {
    description: 'Reach TCP ports of a task, on whichever node it is, from here',
    load: async (context) => (await import('./port-forward-command.ts')).buildCommand(context),
  },
  node: {
    description: 'Nodes: the machines of the cluster',
    load: async (context) => (await import('./node-command.ts')).buildCommand(context),
  },
  secret: {
    description: 'Secrets: data that only tasks see',
    load: async (context) =>
      (await import('./data-command.ts')).buildDataCommand(context, 'secret'),
  },
  config: {
    description: 'Configs: files of services',
    load: async (context) =>
      (await import('./data-command.ts')).buildDataCommand(context, 'config'),
  },
  network: {
    description: 'Networks: what services reach each other over',
    load: async (context) => (await import('./network-command.ts')).buildCommand(context),
  },
  net: {
    description: 'The network between and on the nodes, as it really is',
    load: async (context) => (await import('./net-command.ts')).buildCommand(context),
  },
  swarm: {
    description: 'The cluster: begin, leave, let others join',
    load: async (context) => (await import('./swarm-command.ts')).buildCommand(context),
  },
  token: {
    description: 'Join tokens with bounds: until when, how often, with which labels',
    load: async (context) => (await import('./token-command.ts')).buildCommand(context),
  },
  cluster: {
    description: 'The cluster as a whole: how evenly it is used',
    load: async (context) => (await import('./cluster-command.ts')).buildCommand(context),
  },
  backup: {
    description: 'Backups: the whole state of the cluster in one encrypted file',
    load: async (context) => (await import('./backup-command.ts')).buildCommand(context),
  },
  compose: {
    description: 'Compose projects on one Docker Engine, without a daemon of ours',
    load: async (context) => (await import('./compose-command.ts')).buildCommand(context),
  },
  explain: {
    description: 'Say why a service or task is not as declared',
    load: async (context) => (await import('./explain-command.ts')).buildCommand(context),
  },
  daemon: {
    description: 'Run this node: its agent, and a manager where it has that role',
    load: async () => (await import('./daemon-command.ts')).buildCommand(),
  },
}

/** Builds the program with the given groups in full and the others by name only. */
export async function buildProgram(
  io: Io,
  loaded: readonly string[],
  args: readonly string[] = [],
): Promise<Command> {
  const program = new Command('skep')
    .description(
      'Keeps services running on one machine or many, driven by the docker CLI or this one',
    )
    .version(`Skep version ${packageJson.version}`, '-v, --version', 'Print the version')
    .option('-H, --host <address>', 'Daemon to talk to (default: unix:///run/skep/docker.sock)')
    .enablePositionalOptions()
    .helpCommand(true)
  const context: CliContext = {
    io,
    host: () => program.opts<{ host?: string }>().host,
    args,
  }
  for (const [name, group] of Object.entries(groups)) {
    const command = loaded.includes(name)
      ? await group.load(context)
      : new Command(name).description(group.description)
    program.addCommand(command)
  }
  program
    .command('completion')
    .argument('<shell>', 'bash, zsh or fish')
    .description('Print the script that completes commands: source <(skep completion bash)')
    .action(async (shell: string) => {
      const { shells } = await import('./completion.ts')
      if (!shells.includes(shell)) {
        throw usageError(`"${shell}" is no shell that is known. Choose ${shells.join(', ')}.`)
      }
      await runCompletion(['complete', shell], io)
    })
  prepare(program, io)
  return program
}

function prepare(command: Command, io: Io): void {
  command
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      outputError: () => {}, // Told by `tell`, once.
    })
    .showSuggestionAfterError()
  for (const child of command.commands) prepare(child, io)
}

/** `complete -- words…`, as the scripts of `skep completion` call it, and the scripts themselves. All groups are loaded. */
async function runCompletion(args: readonly string[], io: Io): Promise<void> {
  const program = await buildProgram(io, Object.keys(groups))
  const { addCompletion } = await import('./completion.ts')
  const words = args.slice(args.indexOf('--') + 1)
  await addCompletion(program, { io, host: () => undefined }, words)
  await program.parseAsync([...args], { from: 'user' })
}

/** The first word that is not a flag of the root: the group. */
export function groupOf(args: readonly string[]): string | undefined {
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? ''
    if (arg === '-H' || arg === '--host') index++
    else if (!arg.startsWith('-')) {
      // `skep help service` is about the service group.
      if (arg === 'help') continue
      return arg
    }
  }
  return undefined
}

/**
 * `--init=false` as `--no-init` and `--init=true` as `--init`: docker's flags take a truth value so. Words behind the first operand
 * of a command that passes its own through are left alone.
 */
export function asSwitches(program: Command, args: readonly string[]): string[] {
  const out: string[] = []
  let command = program
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? ''
    if (arg === '--') return [...out, ...args.slice(index)]
    if (!arg.startsWith('-') || arg === '-') {
      const child = command.commands.find(
        (one) => one.name() === arg || one.aliases().includes(arg),
      )
      // An operand: options may still follow it, but for those whose rest is the container's command.
      const passesOn = ['create', 'exec', 'run'].includes(command.name())
      if (child === undefined && passesOn) return [...out, ...args.slice(index)]
      command = child ?? command
      out.push(arg)
      continue
    }
    const [, name = arg, value] = /^(--?[a-zA-Z-]+)=(.*)$/s.exec(arg) ?? []
    const option = command.options.find(({ long, short }) => name === long || name === short)
    const takesValue = option !== undefined && (option.required || option.optional)
    if (value === undefined && takesValue) {
      out.push(arg, ...args.slice(index + 1, index + 2))
      index++
    } else if (option !== undefined && !takesValue && /^(true|1)$/.test(value ?? '')) {
      out.push(name)
    } else if (option !== undefined && !takesValue && /^(false|0)$/.test(value ?? '')) {
      const negated = option.long?.replace(/^--(no-)?/, (_, no) => (no ? '--' : '--no-'))
      // What is off by itself needs no word.
      if (command.options.some(({ long }) => long === negated)) out.push(negated ?? name)
    } else out.push(arg)
  }
  return out
}

/** Runs one command line and gives its exit code: 0 done, 1 failed, 2 not understood. */
export async function runCommandLine(args: readonly string[], io: Io): Promise<number> {
  const group = groupOf(args)
  try {
    if (args[0] === 'complete') {
      await runCompletion(args, io)
      return 0
    }
    const program = await buildProgram(io, group === undefined ? [] : [group], args)
    if (args.length === 0) {
      program.outputHelp()
      return 0
    }
    await program.parseAsync(asSwitches(program, args), { from: 'user' })
    return 0
  } catch (error) {
    return tell(error, io)
  }
}

function tell(error: unknown, io: Io): number {
  if (error instanceof Exit) return error.code
  if (error instanceof Interrupted) return 130
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    if (error.code === 'commander.help') return 2 // A group without a command: its help is already shown.
    const text = error.message.replace(/^error: /, '').replace(/\n\(Did you mean/, ' (did you mean')
    io.stderr.write(`skep: ${text}\n`)
    return 2
  }
  if (error instanceof UserError) {
    const next = error.next === undefined ? '' : `. ${error.next}`
    io.stderr.write(
      `skep: ${next === '' ? error.message : error.message.replace(/\.$/, '')}${next}\n`,
    )
    return 1
  }
  io.stderr.write(`skep: ${messageOf(error)}\n`)
  if (io.env['SKEP_DEBUG'] && error instanceof Error) io.stderr.write(`${error.stack}\n`)
  return 1
}
