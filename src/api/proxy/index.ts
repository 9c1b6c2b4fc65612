export { createEngineProxy, type EngineProxy, proxyIdleSocketsMax } from './engine-proxy.ts'
