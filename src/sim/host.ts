import type { JournalEntry } from '../agent/index.ts'
import type { NodeDescription, NodeId, NodeRole } from '../model/index.ts'
import { SimulatedDataPlane } from '../network/simulated-data-plane.ts'
import {
  openSimulatedRuntime,
  type SimulatedBehaviour,
  type SimulatedRuntime,
  simulatedDescription,
} from '../runtime/simulated-runtime.ts'
import type { TaskAssignment } from '../wire/index.ts'
import type { Chance } from './chance.ts'
import { HostClock, SimulatedProcess } from './process.ts'
import type { SimulatedTime } from './time.ts'

/** What makes one machine different from the next. */
export interface Hardware {
  readonly nanoCpus: number
  readonly memoryBytes: number
  readonly gpus: number
}

/** A machine: its clock, its engine with the containers, its kernel. They outlive the daemon that runs on it. */
export class Host {
  readonly name: string
  readonly nodeId: NodeId
  readonly clock: HostClock
  readonly engine: SimulatedRuntime
  readonly kernel = new SimulatedDataPlane()
  readonly description: Omit<NodeDescription, 'skepVersion' | 'tls' | 'hostSubnets'>
  /** Whether the machine has power. */
  isUp = true
  /** Whether its engine is kept from answering. */
  isEngineAway = false
  /** Its node was removed from the cluster. */
  isRemoved = false
  /** What its daemon is, by what it wrote to its disk. */
  role: NodeRole = 'worker'
  /** Its member of the managers' etcd, if it has one. */
  memberId: string | undefined
  /** That hangs. */
  isEtcdPaused = false
  etcdState = 'down'
  /** Addresses of managers as its daemon last heard: on its disk. */
  managersKnown: readonly string[] = []
  /** What its agent was told last, as far as that is on its disk. */
  journaled: JournalEntry | undefined
  /** Was there when the cluster was made. */
  isFounder = false
  /** When something last kept its daemon from doing its part, in true ms. */
  troubledAtMs = 0

  constructor(options: {
    readonly name: string
    readonly nodeId: NodeId
    readonly time: SimulatedTime
    readonly chance: Chance
    readonly hardware: Hardware
    readonly behave: (assignment: TaskAssignment) => SimulatedBehaviour
    readonly isCalm: (assignment: TaskAssignment) => boolean
  }) {
    const { name, nodeId, time, chance, hardware, behave, isCalm } = options
    this.name = name
    this.nodeId = nodeId
    this.clock = new HostClock(time)
    const plain = simulatedDescription(name)
    this.description = {
      ...plain,
      resources: {
        nanoCpus: hardware.nanoCpus,
        memoryBytes: hardware.memoryBytes,
        generic: hardware.gpus > 0 ? [{ kind: 'gpu', value: hardware.gpus }] : [],
      },
    }
    // The engine is a process of its own, which only the loss of power ends.
    const engineProcess = new SimulatedProcess(time, this.clock, `engine of ${name}`)
    this.engine = openSimulatedRuntime({
      clock: engineProcess.clock,
      random: chance,
      nodeId,
      description: this.description,
      behave,
      isCalm,
    })
  }
}
