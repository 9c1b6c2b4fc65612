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
import type { NeighbourAssignment } from '../wire/index.ts'
import { dataAddressOf, nodeAddressOf } from './assignments.ts'

/** An address of a network, and who has it: a task, or the network itself for its plain containers and nodes. */
interface Held {
  readonly holder: TaskId | NetworkId
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

  /** Empty: what is in the view is taken in by `load`. */
  constructor(view: View) {
    this.#view = view
  }

  /** Takes in what is in the view, in parts: changes may be learned in between, and come to the same. */
  *load(): Iterable<readonly NeighbourChange[]> {
    for (const kind of ['task', 'network'] as const)
      for (const after of this.#view.list(kind)) yield this.learn({ kind, id: after.id, after })
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
      const { attachments = [], nodeAddresses } = network.status
      for (const place of attachments)
        if (place.nodeId === id) this.#take(network.id, place, id, network.id, false, changes)
      const own = nodeAddressOf(nodeAddresses, id)
      if (own) this.#take(network.id, own, id, network.id, true, changes)
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
      ...(isOfNode ? { isOfNode } : {}),
    }
    const held = this.#heldByNetwork.get(networkId)
    if (held) held.set(id, { holder, neighbour })
    else this.#heldByNetwork.set(networkId, new Map([[id, { holder, neighbour }]]))
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
