import type { ContainerListItem } from '../engine/index.ts'
import { label, parseDependencies } from './labels.ts'

/** A container of a project as the engine lists it. */
export interface Observed {
  readonly id: string
  /** Without the slash before it. */
  readonly name: string
  readonly service: string
  readonly number: number
  readonly isOneOff: boolean
  readonly state: string
  /** `Up 3 minutes (healthy)`. */
  readonly status: string
  readonly hash: string
  /** Id of the image it was made from. */
  readonly imageId: string
  /** As it was named. */
  readonly image: string
  readonly dependsOn: readonly string[]
  /** Id by name; empty where the engine does not tell it. */
  readonly networkIdByName: Readonly<Record<string, string>>
  readonly item: ContainerListItem
}

/** Reads a container's list entry; `undefined` where it is no project's. Those of Docker Compose 1 are known too. */
export function observe(item: ContainerListItem): Observed | undefined {
  const labels = item.Labels ?? {}
  const service = labels[label.service]
  if (labels[label.project] === undefined || service === undefined) return undefined
  // Beside its own a container bears a name for each link to it, which has a slash inside.
  const own = item.Names.find((name) => !name.slice(1).includes('/')) ?? item.Names[0] ?? item.Id
  const networks = Object.entries(item.NetworkSettings?.Networks ?? {})
  return {
    id: item.Id,
    name: own.replace(/^\//, ''),
    service,
    number: Number(labels[label.number] ?? 1),
    isOneOff: labels[label.oneOff] === 'True',
    state: item.State,
    status: item.Status,
    hash: labels[label.hash] ?? '',
    imageId: labels[label.image] ?? item.ImageID ?? '',
    image: item.Image,
    dependsOn: parseDependencies(labels[label.dependsOn]),
    networkIdByName: Object.fromEntries(
      networks.map(([name, network]) => [name, network?.NetworkID ?? '']),
    ),
    item,
  }
}

export const isRunning = ({ state }: Observed): boolean =>
  state === 'running' || state === 'restarting' || state === 'paused'

/** By service, then number: the order of every list. */
export function byServiceAndNumber(one: Observed, other: Observed): number {
  if (one.service !== other.service) return one.service < other.service ? -1 : 1
  return one.number - other.number || (one.name < other.name ? -1 : 1)
}
