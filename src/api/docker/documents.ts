import {
  always,
  anything,
  base64,
  flag,
  int,
  kept,
  list,
  map,
  type Read,
  real,
  record,
  text,
  uint,
} from './shape.ts'

/** The Engine API's request bodies, in its own words. Source: Docker Engine API 1.41 to 1.50. */

const driver = record({ Name: text, Options: map(text) })
const labels = always(map(text), {})

const mount = record({
  Type: text,
  Source: text,
  Target: text,
  ReadOnly: flag,
  Consistency: text,
  BindOptions: record({
    Propagation: text,
    NonRecursive: flag,
    CreateMountpoint: flag,
    ReadOnlyNonRecursive: flag,
    ReadOnlyForceRecursive: flag,
  }),
  VolumeOptions: record({
    NoCopy: flag,
    Labels: map(text),
    Subpath: text,
    DriverConfig: driver,
  }),
  ImageOptions: record({ Subpath: text }),
  TmpfsOptions: record({ SizeBytes: int, Mode: uint, Options: list(list(text)) }),
  ClusterOptions: record({}),
})

const file = record({
  Name: always(text, ''),
  UID: always(text, ''),
  GID: always(text, ''),
  Mode: always(uint, 0),
})

const privileges = record({
  CredentialSpec: record({ Config: text, File: text, Registry: text }),
  SELinuxContext: record({ Disable: flag, User: text, Role: text, Type: text, Level: text }),
  Seccomp: record({ Mode: text, Profile: base64 }),
  AppArmor: record({ Mode: text }),
  NoNewPrivileges: flag,
})

const containerSpec = record({
  Image: text,
  Labels: map(text),
  Command: list(text),
  Args: list(text),
  Hostname: text,
  Env: list(text),
  Dir: text,
  User: text,
  Groups: list(text),
  Privileges: privileges,
  Init: kept(flag),
  StopSignal: text,
  TTY: flag,
  OpenStdin: flag,
  ReadOnly: flag,
  Mounts: list(mount),
  StopGracePeriod: kept(int),
  Healthcheck: record({
    Test: list(text),
    Interval: int,
    Timeout: int,
    StartPeriod: int,
    StartInterval: int,
    Retries: int,
  }),
  Hosts: list(text),
  DNSConfig: record({ Nameservers: list(text), Search: list(text), Options: list(text) }),
  Secrets: list(record({ File: file, SecretID: always(text, ''), SecretName: always(text, '') })),
  Configs: list(
    record({
      File: file,
      Runtime: record({}),
      ConfigID: always(text, ''),
      ConfigName: always(text, ''),
    }),
  ),
  Isolation: text,
  Sysctls: map(text),
  CapabilityAdd: list(text),
  CapabilityDrop: list(text),
  Ulimits: list(record({ Name: always(text, ''), Hard: always(int, 0), Soft: always(int, 0) })),
  OomScoreAdj: int,
})

const networkAttachment = record({ Target: text, Aliases: list(text), DriverOpts: map(text) })

const genericResource = record({
  NamedResourceSpec: record({ Kind: text, Value: text }),
  DiscreteResourceSpec: record({ Kind: text, Value: int }),
})

const taskTemplate = record({
  ContainerSpec: containerSpec,
  PluginSpec: anything,
  NetworkAttachmentSpec: anything,
  Resources: record({
    Limits: record({ NanoCPUs: int, MemoryBytes: int, Pids: int }),
    Reservations: record({
      NanoCPUs: int,
      MemoryBytes: int,
      GenericResources: list(genericResource),
    }),
  }),
  RestartPolicy: record({
    Condition: text,
    Delay: kept(int),
    MaxAttempts: kept(uint),
    Window: kept(int),
  }),
  Placement: record({
    Constraints: list(text),
    Preferences: list(record({ Spread: record({ SpreadDescriptor: always(text, '') }) })),
    MaxReplicas: uint,
    Platforms: list(record({ Architecture: text, OS: text })),
  }),
  Networks: list(networkAttachment),
  LogDriver: driver,
  ForceUpdate: always(uint, 0),
  Runtime: text,
})

const updateConfig = record({
  Parallelism: always(uint, 0),
  Delay: int,
  FailureAction: text,
  Monitor: int,
  MaxFailureRatio: always(real, 0),
  Order: always(text, ''),
})

const port = record({
  Name: text,
  Protocol: text,
  TargetPort: uint,
  PublishedPort: uint,
  PublishMode: text,
})

export const serviceSpec = record({
  Name: text,
  Labels: labels,
  TaskTemplate: always(taskTemplate, { ForceUpdate: 0 }),
  Mode: always(
    record({
      Replicated: record({ Replicas: kept(uint) }),
      Global: record({}),
      ReplicatedJob: record({ MaxConcurrent: kept(uint), TotalCompletions: kept(uint) }),
      GlobalJob: record({}),
    }),
    {},
  ),
  UpdateConfig: updateConfig,
  RollbackConfig: updateConfig,
  Networks: list(networkAttachment),
  EndpointSpec: record({ Mode: text, Ports: list(port) }),
})
export type ServiceSpecDocument = Read<typeof serviceSpec>
export type TaskTemplateDocument = Read<typeof taskTemplate>
export type ContainerSpecDocument = Read<typeof containerSpec>
export type MountDocument = Read<typeof mount>
export type UpdateConfigDocument = Read<typeof updateConfig>
export type PrivilegesDocument = Read<typeof privileges>

export const nodeSpec = record({
  Name: text,
  Labels: labels,
  Role: text,
  Availability: text,
})
export type NodeSpecDocument = Read<typeof nodeSpec>

export const secretSpec = record({
  Name: text,
  Labels: labels,
  Data: base64,
  Driver: driver,
  Templating: driver,
})
/** Of `POST /skep/v1/tokens`. Time in seconds; 0 is no bound. */
export const tokenWish = record({ Role: text, Labels: labels, LifeSeconds: uint, UsesMax: uint })
/** Of `POST /skep/v1/secrets/{id}/compare`. */
export const secretData = record({ Data: base64 })
export const configSpec = record({ Name: text, Labels: labels, Data: base64, Templating: driver })
export type SecretSpecDocument = Read<typeof secretSpec>
export type ConfigSpecDocument = Read<typeof configSpec>

export const swarmSpec = record({
  Name: text,
  Labels: labels,
  Orchestration: record({ TaskHistoryRetentionLimit: kept(int) }),
  Raft: record({
    SnapshotInterval: uint,
    KeepOldSnapshots: kept(uint),
    LogEntriesForSlowFollowers: uint,
    ElectionTick: int,
    HeartbeatTick: int,
  }),
  Dispatcher: record({ HeartbeatPeriod: int }),
  CAConfig: record({
    NodeCertExpiry: int,
    ExternalCAs: list(record({ Protocol: text, URL: text, Options: map(text), CACert: text })),
    SigningCACert: text,
    SigningCAKey: text,
    ForceRotate: uint,
  }),
  TaskDefaults: record({ LogDriver: driver }),
  EncryptionConfig: record({ AutoLockManagers: always(flag, false) }),
})
export type SwarmSpecDocument = Read<typeof swarmSpec>

export const swarmInit = record({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  DataPathPort: uint,
  ForceNewCluster: flag,
  Spec: swarmSpec,
  AutoLockManagers: flag,
  Availability: text,
  DefaultAddrPool: list(text),
  SubnetSize: uint,
})
export const swarmJoin = record({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  RemoteAddrs: list(text),
  JoinToken: text,
  Availability: text,
})
export const swarmUnlock = record({ UnlockKey: text })
export const backupRequest = record({ Passphrase: text })

export const networkCreate = record({
  Name: text,
  CheckDuplicate: flag,
  Driver: text,
  Scope: text,
  EnableIPv4: kept(flag),
  EnableIPv6: kept(flag),
  IPAM: record({
    Driver: text,
    Options: map(text),
    Config: list(
      record({ Subnet: text, IPRange: text, Gateway: text, AuxiliaryAddresses: map(text) }),
    ),
  }),
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: flag,
  ConfigFrom: record({ Network: text }),
  Options: map(text),
  Labels: labels,
})
export type NetworkCreateDocument = Read<typeof networkCreate>
