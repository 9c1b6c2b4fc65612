import { readFileSync, readlinkSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { type CommandResult, runCommand } from './command.ts'
import { CommandShell } from './command-shell.ts'

/** Where commands run: the host's own network namespace, or a task's. */
export interface Namespace {
  readonly name: string
  /** Runs a program there. `undefined`: the namespace is gone with its processes. */
  run(program: string, args: readonly string[], stdin?: string): Promise<CommandResult | undefined>
}

const shell = new CommandShell()

export const hostNamespace: Namespace = {
  name: 'the host',
  run: async (program, args, stdin = '') =>
    (await shell.run(program, args, stdin)) ?? (await runCommand(program, args, { stdin })),
}

/** A process and its network namespace, told apart from a later process with the same pid. */
export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks since boot; with the pid it names one process for ever. */
  readonly startTicks: number
  /** `net:[4026532001]` */
  readonly namespace: string
}

/** Who has the pid now, or undefined when nobody has. Reads memory of the kernel only, so it does not wait. */
export function identify(pid: number): ProcessIdentity | undefined {
  if (pid <= 0) return undefined
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const namespace = readlinkSync(`/proc/${pid}/ns/net`)
    // The command's name, in brackets, may hold anything; fields are counted after it. Source: proc_pid_stat(5).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const startTicks = Number(fields[19])
    return fields[0] === 'Z' ? undefined : { pid, startTicks, namespace }
  } catch {
    return undefined // It ended: the next desired state says so.
  }
}

/** Opens the namespace of a process; the caller closes it. `undefined`: the process has ended. */
export async function holdNamespace(identity: ProcessIdentity): Promise<FileHandle | undefined> {
  let handle: FileHandle
  try {
    handle = await open(`/proc/${identity.pid}/ns/net`)
  } catch {
    return undefined // It ended.
  }
  const now = identify(identity.pid)
  if (now?.startTicks === identity.startTicks && now.namespace === identity.namespace) {
    return handle
  }
  await handle.close()
  return undefined
}

/** The namespace of a process. Held only while a command runs, so that it may end with its processes. */
export function processNamespace(name: string, identity: ProcessIdentity): Namespace {
  return {
    name,
    async run(program, args, stdin) {
      const handle = await holdNamespace(identity)
      if (!handle) return undefined
      try {
        return await runCommand('nsenter', ['--net=/proc/self/fd/3', program, ...args], {
          fds: [handle.fd],
          ...(stdin === undefined ? {} : { stdin }),
        })
      } finally {
        await handle.close()
      }
    },
  }
}
