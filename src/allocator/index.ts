export {
  Allocator,
  type AllocatorDecision,
  changesFor,
  dynamicPorts,
  vniFirst,
} from './allocator.ts'
