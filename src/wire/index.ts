export {
  type AssignmentChange,
  type Assignments,
  applyChange,
  type Backend,
  type ConfigAssignment,
  type Delta,
  type EndpointAssignment,
  type NeighbourAssignment,
  type NetworkAssignment,
  type SecretAssignment,
  type TaskAssignment,
} from './assignment.ts'
export {
  type NetworkExaminer,
  type NetworkFinding,
  type NodeExamination,
  type PathCounts,
  type PathProbe,
  type PathProbeOrder,
  pathSendersMax,
} from './examination.ts'
export {
  type EndpointHead,
  type FeedChange,
  type FeedId,
  type FeedPart,
  feedOfAddresses,
  feedOfEndpoint,
  feedOfNodes,
  type HeldFeeds,
  isOfEndpoints,
  publishedFeed,
} from './feed.ts'
export {
  type LogLine,
  type LogOptions,
  type LogSource,
  type ManagerLink,
  type Session,
  sessionOver,
  type TaskReport,
} from './session.ts'
