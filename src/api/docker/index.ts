export type {
  Attachments,
  DockerApiOptions,
  EngineProxy,
  EngineReader,
  Explain,
  TaskConnection,
  TaskForward,
} from './context.ts'
export { type DockerApi, type ListenAddress, type MemoryCall, openDockerApi } from './server.ts'
