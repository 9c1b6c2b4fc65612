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
    /** When the availability became this, by the clock of the manager that took the change. */
    readonly availabilitySinceMs?: number
  }
  /** What the node says of itself. */
  readonly description: NodeDescription
  readonly status: NodeStatus
  /** The certificate it was last given. */
  readonly certificate?: NodeCertificateStatus
  /** Present on managers. */
  readonly manager?: {
    readonly address: string
    readonly leader: boolean
    readonly reachability: 'unknown' | 'unreachable' | 'reachable'
    /** It was let in, and has not taken up its part yet: it has no voice. */
    readonly joining?: true
  }
}

export interface NodeStatus {
  readonly state: 'unknown' | 'down' | 'ready' | 'disconnected'
  /** On one that is down: nothing was heard of it any more. Absent: its daemon ended, and its containers may run on. */
  readonly isSilent?: true
  /** When the state became this, by the clock of the manager that saw it. Absent: not known better than the last change. */
  readonly sinceMs?: number
  /** When it last was there again after it had been down, by the clock of the manager that saw it. */
  readonly backSinceMs?: number
  readonly message: string
  /** Address as the manager sees it, without port. */
  readonly address: string
}

/** Since when the node is in the state it is in. Other changes of the node do not move it. */
export function stateSinceMs(node: ClusterNode): number {
  return node.status.sinceMs ?? node.updatedAtMs
}

/** Since when it has the availability it has. */
export function availabilitySinceMs(node: ClusterNode): number {
  return node.spec.availabilitySinceMs ?? node.updatedAtMs
}

/** What the managers know of a node's certificate. Its key is what the node proves to be itself with, for good. */
export interface NodeCertificateStatus {
  /** SHA-256 of the public key (SPKI, DER), base64. */
  readonly publicKeyHash: string
  /** SHA-256 of the PEM of the root that signed it, base64. */
  readonly rootHash: string
  readonly expiresAtMs: number
}

/** By what others know the node where packets are encrypted. Undefined: it can't. */
export function tunnelKeyOf({ description }: ClusterNode): string | undefined {
  const { encryption } = description
  return encryption && encryption.how !== 'none' ? encryption.publicKey : undefined
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
  /** What others reach it by, as it finds itself. Absent: it has not said; `status.address` stays. */
  readonly address?: string
  /** Where other nodes send it the packets of cluster networks. Absent: `status.address`. */
  readonly dataPathAddress?: string
  /** How it encrypts what it sends to other nodes, and the public key (base64) they know it by; or why it can't. */
  readonly encryption?:
    | { readonly how: 'kernel' | 'userspace'; readonly publicKey: string }
    | { readonly how: 'none'; readonly why: string }
  /** Networks the host itself is on (CIDR), which cluster subnets must not overlap. */
  readonly hostSubnets: readonly string[]
}
