import { UserError } from '../../base/index.ts'
import type { AnyObject, Kind } from '../../model/index.ts'
import { isKind } from '../memory-view.ts'
import { objectKeyOf, SealError } from '../sealed-values.ts'
import type { ValueCodec } from '../value-codec.ts'
import type { KeyValue } from './client.ts'

/** Where everything of a cluster begins in etcd. */
export const defaultPrefix = '/skep/'
/** Version of this layout. 1 had its objects in plain text. */
const layoutVersion = 2

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
 *
 * Objects are sealed (`ValueCodec`). The rest is as it is: keys (kinds, ids and names), ids, tokens of transactions, times,
 * and who leads.
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
    // Asked of every key of every transaction: most ids are written as they are.
    const at = key.indexOf('/', this.#objects.length)
    const kind = at < 0 ? undefined : key.slice(this.#objects.length, at)
    if (!isKind(kind)) throw unknownLayout()
    const end = key.indexOf('/', at + 1)
    const id = key.slice(at + 1, end < 0 ? undefined : end)
    return { kind, id: id.includes('%') ? decodeURIComponent(id) : id }
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
 * The value of an object. Its versions are not known before the transaction is done: 0 stands for the revision of that
 * transaction. With `keepVersions` (for what comes from another store) they are as they are.
 */
export function encodeObject(
  values: ValueCodec,
  stored: Stored & { readonly keepVersions?: boolean },
): string {
  const { object, place, keepVersions } = stored
  const text = JSON.stringify({ place, ...(keepVersions && { keepVersions }), object })
  return values.encode(text, objectKeyOf(object.kind, object.id))
}

/**
 * Reads the value of the object `kind` `id`. `offset` is added to etcd's revision. Throws `internal` when this version
 * can't have written it, or not with the keys it has.
 */
export function decodeObject(
  values: ValueCodec,
  kv: KeyValue,
  { kind, id, offset }: { readonly kind: Kind; readonly id: string; readonly offset: number },
): Stored {
  const stored = parseJson(opened(values, kv, objectKeyOf(kind, id)), values.parse)
  if (
    typeof stored !== 'object' ||
    stored === null ||
    !('place' in stored && typeof stored.place === 'number') ||
    !('object' in stored && typeof stored.object === 'object' && stored.object !== null) ||
    !('kind' in stored.object && stored.object.kind === kind) ||
    !('id' in stored.object && stored.object.id === id)
  ) {
    throw unknownLayout()
  }
  const object = stored.object as AnyObject
  if ('keepVersions' in stored) return { place: stored.place, object }
  return { place: stored.place, object: withVersion(object, offset + kv.modRevision) }
}

function opened(values: ValueCodec, kv: KeyValue, objectKey: string): string {
  try {
    return values.decode(kv.value, objectKey)
  } catch (error) {
    if (!(error instanceof SealError)) throw error
    const { message, reason } = error
    if (reason === 'newer') throw unknownLayout()
    throw new UserError(
      'internal',
      `the state of the cluster can't be read: ${message}${reason === 'otherKey' ? ', which is not at hand' : ''}`,
      {
        next:
          reason === 'otherKey'
            ? 'Put back the file `data.keys` of this manager, or let it leave and join again.'
            : 'Let this manager leave and join again; where all of them say so, restore a backup.',
        cause: error,
      },
    )
  }
}

/** Its errors never quote the text. */
function parseJson(text: string, parse: (text: string) => unknown = JSON.parse): unknown {
  try {
    return parse(text)
  } catch {
    throw unknownLayout()
  }
}

/** Gives an object that was stored just now its version. */
function withVersion(object: AnyObject, version: number): AnyObject {
  return { ...object, version, specVersion: object.specVersion || version }
}

export function encodeMeta(offset: number): string {
  return JSON.stringify({ layout: layoutVersion, offset })
}

export function parseMeta(text: string): { readonly offset: number; readonly isOld: boolean } {
  const meta: unknown = parseJson(text)
  if (
    typeof meta !== 'object' ||
    meta === null ||
    !('layout' in meta && (meta.layout === layoutVersion || meta.layout === 1)) ||
    !('offset' in meta && typeof meta.offset === 'number')
  ) {
    throw unknownLayout()
  }
  return { offset: meta.offset, isOld: meta.layout !== layoutVersion }
}

/** Who made a commit: `token` names the transaction. */
export interface Head {
  readonly token: string
  readonly atMs: number
}

export function parseHead(text: string): Head {
  const head: unknown = parseJson(text)
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
