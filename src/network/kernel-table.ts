import { UserError } from '../base/index.ts'
import type { CommandResult } from './command.ts'
import { staleFlows } from './flows.ts'
import type { Namespace } from './namespace.ts'
import {
  isPlausibleListing,
  type Ruleset,
  renderChange,
  renderFull,
  renderRemoval,
} from './ruleset.ts'

/** One nftables table of one namespace: what it was last told, and whether it still says so. */
export class KernelTable {
  readonly namespace: Namespace
  #applied: Ruleset | undefined
  /** The kernel's own wording of what was applied. Read at the first look after a change. */
  #listing: string | undefined

  /** Nothing was ever told to this namespace, by us or by an earlier daemon. */
  #isUntouched: boolean

  /** Backends by destination as last told, also while the table itself is in doubt. */
  #known: Ruleset['udpBackends'] | undefined
  #hasStaleFlows = false

  constructor(namespace: Namespace, isUntouched = false) {
    this.namespace = namespace
    this.#isUntouched = isUntouched
  }

  /** What the kernel has to be told for the table to be the ruleset; empty when nothing. */
  changeTo(ruleset: Ruleset): string {
    if (this.#applied === ruleset) return ''
    if (this.#applied) return renderChange(this.#applied, ruleset)
    // Where nothing was ever told and nothing is to be said, nothing has to be there.
    const isEmpty = [...ruleset.elements.values()].every(({ size }) => size === 0)
    return isEmpty && this.#isUntouched ? '' : renderFull(ruleset)
  }

  /** Notes that the kernel took `changeTo(ruleset)`. */
  took(ruleset: Ruleset, change: string): void {
    if (change !== '') {
      // What an earlier daemon left is unknown; where nothing was ever told, nothing flows.
      const before = this.#known ?? (this.#isUntouched ? ruleset.udpBackends : new Map())
      if (mayLeaveFlows(before, ruleset.udpBackends)) this.#hasStaleFlows = true
      this.#known = ruleset.udpBackends
      this.#listing = undefined
      this.#isUntouched = false
    }
    if (!this.#isUntouched) this.#applied = ruleset
  }

  /**
   * Makes the table be the ruleset, in one transaction; nothing is run when it was so already. Resolves with whether
   * something had to be done. Throws UserError with nft's own words.
   */
  async apply(ruleset: Ruleset): Promise<boolean> {
    const change = this.changeTo(ruleset)
    if (change === '') {
      this.took(ruleset, change)
      return false
    }
    const isDifference = this.#applied !== undefined
    this.#applied = undefined
    this.#listing = undefined
    let result = await this.namespace.run('nft', ['-f', '-'], change)
    // A difference needs what it differs from: somebody took the table away, so it is told whole.
    if (result && result.code !== 0 && isDifference) {
      result = await this.namespace.run('nft', ['-f', '-'], renderFull(ruleset))
    }
    if (!result) return false
    if (result.code !== 0) {
      throw new UserError(
        'internal',
        `the kernel did not take the network rules of ${this.namespace.name}: ${firstLines(result.stderr)}`,
        { next: 'Check that the kernel has nftables with nat (modules nf_tables, nft_chain_nat).' },
      )
    }
    this.took(ruleset, change)
    return true
  }

  /** The command that lists the table, or undefined when there is none to list. */
  listing(): readonly string[] | undefined {
    return this.#applied && ['nft', '-s', 'list', 'table', 'ip', this.#applied.table]
  }

  /** Whether the kernel still has what was applied, by what `listing()` printed. */
  isIntact({ code, stdout }: CommandResult): boolean {
    const ruleset = this.#applied
    if (!ruleset) return true
    if (code !== 0) return false
    if (this.#listing !== undefined) return this.#listing === stdout
    if (!isPlausibleListing(stdout, ruleset)) return false
    this.#listing = stdout
    return true
  }

  /** Tells the whole table again. */
  async repair(): Promise<void> {
    const ruleset = this.#applied
    this.#applied = undefined
    this.#listing = undefined
    if (ruleset) await this.apply(ruleset)
  }

  async remove(table: string): Promise<void> {
    this.#applied = undefined
    this.#listing = undefined
    await this.namespace.run('nft', ['-f', '-'], renderRemoval(table))
  }

  /** Whether flows may go to where nothing is sent any more; see `moveFlows`. */
  get hasStaleFlows(): boolean {
    return this.#hasStaleFlows
  }

  /**
   * Ends udp flows that go to a backend no more: their next packet begins anew, with one that does. Resolves with their
   * count of kinds. Throws UserError `unsupported` when the tool for it is missing.
   */
  async moveFlows(destination: 'address' | 'port', localAddresses: ReadonlySet<string>) {
    const ruleset = this.#applied
    if (!ruleset || !this.#hasStaleFlows) return 0
    this.#hasStaleFlows = false
    const listed = await this.namespace.run('conntrack', ['-L', '-p', 'udp'])
    if (!listed) return 0
    if (listed.code !== 0) throw new UserError('unsupported', firstLines(listed.stderr))
    const stale = staleFlows(listed.stdout, destination, ruleset.udpBackends, localAddresses)
    for (const selection of stale) {
      // Nobody minds one that ended by itself meanwhile (exit code 1).
      await this.namespace.run('conntrack', ['-D', '-p', 'udp', ...selection])
    }
    return stale.length
  }
}

/** A backend was taken away, or a destination is new (its packets may have been going nowhere). */
function mayLeaveFlows(before: Ruleset['udpBackends'], after: Ruleset['udpBackends']): boolean {
  for (const [destination, backends] of after) {
    const old = before.get(destination)
    if (!old || [...old].some((backend) => !backends.has(backend))) return true
  }
  return false
}

function firstLines(text: string): string {
  return text.split('\n').slice(0, 3).join(' ').slice(0, 500)
}
