/** A cluster of one workload for tests: everything around the orchestrator, in a few lines each, on virtual time. */
import { assert, type Random } from '../base/index.ts'
import {
  type Availability,
  type ClusterNode,
  idFrom,
  isStopWanted,
  isTerminal,
  placementFits,
  type Revision,
  rankOf,
  type Task,
  type TaskState,
  type TaskStatus,
  type Workload,
  type WorkloadMode,
} from '../model/index.ts'
import {
  buildClusterSpec,
  buildEndpoint,
  buildNode,
  buildRevision,
  buildTemplate,
  buildWorkload,
} from '../model/testing.ts'
import { MemoryView } from '../store/memory-view.ts'
import type { Change } from '../store/store.ts'
import { changesFor } from './changes.ts'
import { decideWorkload } from './decide.ts'
import { decideOrphans } from './housekeeping.ts'
import { observeWorkload } from './slice.ts'

/** Passes in which a decision has to come to rest at one moment. */
const passesMax = 30
const stepMs = 500

export function seededRandom(seed: number): Random {
  let state = seed >>> 0 || 1
  return {
    below(limit) {
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      state >>>= 0
      return state % limit
    },
  }
}

export class SmallWorld {
  readonly view = new MemoryView()
  readonly workloadId = idFrom<'workload'>('w1')
  readonly #random: Random
  /** Revisions whose tasks fail as soon as they start. */
  readonly #bad = new Set<string>()
  /** Called with the world after every change. */
  readonly #check: (world: SmallWorld) => void
  nowMs = 1_000_000
  /** Of the last decision. */
  #wakeAtMs: number | undefined
  #version = 1

  constructor(
    workload: Workload,
    nodeCount: number,
    seed: number,
    check: (world: SmallWorld) => void = () => {},
  ) {
    this.#random = seededRandom(seed)
    this.#check = check
    for (let i = 1; i <= nodeCount; i++) this.view.put(buildNode({ id: `n${i}` }))
    this.view.put({
      ...buildWorkload(),
      kind: 'cluster',
      id: idFrom<'cluster'>('c1'),
      spec: buildClusterSpec({ taskHistoryLimit: 2 }),
      status: {
        root: {
          certificatePem: '',
          key: { keyId: '', nonce: '', ciphertext: '' },
          issuerSubject: '',
          issuerPublicKey: '',
        },
        rootRotationInProgress: false,
        joinTokens: {
          worker: { keyId: '', nonce: '', ciphertext: '' },
          manager: { keyId: '', nonce: '', ciphertext: '' },
        },
        addressPools: [],
        subnetSize: 24,
        dataPathPort: 4789,
      },
    })
    this.view.put(
      buildEndpoint({
        spec: {
          ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 80, publishMode: 'ingress' }],
        },
      }),
    )
    this.view.put(this.#revision(1, workload.spec.mode))
    this.view.put({ ...workload, id: this.workloadId })
    this.settle()
  }

  get workload(): Workload {
    const found = this.view.get('workload', this.workloadId)
    assert(found !== undefined, 'the workload is there')
    return found
  }

  get tasks(): readonly Task[] {
    return this.view.tasksOfWorkload(this.workloadId)
  }

  get nodes(): readonly ClusterNode[] {
    return [...this.view.list('node')]
  }

  isUp(task: Task): boolean {
    return task.status.state === 'running' && task.traffic === 'routable'
  }

  /** What a person does with `service update`. */
  declare(change: { image?: 'good' | 'bad'; mode?: WorkloadMode }): void {
    const { spec } = this.workload
    const current = this.view.get('revision', spec.revisionId)
    const numbers = this.view.revisionsOfWorkload(this.workloadId).map(({ number }) => number)
    const number = Math.max(...numbers) + 1
    const mode = change.mode ?? spec.mode
    const fresh = this.#revision(number, mode)
    const next = change.image || !current ? fresh : { ...fresh, templateHash: current.templateHash }
    if (change.image === 'bad' || (!change.image && this.#bad.has(spec.revisionId)))
      this.#bad.add(next.id)
    this.view.put(next)
    this.view.put({
      ...this.workload,
      version: ++this.#version,
      spec: {
        ...spec,
        mode,
        revisionId: next.id,
        previousRevisionId: spec.revisionId,
        jobIteration: spec.jobIteration + 1,
      },
      status: {
        update: {
          state: 'updating',
          startedAtMs: this.nowMs,
          message: 'update in progress',
          revisionId: next.id,
        },
      },
    })
    this.settle()
  }

  setNode(index: number, change: { availability?: Availability; state?: 'ready' | 'down' }): void {
    const node = this.nodes[index % this.nodes.length]
    if (!node) return
    this.view.put({
      ...node,
      updatedAtMs: this.nowMs,
      version: ++this.#version,
      spec: { ...node.spec, availability: change.availability ?? node.spec.availability },
      status: { ...node.status, state: change.state ?? node.status.state },
    })
    this.settle()
  }

  failTask(index: number): void {
    const running = this.tasks.filter((task) => task.status.state === 'running')
    const task = running[index % Math.max(1, running.length)]
    if (task) this.#report(task, 'failed')
    this.settle()
  }

  remove(): void {
    this.view.delete('workload', this.workloadId)
    this.settle()
  }

  /** Decides and applies until nothing is decided; fails if that does not end. */
  settle(): void {
    for (let pass = 0; pass < passesMax; pass++) {
      const changes = this.decide()
      if (changes.length === 0) return
      this.#apply(changes)
      this.#check(this)
    }
    throw new Error(`still deciding after ${passesMax} passes: ${JSON.stringify(this.decide())}`)
  }

  decide(): readonly Change[] {
    const slice = observeWorkload(this.view, this.workloadId)
    if (!slice) return decideOrphans(this.view, this.workloadId, this.nowMs).changes
    const { actions, wakeAtMs } = decideWorkload(slice, this.nowMs)
    assert(wakeAtMs === undefined || wakeAtMs > this.nowMs, 'a wake-up lies ahead')
    this.#wakeAtMs = wakeAtMs
    const changes = changesFor(slice, actions, this.nowMs, this.#random)
    assert(actions.length === 0 || changes.length > 0, 'actions without a change never end')
    return changes
  }

  /** Lets time pass; every part of the cluster moves one step each half second. */
  advance(ms: number): void {
    for (const untilMs = this.nowMs + ms; this.nowMs < untilMs; ) {
      const wakeAtMs = this.#wakeAtMs
      this.nowMs += stepMs
      if (wakeAtMs === undefined || wakeAtMs > this.nowMs)
        assert(this.decide().length === 0, 'time alone changes nothing before the wake-up')
      for (const task of this.tasks) this.#move(task)
      this.#check(this)
      this.settle()
    }
  }

  #move(task: Task): void {
    const { state } = task.status
    if (isTerminal(state)) return
    if (task.nodeId === undefined) {
      if (state === 'new') this.#report(task, 'pending')
      else if (!isStopWanted(task)) this.#place(task)
      return
    }
    const node = this.view.get('node', task.nodeId)
    if (!node || node.status.state === 'down') return
    const traffic =
      state === 'running' && !isStopWanted(task) && task.status.ready ? 'routable' : 'none'
    if (traffic !== task.traffic) {
      this.#apply([{ type: 'update', object: { ...task, traffic } }])
      return
    }
    if (isStopWanted(task)) {
      if (this.#random.below(3) === 0) this.#report(task, 'shutdown')
      return
    }
    if (state === 'assigned') this.#report(task, 'preparing')
    else if (state === 'preparing') this.#report(task, 'ready')
    else if (state === 'ready' && task.desiredState !== 'ready') this.#report(task, 'starting')
    else if (state === 'starting')
      this.#report(task, this.#bad.has(task.revisionId) ? 'failed' : 'running')
    else if (state === 'running' && task.desiredState === 'complete' && this.#random.below(4) === 0)
      this.#report(task, 'complete')
  }

  #place(task: Task): void {
    const revision = this.view.get('revision', task.revisionId)
    const fits = this.nodes.filter(
      (node) =>
        node.status.state === 'ready' &&
        node.spec.availability === 'active' &&
        (task.pinnedNodeId === undefined || task.pinnedNodeId === node.id) &&
        revision !== undefined &&
        placementFits(node, revision.template.placement),
    )
    const node = fits[this.#random.below(Math.max(1, fits.length))]
    if (node) this.#report({ ...task, nodeId: node.id }, 'assigned')
  }

  #report(task: Task, state: TaskState): void {
    const isRunning = state === 'running'
    const status: TaskStatus = {
      ...task.status,
      state,
      message: state,
      atMs: this.nowMs,
      ready: isRunning,
      ...(isRunning ? { readyAtMs: this.nowMs } : {}),
    }
    const traffic = isTerminal(state) ? 'none' : task.traffic
    this.#apply([{ type: 'update', object: { ...task, status, traffic } }])
  }

  #apply(changes: readonly Change[]): void {
    const touched = new Set<string>()
    for (const change of changes) {
      const key = change.type === 'delete' ? change.id : change.object.id
      assert(!touched.has(key), 'one change per object')
      touched.add(key)
      if (change.type === 'delete') {
        const before = this.view.get(change.kind, change.id)
        assert(before?.version === change.version, 'a delete names the version it was decided on')
        this.view.delete(change.kind, change.id)
        continue
      }
      const { object } = change
      const before = this.view.get(object.kind, object.id)
      assert((before === undefined) === (change.type === 'create'), 'create what is not there')
      if (before) assert(before.version === object.version, 'an update is of what was read')
      if (object.kind === 'task' && before?.kind === 'task') {
        assert(rankOf(object.status.state) >= rankOf(before.status.state), 'states go forward')
        assert(
          rankOf(object.desiredState) >= rankOf(before.desiredState),
          'so does what is desired',
        )
      }
      const createdAtMs = before?.createdAtMs ?? this.nowMs
      this.view.put({
        ...object,
        version: ++this.#version,
        createdAtMs,
        updatedAtMs: this.nowMs,
      })
    }
  }

  #revision(number: number, mode: WorkloadMode): Revision {
    const { spec } = this.view.get('workload', this.workloadId) ?? buildWorkload()
    return buildRevision({
      number,
      version: ++this.#version,
      template: buildTemplate({ forceUpdate: number }),
      declared: {
        labels: {},
        mode,
        update: spec.update,
        rollback: spec.rollback,
        onNodeLoss: spec.onNodeLoss,
        endpoint: { mode: 'vip', networks: [], ports: [] },
      },
    })
  }
}
