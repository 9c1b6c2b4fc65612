import { forgetTracked, listTracked } from './connection-tracking.ts'
import { answering } from './flows.ts'
import type { Family, RulesPage } from './ruleset.ts'

/** Addresses that are remembered of one kind. Where nobody asks for them (the tool is missing) they must not pile up. */
const addressesMax = 10_000

/** What the kernel remembers of tcp connections to tasks that are sent none any more, in one family of addresses. */
export class StaleConnections {
  readonly #select: readonly string[]
  /** Addresses of nodes that fell silent, that are sent no connection any more. */
  readonly #lost = new Set<string>()
  /** Addresses that connections were sent to, and no new one is. */
  readonly #left = new Set<string>()

  constructor(family: Family) {
    this.#select = ['-f', family === 'ip' ? 'ipv4' : 'ipv6', '-p', 'tcp']
  }

  /** Takes note of a change of rules that the kernel has taken. */
  note(before: readonly RulesPage[], after: readonly RulesPage[]): void {
    const lostBefore = lostIn(before)
    const lost = lostIn(after)
    for (const address of this.#lost) if (!lost.has(address)) this.#lost.delete(address)
    const justLost = without(lost, lostBefore)
    // While connections are still sent there, one that is forgotten would go there again.
    if (justLost.size > 0)
      for (const address of without(justLost, backendsIn(after))) remember(this.#lost, address)
    for (const address of leftBetween(before, after))
      remember(lost.has(address) ? this.#lost : this.#left, address)
  }

  get hasLost(): boolean {
    return this.#lost.size > 0
  }

  get hasLeft(): boolean {
    return this.#left.size > 0
  }

  /**
   * Forgets all connections to addresses whose node fell silent. One that is being opened begins anew with its client's next
   * attempt, a second later, at a backend that is there. An open one is unknown to the backend that gets its next packet, and reset.
   * And what the rules have reset does not stay in the way of its client's next connection from the same port: the kernel
   * remembers it for 10 s, before Linux 6.3 for days. Throws UserError `unsupported` when the tool for it is missing.
   */
  async forgetLost(): Promise<void> {
    for (const address of this.#lost) {
      this.#lost.delete(address)
      await forgetTracked([...this.#select, '--reply-src', address])
    }
  }

  /**
   * Forgets connections that are being opened to where none is sent any more: begun before the change of rules, and not answered since.
   * Open ones go on. Throws UserError `unsupported` when the tool for it is missing.
   */
  async forgetUnanswered(): Promise<void> {
    const left = new Set(this.#left)
    this.#left.clear()
    if (left.size === 0) return
    const select = [...this.#select, '--state', 'SYN_SENT']
    const listing = await listTracked(select)
    for (const address of answering(listing, left))
      await forgetTracked([...select, '--reply-src', address])
  }
}

function remember(addresses: Set<string>, address: string): void {
  if (addresses.size >= addressesMax) addresses.clear()
  addresses.add(address)
}

/** Where connections were sent to, and are no more. A task has its address for itself. */
function leftBetween(
  before: readonly RulesPage[],
  after: readonly RulesPage[],
): ReadonlySet<string> {
  const gone = before.filter((page) => !after.includes(page))
  const made = after.filter((page) => !before.includes(page))
  return without(backendsIn(gone), backendsIn(made))
}

function without(addresses: ReadonlySet<string>, others: ReadonlySet<string>): ReadonlySet<string> {
  return new Set([...addresses].filter((address) => !others.has(address)))
}

function backendsIn(pages: readonly RulesPage[]): ReadonlySet<string> {
  return new Set(pages.flatMap(({ backends }) => [...(backends ?? [])]))
}

function lostIn(pages: readonly RulesPage[]): ReadonlySet<string> {
  return new Set(pages.flatMap(({ lost }) => [...(lost ?? [])]))
}
