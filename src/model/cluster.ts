import type { ClusterId, ConfigId, SecretId } from './ids.ts'
import type { ObjectMeta, Source } from './object.ts'
import type { Sealed } from './workload.ts'

/** The one cluster object. `source` is the swarm spec as declared. */
export interface Cluster extends ObjectMeta<'cluster', ClusterId> {
  readonly source: Source
  readonly spec: ClusterSpec
  readonly status: ClusterStatus
}

export interface ClusterSpec {
  /** Finished tasks kept per slot; below 0 keeps all. */
  readonly taskHistoryLimit: number
  readonly heartbeatPeriodMs: number
  readonly nodeCertExpiryMs: number
  readonly autoLock: boolean
  readonly logDriver?: { readonly name: string; readonly options: Readonly<Record<string, string>> }
}

export interface ClusterStatus {
  readonly root: {
    readonly certificatePem: string
    readonly key: Sealed
    readonly issuerSubject: string
    readonly issuerPublicKey: string
  }
  readonly rootRotationInProgress: boolean
  readonly joinTokens: { readonly worker: Sealed; readonly manager: Sealed }
  readonly unlockKey?: Sealed
  /** CIDR pools that network subnets come from. */
  readonly addressPools: readonly string[]
  /** Prefix length of a subnet from the pools. */
  readonly subnetSize: number
  readonly dataPathPort: number
}

/** Immutable bytes for tasks, sealed at rest. Never returned by an API. */
export interface Secret extends ObjectMeta<'secret', SecretId> {
  readonly source: Source
  readonly spec: { readonly templating?: string; readonly driver?: string }
  readonly data: Sealed
}

/** Immutable bytes for tasks, readable. */
export interface Config extends ObjectMeta<'config', ConfigId> {
  readonly source: Source
  readonly spec: { readonly templating?: string }
  /** base64 */
  readonly data: string
}
