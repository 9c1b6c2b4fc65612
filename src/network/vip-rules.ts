import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { balance, type Family, type Target } from './ruleset.ts'

/** What one endpoint's VIP on one network comes to in the host's table. */
export interface VipPart {
  readonly vip: string
  /** The bridge on which it is asked for. */
  readonly bridge: string
  /** Empty: nobody takes connections. */
  readonly rules: readonly string[]
  /** What the rules need in the map of targets. */
  readonly targets: readonly string[]
  readonly backends: ReadonlySet<string>
  /** Backends of this node: one that asks for its own VIP would be answered by itself. */
  readonly loops: readonly string[]
}

export function vipTargets(family: Family) {
  return { name: 'vip-targets', expression: `${family} daddr` } as const
}

/**
 * An endpoint's VIPs on the networks of this node. A packet for a VIP that crosses its network's bridge is sent on to one of
 * the endpoint's backends, whatever the protocol; the client's address stays. Connections that are open go on as they
 * began (the kernel keeps them).
 */
export function vipParts(
  endpoint: EndpointAssignment,
  options: {
    readonly family: Family
    readonly networkById: ReadonlyMap<string, NetworkAssignment>
    readonly isLocal: (nodeId: string) => boolean
    /** Whose turn is first; see `balance`. */
    readonly rotation: number
    readonly sharesTargets: boolean
  },
): readonly VipPart[] {
  const { family, networkById, isLocal, rotation, sharesTargets } = options
  return endpoint.networks.flatMap(({ networkId, vip }): VipPart[] => {
    const network = networkById.get(networkId)
    if (vip === undefined || !network) return []
    const able = endpoint.backends.flatMap(({ addresses, weight, nodeId }) => {
      const target = addresses[networkId]
      return target === undefined || weight < 1 ? [] : [{ target, weight, nodeId }]
    })
    const choice = balance(
      able.map(({ target, weight }): Target => ({ target, weight })),
      {
        rotation,
        ...(sharesTargets ? { shared: { ...vipTargets(family), key: vip } } : {}),
      },
    )
    return [
      {
        vip,
        bridge: bridgeName(networkId),
        rules: choice ? [`${family} daddr ${vip} dnat to ${choice.target}`] : [],
        targets: choice?.elements ?? [],
        backends: new Set(able.map(({ target }) => target)),
        loops: able
          .filter(({ nodeId }) => isLocal(nodeId))
          .map(({ target }) => `${target} . ${target} : ${network.gateway}`),
      },
    ]
  })
}
