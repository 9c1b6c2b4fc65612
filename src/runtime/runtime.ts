import type { HealthCheck, HostPort, NodeDescription, TaskId } from '../model/index.ts'
import type { Assignments, LogSource, TaskAssignment } from '../wire/index.ts'

/**
 * Containers of one host: Docker's, or simulated ones. One container per task so far (`template.containers[0]`).
 * Every call may reject with UserError; `code: 'unavailable'` means the engine did not answer and the call is worth
 * repeating, anything else is the task's fault and final.
 */
export interface Runtime extends LogSource {
  /** Capacity, platform, plugins: what the node says of itself. */
  describe(): Promise<Omit<NodeDescription, 'skepVersion' | 'tls' | 'hostSubnets'>>

  /**
   * Makes the task's image, volumes, files and container be there, not started. Idempotent: an existing container of
   * the task is taken as it is. Networks already exist (the data plane makes them). A pull that fails is final only
   * when no local image of that name exists.
   */
  prepare(assignment: TaskAssignment, materials: Materials, signal: AbortSignal): Promise<void>

  /** Starts the prepared container. Idempotent. */
  start(taskId: TaskId, signal: AbortSignal): Promise<StartedContainer>

  /** Stops it: stop signal, `graceMs`, SIGKILL. Idempotent; resolves when it no longer runs (or is not there). */
  stop(taskId: TaskId, graceMs: number): Promise<void>

  /** Removes container, its anonymous volumes and its files. Idempotent. */
  remove(taskId: TaskId): Promise<void>

  /**
   * Runs the health check's test once in the container, now. `undefined` when the container has no test.
   * `check` is the declared one; absent parts come from the image.
   */
  probe(
    taskId: TaskId,
    check: HealthCheck | undefined,
    signal: AbortSignal,
  ): Promise<ProbeResult | undefined>

  /** Every container of this cluster's tasks on the host, whatever its state, found by label. */
  list(): Promise<readonly ObservedContainer[]>
  inspect(taskId: TaskId): Promise<ObservedContainer | undefined>

  /**
   * Calls back at each change of a task's container until `signal` aborts; `resync` after a gap (the engine went away
   * and is back, or events may have been missed): list again. Reconnects by itself.
   */
  watch(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): void
}

/** What a task's container is made of beside its template. */
export interface Materials {
  readonly assignments: Pick<Assignments, 'node' | 'secrets' | 'configs' | 'networks'>
  /** Resolver addresses for a task on cluster networks; empty: the engine's default. */
  readonly nameservers: readonly string[]
  /** Local engine network by cluster network id, and the order in which to attach. */
  readonly engineNetworks: ReadonlyMap<string, string>
}

export interface StartedContainer {
  readonly containerId: string
  readonly pid: number
  /** Whether it has a health check, the image's own included. */
  readonly hasHealthCheck: boolean
  /** Tcp ports that its image says it listens on (EXPOSE); it need not. */
  readonly exposedTcpPorts: readonly number[]
  /** Host-mode ports as bound. */
  readonly hostPorts: readonly HostPort[]
}

export interface ProbeResult {
  readonly healthy: boolean
  /** Last output, cut to 4096 characters. */
  readonly output: string
}

export interface ObservedContainer {
  readonly taskId: TaskId
  readonly containerId: string
  readonly state: 'created' | 'running' | 'paused' | 'exited' | 'dead'
  readonly pid: number
  readonly exitCode: number
  readonly oomKilled: boolean
  /** The engine's own message, such as why a start failed. */
  readonly error: string
  /** `none`: has no check. */
  readonly health: 'none' | 'starting' | 'healthy' | 'unhealthy'
  /** Output of the last failing probe, cut. */
  readonly healthOutput: string
  readonly startedAtMs: number | undefined
  readonly finishedAtMs: number | undefined
  readonly hostPorts: readonly HostPort[]
}

export type RuntimeEvent =
  /** `action` is the engine's word: `create`, `start`, `die`, `oom`, `health_status: unhealthy`, `destroy`, … */
  | { readonly type: 'changed'; readonly taskId: TaskId; readonly action: string }
  | { readonly type: 'resync' }
  | { readonly type: 'unreachable'; readonly why: string }
