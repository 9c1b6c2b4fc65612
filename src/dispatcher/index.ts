export { networkAssignment, type Unseal } from './assignments.ts'
export { Dispatcher, type DispatcherOptions } from './dispatcher.ts'
export { decideTraffic, isServed } from './traffic.ts'
