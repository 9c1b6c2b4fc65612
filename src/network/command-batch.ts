import type { FileHandle } from 'node:fs/promises'
import { type CommandResult, runCommand } from './command.ts'

/** One command for a batch. Its words may not come from outside: a shell reads them. */
export interface BatchJob {
  readonly words: readonly string[]
  readonly stdin?: string
  /** The network namespace to run it in; the host's without. */
  readonly handle?: FileHandle
}

/** Commands that run at a time in `runAtOnce`: most of their time they wait for the kernel. */
const atOnceMax = 8
/** Ends text that is handed over within the script. No ruleset has such a line. */
const mark = 'END-OF-SKEP-INPUT'

/**
 * Runs many commands by one shell: starting a process costs this one milliseconds, a shell a fraction of one. Resolves
 * with their exit codes.
 */
export async function runAtOnce(jobs: readonly BatchJob[]): Promise<readonly number[]> {
  const lines: string[] = []
  for (const [index, job] of jobs.entries()) {
    lines.push(`( ${command(job, jobs)} >/dev/null 2>&1 ${input(job)}\necho ${index} $? ) &`)
    if (index % atOnceMax === atOnceMax - 1) lines.push('wait')
  }
  lines.push('wait')
  const { stdout } = await runShell(lines, jobs)
  const codes = new Map(
    stdout.split('\n').map((line): [number, number] => {
      const [index = '', code = ''] = line.split(' ')
      return [Number(index), Number(code)]
    }),
  )
  return jobs.map((_, index) => codes.get(index) ?? 1)
}

/** Runs commands one after the other by one shell, and resolves with what each printed. */
export async function runInOrder(jobs: readonly BatchJob[]): Promise<readonly CommandResult[]> {
  const lines = jobs.map((job, index) => {
    return `${command(job, jobs)} 2>/dev/null ${input(job)}\nprintf '\\n%s %s %s\\n' ${mark} ${index} $?`
  })
  const { stdout } = await runShell(lines, jobs)
  const results = [...stdout.matchAll(new RegExp(`([^]*?)\\n${mark} \\d+ (\\d+)\\n`, 'g'))]
  return jobs.map((_, index) => {
    const [, text = '', code = '1'] = results[index] ?? []
    return { code: Number(code), stdout: text, stderr: '' }
  })
}

function command({ words, handle }: BatchJob, jobs: readonly BatchJob[]): string {
  const text = words.map((word) => `'${word}'`).join(' ')
  if (!handle) return text
  return `nsenter --net=/proc/self/fd/${3 + handlesOf(jobs).indexOf(handle)} ${text}`
}

function input({ stdin }: BatchJob): string {
  return stdin === undefined ? '</dev/null' : `<<'${mark}'\n${stdin}${mark}`
}

function handlesOf(jobs: readonly BatchJob[]): readonly FileHandle[] {
  return jobs.flatMap(({ handle }) => (handle ? [handle] : []))
}

function runShell(lines: readonly string[], jobs: readonly BatchJob[]): Promise<CommandResult> {
  return runCommand('sh', ['-s'], {
    stdin: `${lines.join('\n')}\n`,
    fds: handlesOf(jobs).map(({ fd }) => fd),
  })
}
