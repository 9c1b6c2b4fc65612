import { UserError } from '../base/index.ts'
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

  constructor(namespace: Namespace) {
    this.namespace = namespace
  }

  get applied(): Ruleset | undefined {
    return this.#applied
  }

  /**
   * Makes the table be the ruleset, in one transaction; nothing is run when it was so already. Resolves with whether
   * something had to be done. Throws UserError with nft's own words.
   */
  async apply(ruleset: Ruleset): Promise<boolean> {
    const before = this.#applied
    if (before === ruleset) return false
    const change = before ? renderChange(before, ruleset) : renderFull(ruleset)
    if (change === '') {
      this.#applied = ruleset
      return false
    }
    this.#applied = undefined
    this.#listing = undefined
    let result = await this.namespace.run('nft', ['-f', '-'], change)
    // A difference needs what it differs from: somebody took the table away, so it is told whole.
    if (result && result.code !== 0 && before) {
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
    this.#applied = ruleset
    return true
  }

  /** Whether the kernel still has what was applied. Reads it, worded by nft, and compares the words. */
  async isIntact(): Promise<boolean> {
    const ruleset = this.#applied
    if (!ruleset) return true
    const result = await this.namespace.run('nft', ['-s', 'list', 'table', 'ip', ruleset.table])
    if (!result || this.#applied !== ruleset) return true
    if (result.code !== 0) return false
    if (this.#listing !== undefined) return this.#listing === result.stdout
    if (!isPlausibleListing(result.stdout, ruleset)) return false
    this.#listing = result.stdout
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

  /**
   * Ends udp flows that go to a backend no more: their next packet begins anew, with one that does. Resolves with their
   * count of kinds. Throws UserError `unsupported` when the tool for it is missing.
   */
  async moveFlows(destination: 'address' | 'port', localAddresses: ReadonlySet<string>) {
    const ruleset = this.#applied
    if (!ruleset || ruleset.udpBackends.size === 0) return 0
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

function firstLines(text: string): string {
  return text.split('\n').slice(0, 3).join(' ').slice(0, 500)
}
