export type { Action, CreateTask, Decision } from './actions.ts'
export { changesInParts } from './changes.ts'
export { decideInParts } from './decide.ts'
export { observeDrain } from './drain.ts'
export { type Explanation, explainTask, explainWorkload } from './explain.ts'
export { decideNode, decideOrphans, type Housekeeping } from './housekeeping.ts'
export {
  decideRebalance,
  isRebalanceWanted,
  type Move,
  planRebalance,
  type RebalanceDecision,
  rebalanceLabel,
} from './rebalance.ts'
export { type NodeSet, nodesAsFirstSeen, observeWorkload, type WorkloadSlice } from './slice.ts'
export { parseStartAfter, startAfterLabel } from './start-order.ts'
