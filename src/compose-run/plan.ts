import { UserError } from '../base/index.ts'
import { byServiceAndNumber, isRunning, type Observed } from './observed.ts'

/** A service as `up` wants it. */
export interface WantedService {
  readonly name: string
  readonly scale: number
  readonly hash: string
  /** Of the image its containers shall have; `undefined`: not known, so not compared. */
  readonly imageId: string | undefined
  /** Fixed by `container_name`. */
  readonly containerName?: string
  /** Engine's names of its networks, with their ids (empty: made anew). */
  readonly networkIdByName: Readonly<Record<string, string>>
  /** `always`: whatever they are; `changed`: where they differ; `never`: only what is missing is made. */
  readonly recreate: 'always' | 'changed' | 'never'
  /** Services whose containers' ids it holds: it is made anew with them. */
  readonly sharedWith: readonly string[]
  /** Services after whose containers' recreation it is restarted (`depends_on` with `restart: true`). */
  readonly restartsWith: readonly string[]
}

/** What is done to one container. */
export type Action =
  | {
      readonly type: 'create'
      readonly service: string
      readonly number: number
      readonly name: string
    }
  | {
      readonly type: 'recreate'
      readonly service: string
      readonly number: number
      readonly name: string
      readonly old: Observed
      readonly because: 'forced' | 'configuration' | 'image' | 'network' | 'dependency'
    }
  | { readonly type: 'start'; readonly service: string; readonly container: Observed }
  | { readonly type: 'unpause'; readonly service: string; readonly container: Observed }
  | { readonly type: 'restart'; readonly service: string; readonly container: Observed }
  | { readonly type: 'rename'; readonly container: Observed; readonly name: string }
  | {
      readonly type: 'remove'
      readonly container: Observed
      readonly because: 'scaledDown' | 'orphan' | 'leftover'
    }
  | { readonly type: 'keep'; readonly service: string; readonly container: Observed }

export interface UpView {
  readonly project: string
  /** In an order in which each comes after those it shares with. */
  readonly services: readonly WantedService[]
  readonly containers: readonly Observed[]
  /** All services of the files, wanted now or not: containers of others are orphans. */
  readonly known: readonly string[]
  readonly removeOrphans: boolean
}

/**
 * Decides what `up` does to which container.
 *
 * Pure: equal views give equal actions, and on what they lead to it gives nothing but `keep`.
 */
export function decideUp(view: UpView): readonly Action[] {
  const own = view.containers.filter(({ isOneOff }) => !isOneOff)
  const actions: Action[] = []
  /** Services of which a container is made anew. */
  const renewed = new Set<string>()
  for (const service of view.services) {
    const found = own.filter((container) => container.service === service.name)
    const decided = decideService(view.project, service, found, renewed)
    if (decided.some(({ type }) => type === 'create' || type === 'recreate')) {
      renewed.add(service.name)
    }
    actions.push(...decided)
  }
  if (view.removeOrphans) {
    // One-off containers of services that are gone go along.
    for (const container of [...view.containers].sort(byServiceAndNumber)) {
      if (view.known.includes(container.service)) continue
      actions.push({ type: 'remove', container, because: 'orphan' })
    }
  }
  return actions
}

function decideService(
  project: string,
  service: WantedService,
  found: readonly Observed[],
  renewed: ReadonlySet<string>,
): Action[] {
  const { name, scale } = service
  if (service.containerName !== undefined && scale > 1) {
    throw new UserError(
      'invalidInput',
      `service ${name} has container_name ${service.containerName}, so it can't have ${scale} containers`,
      { next: 'Take container_name away, or scale it to 1.' },
    )
  }
  const nameOf = (number: number): string => service.containerName ?? `${project}-${name}-${number}`
  const actions: Action[] = []
  // Two of one number are left by a recreation that was cut short: the better one stays.
  const bestByNumber = new Map<number, Observed>()
  for (const container of [...found].sort(byServiceAndNumber)) {
    const other = bestByNumber.get(container.number)
    if (other === undefined) bestByNumber.set(container.number, container)
    else {
      const [better, worse] = isBetter(container, other, service)
        ? [container, other]
        : [other, container]
      bestByNumber.set(container.number, better)
      actions.push({ type: 'remove', container: worse, because: 'leftover' })
    }
  }
  const live = [...bestByNumber.values()].sort((one, other) => one.number - other.number)
  for (const container of live.slice(scale)) {
    actions.push({ type: 'remove', container, because: 'scaledDown' })
  }
  const kept = live.slice(0, scale)
  for (const container of kept) {
    const { number } = container
    const because = whyRecreate(service, container, renewed)
    if (because !== undefined) {
      actions.push({
        type: 'recreate',
        service: name,
        number,
        name: nameOf(number),
        old: container,
        because,
      })
      continue
    }
    if (isHalfRenamed(container)) {
      actions.push({ type: 'rename', container, name: nameOf(number) })
    }
    actions.push({ type: whatToDo(service, container, renewed), service: name, container })
  }
  const taken = new Set(kept.map(({ number }) => number))
  for (let number = 1; taken.size < scale; number++) {
    if (taken.has(number)) continue
    taken.add(number)
    actions.push({ type: 'create', service: name, number, name: nameOf(number) })
  }
  return actions
}

function whatToDo(
  service: WantedService,
  container: Observed,
  renewed: ReadonlySet<string>,
): 'keep' | 'start' | 'unpause' | 'restart' {
  if (container.state === 'paused') return 'unpause'
  if (!isRunning(container)) return 'start'
  return service.restartsWith.some((other) => renewed.has(other)) ? 'restart' : 'keep'
}

function whyRecreate(
  service: WantedService,
  container: Observed,
  renewed: ReadonlySet<string>,
): Extract<Action, { type: 'recreate' }>['because'] | undefined {
  // A container the engine can't start again is of no use to anybody.
  if (container.state === 'dead') return 'forced'
  if (service.sharedWith.some((other) => renewed.has(other))) return 'dependency'
  if (service.recreate === 'never') return undefined
  if (service.recreate === 'always') return 'forced'
  if (container.hash !== service.hash) return 'configuration'
  if (service.imageId !== undefined && container.imageId !== service.imageId) return 'image'
  for (const [name, id] of Object.entries(service.networkIdByName)) {
    const actual = container.networkIdByName[name]
    if (actual === undefined || (actual !== '' && actual !== id)) return 'network'
  }
  return undefined
}

function isBetter(one: Observed, other: Observed, service: WantedService): boolean {
  const rank = (container: Observed): number =>
    (container.hash === service.hash ? 2 : 0) + (isRunning(container) ? 1 : 0)
  return rank(one) > rank(other)
}

/** `0123456789ab_shop-web-1`: a new container whose predecessor was not gone yet when a recreation was cut short. */
export function isHalfRenamed({ name }: Observed): boolean {
  return /^[0-9a-f]{12}_/.test(name)
}

/** The name that a new container has until its predecessor is gone. */
export function halfName(old: Observed, name: string): string {
  return `${old.id.slice(0, 12)}_${name}`
}
