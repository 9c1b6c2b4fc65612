export { clusterLabel, taskIdLabel } from './container-body.ts'
export {
  type DockerRuntime,
  type DockerRuntimeOptions,
  openDockerRuntime,
} from './docker-runtime.ts'
export type {
  Materials,
  ObservedContainer,
  ProbeResult,
  Runtime,
  RuntimeEvent,
  StartedContainer,
} from './runtime.ts'
export { removeSecretsDir } from './task-files.ts'
export { type TemplateContext, type TemplateKind, validateTemplate } from './template.ts'
