import { createReadStream } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { decideRestored, readBackup } from '../backup/index.ts'
import { type Clock, type Log, messageOf, type Random, UserError } from '../base/index.ts'
import { type Cluster, mintId } from '../model/index.ts'
import { importKeyring, type Keyring, parseUnlockKey } from '../security/index.ts'
import { lockDataRoot, restoreSqliteStore } from '../store/index.ts'
import { chooseAdvertiseAddress } from './host-facts.ts'
import { dataPaths, readIdentity, writeIdentity } from './identity.ts'

export interface RestoreOptions {
  readonly file: string
  readonly passphrase: string
  /** A folder without a cluster. */
  readonly dataRoot: string
  /** As of `swarm init`; empty: the host's only address. */
  readonly advertiseAddress: string
  /** `0.0.0.0:2377` */
  readonly listenAddress: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export interface Restored {
  readonly takenAtMs: number
  readonly address: string
  readonly serviceCount: number
  /** Names of the nodes that have to join again. */
  readonly lostNodes: readonly string[]
  readonly isLocked: boolean
}

/**
 * Makes the data root of a stopped daemon that of a new cluster of one manager, with everything the backup holds. All or
 * nothing: until the last step the node is in no cluster.
 */
export async function restoreBackup(options: RestoreOptions): Promise<Restored> {
  const { dataRoot, file, passphrase, clock, random, log, listenAddress } = options
  const paths = dataPaths(dataRoot)
  await mkdir(dataRoot, { recursive: true, mode: 0o700 })
  const lock = lockDataRoot(dataRoot)
  try {
    if (await readIdentity(dataRoot)) {
      throw new UserError('alreadyInCluster', `${dataRoot} already holds a cluster`, {
        next: 'Restore into another --data-root, or leave that cluster with `docker swarm leave --force` first.',
      })
    }
    const contents = await readBackup(openFile(file), { passphrase, name: file })
    const port = Number(/:(\d+)$/.exec(listenAddress)?.[1] ?? 2377)
    const advertise = chooseAdvertiseAddress(options.advertiseAddress, port)
    const address = `${advertise.host}:${advertise.port}`
    const nodeId = mintId<'node'>(random)
    const place = { nodeId, address, hostname: hostname(), nowMs: clock.nowMs() }
    const objects = decideRestored(contents, place)
    const cluster = objects.find((object) => object.kind === 'cluster')
    // What an earlier try left.
    await rm(paths.cluster, { recursive: true, force: true })
    await mkdir(paths.cluster, { recursive: true, mode: 0o700 })
    const keyring = await importKeyring({
      path: paths.keys,
      text: contents.head.keys,
      unlockKey: (keys) => cluster && unlockKeyOf(cluster, keys),
    })
    await restoreSqliteStore(
      { path: paths.store, keys: keyring.storeKeys(), clock, log },
      // No leader of the lost cluster can have had a later epoch than one a second.
      { revision: contents.head.revision, epoch: Math.floor(clock.nowMs() / 1000), objects },
    )
    await writeIdentity(dataRoot, { nodeId, address, listenAddress })
    return {
      takenAtMs: contents.head.takenAtMs,
      address,
      serviceCount: objects.filter(({ kind }) => kind === 'workload').length,
      lostNodes: objects.flatMap((object) =>
        object.kind === 'node' && object.id !== nodeId ? [object.name] : [],
      ),
      isLocked: cluster?.spec.autoLock ?? false,
    }
  } finally {
    lock.release()
  }
}

async function* openFile(path: string): AsyncGenerator<Buffer> {
  try {
    for await (const piece of createReadStream(path)) if (Buffer.isBuffer(piece)) yield piece
  } catch (error) {
    throw new UserError('invalidInput', `cannot read ${path}: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

function unlockKeyOf(
  { id, spec, status }: Cluster,
  keys: Pick<Keyring, 'unseal'>,
): Uint8Array | undefined {
  if (!spec.autoLock || !status.unlockKey) return undefined
  return parseUnlockKey(new TextDecoder().decode(keys.unseal(status.unlockKey, `${id}/unlock`)))
}
