import { UserError } from '../base/index.ts'
import {
  type ContainerCreateBody,
  type EndpointBody,
  type HealthConfigBody,
  isOlderApi,
  type MountBody,
  type PortBinding,
} from '../engine/index.ts'
import {
  type ContainerSpec,
  type GenericResource,
  type HealthCheck,
  ipv6Of,
  type Mount,
  macOf,
} from '../model/index.ts'
import type { TaskAssignment } from '../wire/index.ts'
import type { Materials } from './runtime.ts'
import type { FileMount } from './task-files.ts'

/** Labels by which a task's container is found again. */
export const clusterLabel = 'skep.cluster.id'
export const taskIdLabel = 'com.docker.swarm.task.id'

/** The engine's own networks: nothing is addressed or resolved there. */
const predefinedNetworks: ReadonlySet<string> = new Set(['bridge', 'host', 'none'])

/** Engines refuse a smaller memory reservation. */
const memoryReservationBytesMin = 6 * 1024 * 1024

export interface ContainerPlan {
  readonly name: string
  readonly body: ContainerCreateBody
  /** Networks that this engine can join only after the create, in order. */
  readonly connects: readonly { readonly network: string; readonly endpoint: EndpointBody }[]
}

/**
 * A task's container in the Engine API's words. Pure. `container` has its templates filled in. Throws `unsupported`
 * that names what this engine's API can't do.
 */
export function planContainer(
  assignment: TaskAssignment,
  container: ContainerSpec,
  materials: Materials,
  files: readonly FileMount[],
  apiVersion: string,
): ContainerPlan {
  const { task, template, workload } = assignment
  if (template.containers.length !== 1) {
    throw new UserError('unsupported', 'a task with several containers')
  }
  const credential = container.configs.find((config) => config.type === 'runtime')
  if (credential) {
    throw new UserError(
      'unsupported',
      `credential spec "${credential.name}": only Windows has them`,
    )
  }
  const needs = (version: string, what: string): void => {
    if (!isOlderApi(apiVersion, version)) return
    throw new UserError(
      'unsupported',
      `${what} needs Engine API ${version}, this engine has ${apiVersion}`,
      {
        next: 'Leave it out, or upgrade the Docker Engine of this node.',
      },
    )
  }

  const { node } = materials.assignments
  const attachments = planNetworks(assignment, materials, apiVersion)
  const network = attachments[0]?.network ?? 'bridge'
  const hasOwnStack = network !== 'host' && network !== 'none'
  const rest = attachments.slice(1)
  const atOnce = rest.length > 0 && !isOlderApi(apiVersion, '1.44')
  const nameservers =
    materials.nameservers.length > 0 ? materials.nameservers : container.dns.nameservers
  const ports = hasOwnStack ? planPorts(assignment) : undefined
  const { limits } = container
  const reservationBytes = template.reservations.memoryBytes
  const logDriver = template.logDriver ?? assignment.defaultLogDriver
  const securityOptions = planSecurity(container)
  const endpoints = atOnce ? attachments : attachments.slice(0, 1)
  const mounts = [
    ...container.mounts.map((mount) => planMount(mount, needs)),
    ...files.map(
      ({ source, target }): MountBody => ({
        Type: 'bind',
        Source: source,
        Target: target,
        ReadOnly: true,
      }),
    ),
  ]

  return {
    name: assignment.name,
    connects: atOnce ? [] : rest,
    body: {
      Image: container.image,
      ...(container.command && { Entrypoint: container.command }),
      ...(container.args && { Cmd: container.args }),
      Env: [...container.env, ...task.genericResources.map(resourceEnv)],
      Labels: {
        ...container.labels,
        'com.docker.swarm.task': '',
        [taskIdLabel]: task.id,
        'com.docker.swarm.task.name': assignment.name,
        'com.docker.swarm.service.id': workload.id,
        'com.docker.swarm.service.name': workload.name,
        'com.docker.swarm.node.id': node.id,
        [clusterLabel]: node.clusterId,
      },
      ...(container.hostname && { Hostname: container.hostname }),
      ...(container.user && { User: container.user }),
      ...(container.dir && { WorkingDir: container.dir }),
      Tty: container.tty,
      OpenStdin: container.openStdin,
      ...(container.stopSignal && { StopSignal: container.stopSignal }),
      StopTimeout: Math.ceil(container.stopGraceMs / 1000),
      ...(ports && { ExposedPorts: ports.exposed }),
      ...(container.health && { Healthcheck: planHealth(container.health, apiVersion) }),
      HostConfig: {
        RestartPolicy: { Name: 'no' },
        NetworkMode: network,
        ...(mounts.length > 0 && { Mounts: mounts }),
        ...(ports && { PortBindings: ports.bindings }),
        ...(logDriver && { LogConfig: { Type: logDriver.name, Config: logDriver.options } }),
        ...(limits.nanoCpus && { NanoCpus: limits.nanoCpus }),
        ...(limits.memoryBytes && { Memory: limits.memoryBytes }),
        ...(limits.pids && { PidsLimit: limits.pids }),
        ...(reservationBytes >= memoryReservationBytesMin &&
          reservationBytes <= (limits.memoryBytes || Number.POSITIVE_INFINITY) && {
            MemoryReservation: reservationBytes,
          }),
        ...(container.ulimits.length > 0 && {
          Ulimits: container.ulimits.map(({ name, soft, hard }) => ({
            Name: name,
            Soft: soft,
            Hard: hard,
          })),
        }),
        ...(container.capabilitiesAdd.length > 0 && { CapAdd: container.capabilitiesAdd }),
        ...(container.capabilitiesDrop.length > 0 && { CapDrop: container.capabilitiesDrop }),
        ...(securityOptions.length > 0 && { SecurityOpt: securityOptions }),
        ...(Object.keys(container.sysctls).length > 0 && { Sysctls: container.sysctls }),
        ...(hasOwnStack && {
          ...(nameservers.length > 0 && { Dns: nameservers }),
          ...(container.dns.search.length > 0 && { DnsSearch: container.dns.search }),
          ...(container.dns.options.length > 0 && { DnsOptions: container.dns.options }),
        }),
        ...(container.hosts.length > 0 && {
          ExtraHosts: container.hosts.map(({ name, address }) => `${name}:${address}`),
        }),
        ...(container.groups.length > 0 && { GroupAdd: container.groups }),
        ...(container.init !== undefined && { Init: container.init }),
        ReadonlyRootfs: container.readOnly,
        ...(container.oomScoreAdj !== undefined && { OomScoreAdj: container.oomScoreAdj }),
        ...(container.isolation && { Isolation: container.isolation }),
      },
      ...(endpoints.length > 0 &&
        !predefinedNetworks.has(network) && {
          NetworkingConfig: {
            EndpointsConfig: Object.fromEntries(
              endpoints.map(({ network, endpoint }) => [network, endpoint]),
            ),
          },
        }),
      ...macOfFirst(attachments, apiVersion),
    },
  }
}

interface Attachment {
  readonly network: string
  readonly endpoint: EndpointBody
  readonly mac: string | undefined
  readonly address: string | undefined
}

function planNetworks(
  assignment: TaskAssignment,
  materials: Materials,
  apiVersion: string,
): readonly Attachment[] {
  const attachments = [...materials.engineNetworks].map(([networkId, network]): Attachment => {
    const given = assignment.task.addresses.find((address) => address.networkId === networkId)
    const asked = assignment.template.networks.find((spec) => spec.networkId === networkId)
    const options = asked?.driverOptions ?? {}
    const known = given && materials.assignments.networks.get(given.networkId)
    return {
      network,
      mac: given?.mac,
      address: given?.address,
      endpoint: {
        ...(given && {
          IPAMConfig: {
            IPv4Address: given.address,
            ...(known?.ipv6 && {
              IPv6Address: ipv6Of({ ...known, ipv6: known.ipv6 }, given.address),
            }),
          },
        }),
        ...(given && !isOlderApi(apiVersion, '1.44') && { MacAddress: given.mac }),
        ...(Object.keys(options).length > 0 && { DriverOpts: options }),
      },
    }
  })
  const alone = attachments.find(({ network }) => network === 'host' || network === 'none')
  if (alone && attachments.length > 1) {
    throw new UserError(
      'invalidInput',
      `the network "${alone.network}" can't be combined with other networks`,
      { next: `Attach the service to "${alone.network}" alone, or leave it out.` },
    )
  }
  return attachments
}

/**
 * Before API 1.44 one address for all networks can be set, and without it each network derives its own from the IP
 * address, as the cluster does. So it is set only where it would differ.
 */
function macOfFirst(
  attachments: readonly Attachment[],
  apiVersion: string,
): Pick<ContainerCreateBody, 'MacAddress'> {
  if (!isOlderApi(apiVersion, '1.44')) return {}
  const own = attachments.filter(({ mac, address }) => mac && address && mac !== macOf(address))
  const mac = own[0]?.mac
  if (mac === undefined) return {}
  if (attachments.length === 1) return { MacAddress: mac }
  throw new UserError(
    'unsupported',
    `link-layer addresses on several networks need Engine API 1.44, this engine has ${apiVersion}`,
  )
}

function planPorts(assignment: TaskAssignment): {
  exposed: Record<string, Record<string, never>>
  bindings: Record<string, PortBinding[]>
} {
  const exposed: Record<string, Record<string, never>> = {}
  const bindings: Record<string, PortBinding[]> = {}
  for (const { targetPort, protocol, publishedPort } of assignment.hostPorts) {
    const key = `${targetPort}/${protocol}`
    exposed[key] = {}
    const bound = bindings[key] ?? []
    bound.push({ HostPort: publishedPort === 0 ? '' : String(publishedPort) })
    bindings[key] = bound
  }
  return { exposed, bindings }
}

/** `DOCKER_RESOURCE_GPU=uuid1,uuid2` or `DOCKER_RESOURCE_SSD=3`. */
function resourceEnv({ kind, value, names }: GenericResource): string {
  const shown = names && names.length > 0 ? names.join(',') : String(value)
  return `DOCKER_RESOURCE_${kind.toUpperCase()}=${shown}`
}

function planSecurity({ privileges }: ContainerSpec): readonly string[] {
  const { seccomp, apparmor, noNewPrivileges, selinux } = privileges
  const options: string[] = []
  if (seccomp?.mode === 'unconfined') options.push('seccomp=unconfined')
  if (seccomp?.mode === 'custom') options.push(`seccomp=${seccomp.profile ?? ''}`)
  if (apparmor?.mode === 'disabled') options.push('apparmor=unconfined')
  if (noNewPrivileges) options.push('no-new-privileges=true')
  if (selinux?.disable) options.push('label=disable')
  for (const key of ['user', 'role', 'type', 'level'] as const) {
    if (selinux?.[key]) options.push(`label=${key}:${selinux[key]}`)
  }
  return options
}

/** In ns. Before API 1.44 there is no start interval; the agent's own probes do that part. */
function planHealth(check: HealthCheck, apiVersion: string): HealthConfigBody {
  const ns = (ms: number): number => Math.round(ms * 1e6)
  return {
    ...(check.test.length > 0 && { Test: check.test }),
    ...(check.intervalMs && { Interval: ns(check.intervalMs) }),
    ...(check.timeoutMs && { Timeout: ns(check.timeoutMs) }),
    ...(check.startPeriodMs && { StartPeriod: ns(check.startPeriodMs) }),
    ...(check.startIntervalMs &&
      !isOlderApi(apiVersion, '1.44') && { StartInterval: ns(check.startIntervalMs) }),
    ...(check.retries && { Retries: check.retries }),
  }
}

function planMount(mount: Mount, needs: (version: string, what: string) => void): MountBody {
  const common = { Target: mount.target, ReadOnly: mount.readOnly }
  switch (mount.type) {
    case 'bind': {
      const { bind } = mount
      if (bind.createMountpoint) needs('1.42', `bind-create-src of the mount ${mount.target}`)
      if (bind.readOnlyNonRecursive) {
        needs('1.44', `bind-recursive=writable of the mount ${mount.target}`)
      }
      if (bind.readOnlyForceRecursive) {
        needs('1.44', `bind-recursive=readonly of the mount ${mount.target}`)
      }
      return {
        Type: 'bind',
        Source: mount.source,
        ...common,
        BindOptions: {
          ...(bind.propagation && { Propagation: bind.propagation }),
          ...(bind.nonRecursive && { NonRecursive: true }),
          ...(bind.createMountpoint && { CreateMountpoint: true }),
          ...(bind.readOnlyNonRecursive && { ReadOnlyNonRecursive: true }),
          ...(bind.readOnlyForceRecursive && { ReadOnlyForceRecursive: true }),
        },
      }
    }
    case 'volume': {
      const { volume } = mount
      if (volume.subpath) needs('1.45', `volume-subpath of the mount ${mount.target}`)
      return {
        Type: 'volume',
        ...(mount.source && { Source: mount.source }),
        ...common,
        VolumeOptions: {
          NoCopy: volume.noCopy,
          Labels: volume.labels,
          ...(volume.subpath && { Subpath: volume.subpath }),
          ...(volume.driver && {
            DriverConfig: { Name: volume.driver.name, Options: volume.driver.options },
          }),
        },
      }
    }
    case 'tmpfs': {
      const { tmpfs } = mount
      if (tmpfs.options.length > 0) needs('1.46', `tmpfs options of the mount ${mount.target}`)
      return {
        Type: 'tmpfs',
        ...common,
        TmpfsOptions: {
          ...(tmpfs.sizeBytes && { SizeBytes: tmpfs.sizeBytes }),
          ...(tmpfs.mode && { Mode: tmpfs.mode }),
          ...(tmpfs.options.length > 0 && { Options: tmpfs.options }),
        },
      }
    }
  }
}
