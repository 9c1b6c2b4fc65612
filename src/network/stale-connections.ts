import { connectionsOf, forgetTracked, listTracked } from './connection-tracking.ts'
import { answering } from './flows.ts'
import type { Family, RulesPage } from './ruleset.ts'

/** Addresses that are remembered of one kind. Where nobody asks for them (the tool is missing) they must not pile up. */
const addressesMax = 10_000

/** What the kernel remembers of tcp connections to tasks that are sent none any more, in one family of addresses. */
export class StaleConnections {
  readonly #select: readonly string[]
  /** Addresses that connections were sent to, and no new one is: some may not have been answered yet. */
  readonly #left = new Set<string>()
  /** Those of them that somebody had when it was last asked: open connections go on. */
  readonly #open = new Set<string>()
  /** Those that nobody has any more. */
  readonly #gone = new Set<string>()

  constructor(family: Family) {
    this.#select = connectionsOf(family, 'tcp')
  }

  /** Takes note of a change of rules that the kernel has taken. */
  note(before: readonly RulesPage[], after: readonly RulesPage[]): void {
    const old = backendsIn(before.filter((page) => !after.includes(page)))
    const now = backendsIn(after.filter((page) => !before.includes(page)))
    for (const address of now) {
      this.#open.delete(address)
      this.#gone.delete(address)
    }
    for (const address of old) {
      if (now.has(address)) continue
      remember(this.#left, address)
      remember(this.#open, address)
    }
  }

  /** Takes note of who is there. `isHeld`: somebody has the address, and is heard of. */
  settle(isHeld: (address: string) => boolean): void {
    for (const address of this.#open) {
      if (isHeld(address)) continue
      this.#open.delete(address)
      remember(this.#gone, address)
    }
  }

  get hasLeft(): boolean {
    return this.#left.size > 0
  }

  get hasGone(): boolean {
    return this.#gone.size > 0
  }

  /**
   * Forgets all connections to addresses that nobody has. One that is being opened begins anew with its client's next attempt, a second
   * later, at a backend that is there. An open one is unknown to the backend that gets its next packet, and reset. And none stays in
   * the way of its client's next connection from the same port: what a task left half closed is remembered for up to 2 minutes, what
   * the rules have reset for 10 s, before Linux 6.3 for days. Ends early when `signal` aborts. Throws UserError `unsupported` when the
   * tool for it is missing.
   */
  async forgetGone(signal: AbortSignal): Promise<void> {
    for (const address of this.#gone) {
      if (signal.aborted) return
      this.#gone.delete(address)
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

function backendsIn(pages: readonly RulesPage[]): ReadonlySet<string> {
  return new Set(pages.flatMap(({ backends }) => [...(backends ?? [])]))
}
