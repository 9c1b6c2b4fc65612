import type { NetworkId, NodeId, TaskId } from '../model/index.ts'
import type {
  EndpointAssignment,
  NeighbourAssignment,
  NetworkAssignment,
  NodeExamination,
} from '../wire/index.ts'

/**
 * The node's packets: networks, VIPs, published ports, names. What it should be is handed over whole, again and
 * again; the data plane finds the difference and makes the kernel match.
 */
export interface DataPlane {
  /**
   * Makes the local engine's network for a cluster network be there. Idempotent. Resolves with its engine name.
   * Rejects with UserError `conflict` (name or subnet taken by a foreign network), or `unavailable` while an earlier cluster
   * network of that name or subnet is still in use: ask again.
   */
  ensureNetwork(network: NetworkAssignment): Promise<string>

  /** Makes kernel and resolver match. Coalesced: a call during another is answered by the next round. */
  apply(desired: DesiredNetwork): Promise<void>

  /** Address of the node's resolver for a task on these networks; the engine forwards what it does not know. */
  nameserversFor(networks: readonly NetworkAssignment[]): readonly string[]

  /** Compares desired and actual, repairs, and says in words what had drifted. Nothing before the first `apply`: what an earlier one left may be right. */
  audit(): Promise<readonly string[]>

  /** Audits, and looks at all that the node's networks depend on. Also says what was found and repaired just now. */
  examine(): Promise<Pick<NodeExamination, 'findings' | 'dataPath'>>

  /** Count of open connections to ports that the task listens on, or 0 when it has no process. */
  openConnections(task: { readonly pid: number }): Promise<number>

  /** Those of these tcp ports that the task does not listen on. None when it has no process. */
  silentPorts<Port extends { readonly port: number }>(
    task: { readonly pid: number },
    ports: readonly Port[],
  ): Promise<readonly Port[]>

  /** Removes all that this data plane made. */
  clear(): Promise<void>
  close(): Promise<void>
}

export interface DesiredNetwork {
  readonly networks: readonly NetworkAssignment[]
  readonly endpoints: readonly EndpointAssignment[]
  /** Running containers on this node that are attached to cluster networks, with where they are. */
  readonly tasks: readonly LocalTask[]
  /** Where addresses of these networks are, when they are on other nodes. By id. Absent: there are none. */
  readonly neighbours?: ReadonlyMap<string, NeighbourAssignment>
  /** This node. Absent: it is alone, and every backend is its own. */
  readonly node?: {
    readonly id: NodeId
    /** Where it takes the packets of cluster networks. */
    readonly dataPath?: { readonly address: string; readonly port: number }
  }
}

export interface LocalTask {
  readonly taskId: TaskId
  /** Resolves to its address on each network. */
  readonly name: string
  readonly hostname: string
  readonly pid: number
  readonly addresses: readonly { readonly networkId: NetworkId; readonly address: string }[]
  /** Where names outside the cluster are asked for; empty: the host's resolvers. */
  readonly nameservers: readonly string[]
}
