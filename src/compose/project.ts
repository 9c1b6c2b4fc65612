/**
 * A Compose project as its files say it: merged, with variables put in, every short form written out, paths absolute and
 * units parsed. An absent key was not given (or is at its default, where that is said). Mappings keep the files' order.
 * Source: Compose specification, with the names of its keys; a unit ends the name.
 */
export interface Project {
  /** Lower case letters, digits, `-` and `_`; begins with a letter or digit. */
  readonly name: string
  /** Absolute: where relative paths of the files start. */
  readonly workingDirectory: string
  /** The files it was read from, absolute, in order; those of `include` and `extends` follow. */
  readonly files: readonly string[]
  /** What variables were taken from: env files under the shell's own. Holds secrets; never log it. */
  readonly environment: Readonly<Record<string, string>>
  /** Services without profiles, or with an active one. */
  readonly services: Readonly<Record<string, ComposeService>>
  /** Services whose profiles are not active. */
  readonly disabledServices: Readonly<Record<string, ComposeService>>
  /** Those a service uses, and `default` when one has no others; also those nobody uses. */
  readonly networks: Readonly<Record<string, ComposeNetwork>>
  readonly volumes: Readonly<Record<string, ComposeVolume>>
  readonly secrets: Readonly<Record<string, ComposeSecret>>
  readonly configs: Readonly<Record<string, ComposeConfig>>
  readonly models: Readonly<Record<string, ComposeModel>>
  /** The active profiles; `*` stands for all. */
  readonly profiles: readonly string[]
  /** Top-level keys that begin with `x-`, as they were written. */
  readonly extensions: Extensions
}

/** Keys that begin with `x-`, with their values as plain data. */
export type Extensions = Readonly<Record<string, unknown>>
type Texts = readonly string[]
type Pairs<V = string> = Readonly<Record<string, V>>

export interface ComposeService {
  readonly annotations?: Pairs
  /** Whether `up` shows its output. Absent: it does. */
  readonly attach?: boolean
  readonly blkioConfig?: BlkioConfig
  readonly build?: Build
  readonly capAdd?: Texts
  readonly capDrop?: Texts
  readonly cgroup?: 'host' | 'private'
  readonly cgroupParent?: string
  /** Words; a string in the file was split as a shell does. Empty: the image's command is left out. */
  readonly command?: Texts
  readonly configs?: readonly FileReference[]
  readonly containerName?: string
  readonly cpuCount?: number
  readonly cpuPercent?: number
  readonly cpuPeriodUs?: number
  readonly cpuQuotaUs?: number
  readonly cpuRtPeriodUs?: number
  readonly cpuRtRuntimeUs?: number
  readonly cpuShares?: number
  /** `cpus`, in billionths of a CPU. */
  readonly cpusNano?: number
  readonly cpuset?: string
  readonly credentialSpec?: CredentialSpec
  /** By service. Those that `links`, `volumes_from` and `service:` modes imply are among them. */
  readonly dependsOn?: Pairs<Dependency>
  readonly deploy?: Deploy
  readonly develop?: Develop
  readonly deviceCgroupRules?: Texts
  readonly devices?: readonly DeviceMapping[]
  readonly dns?: Texts
  readonly dnsOpt?: Texts
  readonly dnsSearch?: Texts
  readonly domainname?: string
  /** Words, as `command`. Empty: the image's entrypoint is left out. */
  readonly entrypoint?: Texts
  /** Already put into `environment`. */
  readonly envFiles?: readonly EnvFile[]
  /** With those of `env_file`. `null`: the variable is taken away, as an image may set it. */
  readonly environment?: Pairs<string | null>
  /** `80`, `53/udp` or `3000-3005`. */
  readonly expose?: Texts
  readonly externalLinks?: Texts
  readonly extraHosts?: readonly ExtraHost[]
  readonly gpus?: readonly DeviceRequest[]
  readonly groupAdd?: Texts
  readonly healthcheck?: Healthcheck
  readonly hostname?: string
  readonly image?: string
  readonly init?: boolean
  readonly ipc?: string
  readonly isolation?: string
  /** With those of `label_file`. */
  readonly labels?: Pairs
  /** Absolute paths, already put into `labels`. */
  readonly labelFiles?: Texts
  /** `service` or `service:alias`. */
  readonly links?: Texts
  readonly logging?: Logging
  readonly macAddress?: string
  readonly memLimitBytes?: number
  readonly memReservationBytes?: number
  /** 0 to 100. */
  readonly memSwappiness?: number
  /** Memory and swap together; -1 is without limit. */
  readonly memswapLimitBytes?: number
  readonly models?: Pairs<ModelReference>
  readonly networkMode?: string
  /** By network. A service without `network_mode` has one at least: `default`. */
  readonly networks?: Pairs<ServiceNetwork>
  readonly oomKillDisable?: boolean
  readonly oomScoreAdj?: number
  readonly pid?: string
  /** -1 is without limit. */
  readonly pidsLimit?: number
  /** `os[/arch[/variant]]`. */
  readonly platform?: string
  readonly ports?: readonly Port[]
  readonly postStart?: readonly Hook[]
  readonly preStop?: readonly Hook[]
  readonly privileged?: boolean
  readonly profiles?: Texts
  readonly provider?: Provider
  /** `always`, `never`, `missing`, `if_not_present`, `build`, `refresh`, `daily`, `weekly` or `every_<duration>`. */
  readonly pullPolicy?: string
  readonly pullRefreshAfter?: string
  readonly readOnly?: boolean
  /** `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:<times>`. */
  readonly restart?: string
  readonly runtime?: string
  readonly scale?: number
  readonly secrets?: readonly FileReference[]
  readonly securityOpt?: Texts
  readonly shmSizeBytes?: number
  readonly stdinOpen?: boolean
  readonly stopGracePeriodNs?: number
  readonly stopSignal?: string
  readonly storageOpt?: Pairs
  readonly sysctls?: Pairs
  /** `path` or `path:options`. */
  readonly tmpfs?: Texts
  readonly tty?: boolean
  readonly ulimits?: Pairs<Ulimit>
  readonly useApiSocket?: boolean
  readonly user?: string
  readonly usernsMode?: string
  readonly uts?: string
  readonly volumes?: readonly ServiceVolume[]
  /** `service[:ro]` or `container:name[:ro]`. */
  readonly volumesFrom?: Texts
  readonly workingDir?: string
  readonly extensions?: Extensions
}

export interface BlkioConfig {
  readonly deviceReadBps?: readonly BlkioLimit[]
  readonly deviceReadIops?: readonly BlkioLimit[]
  readonly deviceWriteBps?: readonly BlkioLimit[]
  readonly deviceWriteIops?: readonly BlkioLimit[]
  /** 10 to 1000. */
  readonly weight?: number
  readonly weightDevice?: readonly BlkioWeight[]
  readonly extensions?: Extensions
}

export interface BlkioLimit {
  readonly path: string
  /** Bytes or operations a second. */
  readonly rate: number
  readonly extensions?: Extensions
}

export interface BlkioWeight {
  readonly path: string
  readonly weight: number
  readonly extensions?: Extensions
}

export interface Build {
  /** Absolute, or a URL. */
  readonly context: string
  /** Relative to `context`, unless absolute. Absent: `Dockerfile`. */
  readonly dockerfile?: string
  readonly dockerfileInline?: string
  /** `null`: taken from the builder's own environment, and not there. */
  readonly args?: Pairs<string | null>
  /** `default` or `id`, with the socket or key behind it; empty: the agent of the shell. */
  readonly ssh?: Pairs
  readonly labels?: Pairs
  readonly cacheFrom?: Texts
  readonly cacheTo?: Texts
  readonly noCache?: boolean
  /** Absolute paths, URLs, `docker-image://…` or `service:…`. */
  readonly additionalContexts?: Pairs
  readonly entitlements?: Texts
  readonly extraHosts?: readonly ExtraHost[]
  readonly isolation?: string
  readonly network?: string
  readonly platforms?: Texts
  readonly privileged?: boolean
  readonly provenance?: string
  readonly pull?: boolean
  readonly sbom?: string
  readonly secrets?: readonly FileReference[]
  readonly shmSizeBytes?: number
  readonly tags?: Texts
  readonly target?: string
  readonly ulimits?: Pairs<Ulimit>
  readonly extensions?: Extensions
}

/** A secret or config given to a container. */
export interface FileReference {
  /** Its name at the top level. */
  readonly source: string
  /** Path in the container; a secret's is below `/run/secrets/` unless absolute. Absent: the source's name there (a config: `/<source>`). */
  readonly target?: string
  readonly uid?: string
  readonly gid?: string
  /** Permission bits, as 0o444. */
  readonly mode?: number
  readonly extensions?: Extensions
}

export interface CredentialSpec {
  readonly config?: string
  readonly file?: string
  readonly registry?: string
  readonly extensions?: Extensions
}

export type DependencyCondition =
  | 'service_started'
  | 'service_healthy'
  | 'service_completed_successfully'

export interface Dependency {
  readonly condition: DependencyCondition
  /** Whether it restarts when the other is restarted or made anew. Absent: it does not. */
  readonly restart?: boolean
  /** Absent: required. Not required: a dependency that can't be had is told and passed over. */
  readonly required?: boolean
  readonly extensions?: Extensions
}

export interface Deploy {
  /** Absent: replicated. */
  readonly mode?: 'replicated' | 'global' | 'replicated-job' | 'global-job'
  readonly replicas?: number
  readonly endpointMode?: string
  readonly labels?: Pairs
  readonly updateConfig?: UpdateConfig
  readonly rollbackConfig?: UpdateConfig
  readonly resources?: Resources
  readonly restartPolicy?: RestartPolicy
  readonly placement?: Placement
  readonly extensions?: Extensions
}

export interface UpdateConfig {
  readonly parallelism?: number
  readonly delayNs?: number
  readonly failureAction?: 'pause' | 'continue' | 'rollback'
  readonly monitorNs?: number
  readonly maxFailureRatio?: number
  readonly order?: 'start-first' | 'stop-first'
  readonly extensions?: Extensions
}

export interface Resources {
  readonly limits?: ResourceLimits
  readonly reservations?: ResourceReservations
  readonly extensions?: Extensions
}

export interface ResourceLimits {
  readonly cpusNano?: number
  readonly memoryBytes?: number
  readonly pids?: number
  readonly extensions?: Extensions
}

export interface ResourceReservations {
  readonly cpusNano?: number
  readonly memoryBytes?: number
  readonly genericResources?: readonly GenericResource[]
  readonly devices?: readonly DeviceRequest[]
  readonly extensions?: Extensions
}

export interface GenericResource {
  readonly discreteResourceSpec?: DiscreteResource
  readonly extensions?: Extensions
}

export interface DiscreteResource {
  readonly kind: string
  readonly value: number
  readonly extensions?: Extensions
}

/** Devices asked of a driver: of `gpus` and `deploy.resources.reservations.devices`. */
export interface DeviceRequest {
  readonly capabilities?: Texts
  readonly driver?: string
  /** -1 is all. */
  readonly count?: number
  readonly deviceIds?: Texts
  readonly options?: Pairs
  readonly extensions?: Extensions
}

export interface RestartPolicy {
  readonly condition?: 'none' | 'on-failure' | 'any'
  readonly delayNs?: number
  readonly maxAttempts?: number
  readonly windowNs?: number
  readonly extensions?: Extensions
}

export interface Placement {
  readonly constraints?: Texts
  readonly preferences?: readonly PlacementPreference[]
  readonly maxReplicasPerNode?: number
  readonly extensions?: Extensions
}

export interface PlacementPreference {
  readonly spread: string
  readonly extensions?: Extensions
}

export interface Develop {
  readonly watch?: readonly WatchRule[]
  readonly extensions?: Extensions
}

export interface WatchRule {
  /** Absolute. */
  readonly path: string
  readonly action: 'rebuild' | 'sync' | 'restart' | 'sync+restart' | 'sync+exec'
  readonly target?: string
  readonly ignore?: Texts
  readonly include?: Texts
  readonly initialSync?: boolean
  readonly exec?: Hook
  readonly extensions?: Extensions
}

export interface Hook {
  readonly command: Texts
  readonly user?: string
  readonly privileged?: boolean
  readonly workingDir?: string
  readonly environment?: Pairs<string | null>
  readonly extensions?: Extensions
}

export interface DeviceMapping {
  readonly source: string
  /** Absent: as the source. */
  readonly target?: string
  /** Of `r`, `w` and `m`. Absent: all. */
  readonly permissions?: string
  readonly extensions?: Extensions
}

export interface EnvFile {
  /** Absolute. */
  readonly path: string
  /** Absent: required. */
  readonly required?: boolean
  /** `raw`: lines as they are, without quotes and variables. */
  readonly format?: 'raw'
}

export interface ExtraHost {
  readonly host: string
  /** An address, or `host-gateway`. */
  readonly address: string
}

export interface Healthcheck {
  /** Begins with `NONE`, `CMD` or `CMD-SHELL`. */
  readonly test?: Texts
  readonly intervalNs?: number
  readonly timeoutNs?: number
  readonly startPeriodNs?: number
  readonly startIntervalNs?: number
  readonly retries?: number
  readonly disable?: boolean
  readonly extensions?: Extensions
}

export interface Logging {
  readonly driver?: string
  readonly options?: Pairs
  readonly extensions?: Extensions
}

export interface ModelReference {
  readonly endpointVar?: string
  readonly modelVar?: string
  readonly extensions?: Extensions
}

export interface ServiceNetwork {
  readonly aliases?: Texts
  readonly interfaceName?: string
  readonly ipv4Address?: string
  readonly ipv6Address?: string
  readonly linkLocalIps?: Texts
  readonly macAddress?: string
  readonly driverOpts?: Pairs
  /** Networks are joined from the highest down. Absent: 0. */
  readonly priority?: number
  readonly gwPriority?: number
  readonly extensions?: Extensions
}

export interface Port {
  readonly name?: string
  /** Absent: `ingress`. */
  readonly mode?: 'host' | 'ingress'
  readonly hostIp?: string
  readonly target: number
  /** Absent: one that the engine chooses. Of a range, the first that is free. */
  readonly published?: PortRange
  /** Absent: `tcp`. */
  readonly protocol?: 'tcp' | 'udp' | 'sctp'
  readonly appProtocol?: string
  readonly extensions?: Extensions
}

export interface PortRange {
  readonly first: number
  /** As `first` where it is one port. */
  readonly last: number
}

export interface Provider {
  readonly type: string
  readonly options?: Pairs<string | Texts>
  readonly extensions?: Extensions
}

export interface Ulimit {
  /** -1 is without limit. */
  readonly soft: number
  readonly hard: number
}

export interface ServiceVolume {
  readonly type: 'bind' | 'volume' | 'tmpfs' | 'cluster' | 'npipe' | 'image'
  /** An absolute path, the name of a top-level volume, or an image. Absent: a volume without a name. */
  readonly source?: string
  readonly target: string
  readonly readOnly?: boolean
  readonly consistency?: string
  readonly bind?: BindOptions
  readonly volume?: VolumeOptions
  readonly tmpfs?: TmpfsOptions
  readonly image?: ImageOptions
  readonly extensions?: Extensions
}

export interface BindOptions {
  readonly propagation?: string
  /** Absent: it is not made (the short form makes it, and says so here). */
  readonly createHostPath?: boolean
  readonly recursive?: 'enabled' | 'disabled' | 'writable' | 'readonly'
  /** `z`: shared by containers, `Z`: of one. */
  readonly selinux?: 'z' | 'Z'
  readonly extensions?: Extensions
}

export interface VolumeOptions {
  readonly labels?: Pairs
  readonly nocopy?: boolean
  readonly subpath?: string
  readonly extensions?: Extensions
}

export interface TmpfsOptions {
  readonly sizeBytes?: number
  /** Permission bits. */
  readonly mode?: number
  readonly extensions?: Extensions
}

export interface ImageOptions {
  readonly subpath?: string
  readonly extensions?: Extensions
}

export interface ComposeNetwork {
  /** As the engine knows it: `<project>_<key>` unless the file names it. */
  readonly name: string
  /** It has to be there already. */
  readonly external: boolean
  readonly driver?: string
  readonly driverOpts?: Pairs
  readonly ipam?: Ipam
  readonly internal?: boolean
  readonly attachable?: boolean
  readonly enableIpv4?: boolean
  readonly enableIpv6?: boolean
  readonly labels?: Pairs
  readonly extensions?: Extensions
}

export interface Ipam {
  readonly driver?: string
  readonly config?: readonly IpamPool[]
  readonly options?: Pairs
  readonly extensions?: Extensions
}

export interface IpamPool {
  readonly subnet?: string
  readonly ipRange?: string
  readonly gateway?: string
  readonly auxAddresses?: Pairs
  readonly extensions?: Extensions
}

export interface ComposeVolume {
  /** As the engine knows it: `<project>_<key>` unless the file names it. */
  readonly name: string
  /** It has to be there already. */
  readonly external: boolean
  readonly driver?: string
  readonly driverOpts?: Pairs
  readonly labels?: Pairs
  readonly extensions?: Extensions
}

/** Where the bytes of a secret or config come from. */
export type FileObjectSource =
  /** The cluster has it already. */
  | { readonly type: 'external' }
  /** An absolute path. */
  | { readonly type: 'file'; readonly path: string }
  /** The value of a variable of `Project.environment`; a missing one is told when it is used. */
  | { readonly type: 'environment'; readonly variable: string }
  | { readonly type: 'content'; readonly content: string }
  | { readonly type: 'driver'; readonly driver: string; readonly driverOpts?: Pairs }

export interface ComposeSecret {
  /** As the cluster knows it: `<project>_<key>` unless the file names it. */
  readonly name: string
  readonly source: FileObjectSource
  readonly labels?: Pairs
  readonly templateDriver?: string
  readonly extensions?: Extensions
}

export type ComposeConfig = ComposeSecret

export interface ComposeModel {
  readonly name: string
  readonly model: string
  readonly contextSize?: number
  readonly runtimeFlags?: Texts
  readonly extensions?: Extensions
}
