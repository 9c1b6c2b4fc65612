export {
  Allocator,
  type AllocatorDecision,
  changesFor,
} from './allocator.ts'
export { type AddressUsage, countAddresses } from './usage.ts'
