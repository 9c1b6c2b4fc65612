import type { NetworkId, NodeId, PortSpec } from '../model/index.ts'
import type { Backend, EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { balance, type Ruleset, type Target } from './ruleset.ts'
import { type VipPart, vipParts } from './vip-rules.ts'

/**
 * The node's one table, in the host's namespace.
 *
 * A VIP, asked for on its network's bridge, is sent on to one of the endpoint's backends. The client's address is kept,
 * except for a task that reaches itself. A VIP with no backend, and one asked for elsewhere, refuses at once.
 *
 * A published port, on any of the host's own addresses, is sent on to one of the endpoint's backends. The client's address
 * is kept, except where answers would not come back this way:
 * - from the host's loopback;
 * - from a container that the backend could answer directly, on a network they share (`hairpin`);
 * - to a backend that is only on internal networks, and so knows no way out (`unrouted`);
 * - to a backend on another node, which answers to this node's own address on the ingress network. Those are all on that
 *   network that are not the node's `own`.
 * A node's own tasks come first, unless the endpoint says `spread`.
 * A port with no backend refuses at once. The bridges accept loopback destinations (so that answers find their way back
 * to a local client), and what comes from containers for those is dropped.
 */
export function renderHostRules(options: {
  readonly table: string
  readonly networks: readonly NetworkAssignment[]
  readonly endpoints: readonly EndpointAssignment[]
  /** This node. Absent: every backend is its own. */
  readonly nodeId?: NodeId
}): Ruleset {
  const { table, networks, endpoints, nodeId } = options
  const ingressNetwork = networks.find(({ ingress }) => ingress)
  const nodeAddress = ingressNetwork?.nodeAddress?.address
  const chains = new Map<string, readonly string[]>([
    [
      'published',
      [
        'ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 return',
        'meta l4proto . th dport vmap @ports',
      ],
    ],
    [
      'refuse',
      ['meta l4proto tcp reject with tcp reset', 'reject with icmp type port-unreachable'],
    ],
    [
      'absent',
      ['meta l4proto tcp reject with tcp reset', 'reject with icmp type host-unreachable'],
    ],
  ])
  const elements = new Map(Object.keys(sets).map((name) => [name, new Set<string>()] as const))
  const add = (set: keyof typeof sets, element: string) => elements.get(set)?.add(element)
  const udpBackends = new Map<string, ReadonlySet<string>>()
  const context = contextOf(networks, nodeId)
  for (const { gateway, id } of networks) {
    add('resolvers', gateway)
    add('bridges', `"${bridgeName(id)}"`)
  }
  for (const { vips } of partsOf(endpoints, context)) {
    for (const { vip, bridge, rules, backends, loops } of vips) {
      add('vips', vip)
      udpBackends.set(vip, backends)
      if (rules.length === 0) continue
      const chain = `vip-${vip}`
      chains.set(chain, rules)
      add('balanced', `"${bridge}" . ${vip} : goto ${chain}`)
      for (const loop of loops) add('loops', loop)
    }
  }
  for (const port of portsOf(endpoints, context)) {
    const { key, protocol, publishedPort, rules } = port
    if (protocol === 'udp') udpBackends.set(`${publishedPort}`, port.backends)
    if (rules.length === 0) {
      add('refused', key)
      continue
    }
    const chain = `port-${protocol}-${publishedPort}`
    chains.set(chain, rules)
    add('ports', `${key} : goto ${chain}`)
    for (const [set, element] of port.elements) add(set, element)
  }
  return {
    table,
    sets,
    chains,
    hooks: [
      {
        name: 'raw',
        hook: 'type filter hook prerouting priority -300; policy accept;',
        rules: ['iifname @bridges ip daddr 127.0.0.0/8 drop'],
      },
      {
        name: 'prerouting',
        hook: 'type nat hook prerouting priority -110; policy accept;',
        rules: ['iifname . ip daddr vmap @balanced', 'fib daddr type local jump published'],
      },
      {
        name: 'output',
        hook: 'type nat hook output priority -110; policy accept;',
        rules: ['fib daddr type local jump published'],
      },
      {
        name: 'guard',
        hook: 'type filter hook input priority -10; policy accept;',
        rules: [
          // The host's own connections to a VIP are its own affair; the kernel refuses them.
          'iifname != "lo" ip daddr @vips jump absent',
          'ct state new fib daddr type local meta l4proto . th dport @refused jump refuse',
        ],
      },
      {
        name: 'postrouting',
        hook: 'type nat hook postrouting priority 90; policy accept;',
        rules: [
          'ct original ip daddr @vips snat to ip saddr . ip daddr map @loops',
          'ct original ip daddr @vips accept',
          ...(nodeAddress
            ? [
                `ct status dnat ip daddr ${ingressNetwork.subnet} ip daddr != @own snat to ${nodeAddress}`,
              ]
            : []),
          'ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade',
          'ct status dnat ip saddr . ip daddr @hairpin masquerade',
          'ct status dnat ip daddr @unrouted masquerade',
        ],
      },
    ],
    elements,
    udpBackends,
  }
}

const sets = {
  vips: 'type ipv4_addr',
  balanced: 'type ifname . ipv4_addr : verdict',
  loops: 'type ipv4_addr . ipv4_addr : ipv4_addr',
  ports: 'type inet_proto . inet_service : verdict',
  refused: 'type inet_proto . inet_service',
  resolvers: 'type ipv4_addr',
  bridges: 'type ifname',
  hairpin: 'type ipv4_addr . ipv4_addr; flags interval',
  unrouted: 'type ipv4_addr',
  own: 'type ipv4_addr',
} as const

/** Subnets that connections to published ports are sent into: where forwarding has to be allowed. */
export function publishedSubnets(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
  nodeId?: NodeId,
): readonly string[] {
  const subnets = new Set(networks.filter(({ ingress }) => ingress).map(({ subnet }) => subnet))
  for (const port of portsOf(endpoints, contextOf(networks, nodeId))) {
    for (const subnet of port.subnets) subnets.add(subnet)
  }
  return [...subnets].sort()
}

/** What an endpoint's part depends on besides itself. */
interface Context {
  readonly networks: readonly NetworkAssignment[]
  readonly nodeId: NodeId | undefined
  readonly networkById: ReadonlyMap<string, NetworkAssignment>
  /** In the order in which a backend's addresses are tried for published ports. */
  readonly ranked: readonly NetworkAssignment[]
  readonly ingressNetwork: NetworkAssignment | undefined
  readonly isLocal: (nodeId: string) => boolean
  readonly rotation: number
  /** An endpoint is never changed, so its part is made once; one that nobody has any more is forgotten. */
  readonly parts: WeakMap<EndpointAssignment, EndpointPart>
}

interface EndpointPart {
  readonly vips: readonly VipPart[]
  readonly ports: readonly PortPart[]
}

/** What one published port comes to. */
interface PortPart {
  readonly key: string
  readonly protocol: PortSpec['protocol']
  readonly publishedPort: number
  /** Empty: nobody takes connections. */
  readonly rules: readonly string[]
  readonly elements: readonly (readonly [keyof typeof sets, string])[]
  readonly backends: ReadonlySet<string>
  readonly subnets: readonly string[]
}

let lastContext: Context | undefined

/** The same one while networks and node stay the same: a change of one endpoint leaves the parts of the others as they are. */
function contextOf(networks: readonly NetworkAssignment[], nodeId: NodeId | undefined): Context {
  const last = lastContext
  if (
    last !== undefined &&
    last.nodeId === nodeId &&
    last.networks.length === networks.length &&
    last.networks.every((network, index) => network === networks[index])
  ) {
    return last
  }
  const context: Context = {
    networks: [...networks],
    nodeId,
    networkById: new Map(networks.map((network) => [network.id, network])),
    ranked: [...networks].sort(
      (a, b) =>
        Number(b.ingress) - Number(a.ingress) ||
        Number(a.internal) - Number(b.internal) ||
        (a.id < b.id ? -1 : 1),
    ),
    ingressNetwork: networks.find(({ ingress }) => ingress),
    isLocal: (id) => nodeId === undefined || id === nodeId,
    rotation: rotationOf(nodeId ?? ''),
    parts: new WeakMap(),
  }
  lastContext = context
  return context
}

function* partsOf(
  endpoints: readonly EndpointAssignment[],
  context: Context,
): Iterable<EndpointPart> {
  for (const endpoint of endpoints) {
    const known = context.parts.get(endpoint)
    const part = known ?? {
      vips: vipParts(endpoint, context),
      ports: endpoint.ports
        .filter(({ publishMode, publishedPort }) => publishMode === 'ingress' && publishedPort > 0)
        .map((spec) => portPart(spec, endpoint, context)),
    }
    if (!known) context.parts.set(endpoint, part)
    yield part
  }
}

/** The first endpoint, by id, has a port that two claim: the allocator gives none out twice. */
function* portsOf(endpoints: readonly EndpointAssignment[], context: Context): Iterable<PortPart> {
  const taken = new Set<string>()
  const ordered = [...endpoints].sort((a, b) => (a.id < b.id ? -1 : 1))
  for (const { ports } of partsOf(ordered, context)) {
    for (const port of ports) {
      if (taken.has(port.key)) continue
      taken.add(port.key)
      yield port
    }
  }
}

function portPart(spec: PortSpec, endpoint: EndpointAssignment, context: Context): PortPart {
  const { protocol, publishedPort, targetPort } = spec
  const { networkById } = context
  const entries = entriesOf(endpoint, context)
  const targets = entries.map(({ address, backend }): Target => {
    return { target: `${address} . ${targetPort}`, weight: backend.weight }
  })
  const choice = balance(targets)
  const [only] = targets.length === 1 ? entries : []
  const elements: (readonly [keyof typeof sets, string])[] = []
  for (const { address, networkId, backend, isRemote } of entries) {
    if (isRemote) continue
    if (networkById.get(networkId)?.ingress) elements.push(['own', address])
    if (networkById.get(networkId)?.internal) elements.push(['unrouted', address])
    for (const id of Object.keys(backend.addresses)) {
      const shared = networkById.get(id)
      if (shared) elements.push(['hairpin', `${shared.subnet} . ${address}`])
    }
  }
  return {
    key: `${protocol} . ${publishedPort}`,
    protocol,
    publishedPort,
    rules:
      choice === undefined
        ? []
        : [`ip protocol ${protocol} dnat to ${only ? `${only.address}:${targetPort}` : choice}`],
    elements,
    backends: new Set(entries.map(({ address }) => address)),
    subnets: endpoint.backends.flatMap((backend) => {
      const network = networkById.get(entryAddress(backend, context)?.networkId ?? '')
      return network ? [network.subnet] : []
    }),
  }
}

interface Entry {
  readonly address: string
  readonly networkId: NetworkId
  readonly backend: Backend
  readonly isRemote: boolean
}

/** Who takes what comes in by the endpoint's published ports on this node. */
function entriesOf(
  { backends, ingress = 'preserve' }: EndpointAssignment,
  context: Context,
): readonly Entry[] {
  const entries = backends.flatMap((backend): Entry[] => {
    const entry = entryAddress(backend, context)
    if (!entry || backend.weight < 1) return []
    return [{ ...entry, backend, isRemote: !context.isLocal(backend.nodeId) }]
  })
  const own = entries.filter(({ isRemote }) => !isRemote)
  if (ingress === 'preserve' && own.length > 0) return own
  // Answers find this node by its address on the ingress network alone.
  const { ingressNetwork } = context
  return entries.filter(
    ({ isRemote, networkId }) =>
      !isRemote || (ingressNetwork?.nodeAddress && networkId === ingressNetwork.id),
  )
}

/** Where a backend takes connections to published ports: on the ingress network, else on one that this node has. */
function entryAddress(
  backend: Backend,
  { ranked }: Context,
): { readonly address: string; readonly networkId: NetworkId } | undefined {
  for (const { id } of ranked) {
    const address = backend.addresses[id]
    if (address !== undefined) return { address, networkId: id }
  }
  return undefined
}

/** Nodes do not all begin with the same backend. */
const rotations = 64

function rotationOf(nodeId: string): number {
  let sum = 0
  for (const char of nodeId) sum = (sum * 31 + char.charCodeAt(0)) % 65_521
  return sum % rotations
}
