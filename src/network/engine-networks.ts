import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import type { Engine } from '../engine/index.ts'
import type { NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'

/** What of the engine's client the data plane uses. */
export type EngineNetworks = Pick<Engine['networks'], 'list' | 'inspect' | 'create' | 'remove'>
type EngineNetwork = Awaited<ReturnType<EngineNetworks['inspect']>>

/** Label of an engine network that stands for a cluster network: its id. */
export const networkIdLabel = 'skep.network.id'
/** Label that says which data plane made it: several may share an engine. */
export const ownerLabel = 'skep.network.owner'
const bridgeOption = 'com.docker.network.bridge.name'
const mtuOption = 'com.docker.network.driver.mtu'
/** A network that was just made is kept this long before anything has to want it, in ms. */
const unwantedKeepMs = 60_000

/** The engine's bridge networks that stand for the cluster's networks on this node. */
export class NodeNetworks {
  readonly #engine: EngineNetworks
  readonly #removeBridge: (networkId: string) => Promise<void>
  readonly #owner: string
  readonly #mtu: (network: NetworkAssignment) => Promise<number>
  readonly #clock: Clock
  readonly #log: Log
  /** Those known to be there as they should be, and when they were last asked for. */
  readonly #readyAtMs = new Map<string, number>()
  readonly #making = new Map<string, Promise<string>>()
  readonly #removing = new Map<string, Promise<boolean>>()
  #wanted: ReadonlySet<string> = new Set()
  /** Asked for since what is wanted was last gone through. */
  #asked = new Set<string>()

  constructor(options: {
    readonly engine: EngineNetworks
    /** Removes a bridge device that the engine left, by network id. */
    readonly removeBridge: (networkId: string) => Promise<void>
    readonly owner: string
    /** Largest packet that passes between nodes, in bytes. */
    readonly mtu: (network: NetworkAssignment) => Promise<number>
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#engine = options.engine
    this.#removeBridge = options.removeBridge
    this.#owner = options.owner
    this.#mtu = options.mtu
    this.#clock = options.clock
    this.#log = options.log
  }

  isReady(network: NetworkAssignment): boolean {
    return this.#readyAtMs.has(network.id)
  }

  /** Makes the network be there; resolves with its engine name. See `DataPlane.ensureNetwork`. */
  async ensure(network: NetworkAssignment): Promise<string> {
    this.#asked.add(network.id)
    await this.#removing.get(network.id)
    if (this.#readyAtMs.has(network.id)) {
      this.#readyAtMs.set(network.id, this.#clock.nowMs())
      return network.name
    }
    const running = this.#making.get(network.id)
    if (running) return await running
    const making = this.#make(network).finally(() => this.#making.delete(network.id))
    this.#making.set(network.id, making)
    return await making
  }

  /** Removes what is not wanted: made by us, idle, and not just asked for. */
  async keepOnly(wanted: ReadonlySet<string>): Promise<void> {
    await this.#removeUnwanted(await this.#ownNetworks(), wanted)
  }

  async #removeUnwanted(own: readonly EngineNetwork[], wanted: ReadonlySet<string>): Promise<void> {
    const nowMs = this.#clock.nowMs()
    const asked = this.#asked
    this.#asked = new Set()
    // What was wanted and is not any more waits for nobody, unless a task has come since that nobody has counted yet.
    for (const id of this.#wanted) {
      if (!wanted.has(id) && !asked.has(id) && this.#readyAtMs.has(id)) {
        this.#readyAtMs.set(id, nowMs - unwantedKeepMs)
      }
    }
    this.#wanted = wanted
    for (const network of own) {
      const id = network.Labels?.[networkIdLabel] ?? ''
      const askedAtMs = this.#readyAtMs.get(id)
      const isFresh = askedAtMs !== undefined && nowMs - askedAtMs < unwantedKeepMs
      if (wanted.has(id) || isFresh || this.#making.has(id)) continue
      await this.#removeIdle(network)
    }
  }

  /**
   * Looks again at the engine: what was removed behind our back is made anew, what nobody wants any more is removed.
   * Says what had gone.
   */
  async audit(networks: readonly NetworkAssignment[]): Promise<readonly string[]> {
    const listed = await this.#engine.list({ filters: { label: [networkIdLabel] } })
    const present = new Set(listed.map(({ Labels }) => Labels?.[networkIdLabel]))
    const drift: string[] = []
    for (const network of networks) {
      if (!this.#readyAtMs.has(network.id) || present.has(network.id)) continue
      this.#readyAtMs.delete(network.id)
      await this.ensure(network)
      drift.push(`the engine's network "${network.name}" was gone`)
    }
    await this.#removeUnwanted(
      listed.filter(({ Labels }) => Labels?.[ownerLabel] === this.#owner),
      new Set(networks.map(({ id }) => id)),
    )
    return drift
  }

  /** Removes all that this data plane made and nothing uses any more. */
  async clear(): Promise<void> {
    for (const network of await this.#ownNetworks()) await this.#removeIdle(network)
  }

  async #ownNetworks(): Promise<readonly EngineNetwork[]> {
    return await this.#engine.list({ filters: { label: [`${ownerLabel}=${this.#owner}`] } })
  }

  /** Resolves with whether it is gone. A network in use stays: it is looked at again later. */
  async #removeIdle(network: EngineNetwork): Promise<boolean> {
    const id = network.Labels?.[networkIdLabel] ?? ''
    const removing = this.#remove(network).finally(() => this.#removing.delete(id))
    this.#removing.set(id, removing)
    return await removing
  }

  async #remove(network: EngineNetwork): Promise<boolean> {
    const id = network.Labels?.[networkIdLabel] ?? ''
    try {
      await this.#engine.remove(network.Id)
      this.#readyAtMs.delete(id)
      await this.#removeBridge(id)
      this.#log.info('network removed from this node', { network: network.Name })
      return true
    } catch (error) {
      if (error instanceof UserError && error.code === 'notFound') return true
      this.#log.debug('a network nobody asks for is still in use', {
        network: network.Name,
        error: messageOf(error),
      })
      return false
    }
  }

  async #make(network: NetworkAssignment): Promise<string> {
    const existing = await this.#byName(network.name)
    if (existing && isMade(existing, network)) return this.#becomeReady(network)
    if (existing) await this.#makeWay(existing, network)
    await this.#removeBridge(network.id)
    const body = networkBody(network, this.#owner, await this.#mtu(network))
    try {
      await this.#engine.create(body)
    } catch (error) {
      const before = await this.#holderOf(network)
      if (!before) throw explain(error, network)
      if (!(await this.#removeIdle(before))) throw stillInUse(before.Name)
      await this.#engine.create(body).catch((again: unknown) => {
        throw explain(again, network)
      })
    }
    this.#log.info('network made on this node', {
      network: network.name,
      subnet: network.subnet,
      bridge: bridgeName(network.id),
    })
    return this.#becomeReady(network)
  }

  #becomeReady(network: NetworkAssignment): string {
    this.#readyAtMs.set(network.id, this.#clock.nowMs())
    return network.name
  }

  async #byName(name: string): Promise<EngineNetwork | undefined> {
    try {
      const found = await this.#engine.inspect(name)
      // The engine also takes the beginning of an id for a name.
      return found.Name === name ? found : undefined
    } catch (error) {
      if (error instanceof UserError && error.code === 'notFound') return undefined
      throw error
    }
  }

  /** Our own network of before with the same subnet: the cluster gives one out again once nothing needs it. */
  async #holderOf(network: NetworkAssignment): Promise<EngineNetwork | undefined> {
    return (await this.#ownNetworks()).find(
      ({ Labels, IPAM }) =>
        Labels?.[networkIdLabel] !== network.id &&
        (IPAM.Config ?? []).some(
          ({ Subnet }) =>
            Subnet !== undefined && [network.subnet, network.ipv6?.subnet].includes(Subnet),
        ),
    )
  }

  /** A namesake goes if it was ours and is idle: a cluster network that was removed and made again. */
  async #makeWay(existing: EngineNetwork, network: NetworkAssignment): Promise<void> {
    const isOurs = existing.Labels?.[networkIdLabel] !== undefined
    if (!isOurs) {
      throw new UserError(
        'conflict',
        `the Docker Engine of this node already has a network "${network.name}" that is not Skep's`,
        { next: `Remove it (docker network rm ${network.name}) or name the cluster's otherwise.` },
      )
    }
    if (!(await this.#removeIdle(existing))) throw stillInUse(network.name)
  }
}

function stillInUse(name: string): UserError {
  return new UserError('unavailable', `an earlier network "${name}" is still in use on this node`, {
    next: 'It is replaced as soon as its last container is gone.',
  })
}

function isMade(existing: EngineNetwork, network: NetworkAssignment): boolean {
  return (
    existing.Labels?.[networkIdLabel] === network.id &&
    existing.Internal === network.internal &&
    [network.subnet, network.ipv6?.subnet].every(
      (subnet) =>
        subnet === undefined ||
        (existing.IPAM.Config ?? []).some(({ Subnet }) => Subnet === subnet),
    )
  )
}

export function networkBody(network: NetworkAssignment, owner: string, mtu: number) {
  const options = Object.entries(network.options).filter(
    ([key]) => key.startsWith('com.docker.network.') && key !== bridgeOption,
  )
  return {
    Name: network.name,
    Driver: 'bridge',
    CheckDuplicate: true,
    Internal: network.internal,
    Attachable: network.attachable,
    ...(network.ipv6 ? { EnableIPv6: true } : {}),
    IPAM: {
      Driver: 'default',
      Config: [
        { Subnet: network.subnet, Gateway: network.gateway },
        ...(network.ipv6 ? [{ Subnet: network.ipv6.subnet, Gateway: network.ipv6.gateway }] : []),
      ],
    },
    Options: {
      [mtuOption]: `${mtu}`,
      ...Object.fromEntries(options),
      [bridgeOption]: bridgeName(network.id),
    },
    Labels: { [networkIdLabel]: network.id, [ownerLabel]: owner },
  }
}

function explain(error: unknown, network: NetworkAssignment): unknown {
  if (!(error instanceof UserError) || error.code === 'unavailable') return error
  const { message } = error
  if (
    network.ipv6 &&
    /disable_ipv6|IPv6.*(not supported|disabled)|address family not supported/i.test(message)
  ) {
    return new UserError(
      'unsupported',
      `the network "${network.name}" has IPv6, which this node's host has not: ${message}`,
      {
        next: 'Switch it on there (sysctl net.ipv6.conf.all.disable_ipv6=0), or keep its services from that node.',
        cause: error,
      },
    )
  }
  if (/overlaps|conflicts with network|already exists|in use/i.test(message)) {
    return new UserError(
      'conflict',
      `the network "${network.name}" (${network.subnet}) can't be made on this node: ${message}`,
      {
        next: 'Remove what uses that name or subnet there, or give the network another (--subnet).',
        cause: error,
      },
    )
  }
  return new UserError(
    error.code,
    `the network "${network.name}" can't be made on this node: ${message}`,
    {
      cause: error,
      ...(error.next === undefined ? {} : { next: error.next }),
    },
  )
}
