import {
  type ClusterNode,
  holdsResources,
  type Network,
  type NetworkId,
  type NodeId,
  type Task,
  type TaskId,
  tunnelKeyOf,
} from '../model/index.ts'
import type { AppliedChange, View } from '../store/store.ts'
import type { Delta, NeighbourAssignment } from '../wire/index.ts'
import { dataAddressOf } from './assignments.ts'

/** An address of a network, and who has it: a task, or the network itself for its plain containers and nodes. */
interface Held {
  readonly holder: TaskId | NetworkId
  /** An address that a node itself sends from: only those with a task there answer to it. */
  readonly isOfNode: boolean
  readonly neighbour: NeighbourAssignment
}

interface Place {
  readonly address: string
  readonly mac: string
  readonly names?: readonly string[]
}

/** An address that was given, taken or moved. */
export interface NeighbourChange {
  readonly networkId: NetworkId
  readonly id: string
}

const nobody: ReadonlyMap<string, Held> = new Map()

/**
 * Where every address of every network is, once for all nodes: derived from the view and kept up to date by changes. On
 * a network of thousands of nodes each is told of each other's tasks, so what is kept must not be kept for each.
 */
export class NeighbourTable {
  readonly #view: View
  readonly #heldByNetwork = new Map<NetworkId, Map<string, Held>>()

  private constructor(view: View) {
    this.#view = view
  }

  static from(view: View): NeighbourTable {
    const table = new NeighbourTable(view)
    for (const kind of ['task', 'network'] as const) {
      for (const after of view.list(kind)) table.learn({ kind, id: after.id, after })
    }
    return table
  }

  /** All addresses of a network, by the neighbour's id. */
  on(networkId: NetworkId): ReadonlyMap<string, Held> {
    return this.#heldByNetwork.get(networkId) ?? nobody
  }

  /** Takes a change in, in order, once it is in the view. Answers what is elsewhere now. */
  learn({ before, after }: AppliedChange): readonly NeighbourChange[] {
    const changes: NeighbourChange[] = []
    const object = after ?? before
    if (object?.kind === 'task') {
      const [old, now] = [placed(before), placed(after)]
      if (old?.nodeId === now?.nodeId && old?.addresses === now?.addresses) return changes
      for (const { networkId, address } of old?.addresses ?? [])
        this.#give(networkId, address, object.id, changes)
      if (now) this.#holdTask(now, changes)
    } else if (object?.kind === 'network') {
      this.#learnNetwork(
        before?.kind === 'network' ? before : undefined,
        after?.kind === 'network' ? after : undefined,
        changes,
      )
    } else if (after?.kind === 'node') {
      const isSame =
        before?.kind === 'node' &&
        dataAddressOf(before) === dataAddressOf(after) &&
        isLost(before) === isLost(after) &&
        tunnelKeyOf(before) === tunnelKeyOf(after)
      if (!isSame) this.#learnNode(after, changes)
    }
    return changes
  }

  #learnNetwork(
    before: Network | undefined,
    after: Network | undefined,
    changes: NeighbourChange[],
  ): void {
    const [old, now] = [before?.status, after?.status]
    if (old?.attachments === now?.attachments && old?.nodeAddresses === now?.nodeAddresses) return
    const kept = new Set(placesOf(after).map(({ place }) => place))
    if (before) {
      for (const { place } of placesOf(before))
        if (!kept.has(place)) this.#give(before.id, place.address, before.id, changes)
    }
    const known = new Set(placesOf(before).map(({ place }) => place))
    if (!after) return
    for (const { place, isOfNode } of placesOf(after))
      if (!known.has(place)) this.#take(after.id, place, place.nodeId, after.id, isOfNode, changes)
  }

  /** Others reach what is on the node by another address from now on. */
  #learnNode({ id }: ClusterNode, changes: NeighbourChange[]): void {
    for (const task of this.#view.tasksOfNode(id)) {
      const now = placed(task)
      if (now) this.#holdTask(now, changes)
    }
    for (const network of this.#view.list('network')) {
      for (const { place, isOfNode } of placesOf(network))
        if (place.nodeId === id) this.#take(network.id, place, id, network.id, isOfNode, changes)
    }
  }

  #holdTask({ id, nodeId, addresses }: PlacedTask, changes: NeighbourChange[]): void {
    for (const place of addresses) this.#take(place.networkId, place, nodeId, id, false, changes)
  }

  #take(
    networkId: NetworkId,
    { address, mac, names }: Place,
    nodeId: NodeId,
    holder: Held['holder'],
    isOfNode: boolean,
    changes: NeighbourChange[],
  ): void {
    const node = this.#view.get('node', nodeId)
    const nodeAddress = node === undefined ? '' : dataAddressOf(node)
    // Nobody knows where that node is; once it says so, its tasks are looked at again.
    if (nodeAddress === '') {
      this.#give(networkId, address, holder, changes)
      return
    }
    const id = `${networkId}/${address}`
    const isEncrypted = this.#view.get('network', networkId)?.spec.encrypted ?? false
    const publicKey = isEncrypted && node ? tunnelKeyOf(node) : undefined
    const neighbour: NeighbourAssignment = {
      ...{ id, networkId, address, mac, nodeId, nodeAddress },
      ...(names && names.length > 0 ? { names } : {}),
      ...(publicKey === undefined ? {} : { publicKey }),
      ...(node && isLost(node) ? { isLost: true as const } : {}),
    }
    const held = this.#heldByNetwork.get(networkId)
    if (held) held.set(id, { holder, isOfNode, neighbour })
    else this.#heldByNetwork.set(networkId, new Map([[id, { holder, isOfNode, neighbour }]]))
    changes.push({ networkId, id })
  }

  /** Gives an address back, unless somebody else has it by now. */
  #give(
    networkId: NetworkId,
    address: string,
    holder: Held['holder'],
    changes: NeighbourChange[],
  ): void {
    const id = `${networkId}/${address}`
    const held = this.#heldByNetwork.get(networkId)
    if (held?.get(id)?.holder !== holder) return
    held.delete(id)
    if (held.size === 0) this.#heldByNetwork.delete(networkId)
    changes.push({ networkId, id })
  }
}

function isLost({ status }: ClusterNode): boolean {
  return status.state === 'down' && status.isSilent === true
}

interface PlacedTask extends Pick<Task, 'id' | 'addresses'> {
  readonly nodeId: NodeId
}

/** The task, if it is on a node and has not ended. */
function placed(object: AppliedChange['after']): PlacedTask | undefined {
  if (object?.kind !== 'task' || object.nodeId === undefined || !holdsResources(object))
    return undefined
  const { id, nodeId, addresses } = object
  return { id, nodeId, addresses }
}

function placesOf(
  network: Network | undefined,
): readonly { readonly place: Place & { readonly nodeId: NodeId }; readonly isOfNode: boolean }[] {
  return [
    ...(network?.status.attachments ?? []).map((place) => ({ place, isOfNode: false })),
    ...(network?.status.nodeAddresses ?? []).map((place) => ({ place, isOfNode: true })),
  ]
}

/**
 * What one node is still to be told of where the addresses of its networks are. What it was told is what the table
 * said; to take away what it never had does no harm.
 */
export class Neighbourhood {
  readonly #nodeId: NodeId
  readonly #table: NeighbourTable
  /** Networks on which it was told the nodes' own addresses. */
  readonly #withNodes = new Set<NetworkId>()
  #dirty = new Map<string, NetworkId>()

  constructor(nodeId: NodeId, table: NeighbourTable) {
    this.#nodeId = nodeId
    this.#table = table
  }

  /** Neighbours to look at in the next difference, without those of networks that are new. */
  get dirtyCount(): number {
    return this.#dirty.size
  }

  touch({ id, networkId }: NeighbourChange): void {
    this.#dirty.set(id, networkId)
  }

  /** As after a message that says: forget everything. */
  clear(): void {
    this.#withNodes.clear()
  }

  /**
   * What to tell the node, which has these networks now: `added` ones it did not have before, `removed` ones it has no
   * more, with which it forgets their neighbours by itself. Only with a task of its own on a network do other nodes' own addresses there concern it: `hasTaskOn`.
   */
  difference(
    networks: ReadonlySet<NetworkId>,
    added: readonly NetworkId[],
    removed: readonly NetworkId[],
    hasTaskOn: (id: NetworkId) => boolean,
  ): Delta<string, NeighbourAssignment> {
    const put = new Map<string, NeighbourAssignment>()
    const remove = new Set<string>()
    const settle = (id: string, held: Held | undefined, networkId: NetworkId) => {
      const isWanted =
        held !== undefined &&
        networks.has(networkId) &&
        held.neighbour.nodeId !== this.#nodeId &&
        (!held.isOfNode || this.#withNodes.has(networkId))
      if (isWanted) put.set(id, held.neighbour)
      else if (held?.neighbour.nodeId !== this.#nodeId || !held.isOfNode) remove.add(id)
    }
    const flipped = new Set<NetworkId>()
    for (const id of networks) {
      if (hasTaskOn(id) === this.#withNodes.has(id)) continue
      if (!this.#withNodes.delete(id)) this.#withNodes.add(id)
      flipped.add(id)
    }
    for (const id of removed) this.#withNodes.delete(id)
    for (const id of added) {
      flipped.delete(id)
      for (const [neighbourId, held] of this.#table.on(id)) {
        settle(neighbourId, held, id)
        // It had nothing of it before.
        remove.delete(neighbourId)
      }
    }
    for (const id of flipped) {
      for (const [neighbourId, held] of this.#table.on(id))
        if (held.isOfNode) settle(neighbourId, held, id)
    }
    for (const [id, networkId] of this.#dirty) {
      if (networks.has(networkId)) settle(id, this.#table.on(networkId).get(id), networkId)
    }
    this.#dirty = new Map()
    return { put: [...put.values()], remove: [...remove] }
  }
}
