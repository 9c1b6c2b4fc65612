export {
  changesFor,
  type Placement,
  type Refusal,
  Scheduler,
  type SchedulerDecision,
} from './scheduler.ts'
export { failuresUntilAvoided, failureWindowMs } from './workload-state.ts'
