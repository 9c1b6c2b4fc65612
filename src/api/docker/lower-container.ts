import { UserError } from '../../base/index.ts'
import {
  type ConfigId,
  type ContainerSpec,
  type CredentialReference,
  type FileReference,
  type HealthCheck,
  idFrom,
  type Limits,
  type Mount,
  type Privileges,
  type SecretId,
} from '../../model/index.ts'
import { checkAmounts } from './amounts.ts'
import type { ContainerSpecDocument, MountDocument, PrivilegesDocument } from './documents.ts'
import { isImageReference } from './names.ts'

const nsPerMs = 1e6
const defaultStopGraceMs = 10_000

type LimitsDocument = {
  readonly NanoCPUs?: number
  readonly MemoryBytes?: number
  readonly Pids?: number
}

function refuse(message: string, next?: string): never {
  throw new UserError('invalidInput', message, next ? { next } : {})
}

/** Reads a `ContainerSpec`. `name` is the service's. */
export function lowerContainer(
  name: string,
  spec: ContainerSpecDocument,
  limits: LimitsDocument | undefined,
): ContainerSpec {
  if (!spec.Image) refuse('ContainerSpec: image reference must be provided')
  if (!isImageReference(spec.Image)) {
    refuse(`ContainerSpec: "${spec.Image}" is not a valid repository/tag`)
  }
  if (spec.Isolation && spec.Isolation !== 'default') {
    refuse(`isolation "${spec.Isolation}" is not known on Linux`, 'Use "default" or leave it out.')
  }
  if ((spec.StopGracePeriod ?? 0) < 0) refuse('ContainerSpec: stop-grace-period cannot be negative')
  const oom = spec.OomScoreAdj ?? 0
  if (oom < -1000 || oom > 1000) {
    refuse(`ContainerSpec: invalid oom-score-adj ${oom}: must be between -1000 and 1000`)
  }
  return {
    name,
    role: 'main',
    image: spec.Image,
    ...(spec.Command ? { command: spec.Command } : {}),
    ...(spec.Args ? { args: spec.Args } : {}),
    env: spec.Env ?? [],
    labels: spec.Labels ?? {},
    ...(spec.Hostname ? { hostname: spec.Hostname } : {}),
    ...(spec.User ? { user: spec.User } : {}),
    groups: spec.Groups ?? [],
    ...(spec.Dir ? { dir: spec.Dir } : {}),
    mounts: lowerMounts(spec.Mounts ?? []),
    secrets: lowerSecrets(spec),
    configs: lowerConfigs(spec),
    health: lowerHealth(spec),
    limits: lowerLimits(limits),
    ...(spec.StopSignal ? { stopSignal: spec.StopSignal } : {}),
    stopGraceMs:
      spec.StopGracePeriod === undefined ? defaultStopGraceMs : spec.StopGracePeriod / nsPerMs,
    tty: spec.TTY ?? false,
    openStdin: spec.OpenStdin ?? false,
    readOnly: spec.ReadOnly ?? false,
    ...(spec.Init === undefined ? {} : { init: spec.Init }),
    dns: {
      nameservers: spec.DNSConfig?.Nameservers ?? [],
      search: spec.DNSConfig?.Search ?? [],
      options: spec.DNSConfig?.Options ?? [],
    },
    hosts: (spec.Hosts ?? []).flatMap(lowerHost),
    capabilitiesAdd: spec.CapabilityAdd ?? [],
    capabilitiesDrop: spec.CapabilityDrop ?? [],
    sysctls: spec.Sysctls ?? {},
    ulimits: (spec.Ulimits ?? []).map(({ Name, Hard, Soft }) => {
      if (Name === '') refuse('ContainerSpec: an ulimit needs a name')
      return { name: Name, soft: Soft, hard: Hard }
    }),
    privileges: lowerPrivileges(spec.Privileges),
    ...(oom === 0 ? {} : { oomScoreAdj: oom }),
  }
}

function lowerLimits(limits: LimitsDocument | undefined): Limits {
  const { NanoCPUs = 0, MemoryBytes = 0, Pids = 0 } = limits ?? {}
  checkAmounts(NanoCPUs, MemoryBytes)
  return {
    ...(NanoCPUs ? { nanoCpus: NanoCPUs } : {}),
    ...(MemoryBytes ? { memoryBytes: MemoryBytes } : {}),
    // The Engine takes -1 and 0 for no limit.
    ...(Pids > 0 ? { pids: Pids } : {}),
  }
}

/** `/etc/hosts` order: an address, then its names. */
function lowerHost(line: string): readonly { readonly name: string; readonly address: string }[] {
  const [address, ...names] = line.trim().split(/\s+/)
  if (!address || names.length === 0) {
    refuse(`ContainerSpec: invalid host "${line}"`, 'Write it as <address> <name>.')
  }
  return names.map((name) => ({ name, address }))
}

function lowerHealth({ Healthcheck }: ContainerSpecDocument): HealthCheck | undefined {
  if (!Healthcheck) return undefined
  const durations = {
    Interval: Healthcheck.Interval,
    Timeout: Healthcheck.Timeout,
    StartPeriod: Healthcheck.StartPeriod,
    StartInterval: Healthcheck.StartInterval,
  }
  for (const [field, value] of Object.entries(durations)) {
    if (value !== undefined && value < nsPerMs) {
      refuse(`ContainerSpec: ${field} in HealthConfig cannot be less than 1ms`)
    }
  }
  const { Test = [], Interval, Timeout, StartPeriod, StartInterval, Retries } = Healthcheck
  if ((Retries ?? 0) < 0) refuse('ContainerSpec: Retries in HealthConfig cannot be negative')
  const [kind] = Test
  if (kind !== undefined && kind !== 'NONE' && kind !== 'CMD' && kind !== 'CMD-SHELL') {
    refuse(`ContainerSpec: unknown type ${kind} of health check`, 'Use NONE, CMD or CMD-SHELL.')
  }
  return {
    test: Test,
    ...(Interval ? { intervalMs: Interval / nsPerMs } : {}),
    ...(Timeout ? { timeoutMs: Timeout / nsPerMs } : {}),
    ...(StartPeriod ? { startPeriodMs: StartPeriod / nsPerMs } : {}),
    ...(StartInterval ? { startIntervalMs: StartInterval / nsPerMs } : {}),
    ...(Retries ? { retries: Retries } : {}),
  }
}

function lowerSecrets({ Secrets = [] }: ContainerSpecDocument): readonly FileReference<SecretId>[] {
  const nameByTarget = new Map<string, string>()
  return Secrets.map(({ File, SecretID, SecretName }) => {
    if (SecretID === '' || SecretName === '' || !File?.Name) refuse('malformed secret reference')
    claimTarget('secret', nameByTarget, SecretName, File.Name)
    return { ...lowerFile(File), id: idFrom(SecretID), name: SecretName }
  })
}

function lowerConfigs({
  Configs = [],
}: ContainerSpecDocument): readonly (FileReference<ConfigId> | CredentialReference)[] {
  const nameByTarget = new Map<string, string>()
  return Configs.map(({ File, Runtime, ConfigID, ConfigName }) => {
    if (Runtime) {
      throw new UserError(
        'unsupported',
        `config ${ConfigName} is used as a credential spec, which Linux does not have`,
        { next: 'Give the config a file target.' },
      )
    }
    if (ConfigID === '' || ConfigName === '' || !File?.Name) refuse('malformed config reference')
    claimTarget('config', nameByTarget, ConfigName, File.Name)
    return { ...lowerFile(File), id: idFrom(ConfigID), name: ConfigName }
  })
}

type FileDocument = NonNullable<NonNullable<ContainerSpecDocument['Secrets']>[number]['File']>

function lowerFile({ Name, UID, GID, Mode }: FileDocument) {
  if (Mode > 0o7777) refuse(`file mode ${Mode} of ${Name} is out of range`)
  return { type: 'file', target: Name, uid: UID || '0', gid: GID || '0', mode: Mode } as const
}

function claimTarget(
  kind: 'secret' | 'config',
  nameByTarget: Map<string, string>,
  name: string,
  target: string,
): void {
  const other = nameByTarget.get(target)
  if (other !== undefined) {
    refuse(`${kind} references '${other}' and '${name}' have a conflicting target: '${target}'`)
  }
  nameByTarget.set(target, name)
}

function lowerMounts(mounts: readonly MountDocument[]): readonly Mount[] {
  const targets = new Set<string>()
  return mounts.map((mount) => {
    const lowered = lowerMount(mount)
    if (targets.has(lowered.target)) {
      refuse(`ContainerSpec: duplicate mount point: ${lowered.target}`)
    }
    targets.add(lowered.target)
    return lowered
  })
}

/** Which options belong to which type. */
const optionsOf = {
  bind: 'BindOptions',
  volume: 'VolumeOptions',
  tmpfs: 'TmpfsOptions',
} as const

function lowerMount(mount: MountDocument): Mount {
  const { Type = '', Source = '', Target = '', ReadOnly: readOnly = false } = mount
  if (Type !== 'bind' && Type !== 'volume' && Type !== 'tmpfs') {
    return refuse(`invalid MountType: "${Type}"`, 'Use bind, volume or tmpfs.')
  }
  const invalid = (why: string) => refuse(`invalid mount config for type "${Type}": ${why}`)
  if (Target === '') invalid('field Target must not be empty')
  const fields = [...Object.values(optionsOf), 'ImageOptions', 'ClusterOptions'] as const
  for (const field of fields) {
    if (field !== optionsOf[Type] && mount[field]) invalid(`field ${field} must not be specified`)
  }
  switch (Type) {
    case 'bind': {
      if (Source === '') invalid('field Source must not be empty')
      const { Propagation, ...bind } = mount.BindOptions ?? {}
      if (Propagation && !/^r?(private|shared|slave)$/.test(Propagation)) {
        invalid(`unknown propagation "${Propagation}"`)
      }
      return {
        type: 'bind',
        source: Source,
        target: Target,
        readOnly,
        bind: {
          ...(Propagation ? { propagation: Propagation } : {}),
          nonRecursive: bind.NonRecursive ?? false,
          createMountpoint: bind.CreateMountpoint ?? false,
          readOnlyNonRecursive: bind.ReadOnlyNonRecursive ?? false,
          readOnlyForceRecursive: bind.ReadOnlyForceRecursive ?? false,
        },
      }
    }
    case 'volume': {
      const { NoCopy, Labels, Subpath, DriverConfig } = mount.VolumeOptions ?? {}
      if (Source === '' && readOnly) invalid('an anonymous volume cannot be read-only')
      return {
        type: 'volume',
        source: Source,
        target: Target,
        readOnly,
        volume: {
          noCopy: NoCopy ?? false,
          labels: Labels ?? {},
          ...(Subpath ? { subpath: Subpath } : {}),
          // The CLI sends an empty one for a subpath.
          ...(DriverConfig?.Name || DriverConfig?.Options
            ? {
                driver: { name: DriverConfig.Name ?? 'local', options: DriverConfig.Options ?? {} },
              }
            : {}),
        },
      }
    }
    case 'tmpfs': {
      if (Source !== '') invalid('field Source must not be specified')
      const { SizeBytes, Mode, Options } = mount.TmpfsOptions ?? {}
      return {
        type: 'tmpfs',
        target: Target,
        readOnly,
        tmpfs: {
          ...(SizeBytes ? { sizeBytes: SizeBytes } : {}),
          ...(Mode ? { mode: Mode } : {}),
          options: Options ?? [],
        },
      }
    }
  }
}

function lowerPrivileges(privileges: PrivilegesDocument | undefined): Privileges {
  const { CredentialSpec, SELinuxContext, Seccomp, AppArmor, NoNewPrivileges } = privileges ?? {}
  if (CredentialSpec && Object.keys(CredentialSpec).length > 0) {
    const [kind] = Object.keys(CredentialSpec)
    throw new UserError('unsupported', `CredentialSpec.${kind} is not supported on Linux`, {
      next: 'Leave --credential-spec out.',
    })
  }
  const seccomp = Seccomp?.Mode
  if (seccomp && seccomp !== 'default' && seccomp !== 'unconfined' && seccomp !== 'custom') {
    refuse(`invalid Seccomp mode "${seccomp}"`, 'Use default, unconfined or custom.')
  }
  if (Seccomp?.Profile && seccomp !== 'custom') {
    refuse('a Seccomp profile needs Seccomp mode "custom"')
  }
  if (seccomp === 'custom' && !Seccomp?.Profile) refuse('Seccomp mode "custom" needs a profile')
  const apparmor = AppArmor?.Mode
  if (apparmor && apparmor !== 'default' && apparmor !== 'disabled') {
    refuse(`invalid AppArmor mode "${apparmor}"`, 'Use default or disabled.')
  }
  return {
    noNewPrivileges: NoNewPrivileges ?? false,
    ...(isOneOf(seccomp, ['default', 'unconfined', 'custom'])
      ? {
          seccomp: {
            mode: seccomp,
            ...(Seccomp?.Profile
              ? { profile: Buffer.from(Seccomp.Profile, 'base64').toString('utf8') }
              : {}),
          },
        }
      : {}),
    ...(isOneOf(apparmor, ['default', 'disabled']) ? { apparmor: { mode: apparmor } } : {}),
    ...(SELinuxContext
      ? {
          selinux: {
            disable: SELinuxContext.Disable ?? false,
            ...(SELinuxContext.User ? { user: SELinuxContext.User } : {}),
            ...(SELinuxContext.Role ? { role: SELinuxContext.Role } : {}),
            ...(SELinuxContext.Type ? { type: SELinuxContext.Type } : {}),
            ...(SELinuxContext.Level ? { level: SELinuxContext.Level } : {}),
          },
        }
      : {}),
  }
}

function isOneOf<T extends string>(value: string | undefined, allowed: readonly T[]): value is T {
  return value !== undefined && allowed.some((one) => one === value)
}

/** Throws on a field with a broken template in it. */
export function checkTemplates(
  container: ContainerSpec,
  checkTemplate: (text: string) => void,
): void {
  const texts = [...container.env, container.hostname ?? '']
  for (const mount of container.mounts) {
    texts.push(mount.target)
    if (mount.type !== 'tmpfs') texts.push(mount.source)
    if (mount.type === 'volume') {
      texts.push(...Object.values(mount.volume.labels))
      texts.push(...Object.values(mount.volume.driver?.options ?? {}))
    }
  }
  for (const text of texts) if (text.includes('{{')) checkTemplate(text)
}
