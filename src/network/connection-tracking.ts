import { UserError } from '../base/index.ts'
import { hostNamespace, type Namespace } from './namespace.ts'

/**
 * `conntrack` looks through all the kernel remembers and takes away what is chosen, one by one; it gives up at the first that
 * ended by itself in between, and has to begin again. Most often there is none.
 */
const attemptsMax = 20

/**
 * What the kernel remembers of the chosen connections (arguments of `conntrack`), a line each. Throws UserError `unsupported` when
 * the tool is missing or the kernel has no such memory.
 */
export async function listTracked(selection: readonly string[]): Promise<string> {
  const listed = await hostNamespace.run('conntrack', ['-L', ...selection])
  if (listed && listed.code !== 0) throw unsupported(listed.stderr)
  return listed?.stdout ?? ''
}

/** Has the kernel forget the chosen connections (arguments of `conntrack`); there may be none. Throws UserError as `listTracked`. */
export async function forgetTracked(
  selection: readonly string[],
  namespace: Pick<Namespace, 'run'> = hostNamespace,
): Promise<void> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const done = await namespace.run('conntrack', ['-D', ...selection])
    if (!done || done.code === 0 || /\b0 flow entries/.test(done.stderr)) return
    if (!done.stderr.includes("conntrack doesn't exist")) throw unsupported(done.stderr)
  }
}

function unsupported(why: string): UserError {
  return new UserError('unsupported', why.split('\n').slice(0, 3).join(' ').slice(0, 500))
}
