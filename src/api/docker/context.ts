import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock, Log, Random } from '../../base/index.ts'
import type { Control, NodeControl } from '../../control/index.ts'
import type { Engine } from '../../engine/index.ts'
import type { NetworkId, NodeId, TaskId } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { LogSource, NetworkFinding } from '../../wire/index.ts'
import type { ClusterEvents } from './events.ts'
import type { CheckTemplate } from './lower-service.ts'

/** Passes a call through to the local engine, byte for byte. */
export interface EngineProxy {
  handle(request: IncomingMessage, response: ServerResponse): void
  /** As `handle`, for a client that waits for `100 Continue` before it sends its body. */
  checkContinue(request: IncomingMessage, response: ServerResponse): void
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
}

/** What is asked of the local engine, apart from what is passed through. */
export type EngineReader = Pick<Engine, 'ping' | 'version' | 'info' | 'events'> & {
  readonly containers: Pick<Engine['containers'], 'inspect'>
  readonly networks: Pick<
    Engine['networks'],
    'list' | 'inspect' | 'connect' | 'disconnect' | 'prune'
  >
}

/** Addresses for plain containers on attachable cluster networks. */
export interface Attachments {
  /** Undefined: the cluster has no such network. */
  reserve(wish: {
    /** By id, or as a person names it. */
    readonly network: string
    readonly container: string
    readonly names: readonly string[]
    /** Of either family. */
    readonly address?: string
  }): Promise<
    | {
        readonly networkId: NetworkId
        readonly address: string
        /** Where the network has IPv6 too. */
        readonly ipv6?: string
        readonly mac: string
        readonly engineNetwork: string
        readonly nameservers: readonly string[]
      }
    | undefined
  >
  /** Gives back what is kept under any of these names. */
  release(networkId: NetworkId, containers: readonly string[]): Promise<void>
}

/** Why something is not as declared. What it answers is sent as JSON, as it is. */
export interface Explain {
  workload(view: View, id: string): unknown
  task(view: View, id: string): unknown
}

/** How the nodes' networks are, for `skep net doctor`. */
export interface NetworkReport {
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly driftCount: number
    readonly mtuBytes?: number
    readonly clockAheadMs: number
  }[]
  readonly findings: readonly (NetworkFinding & { readonly node: string })[]
  readonly pathsTested: number
}

/** A connection to a port of a task, which waits to be joined with the caller's. */
export interface TaskConnection {
  /** Carries bytes both ways until both directions have ended. Rejects when something broke. */
  join(socket: Duplex): Promise<void>
  close(): void
}

/** Connects to a TCP port of a task wherever it runs. Rejects with UserError when nothing listens there. */
export type TaskForward = (
  target: {
    readonly taskId: TaskId
    readonly nodeId: NodeId
    readonly port: number
    /** Who asked, for the records. */
    readonly by: string
  },
  signal: AbortSignal,
) => Promise<TaskConnection>

export interface DockerApiOptions {
  /** The cluster this node manages; `undefined` while there is none. */
  readonly control: () => Control | undefined
  readonly node: NodeControl
  readonly logs: LogSource
  readonly proxy: EngineProxy
  readonly engine: EngineReader
  readonly attachments: Attachments
  /** Absent where there are no tasks to reach. */
  readonly forward?: TaskForward
  readonly explain: Explain
  readonly checkTemplate: CheckTemplate
  /** Asks the nodes, as a person names them (none: all), how their networks are. */
  readonly examineNetworks: (
    wish: { readonly nodes: readonly string[]; readonly network?: string },
    signal: AbortSignal,
  ) => Promise<NetworkReport>
  /** The cluster's whole state, encrypted. Absent where there is nothing to take it from. */
  readonly backup?: (passphrase: string) => AsyncIterable<Uint8Array>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly skepVersion: string
}

/** Oldest API version that is spoken. */
export const apiVersionMin = '1.24'

export interface EngineIdentity {
  readonly apiVersion: string
  readonly osType: string
  readonly builderVersion: string | undefined
  readonly experimental: string
  readonly server: string
}

/** What every route works with. */
export interface ApiContext extends DockerApiOptions {
  readonly events: ClusterEvents
  /** The cluster, or the reason in words why this node has none to show. */
  requireControl(): Control
  identity(): Promise<EngineIdentity>
  clusterChanged(): void
}

export function commonHeaders(identity: EngineIdentity): Record<string, string> {
  return {
    'Api-Version': identity.apiVersion,
    Ostype: identity.osType,
    Server: identity.server,
    'Docker-Experimental': identity.experimental,
  }
}
