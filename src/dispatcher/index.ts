export { dataAddressOf, drainLabel, networkAssignment, type Unseal } from './assignments.ts'
export { Dispatcher, type DispatcherOptions } from './dispatcher.ts'
export type { LivenessLimits, Predecessor, SessionEnd } from './liveness.ts'
export { decideTraffic, isServed } from './traffic.ts'
