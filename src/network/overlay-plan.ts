import { ipv6Of } from '../model/index.ts'
import type { NeighbourAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { isDual } from './ipv6-view.ts'
import { innerOverheadBytes, tunnelAddress, tunnelOverheadBytes } from './wireguard.ts'

/** What VXLAN adds to a packet over IPv4: outer Ethernet, IP, UDP and VXLAN headers, in bytes. */
const overheadBytes = 50
const mtuUsual = 1500

/** The VXLAN device of a cluster network. A device's name has at most 15 characters. */
export function overlayDevice(networkId: string): string {
  return `sv-${networkId.slice(0, 10)}`
}

/** What one network has in the kernel for its part on other nodes. */
export interface OverlayPlan {
  readonly device: string
  readonly bridge: string
  readonly vni: number
  readonly port: number
  /** Where packets are sent from: an address of this host, or empty for the kernel's choice. */
  readonly local: string
  readonly mtu: number
  /** By address. */
  readonly places: ReadonlyMap<string, OverlayPlace>
}

/** Where an address is: which link-layer address answers to it, behind which node. */
export interface OverlayPlace {
  readonly mac: string
  readonly node: string
}

/** A device of the host with its addresses. */
export interface HostDevice {
  readonly name: string
  readonly mtu: number
  readonly mac: string
  readonly addresses: readonly string[]
}

/** Devices that carry no packets between hosts. */
const notUnderlay = /^(lo$|docker|br-|sk-|sv-|sw-|veth|virbr|cni|flannel)/

/** The largest packet that still fits through what connects the nodes, once it is wrapped, in bytes. */
export function overlayMtu(
  devices: readonly HostDevice[],
  dataAddress: string | undefined,
): number {
  const underlay = devices.filter(({ name }) => !notUnderlay.test(name))
  const own = underlay.filter(({ addresses }) => addresses.includes(dataAddress ?? ''))
  const candidates = (own.length > 0 ? own : underlay).map(({ mtu }) => mtu)
  return (candidates.length > 0 ? Math.min(...candidates) : mtuUsual) - overheadBytes
}

/** The largest packet that fits through a tunnel between nodes, in bytes. */
export function tunnelMtu(devices: readonly HostDevice[], dataAddress: string | undefined): number {
  return overlayMtu(devices, dataAddress) + overheadBytes - tunnelOverheadBytes
}

/** One plan for each network that has part on another node. */
export function planOverlay(options: {
  readonly networks: readonly NetworkAssignment[]
  readonly neighbours: Iterable<NeighbourAssignment>
  readonly dataPath: { readonly address: string; readonly port: number } | undefined
  readonly devices: readonly HostDevice[]
  /** This node's way to others where packets are encrypted. Absent: it has none, and encrypted networks stay apart. */
  readonly tunnel?: { readonly address: string; readonly mtu: number }
}): ReadonlyMap<string, OverlayPlan> {
  const { networks, neighbours, dataPath, devices, tunnel } = options
  const plans = new Map<string, OverlayPlan & { readonly places: Map<string, OverlayPlace> }>()
  if (!dataPath) return plans
  const isOwn = devices.some(({ addresses }) => addresses.includes(dataPath.address))
  const mtu = overlayMtu(devices, dataPath.address)
  const networkById = new Map(networks.map((network) => [network.id, network]))
  for (const { networkId, address, mac, nodeAddress, nodeId, publicKey } of neighbours) {
    const network = networkById.get(networkId)
    if (!network) continue
    const isEncrypted = network.encrypted === true
    // Rather not at all than readable.
    if (isEncrypted && (!tunnel || publicKey === undefined)) continue
    let plan = plans.get(networkId)
    if (!plan) {
      plan = {
        device: overlayDevice(networkId),
        bridge: bridgeName(networkId),
        vni: network.vni,
        port: dataPath.port,
        local: isEncrypted ? (tunnel?.address ?? '') : isOwn ? dataPath.address : '',
        mtu: isEncrypted ? (tunnel?.mtu ?? mtu) - innerOverheadBytes : mtu,
        places: new Map(),
      }
      plans.set(networkId, plan)
    }
    const place = { mac, node: isEncrypted ? tunnelAddress(nodeId) : nodeAddress }
    plan.places.set(address, place)
    if (isDual(network)) plan.places.set(ipv6Of(network, address), place)
  }
  return plans
}

/** What is told to `ip -batch` and `bridge -batch`, in this order: links first, then what refers to them. */
export interface OverlayChange {
  readonly links: readonly string[]
  readonly entries: readonly string[]
  /** For `bridge`, after the two. */
  readonly forwarding: readonly string[]
  /** What was not as it should be, in words. */
  readonly found: readonly string[]
}

/** What the kernel has of one network. Absent: no device. */
export interface OverlayState {
  /** VNI, port, source and bridge, as one text; see `shapeOf`. */
  readonly shape: string
  readonly mtu: number
  readonly isUp: boolean
  /** Link-layer address by address: entries of the bridge device that were set to stay. */
  readonly neighbours: ReadonlyMap<string, string>
  /** Node by link-layer address: where the VXLAN device sends what is for it. */
  readonly destinations: ReadonlyMap<string, string>
  /** Link-layer addresses that the bridge sends to the VXLAN device. */
  readonly forwarded: ReadonlySet<string>
}

export function shapeOf(plan: Pick<OverlayPlan, 'vni' | 'port' | 'local' | 'bridge'>): string {
  return `${plan.vni} ${plan.port} ${plan.local} ${plan.bridge}`
}

/**
 * How the kernel gets from what it has to the plan. Broadcasts are sent nowhere: the device has no default destination,
 * and questions for a link-layer address (ARP, neighbour discovery) are answered by the bridge itself (`neigh_suppress`) from its own entries.
 */
export function changeOverlay(
  plan: OverlayPlan,
  state: OverlayState | undefined,
  owner: string,
): OverlayChange {
  const { device, bridge, vni, port, local, mtu, places } = plan
  const links: string[] = []
  const entries: string[] = []
  const forwarding: string[] = []
  const found: string[] = []
  const isKept = state !== undefined && state.shape === shapeOf(plan)
  if (state && !isKept) links.push(`link delete dev ${device}`)
  if (!isKept) {
    found.push(`the VXLAN device ${device} was ${state ? 'another' : 'gone'}`)
    const source = local === '' ? '' : ` local ${local}`
    links.push(
      `link add name ${device} mtu ${mtu} type vxlan id ${vni} dstport ${port}${source} nolearning ttl 64`,
      `link set dev ${device} alias ${owner}`,
      // A device without an IPv6 address of its own: nothing on it is to be announced.
      `link set dev ${device} addrgenmode none`,
      `link set dev ${device} master ${bridge} up`,
    )
    forwarding.push(
      `link set dev ${device} learning off flood off mcast_flood off neigh_suppress on`,
    )
  } else {
    if (state.mtu !== mtu) links.push(`link set dev ${device} mtu ${mtu}`)
    if (!state.isUp) links.push(`link set dev ${device} up`)
    if (state.mtu !== mtu || !state.isUp) found.push(`the VXLAN device ${device} had changed`)
  }
  const nodeByMac = new Map([...places.values()].map(({ mac, node }) => [mac, node]))
  let differing = 0
  const tell = (list: string[], text: string) => {
    differing++
    list.push(text)
  }
  for (const address of state?.neighbours.keys() ?? []) {
    if (!places.has(address)) tell(entries, `neigh delete ${address} dev ${bridge}`)
  }
  for (const [address, { mac }] of places) {
    if (state?.neighbours.get(address) === mac) continue
    tell(entries, `neigh replace ${address} lladdr ${mac} dev ${bridge} nud permanent`)
  }
  // They go with their device.
  const destinations = isKept ? state.destinations : new Map<string, string>()
  const forwarded = isKept ? state.forwarded : new Set<string>()
  for (const [mac, node] of destinations) {
    const wanted = nodeByMac.get(mac)
    // Replacing would add a second destination.
    if (wanted !== node) tell(forwarding, `fdb delete ${mac} dev ${device} dst ${node} self`)
  }
  for (const mac of forwarded) {
    if (!nodeByMac.has(mac)) tell(forwarding, `fdb delete ${mac} dev ${device} master`)
  }
  for (const [mac, node] of nodeByMac) {
    if (destinations.get(mac) !== node) {
      tell(forwarding, `fdb add ${mac} dev ${device} dst ${node} self permanent`)
    }
    if (!forwarded.has(mac)) tell(forwarding, `fdb replace ${mac} dev ${device} master static`)
  }
  if (isKept && differing > 0) {
    found.push(`${differing} forwarding entries of ${device} were not as they should be`)
  }
  return { links, entries, forwarding, found }
}
