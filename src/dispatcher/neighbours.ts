import {
  holdsResources,
  type NetworkId,
  type NodeId,
  type Task,
  type TaskId,
} from '../model/index.ts'
import type { View } from '../store/store.ts'
import type { Delta, NeighbourAssignment } from '../wire/index.ts'
import { dataAddressOf } from './assignments.ts'

/** An object with an address: a task's, a plain container's, a node's. */
interface Place {
  readonly address: string
  readonly mac: string
}

/** Makes each neighbour once for all nodes that are told of it. */
export class NeighbourMaker {
  readonly #made = new WeakMap<Place, NeighbourAssignment>()

  /** Undefined: nobody knows where that node is. */
  make(
    view: View,
    networkId: NetworkId,
    nodeId: NodeId,
    place: Place,
  ): NeighbourAssignment | undefined {
    const node = view.get('node', nodeId)
    const nodeAddress = node === undefined ? '' : dataAddressOf(node)
    if (nodeAddress === '') return undefined
    const known = this.#made.get(place)
    if (known?.nodeAddress === nodeAddress && known.nodeId === nodeId) return known
    const { address, mac } = place
    const id = `${networkId}/${address}`
    const made = { id, networkId, address, mac, nodeId, nodeAddress }
    this.#made.set(place, made)
    return made
  }
}

/** The networks whose neighbours a task's change may alter; none when it is where it was. */
export function networksMoved(
  before: Task | undefined,
  after: Task | undefined,
): ReadonlySet<NetworkId> {
  const networks = new Set<NetworkId>()
  if (before && after && isSamePlace(before, after)) return networks
  for (const task of [before, after]) {
    for (const { networkId } of task?.addresses ?? []) networks.add(networkId)
  }
  return networks
}

function isSamePlace(before: Task, after: Task): boolean {
  return (
    before.nodeId === after.nodeId &&
    before.addresses === after.addresses &&
    holdsResources(before) === holdsResources(after)
  )
}

/**
 * What one node was told of where the addresses of its networks are, and what of it may differ. A difference costs what
 * changed, and for a network that is new to the node, what is on it.
 */
export class Neighbourhood {
  readonly #nodeId: NodeId
  readonly #maker: NeighbourMaker
  readonly #sent = new Map<string, NeighbourAssignment>()
  /** Ids sent, by who has the addresses: a task, or a network for its plain containers and nodes. */
  readonly #idsByHolder = new Map<TaskId | NetworkId, readonly string[]>()
  #dirtyTasks = new Set<TaskId>()
  #dirtyNetworks = new Set<NetworkId>()

  constructor(nodeId: NodeId, maker: NeighbourMaker) {
    this.#nodeId = nodeId
    this.#maker = maker
  }

  touchTask(id: TaskId): void {
    this.#dirtyTasks.add(id)
  }

  touchNetwork(id: NetworkId): void {
    this.#dirtyNetworks.add(id)
  }

  /** As after a message that says: forget everything. */
  clear(): void {
    this.#sent.clear()
    this.#idsByHolder.clear()
  }

  /** What to tell the node, which has these networks now; `added` ones it did not have before. */
  difference(
    view: View,
    networks: ReadonlySet<NetworkId>,
    added: readonly NetworkId[],
    removed: readonly NetworkId[],
  ): Delta<string, NeighbourAssignment> {
    for (const networkId of added) {
      this.#dirtyNetworks.add(networkId)
      for (const { id } of view.tasksOnNetwork(networkId)) this.#dirtyTasks.add(id)
    }
    const put = new Map<string, NeighbourAssignment>()
    const remove = new Set<string>()
    if (removed.length > 0) {
      const gone = new Set(removed)
      for (const { id, networkId } of this.#sent.values()) if (gone.has(networkId)) remove.add(id)
    }
    const settle = (holder: TaskId | NetworkId, wanted: readonly NeighbourAssignment[]) => {
      for (const id of this.#idsByHolder.get(holder) ?? []) remove.add(id)
      for (const neighbour of wanted) put.set(neighbour.id, neighbour)
      const ids = wanted.map(({ id }) => id)
      if (ids.length > 0) this.#idsByHolder.set(holder, ids)
      else this.#idsByHolder.delete(holder)
    }
    for (const id of this.#dirtyTasks) settle(id, this.#ofTask(view, id, networks))
    for (const id of this.#dirtyNetworks) settle(id, this.#ofNetwork(view, id, networks))
    this.#dirtyTasks = new Set()
    this.#dirtyNetworks = new Set()
    for (const id of put.keys()) remove.delete(id)
    const changed = [...put.values()].filter((neighbour) => {
      if (this.#sent.get(neighbour.id) === neighbour) return false
      this.#sent.set(neighbour.id, neighbour)
      return true
    })
    return { put: changed, remove: [...remove].filter((id) => this.#sent.delete(id)) }
  }

  #ofTask(
    view: View,
    id: TaskId,
    networks: ReadonlySet<NetworkId>,
  ): readonly NeighbourAssignment[] {
    const task = view.get('task', id)
    const nodeId = task?.nodeId
    if (!task || nodeId === undefined || nodeId === this.#nodeId || !holdsResources(task)) return []
    return task.addresses.flatMap((place) =>
      networks.has(place.networkId)
        ? (this.#maker.make(view, place.networkId, nodeId, place) ?? [])
        : [],
    )
  }

  #ofNetwork(
    view: View,
    id: NetworkId,
    networks: ReadonlySet<NetworkId>,
  ): readonly NeighbourAssignment[] {
    const network = networks.has(id) ? view.get('network', id) : undefined
    const places = [
      ...(network?.status.attachments ?? []),
      // Only a node's own tasks answer to other nodes.
      ...(this.#hasTaskOn(view, id) ? (network?.status.nodeAddresses ?? []) : []),
    ]
    return places.flatMap((place) =>
      place.nodeId === this.#nodeId ? [] : (this.#maker.make(view, id, place.nodeId, place) ?? []),
    )
  }

  #hasTaskOn(view: View, id: NetworkId): boolean {
    return view
      .tasksOfNode(this.#nodeId)
      .some(
        (task) => holdsResources(task) && task.addresses.some(({ networkId }) => networkId === id),
      )
  }
}
