import type { Clock } from '../../base/index.ts'
import type { AnyObject, ClusterNode, Workload } from '../../model/index.ts'
import type { AppliedChange, Commit, Store } from '../../store/store.ts'
import type { Filters } from './filters.ts'
import { isService, raiseUpdateState } from './raise-service.ts'

/** An event of the cluster in the Engine API's words. */
export interface ClusterEvent {
  readonly Type: 'service' | 'node' | 'secret' | 'config' | 'network'
  readonly Action: 'create' | 'update' | 'remove'
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> }
  readonly scope: 'swarm'
  readonly time: number
  readonly timeNano: number
}

/** Events kept for `since`. */
const eventsKeptMax = 1_000

/** What has happened in the cluster since this process began to look, and who wants to hear of more. */
export class ClusterEvents {
  readonly #clock: Clock
  readonly #kept: ClusterEvent[] = []
  readonly #listeners = new Set<(event: ClusterEvent) => void>()
  #store: Store | undefined
  #stop: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Watches this store from now on, and no other. */
  follow(store: Store | undefined): void {
    if (store === this.#store) return
    this.#stop?.()
    this.#store = store
    this.#stop = store?.subscribe((commit) => this.#take(store, commit))
  }

  /** Those that are kept, oldest first. */
  get kept(): readonly ClusterEvent[] {
    return this.#kept
  }

  listen(listener: (event: ClusterEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.follow(undefined)
    this.#listeners.clear()
  }

  #take(store: Store, commit: Commit): void {
    const nowMs = this.#clock.nowMs()
    for (const change of commit.changes) {
      const event = eventOf(store, change, nowMs)
      if (!event) continue
      this.#kept.push(event)
      if (this.#kept.length > eventsKeptMax) this.#kept.shift()
      for (const listener of this.#listeners) listener(event)
    }
  }
}

function eventOf(
  store: Store,
  { before, after }: AppliedChange,
  nowMs: number,
): ClusterEvent | undefined {
  const object = after ?? before
  if (!object) return undefined
  const Type = typeOf(object)
  if (!Type) return undefined
  const Action = !before ? 'create' : after ? 'update' : 'remove'
  const Attributes = { name: object.name, ...differences(store, before, after) }
  return {
    Type,
    Action,
    Actor: { ID: object.id, Attributes },
    scope: 'swarm',
    time: Math.floor(nowMs / 1_000),
    timeNano: nowMs * 1_000_000,
  }
}

function typeOf(object: AnyObject): ClusterEvent['Type'] | undefined {
  switch (object.kind) {
    case 'workload':
      return isService(object) ? 'service' : undefined
    case 'node':
    case 'secret':
    case 'config':
      return object.kind
    case 'network':
      return object.spec.predefined ? undefined : 'network'
    default:
      return undefined
  }
}

/** `<what>.old` and `<what>.new` of all that an update has changed. */
function differences(
  store: Store,
  before: AnyObject | undefined,
  after: AnyObject | undefined,
): Readonly<Record<string, string>> {
  if (before?.kind === 'workload' && after?.kind === 'workload') {
    return pairs(workloadFacts(store, before), workloadFacts(store, after))
  }
  if (before?.kind === 'node' && after?.kind === 'node') {
    return pairs(nodeFacts(before), nodeFacts(after))
  }
  return {}
}

type Facts = Readonly<Record<string, string | undefined>>

function workloadFacts(store: Store, workload: Workload): Facts {
  const { mode, revisionId } = workload.spec
  const state = workload.status.update?.state
  return {
    replicas: mode.type === 'replicated' ? String(mode.replicas) : undefined,
    image: store.view.get('revision', revisionId)?.template.containers[0]?.image,
    updatestate: state && raiseUpdateState(state),
  }
}

function nodeFacts({ spec, status, manager }: ClusterNode): Facts {
  return {
    availability: spec.availability,
    role: spec.role,
    state: status.state,
    leader: manager && String(manager.leader),
    reachability: manager?.reachability,
  }
}

function pairs(before: Facts, after: Facts): Readonly<Record<string, string>> {
  const changed: Record<string, string> = {}
  for (const key of Object.keys(after)) {
    const [old, now] = [before[key], after[key]]
    if (old === now) continue
    if (old !== undefined) changed[`${key}.old`] = old
    if (now !== undefined) changed[`${key}.new`] = now
  }
  return changed
}

/** Whether a client that filters so wants the event. */
export function isWanted(event: ClusterEvent, filters: Filters): boolean {
  const { ID, Attributes } = event.Actor
  const isNamed = (key: string): boolean => {
    const values = filters.get(key)
    if (values.length === 0) return true
    return (
      event.Type === key && values.some((value) => value === ID || value === Attributes['name'])
    )
  }
  return (
    filters.equals('type', event.Type) &&
    filters.equals('scope', 'swarm') &&
    filters.equals('event', event.Action) &&
    ['service', 'node', 'secret', 'config', 'network'].every(isNamed) &&
    foreignKeys.every((key) => !filters.has(key)) &&
    filters.labels('label', Attributes)
  )
}

/** Filters by things that only the engine's own events are about. */
const foreignKeys = ['container', 'image', 'volume', 'plugin', 'daemon'] as const
