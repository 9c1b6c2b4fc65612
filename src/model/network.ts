import type { NetworkId, NodeId } from './ids.ts'
import type { Ipv6Block } from './ipv6.ts'
import type { ObjectMeta, Source } from './object.ts'

/** A cluster network. On each node that needs it: a bridge, and a VXLAN device on it. */
export interface Network extends ObjectMeta<'network', NetworkId> {
  readonly source: Source
  readonly spec: NetworkSpec
  readonly status: NetworkStatus
}

export interface NetworkSpec {
  readonly driver: string
  readonly internal: boolean
  readonly attachable: boolean
  /** The one network that published ports come in by. */
  readonly ingress: boolean
  /** Besides IPv4. */
  readonly ipv6: boolean
  readonly encrypted: boolean
  readonly options: Readonly<Record<string, string>>
  /** What was asked for: at most one block of each family. */
  readonly ipam: readonly {
    readonly subnet?: string
    readonly range?: string
    readonly gateway?: string
  }[]
  /** `host`, `bridge`, `none`: the engine's own network of that name; nothing is allocated. */
  readonly predefined: boolean
}

export interface NetworkStatus {
  /** Given out by the allocator, CIDR: `10.0.1.0/24`. */
  readonly subnet?: string
  /** Addresses are given out from here, CIDR within the subnet. */
  readonly range?: string
  readonly gateway?: string
  /** Where the network has IPv6 too: every address of the subnet has one here (`ipv6Of`). */
  readonly ipv6?: Ipv6Block
  /** VXLAN network identifier. */
  readonly vni?: number
  /** Why nothing could be allocated. */
  readonly error?: string
  /** Addresses of plain containers (`docker run --network …`) on an attachable network. */
  readonly attachments?: readonly NetworkAttachment[]
  /** On the ingress network: what nodes send from to tasks on other nodes. One per node, gone with it. */
  readonly nodeAddresses?: readonly NodeAddress[]
}

export interface NodeAddress {
  readonly nodeId: NodeId
  readonly address: string
  readonly mac: string
}

/** One plain container on a cluster network. It is no task: nothing restarts or moves it. */
export interface NetworkAttachment {
  readonly nodeId: NodeId
  /** Name or id that its place is kept under. */
  readonly container: string
  /** What resolves to it on this network, on every node. Absent: its name does, on its own node. */
  readonly names?: readonly string[]
  readonly address: string
  readonly mac: string
  readonly createdAtMs: number
}
