import { type DualStack, ipv6Of } from '../model/index.ts'
import type {
  Backend,
  EndpointAssignment,
  NeighbourAssignment,
  NetworkAssignment,
} from '../wire/index.ts'

/** What is the same for both families, with the addresses of one. */
export interface AddressedView {
  readonly networks: readonly NetworkAssignment[]
  readonly endpoints: readonly EndpointAssignment[]
}

type DualNetwork = NetworkAssignment & DualStack

/** Networks with IPv6, and what is on them, as if their IPv6 addresses were all they had. */
export class Ipv6View {
  #dual: readonly DualNetwork[] = []
  #networks: readonly NetworkAssignment[] = []
  #dualById: ReadonlyMap<string, DualNetwork> = new Map()
  /** An endpoint is never changed, so it is worked out once; one that nobody has any more is forgotten. */
  #endpoints = new WeakMap<EndpointAssignment, readonly EndpointAssignment[]>()

  #lost = new WeakMap<object, ReadonlyMap<string, NeighbourAssignment>>()

  /** Undefined: no network has IPv6. */
  of({ networks, endpoints }: AddressedView): AddressedView | undefined {
    const dual = networks.filter(isDual)
    const isSame =
      dual.length === this.#dual.length && dual.every((one, index) => one === this.#dual[index])
    if (!isSame) {
      this.#dual = dual
      this.#networks = dual.map(inIpv6)
      this.#dualById = new Map(dual.map((network) => [network.id, network]))
      this.#endpoints = new WeakMap()
      this.#lost = new WeakMap()
    }
    if (dual.length === 0) return undefined
    return {
      networks: this.#networks,
      endpoints: endpoints.flatMap((endpoint) => this.#endpointIn6(endpoint)),
    }
  }

  /** Those whose node fell silent. The same ones while the neighbours and networks are the same. */
  lostNeighbours(
    neighbours: ReadonlyMap<string, NeighbourAssignment> | undefined,
  ): ReadonlyMap<string, NeighbourAssignment> | undefined {
    if (!neighbours) return undefined
    const known = this.#lost.get(neighbours)
    if (known) return known
    const lost = new Map<string, NeighbourAssignment>()
    for (const [id, neighbour] of neighbours) {
      const network = neighbour.isLost ? this.#dualById.get(neighbour.networkId) : undefined
      if (network) lost.set(id, { ...neighbour, address: ipv6Of(network, neighbour.address) })
    }
    this.#lost.set(neighbours, lost)
    return lost
  }

  #endpointIn6(endpoint: EndpointAssignment): readonly EndpointAssignment[] {
    const known = this.#endpoints.get(endpoint)
    if (known) return known
    const backends = endpoint.backends.map((backend): Backend => {
      const addresses = Object.entries(backend.addresses).flatMap(([id, address]) => {
        const network = this.#dualById.get(id)
        return network ? [[id, ipv6Of(network, address)] as const] : []
      })
      return { ...backend, addresses: Object.fromEntries(addresses) }
    })
    const networks = endpoint.networks.flatMap((place) => {
      const network = this.#dualById.get(place.networkId)
      if (!network) return []
      return [place.vip === undefined ? place : { ...place, vip: ipv6Of(network, place.vip) }]
    })
    const isThere =
      networks.length > 0 || backends.some(({ addresses }) => Object.keys(addresses).length > 0)
    const mapped = isThere ? [{ ...endpoint, networks, backends }] : []
    this.#endpoints.set(endpoint, mapped)
    return mapped
  }
}

export function isDual(network: NetworkAssignment): network is DualNetwork {
  return network.ipv6 !== undefined
}

function inIpv6(network: DualNetwork): NetworkAssignment {
  const { nodeAddress, ipv6 } = network
  return {
    ...network,
    subnet: ipv6.subnet,
    gateway: ipv6.gateway,
    ...(nodeAddress
      ? { nodeAddress: { ...nodeAddress, address: ipv6Of(network, nodeAddress.address) } }
      : {}),
  }
}
