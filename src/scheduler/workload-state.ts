import type { NodeId, RevisionId, TaskId, WorkloadId } from '../model/index.ts'
import { getOrMake } from './get-or-make.ts'
import { SmallMap } from './small-map.ts'

/** Failures on a node within this span make it a worse place for the same revision, in ms. */
const failureWindowMs = 300_000
/** So many failures within the span, and the node is taken only when nothing else fits. */
const failuresUntilAvoided = 5

/** What the scheduler knows of one workload: where its tasks are, and where they fail. */
export class WorkloadState {
  readonly id: WorkloadId
  /** Active tasks by node index. */
  readonly counts = new SmallMap<number, number>()
  // Most workloads have neither, and there may be many workloads.
  #ownKeys: Set<string> | undefined
  #failures: Map<RevisionId, Map<NodeId, Map<TaskId, number>>> | undefined

  constructor(id: WorkloadId) {
    this.id = id
  }

  get isForgettable(): boolean {
    return this.counts.size === 0 && !this.#failures && !this.#ownKeys
  }

  /** Keys of the candidates kept for it alone. */
  get ownKeys(): ReadonlySet<string> {
    return this.#ownKeys ?? noKeys
  }

  addOwnKey(key: string): void {
    this.#ownKeys ??= new Set()
    this.#ownKeys.add(key)
  }

  removeOwnKey(key: string): void {
    this.#ownKeys?.delete(key)
    if (this.#ownKeys?.size === 0) this.dropOwnKeys()
  }

  dropOwnKeys(): void {
    this.#ownKeys = undefined
  }

  countOn(index: number, by: number): void {
    const count = (this.counts.get(index) ?? 0) + by
    if (count === 0) this.counts.delete(index)
    else this.counts.set(index, count)
  }

  addFailure(revisionId: RevisionId, nodeId: NodeId, taskId: TaskId, atMs: number): void {
    this.#failures ??= new Map()
    const byNode = getOrMake(
      this.#failures,
      revisionId,
      () => new Map<NodeId, Map<TaskId, number>>(),
    )
    getOrMake(byNode, nodeId, () => new Map<TaskId, number>()).set(taskId, atMs)
  }

  removeFailure(revisionId: RevisionId, nodeId: NodeId, taskId: TaskId): void {
    const byNode = this.#failures?.get(revisionId)
    const byTask = byNode?.get(nodeId)
    if (!byNode || !byTask) return
    byTask.delete(taskId)
    if (byTask.size === 0) byNode.delete(nodeId)
    if (byNode.size === 0) this.#failures?.delete(revisionId)
    if (this.#failures?.size === 0) this.#failures = undefined
  }

  /** Nodes to avoid for a revision now, with their failures within the window. */
  avoided(revisionId: RevisionId, nowMs: number): ReadonlyMap<NodeId, number> {
    const byNode = this.#failures?.get(revisionId)
    if (!byNode) return none
    const found = new Map<NodeId, number>()
    for (const [nodeId, byTask] of byNode) {
      if (byTask.size < failuresUntilAvoided) continue
      let recent = 0
      for (const atMs of byTask.values()) if (atMs > nowMs - failureWindowMs) recent++
      if (recent >= failuresUntilAvoided) found.set(nodeId, recent)
    }
    return found
  }
}
const noKeys: ReadonlySet<string> = new Set()
const none: ReadonlyMap<NodeId, number> = new Map()
