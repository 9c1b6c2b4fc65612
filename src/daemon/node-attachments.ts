import { type Clock, type Log, messageOf, UserError, WakeUp } from '../base/index.ts'
import type { AttachedPlace, AttachmentDesk, AttachmentWish } from '../cluster/index.ts'
import { ipv6Of, type NetworkId } from '../model/index.ts'
import type { DataPlane } from '../network/index.ts'
import type { PlainContainers } from './plain-containers.ts'

/** A container's place on an attachable cluster network. */
export interface ReservedPlace {
  readonly networkId: NetworkId
  readonly address: string
  /** Where the network has IPv6 too. */
  readonly ipv6?: string
  readonly mac: string
  readonly engineNetwork: string
  readonly nameservers: readonly string[]
}

/** For a leader to be found, in ms, while somebody waits for `docker run`. */
const leaderMs = 10_000
const leaderRetryMs = 500
/** How long a place stays kept for a container that has not shown up, in ms. */
const graceMs = 60_000
/** Between attempts to free places while no manager answers, in ms. */
const sweepRetryMs = 5_000

/** The places of this node's plain containers: asked for at the cluster's desk, and given back when they are gone. */
export class NodeAttachments {
  readonly #desk: () => AttachmentDesk
  readonly #dataPlane: Pick<DataPlane, 'ensureNetwork' | 'nameserversFor'>
  readonly #plain: () => Pick<PlainContainers, 'known'>
  readonly #clock: Clock
  readonly #log: Log
  readonly #stop = new AbortController()
  readonly #wanted = new WakeUp()
  readonly #sweeping: Promise<void>

  constructor(options: {
    /** Where places are given out now: here where this node leads, else at the leader. */
    readonly desk: () => AttachmentDesk
    readonly dataPlane: Pick<DataPlane, 'ensureNetwork' | 'nameserversFor'>
    readonly plain: () => Pick<PlainContainers, 'known'>
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#desk = options.desk
    this.#dataPlane = options.dataPlane
    this.#plain = options.plain
    this.#clock = options.clock
    this.#log = options.log
    this.#sweeping = this.#sweepLoop()
  }

  /** A place, durable in the cluster, with the network made on this node. Undefined: the cluster has no such network. */
  async reserve(wish: AttachmentWish): Promise<ReservedPlace | undefined> {
    const place = await this.#attach(wish)
    if (!place) return undefined
    const { network, address, mac } = place
    try {
      const engineNetwork = await this.#dataPlane.ensureNetwork(network)
      const nameservers = this.#dataPlane.nameserversFor([network])
      return {
        networkId: network.id,
        address,
        ...(network.ipv6 ? { ipv6: ipv6Of({ ...network, ipv6: network.ipv6 }, address) } : {}),
        mac,
        engineNetwork,
        nameservers,
      }
    } catch (error) {
      await this.release(network.id, [wish.container])
      throw error
    }
  }

  /** Gives a place back, whichever of these names it is kept under. While no manager answers it is tried again later. */
  async release(networkId: NetworkId, containers: readonly string[]): Promise<void> {
    try {
      await this.#desk().detach(networkId, containers)
    } catch (error) {
      this.#log.debug('a place on a network is given back later', { error: messageOf(error) })
      this.#wanted.ring()
    }
  }

  /** A container was removed, or taken off a network: places that nobody has any more are given back. */
  sweep(): void {
    this.#wanted.ring()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#sweeping
  }

  async #attach(wish: AttachmentWish): Promise<AttachedPlace | undefined> {
    const startedAtMs = this.#clock.nowMs()
    for (;;) {
      try {
        return await this.#desk().attach(wish)
      } catch (error) {
        const isLate = this.#clock.nowMs() - startedAtMs >= leaderMs || this.#stop.signal.aborted
        if (isLate || !(error instanceof UserError && error.code === 'unavailable')) throw error
        await this.#clock.sleep(leaderRetryMs, this.#stop.signal)
      }
    }
  }

  async #sweepLoop(): Promise<void> {
    const { signal } = this.#stop
    let againMs: number | undefined
    while (!signal.aborted) {
      const nowMs = this.#clock.nowMs()
      await this.#wanted.wait(
        this.#clock,
        signal,
        againMs === undefined ? undefined : nowMs + againMs,
      )
      if (signal.aborted) return
      try {
        againMs = await this.#sweepOnce()
      } catch (error) {
        this.#log.debug('places on networks could not be given back yet', {
          error: messageOf(error),
        })
        againMs = sweepRetryMs
      }
    }
  }

  /** Frees the places of containers that the engine no longer has there. Resolves with when to look again, in ms. */
  async #sweepOnce(): Promise<number | undefined> {
    const desk = this.#desk()
    // In this order: what is kept from now on is not looked at.
    const places = await desk.list()
    if (places.length === 0) return undefined
    const known = await this.#plain().known()
    const gone = places.filter(
      ({ container, networkName }) => !known.get(container)?.has(networkName),
    )
    for (const { networkId, container, ageMs } of gone) {
      if (ageMs >= graceMs) await desk.detach(networkId, [container])
    }
    const youngMs = gone.map(({ ageMs }) => ageMs).filter((ageMs) => ageMs < graceMs)
    return youngMs.length > 0 ? graceMs - Math.max(...youngMs) : undefined
  }
}
