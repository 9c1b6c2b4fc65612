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

/** One stored object and its place in the order of creation; without an object once that is deleted. */
interface Entry<T> {
  readonly place: number
  object: T | undefined
}

/** Keys of one object in one index. One key, the usual case, is no array: an index is asked for every change. */
type Keys = string | readonly string[] | undefined

/** What belongs to one key of an index, once that was more than one or was asked for. */
class Bucket<T> {
  /** Those that belong here, in order of creation, unless `isTidy` is false. */
  entries: Entry<T>[]
  /** How many belong here. */
  count = 1
  /** False: some are out of order, twice, or left in because to take them out at once would cost a search. */
  isTidy = true
  /** Kept until something in it changes. */
  list: readonly T[] | undefined

  constructor(first: Entry<T>) {
    this.entries = [first]
  }
}

const nothing: readonly never[] = Object.freeze([])
/** An untidy bucket is tidied at the latest when it has grown to twice its content and so many entries. */
const untidyMax = 16

/**
 * Objects by a key that may change, kept up with each change of an object. Lists are in order of creation. A change
 * costs the same however much there is; the next list after it costs as much as it is long.
 */
class Index<T> {
  readonly #keysOf: (object: T) => Keys
  /** The only entry itself, where there never was another and no list was asked for. */
  readonly #bucketByKey = new Map<string, Entry<T> | Bucket<T>>()

  constructor(keysOf: (object: T) => Keys) {
    this.#keysOf = keysOf
  }

  list(key: string): readonly T[] {
    const known = this.#bucketByKey.get(key)
    if (known === undefined) return nothing
    const bucket = this.#bucketOf(key, known)
    if (bucket.list === undefined) {
      if (!bucket.isTidy) this.#tidy(key, bucket)
      const list: T[] = []
      for (const { object } of bucket.entries) if (object !== undefined) list.push(object)
      bucket.list = Object.freeze(list)
    }
    return bucket.list
  }

  /** Call after `entry.object` has become `after`. */
  change(entry: Entry<T>, before: T | undefined, after: T | undefined): void {
    const oldKeys = before === undefined ? undefined : this.#keysOf(before)
    const newKeys = after === undefined ? undefined : this.#keysOf(after)
    if (typeof oldKeys !== 'object' && typeof newKeys !== 'object') {
      if (oldKeys === newKeys) {
        if (oldKeys !== undefined) this.#renew(oldKeys)
        return
      }
      if (oldKeys !== undefined) this.#remove(oldKeys)
      if (newKeys !== undefined) this.#add(newKeys, entry)
      return
    }
    for (const key of listed(oldKeys)) {
      if (hasKey(newKeys, key)) this.#renew(key)
      else this.#remove(key)
    }
    for (const key of listed(newKeys)) if (!hasKey(oldKeys, key)) this.#add(key, entry)
  }

  #add(key: string, entry: Entry<T>): void {
    const known = this.#bucketByKey.get(key)
    if (known === undefined) {
      this.#bucketByKey.set(key, entry)
      return
    }
    const bucket = this.#bucketOf(key, known)
    const last = bucket.entries.at(-1)
    // Objects mostly come in order of creation; one that changed its key may not.
    if (last !== undefined && last.place >= entry.place) bucket.isTidy = false
    bucket.entries.push(entry)
    bucket.count += 1
    bucket.list = undefined
  }

  #bucketOf(key: string, known: Entry<T> | Bucket<T>): Bucket<T> {
    if (known instanceof Bucket) return known
    const bucket = new Bucket(known)
    this.#bucketByKey.set(key, bucket)
    return bucket
  }

  #renew(key: string): void {
    const bucket = this.#bucketByKey.get(key)
    if (bucket instanceof Bucket) bucket.list = undefined
  }

  #remove(key: string): void {
    const bucket = this.#bucketByKey.get(key)
    if (!(bucket instanceof Bucket)) {
      this.#bucketByKey.delete(key)
      return
    }
    bucket.list = undefined
    bucket.count -= 1
    bucket.isTidy = false
    if (bucket.count === 0) this.#bucketByKey.delete(key)
    else if (bucket.entries.length > 2 * bucket.count + untidyMax) this.#tidy(key, bucket)
  }

  #tidy(key: string, bucket: Bucket<T>): void {
    const belonging = bucket.entries
      .filter(({ object }) => object !== undefined && hasKey(this.#keysOf(object), key))
      .sort((a, b) => a.place - b.place)
    bucket.entries = belonging.filter((entry, at) => entry !== belonging[at - 1])
    bucket.isTidy = true
  }
}

function listed(keys: Keys): readonly string[] {
  return keys === undefined ? nothing : typeof keys === 'string' ? [keys] : keys
}

function hasKey(keys: Keys, key: string): boolean {
  return typeof keys === 'object' ? keys.includes(key) : keys === key
}

/** Objects by name, mostly one each: nothing is kept for such a name but its owner. */
class NameIndex<T extends AnyObject> {
  readonly #ownersByName = new Map<string, Entry<T> | Set<Entry<T>>>()

  /** In order of creation. */
  list(namespace: string, name: string): readonly T[] {
    const owners = this.#ownersByName.get(nameKey(namespace, name))
    if (owners === undefined) return nothing
    const entries = owners instanceof Set ? [...owners] : [owners]
    return entries.sort((a, b) => a.place - b.place).flatMap(({ object }) => object ?? [])
  }

  /** Call after `entry.object` has become `after`. */
  change(entry: Entry<T>, before: T | undefined, after: T | undefined): void {
    if (before?.name === after?.name && before?.namespace === after?.namespace) return
    if (before !== undefined) this.#remove(nameKey(before.namespace, before.name), entry)
    if (after !== undefined) this.#add(nameKey(after.namespace, after.name), entry)
  }

  #add(key: string, entry: Entry<T>): void {
    const owners = this.#ownersByName.get(key)
    if (owners === undefined) this.#ownersByName.set(key, entry)
    else if (owners instanceof Set) owners.add(entry)
    else this.#ownersByName.set(key, new Set([owners, entry]))
  }

  #remove(key: string, entry: Entry<T>): void {
    const owners = this.#ownersByName.get(key)
    if (owners instanceof Set) {
      owners.delete(entry)
      if (owners.size > 0) return
    }
    this.#ownersByName.delete(key)
  }
}

/** All objects of one kind. */
class Table<T extends AnyObject> implements Iterable<T> {
  readonly entryById = new Map<string, Entry<T>>()
  readonly byName = new NameIndex<T>()
  readonly #indexes: readonly Index<T>[]
  #placeNext = 0

  constructor(indexes: readonly Index<T>[]) {
    this.#indexes = indexes
  }

  *[Symbol.iterator](): Generator<T> {
    for (const { object } of this.entryById.values()) if (object !== undefined) yield object
  }

  put(object: T): void {
    const known = this.entryById.get(object.id)
    if (known === undefined) {
      const entry = { place: this.#placeNext++, object }
      this.entryById.set(object.id, entry)
      this.#change(entry, undefined, object)
      return
    }
    const before = known.object
    known.object = object
    this.#change(known, before, object)
  }

  delete(id: string): void {
    const entry = this.entryById.get(id)
    if (entry === undefined) return
    this.entryById.delete(id)
    const before = entry.object
    entry.object = undefined
    this.#change(entry, before, undefined)
  }

  #change(entry: Entry<T>, before: T | undefined, after: T | undefined): void {
    this.byName.change(entry, before, after)
    for (const index of this.#indexes) index.change(entry, before, after)
  }
}

/** A namespace's names apart from another's: neither may contain a NUL. */
function nameKey(namespace: string, name: string): string {
  const plain = name.toLowerCase()
  return namespace === defaultNamespace ? plain : `${namespace}\0${plain}`
}

/** Distinct keys, in no more than one string where that will do. */
function distinct(keys: readonly string[]): Keys {
  return keys.length < 2 ? keys[0] : [...new Set(keys)]
}

/** The view and the only ways to change it, which the store uses once a change is durable. */
export class MemoryView implements View {
  #revision = 0
  readonly #tasksByWorkload = new Index<ObjectByKind['task']>((task) => task.workloadId)
  readonly #tasksByNode = new Index<ObjectByKind['task']>((task) => task.nodeId)
  readonly #tasksByNetwork = new Index<ObjectByKind['task']>(({ addresses }) =>
    addresses.length < 2
      ? addresses[0]?.networkId
      : distinct(addresses.map((address) => address.networkId)),
  )
  readonly #revisionsByWorkload = new Index<ObjectByKind['revision']>(
    (revision) => revision.workloadId,
  )
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
    return this.#table(kind).byName.list(namespace, name)
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
