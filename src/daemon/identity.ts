import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UserError } from '../base/index.ts'
import { idFrom, type NodeId, type NodeRole } from '../model/index.ts'

/** This node's membership, kept in the data root; absent while it is in no cluster. */
export interface Identity {
  readonly nodeId: NodeId
  /** What other nodes reach it by: `192.168.1.5:2377`. */
  readonly address: string
  readonly listenAddress: string
  /** Where it takes the packets of cluster networks, when that was named apart. */
  readonly dataPathAddress?: string
  /** A manager keeps the cluster's state, a worker none of it. Absent: a manager. */
  readonly role?: NodeRole
  /** Where a manager keeps it. Absent: in its own file, as the only manager. */
  readonly store?: 'file' | 'etcd'
  /** Where its address was when it was last seen on this host. Absent: on no interface, it is translated on the way. */
  readonly interface?: string
  /** A worker that was a manager: nodes that knew it as one may come and ask who is now. */
  readonly wasManager?: true
}

/** Names of what lies in a data root. Every directory is 0700, every file 0600. */
export function dataPaths(dataRoot: string): {
  readonly identity: string
  readonly cluster: string
  readonly store: string
  /** State shared with other managers. */
  readonly etcd: string
  readonly keys: string
  readonly certificates: string
  /** What a worker was told last. */
  readonly journal: string
  readonly network: string
} {
  const cluster = join(dataRoot, 'cluster')
  return {
    identity: join(dataRoot, 'node.json'),
    cluster,
    store: join(cluster, 'store.db'),
    etcd: join(cluster, 'etcd'),
    keys: join(cluster, 'data.keys'),
    certificates: join(cluster, 'certificates'),
    journal: join(cluster, 'node.journal'),
    network: join(dataRoot, 'network'),
  }
}

export async function readIdentity(dataRoot: string): Promise<Identity | undefined> {
  const path = dataPaths(dataRoot).identity
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (text === undefined) return undefined
  const json: unknown = JSON.parse(text)
  if (
    typeof json === 'object' &&
    json !== null &&
    'nodeId' in json &&
    'address' in json &&
    'listenAddress' in json
  ) {
    const { nodeId, address, listenAddress } = json
    if (
      typeof nodeId === 'string' &&
      typeof address === 'string' &&
      typeof listenAddress === 'string'
    ) {
      const role = 'role' in json && json.role === 'worker' ? 'worker' : 'manager'
      const store = 'store' in json && json.store === 'etcd' ? 'etcd' : 'file'
      const dataPath =
        'dataPathAddress' in json && typeof json.dataPathAddress === 'string'
          ? { dataPathAddress: json.dataPathAddress }
          : {}
      const on =
        'interface' in json && typeof json.interface === 'string'
          ? { interface: json.interface }
          : {}
      const former = 'wasManager' in json ? { wasManager: true as const } : {}
      const rest = { role, store, ...dataPath, ...on, ...former } as const
      return { nodeId: idFrom(nodeId), address, listenAddress, ...rest }
    }
  }
  throw new UserError('internal', `${path} is damaged`, {
    next: 'Restore it from a backup, or remove the data root and join the cluster anew.',
  })
}

export async function writeIdentity(dataRoot: string, identity: Identity): Promise<void> {
  const path = dataPaths(dataRoot).identity
  await mkdir(dataRoot, { recursive: true, mode: 0o700 })
  await writeFile(`${path}.new`, JSON.stringify(identity), { mode: 0o600, flush: true })
  await chmod(`${path}.new`, 0o600)
  await rename(`${path}.new`, path)
}

/** Forgets the cluster: its state, keys and certificates. */
export async function removeIdentity(dataRoot: string): Promise<void> {
  const { identity, cluster } = dataPaths(dataRoot)
  // The identity goes first: a crash half-way leaves a node in no cluster, never one without its state.
  await rm(identity, { force: true })
  await rm(cluster, { recursive: true, force: true })
}
