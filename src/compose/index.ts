export { familiarImage, pinImage } from './image-name.ts'
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
export { raiseStackFile } from './raise.ts'
export { nearest } from './reader.ts'
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
