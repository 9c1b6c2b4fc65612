import type { EndpointSpec } from './endpoint.ts'
import type { ConfigId, NetworkId, RevisionId, SecretId, WorkloadId } from './ids.ts'
import type { ObjectMeta, Source } from './object.ts'

/** What should run, and how it changes. A Docker service is one workload with one endpoint. */
export interface Workload extends ObjectMeta<'workload', WorkloadId> {
  readonly source: Source
  readonly spec: WorkloadSpec
  readonly status: WorkloadStatus
}

export interface WorkloadSpec {
  readonly mode: WorkloadMode
  readonly update: UpdatePolicy
  readonly rollback: UpdatePolicy
  /** The revision that is wanted now; its template is what tasks should run. */
  readonly revisionId: RevisionId
  /** The revision that `rollback` without a number goes to. */
  readonly previousRevisionId?: RevisionId
  /** Jobs: each spec change starts a new iteration, counted from 0. */
  readonly jobIteration: number
  /** What happens to a task whose node is lost. */
  readonly onNodeLoss: NodeLossPolicy
}

export type WorkloadMode =
  | { readonly type: 'replicated'; readonly replicas: number }
  | { readonly type: 'global' }
  | {
      readonly type: 'replicatedJob'
      readonly maxConcurrent: number
      readonly totalCompletions: number
    }
  | { readonly type: 'globalJob' }

export type NodeLossPolicy =
  | { readonly type: 'replace' }
  | { readonly type: 'keep' }
  | { readonly type: 'stopAfter'; readonly afterMs: number }

/** How a change of the template reaches the tasks. */
export interface UpdatePolicy {
  /** Slots replaced at once; 0 means all. */
  readonly parallelism: number
  /** Pause after a slot is done before its worker takes the next one, in ms. */
  readonly delayMs: number
  readonly onFailure: 'pause' | 'continue' | 'rollback'
  /** How long a new task is watched after it became ready, in ms. */
  readonly monitorMs: number
  /** Share of slots that may fail, 0..1, before `onFailure` applies. */
  readonly maxFailureRatio: number
  readonly order: 'stopFirst' | 'startFirst'
  /** A slot that makes no progress for this long counts as failed, in ms. */
  readonly progressDeadlineMs: number
}

export interface WorkloadStatus {
  /** The update or rollback under way, or the last one. */
  readonly update?: UpdateStatus
  /** Jobs: when the current iteration began. */
  readonly lastExecutionMs?: number
  /** What it had to wait for before its first task was there. Absent: it waits still, or never had to. */
  readonly isStartOrderMet?: true
}

export interface UpdateStatus {
  readonly state:
    | 'updating'
    | 'paused'
    | 'completed'
    | 'rollbackStarted'
    | 'rollbackPaused'
    | 'rollbackCompleted'
  readonly startedAtMs: number
  readonly completedAtMs?: number
  readonly message: string
  /** The revision this goes to. */
  readonly revisionId: RevisionId
  /** Why it is not further: the slots it waits for, in words. Absent when nothing is waited for. */
  readonly waitingFor?: string
}

/** One version of a workload's template. Tasks refer to it and never copy it. */
export interface Revision extends ObjectMeta<'revision', RevisionId> {
  readonly workloadId: WorkloadId
  /** Counted from 1 within a workload; every accepted spec gets the next one. */
  readonly number: number
  /** Hash of all that makes a running task out of date when it differs (template and endpoint's ports and mode). */
  readonly templateHash: string
  readonly template: TaskTemplate
  /** The whole document that was declared, for rollback and for reading back. */
  readonly source: Source
  /** What the document said beside the template, so that going back to it needs no dialect. */
  readonly declared?: DeclaredWorkload
  /** Sealed registry credentials that came with the document. */
  readonly registryAuth?: Sealed
  /** When an update to it was completed: such revisions are kept for rollback. */
  readonly healthyAtMs?: number
}

/** The parts of a declaration that lie on the workload and its endpoint. */
export interface DeclaredWorkload {
  readonly labels: Readonly<Record<string, string>>
  readonly mode: WorkloadMode
  readonly update: UpdatePolicy
  readonly rollback: UpdatePolicy
  readonly onNodeLoss: NodeLossPolicy
  readonly endpoint: Pick<EndpointSpec, 'mode' | 'networks' | 'ports'>
}

/** Bytes that only the holder of the cluster's data key can read. */
export interface Sealed {
  readonly keyId: string
  /** base64 */
  readonly nonce: string
  /** base64, authentication tag included */
  readonly ciphertext: string
}

/** What a task is made from: a sandbox with 1..n containers. */
export interface TaskTemplate {
  readonly containers: readonly ContainerSpec[]
  readonly restart: RestartPolicy
  readonly placement: Placement
  readonly reservations: Reservations
  readonly networks: readonly NetworkAttachmentSpec[]
  readonly logDriver?: { readonly name: string; readonly options: Readonly<Record<string, string>> }
  /** Counted up to replace tasks although nothing else changed. */
  readonly forceUpdate: number
}

export interface NetworkAttachmentSpec {
  readonly networkId: NetworkId
  readonly aliases: readonly string[]
  readonly driverOptions: Readonly<Record<string, string>>
}

export interface RestartPolicy {
  /** `task`: a failed task is replaced by a new one (Swarm); `container`: restarted in place (Pods). */
  readonly scope: 'task' | 'container'
  readonly condition: 'none' | 'onFailure' | 'any'
  readonly delayMs: number
  /** 0 means unlimited. */
  readonly maxAttempts: number
  /** Attempts are counted within this span, in ms; 0 means for ever. */
  readonly windowMs: number
}

export interface Placement {
  readonly constraints: readonly Constraint[]
  /** Keys to spread over, most important first: `node.labels.zone`, `engine.labels.rack`. */
  readonly spread: readonly string[]
  /** 0 means no limit. */
  readonly maxReplicasPerNode: number
  readonly platforms: readonly Platform[]
}

/** `key == value` or `key != value`, as in `node.labels.zone==a`. */
export interface Constraint {
  readonly key: string
  readonly operator: '==' | '!='
  readonly value: string
}

export interface Platform {
  /** As people write it: `amd64`, `x86_64`, `arm64`; empty means any. */
  readonly architecture: string
  readonly os: string
}

export interface Reservations {
  /** Billionths of a CPU. */
  readonly nanoCpus: number
  readonly memoryBytes: number
  readonly generic: readonly GenericResource[]
}

/** A countable (`value`) or named (`names`) thing that nodes have and tasks use up: gpu=2, fpga={a,b}. */
export interface GenericResource {
  readonly kind: string
  readonly value: number
  readonly names?: readonly string[]
}

export interface ContainerSpec {
  readonly name: string
  readonly role: 'main' | 'init' | 'sidecar'
  readonly image: string
  /** Replaces the image's entrypoint when present. */
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  readonly hostname?: string
  readonly user?: string
  readonly groups: readonly string[]
  readonly dir?: string
  readonly mounts: readonly Mount[]
  readonly secrets: readonly FileReference<SecretId>[]
  readonly configs: readonly (FileReference<ConfigId> | CredentialReference)[]
  readonly health: HealthCheck | undefined
  readonly limits: Limits
  readonly stopSignal?: string
  /** Between the stop signal and SIGKILL, in ms. */
  readonly stopGraceMs: number
  readonly tty: boolean
  readonly openStdin: boolean
  readonly readOnly: boolean
  readonly init?: boolean
  readonly dns: {
    readonly nameservers: readonly string[]
    readonly search: readonly string[]
    readonly options: readonly string[]
  }
  /** `/etc/hosts` lines as `name:address`. */
  readonly hosts: readonly { readonly name: string; readonly address: string }[]
  readonly capabilitiesAdd: readonly string[]
  readonly capabilitiesDrop: readonly string[]
  readonly sysctls: Readonly<Record<string, string>>
  readonly ulimits: readonly {
    readonly name: string
    readonly soft: number
    readonly hard: number
  }[]
  readonly privileges: Privileges
  readonly isolation?: string
  readonly oomScoreAdj?: number
}

export interface Privileges {
  readonly seccomp?: {
    readonly mode: 'default' | 'unconfined' | 'custom'
    readonly profile?: string
  }
  readonly apparmor?: { readonly mode: 'default' | 'disabled' }
  readonly noNewPrivileges: boolean
  readonly selinux?: {
    readonly disable: boolean
    readonly user?: string
    readonly role?: string
    readonly type?: string
    readonly level?: string
  }
}

export interface Limits {
  readonly nanoCpus?: number
  readonly memoryBytes?: number
  readonly pids?: number
}

export type Mount =
  | {
      readonly type: 'bind'
      readonly source: string
      readonly target: string
      readonly readOnly: boolean
      readonly bind: {
        readonly propagation?: string
        readonly nonRecursive: boolean
        readonly createMountpoint: boolean
        readonly readOnlyNonRecursive: boolean
        readonly readOnlyForceRecursive: boolean
      }
    }
  | {
      readonly type: 'volume'
      /** Empty: an anonymous volume. */
      readonly source: string
      readonly target: string
      readonly readOnly: boolean
      readonly volume: {
        readonly noCopy: boolean
        readonly labels: Readonly<Record<string, string>>
        readonly subpath?: string
        readonly driver?: {
          readonly name: string
          readonly options: Readonly<Record<string, string>>
        }
      }
    }
  | {
      readonly type: 'tmpfs'
      readonly target: string
      readonly readOnly: boolean
      readonly tmpfs: {
        readonly sizeBytes?: number
        readonly mode?: number
        readonly options: readonly (readonly string[])[]
      }
    }

/** A secret or config as a file in the container. */
export interface FileReference<ObjectId> {
  readonly type: 'file'
  readonly id: ObjectId
  readonly name: string
  /** Absolute, or relative to `/run/secrets` (secrets) or `/` (configs). */
  readonly target: string
  readonly uid: string
  readonly gid: string
  /** Permission bits, such as 0o444. */
  readonly mode: number
}

/** A config that is no file but a credential spec for the runtime. */
export interface CredentialReference {
  readonly type: 'runtime'
  readonly id: ConfigId
  readonly name: string
}

/** Durations in ms; an absent one leaves the image's or the engine's value. */
export interface HealthCheck {
  /** `['NONE']` switches the image's check off; `['CMD', …]`, `['CMD-SHELL', line]`; empty: the image's test. */
  readonly test: readonly string[]
  readonly intervalMs?: number
  readonly timeoutMs?: number
  readonly startPeriodMs?: number
  readonly startIntervalMs?: number
  readonly retries?: number
}

/** Whether what a mode runs is to end by itself. */
export function isJob({ mode }: { readonly mode: WorkloadMode }): boolean {
  return mode.type === 'replicatedJob' || mode.type === 'globalJob'
}
