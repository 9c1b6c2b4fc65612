import { spawn } from 'node:child_process'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../support/daemon.ts'

/** A process, told apart from a later one with the same pid. */
export interface ProcessMark {
  readonly pid: number
  readonly startTicks: number
}

export function markOf(pid: number): ProcessMark | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The command's name, in brackets, may hold anything; fields are counted after it. Source: proc_pid_stat(5).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : { pid, startTicks: Number(fields[19]) }
  } catch {
    return undefined
  }
}

export function isAlive({ pid, startTicks }: ProcessMark): boolean {
  return markOf(pid)?.startTicks === startTicks
}

/** The first process of a host, as its folder tells. */
export function initOf(folder: string): number | undefined {
  const path = join(folder, 'init.json')
  if (!existsSync(path)) return undefined
  const mark: ProcessMark = JSON.parse(readFileSync(path, 'utf8'))
  return isAlive(mark) ? mark.pid : undefined
}

/** Namespaces a host has for itself; the fabric needs but two. */
const namespaces = {
  host: ['--mount', '--uts', '--ipc', '--net', '--pid'],
  fabric: ['--net', '--pid'],
} as const

/** `cable`: the host's network alone, so that pids are this machine's. */
const enterFlags = {
  host: ['-m', '-u', '-i', '-n', '-p'],
  fabric: ['-n', '-p'],
  cable: ['-n'],
} as const

/** Command words that run what follows them there. */
export function enter(kind: keyof typeof enterFlags, folder: string): readonly string[] {
  const pid = initOf(folder)
  if (pid === undefined) throw new Error(`${folder}: not running`)
  return ['nsenter', '-t', `${pid}`, ...enterFlags[kind], '--']
}

/**
 * Starts the first process of a host in new namespaces; `init.json` in its folder says which it is. `isKept`: it outlives
 * this process, else it ends with it.
 */
export async function startInit(
  kind: 'host' | 'fabric',
  options: {
    readonly folder: string
    readonly hostname: string
    readonly isKept: boolean
  },
): Promise<void> {
  const { folder, hostname, isKept } = options
  const script = join(import.meta.dirname, 'host-init.sh')
  const log = await open(join(folder, 'init.log'), 'a')
  const child = spawn(
    'unshare',
    [
      ...[...namespaces[kind], '--fork', '--kill-child=KILL', '--'],
      ...[script, `skep-lab:${folder}`, kind === 'fabric' ? 'fabric' : hostname, folder],
    ],
    {
      stdio: ['ignore', 'pipe', log.fd, isKept ? 'ignore' : 'pipe'],
      env: { ...process.env, ...(isKept ? { SKEP_LAB_KEPT: 'yes' } : {}) },
      detached: true,
    },
  )
  const { stdout } = child
  const started = new Promise<void>((done, fail) => {
    const failed = () => {
      const why = readFileSync(join(folder, 'init.log'), 'utf8').slice(-1000)
      fail(new Error(`${hostname} did not start: ${why}`))
    }
    child.once('exit', failed)
    child.once('error', fail)
    stdout?.once('data', () => {
      child.off('exit', failed)
      done()
    })
  })
  await log.close()
  await started
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
  const mark = markOf(Number(children.trim().split(' ')[0]))
  if (!mark) throw new Error(`${hostname} ended at once`)
  await writeFile(join(folder, 'init.json'), JSON.stringify(mark))
  stdout?.destroy()
  child.unref()
  const hold = child.stdio[3]
  // The pipe ends with this process and with nothing else.
  if (hold && 'unref' in hold && typeof hold.unref === 'function') hold.unref()
}

/** Ends the first process of a host, and with it all others; waits until they are gone. */
export async function endInit(folder: string): Promise<void> {
  const pid = initOf(folder)
  if (pid !== undefined) {
    const namespace = readlinkSync(`/proc/${pid}/ns/pid`)
    process.kill(pid, 'SIGKILL')
    for (let left = 6_000; left > 0 && existsSync(`/proc/${pid}/ns`); left--) await pause(10)
    if (existsSync(`/proc/${pid}/ns`)) throw new Error(`${folder}: ${namespace} does not end`)
  }
  await rm(join(folder, 'init.json'), { force: true })
}

export function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms))
}

/** Runs a program to its end. Throws what it said when it fails. */
export async function must(words: readonly string[], input?: string): Promise<string> {
  const [command = '', ...args] = words
  const output = await run(command, args, input === undefined ? {} : { input })
  if (output.code !== 0) throw new Error(`${words.join(' ')}: ${output.stderr || output.stdout}`)
  return output.stdout
}
