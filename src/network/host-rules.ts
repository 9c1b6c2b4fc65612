import type { NetworkId, NodeId, PortSpec } from '../model/index.ts'
import type { Backend, EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { balance, type Ruleset, type Target } from './ruleset.ts'

/**
 * The table in the host's namespace: a published port, on any of the host's own addresses, is sent on to one of the
 * endpoint's backends. The client's address is kept, except where answers would not come back this way:
 * - from the host's loopback;
 * - from a container that the backend could answer directly, on a network they share (`hairpin`);
 * - to a backend that is only on internal networks, and so knows no way out (`unrouted`);
 * - to a backend on another node (`remote`), which answers to this node's own address on the ingress network.
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
  const nodeAddress = nodeAddressOf(networks)
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
  ])
  const ports = new Set<string>()
  const refused = new Set<string>()
  const hairpin = new Set<string>()
  const unrouted = new Set<string>()
  const remote = new Set<string>()
  const udpBackends = new Map<string, ReadonlySet<string>>()
  const networkById = new Map(networks.map((network) => [network.id, network]))

  for (const { spec, endpoint } of publishedPorts(endpoints)) {
    const { protocol, publishedPort, targetPort } = spec
    const entries = entriesOf(endpoint, networks, nodeId)
    const targets = entries.map(({ address, backend }): Target => {
      return { target: `${address} . ${targetPort}`, weight: backend.weight }
    })
    const choice = balance(targets)
    if (protocol === 'udp') {
      udpBackends.set(`${publishedPort}`, new Set(entries.map(({ address }) => address)))
    }
    if (choice === undefined) {
      refused.add(`${protocol} . ${publishedPort}`)
      continue
    }
    const chain = `port-${protocol}-${publishedPort}`
    const [only] = targets.length === 1 ? entries : []
    chains.set(chain, [
      `ip protocol ${protocol} dnat to ${only ? `${only.address}:${targetPort}` : choice}`,
    ])
    ports.add(`${protocol} . ${publishedPort} : goto ${chain}`)
    for (const { address, networkId, backend, isRemote } of entries) {
      if (isRemote) {
        remote.add(address)
        continue
      }
      if (networkById.get(networkId)?.internal) unrouted.add(address)
      for (const id of Object.keys(backend.addresses)) {
        const shared = networks.find((network) => network.id === id)
        if (shared) hairpin.add(`${shared.subnet} . ${address}`)
      }
    }
  }

  return {
    table,
    sets: {
      ports: 'type inet_proto . inet_service : verdict',
      refused: 'type inet_proto . inet_service',
      resolvers: 'type ipv4_addr',
      bridges: 'type ifname',
      hairpin: 'type ipv4_addr . ipv4_addr; flags interval',
      unrouted: 'type ipv4_addr',
      remote: 'type ipv4_addr',
    },
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
        rules: ['fib daddr type local jump published'],
      },
      {
        name: 'output',
        hook: 'type nat hook output priority -110; policy accept;',
        rules: ['fib daddr type local jump published'],
      },
      {
        name: 'guard',
        hook: 'type filter hook input priority -10; policy accept;',
        rules: ['ct state new fib daddr type local meta l4proto . th dport @refused jump refuse'],
      },
      {
        name: 'postrouting',
        hook: 'type nat hook postrouting priority 90; policy accept;',
        rules: [
          ...(nodeAddress ? [`ct status dnat ip daddr @remote snat to ${nodeAddress}`] : []),
          'ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade',
          'ct status dnat ip saddr . ip daddr @hairpin masquerade',
          'ct status dnat ip daddr @unrouted masquerade',
        ],
      },
    ],
    elements: new Map([
      ['ports', ports],
      ['refused', refused],
      ['resolvers', new Set(networks.map(({ gateway }) => gateway))],
      ['bridges', new Set(networks.map(({ id }) => `"${bridgeName(id)}"`))],
      ['hairpin', hairpin],
      ['unrouted', unrouted],
      ['remote', remote],
    ]),
    udpBackends,
  }
}

/** Subnets that connections to published ports are sent into: where forwarding has to be allowed. */
export function publishedSubnets(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
): readonly string[] {
  const subnets = new Set(networks.filter(({ ingress }) => ingress).map(({ subnet }) => subnet))
  for (const { endpoint } of publishedPorts(endpoints)) {
    for (const backend of endpoint.backends) {
      const entry = entryAddress(backend, networks)
      const network = entry && networks.find(({ id }) => id === entry.networkId)
      if (network) subnets.add(network.subnet)
    }
  }
  return [...subnets].sort()
}

/** The first endpoint, by id, has a port that two claim: the allocator gives none out twice. */
function* publishedPorts(
  endpoints: readonly EndpointAssignment[],
): Iterable<{ readonly spec: PortSpec; readonly endpoint: EndpointAssignment }> {
  const taken = new Set<string>()
  for (const endpoint of [...endpoints].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    for (const spec of endpoint.ports) {
      const key = `${spec.protocol}/${spec.publishedPort}`
      if (spec.publishMode !== 'ingress' || spec.publishedPort === 0 || taken.has(key)) continue
      taken.add(key)
      yield { spec, endpoint }
    }
  }
}

function nodeAddressOf(networks: readonly NetworkAssignment[]): string | undefined {
  return networks.find(({ ingress }) => ingress)?.nodeAddress?.address
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
  networks: readonly NetworkAssignment[],
  nodeId: NodeId | undefined,
): readonly Entry[] {
  const entries = backends.flatMap((backend): Entry[] => {
    const entry = entryAddress(backend, networks)
    if (!entry || backend.weight < 1) return []
    return [{ ...entry, backend, isRemote: nodeId !== undefined && backend.nodeId !== nodeId }]
  })
  const own = entries.filter(({ isRemote }) => !isRemote)
  if (ingress === 'preserve' && own.length > 0) return own
  // Answers find this node by its address on the ingress network alone.
  const ingressNetwork = networks.find((network) => network.ingress)
  return entries.filter(
    ({ isRemote, networkId }) =>
      !isRemote || (ingressNetwork?.nodeAddress && networkId === ingressNetwork.id),
  )
}

/** Where a backend takes connections to published ports: on the ingress network, else on one that this node has. */
function entryAddress(
  backend: Backend,
  networks: readonly NetworkAssignment[],
): { readonly address: string; readonly networkId: NetworkId } | undefined {
  const ranked = [...networks].sort(
    (a, b) =>
      Number(b.ingress) - Number(a.ingress) ||
      Number(a.internal) - Number(b.internal) ||
      (a.id < b.id ? -1 : 1),
  )
  for (const { id } of ranked) {
    const address = backend.addresses[id]
    if (address !== undefined) return { address, networkId: id }
  }
  return undefined
}
