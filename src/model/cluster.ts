import type { ClusterId, ConfigId, SecretId } from './ids.ts'
import type { NodeRole } from './node.ts'
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
  /**
   * PEM of roots that were replaced and are trusted until every node in reach has a certificate of the new one. Only
   * while a rotation is in progress.
   */
  readonly retiringRoots?: readonly string[]
  /**
   * PEM of each newer root signed by the one before it, newest first, at most `crossCertificatesMax`: what a node that
   * was off during a rotation needs to trust the managers again.
   */
  readonly crossCertificates?: readonly string[]
  /** Join tokens beside the two that everybody knows, each with its own bounds. */
  readonly issuedTokens?: readonly IssuedToken[]
  /** Tokens that were rotated away, newest first, so that whoever still has one is told what happened to it. */
  readonly rotatedTokens?: readonly RotatedToken[]
  readonly joinTokens: { readonly worker: Sealed; readonly manager: Sealed }
  readonly unlockKey?: Sealed
  /** CIDR pools that network subnets come from. */
  readonly addressPools: readonly string[]
  /** Prefix length of a subnet from the pools. */
  readonly subnetSize: number
  readonly dataPathPort: number
}

/** Rotations of the root that a node may miss and still come back by itself. */
export const crossCertificatesMax = 8
/** Join tokens of their own kind that a cluster keeps at once. */
export const issuedTokensMax = 100

/** Rotated tokens that are remembered. */
export const rotatedTokensMax = 20

export interface RotatedToken {
  /** SHA-256 of the token, base64. */
  readonly hash: string
  readonly role: NodeRole
  readonly atMs: number
}

/** A join token with bounds: for whom, until when, how often, and what labels its nodes get. */
export interface IssuedToken {
  /** What people name it by; no secret. */
  readonly id: string
  readonly role: NodeRole
  /** The whole token. */
  readonly sealed: Sealed
  /** Labels of the nodes that join with it. */
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMs: number
  readonly expiresAtMs?: number
  /** Joins left; absent: no bound. */
  readonly usesLeft?: number
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
