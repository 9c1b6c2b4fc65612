import type { PortBody, ReservationsBody, UpdateConfigBody } from './service-spec.ts'
import type {
  StackFile,
  StackFileObject,
  StackMount,
  StackNetwork,
  StackService,
  StackVolume,
} from './stack-file.ts'

/** The files as one document of the Compose format, in long form: loading it again gives the same stack. */
export function raiseStackFile(file: StackFile): Record<string, unknown> {
  return tidy({
    version: '3.13',
    services: mapValues(file.services, raiseService),
    networks: mapValues(file.networks, raiseNetwork),
    volumes: mapValues(file.volumes, raiseVolume),
    secrets: mapValues(file.secrets, raiseFileObject),
    configs: mapValues(file.configs, raiseFileObject),
  })
}

/** Exact, in the largest unit that is whole. */
function duration(ns: number | undefined): string | undefined {
  if (ns === undefined) return undefined
  if (ns % 1e9 === 0) return `${ns / 1e9}s`
  return ns % 1e6 === 0 ? `${ns / 1e6}ms` : `${ns}ns`
}

const cpus = (nano: number | undefined) => (nano === undefined ? undefined : String(nano / 1e9))
/** Variables are put in when a file is read: a dollar sign has to be doubled to come through that. */
const literal = (text: string) => text.replaceAll('$', '$$$$')

function raiseService(service: StackService): Record<string, unknown> {
  const { healthcheck: health, placement, restartPolicy: restart, limits, reservations } = service
  return {
    image: service.image,
    command: service.command,
    entrypoint: service.entrypoint,
    environment: service.environment && mapValues(service.environment, (value) => value ?? null),
    labels: service.labels,
    hostname: service.hostname,
    user: service.user,
    working_dir: service.workingDir,
    tty: service.tty,
    stdin_open: service.stdinOpen,
    read_only: service.readOnly,
    init: service.init,
    isolation: service.isolation,
    stop_signal: service.stopSignal,
    stop_grace_period: duration(service.stopGracePeriodNs),
    dns: service.dns,
    dns_search: service.dnsSearch,
    extra_hosts: service.extraHosts?.map((line) => {
      const [address, host] = line.split(' ')
      return `${host}=${address}`
    }),
    cap_add: service.capAdd,
    cap_drop: service.capDrop,
    sysctls: service.sysctls,
    ulimits: service.ulimits,
    logging: service.logging,
    credential_spec: service.credentialSpec && {
      config: service.credentialSpec.Config,
      file: service.credentialSpec.File,
      registry: service.credentialSpec.Registry,
    },
    restart: service.restart,
    healthcheck: health && {
      test: health.Test,
      interval: duration(health.Interval),
      timeout: duration(health.Timeout),
      start_period: duration(health.StartPeriod),
      start_interval: duration(health.StartInterval),
      retries: health.Retries,
      disable: health.disable,
    },
    ports: service.ports?.map(raisePort),
    volumes: service.volumes?.map(raiseMount),
    secrets: service.secrets,
    configs: service.configs,
    networks:
      service.networks &&
      mapValues(service.networks, ({ aliases, driverOpts }) => ({
        aliases: aliases.length > 0 ? aliases : undefined,
        driver_opts: driverOpts,
      })),
    deploy: {
      mode: service.mode,
      replicas: service.replicas,
      endpoint_mode: service.endpointMode,
      labels: service.deployLabels,
      update_config: raiseUpdate(service.updateConfig),
      rollback_config: raiseUpdate(service.rollbackConfig),
      resources: {
        limits: limits && {
          cpus: cpus(limits.NanoCPUs),
          memory: limits.MemoryBytes?.toString(),
          pids: limits.Pids,
        },
        reservations: raiseReservations(reservations),
      },
      restart_policy: restart && {
        condition: restart.Condition,
        delay: duration(restart.Delay),
        max_attempts: restart.MaxAttempts,
        window: duration(restart.Window),
      },
      placement: placement && {
        constraints: placement.Constraints,
        preferences: placement.Preferences?.map(({ Spread }) => ({
          spread: Spread.SpreadDescriptor,
        })),
        max_replicas_per_node: placement.MaxReplicas,
      },
    },
  }
}

function raiseUpdate(config: Partial<UpdateConfigBody> | undefined): unknown {
  return (
    config && {
      parallelism: config.Parallelism,
      delay: duration(config.Delay),
      failure_action: config.FailureAction,
      monitor: duration(config.Monitor),
      max_failure_ratio: config.MaxFailureRatio,
      order: config.Order,
    }
  )
}

function raiseReservations(reservations: ReservationsBody | undefined): unknown {
  return (
    reservations && {
      cpus: cpus(reservations.NanoCPUs),
      memory: reservations.MemoryBytes?.toString(),
      generic_resources: reservations.GenericResources?.map(({ DiscreteResourceSpec }) => ({
        discrete_resource_spec: {
          kind: DiscreteResourceSpec?.Kind,
          value: DiscreteResourceSpec?.Value,
        },
      })),
    }
  )
}

function raisePort(port: PortBody): unknown {
  return {
    mode: port.PublishMode,
    target: port.TargetPort,
    published: port.PublishedPort,
    protocol: port.Protocol,
  }
}

function raiseMount(mount: StackMount): unknown {
  return {
    type: mount.type,
    source: mount.source,
    target: mount.target,
    read_only: mount.readOnly,
    consistency: mount.consistency,
    bind: mount.hasBind ? kept({ propagation: mount.propagation }) : undefined,
    volume: { nocopy: mount.noCopy, subpath: mount.subpath },
    tmpfs: mount.hasTmpfs ? kept({ size: mount.tmpfsBytes }) : undefined,
  }
}

function raiseNetwork(network: StackNetwork): unknown {
  if (network.external) return { name: network.name, external: true }
  return {
    name: network.name,
    driver: network.driver,
    driver_opts: network.driverOpts,
    internal: network.internal || undefined,
    attachable: network.attachable || undefined,
    labels: network.labels,
    ipam: network.ipam && {
      driver: network.ipam.driver || undefined,
      config: network.ipam.subnets.map((subnet) => ({ subnet })),
    },
  }
}

function raiseVolume(volume: StackVolume): unknown {
  if (volume.external) return { name: volume.name, external: true }
  return {
    name: volume.name,
    driver: volume.driver,
    driver_opts: volume.driverOpts,
    labels: volume.labels,
  }
}

function raiseFileObject(object: StackFileObject): unknown {
  if (object.external) return { name: object.name, external: true }
  return {
    name: object.name,
    file: object.file,
    labels: object.labels,
    driver: object.driver,
    driver_opts: object.driverOpts,
    template_driver: object.templateDriver,
  }
}

function mapValues<T, U>(
  mapping: Readonly<Record<string, T>>,
  change: (value: T) => U,
): Record<string, U> {
  return Object.fromEntries(Object.entries(mapping).map(([key, value]) => [key, change(value)]))
}

const isKept = Symbol('kept even when empty')

function kept(value: object): object {
  return { ...value, [isKept]: true }
}

/** Leaves out what is not given, and mappings that come to nothing below `services.<name>`. */
function tidy(value: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(value).flatMap(([key, item]): [string, unknown][] => {
    const plain = tidyValue(item, key)
    return plain === undefined ? [] : [[key, plain]]
  })
  return Object.fromEntries(entries)
}

/** Mappings that mean something by being there, though empty: a network that is named without settings. */
const meansByBeing: readonly string[] = [
  'healthcheck',
  'update_config',
  'rollback_config',
  'restart_policy',
  'placement',
  'logging',
]

function tidyValue(item: unknown, key: string): unknown {
  if (item === undefined) return undefined
  if (typeof item === 'string') return literal(item)
  if (Array.isArray(item)) return item.map((one) => tidyValue(one, ''))
  if (typeof item !== 'object' || item === null) return item
  const inner = tidy({ ...item })
  if (Object.keys(inner).length > 0 || isKept in item || meansByBeing.includes(key)) return inner
  // An empty section, or options nobody gave, say nothing; a named thing without settings is written as nothing.
  return [
    'deploy',
    'resources',
    'volume',
    'limits',
    'reservations',
    'networks',
    'volumes',
    'secrets',
    'configs',
    'environment',
    'labels',
    'options',
    'driver_opts',
  ].includes(key)
    ? undefined
    : null
}
