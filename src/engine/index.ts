export {
  connectOptionsOf,
  type EngineAddress,
  formatEngineAddress,
  parseEngineAddress,
} from './address.ts'
export type {
  ContainerCreateBody,
  ContainerInspect,
  ContainerListItem,
  ContainerProcesses,
  ContainerState,
  EndpointBody,
  EngineEvent,
  EngineFilters,
  EngineInfo,
  EngineVersion,
  ExecCreateBody,
  ExecInspect,
  HealthConfigBody,
  HostConfigBody,
  ImageBuildQuery,
  ImageInspect,
  ImageListItem,
  MountBody,
  NetworkBody,
  NetworkCreateBody,
  PortBinding,
  PortMap,
  PullProgress,
  VolumeBody,
  VolumeCreateBody,
} from './bodies.ts'
export { type Engine, isOlderApi, openEngine } from './engine.ts'
export { FrameReader, type OutputFrame } from './frames.ts'
export { readJsonLines, readLines } from './lines.ts'
