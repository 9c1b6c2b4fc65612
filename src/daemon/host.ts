import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Clock, type Log, messageOf, type Random } from '../base/index.ts'
import { connectOptionsOf, type Engine, parseEngineAddress } from '../engine/index.ts'
import { type DataPlane, openLinuxDataPlane } from '../network/index.ts'
import { openDockerRuntime, type Runtime, removeSecretsDir } from '../runtime/index.ts'
import { dataPaths, type Identity } from './identity.ts'
import type { DaemonOptions } from './options.ts'

export interface MemberWorld {
  readonly options: DaemonOptions
  readonly engine: Engine
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** A new connection to the engine, for an asker on another node. */
export function connectEngine(address: string): Duplex {
  const target = connectOptionsOf(parseEngineAddress(address))
  return 'socketPath' in target
    ? connect({ path: target.socketPath, allowHalfOpen: true })
    : connect({ ...target, allowHalfOpen: true })
}

/** What a member does on its host: containers and packets. */
export async function openHost(
  { options, engine, clock, log }: MemberWorld,
  identity: Identity,
  clusterId: string,
): Promise<{ readonly runtime: Runtime; readonly dataPlane: DataPlane }> {
  const runtime = openDockerRuntime({
    engine,
    clusterId,
    nodeId: identity.nodeId,
    stateDir: options.dataRoot,
    secretsDir: options.runDir,
    clock,
    log,
  })
  const dataPlane = await openLinuxDataPlane({
    engine,
    stateDir: dataPaths(options.dataRoot).network,
    // Its own, so that daemons of several clusters can share a machine.
    tableName: `skep-${clusterId.slice(0, 8)}`,
    clock,
    log,
  })
  return { runtime, dataPlane }
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
