import { UserError } from '../base/index.ts'
import { type AnyObject, type Kind, type Task, uniquelyNamedKinds } from '../model/index.ts'
import type { MemoryView } from './memory-view.ts'
import type { Write } from './persistence.ts'
import { type AppliedChange, type Change, changesPerCommitMax, objectSizeMax } from './store.ts'

/** Most characters of JSON that one commit may write. */
export const commitSizeMax = 64_000_000

/** A commit that was found valid, with what it writes. */
export interface StagedCommit {
  readonly revision: number
  readonly atMs: number
  readonly applied: readonly AppliedChange[]
  /** Empty where nothing is kept. */
  readonly writes: readonly Write[]
  /** Characters of JSON in `writes`. */
  readonly size: number
}

export interface StagingOptions {
  /** Whether somebody keeps what commits write. If not, no text is made, but to measure what people declared. */
  readonly isKept: boolean
}

/** Who will have a unique name once the commits before are durable. */
interface ExpectedOwner {
  readonly revision: number
  readonly id: string | undefined
}

/**
 * The state that will be reached once every commit in flight is durable: the view with those commits laid over it.
 * New commits are checked against this, so that whatever is accepted stays valid.
 */
export class Staging {
  readonly #view: MemoryView
  readonly #isKept: boolean
  #revision: number
  /** The last change in flight of each object. */
  readonly #changes: { readonly [K in Kind]: Map<string, AppliedChange> } = {
    cluster: new Map(),
    node: new Map(),
    workload: new Map(),
    revision: new Map(),
    task: new Map(),
    endpoint: new Map(),
    network: new Map(),
    secret: new Map(),
    config: new Map(),
  }
  readonly #names = new Map<string, ExpectedOwner>()

  constructor(view: MemoryView, { isKept }: StagingOptions) {
    this.#view = view
    this.#isKept = isKept
    this.#revision = view.revision
  }

  /** Checks the changes, and adds them to the expected state. Throws UserError as `Store.commit` rejects. */
  stage(changes: readonly Change[], atMs: number): StagedCommit {
    if (changes.length > changesPerCommitMax) {
      throw new UserError(
        'tooLarge',
        `a commit of ${changes.length} changes is over the limit of ${changesPerCommitMax}`,
        { next: 'Split it into several.' },
      )
    }
    const revision = this.#revision + 1
    const applied: AppliedChange[] = []
    // Most commits are of one change, which can't be there twice.
    const seen = changes.length > 1 ? new Map<Kind, Set<string>>() : undefined
    const writes: Write[] = []
    let size = 0
    for (const change of changes) {
      const { kind, id } = change.type === 'delete' ? change : change.object
      const seenIds = seen?.get(kind)
      if (seenIds?.has(id)) {
        throw new UserError('invalidInput', `one commit changes ${kind} ${id} twice`, {
          next: 'Join both changes into one.',
        })
      }
      if (seenIds) seenIds.add(id)
      else seen?.set(kind, new Set([id]))
      const before = this.#object(kind, id)
      if (change.type === 'create') {
        if (before !== undefined) {
          throw new UserError('conflict', `${kind} ${id} exists already`, {
            next: 'Create it with another id.',
          })
        }
      } else {
        const version = change.type === 'delete' ? change.version : change.object.version
        checkVersion(kind, id, before, version)
      }
      if (change.type === 'delete') {
        if (this.#isKept) writes.push({ type: 'delete', kind, id })
        applied.push({ kind, id, ...(before && { before }) })
        continue
      }
      const specChanged = before === undefined || (change.type === 'update' && change.specChanged)
      const { object } = change
      const stamp = {
        version: revision,
        specVersion: specChanged ? revision : before.specVersion,
        createdAtMs: before?.createdAtMs ?? atMs,
        updatedAtMs: atMs,
      }
      // Most objects are tasks, and a place in the code that copies only these takes a fourth of the time.
      const after: AnyObject =
        object.kind === 'task' ? stampedTask(object, stamp) : { ...object, ...stamp }
      if (this.#isKept || isDeclared(after)) {
        const text = textOf(after)
        size += text.length
        if (size > commitSizeMax) {
          throw new UserError(
            'tooLarge',
            `a commit may write ${commitSizeMax} characters at most`,
            { next: 'Split it into several.' },
          )
        }
        if (this.#isKept) writes.push({ type: 'put', kind, id, text })
      }
      applied.push(before === undefined ? { kind, id, after } : { kind, id, before, after })
    }
    const names = this.#claimNames(applied)
    // Nothing throws from here on: the commit is accepted whole.
    for (const change of applied) this.#changes[change.kind].set(change.id, change)
    for (const [name, id] of names) this.#names.set(name, { revision, id })
    this.#revision = revision
    return { revision, atMs, applied, writes, size }
  }

  /** Forgets what the view shows by now. */
  settle({ applied, revision }: StagedCommit): void {
    for (const change of applied) {
      const { kind, id, before, after } = change
      const changes = this.#changes[kind]
      if (changes.get(id) === change) changes.delete(id)
      if (!uniquelyNamedKinds.has(kind)) continue
      for (const object of [before, after]) {
        if (object === undefined) continue
        const name = uniqueName(object)
        if (this.#names.get(name)?.revision === revision) this.#names.delete(name)
      }
    }
  }

  #object(kind: Kind, id: string): AnyObject | undefined {
    const change = this.#changes[kind].get(id)
    return change ? change.after : this.#view.get(kind, id)
  }

  #nameOwner(object: AnyObject): string | undefined {
    const expected = this.#names.get(uniqueName(object))
    return expected
      ? expected.id
      : this.#view.byName(object.kind, object.name, object.namespace)[0]?.id
  }

  /** Who will own each unique name that the changes touch. Judges the outcome, so two objects may swap names. */
  #claimNames(applied: readonly AppliedChange[]): Map<string, string | undefined> {
    const owners = new Map<string, string | undefined>()
    for (const { kind, before } of applied) {
      if (before && uniquelyNamedKinds.has(kind)) owners.set(uniqueName(before), undefined)
    }
    for (const { kind, id, after } of applied) {
      if (!after || !uniquelyNamedKinds.has(kind)) continue
      const name = uniqueName(after)
      const owner = owners.has(name) ? owners.get(name) : this.#nameOwner(after)
      if (owner !== undefined && owner !== id) {
        throw new UserError('conflict', `the name "${after.name}" belongs to another ${kind}`, {
          next: 'Choose another name, or remove the one that has it.',
        })
      }
      owners.set(name, id)
    }
    return owners
  }
}

type Stamp = Pick<AnyObject, 'version' | 'specVersion' | 'createdAtMs' | 'updatedAtMs'>

function stampedTask(task: Task, { version, specVersion, createdAtMs, updatedAtMs }: Stamp): Task {
  return { ...task, version, specVersion, createdAtMs, updatedAtMs }
}

/** Why a commit that was checked across objects comes too late. */
export function checkedTooEarly(): UserError {
  return new UserError('outOfSequence', 'another change was declared since this one was checked', {
    next: 'Check it on the newest view and try again.',
  })
}

function checkVersion(kind: Kind, id: string, before: AnyObject | undefined, version: number) {
  if (before === undefined) {
    throw new UserError('notFound', `there is no ${kind} ${id}`, {
      next: 'It was removed meanwhile; list what there is.',
    })
  }
  if (before.version !== version) {
    throw new UserError('outOfSequence', `${kind} ${id} changed since it was read`, {
      next: 'Read it again and retry.',
    })
  }
}

/** Whether people say how large it is. Tasks and nodes are made by loops, out of parts that are bounded. */
function isDeclared({ kind }: AnyObject): boolean {
  return kind !== 'task' && kind !== 'node'
}

function textOf(object: AnyObject): string {
  const text = JSON.stringify(object)
  if (text.length > objectSizeMax) {
    throw new UserError(
      'tooLarge',
      `${object.kind} ${object.id} takes ${text.length} characters; at most ${objectSizeMax} are kept`,
      { next: 'Make it smaller.' },
    )
  }
  return text
}

function uniqueName(object: AnyObject): string {
  return `${object.kind}\0${object.namespace}\0${object.name.toLowerCase()}`
}
