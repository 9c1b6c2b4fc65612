import type { NetworkId, NodeId, PortSpec } from '../model/index.ts'
import type { Backend, EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { type ConnectionTimeouts, timeoutPolicy } from './connection-timeouts.ts'
import type { DesiredNetwork } from './data-plane.ts'
import {
  balance,
  type Choice,
  type Family,
  firstPlace,
  type Hook,
  type Ruleset,
  type RulesPage,
  type SharedMap,
  type Target,
} from './ruleset.ts'
import { hashOf, onShelves } from './shelves.ts'
import { type VipPart, vipParts, vipTargets } from './vip-rules.ts'

/**
 * The node's one table, in the host's namespace.
 *
 * A VIP, asked for on its network's bridge, is sent on to one of the endpoint's backends. The client's address is kept,
 * except for a task that reaches itself. A VIP with no backend, and one asked for elsewhere, refuses at once.
 *
 * A published port, on any of the host's own addresses, is sent on to one of the endpoint's backends. A container that shares a
 * network with the backend is sent there by that network (`near`), as if it had asked for a VIP: it would be answered by it anyway.
 * The client's address is kept, except where answers would not come back this way:
 * - from the host's loopback;
 * - from a task that is sent to itself (`loops`);
 * - from a task by the ingress network to another one of this node;
 * - to a backend that is only on internal networks, and so knows no way out (`unrouted`);
 * - to a backend on another node, which answers to this node's own address on the ingress network. Those are all on that
 *   network that are not the node's `own`.
 * A node's own tasks come first, unless the endpoint says `spread`.
 * A connection that is open to a task whose node fell silent is reset, so that its client begins another.
 *
 * A port with no backend refuses at once. The bridges accept loopback destinations (so that answers find their way back
 * to a local client), and what comes from containers for those is dropped. IPv6 has no such way back: there the host's
 * loopback refuses at once.
 *
 * `family` says of which packets the table is asked, and what the addresses of networks, endpoints and neighbours are.
 */
export function renderHostRules(options: {
  readonly table: string
  /** Default `ip`. */
  readonly family?: Family
  readonly networks: readonly NetworkAssignment[]
  readonly endpoints: readonly EndpointAssignment[]
  /** This node. Absent: every backend is its own. */
  readonly nodeId?: NodeId
  /** Where addresses on other nodes are. */
  readonly neighbours?: DesiredNetwork['neighbours'] | undefined
  /** Whether this host's nft can have all targets in one map; see `sampleTable`. Default true. */
  readonly sharesTargets?: boolean
  /** Whether this host's kernel can reset before it translates; see `sampleReset`. Default true. */
  readonly resetsLost?: boolean
  /** How long connections to VIPs and published ports are remembered. Absent: as long as others, and where `sampleTimeouts` fails. */
  readonly timeouts?: ConnectionTimeouts | undefined
}): Ruleset {
  const { table, family = 'ip', networks, endpoints, nodeId } = options
  const { sharesTargets = true, resetsLost = true, timeouts } = options
  const from = `${family} saddr`
  const to = `${family} daddr`
  const { loopback } = words[family]
  const ingressNetwork = networks.find(({ ingress }) => ingress)
  const nodeAddress = ingressNetwork?.nodeAddress?.address
  const context = contextOf(family, networks, nodeId, {
    sharesTargets,
    limitsMemory: timeouts !== undefined,
  })
  return {
    family,
    table,
    sets: sharesTargets ? { ...targetMaps[family], ...sets[family] } : sets[family],
    timeouts: timeouts ? { [timeoutsName]: timeoutPolicy(family, timeouts) } : {},
    hooks: [
      {
        name: 'raw',
        hook: 'type filter hook prerouting priority -300; policy accept;',
        // The kernel itself takes nothing from elsewhere for the loopback of IPv6.
        rules: family === 'ip' ? [`iifname @bridges ${to} ${loopback} drop`] : [],
      },
      ...(resetsLost ? lostHooks : []),
      ...(family === 'ip6' ? [apartHook] : []),
      {
        name: 'prerouting',
        hook: 'type nat hook prerouting priority -110; policy accept;',
        rules: [`iifname . ${to} vmap @balanced`, 'fib daddr type local jump published'],
      },
      {
        name: 'output',
        hook: 'type nat hook output priority -110; policy accept;',
        rules: [
          `${family === 'ip6' ? `${to} != ${loopback} ` : ''}fib daddr type local jump published`,
        ],
      },
      {
        name: 'guard',
        hook: 'type filter hook input priority -10; policy accept;',
        rules: [
          // The host's own connections to a VIP are its own affair; the kernel refuses them.
          ...neighbourDiscovery[family],
          `iifname != "lo" ${to} @vips jump absent`,
          'ct state new fib daddr type local meta l4proto . th dport @refused jump refuse',
        ],
      },
      {
        name: 'postrouting',
        hook: 'type nat hook postrouting priority 90; policy accept;',
        rules: [
          `ct status dnat snat to ${from} . ${to} map @loops`,
          `ct original ${to} @vips accept`,
          `ct status dnat ${from} . ${to} @neighbours accept`,
          ...(nodeAddress
            ? [`ct status dnat ${to} ${ingressNetwork.subnet} ${to} != @own snat to ${nodeAddress}`]
            : []),
          `ct status dnat ${from} ${loopback} oifname @bridges masquerade`,
          ...(ingressNetwork
            ? [
                `ct status dnat ${from} ${ingressNetwork.subnet} ${to} ${ingressNetwork.subnet} masquerade`,
              ]
            : []),
          `ct status dnat ${to} @unrouted masquerade`,
        ],
      },
    ],
    pages: [
      context.basePage,
      lostPageOf(family, resetsLost ? options.neighbours : undefined),
      ...pagesOf(endpoints, context),
    ],
  }
}

/** Before addresses are translated, so that the reset comes from the address that was asked. */
const lostHooks: readonly Hook[] = [
  {
    name: 'lost-in',
    hook: 'type filter hook prerouting priority -150; policy accept;',
    rules: ['jump lost'],
  },
  {
    name: 'lost-out',
    hook: 'type filter hook output priority -150; policy accept;',
    rules: ['jump lost'],
  },
]
const resetLost = (family: Family) => [
  `${family} daddr @lost meta l4proto tcp reject with tcp reset`,
  // One that is still being opened may find another task: see StaleConnections.
  `meta l4proto tcp ct state established ct direction original ct reply ${family} saddr @lost reject with tcp reset`,
]

/** What the kernel has to be able to do for `resetsLost`: from 5.9 on. */
export function sampleReset(table: string): string {
  return [
    `table ip ${table} {`,
    `  set lost { ${sets.ip.lost}; }`,
    `  chain lost {`,
    ...resetLost('ip').map((rule) => `    ${rule}`),
    '  }',
    ...lostHooks.flatMap(({ name, hook, rules }) => [
      `  chain ${name} {`,
      ...[`    ${hook}`, ...rules.map((rule) => `    ${rule}`)],
      '  }',
    ]),
    '}\n',
  ].join('\n')
}

const timeoutsName = 'tcp-timeouts'
/** Says nothing of other protocols. */
const limitMemory = `ct timeout set "${timeoutsName}"`

/** What nft and the kernel have to know for `timeouts`: the kernel from 4.19 on. */
export function sampleTimeouts(table: string, timeouts: ConnectionTimeouts): string {
  return [
    `table ip ${table} {`,
    `  ct timeout ${timeoutsName} { ${timeoutPolicy('ip', timeouts)} }`,
    `  chain sample {`,
    `    ${limitMemory}`,
    '  }',
    '}\n',
  ].join('\n')
}

/** What nft has to understand for `sharesTargets`. */
export function sampleTable(table: string): string {
  return [
    `table ip ${table} {`,
    ...Object.entries(targetMaps.ip).map(([name, type]) => `  map ${name} { ${type}; }`),
    '  chain sample {',
    '    dnat to ip daddr . numgen inc mod 2 map @vip-targets',
    `    dnat to ${firstPlace(vipTargets('ip'))}`,
    '    tcp dport 80 dnat to tcp dport . numgen inc mod 2 map @tcp-targets',
    '    tcp dport 80 dnat to iifname . tcp dport . numgen inc mod 2 map @near-tcp-targets',
    '  }',
    '}\n',
  ].join('\n')
}

/** What the families call things. */
const words = {
  ip: { icmp: 'icmp', unreachable: 'host-unreachable', loopback: '127.0.0.0/8' },
  ip6: { icmp: 'icmpv6', unreachable: 'addr-unreachable', loopback: '::1' },
} as const satisfies Record<Family, object>

/** With IPv6 the question for a VIP's link-layer address is a packet to the VIP itself: it is let in. */
const neighbourDiscovery = {
  ip: [],
  ip6: ['icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'],
} as const satisfies Record<Family, readonly string[]>

/**
 * The targets of all endpoints; see `SharedMap`. Ports have a map for each protocol: of one for all, `th dport`, nft has
 * lost the type when it reads the map back, and takes no rule that is added to what is there.
 */
function targetMapsOf(family: Family) {
  const to = `${family} daddr`
  const ofPorts = (protocol: Protocol, expression: string) =>
    `typeof ${expression} . numgen inc mod 2 : ${to} . ${protocol} dport`
  return {
    'vip-targets': `typeof ${to} . numgen inc mod 2 : ${to}`,
    'tcp-targets': ofPorts('tcp', portTargets('tcp').expression),
    'udp-targets': ofPorts('udp', portTargets('udp').expression),
    'sctp-targets': ofPorts('sctp', portTargets('sctp').expression),
    'near-tcp-targets': ofPorts('tcp', nearTargets('tcp').expression),
    'near-udp-targets': ofPorts('udp', nearTargets('udp').expression),
    'near-sctp-targets': ofPorts('sctp', nearTargets('sctp').expression),
  } as const
}
const targetMaps = { ip: targetMapsOf('ip'), ip6: targetMapsOf('ip6') } as const
type Protocol = PortSpec['protocol']
type TargetMap = Pick<SharedMap, 'name' | 'expression'>

function portTargets(protocol: Protocol) {
  return { name: `${protocol}-targets`, expression: `${protocol} dport` } as const
}

/** Of ports that are asked for on the bridge of a network. */
function nearTargets(protocol: Protocol) {
  return {
    name: `near-${protocol}-targets`,
    expression: `iifname . ${protocol} dport`,
  } as const
}

function setsOf(address: string) {
  return {
    vips: `type ${address}`,
    balanced: `type ifname . ${address} : verdict`,
    loops: `type ${address} . ${address} : ${address}`,
    ports: 'type inet_proto . inet_service : verdict',
    refused: 'type inet_proto . inet_service',
    resolvers: `type ${address}`,
    bridges: 'type ifname',
    near: 'type ifname . inet_proto . inet_service : verdict',
    neighbours: `type ${address} . ${address}; flags interval`,
    unrouted: `type ${address}`,
    own: `type ${address}`,
    lost: `type ${address}`,
  } as const
}
const sets = {
  ip: setsOf('ipv4_addr'),
  ip6: {
    ...setsOf('ipv6_addr'),
    within: 'type ifname . ifname',
    internal: 'type ifname',
  },
} as const
type SetName = keyof (typeof sets)['ip6'] | keyof (typeof targetMaps)['ip6']

/**
 * Networks are apart: nothing is forwarded from one to another, out of an internal one, or from elsewhere to who did not ask for
 * it or publish a port. With IPv4 the engine sees to that; with IPv6 engines before 27 do not.
 */
const apartHook: Hook = {
  name: 'apart',
  hook: 'type filter hook forward priority -10; policy accept;',
  rules: [
    'iifname . oifname @within accept',
    'ct state established,related accept',
    'ct status dnat accept',
    'oifname @bridges drop',
    'iifname @internal drop',
  ],
}

type Elements = Map<SetName, Set<string>>

function put(elements: Elements, set: SetName, element: string): void {
  const known = elements.get(set)
  if (known) known.add(element)
  else elements.set(set, new Set([element]))
}

/** What the table has whatever the endpoints are. */
function basePage(family: Family, networks: readonly NetworkAssignment[]): RulesPage {
  const { icmp, unreachable } = words[family]
  const elements: Elements = new Map()
  for (const { gateway, id, ingress, internal, subnet } of networks) {
    const bridge = `"${bridgeName(id)}"`
    put(elements, 'resolvers', gateway)
    put(elements, 'bridges', bridge)
    if (!ingress) put(elements, 'neighbours', `${subnet} . ${subnet}`)
    if (family === 'ip') continue
    put(elements, 'within', `${bridge} . ${bridge}`)
    if (internal) put(elements, 'internal', bridge)
  }
  return {
    chains: new Map([
      [
        'published',
        [
          `${family} daddr @resolvers meta l4proto { tcp, udp } th dport 53 return`,
          'iifname . meta l4proto . th dport vmap @near',
          'meta l4proto . th dport vmap @ports',
        ],
      ],
      [
        'refuse',
        ['meta l4proto tcp reject with tcp reset', `reject with ${icmp} type port-unreachable`],
      ],
      [
        'absent',
        ['meta l4proto tcp reject with tcp reset', `reject with ${icmp} type ${unreachable}`],
      ],
    ]),
    elements,
    udpBackends: new Map(),
  }
}

/** By what it was made of. */
const lostPages = { ip: new WeakMap<object, RulesPage>(), ip6: new WeakMap<object, RulesPage>() }
const noNeighbours: NonNullable<DesiredNetwork['neighbours']> = new Map()

/**
 * Connections to an address whose node fell silent are reset as soon as something is sent: nobody would answer, and clients would
 * wait until their patience ends. While there is no such address packets pass an empty chain.
 */
function lostPageOf(family: Family, neighbours = noNeighbours): RulesPage {
  const known = lostPages[family].get(neighbours)
  if (known) return known
  const lost = new Set<string>()
  for (const { isLost, address } of neighbours.values()) if (isLost) lost.add(address)
  const page: RulesPage = {
    chains: new Map([['lost', lost.size > 0 ? resetLost(family) : []]]),
    elements: new Map([['lost', lost]]),
    udpBackends: new Map(),
  }
  lostPages[family].set(neighbours, page)
  return page
}

/** Endpoints share this many pages: a change tells one page's chains again, a new connection passes one page's rules. */
const pageCount = 64

/** By the first endpoint of each: a page is made again only when one of its endpoints is another. */
type KnownPages = WeakMap<
  EndpointAssignment,
  { readonly endpoints: readonly EndpointAssignment[]; readonly page: RulesPage }
>

function pagesOf(endpoints: readonly EndpointAssignment[], context: Context): readonly RulesPage[] {
  const losing = losersOf(endpoints, context)
  return onShelves(endpoints, pageCount).flatMap((shelf, number) => {
    const [first] = shelf
    if (!first) return []
    const known = losing.size === 0 ? context.pages.get(first) : undefined
    if (known && isSame(known.endpoints, shelf)) return [known.page]
    const page = pageOf(shelf, number, context, losing)
    if (losing.size === 0) context.pages.set(first, { endpoints: shelf, page })
    return [page]
  })
}

function pageOf(
  endpoints: readonly EndpointAssignment[],
  number: number,
  context: Context,
  losing: ReadonlySet<PortPart>,
): RulesPage {
  /** By chain, with the map that the targets of its rules are in. */
  const rulesByChain = new Map<string, { readonly map: TargetMap; readonly rules: string[] }>()
  const addRules = (chain: string, map: TargetMap, rules: readonly string[]) => {
    const known = rulesByChain.get(chain)
    if (known) known.rules.push(...rules)
    else rulesByChain.set(chain, { map, rules: [...rules] })
  }
  const elements: Elements = new Map()
  const udpBackends = new Map<string, ReadonlySet<string>>()
  const allBackends = new Set<string>()
  for (const endpoint of endpoints) {
    const { vips, ports } = partOf(endpoint, context)
    for (const { backends } of [...vips, ...ports, ...ports.flatMap(({ near }) => near)])
      for (const backend of backends) allBackends.add(backend)
    for (const { vip, bridge, rules, targets, backends, loops } of vips) {
      put(elements, 'vips', vip)
      udpBackends.set(vip, backends)
      if (rules.length === 0) continue
      const chain = `vips-${number}`
      addRules(chain, vipTargets(context.family), rules)
      put(elements, 'balanced', `"${bridge}" . ${vip} : goto ${chain}`)
      for (const target of targets) put(elements, 'vip-targets', target)
      for (const loop of loops) put(elements, 'loops', loop)
    }
    for (const port of ports) {
      if (losing.has(port)) continue
      const { key, protocol, publishedPort, rules } = port
      if (protocol === 'udp') udpBackends.set(`${publishedPort}`, allBackendsOf(port))
      if (rules.length === 0) {
        put(elements, 'refused', key)
        continue
      }
      const chain = `ports-${protocol}-${number}`
      addRules(chain, portTargets(protocol), rules)
      put(elements, 'ports', `${key} : goto ${chain}`)
      for (const target of port.targets) put(elements, portTargets(protocol).name, target)
      for (const near of port.near) {
        const nearChain = `near-${protocol}-${number}`
        addRules(nearChain, nearTargets(protocol), [near.rule])
        put(elements, 'near', `${near.key} : goto ${nearChain}`)
        for (const target of near.targets) put(elements, nearTargets(protocol).name, target)
      }
      for (const [set, element] of port.elements) put(elements, set, element)
    }
  }
  const chains = new Map<string, readonly string[]>()
  for (const [name, { map, rules }] of rulesByChain) {
    chains.set(name, [
      ...(context.limitsMemory ? [limitMemory] : []),
      ...rules,
      ...(context.sharesTargets ? [`dnat to ${firstPlace(map)}`] : []),
    ])
  }
  return { chains, elements, udpBackends, backends: allBackends }
}

/** Subnets that connections to published ports are sent into: where forwarding has to be allowed. */
export function publishedSubnets(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
  nodeId?: NodeId,
  family: Family = 'ip',
): readonly string[] {
  const subnets = new Set(networks.filter(({ ingress }) => ingress).map(({ subnet }) => subnet))
  const context =
    lastContextFor(family, networks, nodeId) ??
    contextOf(family, networks, nodeId, { sharesTargets: true, limitsMemory: false })
  for (const endpoint of endpoints) {
    for (const subnet of partOf(endpoint, context).subnets) subnets.add(subnet)
  }
  return [...subnets].sort()
}

/** What an endpoint's part depends on besides itself. */
interface Context {
  readonly family: Family
  readonly networks: readonly NetworkAssignment[]
  readonly nodeId: NodeId | undefined
  readonly networkById: ReadonlyMap<string, NetworkAssignment>
  /** In the order in which a backend's addresses are tried for published ports. */
  readonly ranked: readonly NetworkAssignment[]
  readonly ingressNetwork: NetworkAssignment | undefined
  readonly isLocal: (nodeId: string) => boolean
  readonly rotation: number
  readonly sharesTargets: boolean
  readonly limitsMemory: boolean
  readonly basePage: RulesPage
  readonly pages: KnownPages
  /** An endpoint is never changed, so its part is made once; one that nobody has any more is forgotten. */
  readonly parts: WeakMap<EndpointAssignment, EndpointPart>
}

interface EndpointPart {
  readonly vips: readonly VipPart[]
  readonly ports: readonly PortPart[]
  /** Where its ports send connections. */
  readonly subnets: readonly string[]
}

/** What one published port comes to. */
interface PortPart {
  readonly key: string
  readonly protocol: PortSpec['protocol']
  readonly publishedPort: number
  /** Empty: nobody takes connections. */
  readonly rules: readonly string[]
  /** What the rules need in the map of targets. */
  readonly targets: readonly string[]
  readonly elements: readonly (readonly [SetName, string])[]
  readonly backends: ReadonlySet<string>
  readonly near: readonly NearPart[]
}

/** What it comes to for containers on one of the backends' networks. */
interface NearPart {
  readonly key: string
  readonly rule: string
  readonly targets: readonly string[]
  readonly backends: ReadonlySet<string>
}

function allBackendsOf({ backends, near }: PortPart): ReadonlySet<string> {
  return new Set([backends, ...near.map((part) => part.backends)].flatMap((set) => [...set]))
}

const lastContexts = new Map<Family, Context>()

/** The same one while networks and node stay the same: a change of one endpoint leaves the parts of the others as they are. */
function contextOf(
  family: Family,
  networks: readonly NetworkAssignment[],
  nodeId: NodeId | undefined,
  abilities: Pick<Context, 'sharesTargets' | 'limitsMemory'>,
): Context {
  const { sharesTargets, limitsMemory } = abilities
  const last = lastContextFor(family, networks, nodeId)
  if (last?.sharesTargets === sharesTargets && last.limitsMemory === limitsMemory) return last
  const context: Context = {
    family,
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
    rotation: hashOf(nodeId ?? '') % rotations,
    sharesTargets,
    limitsMemory,
    basePage: basePage(family, networks),
    pages: new WeakMap(),
    parts: new WeakMap(),
  }
  lastContexts.set(family, context)
  return context
}

function lastContextFor(
  family: Family,
  networks: readonly NetworkAssignment[],
  nodeId: NodeId | undefined,
): Context | undefined {
  const lastContext = lastContexts.get(family)
  const isLast =
    lastContext !== undefined &&
    lastContext.nodeId === nodeId &&
    isSame(lastContext.networks, networks)
  return isLast ? lastContext : undefined
}

function isSame<Item>(left: readonly Item[], right: readonly Item[]): boolean {
  return left.length === right.length && left.every((item, index) => item === right[index])
}

function partOf(endpoint: EndpointAssignment, context: Context): EndpointPart {
  const known = context.parts.get(endpoint)
  if (known) return known
  const ports = endpoint.ports
    .filter(({ publishMode, publishedPort }) => publishMode === 'ingress' && publishedPort > 0)
    .map((spec) => portPart(spec, endpoint, context))
  const part: EndpointPart = {
    vips: vipParts(endpoint, context),
    ports,
    subnets: ports.length === 0 ? [] : subnetsOf(endpoint, context),
  }
  context.parts.set(endpoint, part)
  return part
}

/**
 * Of a port that two endpoints claim, the first one by id has it: the others' parts are these. The allocator gives none out
 * twice, so there are hardly ever any.
 */
function losersOf(
  endpoints: readonly EndpointAssignment[],
  context: Context,
): ReadonlySet<PortPart> {
  const owners = new Map<string, { readonly id: string; readonly port: PortPart }>()
  const losers = new Set<PortPart>()
  for (const endpoint of endpoints) {
    const { id } = endpoint
    for (const port of partOf(endpoint, context).ports) {
      const owner = owners.get(port.key)
      if (owner && owner.id <= id) {
        losers.add(port)
        continue
      }
      if (owner) losers.add(owner.port)
      owners.set(port.key, { id, port })
    }
  }
  return losers
}

function portPart(spec: PortSpec, endpoint: EndpointAssignment, context: Context): PortPart {
  const { protocol, publishedPort, targetPort } = spec
  const { family, networkById, sharesTargets } = context
  const entries = entriesOf(endpoint, context)
  const key = `${protocol} . ${publishedPort}`
  const shared = sharesTargets ? { ...portTargets(protocol), key: `${publishedPort}` } : undefined
  const choice = choosePlace(entries, targetPort, shared, family)
  const elements: (readonly [SetName, string])[] = []
  for (const { address, networkId, backend, isRemote } of entries) {
    if (isRemote) continue
    const network = networkById.get(networkId)
    if (network?.ingress) elements.push(['own', address])
    if (network?.internal) elements.push(['unrouted', address])
    for (const [id, own] of Object.entries(backend.addresses)) {
      const gateway = networkById.get(id)?.gateway
      if (gateway !== undefined) elements.push(['loops', `${own} . ${own} : ${gateway}`])
    }
  }
  return {
    key,
    protocol,
    publishedPort,
    rules: choice ? [`${protocol} dport ${publishedPort} dnat to ${choice.target}`] : [],
    targets: choice?.elements ?? [],
    elements,
    backends: new Set(entries.map(({ address }) => address)),
    near: nearParts(spec, entries, context),
  }
}

/** By the bridges of the networks that backends are on. The ingress network has no clients but tasks of other services. */
function nearParts(
  { protocol, publishedPort, targetPort }: PortSpec,
  entries: readonly Entry[],
  { family, networks, sharesTargets }: Context,
): readonly NearPart[] {
  return networks.flatMap(({ id, ingress }): NearPart[] => {
    if (ingress) return []
    const near = entries.flatMap(({ backend }) => {
      const address = backend.addresses[id]
      return address === undefined ? [] : [{ address, backend }]
    })
    const bridge = `"${bridgeName(id)}"`
    const shared = sharesTargets
      ? { ...nearTargets(protocol), key: `${bridge} . ${publishedPort}` }
      : undefined
    const choice = choosePlace(near, targetPort, shared, family)
    if (!choice) return []
    const asked = `iifname ${bridge} ${protocol} dport ${publishedPort}`
    return [
      {
        key: `${bridge} . ${protocol} . ${publishedPort}`,
        rule: `${asked} dnat to ${choice.target}`,
        targets: choice.elements,
        backends: new Set(near.map(({ address }) => address)),
      },
    ]
  })
}

/** Picks an address and port. One that is alone is written as anywhere else. */
function choosePlace(
  entries: readonly Pick<Entry, 'address' | 'backend'>[],
  targetPort: number,
  shared: SharedMap | undefined,
  family: Family,
): Choice | undefined {
  const targets = entries.map(({ address, backend }): Target => {
    return { target: `${address} . ${targetPort}`, weight: backend.weight }
  })
  const choice = balance(targets, { shared })
  const [only] = entries.length === 1 ? entries : []
  if (!choice || !only) return choice
  const host = family === 'ip6' ? `[${only.address}]` : only.address
  return { ...choice, target: `${host}:${targetPort}` }
}

function subnetsOf({ backends }: EndpointAssignment, context: Context): readonly string[] {
  const used = backends.flatMap((backend) => {
    const network = context.networkById.get(entryAddress(backend, context)?.networkId ?? '')
    return network ? [network.subnet] : []
  })
  return [...new Set(used)]
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
