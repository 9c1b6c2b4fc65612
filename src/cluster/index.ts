export {
  type AttachedPlace,
  type AttachmentDesk,
  type KeptPlace,
  openRemoteDesk,
} from './attachments.ts'
export { Authority, rootsOf } from './authority.ts'
export { bridge } from './byte-bridge.ts'
export { openClusterLogs } from './cluster-logs.ts'
export {
  type ClusterPort,
  type ClusterPortOptions,
  type ManagerMembers,
  openClusterPort,
} from './cluster-port.ts'
export {
  examineNetworks,
  type NetworkReport,
  type NodeReport,
  type ReportedFinding,
} from './doctor.ts'
export { foundCluster } from './found-cluster.ts'
export {
  announceLeave,
  announceReturn,
  askToBeMember,
  confirmMember,
  fetchDataKeys,
  type Joined,
  joinCluster,
  renewCertificate,
  withdrawJoin,
} from './join.ts'
export type {
  Admission,
  AttachmentWish,
  Closing,
  ManagerAddress,
  MemberAdmission,
  SessionSettings,
} from './messages.ts'
export { parseAnswer } from './messages.ts'
export { NodeAnswers, type NodeServices } from './node-answers.ts'
export {
  isRefused,
  openTlsTransport,
  type TlsTransport,
  type TransportCredentials,
} from './real-transport.ts'
export { openReferral } from './referral.ts'
export { beginRotation, endRotation, isRotationDone } from './root-rotation.ts'
export { type ManagerWord, openRemoteLink, type RemoteLinkOptions } from './session-client.ts'
export {
  issueToken,
  openToken,
  withNewTokens,
  withoutToken,
} from './tokens.ts'
export type { Listener, Message, MessageStream, Peer, Transport, Trust } from './transport.ts'
