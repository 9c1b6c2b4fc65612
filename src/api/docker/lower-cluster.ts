import { UserError } from '../../base/index.ts'
import type { ClusterDeclaration } from '../../control/index.ts'
import type { SwarmSpecDocument } from './documents.ts'
import { defaultSwarmSpec } from './raise.ts'

const nsPerMs = 1e6
const certExpiryMsMin = 3_600_000
const heartbeatMsMin = 1_000

function refuse(message: string, next?: string): never {
  throw new UserError('invalidInput', message, next ? { next } : {})
}

/** Makes a swarm spec, with defaults in the places left unset, into the cluster's. */
export function lowerCluster(given: SwarmSpecDocument): ClusterDeclaration {
  if (given.Name !== undefined && given.Name !== 'default') {
    refuse('modification of cluster name is not allowed')
  }
  const { Raft, CAConfig } = given
  if (CAConfig?.ExternalCAs && CAConfig.ExternalCAs.length > 0) {
    throw new UserError('unsupported', 'external certificate authorities are not supported', {
      next: "Leave --external-ca out: the cluster's own authority signs the certificates.",
    })
  }
  const { SigningCAKey: _secret, ...ca } = CAConfig ?? {}
  const document: SwarmSpecDocument = {
    ...given,
    Name: 'default',
    Orchestration: { ...defaultSwarmSpec.Orchestration, ...given.Orchestration },
    Raft: { ...defaultSwarmSpec.Raft, ...Raft },
    Dispatcher: { ...defaultSwarmSpec.Dispatcher, ...given.Dispatcher },
    CAConfig: { ...defaultSwarmSpec.CAConfig, ...ca },
    TaskDefaults: given.TaskDefaults ?? {},
    EncryptionConfig: { ...defaultSwarmSpec.EncryptionConfig, ...given.EncryptionConfig },
  }
  const { ElectionTick = 0, HeartbeatTick = 0 } = document.Raft ?? {}
  if (ElectionTick <= HeartbeatTick || HeartbeatTick < 1) {
    refuse('election tick should be greater than heartbeat tick, and both at least 1')
  }
  const heartbeatMs = (document.Dispatcher?.HeartbeatPeriod ?? 0) / nsPerMs
  if (heartbeatMs < 0) refuse('heartbeat time period cannot be a negative duration')
  if (heartbeatMs < heartbeatMsMin) refuse('heartbeat time period cannot be less than 1s')
  const expiryMs = (document.CAConfig?.NodeCertExpiry ?? 0) / nsPerMs
  if (expiryMs < certExpiryMsMin) refuse('minimum certificate expiry time is 1h0m0s')
  const driver = document.TaskDefaults?.LogDriver
  return {
    labels: given.Labels,
    spec: {
      taskHistoryLimit: document.Orchestration?.TaskHistoryRetentionLimit ?? 5,
      heartbeatPeriodMs: heartbeatMs,
      nodeCertExpiryMs: expiryMs,
      autoLock: document.EncryptionConfig?.AutoLockManagers ?? false,
      ...(driver?.Name ? { logDriver: { name: driver.Name, options: driver.Options ?? {} } } : {}),
    },
    source: { dialect: 'docker', document },
  }
}
