export {
  type CallRecord,
  type ContainerCall,
  callerHeader,
  callerOf,
  containerCallOf,
  nameCaller,
  recordOf,
  refuseCall,
} from './container-call.ts'
export { createEngineProxy, type EngineProxy } from './engine-proxy.ts'
export { replayed } from './replay.ts'
