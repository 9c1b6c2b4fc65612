import type {
  Availability,
  ClusterSpec,
  IssuedToken,
  NodeId,
  NodeRole,
  Source,
} from '../model/index.ts'

/** This node's part in a cluster, and how it changes. The daemon implements it. */
export interface NodeControl {
  state(): NodeState

  /** Makes a new cluster with this node as its first manager. Rejects with `alreadyInCluster`, `invalidInput`. */
  init(request: InitRequest): Promise<NodeId>
  /** Rejects with `alreadyInCluster`, `invalidInput` (bad token), `unavailable` (nobody answers in time). */
  join(request: JoinRequest): Promise<void>
  /** Rejects with `notInCluster`, `failedPrecondition` (a manager, without force). */
  leave(force: boolean): Promise<void>

  /** Rejects with `invalidInput` (no such key form), `forbidden` (wrong key), `failedPrecondition` (not locked), `notInCluster`. */
  unlock(key: string): Promise<void>
  /** `undefined` while autolock is off. */
  unlockKey(): Promise<string | undefined>
  joinTokens(): Promise<{ readonly worker: string; readonly manager: string }>
  /**
   * Makes new ones of those asked for, and brings the lock of this node's disk in step: call it also when autolock was
   * switched. Resolves once all that is durable.
   */
  rotateTokens(which: TokenRotation): Promise<void>
  /** Makes a join token with bounds. Rejects with `invalidInput`, `tooLarge`. */
  createToken(wish: TokenWish): Promise<TokenSummary & { readonly token: string }>
  listTokens(): Promise<readonly TokenSummary[]>
  /** Rejects with `notFound`. */
  removeToken(id: string): Promise<void>
  /** Begins a rotation of the root certificate: to the given one, or to a new one. */
  rotateRoot(root: { readonly certificatePem?: string; readonly keyPem?: string }): Promise<void>
}

/** What a person asks of a join token of its own. */
export interface TokenWish {
  readonly role: NodeRole
  /** Labels of the nodes that join with it. */
  readonly labels: Readonly<Record<string, string>>
  /** How long it is taken from now, in ms. Absent: for good. */
  readonly lifeMs?: number
  /** How many nodes may join with it. Absent: any number. */
  readonly usesMax?: number
}

/** What people see of one. The token itself is shown once, when it is made. */
export type TokenSummary = Omit<IssuedToken, 'sealed'>

export interface TokenRotation {
  readonly worker: boolean
  readonly manager: boolean
  readonly unlockKey: boolean
}

export interface NodeState {
  readonly localNodeState: 'inactive' | 'pending' | 'active' | 'error' | 'locked'
  /** Empty while inactive. */
  readonly nodeId: string
  /** Address of this node as advertised, without port; empty while inactive. */
  readonly nodeAddress: string
  /** Whether this node can read and write the cluster's state now. */
  readonly controlAvailable: boolean
  /** Empty: nothing is wrong. */
  readonly error: string
  readonly remoteManagers: readonly { readonly nodeId: string; readonly address: string }[]
}

/** What a person asked of a new cluster. Absent parts take the node's defaults. */
export interface InitRequest {
  /** `0.0.0.0:2377`: address and port, or an interface's name. */
  readonly listenAddress: string
  /** Empty: the node chooses, or rejects with `invalidInput` when it has several. */
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  readonly dataPathPort: number
  readonly forceNewCluster: boolean
  readonly availability: Availability
  /** CIDR. */
  readonly addressPools: readonly string[]
  readonly subnetSize: number
  /** What the cluster object begins with. */
  readonly cluster: { readonly source: Source; readonly spec: ClusterSpec; readonly labels: Labels }
}

export interface JoinRequest {
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  readonly remoteAddresses: readonly string[]
  readonly joinToken: string
  readonly availability: Availability
}

type Labels = Readonly<Record<string, string>>
