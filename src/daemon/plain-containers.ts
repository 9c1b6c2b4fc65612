import { type Clock, type Log, messageOf } from '../base/index.ts'
import type { Engine } from '../engine/index.ts'
import { idFrom, type NetworkId } from '../model/index.ts'
import type { LocalTask } from '../network/data-plane.ts'

/** Label of the engine networks that the data plane makes: the cluster network's id. */
const networkLabel = 'skep.network.id'
const taskLabel = 'com.docker.swarm.task.id'
/** What the container's places on cluster networks are kept under: its name may be changed. */
const placeLabel = 'skep.attachment'
const retryMs = 1000

export interface PlainContainers {
  /** Those that run, as the data plane wants to know them. */
  list(): readonly LocalTask[]
  /**
   * Every container that the engine knows, running or not, with the names of its networks: by id, by name, and by what
   * its places are kept under.
   */
  known(): Promise<ReadonlyMap<string, ReadonlySet<string>>>
  close(): Promise<void>
}

/**
 * Keeps track of containers that people attached to cluster networks themselves (`docker run --network`, `docker
 * network connect`): they are no tasks, but VIPs and names have to work in them too. `changed` is called when the list
 * differs, `gone` when a container was removed or taken off a network, and at each start.
 */
export function watchPlainContainers(options: {
  readonly engine: Engine
  readonly clock: Clock
  readonly log: Log
  readonly changed: () => void
  readonly gone: () => void
}): PlainContainers {
  const { engine, clock, log } = options
  const stop = new AbortController()
  const { signal } = stop
  const byId = new Map<string, LocalTask>()

  async function look(containerId: string): Promise<void> {
    const container = await engine.containers.inspect(containerId, signal).catch(() => undefined)
    const local =
      container && container.Config.Labels?.[taskLabel] === undefined
        ? await describe(container)
        : undefined
    const known = byId.get(containerId)
    if (!local && !known) return
    if (local) byId.set(containerId, local)
    else byId.delete(containerId)
    if (known && known.addresses.length > (local?.addresses.length ?? 0)) options.gone()
    if (JSON.stringify(known) !== JSON.stringify(local)) options.changed()
  }

  async function describe(
    container: Awaited<ReturnType<Engine['containers']['inspect']>>,
  ): Promise<LocalTask | undefined> {
    if (!container.State.Running || container.State.Pid === 0) return undefined
    const addresses: { networkId: NetworkId; address: string }[] = []
    for (const { NetworkID, IPAddress } of Object.values(
      container.NetworkSettings.Networks ?? {},
    )) {
      const id = await clusterNetworkOf(NetworkID)
      if (id && IPAddress !== '') addresses.push({ networkId: id, address: IPAddress })
    }
    if (addresses.length === 0) return undefined
    return {
      taskId: idFrom(container.Id),
      name: container.Name.replace(/^\//, ''),
      hostname: container.Config.Hostname,
      pid: container.State.Pid,
      addresses,
      nameservers: [],
    }
  }

  async function clusterNetworkOf(engineNetworkId: string): Promise<NetworkId | undefined> {
    const network = await engine.networks.inspect(engineNetworkId, signal).catch(() => undefined)
    const id = network?.Labels?.[networkLabel]
    return id === undefined ? undefined : idFrom(id)
  }

  async function resync(): Promise<void> {
    const networks = await engine.networks.list({ filters: { label: [networkLabel] } }, signal)
    const ids = new Set<string>(byId.keys())
    for (const { Id } of networks) {
      const network = await engine.networks.inspect(Id, signal).catch(() => undefined)
      for (const id of Object.keys(network?.Containers ?? {})) ids.add(id)
    }
    for (const id of ids) await look(id)
  }

  async function follow(): Promise<void> {
    while (!signal.aborted) {
      try {
        const events = await engine.events(
          {
            filters: {
              type: ['network', 'container'],
              event: ['connect', 'disconnect', 'destroy'],
            },
          },
          signal,
        )
        await resync()
        options.gone()
        for await (const event of events) {
          if (event.Type === 'container' && event.Action === 'destroy') {
            if (event.Actor.Attributes?.[taskLabel] === undefined) options.gone()
            continue
          }
          const containerId = event.Actor.Attributes?.['container']
          if (event.Type === 'network' && containerId !== undefined && containerId !== '')
            await look(containerId)
        }
      } catch (error) {
        if (signal.aborted) return
        log.debug('the engine does not tell of its networks', { error: messageOf(error) })
      }
      await clock.sleep(retryMs, signal)
    }
  }
  const following = follow()

  return {
    list: () => [...byId.values()],
    async known() {
      const containers = await engine.containers.list({ all: true }, signal)
      const known = new Map<string, ReadonlySet<string>>()
      for (const { Id, Names, Labels, NetworkSettings } of containers) {
        const networks = new Set(Object.keys(NetworkSettings?.Networks ?? {}))
        const kept = Labels?.[placeLabel]
        const names = [Id, ...Names.map((name) => name.replace(/^\//, ''))]
        for (const name of kept === undefined ? names : [...names, kept]) known.set(name, networks)
      }
      return known
    },
    async close() {
      stop.abort()
      await following
    },
  }
}
