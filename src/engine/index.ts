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
export { readLines } from './lines.ts'
