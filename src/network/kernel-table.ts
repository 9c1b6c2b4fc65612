import { type Log, UserError } from '../base/index.ts'
import { type CommandResult, firstLines } from './command.ts'
import { connectionsOf, forgetTracked, listTracked } from './connection-tracking.ts'
import { destinationsIn, staleFlows } from './flows.ts'
import { hostNamespace } from './namespace.ts'
import {
  type Family,
  isPlausibleListing,
  type Ruleset,
  type RulesPage,
  renderChange,
  renderFull,
  renderRemoval,
} from './ruleset.ts'
import { StaleConnections } from './stale-connections.ts'

/** The node's nftables table: what the kernel was last told, and whether it still says so. */
export class KernelTable {
  #applied: Ruleset | undefined
  /** The kernel's own wording of what was applied. Read at the first look after a change. */
  #listing: string | undefined

  /** As last told, also while the table itself is in doubt. */
  #known: readonly RulesPage[] = []
  /** What flows may go to that nobody is sent to any more. */
  #staleFlows: 'none' | 'unlikely' | 'likely' = 'none'
  /** Destinations that flows were found to. */
  #udpDestinations: ReadonlySet<string> = new Set()
  /** What connections the changes of the rules have left behind. */
  readonly connections: StaleConnections
  readonly #log: Log

  constructor(family: Family, log: Log) {
    this.connections = new StaleConnections(family)
    this.#log = log
  }

  /**
   * Makes the table be the ruleset, in one transaction; nothing is run when it was so already. Resolves with whether
   * something had to be done. Throws UserError with nft's own words.
   */
  async apply(ruleset: Ruleset): Promise<boolean> {
    const before = this.#applied
    if (before === ruleset) return false
    const change = before ? renderChange(before, ruleset) : renderFull(ruleset)
    if (change !== '') {
      this.#applied = undefined
      this.#listing = undefined
      let result = await nft(change)
      // A difference needs what it differs from: somebody may have taken the table away. It is told whole.
      if (result && result.code !== 0 && before) {
        const { family, table } = ruleset
        this.#log.warn(
          'the kernel did not take a change of the network rules: it is told all of them',
          {
            ...{ family, table, error: firstLines(result.stderr) },
          },
        )
        result = await nft(renderFull(ruleset))
      }
      if (result?.code !== 0) {
        throw new UserError(
          'internal',
          `the kernel did not take the network rules of the host: ${firstLines(result?.stderr ?? '')}`,
          {
            next: 'Check that the kernel has nftables with nat (modules nf_tables, nft_chain_nat).',
          },
        )
      }
      for (const destination of destinationsWithStaleFlows(this.#known, ruleset.pages)) {
        // What an earlier daemon left is unknown.
        const isLikely =
          this.#known.length === 0 ||
          portPattern.test(destination) ||
          this.#udpDestinations.has(destination)
        if (isLikely) this.#staleFlows = 'likely'
        else if (this.#staleFlows === 'none') this.#staleFlows = 'unlikely'
      }
      this.connections.note(this.#known, ruleset.pages)
      this.#known = ruleset.pages
    }
    this.#applied = ruleset
    return change !== ''
  }

  /** The command that lists the table, or undefined when there is none to list. */
  listing(): readonly string[] | undefined {
    return (
      this.#applied && ['nft', '-s', 'list', 'table', this.#applied.family, this.#applied.table]
    )
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

  async remove(table: Pick<Ruleset, 'family' | 'table'>): Promise<void> {
    this.#applied = undefined
    this.#listing = undefined
    await nft(renderRemoval(table))
  }

  /**
   * Whether udp flows may go to where nothing is sent any more; see `moveFlows`. They are likely to a published udp port, and to what
   * flows were found to before. To other VIPs, which any protocol may ask, there are hardly ever any.
   */
  get staleFlows(): 'none' | 'unlikely' | 'likely' {
    return this.#staleFlows
  }

  /**
   * Ends udp flows that go to a backend no more: their next packet begins anew, with one that does. Resolves with their
   * count of kinds. Throws UserError `unsupported` when the tool for it is missing.
   */
  async moveFlows(localAddresses: () => Promise<ReadonlySet<string>>): Promise<number> {
    const ruleset = this.#applied
    if (!ruleset || this.#staleFlows === 'none') return 0
    this.#staleFlows = 'none'
    const kind = connectionsOf(ruleset.family, 'udp')
    const flows = await listTracked(kind)
    // Most of the time there are none, whatever the host's addresses are.
    const backends = udpBackends(ruleset.pages)
    this.#udpDestinations = destinationsIn(flows, backends)
    if (staleFlows(flows, backends, () => true).length === 0) return 0
    const local = await localAddresses()
    const stale = staleFlows(flows, backends, (address) => local.has(address))
    for (const selection of stale) await forgetTracked([...kind, ...selection])
    return stale.length
  }
}

function nft(script: string): Promise<CommandResult | undefined> {
  return hostNamespace.run('nft', ['-f', '-'], script)
}

/** Of udp, and not a VIP. */
const portPattern = /^\d+$/

/** Where a backend was taken away, and those that are new (their packets may have been going nowhere). */
function destinationsWithStaleFlows(
  before: readonly RulesPage[],
  after: readonly RulesPage[],
): readonly string[] {
  const known = udpBackends(before.filter((page) => !after.includes(page)))
  const made = udpBackends(after.filter((page) => !before.includes(page)))
  return [...made].flatMap(([destination, backends]) => {
    const old = known.get(destination)
    return !old || [...old].some((backend) => !backends.has(backend)) ? [destination] : []
  })
}

function udpBackends(pages: readonly RulesPage[]): RulesPage['udpBackends'] {
  return new Map(pages.flatMap((page) => [...page.udpBackends]))
}
