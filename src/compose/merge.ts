import type { StackFile, StackMount, StackService } from './stack-file.ts'

/**
 * Lays a later file over an earlier one. Single values, commands and top-level objects are replaced; mappings are merged by
 * key; ports by published port, volumes by target, secrets and configs by source; other lists are joined.
 * Source: the rules of `docker stack deploy` with several `-c`; where that cannot set a value back to false or 0, this can.
 */
export function mergeStackFiles(before: StackFile, after: StackFile): StackFile {
  const services: Record<string, StackService> = { ...before.services }
  for (const [name, service] of Object.entries(after.services)) {
    const known = services[name]
    services[name] = known === undefined ? service : mergeServices(known, service)
  }
  return {
    services,
    networks: { ...before.networks, ...after.networks },
    volumes: { ...before.volumes, ...after.volumes },
    secrets: { ...before.secrets, ...after.secrets },
    configs: { ...before.configs, ...after.configs },
  }
}

function mergeServices(before: StackService, after: StackService): StackService {
  return {
    ...before,
    ...withoutAbsent(after),
    environment: mergePairs(before.environment, after.environment),
    labels: mergePairs(before.labels, after.labels),
    deployLabels: mergePairs(before.deployLabels, after.deployLabels),
    sysctls: mergePairs(before.sysctls, after.sysctls),
    ulimits: mergePairs(before.ulimits, after.ulimits),
    networks: mergePairs(before.networks, after.networks),
    dns: join(before.dns, after.dns),
    dnsSearch: join(before.dnsSearch, after.dnsSearch),
    extraHosts: join(before.extraHosts, after.extraHosts),
    capAdd: join(before.capAdd, after.capAdd),
    capDrop: join(before.capDrop, after.capDrop),
    logging: mergeLogging(before.logging, after.logging),
    healthcheck: mergePairs(before.healthcheck, after.healthcheck),
    ports: joinBy(before.ports, after.ports, (port) => String(port.PublishedPort ?? 0)),
    volumes: joinBy(before.volumes, after.volumes, (mount: StackMount) => mount.target),
    secrets: joinBy(before.secrets, after.secrets, ({ source }) => source),
    configs: joinBy(before.configs, after.configs, ({ source }) => source),
    updateConfig: mergePairs(before.updateConfig, after.updateConfig),
    rollbackConfig: mergePairs(before.rollbackConfig, after.rollbackConfig),
    limits: mergePairs(before.limits, after.limits),
    reservations: mergePairs(before.reservations, after.reservations),
    restartPolicy: mergePairs(before.restartPolicy, after.restartPolicy),
    placement: mergePlacement(before.placement, after.placement),
  }
}

function withoutAbsent(service: StackService): StackService {
  return Object.fromEntries(Object.entries(service).filter(([, value]) => value !== undefined))
}

function mergePairs<T extends object>(before: T | undefined, after: T | undefined): T | undefined {
  if (before === undefined || after === undefined) return after ?? before
  return { ...before, ...after }
}

function mergePlacement(
  before: StackService['placement'],
  after: StackService['placement'],
): StackService['placement'] {
  if (before === undefined || after === undefined) return after ?? before
  const constraints = join(before.Constraints, after.Constraints)
  const preferences = join(before.Preferences, after.Preferences)
  return {
    ...before,
    ...after,
    ...(constraints && { Constraints: [...constraints] }),
    ...(preferences && { Preferences: [...preferences] }),
  }
}

/** Options belong to a driver: another driver brings its own. */
function mergeLogging(
  before: StackService['logging'],
  after: StackService['logging'],
): StackService['logging'] {
  if (before === undefined || after === undefined) return after ?? before
  const isSame =
    before.driver === after.driver || before.driver === undefined || after.driver === undefined
  if (!isSame) return after
  return {
    driver: after.driver ?? before.driver,
    options: mergePairs(before.options, after.options),
  }
}

function join<T>(
  before: readonly T[] | undefined,
  after: readonly T[] | undefined,
): readonly T[] | undefined {
  if (before === undefined || after === undefined) return after ?? before
  return [...before, ...after]
}

function joinBy<T>(
  before: readonly T[] | undefined,
  after: readonly T[] | undefined,
  keyOf: (item: T) => string,
): readonly T[] | undefined {
  if (before === undefined || after === undefined) return after ?? before
  const byKey = new Map([...before, ...after].map((item) => [keyOf(item), item]))
  return [...byKey].sort(([a], [b]) => compareKeys(a, b)).map(([, item]) => item)
}

function compareKeys(a: string, b: string): number {
  const difference = Number(a) - Number(b)
  if (Number.isFinite(difference)) return difference
  return a < b ? -1 : a > b ? 1 : 0
}
