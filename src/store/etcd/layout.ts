import { UserError } from '../../base/index.ts'
import type { AnyObject, Kind } from '../../model/index.ts'
import { isKind } from '../memory-view.ts'
import type { KeyValue } from './client.ts'

/** Where everything of a cluster begins in etcd. */
export const defaultPrefix = '/skep/'
/** Version of this layout. */
const layoutVersion = 1

/**
 * How a store lies in etcd. Each commit is one transaction, and puts `head` and the `writer` key of the manager that
 * made it.
 *
 * ```
 * meta                    the layout's version, and what is added to etcd's revisions to make the store's
 * head                    who made the last commit, and when
 * checked                 put by each commit that was checked across objects, so that another one shows
 * epoch                   counts the leaders
 * leader                  who leads now; hangs on the leader's lease
 * writer/<writer>         the last transaction of that manager: tells whether one whose answer was lost was done
 * object/<kind>/<id>      an object and its place
 * name/<kind>/<ns>/<name> the id of the object that has a unique name
 * ```
 */
export class Layout {
  readonly prefix: string
  readonly meta: string
  readonly head: string
  readonly checked: string
  readonly epoch: string
  readonly leader: string
  readonly #objects: string
  readonly #names: string

  constructor(prefix: string) {
    this.prefix = prefix
    this.meta = `${prefix}meta`
    this.head = `${prefix}head`
    this.checked = `${prefix}checked`
    this.epoch = `${prefix}epoch`
    this.leader = `${prefix}leader`
    this.#objects = `${prefix}object/`
    this.#names = `${prefix}name/`
  }

  writer(writer: string): string {
    return `${this.prefix}writer/${encodeURIComponent(writer)}`
  }

  object(kind: Kind, id: string): string {
    return `${this.#objects}${kind}/${encodeURIComponent(id)}`
  }

  name(object: AnyObject): string {
    const { kind, namespace, name } = object
    const parts = [kind, namespace, name.toLowerCase()]
    return this.#names + parts.map(encodeURIComponent).join('/')
  }

  /** The object that a key is for; undefined for a key of another sort. */
  parseObjectKey(key: string): { readonly kind: Kind; readonly id: string } | undefined {
    if (!key.startsWith(this.#objects)) return undefined
    const [kind, id] = key.slice(this.#objects.length).split('/')
    if (!isKind(kind) || id === undefined) throw unknownLayout()
    return { kind, id: decodeURIComponent(id) }
  }

  isNameKey(key: string): boolean {
    return key.startsWith(this.#names)
  }
}

/** What is kept of an object in memory beside itself. */
export interface Stored {
  readonly object: AnyObject
  /** Orders what one transaction created. */
  readonly place: number
}

/**
 * The text of an object. Its versions are not known before the transaction is done: 0 stands for the revision of that
 * transaction. With `keepVersions` (for what comes from another store) they are as they are.
 */
export function encodeObject(stored: Stored & { readonly keepVersions?: boolean }): string {
  const { object, place, keepVersions } = stored
  return JSON.stringify({ place, ...(keepVersions && { keepVersions }), object })
}

/** Reads that text. `offset` is added to etcd's revision. Throws `internal` when this version can't have written it. */
export function decodeObject(kv: KeyValue, offset: number): Stored {
  const stored: unknown = JSON.parse(kv.value)
  if (
    typeof stored !== 'object' ||
    stored === null ||
    !('place' in stored && typeof stored.place === 'number') ||
    !('object' in stored && typeof stored.object === 'object' && stored.object !== null) ||
    !('kind' in stored.object && isKind(stored.object.kind)) ||
    !('id' in stored.object && typeof stored.object.id === 'string')
  ) {
    throw unknownLayout()
  }
  const object = stored.object as AnyObject
  if ('keepVersions' in stored) return { place: stored.place, object }
  return { place: stored.place, object: withVersion(object, offset + kv.modRevision) }
}

/** Reads the place alone, of a text that this process wrote. */
export function decodePlace(kv: KeyValue): number {
  return Number(/^\{"place":(\d+)/.exec(kv.value)?.[1] ?? 0)
}

/** Gives an object that was stored just now its version. */
function withVersion(object: AnyObject, version: number): AnyObject {
  return { ...object, version, specVersion: object.specVersion || version }
}

export function encodeMeta(offset: number): string {
  return JSON.stringify({ layout: layoutVersion, offset })
}

export function parseMeta(text: string): { readonly offset: number } {
  const meta: unknown = JSON.parse(text)
  if (
    typeof meta !== 'object' ||
    meta === null ||
    !('layout' in meta && meta.layout === layoutVersion) ||
    !('offset' in meta && typeof meta.offset === 'number')
  ) {
    throw unknownLayout()
  }
  return { offset: meta.offset }
}

/** Who made a commit: `token` names the transaction. */
export interface Head {
  readonly token: string
  readonly atMs: number
}

export function parseHead(text: string): Head {
  const head: unknown = JSON.parse(text)
  if (
    typeof head !== 'object' ||
    head === null ||
    !('token' in head && typeof head.token === 'string') ||
    !('atMs' in head && typeof head.atMs === 'number')
  ) {
    throw unknownLayout()
  }
  return { token: head.token, atMs: head.atMs }
}

function unknownLayout(): UserError {
  return new UserError('internal', 'etcd holds something that this version does not know', {
    next: 'Start the version of Skep that wrote it, or restore a backup.',
  })
}
