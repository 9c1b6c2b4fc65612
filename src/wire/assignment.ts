import type {
  ConfigId,
  EndpointId,
  IngressPolicy,
  Ipv6Block,
  NetworkId,
  NodeId,
  PortSpec,
  SecretId,
  Task,
  TaskId,
  TaskTemplate,
  WorkloadId,
} from '../model/index.ts'
import { applyFeeds, type FeedChange, type FeedFacts, type FeedId, type HeldFeeds } from './feed.ts'

/** A task as its node needs it: with its template, and the words that templates and labels are made of. */
export interface TaskAssignment {
  readonly task: Task
  readonly template: TaskTemplate
  readonly workload: {
    readonly id: WorkloadId
    readonly name: string
    readonly labels: Readonly<Record<string, string>>
  }
  /** `<workload>.<slot or node id>.<task id>` */
  readonly name: string
  /** `X-Registry-Auth` header value for pulls. Held in memory only. */
  readonly registryAuth?: string
  /** Predefined networks (`host`, `bridge`, `none`) it is attached to, by the engine's own name. */
  readonly engineNetworks: readonly { readonly networkId: NetworkId; readonly engineName: string }[]
  /** Ports the engine itself must publish (host mode). */
  readonly hostPorts: readonly PortSpec[]
  /** What is used when the template names no log driver. */
  readonly defaultLogDriver?: {
    readonly name: string
    readonly options: Readonly<Record<string, string>>
  }
  /**
   * The container ports that endpoints send to, by protocol: what to watch for open connections while draining.
   */
  readonly endpointPorts: readonly {
    readonly protocol: 'tcp' | 'udp' | 'sctp'
    readonly port: number
  }[]
  /**
   * Once traffic is `none` and the task is to stop: how long its open connections may take to end before the stop
   * signal, in ms. 0 when nobody else would take new ones.
   */
  readonly drainMs: number
  /** The node stops the task by itself when it has had no manager in reach for this long, in ms. */
  readonly stopAfterMs?: number
}

/** Plain bytes, in memory only, for tasks that refer to them. */
export interface SecretAssignment {
  readonly id: SecretId
  readonly name: string
  readonly data: Uint8Array
  readonly templating?: string
}
export interface ConfigAssignment {
  readonly id: ConfigId
  readonly name: string
  readonly data: Uint8Array
  readonly templating?: string
}

/** A cluster network that must exist on this node. */
export interface NetworkAssignment {
  readonly id: NetworkId
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly subnet: string
  readonly gateway: string
  /** Every address of the subnet has one here too (`ipv6Of`). Absent: the network has IPv4 alone. */
  readonly ipv6?: Ipv6Block
  readonly internal: boolean
  readonly attachable: boolean
  readonly ingress: boolean
  /** What goes between nodes is encrypted, or not sent. Absent: no. */
  readonly encrypted?: boolean
  readonly options: Readonly<Record<string, string>>
  readonly vni: number
  /** This node's own address there, which it sends from to tasks on other nodes: on the ingress network. */
  readonly nodeAddress?: { readonly address: string; readonly mac: string }
}

/** Where an address of a cluster network is, when it is on another node. */
export interface NeighbourAssignment {
  /** `<network id>/<address>` */
  readonly id: string
  readonly networkId: NetworkId
  readonly address: string
  readonly mac: string
  readonly nodeId: NodeId
  /** Where that node takes the packets of cluster networks. */
  readonly nodeAddress: string
  /** On an encrypted network: by what its node is known where packets are encrypted. Absent: it can't be reached there. */
  readonly publicKey?: string
  /** Its node is down, and nothing is heard of it any more: what is sent there is lost. */
  readonly isLost?: true
  /** What resolves to the address: of a plain container, which no endpoint stands for. */
  readonly names?: readonly string[]
  /** An address that a node itself sends from: only nodes with a task there answer to it. */
  readonly isOfNode?: true
}

/** An endpoint that this node routes to: its names, addresses and the tasks that may get traffic now. */
export interface EndpointAssignment {
  readonly id: EndpointId
  /** The workload's name: what resolves to the VIP. */
  readonly name: string
  readonly mode: 'vip' | 'dnsrr'
  readonly networks: readonly {
    readonly networkId: NetworkId
    /** Absent in dnsrr mode. */
    readonly vip?: string
    readonly aliases: readonly string[]
  }[]
  /** Every node routes to it, whatever its networks. */
  readonly published?: true
  /** Ingress-mode ports, numbers decided. */
  readonly ports: readonly PortSpec[]
  /** Absent: `preserve`. */
  readonly ingress?: IngressPolicy
  readonly backends: readonly Backend[]
}

/** One routable task behind an endpoint. */
export interface Backend {
  readonly taskId: TaskId
  readonly taskName: string
  readonly nodeId: NodeId
  readonly weight: number
  /** By network id. */
  readonly addresses: Readonly<Record<string, string>>
}

/** All that one node has to know. Never mutated. */
export interface Assignments {
  /** Of the last change that is in it. */
  readonly sequence: number
  readonly node: {
    readonly id: NodeId
    readonly clusterId: string
    readonly hostname: string
    readonly platform: { readonly architecture: string; readonly os: string }
    /** Where it takes the packets of cluster networks. Absent: nobody knows yet. */
    readonly dataPath?: { readonly address: string; readonly port: number }
  }
  readonly tasks: ReadonlyMap<TaskId, TaskAssignment>
  readonly secrets: ReadonlyMap<SecretId, SecretAssignment>
  readonly configs: ReadonlyMap<ConfigId, ConfigAssignment>
  readonly networks: ReadonlyMap<NetworkId, NetworkAssignment>
  readonly endpoints: ReadonlyMap<EndpointId, EndpointAssignment>
  /** By id. Of this node's networks; its own addresses are not among them. */
  readonly neighbours: ReadonlyMap<string, NeighbourAssignment>
  /** Where endpoints and neighbours come from. */
  readonly feeds: HeldFeeds
}

/** What has changed since the last message. `full`: forget everything else. */
export interface AssignmentChange {
  readonly full: boolean
  /** Which change of its session it is; grows. */
  readonly sequence: number
  readonly node: Assignments['node']
  readonly tasks: Delta<TaskId, TaskAssignment>
  readonly secrets: Delta<SecretId, SecretAssignment>
  readonly configs: Delta<ConfigId, ConfigAssignment>
  readonly networks: Delta<NetworkId, NetworkAssignment>
  /** Endpoints and neighbours. */
  readonly feeds: Delta<FeedId, FeedChange>
}
export interface Delta<Key, Value> {
  readonly put: readonly Value[]
  readonly remove: readonly Key[]
}

/** The assignments after a change. */
export function applyChange(
  before: Assignments | undefined,
  change: AssignmentChange,
): Assignments {
  const old = change.full ? undefined : before
  return {
    sequence: change.sequence,
    node: change.node,
    tasks: applyDelta(old?.tasks, change.tasks, (assignment) => assignment.task.id),
    secrets: applyDelta(old?.secrets, change.secrets, ({ id }) => id),
    configs: applyDelta(old?.configs, change.configs, ({ id }) => id),
    networks: applyDelta(old?.networks, change.networks, ({ id }) => id),
    // A feed that the node holds already is not told again, even where all else is.
    ...pickFacts(applyFeeds(before, change.full, change.feeds, change.node.id)),
  }
}

function pickFacts({ feeds, endpoints, neighbours }: FeedFacts): FeedFacts {
  return { feeds, endpoints, neighbours }
}

function applyDelta<Key, Value>(
  before: ReadonlyMap<Key, Value> | undefined,
  delta: Delta<Key, Value>,
  keyOf: (value: Value) => Key,
): ReadonlyMap<Key, Value> {
  if (before && delta.put.length === 0 && delta.remove.length === 0) return before
  const after = new Map(before)
  for (const key of delta.remove) after.delete(key)
  for (const value of delta.put) after.set(keyOf(value), value)
  return after
}
