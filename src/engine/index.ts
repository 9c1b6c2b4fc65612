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
export {
  apiVersionMax,
  apiVersionMin,
  type Engine,
  isOlderApi,
  openEngine,
  splitReference,
} from './engine.ts'
export { demultiplex, FrameReader, frameBytesMax, type OutputFrame } from './frames.ts'
export { jsonLineBytesMax, readJsonLines, readLines } from './lines.ts'
