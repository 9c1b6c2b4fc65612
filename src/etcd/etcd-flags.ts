import { unreachable } from '../base/index.ts'
import type { EtcdBegin } from './etcd-process.ts'
import { minorOf } from './etcd-version.ts'

/** Files that etcd reads anew for each connection, so that they can be replaced while it runs. */
export interface EtcdFiles {
  readonly certificatePath: string
  readonly keyPath: string
  /** The roots that certificates of members may come from. Read once, at its start. */
  readonly rootsPath: string
  /** The name that a certificate has to bear for its owner to be a member: the managers'. */
  readonly requiredName: string
}

/** Beside each other in the directory of a member. etcd wants the form of `host:port` for a socket too. */
export const dataDirName = 'data'
export const clientSocketName = 'client:1'
/** Between members, in ms: a leader that is silent for the second is replaced. */
export const heartbeatMs = 100
export const electionMs = 600
/** Largest request and most operations in one transaction: above what the store ever asks for. */
const requestBytesMax = 33_554_432
const txnOpsMax = 20_000
/** Largest database, in bytes: a cluster of 100,000 tasks takes some hundred MB with its history. */
const databaseBytesMax = 2_147_483_648
/** Entries of the log after which it is cut, so that few are held in memory. */
const entriesPerSnapshot = 1_000

/** The flags of one start of etcd. */
export function etcdFlags(options: {
  readonly version: string
  readonly name: string
  readonly peerListenUrl: string
  readonly peerUrl: string
  readonly files: EtcdFiles
  readonly begin: EtcdBegin
}): readonly string[] {
  const { version, files } = options
  const minor = minorOf(version)
  // What was experimental before 3.6 has its plain name since.
  const experimental = minor < 6 ? 'experimental-' : ''
  const flags: Record<string, string> = {
    name: options.name,
    'data-dir': dataDirName,
    // A socket in the working directory. Others reach this member through their own.
    'listen-client-urls': `unix://${clientSocketName}`,
    'advertise-client-urls': `unix://${clientSocketName}`,
    'listen-peer-urls': options.peerListenUrl,
    'peer-cert-file': files.certificatePath,
    'peer-key-file': files.keyPath,
    'peer-trusted-ca-file': files.rootsPath,
    'peer-client-cert-auth': 'true',
    'peer-cert-allowed-hostname': files.requiredName,
    // Who calls is told by the name in the certificate; the address it calls from may be translated on the way.
    [`${experimental}peer-skip-client-san-verification`]: 'true',
    [`${experimental}watch-progress-notify-interval`]: '1s',
    'heartbeat-interval': String(heartbeatMs),
    'election-timeout': String(electionMs),
    'pre-vote': 'true',
    'max-request-bytes': String(requestBytesMax),
    'max-txn-ops': String(txnOpsMax),
    'quota-backend-bytes': String(databaseBytesMax),
    'snapshot-count': String(entriesPerSnapshot),
    'log-outputs': 'stderr',
    'log-level': 'warn',
    ...(minor < 5 && { logger: 'zap' }),
    ...beginFlags(options),
  }
  return Object.entries(flags).map(([name, value]) => `--${name}=${value}`)
}

function beginFlags({
  name,
  peerUrl,
  begin,
}: {
  readonly name: string
  readonly peerUrl: string
  readonly begin: EtcdBegin
}): Record<string, string> {
  const own = { 'initial-advertise-peer-urls': peerUrl, 'initial-cluster': `${name}=${peerUrl}` }
  switch (begin.type) {
    case 'new':
      return { ...own, 'initial-cluster-token': begin.token, 'initial-cluster-state': 'new' }
    case 'join':
      return {
        ...own,
        'initial-cluster': begin.members.map((one) => `${one.name}=${one.peerUrl}`).join(','),
        'initial-cluster-token': begin.token,
        'initial-cluster-state': 'existing',
      }
    case 'restart':
      return own
    case 'forceNew':
      return { ...own, 'force-new-cluster': 'true' }
    default:
      return unreachable(begin)
  }
}
