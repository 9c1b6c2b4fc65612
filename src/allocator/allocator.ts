import { UserError, unreachable, usualPortions } from '../base/index.ts'
import {
  type AnyObject,
  type Endpoint,
  type EndpointId,
  formatIpv4,
  formatIpv4Block,
  holdsResources,
  type Ipv4Block,
  type Ipv6Block,
  ipv4Of,
  isStopWanted,
  macOf,
  type Network,
  type NetworkId,
  type NetworkStatus,
  type NodeAddress,
  type PortSpec,
  type Protocol,
  parseIpv4,
  parseIpv4Block,
  parseWideBlock,
  type Task,
  type TaskAddress,
  type WorkloadId,
} from '../model/index.ts'
import type { AppliedChange, Change, Commit, View } from '../store/store.ts'
import { AddressPool } from './address-pool.ts'
import { chooseIpv6 } from './ipv6-subnets.ts'
import { findOverlap, freeBlock } from './subnets.ts'

/** What the allocator wants written, each object whole and with the version it was decided on. */
export interface AllocatorDecision {
  readonly networks: readonly Network[]
  readonly endpoints: readonly Endpoint[]
  readonly tasks: readonly Task[]
  /** The limit was reached: there is more to decide at once. */
  readonly more: boolean
}

/** Published ports that are given out when none is asked for. */
const dynamicPorts = { first: 30_000, last: 32_767 } as const
/** VXLAN network identifiers are 24 bits; the lower ones are left to others, as Docker does. */
const vniFirst = 4_096
const vniLast = 2 ** 24 - 1
/** Of the ingress network's addresses, the share that nodes may have. */
const nodesShareMax = 0.5
const vniOption = 'com.docker.network.driver.overlay.vxlanid_list'

/** Why a task gets no addresses, and what has to change before it may. */
interface Waiting {
  readonly why: string
  readonly waitsFor: NetworkId | WorkloadId
}

interface SettledTask {
  /** The same object when nothing is to do. */
  readonly settled: Task
  readonly waitsFor?: NetworkId | WorkloadId
}

/** What can hold addresses, ports or a subnet. */
type Holder = Network | Endpoint | Task

/**
 * Gives out subnets, addresses and published ports. Nothing of it is stored but in the objects that hold it, so what is
 * free is derived, and nothing can leak: this index is kept up to date by commits and can be made anew at any time.
 */
export class Allocator {
  readonly #view: View
  /** Networks, endpoints, and the tasks with addresses, as they are or as the last decision wants them. */
  readonly #holders = new Map<string, Holder>()
  /** What the last decision changed in `#holders` and was not yet seen in a commit: the objects before. */
  readonly #undecided = new Map<string, Holder | undefined>()
  readonly #pools = new Map<NetworkId, AddressPool>()
  readonly #blocks = new Map<NetworkId, { readonly block: Ipv4Block; readonly name: string }>()
  readonly #vnis = new Map<number, number>()
  /** Endpoints by ingress port: `tcp/8080`. */
  readonly #ports = new Map<string, Set<EndpointId>>()
  /** Endpoints by host-mode port, so that the same number is not chosen for ingress. */
  readonly #hostPorts = new Map<string, Set<EndpointId>>()
  readonly #ingress = new Set<NetworkId>()
  #hostBlocks: readonly Ipv4Block[] | undefined
  /** Addresses promised to plain containers whose commit is on its way. */
  readonly #promised = new Map<NetworkId, string[]>()
  readonly #networksToCheck = new Set<NetworkId>()
  readonly #endpointsToCheck = new Set<EndpointId>()
  readonly #newTasks = new Map<string, Task>()
  /** New tasks that have been told why they wait, by the network or workload that has to change first. */
  readonly #stuckTasks = new Map<NetworkId | WorkloadId, Map<string, Task>>()
  readonly #stuckOn = new Map<string, NetworkId | WorkloadId>()

  private constructor(view: View) {
    this.#view = view
  }

  /** Learns everything. The view is kept: revisions and endpoints are read from it as they are needed. */
  static from(view: View): Allocator {
    const parts = Allocator.inParts(view)
    for (;;) {
      const part = parts.next()
      if (part.done) return part.value
    }
  }

  /** The same in parts of a few ms each. Commits made meanwhile are to be applied once it is whole. */
  static *inParts(view: View, perPart = usualPortions.perPart): Generator<undefined, Allocator> {
    const allocator = new Allocator(view)
    // As they are now: what changes meanwhile is in those commits.
    const all = [...view.list('network'), ...view.list('endpoint'), ...view.list('task')]
    for (const [at, object] of all.entries()) {
      if (at % perPart === 0) yield
      allocator.#learn(object.id, undefined, object)
    }
    return allocator
  }

  /** Learns what a commit changed. Call it for every commit, in order. */
  apply(commit: Commit): void {
    for (const { id, before, after } of commit.changes) this.#learn(id, before, after)
  }

  #learn(id: string, before: AppliedChange['before'], after: AppliedChange['after']): void {
    const object = after ?? before
    switch (object?.kind) {
      case 'network':
        this.#undecided.delete(id)
        this.#endPromises(object.id)
        this.#setHolder(id, after?.kind === 'network' ? after : undefined)
        this.#networkChanged(object, after !== undefined)
        this.#lookAgainAt(object.id)
        return
      case 'endpoint':
        this.#undecided.delete(id)
        this.#setHolder(id, after?.kind === 'endpoint' ? after : undefined)
        if (after) this.#endpointsToCheck.add(object.id)
        else this.#endpointsToCheck.delete(object.id)
        for (const endpoint of [before, after]) {
          if (endpoint?.kind !== 'endpoint') continue
          for (const { workloadId } of endpoint.spec.backends) this.#lookAgainAt(workloadId)
          this.#lookAgainAtNetworksOf(endpoint)
        }
        return
      case 'task': {
        const held = this.#holders.get(id)
        this.#undecided.delete(id)
        this.#setHolder(id, after?.kind === 'task' ? after : undefined)
        if (held && !this.#holders.has(id)) this.#lookAgainAtNetworksOf(held)
        this.#unstick(id)
        if (after?.kind === 'task' && after.status.state === 'new') this.#newTasks.set(id, after)
        else this.#newTasks.delete(id)
        return
      }
      case 'node':
        this.#hostBlocks = undefined
        // The attachments of a node that is gone are dropped; waiting networks may find room.
        if (!after) for (const { id } of this.#view.list('network')) this.#networksToCheck.add(id)
        if (!before) for (const id of this.#ingress) this.#networksToCheck.add(id)
        return
      case 'cluster':
      case 'workload':
      case 'revision':
      case 'secret':
      case 'config':
      case undefined:
        return
      default:
        unreachable(object)
    }
  }

  /** What waits for this may go on. */
  #lookAgainAt(id: NetworkId | WorkloadId): void {
    const stuck = this.#stuckTasks.get(id)
    if (!stuck) return
    this.#stuckTasks.delete(id)
    for (const [taskId, task] of stuck) {
      this.#stuckOn.delete(taskId)
      this.#newTasks.set(taskId, task)
    }
  }

  /** What it held of them is free again, or may be. */
  #lookAgainAtNetworksOf(holder: Holder): void {
    if (this.#stuckOn.size === 0 || holder.kind === 'network') return
    const held = holder.kind === 'task' ? holder.addresses : holder.status.vips
    for (const { networkId } of held) this.#lookAgainAt(networkId)
  }

  #stick(task: Task, on: NetworkId | WorkloadId): void {
    this.#newTasks.delete(task.id)
    this.#stuckOn.set(task.id, on)
    const stuck = this.#stuckTasks.get(on)
    if (stuck) stuck.set(task.id, task)
    else this.#stuckTasks.set(on, new Map([[task.id, task]]))
  }

  #unstick(id: string): void {
    const on = this.#stuckOn.get(id)
    if (on === undefined) return
    this.#stuckOn.delete(id)
    const stuck = this.#stuckTasks.get(on)
    stuck?.delete(id)
    if (stuck?.size === 0) this.#stuckTasks.delete(on)
  }

  #networkChanged(network: Network, isThere: boolean): void {
    if (isThere) this.#networksToCheck.add(network.id)
    else this.#networksToCheck.delete(network.id)
    // A waiting network may find room, and endpoints addresses.
    const endpoints = network.spec.ingress
      ? this.#view.list('endpoint')
      : this.#view.endpointsOnNetwork(network.id)
    for (const { id } of endpoints) this.#endpointsToCheck.add(id)
  }

  #setHolder(id: string, now: Holder | undefined): void {
    const before = this.#holders.get(id)
    if (before === now) return
    const kept = now && keeps(now) ? now : undefined
    if (kept) this.#holders.set(id, kept)
    else this.#holders.delete(id)
    // Taken before it is given back, so that what stays held is never free in between.
    if (kept) this.#hold(kept, true)
    if (before) this.#hold(before, false, kept)
    const network =
      kept?.kind === 'network' ? kept : before?.kind === 'network' ? before : undefined
    if (network) {
      this.#pool(network.id).setNetwork(kept?.kind === 'network' ? kept : undefined)
      this.#forgetPool(network.id)
    }
  }

  #hold(holder: Holder, isTaken: boolean, replacedBy?: Holder): void {
    switch (holder.kind) {
      case 'network': {
        const { id, name, status } = holder
        const block = status.subnet === undefined ? undefined : parseIpv4Block(status.subnet)
        if (isTaken) {
          if (block) this.#blocks.set(id, { block, name })
          if (holder.spec.ingress) this.#ingress.add(id)
          this.#pool(id).setNetwork(holder)
        } else {
          const next = replacedBy?.kind === 'network' ? replacedBy : undefined
          if (next?.status.subnet === undefined) this.#blocks.delete(id)
          if (!next?.spec.ingress) this.#ingress.delete(id)
        }
        if (status.vni !== undefined) {
          const holders = (this.#vnis.get(status.vni) ?? 0) + (isTaken ? 1 : -1)
          if (holders > 0) this.#vnis.set(status.vni, holders)
          else this.#vnis.delete(status.vni)
        }
        for (const { address } of status.attachments ?? []) this.#setAddress(id, address, isTaken)
        for (const { address } of status.nodeAddresses ?? []) {
          this.#setAddress(id, address, isTaken, true)
        }
        return
      }
      case 'endpoint':
        for (const { networkId, address } of holder.status.vips) {
          this.#setAddress(networkId, address, isTaken)
        }
        for (const port of holder.status.ports) {
          if (port.publishedPort === 0) continue
          // The new one was taken just before: what both hold stays.
          const stays = !isTaken && replacedBy?.kind === 'endpoint' && hasPort(replacedBy, port)
          if (!stays) this.#setPort(holder.id, port, isTaken)
        }
        return
      case 'task':
        for (const { networkId, address } of holder.addresses) {
          this.#setAddress(networkId, address, isTaken)
        }
        return
      default:
        unreachable(holder)
    }
  }

  #setPort(id: EndpointId, port: PortSpec, isTaken: boolean): void {
    const byPort = port.publishMode === 'ingress' ? this.#ports : this.#hostPorts
    const key = portKey(port.protocol, port.publishedPort)
    const holders = byPort.get(key)
    if (isTaken) {
      if (holders) holders.add(id)
      else byPort.set(key, new Set([id]))
    } else {
      holders?.delete(id)
      if (holders?.size === 0) byPort.delete(key)
    }
  }

  #setAddress(
    networkId: NetworkId,
    text: string | undefined,
    isTaken: boolean,
    isApart = false,
  ): void {
    const address = text === undefined ? undefined : parseIpv4(text)
    if (address === undefined) return
    if (isTaken) {
      this.#pool(networkId).hold(address, isApart)
    } else {
      this.#pool(networkId).release(address)
      this.#forgetPool(networkId)
    }
  }

  #pool(id: NetworkId): AddressPool {
    let pool = this.#pools.get(id)
    if (!pool) {
      pool = new AddressPool()
      this.#pools.set(id, pool)
    }
    return pool
  }

  #forgetPool(id: NetworkId): void {
    if (this.#pools.get(id)?.isForgettable) this.#pools.delete(id)
  }

  #network(id: NetworkId): Network | undefined {
    const holder = this.#holders.get(id)
    return holder?.kind === 'network' ? holder : undefined
  }

  #endpoint(id: EndpointId): Endpoint | undefined {
    const holder = this.#holders.get(id)
    return holder?.kind === 'endpoint' ? holder : undefined
  }

  /** Takes what a decision gives, until a commit says otherwise. */
  #want(object: Holder): void {
    if (!this.#undecided.has(object.id))
      this.#undecided.set(object.id, this.#holders.get(object.id))
    this.#setHolder(object.id, object)
  }

  /**
   * An address for a plain container on an attachable network: a free one, or the one asked for. Write it into the
   * network's `status.attachments` in the same turn; from then on that entry holds it. Until a commit changes the
   * network, it is given to nobody else.
   * Throws `notFound`, `unavailable` (no subnet yet), `failedPrecondition` (full), `invalidInput` or `conflict` (the
   * address asked for).
   */
  freeAddress(
    networkId: NetworkId,
    asked?: string,
  ): { readonly address: string; readonly mac: string } {
    const network = this.#network(networkId)
    if (!network) {
      throw new UserError('notFound', `network ${networkId} not found`, {
        next: 'List the networks with `docker network ls`.',
      })
    }
    const pool = this.#pool(networkId)
    if (!pool.hasBounds) {
      throw new UserError('unavailable', `network ${network.name} has no subnet`, {
        next: network.status.error ?? 'Try again in a moment.',
      })
    }
    let address = pool.free()
    if (asked !== undefined) {
      const { subnet, ipv6 } = network.status
      const narrow =
        isWide(asked) && subnet !== undefined && ipv6 ? ipv4Of({ subnet, ipv6 }, asked) : asked
      address = parseIpv4(narrow ?? '')
      if (address === undefined || !pool.isAskable(address)) {
        throw new UserError(
          'invalidInput',
          `network ${network.name} (${(isWide(asked) ? ipv6?.subnet : subnet) ?? 'no subnet of that kind'}) cannot give the address ${asked}`,
          { next: 'Name another address of that subnet, or none to get a free one.' },
        )
      }
      if (pool.holders(address) > 0) {
        throw new UserError('conflict', `address ${asked} is in use on network ${network.name}`, {
          next: 'Name another address, or none to get a free one.',
        })
      }
    }
    if (address === undefined) throw new UserError('failedPrecondition', this.#fullText(network))
    const text = formatIpv4(address)
    const promised = this.#promised.get(networkId)
    if (promised) promised.push(text)
    else this.#promised.set(networkId, [text])
    pool.hold(address)
    return { address: text, mac: macOf(text) }
  }

  /** A commit that was decided before the network changed fails, so what was promised for it is free again. */
  #endPromises(networkId: NetworkId): void {
    const promised = this.#promised.get(networkId) ?? []
    this.#promised.delete(networkId)
    for (const address of promised) this.#setAddress(networkId, address, false)
  }

  #takeBack(): void {
    for (const [id, before] of this.#undecided) {
      const wanted = this.#holders.get(id)
      this.#setHolder(id, before)
      if (wanted) this.#lookAgainAtNetworksOf(wanted)
    }
    this.#undecided.clear()
  }

  /**
   * Decides for all that waits, at most `limit` objects: networks first (ingress before the others), then endpoints,
   * then tasks. Commit the changes of one decision together. Asked again before that, it gives the same answer up to
   * the choice of addresses.
   */
  decide(nowMs: number, limit: number): AllocatorDecision {
    this.#takeBack()
    const networks: Network[] = []
    const endpoints: Endpoint[] = []
    const tasks: Task[] = []
    const isFull = () => networks.length + endpoints.length + tasks.length >= limit
    const answer = (more: boolean) => ({ networks, endpoints, tasks, more })

    const waiting = [...this.#networksToCheck].flatMap((id) => this.#network(id) ?? [])
    for (const network of waiting.sort((a, b) => Number(b.spec.ingress) - Number(a.spec.ingress))) {
      if (isFull()) return answer(true)
      const settled = this.#settleNetwork(network)
      if (settled !== network) {
        this.#want(settled)
        networks.push(settled)
      } else if (isSettledNetwork(network)) this.#networksToCheck.delete(network.id)
    }
    for (const id of this.#endpointsToCheck) {
      if (isFull()) return answer(true)
      const endpoint = this.#endpoint(id)
      if (!endpoint) {
        this.#endpointsToCheck.delete(id)
        continue
      }
      const settled = this.#settleEndpoint(endpoint)
      if (settled !== endpoint) {
        this.#want(settled)
        endpoints.push(settled)
      } else if (endpoint.status.error === undefined) this.#endpointsToCheck.delete(id)
    }
    for (const task of this.#newTasks.values()) {
      if (isFull()) return answer(true)
      const { settled, waitsFor } = this.#settleTask(task, nowMs)
      if (settled !== task) {
        this.#want(settled)
        tasks.push(settled)
      } else if (waitsFor !== undefined) this.#stick(task, waitsFor)
    }
    return answer(false)
  }

  /** The network with a subnet and answers to those who want to attach; the same object when nothing is to do. */
  #settleNetwork(network: Network): Network {
    if (!isOurs(network)) return network
    let settled = network
    if (network.status.subnet === undefined || network.status.vni === undefined) {
      const { attachments, nodeAddresses } = network.status
      const status = {
        ...this.#chooseSubnet(network),
        ...(attachments ? { attachments } : {}),
        ...(nodeAddresses ? { nodeAddresses } : {}),
      }
      if (status.error !== undefined && status.error === network.status.error) return network
      settled = { ...network, status }
    }
    return this.#withNodeAddresses(this.#withoutLostAttachments(settled))
  }

  /** Plain containers go with their node; while it is there, its agent says which of them are gone. */
  #withoutLostAttachments(network: Network): Network {
    const attachments = network.status.attachments ?? []
    const kept = attachments.filter(({ nodeId }) => this.#view.get('node', nodeId) !== undefined)
    return kept.length === attachments.length
      ? network
      : { ...network, status: { ...network.status, attachments: kept } }
  }

  /**
   * Each live node has an address on the ingress network, from its end, and at most half of it is theirs: a node that gets
   * none sends what comes in by its published ports to its own tasks alone.
   */
  #withNodeAddresses(network: Network): Network {
    const pool = this.#pool(network.id)
    // The subnet was only just chosen: its addresses are given out in the next round.
    if (!network.spec.ingress || !pool.hasBounds) return network
    const before = network.status.nodeAddresses ?? []
    const kept = before.filter(({ nodeId }) => this.#view.get('node', nodeId) !== undefined)
    const served = new Set(kept.map(({ nodeId }) => nodeId))
    const chosen = new Set<number>()
    const added: NodeAddress[] = []
    for (const { id } of this.#view.list('node')) {
      if (served.has(id)) continue
      if (kept.length + added.length >= Math.floor(pool.size * nodesShareMax)) break
      const address = pool.freeFromEnd(chosen)
      if (address === undefined) break
      chosen.add(address)
      added.push({ nodeId: id, address: formatIpv4(address), mac: macOf(formatIpv4(address)) })
    }
    if (added.length === 0 && kept.length === before.length) return network
    return { ...network, status: { ...network.status, nodeAddresses: [...kept, ...added] } }
  }

  #chooseSubnet(network: Network): NetworkStatus {
    const config = network.spec.ipam.find(({ subnet }) => !isWide(subnet))
    const others = [...this.#blocks].flatMap(([id, used]) => (id === network.id ? [] : [used]))
    let block: Ipv4Block | undefined
    if (config?.subnet !== undefined) {
      block = parseIpv4Block(config.subnet)
      if (!block) return { error: `subnet ${config.subnet} is no IPv4 block such as 10.0.9.0/24` }
      const taken = findOverlap(block, others)
      if (taken) {
        return {
          error:
            `subnet ${config.subnet} overlaps ${formatIpv4Block(taken.block)} of network ${taken.name}: ` +
            'choose another subnet, or leave it out to get a free one',
        }
      }
    } else {
      const [cluster] = this.#view.list('cluster')
      const pools = cluster?.status.addressPools ?? []
      const prefixLength = cluster?.status.subnetSize ?? 24
      block = freeBlock(
        pools.flatMap((pool) => parseIpv4Block(pool) ?? []),
        prefixLength,
        [...others.map((other) => other.block), ...this.#blocksOfHosts()],
      )
      if (!block) {
        return {
          error:
            `no free /${prefixLength} subnet is left in the address pools (${pools.join(', ') || 'none'}): ` +
            'remove a network nobody uses, or name a subnet for this one',
        }
      }
    }
    const vni = this.#chooseVni(network)
    if (typeof vni === 'string') return { error: vni }
    const narrow = {
      subnet: formatIpv4Block(block),
      gateway: config?.gateway ?? formatIpv4(block.first + 1),
    }
    const ipv6 = network.spec.ipv6 ? this.#chooseWide(network, narrow) : undefined
    if (typeof ipv6 === 'string') return { error: ipv6 }
    return {
      ...narrow,
      ...(config?.range === undefined ? {} : { range: config.range }),
      ...(ipv6 ? { ipv6 } : {}),
      vni,
    }
  }

  /** The network's IPv6 block, which has an address for each of its IPv4 ones; or why there is none. */
  #chooseWide(
    network: Network,
    narrow: { readonly subnet: string; readonly gateway: string },
  ): Ipv6Block | string {
    const config = network.spec.ipam.find(({ subnet }) => isWide(subnet))
    const others = [...this.#blocks.keys()].flatMap((id) => {
      const known = id === network.id ? undefined : this.#network(id)
      const block = parseWideBlock(known?.status.ipv6?.subnet ?? '')
      return known && block ? [{ block, name: known.name, subnet: known.status.ipv6?.subnet }] : []
    })
    return chooseIpv6({
      ...narrow,
      asked: config,
      others,
      ofHosts: this.#hostSubnets().flatMap((text) => parseWideBlock(text) ?? []),
      clusterId: [...this.#view.list('cluster')][0]?.id ?? '',
    })
  }

  #chooseVni(network: Network): number | string {
    const asked = network.spec.options[vniOption]?.split(',')[0]
    if (asked !== undefined && asked !== '') {
      const vni = Number(asked)
      if (!Number.isInteger(vni) || vni < 1 || vni > vniLast) {
        return `${vniOption}=${asked} is no VXLAN identifier from 1 to ${vniLast}`
      }
      return this.#vnis.has(vni)
        ? `VXLAN identifier ${vni} is used by another network: choose another ${vniOption}, or leave it out`
        : vni
    }
    for (let vni = vniFirst; vni <= vniLast; vni++) if (!this.#vnis.has(vni)) return vni
    return 'every VXLAN identifier is in use: remove a network nobody uses'
  }

  #blocksOfHosts(): readonly Ipv4Block[] {
    if (!this.#hostBlocks) {
      this.#hostBlocks = this.#hostSubnets().flatMap((text) => parseIpv4Block(text) ?? [])
    }
    return this.#hostBlocks
  }

  #hostSubnets(): readonly string[] {
    const texts = new Set<string>()
    for (const { description } of this.#view.list('node')) {
      for (const subnet of description.hostSubnets) texts.add(subnet)
    }
    return [...texts]
  }

  #fullText(network: Network): string {
    const pool = this.#pool(network.id)
    const from = network.status.range ?? network.status.subnet ?? 'no subnet'
    return (
      `no free address in network ${network.name} (${from}: ${pool.used} of ${pool.size} used): ` +
      'stop what is not needed on it, or use a network with a larger subnet'
    )
  }

  /** Why nothing can be given from a network, or the network. */
  #usable(id: NetworkId): Network | string {
    const network = this.#network(id)
    if (!network) return `network ${id} no longer exists`
    if (network.status.subnet !== undefined) return network
    return `network ${network.name} has no subnet: ${network.status.error ?? 'it waits for one'}`
  }

  /** The endpoint with all it asks for, or the reason why not; the same object when nothing is to do. */
  #settleEndpoint(endpoint: Endpoint): Endpoint {
    const errors: string[] = []
    const ports = this.#choosePorts(endpoint, errors)
    const vips = this.#chooseVips(endpoint, errors)
    const status = { vips, ports, ...(errors.length === 0 ? {} : { error: errors.join('; ') }) }
    return sameStatus(status, endpoint.status) ? endpoint : { ...endpoint, status }
  }

  #chooseVips({ spec, status }: Endpoint, errors: string[]): Endpoint['status']['vips'] {
    if (spec.mode !== 'vip') return []
    const wanted = new Set(spec.networks.map(({ networkId }) => networkId))
    if (isPublished(spec.ports)) {
      if (this.#ingress.size === 0) {
        errors.push('service needs ingress network, but no ingress network is present')
      }
      for (const id of this.#ingress) wanted.add(id)
    }
    const vips: { networkId: NetworkId; address: string }[] = []
    for (const networkId of wanted) {
      const network = this.#usable(networkId)
      const known = this.#network(networkId)
      if (known && !isOurs(known)) continue
      if (typeof network === 'string') {
        errors.push(network)
        continue
      }
      const pool = this.#pool(networkId)
      const old = status.vips.find((vip) => vip.networkId === networkId)
      const oldAddress = old && parseIpv4(old.address)
      if (old && oldAddress !== undefined && pool.isAskable(oldAddress)) {
        vips.push(old)
        continue
      }
      const address = pool.free()
      if (address === undefined) errors.push(this.#fullText(network))
      else vips.push({ networkId, address: formatIpv4(address) })
    }
    return vips
  }

  #choosePorts({ id, spec, status }: Endpoint, errors: string[]): readonly PortSpec[] {
    const isFree = (protocol: Protocol, number: number) => {
      const holders = this.#ports.get(portKey(protocol, number))
      return !holders || (holders.size === 1 && holders.has(id))
    }
    const own = new Set<string>()
    for (const { protocol, publishedPort, publishMode } of spec.ports) {
      if (publishedPort !== 0 && publishMode === 'ingress')
        own.add(portKey(protocol, publishedPort))
    }
    const ports: PortSpec[] = []
    for (const port of spec.ports) {
      if (port.publishMode === 'host') {
        ports.push(port)
        continue
      }
      if (port.publishedPort !== 0) {
        if (isFree(port.protocol, port.publishedPort)) ports.push(port)
        else errors.push(this.#portText(id, port))
        continue
      }
      const sticky = status.ports.find(
        (old) =>
          old.publishMode === 'ingress' &&
          old.protocol === port.protocol &&
          old.targetPort === port.targetPort &&
          old.name === port.name &&
          old.publishedPort >= dynamicPorts.first &&
          old.publishedPort <= dynamicPorts.last &&
          !own.has(portKey(old.protocol, old.publishedPort)) &&
          isFree(old.protocol, old.publishedPort),
      )
      const number = sticky?.publishedPort ?? this.#freePort(port.protocol, own, isFree)
      if (number === undefined) {
        errors.push(
          `every port from ${dynamicPorts.first} to ${dynamicPorts.last} (${port.protocol}) is published: ` +
            'name a free one outside that range',
        )
        continue
      }
      own.add(portKey(port.protocol, number))
      ports.push({ ...port, publishedPort: number })
    }
    return ports
  }

  #freePort(
    protocol: Protocol,
    own: ReadonlySet<string>,
    isFree: (protocol: Protocol, number: number) => boolean,
  ): number | undefined {
    for (let number = dynamicPorts.first; number <= dynamicPorts.last; number++) {
      const key = portKey(protocol, number)
      if (!own.has(key) && isFree(protocol, number) && !this.#hostPorts.has(key)) return number
    }
    return undefined
  }

  #portText(id: EndpointId, { protocol, publishedPort }: PortSpec): string {
    const holders = [...(this.#ports.get(portKey(protocol, publishedPort)) ?? [])]
    const names = holders.flatMap((other) =>
      other === id ? [] : (this.#endpoint(other)?.name ?? other),
    )
    return (
      `port ${publishedPort}/${protocol} is already published by ${names.join(', ')}: ` +
      'publish another port, or remove it there'
    )
  }

  /** The task with its addresses, ready for the scheduler; or with why it waits; or the same object. */
  #settleTask(task: Task, nowMs: number): SettledTask {
    if (isStopWanted(task)) {
      // One to be removed is deleted by the reaper: it was never anywhere.
      if (task.desiredState === 'remove') return { settled: task, waitsFor: task.workloadId }
      const { error: _, ...rest } = task.status
      const status = { ...rest, state: 'shutdown', atMs: nowMs, message: 'shutdown' } as const
      return { settled: { ...task, status } }
    }
    const addresses = this.#chooseAddresses(task)
    if ('why' in addresses) {
      const { why, waitsFor } = addresses
      if (task.status.error === why) return { settled: task, waitsFor }
      return { settled: { ...task, status: { ...task.status, error: why } } }
    }
    const { error: _, ...rest } = task.status
    const message = 'pending task scheduling'
    const status = { ...rest, state: 'pending', atMs: nowMs, message } as const
    return { settled: { ...task, addresses, status } }
  }

  #chooseAddresses(task: Task): readonly TaskAddress[] | Waiting {
    const revision = this.#view.get('revision', task.revisionId)
    if (!revision)
      return {
        why: `revision ${task.revisionId} no longer exists`,
        waitsFor: task.workloadId,
      }
    const wanted = new Set(revision.template.networks.map(({ networkId }) => networkId))
    for (const { id } of this.#view.endpointsOfWorkload(task.workloadId)) {
      const endpoint = this.#endpoint(id)
      if (!endpoint) continue
      if (endpoint.status.error !== undefined) {
        const why = `waits for endpoint ${endpoint.name}: ${endpoint.status.error}`
        return { why, waitsFor: task.workloadId }
      }
      if (isPublished(endpoint.spec.ports)) for (const ingress of this.#ingress) wanted.add(ingress)
    }
    const addresses: TaskAddress[] = []
    for (const networkId of wanted) {
      const known = this.#network(networkId)
      if (known && !isOurs(known)) continue
      const network = this.#usable(networkId)
      if (typeof network === 'string') return { why: network, waitsFor: networkId }
      const address = this.#pool(networkId).free()
      if (address === undefined) return { why: this.#fullText(network), waitsFor: networkId }
      addresses.push({ networkId, address: formatIpv4(address), mac: macOf(formatIpv4(address)) })
    }
    return addresses
  }

  /** All that is held and by how many, for comparing with a rebuilt one. */
  describe(): unknown {
    this.#takeBack()
    const sorted = <Value>(
      map: ReadonlyMap<string | number, Value>,
      read: (value: Value) => unknown,
    ) =>
      [...map]
        .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
        .map(([key, value]) => [key, read(value)])
    return {
      pools: sorted(this.#pools, (pool) => pool.describe()),
      blocks: sorted(this.#blocks, ({ block }) => formatIpv4Block(block)),
      vnis: sorted(this.#vnis, (holders) => holders),
      ports: sorted(this.#ports, (holders) => [...holders].sort()),
      hostPorts: sorted(this.#hostPorts, (holders) => [...holders].sort()),
      newTasks: [...this.#newTasks.keys(), ...this.#stuckOn.keys()].sort(),
    }
  }
}

/**
 * The changes that carry a decision out, for one commit. Nothing when a network or endpoint it rests on has changed
 * since; a task that changed or went is left out.
 */
export function changesFor(view: View, decision: AllocatorDecision): Change[] {
  const isFresh = (object: AnyObject) =>
    view.get(object.kind, object.id)?.version === object.version
  const bases = [...decision.networks, ...decision.endpoints]
  if (!bases.every(isFresh)) return []
  return [...bases, ...decision.tasks.filter(isFresh)].map((object) => ({ type: 'update', object }))
}

function isWide(subnet: string | undefined): boolean {
  return subnet?.includes(':') ?? false
}

/** Whether addresses are given out here: the engine cares for its own networks, and for other drivers'. */
function isOurs({ spec }: Network): boolean {
  return !spec.predefined && spec.driver === 'overlay'
}

function isSettledNetwork(network: Network): boolean {
  if (!isOurs(network)) return true
  return network.status.subnet !== undefined && network.status.vni !== undefined
}

function isPublished(ports: readonly PortSpec[]): boolean {
  return ports.some(({ publishMode }) => publishMode === 'ingress')
}

/** Whether the object is kept: a task without addresses, or one that has ended, holds nothing. */
function keeps(holder: Holder): boolean {
  return holder.kind !== 'task' || (holder.addresses.length > 0 && holdsResources(holder))
}

function hasPort(endpoint: Endpoint, port: PortSpec): boolean {
  return endpoint.status.ports.some(
    ({ protocol, publishedPort, publishMode }) =>
      protocol === port.protocol &&
      publishedPort === port.publishedPort &&
      publishMode === port.publishMode,
  )
}

function portKey(protocol: Protocol, number: number): string {
  return `${protocol}/${number}`
}

function sameStatus(a: Endpoint['status'], b: Endpoint['status']): boolean {
  const texts = ({ vips, ports, error }: Endpoint['status']) =>
    JSON.stringify([
      vips.map(({ networkId, address }) => [networkId, address]),
      ports.map((port) => [
        port.name ?? '',
        port.protocol,
        port.targetPort,
        port.publishedPort,
        port.publishMode,
      ]),
      error ?? '',
    ])
  return texts(a) === texts(b)
}
