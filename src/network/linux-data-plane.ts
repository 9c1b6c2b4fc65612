import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Clock, type Log, messageOf, UserError } from '../base/index.ts'
import { ipv4Of, type NetworkId } from '../model/index.ts'
import type { NetworkAssignment, NetworkFinding, NodeExamination } from '../wire/index.ts'
import { openBridgeAddresses, planBridgeAddresses } from './bridge-addresses.ts'
import { bridgeName } from './bridge-name.ts'
import { bridgeSettingsCommand, needBridgeFilter, settleBridges } from './bridge-settings.ts'
import {
  addressesByDevice,
  addressesCommand,
  hostDevices,
  isBridgeUp,
  parseAddresses,
  removeBridge,
  repairBridge,
  settleNodeAddress,
  tuneBridge,
} from './bridges.ts'
import type { CommandResult } from './command.ts'
import { type BatchJob, runInOrder } from './command-batch.ts'
import { type ConnectionTimeouts, readConnectionTimeouts } from './connection-timeouts.ts'
import type { DataPlane, DesiredNetwork, LocalTask } from './data-plane.ts'
import { type EngineNetworks, NodeNetworks } from './engine-networks.ts'
import { examineNames, judgeHost, readHostSettings } from './examination.ts'
import { whatKeepsOut } from './firewall.ts'
import { ForwardingRules, listCommand } from './forwarding.ts'
import {
  publishedSubnets,
  renderHostRules,
  sampleReset,
  sampleTable,
  sampleTimeouts,
} from './host-rules.ts'
import { Ipv6View, isDual } from './ipv6-view.ts'
import { KernelTable } from './kernel-table.ts'
import { hostNamespace, identify, type ProcessIdentity, processNamespace } from './namespace.ts'
import { countOpenConnections, listeningPorts } from './open-connections.ts'
import { Overlay } from './overlay.ts'
import {
  type HostDevice,
  type OverlayPlan,
  overlayMtu,
  planOverlay,
  tunnelMtu,
} from './overlay-plan.ts'
import { overlayCommands, parseDevices } from './overlay-state.ts'
import { buildZones, type ResolverState } from './resolver/zones.ts'
import { ResolverLink } from './resolver-link.ts'
import { openVipRoutes, planVipRoutes, vipRoutesCommand } from './vip-routes.ts'
import {
  type Encryption,
  innerOverheadBytes,
  Tunnel,
  type TunnelPeer,
  type TunnelPlan,
  tunnelAddress,
  tunnelDevice,
  tunnelPort,
} from './wireguard.ts'

export interface LinuxDataPlaneOptions {
  readonly engine: { readonly networks: EngineNetworks }
  /** The resolver's files; only root may read it. Made if it is not there. */
  readonly stateDir: string
  readonly clock: Clock
  readonly log: Log
  /** Names what this data plane makes in the kernel, so that several can share a machine. Default `skep`. */
  readonly tableName?: string
  /** How this host encrypts. Absent: not at all. */
  readonly encryption?: Encryption
  /** The resolver's program: `resolver-main.ts` beside the sources, or what the bundle has of it. */
  readonly resolverEntry?: string
}

const noEncryption: Encryption = { how: 'none', why: 'it was started without' }
const noNetwork: DesiredNetwork = { networks: [], endpoints: [], tasks: [] }

/** How long changes wait for a common look at udp flows, in ms. */
const sweepMs = 200

/** What the overlay was last made of. */
interface ToldOverlay {
  readonly networks: readonly NetworkAssignment[]
  readonly neighbours: DesiredNetwork['neighbours'] | undefined
  readonly dataAddress: string | undefined
}

/** A task's network namespace, told apart from a later one of the same pid. */
interface TaskPlace {
  readonly task: LocalTask
  readonly identity: ProcessIdentity
}

/** The data plane of a Linux host: bridges by the engine, nftables, and a resolver process. */
export async function openLinuxDataPlane(options: LinuxDataPlaneOptions): Promise<DataPlane> {
  const tableName = options.tableName ?? 'skep'
  if (!/^[A-Za-z][A-Za-z0-9_-]{0,30}$/.test(tableName)) {
    throw new UserError('invalidInput', `"${tableName}" can't name an nftables table`, {
      next: 'Use up to 31 letters, digits, "-" and "_", beginning with a letter.',
    })
  }
  const sample = `${tableName}-sample`
  const timeouts = await readConnectionTimeouts()
  const [shared, reset, limited] = await Promise.all(
    [sampleTable(sample), sampleReset(sample), sampleTimeouts(sample, timeouts)].map((script) =>
      hostNamespace.run('nft', ['-c', '-f', '-'], script),
    ),
  )
  const abilities: Abilities = {
    sharesTargets: shared?.code === 0,
    resetsLost: reset?.code === 0,
    ...(limited?.code === 0 ? { timeouts } : {}),
  }
  if (!abilities.sharesTargets) {
    const version = await hostNamespace.run('nft', ['--version'])
    if (version?.code !== 0) {
      throw new UserError('unsupported', `nft does not run here: ${version?.stderr ?? ''}`, {
        next: 'Install nftables and run the daemon as root.',
      })
    }
    options.log.info('this nft is too old for a map of all targets: changes take longer', {
      error: shared?.stderr,
    })
  }
  if (!abilities.resetsLost) {
    options.log.info('this kernel is too old to reset connections to nodes that are lost', {
      error: reset?.stderr,
    })
  }
  if (!abilities.timeouts) {
    options.log.info('this kernel can not forget finished connections sooner', {
      error: limited?.stderr,
    })
  }
  await needBridgeFilter()
  const self = identify(process.pid)
  return new LinuxDataPlane({
    ...options,
    tableName,
    abilities,
    self: self ?? { pid: process.pid, startTicks: 0, namespace: '' },
    resolverEntry: options.resolverEntry ?? resolverEntryBesideThis(),
  })
}

/** What this host's nft and kernel can do; see `renderHostRules`. */
interface Abilities {
  readonly sharesTargets: boolean
  readonly resetsLost: boolean
  readonly timeouts?: ConnectionTimeouts
}

/** The resolver's program: in its folder among the sources, beside the other files in a bundle. */
function resolverEntryBesideThis(): string {
  const folder = fileURLToPath(new URL('.', import.meta.url))
  return import.meta.url.endsWith('.ts')
    ? join(folder, 'resolver', 'resolver-main.ts')
    : join(folder, 'resolver-main.js')
}

class LinuxDataPlane implements DataPlane {
  readonly #options: LinuxDataPlaneOptions
  readonly #tableName: string
  readonly #abilities: Abilities
  readonly #self: ProcessIdentity
  readonly #networks: NodeNetworks
  readonly #resolver: ResolverLink
  readonly #forwarding: ForwardingRules
  readonly #overlay: Overlay
  readonly #tunnel: Tunnel
  readonly #table: KernelTable
  /** What networks with IPv6 have besides. Without any there is no such table. */
  readonly #ipv6View = new Ipv6View()
  readonly #table6: KernelTable
  readonly #forwarding6: ForwardingRules
  readonly #addresses6 = openBridgeAddresses()
  #isIpv6Used = false
  #isIpv6Looked = false
  readonly #vipRoutes = openVipRoutes()
  /** By process: `<pid> <start>`. */
  #places: ReadonlyMap<string, TaskPlace> = new Map()

  #desired: DesiredNetwork = noNetwork
  /** Networks made for tasks to come, before the desired state names them. */
  readonly #expected = new Map<NetworkId, NetworkAssignment>()
  #round: Promise<void> | undefined
  #nextRound: Promise<void> | undefined
  /** Kernel and resolver are changed by one at a time: a round, an audit, or clear. */
  #turn: Promise<unknown> = Promise.resolve()
  #forwardedSubnets: string | undefined
  #forwardedSubnets6 = ''
  #settledBridges = ''
  #keptNetworks: string | undefined
  #canMoveFlows = true
  #isSweepDue = false
  #isForgetting = false
  /** What the kernel is told to forget, one after the other, beside the turns. */
  #forgotten: Promise<void> = Promise.resolve()
  #toldOverlay: ToldOverlay | undefined
  #isOverlayUsed = false
  #isOverlaySeen = false
  #resolverTrouble = ''
  #firewallTrouble: string | undefined
  readonly #closed = new AbortController()

  constructor(
    options: LinuxDataPlaneOptions & {
      readonly tableName: string
      readonly abilities: Abilities
      readonly resolverEntry: string
      readonly self: ProcessIdentity
    },
  ) {
    const { engine, stateDir, clock, log, tableName, resolverEntry } = options
    this.#options = options
    this.#tableName = tableName
    this.#abilities = options.abilities
    this.#self = options.self
    this.#networks = new NodeNetworks({
      engine: engine.networks,
      removeBridge,
      owner: tableName,
      mtu: async ({ encrypted }) => {
        const devices = await hostDevices()
        const address = this.#desired.node?.dataPath?.address
        return encrypted
          ? tunnelMtu(devices, address) - innerOverheadBytes
          : overlayMtu(devices, address)
      },
      clock,
      log,
    })
    this.#resolver = new ResolverLink({ stateDir, entry: resolverEntry, clock, log })
    this.#forwarding = new ForwardingRules(tableName)
    this.#forwarding6 = new ForwardingRules(tableName, 'ip6tables')
    this.#table = new KernelTable('ip', log)
    this.#table6 = new KernelTable('ip6', log)
    this.#overlay = new Overlay(tableName)
    this.#tunnel = new Tunnel(options.encryption ?? noEncryption, tableName)
  }

  async ensureNetwork(network: NetworkAssignment): Promise<string> {
    if (this.#networks.isReady(network)) return await this.#networks.ensure(network)
    const name = await this.#networks.ensure(network)
    if (!this.#desired.networks.some(({ id }) => id === network.id)) {
      this.#expected.set(network.id, network)
    }
    // The bridge is there now: names are answered on it before a container can ask.
    await this.#inTurn(async () => {
      await tuneBridge(network, this.#options.log)
      await settleNodeAddress(network, await hostDevices())
      if (isDual(network)) await this.#applyIpv6Addresses()
      // Of all others only those are known so far that an earlier daemon has published.
      if (this.#isTold) await this.#publishNames()
    })
    return name
  }

  /** Until it is told for the first time what should be, all that an earlier daemon left stays as it is. */
  get #isTold(): boolean {
    return this.#desired !== noNetwork
  }

  apply(desired: DesiredNetwork): Promise<void> {
    this.#desired = desired
    for (const { id } of desired.networks) this.#expected.delete(id)
    // A round that has begun looks at an older picture: the next one answers, for all who asked meanwhile.
    if (this.#round) {
      this.#nextRound ??= this.#round
        .catch(() => {})
        .then(() => {
          this.#nextRound = undefined
          return this.#begin()
        })
      return this.#nextRound
    }
    return this.#begin()
  }

  #begin(): Promise<void> {
    const round = this.#inTurn(() => this.#settle()).finally(() => {
      if (this.#round === round) this.#round = undefined
    })
    this.#round = round
    return round
  }

  nameserversFor(networks: readonly NetworkAssignment[]): readonly string[] {
    // One is enough: the resolver sees by the asking address which container it is, and knows all its networks. Nobody
    // declares names on the ingress network, so a task that is only there keeps the engine's own resolvers.
    const [network] = networks.filter(({ ingress }) => !ingress)
    return network ? [network.gateway] : []
  }

  audit(): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      if (!this.#isTold) return []
      const desired = this.#desired
      const found: string[] = []
      const troubles: string[] = []
      const look = async (work: () => Promise<readonly string[]>) => {
        try {
          found.push(...(await work()))
        } catch (error) {
          troubles.push(messageOf(error))
        }
      }
      const seen = await this.#read()
      let isBridgeNew = false
      await look(async () => {
        const broken = await this.#auditBridges(desired, seen.addresses)
        isBridgeNew = broken.length > 0
        return broken
      })
      await look(() => this.#auditOverlay(desired, seen.devices, seen.overlay))
      await look(() => this.#auditVips(desired, seen.routes, isBridgeNew ? undefined : seen.links))
      await look(() => this.#forwarding.repair(seen.firewall))
      if (this.#isIpv6Used) {
        await look(() => this.#forwarding6.repair())
        await look(async () => {
          const { wanted, bridges } = this.#plannedAddresses()
          return this.#addresses6.repair(
            wanted,
            bridges,
            isBridgeNew ? undefined : seen.addressText,
          )
        })
      }
      this.#lookAtFirewall(desired, seen.firewall?.stdout ?? '')
      await look(() => this.#resolver.audit())
      for (const { table, rules } of [
        { table: this.#table, rules: seen.rules },
        { table: this.#table6, rules: seen.rules6 },
      ]) {
        await look(async () => {
          if (!rules || table.isIntact(rules)) return []
          await table.repair()
          return ['the network rules of the host had been changed']
        })
      }
      if (troubles.length > 0) {
        const seen = [...found, ...troubles].join('; ')
        throw new UserError('internal', `the node's network could not be put right: ${seen}`)
      }
      return found
    })
  }

  async examine(): Promise<Pick<NodeExamination, 'findings' | 'dataPath'>> {
    const findings: NetworkFinding[] = []
    const drift = await this.audit().catch((error: unknown) => {
      findings.push({ what: messageOf(error), next: "See the daemon's log on that node." })
      return []
    })
    for (const what of drift) findings.push({ what, next: 'It was repaired just now.' })
    const { networks, node } = this.#desired
    const devices = await hostDevices()
    const { address, port } = node?.dataPath ?? {}
    const device = devices.find(({ addresses }) => addresses.includes(address ?? ''))
    if (address !== undefined && !device) {
      findings.push({
        what: `no device of this host that is up has the address ${address}, to which other nodes send the packets of cluster networks`,
        next: 'Join with --data-path-addr and an address or interface of this host, or give the address back to the device.',
      })
    }
    if (this.#firewallTrouble !== undefined) {
      const [what = '', next = ''] = this.#firewallTrouble.split(/: (?=iptables)/)
      findings.push({ what, next })
    }
    const ready = networks.filter((network) => this.#networks.isReady(network))
    findings.push(...judgeHost(await readHostSettings(), ready, port))
    const nameById = new Map(networks.map(({ id, name }) => [id as string, name]))
    findings.push(...(await examineNames(this.#zones(), nameById, this.#options.clock)))
    return {
      findings,
      ...(address !== undefined && port !== undefined && device
        ? { dataPath: { address, port, mtuBytes: device.mtu } }
        : {}),
    }
  }

  openConnections(task: { readonly pid: number }): Promise<number> {
    return countOpenConnections(task.pid)
  }

  async silentPorts<Port extends { readonly port: number }>(
    task: { readonly pid: number },
    ports: readonly Port[],
  ): Promise<readonly Port[]> {
    const listening = await listeningPorts(task.pid)
    return listening === undefined ? [] : ports.filter(({ port }) => !listening.has(port))
  }

  clear(): Promise<void> {
    return this.#inTurn(async () => {
      this.#desired = noNetwork
      this.#expected.clear()
      this.#places = new Map()
      this.#forwardedSubnets = undefined
      this.#vipRoutes.forget()
      const hasIpv6 = this.#isIpv6Used || (await this.#wasIpv6Left())
      const done = await Promise.allSettled([
        this.#table.remove({ family: 'ip', table: this.#tableName }),
        this.#forwarding.clear(),
        ...(hasIpv6 ? [this.#clearIpv6()] : []),
        this.#resolver.stop(),
        this.#overlay
          .clear()
          .then(() => this.#tunnel.apply(undefined))
          .then(() => this.#networks.clear()),
      ])
      throwAll(done, 'the node still has parts of the cluster network')
    })
  }

  async close(): Promise<void> {
    this.#closed.abort()
    await this.#turn.catch(() => {})
    await this.#forgotten
    await this.#resolver.close()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = () => {
      if (this.#closed.signal.aborted)
        throw new UserError('unavailable', 'the data plane is closed')
      return work()
    }
    const turn = this.#turn.then(next, next)
    this.#turn = turn.catch(() => {})
    return turn
  }

  /** One round: brings everything in step with the desired state. One failing part does not hold up the others. */
  async #settle(): Promise<void> {
    const desired = this.#desired
    const made = await Promise.allSettled(
      desired.networks.map(async (network) => {
        if (this.#networks.isReady(network)) return
        await this.#networks.ensure(network)
        await tuneBridge(network, this.#options.log)
      }),
    )
    const { networks, endpoints, neighbours, node } = desired
    const rules = renderHostRules({
      table: this.#tableName,
      networks,
      endpoints,
      ...(node ? { nodeId: node.id } : {}),
      neighbours,
      ...this.#abilities,
    })
    const done = await Promise.allSettled([
      this.#applyOverlay(desired),
      this.#table.apply(rules).then((isChanged) => this.#moveOn(this.#table, isChanged)),
      this.#allowForwarding(publishedSubnets(networks, endpoints, node?.id)),
      this.#applyVips(desired),
      this.#applyIpv6(desired),
      this.#publishNames(),
    ])
    await this.#removeUnwanted(networks).catch((error: unknown) => {
      this.#options.log.warn('networks that are not needed could not be removed', {
        error: messageOf(error),
      })
    })
    throwAll([...made, ...done], "the node's network is not as it should be")
  }

  /** Devices are looked at only where something depends on them. */
  async #applyOverlay(desired: DesiredNetwork): Promise<void> {
    const { neighbours, node } = desired
    const networks = desired.networks.filter((network) => this.#networks.isReady(network))
    const dataAddress = node?.dataPath?.address
    const told = this.#toldOverlay
    if (
      told?.neighbours === neighbours &&
      told?.dataAddress === dataAddress &&
      told?.networks.length === networks.length &&
      told.networks.every((network, index) => network === networks[index])
    ) {
      return
    }
    this.#toldOverlay = undefined
    const isAlone =
      (neighbours?.size ?? 0) === 0 && !networks.some(({ nodeAddress }) => nodeAddress)
    // Nothing was ever told. What an earlier daemon left, the audit finds.
    if (isAlone && !this.#isOverlayUsed) return
    this.#isOverlayUsed = true
    const devices = await hostDevices()
    for (const network of networks) await settleNodeAddress(network, devices)
    const plan = this.#planTunnel(desired, devices)
    // Before anything is sent. Without a tunnel encrypted networks stay apart.
    const [opened] = await Promise.allSettled([this.#tunnel.open(plan)])
    await this.#overlay.apply(this.#planOverlay(desired, devices, opened.status === 'fulfilled'))
    if (opened.status === 'rejected') throw opened.reason
    await this.#tunnel.apply(plan)
    this.#toldOverlay = { networks, neighbours, dataAddress }
  }

  /** The encrypted ways to all nodes that encrypted networks reach. Undefined: there are none. */
  #planTunnel(
    { networks, neighbours, node }: DesiredNetwork,
    devices: readonly HostDevice[],
  ): TunnelPlan | undefined {
    const encrypted = networks.filter(
      (network) => network.encrypted && this.#networks.isReady(network),
    )
    if (encrypted.length === 0 || !node?.dataPath) return undefined
    const ids = new Set(encrypted.map(({ id }) => id))
    const peers = new Map<string, TunnelPeer>()
    for (const { networkId, nodeId, nodeAddress, publicKey } of neighbours?.values() ?? []) {
      if (publicKey === undefined || !ids.has(networkId)) continue
      const address = tunnelAddress(nodeId)
      peers.set(nodeId, { publicKey, endpoint: nodeAddress, address })
    }
    const { address, port } = node.dataPath
    return {
      device: tunnelDevice(node.id),
      address: tunnelAddress(node.id),
      listenPort: tunnelPort(port),
      mtu: tunnelMtu(devices, address),
      peers: [...peers.values()].sort((a, b) => (a.address < b.address ? -1 : 1)),
      vnis: encrypted.map(({ vni }) => vni).sort((a, b) => a - b),
      dataPort: port,
    }
  }

  #planOverlay(
    { networks, neighbours, node }: DesiredNetwork,
    devices: readonly HostDevice[],
    isTunnelUp: boolean,
  ): ReadonlyMap<string, OverlayPlan> {
    const address = node?.dataPath?.address
    return planOverlay({
      ...(node && isTunnelUp
        ? { tunnel: { address: tunnelAddress(node.id), mtu: tunnelMtu(devices, address) } }
        : {}),
      networks: networks.filter((network) => this.#networks.isReady(network)),
      neighbours: neighbours?.values() ?? [],
      dataPath: node?.dataPath,
      devices,
    })
  }

  async #auditOverlay(
    desired: DesiredNetwork,
    devices: readonly HostDevice[],
    listings: readonly CommandResult[] | undefined,
  ): Promise<readonly string[]> {
    const found: string[] = []
    for (const network of desired.networks) {
      if (!this.#networks.isReady(network)) continue
      if (await settleNodeAddress(network, devices)) {
        found.push(`this node's address on network "${network.name}" had changed`)
      }
    }
    if (!listings) return found
    this.#isOverlaySeen = true
    const [tunnel] = await Promise.allSettled([
      this.#tunnel.open(this.#planTunnel(desired, devices)).then(() => this.#tunnel.repair()),
    ])
    const isOpen = tunnel.status === 'fulfilled'
    const repaired = await this.#overlay.repair(
      this.#planOverlay(desired, devices, isOpen),
      // A bridge that got another address forgot its neighbours.
      found.length > 0 ? undefined : listings,
    )
    if (!isOpen) throw tunnel.reason
    return [...found, ...tunnel.value, ...repaired]
  }

  /** Another's firewall is theirs to change: it is named, once each time it begins to be in the way. */
  #lookAtFirewall({ neighbours, node }: DesiredNetwork, rules: string): void {
    const port = node?.dataPath?.port
    const isUsed = port !== undefined && (neighbours?.size ?? 0) > 0
    const trouble = isUsed ? whatKeepsOut(rules, port) : undefined
    if (trouble !== this.#firewallTrouble) {
      if (trouble) this.#options.log.error('cluster networks can not reach this node', { trouble })
      else this.#options.log.info('the firewall lets in what other nodes send')
    }
    this.#firewallTrouble = trouble
  }

  async #allowForwarding(subnets: readonly string[]): Promise<void> {
    const key = subnets.join(' ')
    if (key === this.#forwardedSubnets) return
    await this.#forwarding.ensure(subnets)
    this.#forwardedSubnets = key
  }

  async #applyVips(desired: DesiredNetwork): Promise<void> {
    const { ready, bridges, dual } = this.#readyBridges(desired)
    await this.#vipRoutes.apply(planVipRoutes(ready, desired.endpoints), bridges)
    const before = this.#places
    const after = new Map<string, TaskPlace>()
    for (const task of desired.tasks) {
      const identity = identify(task.pid)
      // Ended meanwhile; or its pid is another process's by now, which runs on the host.
      if (!identity || identity.namespace === this.#self.namespace) continue
      after.set(`${identity.pid} ${identity.startTicks}`, { task, identity })
    }
    this.#places = after
    // A new task has a new port of a bridge.
    const isNew = [...after.keys()].some((key) => !before.has(key))
    const key = [...bridges, ...dual].sort().join()
    if (!isNew && key === this.#settledBridges) return
    await settleBridges(bridges, dual)
    this.#settledBridges = key
  }

  async #auditVips(
    desired: DesiredNetwork,
    routes: CommandResult | undefined,
    links: CommandResult | undefined,
  ): Promise<readonly string[]> {
    const { ready, bridges, dual } = this.#readyBridges(desired)
    const wanted = planVipRoutes(ready, desired.endpoints)
    return [
      ...(await settleBridges(bridges, dual, links?.stdout)),
      ...(await this.#vipRoutes.repair(wanted, bridges, routes?.stdout)),
    ]
  }

  #readyBridges({ networks }: DesiredNetwork) {
    const ready = networks.filter((network) => this.#networks.isReady(network))
    return {
      ready,
      bridges: new Set(ready.map(({ id }) => bridgeName(id))),
      dual: new Set(ready.filter(isDual).map(({ id }) => bridgeName(id))),
    }
  }

  /** All that networks with IPv6 need besides: the same again with their other addresses. */
  async #applyIpv6(desired: DesiredNetwork): Promise<void> {
    const view = this.#ipv6View.of(desired)
    if (!view) {
      // Networks may have come that nothing is on yet.
      if ([...this.#expected.values()].some(isDual)) return
      if (this.#isIpv6Used || (await this.#wasIpv6Left())) await this.#clearIpv6()
      return
    }
    this.#isIpv6Used = true
    const { networks, endpoints } = view
    const nodeId = desired.node?.id
    const rules = renderHostRules({
      table: this.#tableName,
      family: 'ip6',
      networks,
      endpoints,
      ...(nodeId === undefined ? {} : { nodeId }),
      neighbours: this.#ipv6View.lostNeighbours(desired.neighbours),
      ...this.#abilities,
    })
    const subnets = publishedSubnets(networks, endpoints, nodeId, 'ip6').join(' ')
    await this.#moveOn(this.#table6, await this.#table6.apply(rules))
    if (subnets !== this.#forwardedSubnets6) {
      await this.#forwarding6.ensure(subnets.split(' ').filter((subnet) => subnet !== ''))
      this.#forwardedSubnets6 = subnets
    }
    await this.#applyIpv6Addresses()
  }

  /** Whether an earlier daemon left something. It is looked for once. */
  async #wasIpv6Left(): Promise<boolean> {
    if (this.#isIpv6Looked) return false
    this.#isIpv6Looked = true
    const listed = await hostNamespace.run('nft', ['list', 'table', 'ip6', this.#tableName])
    return listed?.code === 0
  }

  /** Addresses go with their bridges. */
  async #clearIpv6(): Promise<void> {
    this.#addresses6.forget()
    this.#forwardedSubnets6 = ''
    await this.#table6.remove({ family: 'ip6', table: this.#tableName })
    await this.#forwarding6.clear()
    this.#isIpv6Used = false
  }

  async #applyIpv6Addresses(): Promise<void> {
    this.#isIpv6Used = true
    const { wanted, bridges } = this.#plannedAddresses()
    await this.#addresses6.apply(wanted, bridges)
  }

  #plannedAddresses() {
    const { networks, endpoints } = this.#desired
    const ready = [...networks, ...this.#expected.values()].filter((network) =>
      this.#networks.isReady(network),
    )
    const view = this.#ipv6View.of({ networks: ready, endpoints }) ?? noNetwork
    return {
      wanted: planBridgeAddresses(view.networks, view.endpoints),
      bridges: new Set(view.networks.map(({ id }) => bridgeName(id))),
    }
  }

  /** What the kernel remembers of connections follows the rules, and who is there. */
  async #moveOn(table: KernelTable, isChanged: boolean): Promise<void> {
    const { connections } = table
    connections.settle((address) => this.#isHeld(address))
    if (connections.hasGone) this.#forgetGoneSoon()
    if (!isChanged) return
    if (connections.hasLeft || table.staleFlows === 'unlikely') this.#sweepSoon()
    if (table.staleFlows === 'likely') await this.#moveFlows(table)
  }

  /** Whether a task here, or something on a node that is heard of, has the address. */
  #isHeld(address: string): boolean {
    const { networks, tasks, neighbours } = this.#desired
    return networks.some((network) => {
      const place = address.includes(':') && isDual(network) ? ipv4Of(network, address) : address
      const neighbour = neighbours?.get(`${network.id}/${place}`)
      if (neighbour) return neighbour.isLost !== true
      return tasks.some(({ addresses }) =>
        addresses.some((own) => own.networkId === network.id && own.address === place),
      )
    })
  }

  /** Flows without connections would go on to a backend that is gone for as long as their client keeps sending. */
  #moveFlows(table: KernelTable): Promise<void> {
    return this.#asFarAsPossible(async () => {
      await table.moveFlows(async () => new Set([...(await addressesByDevice()).values()].flat()))
    })
  }

  /**
   * Where much is remembered the kernel takes long to forget: no change of rules waits for that, least of all the one that sends what
   * begins next elsewhere.
   */
  #forgetGoneSoon(): void {
    if (this.#isForgetting) return
    this.#isForgetting = true
    this.#forgetInOrder(async () => {
      this.#isForgetting = false
      for (const { connections } of [this.#table, this.#table6])
        await connections.forgetGone(this.#closed.signal)
    })
  }

  /**
   * Listing what the kernel remembers takes longer than a change of rules, however little there is: where there is hardly a flow to
   * find, it is done for all changes of some time at once, and none waits for it.
   */
  #sweepSoon(): void {
    if (this.#isSweepDue) return
    this.#isSweepDue = true
    void this.#options.clock
      .sleep(sweepMs, this.#closed.signal)
      .then(() => {
        this.#isSweepDue = false
        this.#forgetInOrder(async () => {
          for (const { connections } of [this.#table, this.#table6])
            await connections.forgetUnanswered()
        })
        return this.#inTurn(async () => {
          await this.#moveFlows(this.#table)
          await this.#moveFlows(this.#table6)
        })
      })
      .catch(() => {}) // It was closed: the next one finds what is left.
  }

  #forgetInOrder(work: () => Promise<void>): void {
    this.#forgotten = this.#forgotten.then(() => this.#asFarAsPossible(work))
  }

  async #asFarAsPossible(work: () => Promise<void>): Promise<void> {
    if (!this.#canMoveFlows) return
    try {
      await work()
    } catch (error) {
      this.#canMoveFlows = !(error instanceof UserError && error.code === 'unsupported')
      this.#options.log.warn('connections to removed tasks could not be moved', {
        error: messageOf(error),
        next: 'Install conntrack (package conntrack) and restart the daemon.',
      })
    }
  }

  #zones(): ResolverState {
    const { networks, endpoints, tasks, neighbours } = this.#desired
    const ready = [...networks, ...this.#expected.values()].filter((network) =>
      this.#networks.isReady(network),
    )
    return buildZones({ networks: ready, endpoints, tasks, ...(neighbours ? { neighbours } : {}) })
  }

  async #publishNames(): Promise<void> {
    const failures = await this.#resolver.publish(this.#zones())
    const trouble = Object.entries(failures)
      .map(([gateway, why]) => `${gateway}: ${why}`)
      .join('; ')
    if (trouble !== '' && trouble !== this.#resolverTrouble) {
      this.#options.log.error('the resolver can not listen on every network', {
        trouble,
        next: 'End whatever else listens on port 53 of all addresses of this host.',
      })
    }
    this.#resolverTrouble = trouble
  }

  async #removeUnwanted(networks: readonly NetworkAssignment[]): Promise<void> {
    const ids = networks.map(({ id }) => id).sort()
    if (ids.join() === this.#keptNetworks) return // What was still in use then, the audit removes.
    await this.#networks.keepOnly(new Set(ids))
    this.#keptNetworks = ids.join()
  }

  async #auditBridges(
    desired: DesiredNetwork,
    devices: ReadonlyMap<string, readonly string[]>,
  ): Promise<readonly string[]> {
    const found: string[] = [...(await this.#networks.audit(desired.networks))]
    for (const [id, network] of this.#expected) {
      if (!this.#networks.isReady(network)) this.#expected.delete(id)
    }
    for (const network of desired.networks) {
      if (!this.#networks.isReady(network)) continue
      if (!isBridgeUp(network, devices)) {
        await repairBridge(network, this.#attachedTo(network.id))
        found.push(`the bridge ${bridgeName(network.id)} of network "${network.name}" was broken`)
      }
      if (await tuneBridge(network, this.#options.log)) {
        found.push(`the settings of bridge ${bridgeName(network.id)} had changed`)
      }
    }
    return found
  }

  #attachedTo(networkId: NetworkId) {
    return [...this.#places.values()].flatMap(({ task, identity }) =>
      task.addresses
        .filter((place) => place.networkId === networkId)
        .map(({ address }) => ({
          namespace: processNamespace(`the task ${task.name}`, identity),
          address,
        })),
    )
  }

  /** All that an audit looks at, read by one process. */
  async #read() {
    // A node that was always alone has none of it; the first look is for what an earlier daemon left.
    const overlay = this.#isOverlayUsed || !this.#isOverlaySeen ? overlayCommands : []
    const table = this.#table.listing()
    const table6 = this.#table6.listing()
    const words = [
      ...[addressesCommand, listCommand(), bridgeSettingsCommand, vipRoutesCommand],
      ...(table ? [table] : []),
      ...(table6 ? [table6] : []),
      ...overlay,
    ]
    const results = await runInOrder(words.map((words): BatchJob => ({ words })))
    const [addresses, firewall, links, routes, ...rest] = results
    return {
      addressText: addresses?.stdout ?? '',
      addresses: parseAddresses(addresses?.stdout ?? ''),
      devices: parseDevices(addresses?.stdout ?? ''),
      firewall,
      links,
      routes,
      rules: table ? rest.shift() : undefined,
      rules6: table6 ? rest.shift() : undefined,
      overlay: overlay.length > 0 ? rest : undefined,
    }
  }
}

function throwAll(done: readonly PromiseSettledResult<unknown>[], what: string): void {
  const failed = done.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
  const [first] = failed
  if (failed.length === 0) return
  if (failed.length === 1 && first instanceof UserError) throw first
  throw new UserError('internal', `${what}: ${failed.map(messageOf).join('; ')}`, {
    cause: first,
  })
}
