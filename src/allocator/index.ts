export {
  Allocator,
  type AllocatorDecision,
  changesFor,
} from './allocator.ts'
