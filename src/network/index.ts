export { bridgeName } from './bridge-name.ts'
export type { DataPlane, DesiredNetwork, LocalTask } from './data-plane.ts'
export { type EngineNetworks, networkIdLabel } from './engine-networks.ts'
export { type LinuxDataPlaneOptions, openLinuxDataPlane } from './linux-data-plane.ts'
