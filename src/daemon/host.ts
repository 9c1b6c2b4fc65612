import { type Clock, type Log, messageOf, type Random } from '../base/index.ts'
import type { NodeServices } from '../cluster/index.ts'
import type { Engine } from '../engine/index.ts'
import type { NodeDescription } from '../model/index.ts'
import {
  type DataPlane,
  type Encryption,
  openEncryption,
  openLinuxDataPlane,
} from '../network/index.ts'
import { openDockerRuntime, type Runtime, removeSecretsDir } from '../runtime/index.ts'
import type { NetworkExaminer } from '../wire/index.ts'
import { dataPaths, type Identity } from './identity.ts'
import type { DaemonOptions } from './options.ts'
import type { TaskReach } from './task-reach.ts'

export interface MemberWorld {
  readonly options: DaemonOptions
  readonly engine: Engine
  /** The ways into this node's tasks, for managers. */
  readonly reach: TaskReach
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** What a member does on its host: containers and packets. */
export async function openHost(
  { options, engine, clock, log }: MemberWorld,
  identity: Identity,
  clusterId: string,
): Promise<{
  readonly runtime: Runtime
  readonly dataPlane: DataPlane
  readonly encryption: Encryption
}> {
  const runtime = openDockerRuntime({
    engine,
    clusterId,
    nodeId: identity.nodeId,
    stateDir: options.dataRoot,
    secretsDir: options.runDir,
    clock,
    log,
  })
  const encryption = await openEncryption(dataPaths(options.dataRoot).network)
  if (encryption.how === 'none')
    log.info('encrypted networks can not be here', { why: encryption.why })
  const dataPlane = await openLinuxDataPlane({
    engine,
    encryption,
    stateDir: dataPaths(options.dataRoot).network,
    // Its own, so that daemons of several clusters can share a machine.
    tableName: `skep-${clusterId.slice(0, 8)}`,
    clock,
    log,
  })
  return { runtime, dataPlane, encryption }
}

/** What others are told of how this node encrypts: never the key itself. */
export function describeEncryption(
  encryption: Encryption,
): NonNullable<NodeDescription['encryption']> {
  if (encryption.how === 'none') return encryption
  const { how, publicKey } = encryption
  return { how, publicKey }
}

/** What managers can ask of this node. */
export function servicesOf(
  { reach }: MemberWorld,
  runtime: Runtime,
  network: NetworkExaminer,
): NodeServices {
  return {
    logs: runtime,
    network,
    connectEngine: () => reach.connectEngine(),
    dial: (taskId, port, by) => reach.dial(taskId, port, by),
  }
}

export async function clearHost(
  { options, log }: MemberWorld,
  runtime: Runtime,
  dataPlane: DataPlane,
): Promise<void> {
  const observed = await runtime.list()
  await Promise.all(
    observed.map(async ({ taskId }) => {
      try {
        await runtime.stop(taskId, 10_000)
        await runtime.remove(taskId)
      } catch (error) {
        log.warn('a container could not be removed', { taskId, error: messageOf(error) })
      }
    }),
  )
  await dataPlane.clear()
  await removeSecretsDir(options.runDir).catch((error: unknown) =>
    log.warn('the secrets folder could not be removed', { error: messageOf(error) }),
  )
  await dataPlane.close()
}
