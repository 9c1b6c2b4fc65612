/** The Engine API's bodies of services, networks, secrets and configs, as a client sends them. Source: Engine API 1.41 to 1.50. */
export interface ServiceSpecBody {
  Name: string
  Labels: Record<string, string>
  TaskTemplate: TaskTemplateBody
  Mode: ModeBody
  UpdateConfig?: UpdateConfigBody
  RollbackConfig?: UpdateConfigBody
  EndpointSpec?: EndpointSpecBody
}

export interface ModeBody {
  Replicated?: { Replicas?: number }
  Global?: Record<string, never>
  ReplicatedJob?: { MaxConcurrent?: number; TotalCompletions?: number }
  GlobalJob?: Record<string, never>
}

export interface UpdateConfigBody {
  Parallelism: number
  /** Nanoseconds, as all durations here. */
  Delay?: number
  FailureAction?: string
  Monitor?: number
  MaxFailureRatio: number
  Order: string
}

export interface EndpointSpecBody {
  Mode?: string
  Ports?: PortBody[]
}

export interface PortBody {
  Name?: string
  Protocol?: string
  TargetPort?: number
  PublishedPort?: number
  PublishMode?: string
}

export interface TaskTemplateBody {
  ContainerSpec: ContainerSpecBody
  Resources?: { Limits?: LimitsBody; Reservations?: ReservationsBody }
  RestartPolicy?: RestartPolicyBody
  Placement?: PlacementBody
  Networks?: NetworkAttachmentBody[]
  LogDriver?: { Name?: string; Options?: Record<string, string> }
  ForceUpdate: number
  Runtime?: string
}

export interface LimitsBody {
  NanoCPUs?: number
  MemoryBytes?: number
  Pids?: number
}

export interface ReservationsBody {
  NanoCPUs?: number
  MemoryBytes?: number
  GenericResources?: GenericResourceBody[]
}

export interface GenericResourceBody {
  NamedResourceSpec?: { Kind: string; Value: string }
  DiscreteResourceSpec?: { Kind: string; Value: number }
}

export interface RestartPolicyBody {
  Condition?: string
  Delay?: number
  MaxAttempts?: number
  Window?: number
}

export interface PlacementBody {
  Constraints?: string[]
  Preferences?: { Spread: { SpreadDescriptor: string } }[]
  MaxReplicas?: number
  Platforms?: { Architecture?: string; OS?: string }[]
}

export interface NetworkAttachmentBody {
  Target: string
  Aliases?: string[]
  DriverOpts?: Record<string, string>
}

export interface HealthcheckBody {
  Test?: string[]
  Interval?: number
  Timeout?: number
  StartPeriod?: number
  StartInterval?: number
  Retries?: number
}

export interface MountBody {
  Type: string
  Source?: string
  Target?: string
  ReadOnly?: boolean
  Consistency?: string
  BindOptions?: {
    Propagation?: string
    NonRecursive?: boolean
    CreateMountpoint?: boolean
    ReadOnlyNonRecursive?: boolean
    ReadOnlyForceRecursive?: boolean
  }
  VolumeOptions?: {
    NoCopy?: boolean
    Labels?: Record<string, string>
    Subpath?: string
    DriverConfig?: { Name?: string; Options?: Record<string, string> }
  }
  TmpfsOptions?: { SizeBytes?: number; Mode?: number }
}

export interface FileReferenceBody {
  Name: string
  UID: string
  GID: string
  Mode: number
}

export interface SecretReferenceBody {
  File: FileReferenceBody
  SecretID: string
  SecretName: string
}

export interface ConfigReferenceBody {
  File?: FileReferenceBody
  Runtime?: Record<string, never>
  ConfigID: string
  ConfigName: string
}

export interface ContainerSpecBody {
  Image: string
  Labels?: Record<string, string>
  /** The entrypoint. */
  Command?: string[]
  /** The command. */
  Args?: string[]
  Hostname?: string
  Env?: string[]
  Dir?: string
  User?: string
  Groups?: string[]
  Privileges?: {
    CredentialSpec?: { Config?: string; File?: string; Registry?: string } | null
    SELinuxContext?: null
    NoNewPrivileges?: boolean
  }
  Init?: boolean
  StopSignal?: string
  TTY?: boolean
  OpenStdin?: boolean
  ReadOnly?: boolean
  Mounts?: MountBody[]
  StopGracePeriod?: number
  Healthcheck?: HealthcheckBody
  Hosts?: string[]
  DNSConfig?: { Nameservers?: string[]; Search?: string[]; Options?: string[] }
  Secrets?: SecretReferenceBody[]
  Configs?: ConfigReferenceBody[]
  Isolation?: string
  Sysctls?: Record<string, string>
  CapabilityAdd?: string[]
  CapabilityDrop?: string[]
  Ulimits?: { Name: string; Hard: number; Soft: number }[]
  OomScoreAdj?: number
}

export interface NetworkCreateBody {
  Name: string
  Driver: string
  Scope: string
  Internal: boolean
  Attachable: boolean
  Ingress: boolean
  ConfigOnly: boolean
  ConfigFrom: null
  EnableIPv6?: boolean
  IPAM: {
    Driver: string
    Options: null
    Config: { Subnet?: string; Gateway?: string; IPRange?: string }[]
  } | null
  Options: Record<string, string> | null
  Labels: Record<string, string>
}

/** A secret's or config's body before its data is read. */
export interface FileObjectBody {
  Name: string
  Labels: Record<string, string>
  /** Base64. */
  Data?: string
  Driver?: { Name: string; Options?: Record<string, string> }
  Templating?: { Name: string }
}
