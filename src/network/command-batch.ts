import { type CommandResult, runCommand } from './command.ts'

/** One command for a batch. Its words may not come from outside: a shell reads them. */
export interface BatchJob {
  readonly words: readonly string[]
}

/** Ends what one command printed. No command prints such a line. */
const mark = 'END-OF-SKEP-OUTPUT'

/** Runs commands one after the other by one shell, and resolves with what each printed. */
export async function runInOrder(jobs: readonly BatchJob[]): Promise<readonly CommandResult[]> {
  const lines = jobs.map(({ words }, index) => {
    const command = words.map((word) => `'${word}'`).join(' ')
    return `${command} 2>/dev/null </dev/null\nprintf '\\n%s %s %s\\n' ${mark} ${index} $?`
  })
  const { stdout } = await runCommand('sh', ['-s'], { stdin: `${lines.join('\n')}\n` })
  const results = [...stdout.matchAll(new RegExp(`([^]*?)\\n${mark} \\d+ (\\d+)\\n`, 'g'))]
  return jobs.map((_, index) => {
    const [, text = '', code = '1'] = results[index] ?? []
    return { code: Number(code), stdout: text, stderr: '' }
  })
}
