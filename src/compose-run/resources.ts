import { createHash } from 'node:crypto'
import { UserError } from '../base/index.ts'
import type { ComposeNetwork, ComposeVolume, Project } from '../compose/index.ts'
import { isOlderApi, type NetworkBody, type NetworkCreateBody } from '../engine/index.ts'
import { label } from './labels.ts'
import { type RunWorld, shown } from './run-world.ts'

/** Has the networks there that are named (keys of the files). Gives their ids by the engine's names. */
export async function ensureNetworks(
  world: RunWorld,
  project: Project,
  keys: readonly string[],
  listed: readonly NetworkBody[],
): Promise<ReadonlyMap<string, string>> {
  const idByName = new Map<string, string>()
  await Promise.all(
    keys.map(async (key) => {
      const network = project.networks[key]
      if (network === undefined) return
      idByName.set(network.name, await ensureNetwork(world, project, key, network, listed))
    }),
  )
  return idByName
}

async function ensureNetwork(
  world: RunWorld,
  project: Project,
  key: string,
  network: ComposeNetwork,
  listed: readonly NetworkBody[],
): Promise<string> {
  const named = listed.filter(({ Name }) => Name === network.name)
  const found = named.find(({ Labels }) => Labels?.[label.project] === project.name) ?? named[0]
  if (network.external) {
    const byId = listed.find(({ Id }) => Id === network.name)
    if (found ?? byId) return (found ?? byId)?.Id ?? ''
    throw new UserError('notFound', `the external network ${network.name} is not there`, {
      next: `Make it with docker network create ${network.name}, or take external away.`,
    })
  }
  const hash = digest(network)
  const id = `Network ${network.name}`
  if (found) {
    const owner = found.Labels?.[label.project]
    if (owner !== project.name) {
      const whose = owner === undefined ? 'was not made by Compose' : `belongs to project ${owner}`
      world.warn(`the network ${network.name} ${whose}; say external: true to use it on purpose`)
      return found.Id
    }
    const before = found.Labels?.[label.ownHash]
    if (before === undefined || before === hash) return found.Id
    await shown(world, id, ['Recreating', 'Removed'], () => removeDiverged(world, found))
  }
  return shown(world, id, ['Creating', 'Created'], async () => {
    const { Id } = await world.engine.networks
      .create(
        networkBody(world, project, key, network, hash, await world.engine.apiVersion()),
        world.signal,
      )
      .catch((error: unknown) => {
        throw explained(network.name, error)
      })
    return Id
  })
}

function explained(name: string, error: unknown): unknown {
  if (!(error instanceof UserError)) return error
  if (/overlaps with other one|Pool overlaps/.test(error.message)) {
    return new UserError(
      'conflict',
      `the subnet of network ${name} overlaps with that of another network`,
      {
        next: 'Choose another subnet below ipam.config; docker network inspect shows those in use.',
        cause: error,
      },
    )
  }
  return new UserError(error.code, `network ${name} can't be made: ${error.message}`, {
    ...(error.next !== undefined && { next: error.next }),
    cause: error,
  })
}

/** Takes the project's containers off a network whose definition changed, and removes it. */
async function removeDiverged(world: RunWorld, network: NetworkBody): Promise<void> {
  const { Containers } = await world.engine.networks.inspect(network.Id, world.signal)
  for (const id of Object.keys(Containers ?? {})) {
    const { Config } = await world.engine.containers.inspect(id, world.signal)
    const project = network.Labels?.[label.project]
    if (Config.Labels?.[label.project] !== project) {
      throw new UserError(
        'inUse',
        `network ${network.Name} changed in the files, but a container of another project uses it`,
        {
          next: 'Stop that container, or undo the change.',
        },
      )
    }
    await world.engine.networks.disconnect(network.Id, id, { force: true }, world.signal)
  }
  await world.engine.networks.remove(network.Id, world.signal)
}

function networkBody(
  world: RunWorld,
  project: Project,
  key: string,
  network: ComposeNetwork,
  hash: string,
  apiVersion: string,
): NetworkCreateBody {
  if (network.enableIpv4 !== undefined && isOlderApi(apiVersion, '1.48')) {
    throw new UserError(
      'unsupported',
      `network ${key} has enable_ipv4, which this engine can't do`,
      {
        next: 'It needs Docker 28 or newer: take it away.',
      },
    )
  }
  return {
    Name: network.name,
    CheckDuplicate: true,
    ...(network.driver !== undefined && { Driver: network.driver }),
    ...(network.driverOpts && { Options: network.driverOpts }),
    ...(network.internal !== undefined && { Internal: network.internal }),
    ...(network.attachable !== undefined && { Attachable: network.attachable }),
    ...(network.enableIpv4 !== undefined && { EnableIPv4: network.enableIpv4 }),
    ...(network.enableIpv6 !== undefined && { EnableIPv6: network.enableIpv6 }),
    ...(network.ipam && {
      IPAM: {
        ...(network.ipam.driver !== undefined && { Driver: network.ipam.driver }),
        ...(network.ipam.options && { Options: network.ipam.options }),
        Config: (network.ipam.config ?? []).map((pool) => ({
          ...(pool.subnet !== undefined && { Subnet: pool.subnet }),
          ...(pool.ipRange !== undefined && { IPRange: pool.ipRange }),
          ...(pool.gateway !== undefined && { Gateway: pool.gateway }),
          ...(pool.auxAddresses && { AuxiliaryAddresses: pool.auxAddresses }),
        })),
      },
    }),
    Labels: {
      ...network.labels,
      [label.project]: project.name,
      [label.network]: key,
      [label.version]: world.version,
      [label.ownHash]: hash,
    },
  }
}

/** Has the volumes there that are named (keys of the files). */
export async function ensureVolumes(
  world: RunWorld,
  project: Project,
  keys: readonly string[],
  listed: readonly {
    readonly Name: string
    readonly Labels?: Readonly<Record<string, string>> | null
  }[],
): Promise<void> {
  await Promise.all(
    keys.map(async (key) => {
      const volume = project.volumes[key]
      if (volume === undefined) return
      const found = listed.find(({ Name }) => Name === volume.name)
      if (found === undefined && volume.external) {
        throw new UserError('notFound', `the external volume ${volume.name} is not there`, {
          next: `Make it with docker volume create ${volume.name}, or take external away.`,
        })
      }
      if (volume.external) return
      const hash = digest(volume)
      if (found === undefined) {
        await createVolume(world, project, key, volume, hash)
        return
      }
      const owner = found.Labels?.[label.project]
      if (owner !== project.name) {
        const whose =
          owner === undefined ? 'was not made by Compose' : `belongs to project ${owner}`
        world.warn(`the volume ${volume.name} ${whose}; say external: true to use it on purpose`)
        return
      }
      const before = found.Labels?.[label.ownHash]
      if (before !== undefined && before !== hash) {
        world.warn(
          `volume ${volume.name} changed in the files; it stays as it is, for its data. Remove it (down -v) to have it made anew`,
        )
      }
    }),
  )
}

async function createVolume(
  world: RunWorld,
  project: Project,
  key: string,
  volume: ComposeVolume,
  hash: string,
): Promise<void> {
  await shown(world, `Volume ${volume.name}`, ['Creating', 'Created'], () =>
    world.engine.volumes.create(
      {
        Name: volume.name,
        ...(volume.driver !== undefined && { Driver: volume.driver }),
        ...(volume.driverOpts && { DriverOpts: volume.driverOpts }),
        Labels: {
          ...volume.labels,
          [label.project]: project.name,
          [label.volume]: key,
          [label.version]: world.version,
          [label.ownHash]: hash,
        },
      },
      world.signal,
    ),
  )
}

/** What a network or volume is made from, as 64 hexadecimal digits; extensions and the order of keys don't count. */
function digest(value: ComposeNetwork | ComposeVolume): string {
  const { extensions: _, ...counted } = value
  return createHash('sha256')
    .update(JSON.stringify(ordered(counted)))
    .digest('hex')
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, item]) => [key, ordered(item)]))
}
