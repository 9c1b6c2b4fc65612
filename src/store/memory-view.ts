import {
  type AnyObject,
  defaultNamespace,
  type Kind,
  kinds,
  type NetworkId,
  type NodeId,
  type ObjectByKind,
  type WorkloadId,
} from '../model/index.ts'
import type { View } from './store.ts'

/** One stored object and its place in the order of creation. */
interface Entry<T> {
  readonly place: number
  object: T
}

/** What belongs to one key of an index. `list` is kept until something in it changes. */
interface Bucket<T> {
  readonly entries: Set<Entry<T>>
  /** Whether `entries` are in order of creation, and the greatest place ever among them. */
  inOrder: boolean
  placeMax: number
  list: readonly T[] | undefined
}

const nothing: readonly never[] = Object.freeze([])

/** Objects by a key that may change, kept up with each change of an object. Lists are in order of creation. */
class Index<T> {
  readonly #keysOf: (object: T) => readonly string[]
  readonly #bucketByKey = new Map<string, Bucket<T>>()

  constructor(keysOf: (object: T) => readonly string[]) {
    this.#keysOf = keysOf
  }

  list(key: string): readonly T[] {
    const bucket = this.#bucketByKey.get(key)
    if (bucket === undefined) return nothing
    if (bucket.list === undefined) {
      let entries = [...bucket.entries]
      if (!bucket.inOrder) {
        entries = entries.sort((a, b) => a.place - b.place)
        bucket.entries.clear()
        for (const entry of entries) bucket.entries.add(entry)
        bucket.inOrder = true
      }
      bucket.list = Object.freeze(entries.map((entry) => entry.object))
    }
    return bucket.list
  }

  /** Call after `entry.object` has become `after`. */
  change(entry: Entry<T>, before: T | undefined, after: T | undefined): void {
    const oldKeys = before === undefined ? nothing : this.#keysOf(before)
    const newKeys = after === undefined ? nothing : this.#keysOf(after)
    for (const key of oldKeys) if (!newKeys.includes(key)) this.#remove(key, entry)
    for (const key of newKeys) this.#put(key, entry)
  }

  #put(key: string, entry: Entry<T>): void {
    const bucket = this.#bucketByKey.get(key)
    if (bucket === undefined) {
      this.#bucketByKey.set(key, {
        entries: new Set([entry]),
        inOrder: true,
        placeMax: entry.place,
        list: undefined,
      })
      return
    }
    bucket.list = undefined
    if (bucket.entries.has(entry)) return
    // Objects mostly come in order of creation; one that changed its key may not.
    if (entry.place < bucket.placeMax) bucket.inOrder = false
    else bucket.placeMax = entry.place
    bucket.entries.add(entry)
  }

  #remove(key: string, entry: Entry<T>): void {
    const bucket = this.#bucketByKey.get(key)
    if (bucket === undefined) return
    bucket.list = undefined
    bucket.entries.delete(entry)
    if (bucket.entries.size === 0) this.#bucketByKey.delete(key)
  }
}

/** All objects of one kind. */
class Table<T extends AnyObject> implements Iterable<T> {
  readonly entryById = new Map<string, Entry<T>>()
  readonly byName = new Index<T>((object) => [nameKey(object.namespace, object.name)])
  readonly indexes: readonly Index<T>[]
  #placeNext = 0

  constructor(indexes: readonly Index<T>[]) {
    this.indexes = [this.byName, ...indexes]
  }

  *[Symbol.iterator](): Generator<T> {
    for (const entry of this.entryById.values()) yield entry.object
  }

  put(object: T): void {
    const known = this.entryById.get(object.id)
    const before = known?.object
    const entry = known ?? { place: this.#placeNext++, object }
    entry.object = object
    if (known === undefined) this.entryById.set(object.id, entry)
    for (const index of this.indexes) index.change(entry, before, object)
  }

  delete(id: string): void {
    const entry = this.entryById.get(id)
    if (entry === undefined) return
    this.entryById.delete(id)
    for (const index of this.indexes) index.change(entry, entry.object, undefined)
  }
}

function nameKey(namespace: string, name: string): string {
  return `${namespace}\0${name.toLowerCase()}`
}

function distinct(keys: readonly string[]): readonly string[] {
  return keys.length < 2 ? keys : [...new Set(keys)]
}

/** The view and the only ways to change it, which the store uses once a change is durable. */
export class MemoryView implements View {
  #revision = 0
  readonly #tasksByWorkload = new Index<ObjectByKind['task']>((task) => [task.workloadId])
  readonly #tasksByNode = new Index<ObjectByKind['task']>((task) =>
    task.nodeId === undefined ? nothing : [task.nodeId],
  )
  readonly #tasksByNetwork = new Index<ObjectByKind['task']>((task) =>
    distinct(task.addresses.map((address) => address.networkId)),
  )
  readonly #revisionsByWorkload = new Index<ObjectByKind['revision']>((revision) => [
    revision.workloadId,
  ])
  readonly #endpointsByWorkload = new Index<ObjectByKind['endpoint']>((endpoint) =>
    distinct(endpoint.spec.backends.map((backend) => backend.workloadId)),
  )
  readonly #endpointsByNetwork = new Index<ObjectByKind['endpoint']>((endpoint) =>
    distinct([...endpoint.spec.networks, ...endpoint.status.vips].map((place) => place.networkId)),
  )
  readonly #tables: { readonly [K in Kind]: Table<ObjectByKind[K]> } = {
    cluster: new Table([]),
    node: new Table([]),
    workload: new Table([]),
    revision: new Table([this.#revisionsByWorkload]),
    task: new Table([this.#tasksByWorkload, this.#tasksByNode, this.#tasksByNetwork]),
    endpoint: new Table([this.#endpointsByWorkload, this.#endpointsByNetwork]),
    network: new Table([]),
    secret: new Table([]),
    config: new Table([]),
  }

  get revision(): number {
    return this.#revision
  }

  get<K extends Kind>(kind: K, id: string): ObjectByKind[K] | undefined {
    return this.#table(kind).entryById.get(id)?.object
  }

  list<K extends Kind>(kind: K): Iterable<ObjectByKind[K]> {
    return this.#table(kind)
  }

  count(kind: Kind): number {
    return this.#tables[kind].entryById.size
  }

  byName<K extends Kind>(
    kind: K,
    name: string,
    namespace: string = defaultNamespace,
  ): readonly ObjectByKind[K][] {
    return this.#table(kind).byName.list(nameKey(namespace, name))
  }

  tasksOfWorkload(id: WorkloadId): readonly ObjectByKind['task'][] {
    return this.#tasksByWorkload.list(id)
  }

  tasksOfNode(id: NodeId): readonly ObjectByKind['task'][] {
    return this.#tasksByNode.list(id)
  }

  tasksOnNetwork(id: NetworkId): readonly ObjectByKind['task'][] {
    return this.#tasksByNetwork.list(id)
  }

  revisionsOfWorkload(id: WorkloadId): readonly ObjectByKind['revision'][] {
    return this.#revisionsByWorkload.list(id)
  }

  endpointsOfWorkload(id: WorkloadId): readonly ObjectByKind['endpoint'][] {
    return this.#endpointsByWorkload.list(id)
  }

  endpointsOnNetwork(id: NetworkId): readonly ObjectByKind['endpoint'][] {
    return this.#endpointsByNetwork.list(id)
  }

  put(object: AnyObject): void {
    switch (object.kind) {
      case 'cluster':
        this.#tables.cluster.put(object)
        break
      case 'node':
        this.#tables.node.put(object)
        break
      case 'workload':
        this.#tables.workload.put(object)
        break
      case 'revision':
        this.#tables.revision.put(object)
        break
      case 'task':
        this.#tables.task.put(object)
        break
      case 'endpoint':
        this.#tables.endpoint.put(object)
        break
      case 'network':
        this.#tables.network.put(object)
        break
      case 'secret':
        this.#tables.secret.put(object)
        break
      case 'config':
        this.#tables.config.put(object)
        break
    }
  }

  delete(kind: Kind, id: string): void {
    this.#tables[kind].delete(id)
  }

  setRevision(revision: number): void {
    this.#revision = revision
  }

  #table<K extends Kind>(kind: K): Table<ObjectByKind[K]> {
    return this.#tables[kind]
  }
}

/** Whether text names a kind of object this version knows. */
export function isKind(text: unknown): text is Kind {
  return kinds.some((kind) => kind === text)
}
