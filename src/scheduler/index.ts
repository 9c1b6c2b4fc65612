export {
  changesFor,
  Scheduler,
  type SchedulerDecision,
} from './scheduler.ts'
