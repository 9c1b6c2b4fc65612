import { UserError } from '../base/index.ts'
import { firstLines } from './command.ts'
import { hostNamespace, type Namespace } from './namespace.ts'
import type { Family } from './ruleset.ts'

/**
 * `conntrack` looks through all the kernel remembers and takes away what is chosen, one by one; it gives up at the first that
 * ended by itself in between, and has to begin again. Most often there is none.
 */
const attemptsMax = 20

/** Chooses connections of a kind: arguments of `conntrack`. */
export function connectionsOf(family: Family, protocol: 'tcp' | 'udp'): readonly string[] {
  return ['-f', family === 'ip' ? 'ipv4' : 'ipv6', '-p', protocol]
}

/**
 * What the kernel remembers of the chosen connections (arguments of `conntrack`), a line each. Throws UserError `unsupported` when
 * the tool is missing or the kernel has no such memory.
 */
export async function listTracked(selection: readonly string[]): Promise<string> {
  const listed = await hostNamespace.run('conntrack', ['-L', ...selection])
  if (listed && listed.code !== 0) throw new UserError('unsupported', firstLines(listed.stderr))
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
    if (!done.stderr.includes("conntrack doesn't exist"))
      throw new UserError('unsupported', firstLines(done.stderr))
  }
}
