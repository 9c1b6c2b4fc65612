import { type Agent, startAgent } from '../agent/index.ts'
import { type Random, silentLog } from '../base/index.ts'
import {
  type Control,
  initialNetworks,
  openControl,
  type WorkloadDeclaration,
} from '../control/index.ts'
import { type Manager, startManager } from '../manager/index.ts'
import {
  idFrom,
  mintId,
  type NodeId,
  type Task,
  type TaskId,
  type WorkloadId,
} from '../model/index.ts'
import { buildClusterSpec, buildNode, buildTemplate, buildUpdatePolicy } from '../model/testing.ts'
import type { DataPlane, DesiredNetwork } from '../network/data-plane.ts'
import {
  openSimulatedRuntime,
  type SimulatedBehaviour,
  type SimulatedRuntime,
  simulatedDescription,
} from '../runtime/simulated-runtime.ts'
import { type LeaderEpoch, openMemoryStore, type Store } from '../store/index.ts'
import type { TaskAssignment } from '../wire/index.ts'
import { VirtualClock } from './virtual-clock.ts'

/** Numbers that follow from the seed alone (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return {
    below(limit) {
      state = (state + 0x6d2b79f5) >>> 0
      let mixed = Math.imul(state ^ (state >>> 15), state | 1)
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
      return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * limit)
    },
  }
}

/** The data plane's part in the protocol, without a kernel: it remembers what it was last told. */
export class RecordingDataPlane implements DataPlane {
  desired: DesiredNetwork = { networks: [], endpoints: [], tasks: [] }
  openConnectionsNow = 0
  isListening = true
  async ensureNetwork(network: { readonly name: string }): Promise<string> {
    return network.name
  }
  async apply(desired: DesiredNetwork): Promise<void> {
    this.desired = desired
  }
  nameserversFor(): readonly string[] {
    return []
  }
  async audit(): Promise<readonly string[]> {
    return []
  }
  async examine() {
    return { findings: [] }
  }
  async openConnections(): Promise<number> {
    return this.openConnectionsNow
  }
  async silentPorts<Port>(_: unknown, ports: readonly Port[]): Promise<readonly Port[]> {
    return this.isListening ? [] : ports
  }
  async clear(): Promise<void> {}
  async close(): Promise<void> {}
}

/** The real manager and the real agent of one node, over a store in memory, virtual time and simulated containers. */
export class OneNode {
  readonly clock = new VirtualClock()
  readonly random: Random
  readonly nodeId: NodeId = idFrom('n1')
  readonly dataPlane = new RecordingDataPlane()
  readonly runtime: SimulatedRuntime
  store!: Store & LeaderEpoch
  control!: Control
  manager!: Manager
  agent!: Agent

  constructor(
    seed: number,
    behave: (assignment: TaskAssignment, nthOnNode: number) => SimulatedBehaviour = () => ({}),
  ) {
    this.random = seededRandom(seed)
    this.runtime = openSimulatedRuntime({
      clock: this.clock,
      random: this.random,
      nodeId: this.nodeId,
      description: simulatedDescription('host-1'),
      behave,
    })
  }

  async start(): Promise<void> {
    const { clock, random } = this
    this.store = await openMemoryStore({ clock })
    const cluster = {
      kind: 'cluster',
      id: mintId<'cluster'>(random),
      namespace: 'default',
      name: 'default',
      labels: {},
      version: 0,
      specVersion: 0,
      createdAtMs: 0,
      updatedAtMs: 0,
      source: { dialect: 'skep', document: {} },
      spec: buildClusterSpec(),
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
        addressPools: ['10.0.0.0/8'],
        subnetSize: 24,
        dataPathPort: 4789,
      },
    } as const
    await this.store.commit(
      [cluster, buildNode({ id: 'n1', state: 'unknown' }), ...initialNetworks(random)].map(
        (object) => ({
          type: 'create' as const,
          object,
        }),
      ),
    )
    this.control = openControl({
      store: this.store,
      clock,
      random,
      sealer: {
        seal: () => ({ keyId: 'k', nonce: '', ciphertext: '' }),
        unseal: () => new Uint8Array(),
      },
    })
    await this.startLoops()
  }

  async startLoops(): Promise<void> {
    const { clock, random } = this
    const epoch = await this.store.advanceEpoch()
    this.manager = startManager({
      store: this.store,
      epoch,
      unseal: () => new Uint8Array(),
      clock,
      random,
      log: silentLog,
    })
    this.agent = startAgent({
      nodeId: this.nodeId,
      runtime: this.runtime,
      dataPlane: this.dataPlane,
      link: this.manager.link,
      clock,
      log: silentLog,
      describeHost: async () => ({ skepVersion: 'test', hostSubnets: [] }),
    })
    await clock.advance(0)
  }

  /** The daemon ends; store and containers stay. */
  async stopLoops(): Promise<void> {
    await this.agent.close()
    await this.manager.close()
  }

  async stop(): Promise<void> {
    await this.stopLoops()
    await this.store.close()
  }

  /** Creates a replicated service; `over` changes parts of its declaration. */
  async create(
    name: string,
    replicas: number,
    over: Partial<WorkloadDeclaration> = {},
  ): Promise<WorkloadId> {
    const workload = await this.control.createWorkload(declare(name, replicas, over))
    return workload.id
  }

  /** Declares a service anew. */
  async update(
    id: WorkloadId,
    replicas: number,
    over: Partial<WorkloadDeclaration> = {},
  ): Promise<void> {
    const { name = '', specVersion: version = 0 } = this.store.view.get('workload', id) ?? {}
    await this.control.updateWorkload({ id, version, auth: { from: 'current' } }, () =>
      declare(name, replicas, over),
    )
  }

  tasks(id: WorkloadId): readonly Task[] {
    return this.store.view.tasksOfWorkload(id)
  }

  running(id: WorkloadId): readonly Task[] {
    return this.tasks(id).filter(
      ({ status, desiredState }) => status.state === 'running' && desiredState === 'running',
    )
  }

  /** Ids of the tasks that endpoints send connections to now. */
  routed(): readonly TaskId[] {
    return this.dataPlane.desired.endpoints.flatMap(({ backends }) =>
      backends.map(({ taskId }) => taskId),
    )
  }
}

/** An endpoint with a port on every node. */
export const published = {
  mode: 'vip',
  networks: [],
  ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' }],
} as const

export function declare(
  name: string,
  replicas: number,
  over: Partial<WorkloadDeclaration> = {},
): WorkloadDeclaration {
  return {
    name,
    labels: {},
    mode: { type: 'replicated', replicas },
    update: buildUpdatePolicy(),
    rollback: buildUpdatePolicy(),
    onNodeLoss: { type: 'replace' },
    endpoint: { mode: 'vip', networks: [], ports: [] },
    template: buildTemplate(),
    source: { dialect: 'skep', document: { name, replicas } },
    ...over,
  }
}
