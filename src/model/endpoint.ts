import type { EndpointId, NetworkId, WorkloadId } from './ids.ts'
import type { ObjectMeta, Source } from './object.ts'

/** A name, VIPs and ports in front of tasks. Its routable tasks are derived, never stored. */
export interface Endpoint extends ObjectMeta<'endpoint', EndpointId> {
  readonly source: Source
  readonly spec: EndpointSpec
  readonly status: EndpointStatus
}

export interface EndpointSpec {
  /** `vip`: names resolve to a virtual address; `dnsrr`: to the tasks' own. */
  readonly mode: 'vip' | 'dnsrr'
  /** Where its name resolves. */
  readonly networks: readonly {
    readonly networkId: NetworkId
    readonly aliases: readonly string[]
  }[]
  readonly ports: readonly PortSpec[]
  /**
   * Who gets what comes in by a node's published ports. `preserve`: the node's own tasks while it has any, so that they see
   * the client's address; else those of all nodes. `spread`: always those of all nodes. Absent: `preserve`.
   */
  readonly ingress?: IngressPolicy
  /** Who answers, by weight. A Docker service has one: its own workload. */
  readonly backends: readonly { readonly workloadId: WorkloadId; readonly weight: number }[]
}

export type IngressPolicy = 'preserve' | 'spread'

export type Protocol = 'tcp' | 'udp' | 'sctp'

export interface PortSpec {
  readonly name?: string
  readonly protocol: Protocol
  readonly targetPort: number
  /** 0: the allocator (ingress, from 30000) or the engine (host) chooses. */
  readonly publishedPort: number
  readonly publishMode: 'ingress' | 'host'
}

export interface EndpointStatus {
  /** In vip mode one per network, and one on the ingress network when a port is published there. */
  readonly vips: readonly { readonly networkId: NetworkId; readonly address: string }[]
  /** The ports with every number decided (host-mode ones may stay 0). */
  readonly ports: readonly PortSpec[]
  /** Why an address or port could not be given out. */
  readonly error?: string
}
