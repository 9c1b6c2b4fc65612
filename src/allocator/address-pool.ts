import {
  blockContains,
  type Ipv4Block,
  type Network,
  parseIpv4,
  parseIpv4Block,
} from '../model/index.ts'

/** What a network gives addresses from, and which of them are held. */
export class AddressPool {
  /** Holders by address: more than one only if something else broke the rule, and then neither is forgotten. */
  readonly #holders = new Map<number, number>()
  #subnet: Ipv4Block | undefined
  #range: Ipv4Block | undefined
  #gateway: number | undefined
  #size = 0
  /** Held addresses that are within the usable ones. */
  #used = 0
  /** Where the search begins: after the address given out last, so that a freed one is used again as late as may be. */
  #next = 0

  /** Takes over the bounds of the network; what is held stays. */
  setNetwork(network: Network | undefined): void {
    const { subnet, range, gateway } = network?.status ?? {}
    this.#subnet = subnet === undefined ? undefined : parseIpv4Block(subnet)
    this.#range = (range === undefined ? undefined : parseIpv4Block(range)) ?? this.#subnet
    this.#gateway = gateway === undefined ? undefined : parseIpv4(gateway)
    this.#size = 0
    if (this.#range && this.#subnet) {
      const reserved = new Set([this.#subnet.first, this.#subnet.last, this.#gateway])
      this.#size = this.#range.last - this.#range.first + 1
      for (const address of reserved) {
        if (address !== undefined && blockContains(this.#range, address)) this.#size--
      }
    }
    this.#used = 0
    for (const address of this.#holders.keys()) if (this.isUsable(address)) this.#used++
  }

  get isForgettable(): boolean {
    return this.#subnet === undefined && this.#holders.size === 0
  }

  /** How many addresses there are to give. */
  get size(): number {
    return this.#size
  }

  get used(): number {
    return this.#used
  }

  get hasBounds(): boolean {
    return this.#subnet !== undefined
  }

  /** Whether the address may be given to a task or as a VIP. */
  isUsable(address: number): boolean {
    return (
      this.#range !== undefined &&
      this.#subnet !== undefined &&
      blockContains(this.#range, address) &&
      address !== this.#gateway &&
      address !== this.#subnet.first &&
      address !== this.#subnet.last
    )
  }

  /** Whether it lies in the subnet and may be asked for by name. */
  isAskable(address: number): boolean {
    return (
      this.#subnet !== undefined &&
      blockContains(this.#subnet, address) &&
      address !== this.#gateway &&
      address !== this.#subnet.first &&
      address !== this.#subnet.last
    )
  }

  holders(address: number): number {
    return this.#holders.get(address) ?? 0
  }

  /** `isApart`: it does not move where the search for the next one begins. */
  hold(address: number, isApart = false): void {
    const holders = this.holders(address)
    this.#holders.set(address, holders + 1)
    if (holders === 0 && this.isUsable(address)) this.#used++
    if (this.#range && blockContains(this.#range, address) && !isApart) this.#next = address + 1
  }

  release(address: number): void {
    const holders = this.holders(address)
    if (holders > 1) this.#holders.set(address, holders - 1)
    else if (holders === 1) {
      this.#holders.delete(address)
      if (this.isUsable(address)) this.#used--
    }
  }

  /** A free address, not yet held by asking; `undefined` when all are held. */
  free(): number | undefined {
    if (!this.#range || this.#used >= this.#size) return undefined
    const { first, last } = this.#range
    let address = this.#next
    for (let tries = last - first + 1; tries > 0; tries--) {
      if (address < first || address > last) address = first
      if (!this.#holders.has(address) && this.isUsable(address)) return address
      address++
    }
    return undefined
  }

  /** A free address from the end of the pool, none of `besides`, not yet held by asking. */
  freeFromEnd(besides: ReadonlySet<number>): number | undefined {
    if (!this.#range) return undefined
    for (let address = this.#range.last; address >= this.#range.first; address--) {
      if (!this.#holders.has(address) && !besides.has(address) && this.isUsable(address)) {
        return address
      }
    }
    return undefined
  }

  /** Held addresses and their holders, for comparing with a rebuilt pool. */
  describe(): unknown {
    return [...this.#holders].sort(([a], [b]) => a - b)
  }
}
