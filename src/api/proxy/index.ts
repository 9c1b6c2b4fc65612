export { createEngineProxy, type EngineProxy } from './engine-proxy.ts'
