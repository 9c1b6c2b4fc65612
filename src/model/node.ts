import type { NodeId } from './ids.ts'
import type { ObjectMeta, Source } from './object.ts'
import type { GenericResource, Platform } from './workload.ts'

export type Availability = 'active' | 'pause' | 'drain'
export type NodeRole = 'manager' | 'worker'

/** A host in the cluster. `name` is the reported host name (not unique); `labels` are the operator's. */
export interface ClusterNode extends ObjectMeta<'node', NodeId> {
  readonly source: Source
  readonly spec: {
    readonly name?: string
    readonly role: NodeRole
    readonly availability: Availability
  }
  /** What the node says of itself. */
  readonly description: NodeDescription
  readonly status: NodeStatus
  /** Present on managers. */
  readonly manager?: {
    readonly address: string
    readonly leader: boolean
    readonly reachability: 'unknown' | 'unreachable' | 'reachable'
  }
}

export interface NodeStatus {
  readonly state: 'unknown' | 'down' | 'ready' | 'disconnected'
  readonly message: string
  /** Address as the manager sees it, without port. */
  readonly address: string
}

export interface NodeDescription {
  readonly hostname: string
  readonly platform: Platform
  readonly resources: {
    readonly nanoCpus: number
    readonly memoryBytes: number
    readonly generic: readonly GenericResource[]
  }
  readonly engine: {
    readonly version: string
    readonly apiVersion: string
    readonly labels: Readonly<Record<string, string>>
    readonly plugins: readonly { readonly type: string; readonly name: string }[]
  }
  /** Version of Skep on the node. */
  readonly skepVersion: string
  /** PEM of the root it trusts, and its certificate's issuer (DER, base64). */
  readonly tls?: {
    readonly trustRoot: string
    readonly issuerSubject: string
    readonly issuerPublicKey: string
  }
  /** Networks the host itself is on (CIDR), which cluster subnets must not overlap. */
  readonly hostSubnets: readonly string[]
}
