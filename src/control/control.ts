import { UserError } from '../base/index.ts'
import type {
  Cluster,
  Config,
  Network,
  NodeId,
  Revision,
  Secret,
  Workload,
  WorkloadId,
} from '../model/index.ts'
import { decideRebalance, type RebalanceDecision } from '../orchestrator/index.ts'
import type { Store, View } from '../store/store.ts'
import { type ClusterDeclaration, updateCluster } from './cluster.ts'
import { createNetwork, type NetworkDeclaration, pruneNetworks, removeNetwork } from './networks.ts'
import { type NodeDeclaration, removeNode, updateNode } from './nodes.ts'
import {
  type ConfigDeclaration,
  createConfig,
  createSecret,
  isStored,
  type Relabelling,
  relabel,
  removeSecretOrConfig,
  type SecretDeclaration,
} from './secrets.ts'
import {
  createWorkload,
  type RollbackRequest,
  removeWorkload,
  rollbackWorkload,
  updateWorkload,
  type WorkloadDeclaration,
  type WorkloadUpdate,
} from './workloads.ts'
import { Changes, type ControlWorld } from './world.ts'

/**
 * What people can do to a cluster, in any dialect. Every call checks references and conflicts on the newest view and
 * resolves once the change is durable and in the view. Rejects with UserError.
 */
export interface Control {
  readonly store: Store
  createWorkload(declaration: WorkloadDeclaration, authHeader?: string): Promise<Workload>
  /** `declare` makes the declaration on the view it is committed on; it may be called again. */
  updateWorkload(
    update: WorkloadUpdate,
    declare: (view: View, current: Workload) => WorkloadDeclaration,
  ): Promise<void>
  /** Resolves with the revision it goes back to. */
  rollbackWorkload(request: RollbackRequest): Promise<Revision>
  removeWorkload(id: WorkloadId): Promise<void>
  createSecret(declaration: SecretDeclaration): Promise<Secret>
  createConfig(declaration: ConfigDeclaration): Promise<Config>
  /** Only labels of a secret or config may change. */
  relabel(
    kind: 'secret' | 'config',
    id: string,
    version: number,
    change: Relabelling,
  ): Promise<void>
  /** Whether these bytes are what the secret holds. They are never told. */
  isSecretData(id: string, data: Uint8Array): boolean
  removeSecret(id: string): Promise<void>
  removeConfig(id: string): Promise<void>
  createNetwork(declaration: NetworkDeclaration): Promise<Network>
  removeNetwork(id: string): Promise<void>
  /** Removes unused networks among those wanted. Resolves with their names. */
  pruneNetworks(isWanted: (network: Network, nowMs: number) => boolean): Promise<readonly string[]>
  updateNode(id: NodeId, version: number, declaration: NodeDeclaration): Promise<void>
  removeNode(id: NodeId, force: boolean): Promise<void>
  /** Begins the moves that even out the cluster, also where nobody switched it on. Call it again until there is nothing left. */
  rebalance(): Promise<Pick<RebalanceDecision, 'moves' | 'underWay'>>
  /** Resolves with the cluster as it was before. */
  updateCluster(version: number, declaration: ClusterDeclaration): Promise<Cluster>
}

/** The operations on one store. Make one for each store, and use no other way to declare things in it. */
export function openControl(world: ControlWorld): Control {
  const changes = new Changes(world.store, world.clock)
  return {
    store: world.store,
    createWorkload: (declaration, auth) => createWorkload(world, changes, declaration, auth),
    updateWorkload: (update, declare) => updateWorkload(world, changes, update, declare),
    rollbackWorkload: (request) => rollbackWorkload(world, changes, request),
    removeWorkload: (id) => removeWorkload(changes, id),
    createSecret: (declaration) => createSecret(world, changes, declaration),
    createConfig: (declaration) => createConfig(world, changes, declaration),
    relabel: (kind, id, version, change) => relabel(world, changes, kind, id, version, change),
    isSecretData(id, data) {
      const secret = world.store.view.get('secret', id)
      if (!secret) throw new UserError('notFound', `secret ${id} not found`)
      return isStored(world, secret, data)
    },
    removeSecret: (id) => removeSecretOrConfig(changes, 'secret', id),
    removeConfig: (id) => removeSecretOrConfig(changes, 'config', id),
    createNetwork: (declaration) => createNetwork(world, changes, declaration),
    removeNetwork: (id) => removeNetwork(changes, id),
    pruneNetworks: (isWanted) => pruneNetworks(world.clock, changes, isWanted),
    updateNode: (id, version, declaration) =>
      updateNode(world.clock, changes, id, version, declaration),
    removeNode: (id, force) => removeNode(world, changes, id, force),
    async rebalance() {
      const scope = { everything: true, atOnce: true }
      const { result } = await changes.run((view) => {
        const decision = decideRebalance(view, world.clock.nowMs(), scope)
        return { changes: decision.changes, result: decision }
      })
      return result
    },
    updateCluster: (version, declaration) => updateCluster(changes, version, declaration),
  }
}
