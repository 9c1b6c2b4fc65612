import type { NetworkId } from '../model/index.ts'
import type { EndpointAssignment } from '../wire/index.ts'
import { balance, type Ruleset, type Target } from './ruleset.ts'

/**
 * The table in a task's own network namespace: a VIP is sent on to one of the endpoint's backends, whatever the
 * protocol. A VIP with none refuses at once. Connections that are open go on as they began (the kernel keeps them).
 */
export function renderTaskRules(options: {
  readonly table: string
  readonly endpoints: readonly EndpointAssignment[]
  /** Where the task is attached. */
  readonly networks: ReadonlySet<NetworkId>
  /** Whose turn is first; see `balance`. */
  readonly rotation: number
}): Ruleset {
  const { table, endpoints, networks, rotation } = options
  const chains = new Map<string, readonly string[]>([
    [
      'refuse',
      ['meta l4proto tcp reject with tcp reset', 'reject with icmp type host-unreachable'],
    ],
  ])
  const vips = new Set<string>()
  const refused = new Set<string>()
  const udpBackends = new Map<string, ReadonlySet<string>>()
  for (const endpoint of endpoints) {
    for (const { networkId, vip } of endpoint.networks) {
      if (vip === undefined || !networks.has(networkId)) continue
      const { rules, backends } = renderVip(endpoint, networkId, vip, rotation)
      udpBackends.set(vip, backends)
      if (rules.length === 0) {
        refused.add(vip)
        continue
      }
      chains.set(`vip-${vip}`, rules)
      vips.add(`${vip} : goto vip-${vip}`)
    }
  }
  return {
    table,
    sets: { vips: 'type ipv4_addr : verdict', refused: 'type ipv4_addr' },
    chains,
    hooks: [
      {
        name: 'output',
        hook: 'type nat hook output priority -110; policy accept;',
        rules: ['ip daddr vmap @vips'],
      },
      {
        name: 'guard',
        hook: 'type filter hook output priority -10; policy accept;',
        rules: ['ip daddr @refused jump refuse'],
      },
    ],
    elements: new Map([
      ['vips', vips],
      ['refused', refused],
    ]),
    udpBackends,
  }
}

/** What an endpoint's VIP on one network comes to. No rules: nobody takes connections. */
interface RenderedVip {
  readonly rules: readonly string[]
  readonly backends: ReadonlySet<string>
}

/** By network and rotation. An endpoint is never changed, so it is rendered once; one that nobody has any more is forgotten. */
const renderedVips = new WeakMap<EndpointAssignment, Map<string, RenderedVip>>()

function renderVip(
  endpoint: EndpointAssignment,
  networkId: NetworkId,
  vip: string,
  rotation: number,
): RenderedVip {
  const rendered = renderedVips.get(endpoint) ?? new Map<string, RenderedVip>()
  renderedVips.set(endpoint, rendered)
  const key = `${rotation} ${networkId} ${vip}`
  const known = rendered.get(key)
  if (known) return known
  const targets = endpoint.backends.flatMap(({ addresses, weight }): Target[] => {
    const target = addresses[networkId]
    return target === undefined ? [] : [{ target, weight }]
  })
  const choice = balance(targets, rotation)
  const able = targets.filter(({ weight }) => weight >= 1)
  const made = {
    rules: choice === undefined ? [] : [`dnat to ${choice}`],
    backends: new Set(able.map(({ target }) => target)),
  }
  rendered.set(key, made)
  return made
}
