export { selectServices } from './finish-project.ts'
export { familiarImage, pinImage } from './image-name.ts'
export type { Dialect, LoadOptions } from './load-options.ts'
export { loadProject, loadRawModel } from './load-project.ts'
export { loadStack, readStackFiles } from './load-stack.ts'
export {
  lowerCapabilities,
  type Stack,
  type StackObject,
  type StackServiceBody,
  stackImageLabel,
  stackLabel,
} from './lower.ts'
export { parseEnvFile, type StackSources } from './parse-file.ts'
export { parseShortPort } from './parse-ports.ts'
export type {
  BindOptions,
  BlkioConfig,
  BlkioLimit,
  BlkioWeight,
  Build,
  ComposeConfig,
  ComposeModel,
  ComposeNetwork,
  ComposeSecret,
  ComposeService,
  ComposeVolume,
  CredentialSpec,
  Dependency,
  DependencyCondition,
  Deploy,
  Develop,
  DeviceMapping,
  DeviceRequest,
  DiscreteResource,
  EnvFile,
  Extensions,
  ExtraHost,
  FileObjectSource,
  FileReference,
  GenericResource,
  Healthcheck,
  Hook,
  ImageOptions,
  Ipam,
  IpamPool,
  Logging,
  ModelReference,
  Placement,
  PlacementPreference,
  Port,
  PortRange,
  Project,
  Provider,
  ResourceLimits,
  ResourceReservations,
  Resources,
  RestartPolicy,
  ServiceNetwork,
  ServiceVolume,
  TmpfsOptions,
  Ulimit,
  UpdateConfig,
  VolumeOptions,
  WatchRule,
} from './project.ts'
export { raiseStackFile } from './raise.ts'
export { nearest } from './reader.ts'
export {
  type ConfigFormat,
  imageOf,
  listProject,
  type ProjectList,
  pinImages,
  renderModel,
  renderProject,
} from './render-project.ts'
export { serviceHash } from './service-hash.ts'
export type {
  ConfigReferenceBody,
  ContainerSpecBody,
  FileObjectBody,
  FileReferenceBody,
  GenericResourceBody,
  HealthcheckBody,
  LimitsBody,
  ModeBody,
  MountBody,
  NetworkAttachmentBody,
  NetworkCreateBody,
  PlacementBody,
  PortBody,
  ReservationsBody,
  RestartPolicyBody,
  SecretReferenceBody,
  ServiceSpecBody,
  TaskTemplateBody,
  UpdateConfigBody,
} from './service-spec.ts'
export { splitShellWords } from './shell-words.ts'
export { parseBytes, parseDurationNs, parseNanoCpus } from './units.ts'
