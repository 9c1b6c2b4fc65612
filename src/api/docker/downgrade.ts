import type { ContainerSpecDocument, ServiceSpecDocument } from './documents.ts'

/** `<major>.<minor>` as a number to compare. */
export function minorOf(version: string): number {
  return Number(version.split('.')[1] ?? 0)
}

/**
 * What a client of an older API version could not have meant is dropped, as the Engine does; `dropped` names it, so that
 * the answer can warn.
 */
export function downgradeService(
  document: ServiceSpecDocument,
  version: string,
): { readonly document: ServiceSpecDocument; readonly dropped: readonly string[] } {
  const minor = minorOf(version)
  const dropped: string[] = []
  const drop = <T extends object, K extends keyof T & string>(
    part: T,
    since: number,
    ...fields: readonly K[]
  ): T => {
    const gone = minor < since ? fields.filter((field) => part[field] !== undefined) : []
    if (gone.length === 0) return part
    dropped.push(...gone.map((field) => `${field} (needs API version 1.${since})`))
    const rest = { ...part }
    for (const field of gone) delete rest[field]
    return rest
  }
  const task = document.TaskTemplate
  const resources = task.Resources
  const downgraded: ServiceSpecDocument = {
    ...document,
    Mode: drop(document.Mode, 41, 'ReplicatedJob', 'GlobalJob'),
    TaskTemplate: {
      ...task,
      ...(task.ContainerSpec
        ? { ContainerSpec: downgradeContainer(task.ContainerSpec, drop) }
        : {}),
      ...(resources?.Limits
        ? { Resources: { ...resources, Limits: drop(resources.Limits, 41, 'Pids') } }
        : {}),
      ...(task.Placement ? { Placement: drop(task.Placement, 40, 'MaxReplicas') } : {}),
    },
  }
  return { document: downgraded, dropped }
}

type Drop = <T extends object, K extends keyof T & string>(
  part: T,
  since: number,
  ...fields: readonly K[]
) => T

function downgradeContainer(spec: ContainerSpecDocument, drop: Drop): ContainerSpecDocument {
  const { Healthcheck, Privileges, Mounts } = spec
  return {
    ...drop(
      drop(drop(spec, 40, 'Sysctls'), 41, 'CapabilityAdd', 'CapabilityDrop', 'Ulimits'),
      46,
      'OomScoreAdj',
    ),
    ...(Healthcheck ? { Healthcheck: drop(Healthcheck, 44, 'StartInterval') } : {}),
    ...(Privileges
      ? { Privileges: drop(Privileges, 44, 'Seccomp', 'AppArmor', 'NoNewPrivileges') }
      : {}),
    ...(Mounts
      ? {
          Mounts: Mounts.map((mount) => ({
            ...mount,
            ...(mount.BindOptions
              ? {
                  BindOptions: drop(
                    drop(mount.BindOptions, 40, 'NonRecursive'),
                    44,
                    'ReadOnlyNonRecursive',
                    'ReadOnlyForceRecursive',
                  ),
                }
              : {}),
            ...(mount.VolumeOptions
              ? { VolumeOptions: drop(mount.VolumeOptions, 45, 'Subpath') }
              : {}),
            ...(mount.TmpfsOptions
              ? { TmpfsOptions: drop(mount.TmpfsOptions, 46, 'Options') }
              : {}),
          })),
        }
      : {}),
  }
}
