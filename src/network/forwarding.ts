import { UserError } from '../base/index.ts'
import type { CommandResult } from './command.ts'
import { hostNamespace } from './namespace.ts'

/** Of the host's firewall, for IPv4 and for IPv6. */
export type FirewallProgram = 'iptables' | 'ip6tables'

/** Prints the host firewall's rules. */
export function listCommand(program: FirewallProgram = 'iptables'): readonly string[] {
  return [program, '-w', '5', '-S']
}

/**
 * Lets connections to published ports through the engine's firewall. The engine drops what is forwarded between its
 * networks; the place it leaves to others is the chain DOCKER-USER, which it never empties. Our rules stand at its end, so
 * that a person's own rules there are asked first. Without that chain they stand first in FORWARD.
 */
export class ForwardingRules {
  readonly #comment: string
  readonly #program: FirewallProgram
  #wanted: readonly string[] = []

  constructor(table: string, program: FirewallProgram = 'iptables') {
    this.#comment = `skep-${table}`
    this.#program = program
  }

  /** Makes the rules be there for exactly these subnets. Resolves with what was missing or too much. */
  async ensure(subnets: readonly string[]): Promise<readonly string[]> {
    this.#wanted = subnets
    return await this.repair()
  }

  /** `listing` is what `listCommand` printed just now, where that is known. */
  async repair(listing?: CommandResult): Promise<readonly string[]> {
    const wanted = this.#wanted
    const listed = listing?.code === 0 ? parseRules(listing.stdout) : await list(this.#program)
    if (!listed) {
      if (wanted.length === 0) return []
      throw new UserError('unsupported', `${this.#program} is not installed`, {
        next: 'Install iptables: the engine needs it too.',
      })
    }
    const present = listed.rules.filter((rule) => rule.includes(`--comment ${this.#comment} `))
    const kept = new Set<string>()
    const drift: string[] = []
    for (const rule of present) {
      const subnet = /--ctreplsrc (\S+)/.exec(rule)?.[1] ?? ''
      const inPlace = rule.startsWith(`-A ${listed.chain} `)
      if (inPlace && wanted.includes(subnet) && !kept.has(subnet)) {
        kept.add(subnet)
        continue
      }
      await iptables(this.#program, ['-w', '5', ...rule.replace(/^-A /, '-D ').split(' ')])
    }
    for (const subnet of wanted) {
      if (kept.has(subnet)) continue
      await iptables(this.#program, [
        '-w',
        '5',
        ...(await this.#insertion()),
        ...this.#match(subnet),
      ])
      drift.push(`the forwarding rule for published ports into ${subnet} was missing`)
    }
    return drift
  }

  async clear(): Promise<void> {
    await this.ensure([])
  }

  #match(subnet: string): readonly string[] {
    return [
      ...['-m', 'conntrack', '--ctstate', 'DNAT', '--ctreplsrc', subnet],
      ...['-m', 'comment', '--comment', this.#comment, '-j', 'ACCEPT'],
    ]
  }

  /** Before the chain's closing RETURN, or at the start of FORWARD. */
  async #insertion(): Promise<readonly string[]> {
    const listed = await list(this.#program)
    if (listed?.chain !== 'DOCKER-USER') return ['-I', 'FORWARD', '1']
    const rules = listed.rules.filter((rule) => rule.startsWith('-A DOCKER-USER '))
    const end = rules.indexOf('-A DOCKER-USER -j RETURN')
    return end < 0 ? ['-A', 'DOCKER-USER'] : ['-I', 'DOCKER-USER', `${end + 1}`]
  }
}

/** The rules of both chains, and which one is ours to use. Undefined: there is no iptables. */
async function list(
  firewall: FirewallProgram,
): Promise<{ readonly chain: string; readonly rules: readonly string[] } | undefined> {
  let result: CommandResult | undefined
  try {
    const [program = '', ...args] = listCommand(firewall)
    result = await hostNamespace.run(program, args)
  } catch (error) {
    if (error instanceof UserError && error.code === 'unsupported') return undefined
    throw error
  }
  return parseRules(result?.stdout ?? '')
}

function parseRules(stdout: string): { readonly chain: string; readonly rules: readonly string[] } {
  const rules = stdout.split('\n').map((rule) => rule.trim())
  const isUsed = rules.some((rule) => rule === '-A FORWARD -j DOCKER-USER')
  return {
    chain: isUsed ? 'DOCKER-USER' : 'FORWARD',
    rules: rules.filter((rule) => /^-A (FORWARD|DOCKER-USER) /.test(rule)),
  }
}

async function iptables(program: FirewallProgram, args: readonly string[]): Promise<void> {
  const result = await hostNamespace.run(program, args)
  if (result && result.code !== 0) {
    throw new UserError('internal', `${program} ${args.join(' ')}: ${result.stderr}`, {
      next: 'Published ports need it to be allowed to forward; check the host firewall.',
    })
  }
}
