export type {
  Attachments,
  DockerApiOptions,
  EngineProxy,
  EngineReader,
  Explain,
} from './context.ts'
export { type DockerApi, type ListenAddress, openDockerApi } from './server.ts'
