import type {
  ContainerSpecBody,
  NetworkCreateBody,
  PortBody,
  ServiceSpecBody,
} from '../compose/index.ts'

/** What the Engine API answers, as far as the command line reads it. Source: Engine API 1.41 to 1.50. */
export interface Meta {
  readonly ID: string
  readonly Version: { readonly Index: number }
  readonly CreatedAt: string
  readonly UpdatedAt: string
}

export interface ApiService extends Meta {
  readonly Spec: ServiceSpecBody
  readonly PreviousSpec?: ServiceSpecBody
  readonly Endpoint?: {
    readonly Spec?: { readonly Mode?: string }
    readonly Ports?: readonly PortBody[]
    readonly VirtualIPs?: readonly { readonly NetworkID: string; readonly Addr: string }[]
  }
  readonly UpdateStatus?: {
    readonly State?: string
    readonly StartedAt?: string
    readonly CompletedAt?: string
    readonly Message?: string
  }
  readonly ServiceStatus?: {
    readonly RunningTasks: number
    readonly DesiredTasks: number
    readonly CompletedTasks?: number
  }
  readonly JobStatus?: { readonly JobIteration: { readonly Index?: number } }
}

export interface ApiTask extends Meta {
  readonly Labels?: Readonly<Record<string, string>>
  readonly Spec: { readonly ContainerSpec?: ContainerSpecBody }
  readonly ServiceID?: string
  readonly Slot?: number
  readonly NodeID?: string
  readonly Status: {
    readonly Timestamp: string
    readonly State: string
    readonly Message?: string
    readonly Err?: string
    readonly PortStatus?: { readonly Ports?: readonly PortBody[] }
  }
  readonly DesiredState: string
  readonly JobIteration?: { readonly Index?: number }
}

export interface ApiNode extends Meta {
  readonly Spec: {
    readonly Name?: string
    readonly Labels: Readonly<Record<string, string>> | null
    readonly Role: string
    readonly Availability: string
  }
  readonly Description: {
    readonly Hostname: string
    readonly Platform: { readonly Architecture: string; readonly OS: string }
    readonly Resources: {
      readonly NanoCPUs: number
      readonly MemoryBytes: number
    }
    readonly Engine: {
      readonly EngineVersion: string
      readonly Labels?: Readonly<Record<string, string>> | null
      readonly Plugins?: readonly { readonly Type: string; readonly Name: string }[] | null
    }
  }
  readonly Status: { readonly State: string; readonly Message?: string; readonly Addr: string }
  readonly ManagerStatus?: {
    readonly Leader?: boolean
    readonly Reachability: string
    readonly Addr: string
  }
}

export interface ApiSecret extends Meta {
  readonly Spec: {
    readonly Name: string
    readonly Labels: Readonly<Record<string, string>> | null
    readonly Driver?: { readonly Name: string }
    readonly Templating?: { readonly Name?: string }
    /** base64; of a config. */
    readonly Data?: string
  }
}

export interface ApiNetwork {
  readonly Id: string
  readonly Name: string
  readonly Created: string
  readonly Scope: string
  readonly Driver: string
  readonly EnableIPv6?: boolean
  readonly Internal: boolean
  readonly Attachable: boolean
  readonly Ingress: boolean
  readonly IPAM?: NetworkCreateBody['IPAM']
  readonly Labels: Readonly<Record<string, string>> | null
}

export interface ApiInfo {
  readonly Swarm?: {
    readonly NodeID?: string
    readonly LocalNodeState?: string
    readonly ControlAvailable?: boolean
  }
}

export interface ApiSwarm extends Meta {
  readonly Spec: Readonly<Record<string, unknown>>
  readonly JoinTokens: { readonly Worker: string; readonly Manager: string }
}

export interface Explanation {
  readonly kind: string
  readonly id: string
  readonly name: string
  readonly summary: string
  readonly reasons: readonly string[]
  readonly timeline: readonly { readonly atMs: number; readonly text: string }[]
}
