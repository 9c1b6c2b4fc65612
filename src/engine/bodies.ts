/**
 * The Engine API's words for what Skep sends and reads. Source: Docker Engine API 1.41 to 1.50. Only the parts in use;
 * what an engine may leave out is optional.
 */

export interface EngineVersion {
  readonly Version: string
  readonly ApiVersion: string
  readonly MinAPIVersion?: string
  readonly Os: string
  readonly Arch: string
  readonly KernelVersion?: string
}

export interface EngineInfo {
  readonly ID: string
  readonly Name: string
  readonly ServerVersion: string
  readonly NCPU: number
  readonly MemTotal: number
  readonly OSType: string
  readonly Architecture: string
  readonly OperatingSystem: string
  readonly Labels?: readonly string[] | null
  readonly DockerRootDir: string
  readonly CgroupVersion?: string
  readonly SecurityOptions?: readonly string[] | null
  readonly Plugins?: {
    readonly Volume?: readonly string[] | null
    readonly Network?: readonly string[] | null
    readonly Log?: readonly string[] | null
    readonly Authorization?: readonly string[] | null
  }
  readonly GenericResources?: readonly {
    readonly NamedResourceSpec?: { readonly Kind: string; readonly Value: string }
    readonly DiscreteResourceSpec?: { readonly Kind: string; readonly Value: number }
  }[]
}

export interface HealthConfigBody {
  readonly Test?: readonly string[]
  /** Durations in ns; 0 or absent: the image's, or the engine's default. */
  readonly Interval?: number
  readonly Timeout?: number
  readonly StartPeriod?: number
  readonly StartInterval?: number
  readonly Retries?: number
}

export interface PortBinding {
  readonly HostIp?: string
  readonly HostPort?: string
}
export type PortMap = Readonly<Record<string, readonly PortBinding[] | null>>

export interface MountBody {
  readonly Type: 'bind' | 'volume' | 'tmpfs' | 'image'
  readonly Source?: string
  readonly Target: string
  readonly ReadOnly?: boolean
  readonly BindOptions?: {
    readonly Propagation?: string
    readonly NonRecursive?: boolean
    readonly CreateMountpoint?: boolean
    readonly ReadOnlyNonRecursive?: boolean
    readonly ReadOnlyForceRecursive?: boolean
  }
  readonly VolumeOptions?: {
    readonly NoCopy?: boolean
    readonly Labels?: Readonly<Record<string, string>>
    readonly Subpath?: string
    readonly DriverConfig?: {
      readonly Name: string
      readonly Options: Readonly<Record<string, string>>
    }
  }
  /** From API 1.48 on. */
  readonly ImageOptions?: { readonly Subpath?: string }
  readonly TmpfsOptions?: {
    readonly SizeBytes?: number
    readonly Mode?: number
    readonly Options?: readonly (readonly string[])[]
  }
}

export interface EndpointBody {
  readonly IPAMConfig?: {
    readonly IPv4Address?: string
    readonly IPv6Address?: string
    readonly LinkLocalIPs?: readonly string[]
  }
  /** `container:alias`. */
  readonly Links?: readonly string[]
  /** From API 1.48 on. */
  readonly GwPriority?: number
  readonly Aliases?: readonly string[]
  readonly MacAddress?: string
  readonly DriverOpts?: Readonly<Record<string, string>>
}

export interface HostConfigBody {
  readonly Binds?: readonly string[]
  readonly Mounts?: readonly MountBody[]
  readonly NetworkMode?: string
  readonly PortBindings?: PortMap
  readonly RestartPolicy?: { readonly Name: string; readonly MaximumRetryCount?: number }
  readonly LogConfig?: { readonly Type: string; readonly Config: Readonly<Record<string, string>> }
  readonly NanoCpus?: number
  readonly Memory?: number
  readonly MemoryReservation?: number
  readonly PidsLimit?: number
  readonly Ulimits?: readonly {
    readonly Name: string
    readonly Soft: number
    readonly Hard: number
  }[]
  readonly CapAdd?: readonly string[]
  readonly CapDrop?: readonly string[]
  readonly SecurityOpt?: readonly string[]
  readonly Sysctls?: Readonly<Record<string, string>>
  readonly Dns?: readonly string[]
  readonly DnsSearch?: readonly string[]
  readonly DnsOptions?: readonly string[]
  readonly ExtraHosts?: readonly string[]
  readonly GroupAdd?: readonly string[]
  readonly Init?: boolean
  readonly ReadonlyRootfs?: boolean
  readonly OomScoreAdj?: number
  readonly Isolation?: string
  readonly Tmpfs?: Readonly<Record<string, string>>
  readonly AutoRemove?: boolean
  readonly Privileged?: boolean
  /** From API 1.43 on. */
  readonly Annotations?: Readonly<Record<string, string>>
  readonly BlkioWeight?: number
  readonly BlkioWeightDevice?: readonly { readonly Path: string; readonly Weight: number }[]
  readonly BlkioDeviceReadBps?: readonly ThrottleBody[]
  readonly BlkioDeviceReadIOps?: readonly ThrottleBody[]
  readonly BlkioDeviceWriteBps?: readonly ThrottleBody[]
  readonly BlkioDeviceWriteIOps?: readonly ThrottleBody[]
  readonly Cgroup?: string
  readonly CgroupnsMode?: string
  readonly CgroupParent?: string
  readonly CpuCount?: number
  readonly CpuPercent?: number
  readonly CpuPeriod?: number
  readonly CpuQuota?: number
  readonly CpuRealtimePeriod?: number
  readonly CpuRealtimeRuntime?: number
  readonly CpuShares?: number
  readonly CpusetCpus?: string
  readonly DeviceCgroupRules?: readonly string[]
  readonly Devices?: readonly {
    readonly PathOnHost: string
    readonly PathInContainer: string
    readonly CgroupPermissions: string
  }[]
  readonly DeviceRequests?: readonly {
    readonly Driver?: string
    readonly Count?: number
    readonly DeviceIDs?: readonly string[]
    readonly Capabilities?: readonly (readonly string[])[]
    readonly Options?: Readonly<Record<string, string>>
  }[]
  readonly IpcMode?: string
  readonly Links?: readonly string[]
  readonly MemorySwap?: number
  readonly MemorySwappiness?: number
  readonly OomKillDisable?: boolean
  readonly PidMode?: string
  readonly Runtime?: string
  readonly ShmSize?: number
  readonly StorageOpt?: Readonly<Record<string, string>>
  readonly UTSMode?: string
  readonly UsernsMode?: string
  readonly VolumesFrom?: readonly string[]
}

/** At most `Rate` bytes or operations a second on a device. */
export interface ThrottleBody {
  readonly Path: string
  readonly Rate: number
}

export interface ContainerCreateBody {
  readonly Image: string
  readonly Entrypoint?: readonly string[]
  readonly Cmd?: readonly string[]
  readonly Env?: readonly string[]
  readonly Labels?: Readonly<Record<string, string>>
  readonly Hostname?: string
  readonly Domainname?: string
  readonly User?: string
  readonly WorkingDir?: string
  readonly Tty?: boolean
  readonly OpenStdin?: boolean
  /** Standard input ends with the first that was attached. */
  readonly StdinOnce?: boolean
  readonly AttachStdin?: boolean
  readonly AttachStdout?: boolean
  readonly AttachStderr?: boolean
  /** Anonymous volumes, by path. */
  readonly Volumes?: Readonly<Record<string, Record<string, never>>>
  readonly StopSignal?: string
  /** Seconds. */
  readonly StopTimeout?: number
  readonly ExposedPorts?: Readonly<Record<string, Record<string, never>>>
  readonly Healthcheck?: HealthConfigBody
  /** Before API 1.44 the address of the first network is set here. */
  readonly MacAddress?: string
  readonly HostConfig?: HostConfigBody
  readonly NetworkingConfig?: { readonly EndpointsConfig: Readonly<Record<string, EndpointBody>> }
}

export interface ContainerState {
  readonly Status: 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead'
  readonly Running: boolean
  readonly Paused: boolean
  readonly OOMKilled: boolean
  readonly Dead: boolean
  readonly Pid: number
  readonly ExitCode: number
  readonly Error: string
  /** RFC 3339; `0001-01-01T00:00:00Z` when it never happened. */
  readonly StartedAt: string
  readonly FinishedAt: string
  readonly Health?: {
    readonly Status: 'none' | 'starting' | 'healthy' | 'unhealthy' | ''
    readonly FailingStreak: number
    readonly Log?: readonly { readonly ExitCode: number; readonly Output: string }[] | null
  }
}

export interface ContainerInspect {
  readonly Id: string
  readonly Name: string
  /** Id of the image. */
  readonly Image: string
  readonly Created: string
  readonly State: ContainerState
  readonly Config: {
    readonly Image: string
    readonly Hostname: string
    readonly User: string
    readonly Tty: boolean
    readonly OpenStdin?: boolean
    readonly Env?: readonly string[] | null
    readonly Cmd?: readonly string[] | null
    readonly Entrypoint?: readonly string[] | null
    readonly Labels?: Readonly<Record<string, string>> | null
    readonly Healthcheck?: HealthConfigBody
    readonly ExposedPorts?: Readonly<Record<string, unknown>> | null
    readonly StopSignal?: string
    /** Of the image, for CMD-SHELL. */
    readonly Shell?: readonly string[] | null
  }
  readonly HostConfig: HostConfigBody
  readonly Mounts?: readonly {
    readonly Type: string
    readonly Name?: string
    readonly Source: string
    readonly Destination: string
    readonly RW: boolean
  }[]
  readonly NetworkSettings: {
    readonly Ports?: PortMap | null
    readonly Networks?: Readonly<
      Record<
        string,
        {
          readonly NetworkID: string
          readonly IPAddress: string
          readonly MacAddress: string
          readonly Aliases?: readonly string[] | null
        }
      >
    > | null
  }
}

export interface ContainerListItem {
  readonly Id: string
  readonly Names: readonly string[]
  readonly Image: string
  readonly Labels?: Readonly<Record<string, string>> | null
  readonly State: string
  readonly Status: string
  readonly ImageID?: string
  readonly Command?: string
  /** Seconds since 1970. */
  readonly Created?: number
  readonly Ports?:
    | readonly {
        readonly IP?: string
        readonly PrivatePort: number
        readonly PublicPort?: number
        readonly Type: string
      }[]
    | null
  readonly NetworkSettings?: {
    readonly Networks?: Readonly<Record<string, { readonly NetworkID?: string } | null>> | null
  }
  readonly Mounts?: readonly {
    readonly Type: string
    readonly Name?: string
    readonly Source?: string
    readonly Destination: string
  }[]
}

/** What runs in a container, as `ps` tells it. */
export interface ContainerProcesses {
  readonly Titles: readonly string[]
  readonly Processes: readonly (readonly string[])[] | null
}

/** Source: Docker Engine API 1.41, ImageBuild. */
export interface ImageBuildQuery {
  readonly dockerfile?: string
  readonly t?: string
  readonly q?: boolean
  readonly nocache?: boolean
  readonly pull?: boolean
  readonly rm?: boolean
  readonly forcerm?: boolean
  readonly target?: string
  readonly networkmode?: string
  readonly platform?: string
  readonly extrahosts?: string
  readonly shmsize?: number
  readonly isolation?: string
  /** Absent or a URL: the context is not in the body. */
  readonly remote?: string
  /** `null`: the value of the engine's own environment. */
  readonly buildargs?: Readonly<Record<string, string | null>>
  readonly labels?: Readonly<Record<string, string>>
  readonly cachefrom?: readonly string[]
}

export interface ExecInspect {
  readonly ID: string
  readonly ContainerID: string
  readonly Running: boolean
  readonly ExitCode: number | null
  /** On the host. 0 before the start. */
  readonly Pid: number
}

export interface ExecCreateBody {
  readonly Cmd: readonly string[]
  readonly AttachStdin?: boolean
  readonly AttachStdout?: boolean
  readonly AttachStderr?: boolean
  readonly Tty?: boolean
  readonly Env?: readonly string[]
  readonly User?: string
  readonly WorkingDir?: string
  readonly Privileged?: boolean
}

export interface ImageInspect {
  readonly Id: string
  readonly RepoTags?: readonly string[] | null
  readonly RepoDigests?: readonly string[] | null
  readonly Architecture: string
  readonly Os: string
  readonly Size: number
  readonly Config?: {
    readonly Healthcheck?: HealthConfigBody
    readonly ExposedPorts?: Readonly<Record<string, unknown>> | null
    readonly Labels?: Readonly<Record<string, string>> | null
    readonly User?: string
    readonly Cmd?: readonly string[] | null
    readonly Entrypoint?: readonly string[] | null
    readonly Volumes?: Readonly<Record<string, unknown>> | null
  } | null
  readonly Created?: string
  readonly Variant?: string
  /** When this engine pulled, built or tagged it, as RFC 3339. */
  readonly Metadata?: { readonly LastTagTime?: string }
}

export interface ImageListItem {
  readonly Id: string
  readonly RepoTags?: readonly string[] | null
  readonly RepoDigests?: readonly string[] | null
  readonly Created: number
  readonly Size: number
}

export interface PullProgress {
  readonly id?: string
  readonly status?: string
  readonly progressDetail?: { readonly current?: number; readonly total?: number }
  readonly error?: string
}

export interface NetworkBody {
  readonly Id: string
  readonly Name: string
  readonly Driver: string
  readonly Scope: string
  readonly Internal: boolean
  readonly Attachable: boolean
  readonly Ingress: boolean
  readonly EnableIPv6: boolean
  readonly Created?: string
  readonly IPAM: {
    readonly Driver: string
    readonly Config?: readonly { readonly Subnet?: string; readonly Gateway?: string }[] | null
  }
  readonly Options?: Readonly<Record<string, string>> | null
  readonly Labels?: Readonly<Record<string, string>> | null
  readonly Containers?: Readonly<
    Record<
      string,
      {
        readonly Name: string
        readonly EndpointID: string
        readonly MacAddress: string
        readonly IPv4Address: string
        readonly IPv6Address: string
      }
    >
  > | null
}

export interface NetworkCreateBody {
  readonly Name: string
  readonly Driver?: string
  readonly Internal?: boolean
  readonly Attachable?: boolean
  readonly EnableIPv6?: boolean
  readonly CheckDuplicate?: boolean
  readonly IPAM?: {
    readonly Driver?: string
    readonly Config?: readonly {
      readonly Subnet?: string
      readonly IPRange?: string
      readonly Gateway?: string
      readonly AuxiliaryAddresses?: Readonly<Record<string, string>>
    }[]
    readonly Options?: Readonly<Record<string, string>>
  }
  readonly EnableIPv4?: boolean
  readonly Options?: Readonly<Record<string, string>>
  readonly Labels?: Readonly<Record<string, string>>
}

export interface VolumeBody {
  readonly Name: string
  readonly Driver: string
  readonly Mountpoint: string
  readonly Labels?: Readonly<Record<string, string>> | null
  readonly Options?: Readonly<Record<string, string>> | null
  readonly Scope: string
}

export interface VolumeCreateBody {
  readonly Name?: string
  readonly Driver?: string
  readonly DriverOpts?: Readonly<Record<string, string>>
  readonly Labels?: Readonly<Record<string, string>>
}

export interface EngineEvent {
  readonly Type: string
  readonly Action: string
  readonly Actor: { readonly ID: string; readonly Attributes?: Readonly<Record<string, string>> }
  readonly scope?: string
  readonly time: number
  readonly timeNano: number
}

/** Filters of lists and events: every key must match, one value of each is enough (all of `label`). */
export type EngineFilters = Readonly<Record<string, readonly string[]>>
