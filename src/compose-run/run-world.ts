import { UserError } from '../base/index.ts'
import type { ContainerInspect, Engine, EngineEvent } from '../engine/index.ts'
import { label } from './labels.ts'

/** One step of something that is shown while it goes on. */
export interface Step {
  /** `Container shop-web-1`. */
  readonly id: string
  /** `Creating`, then `Created`. */
  readonly text: string
  readonly state: 'working' | 'done' | 'warning' | 'error'
  /** The step above it: layers below an image. */
  readonly parent?: string
}

/** What every operation of Compose is given. */
export interface RunWorld {
  readonly engine: Engine
  readonly readFile: (path: string) => Promise<Buffer>
  readonly progress: (step: Step) => void
  readonly warn: (text: string) => void
  /** Value of the version label. */
  readonly version: string
  /** `--env-file`, absolute, for a label. */
  readonly envFiles: readonly string[]
  /** The login for an image's registry as `X-Registry-Auth` has it. */
  readonly registryAuth: (image: string) => Promise<string | undefined>
  /** Changes are shown and not made: commands in containers are left out. */
  readonly isDryRun: boolean
  readonly nowMs: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
  /** Aborts everything that runs. */
  readonly signal: AbortSignal
}

/** Shows a step while its work runs: `Starting`, `Started`. A failure is shown and thrown on. */
export async function shown<T>(
  world: Pick<RunWorld, 'progress' | 'signal'>,
  id: string,
  [doing, done]: readonly [string, string],
  work: () => Promise<T>,
): Promise<T> {
  world.progress({ id, text: doing, state: 'working' })
  try {
    const result = await work()
    world.progress({ id, text: done, state: 'done' })
    return result
  } catch (error) {
    const isStopped = world.signal.aborted
    world.progress({
      id,
      text: isStopped ? 'Interrupted' : 'Error',
      state: isStopped ? 'warning' : 'error',
    })
    throw error
  }
}

/** Wakes those who wait for a container to change. Opens one stream of events at the first wait. */
export class ContainerWatch {
  readonly #world: Pick<RunWorld, 'engine' | 'signal'>
  readonly #project: string
  readonly #closed = new AbortController()
  readonly #wakeById = new Map<string, Set<() => void>>()
  #stream: Promise<void> | undefined
  #broken: unknown

  constructor(world: Pick<RunWorld, 'engine' | 'signal'>, project: string) {
    this.#world = world
    this.#project = project
  }

  /** Looks at the container now and after each of its events, until `look` has an answer. */
  async until<T>(
    id: string,
    look: (container: ContainerInspect) => T | undefined,
    signal: AbortSignal = this.#world.signal,
  ): Promise<T> {
    await this.#open()
    for (;;) {
      if (this.#broken !== undefined) throw this.#broken
      let wake = (): void => {}
      const woken = new Promise<void>((resolve) => {
        wake = resolve
      })
      const wakers = this.#wakeById.get(id) ?? new Set()
      this.#wakeById.set(id, wakers.add(wake))
      signal.addEventListener('abort', wake, { once: true })
      try {
        signal.throwIfAborted()
        const answer = look(await this.#world.engine.containers.inspect(id, signal))
        if (answer !== undefined) return answer
        await woken
      } finally {
        wakers.delete(wake)
        signal.removeEventListener('abort', wake)
      }
    }
  }

  close(): void {
    this.#closed.abort(new Error('closed'))
  }

  #open(): Promise<void> {
    this.#stream ??= (async () => {
      const signal = AbortSignal.any([this.#closed.signal, this.#world.signal])
      const events = await this.#world.engine.events(
        { filters: { type: ['container'], label: [`${label.project}=${this.#project}`] } },
        signal,
      )
      void this.#read(events)
    })()
    return this.#stream
  }

  async #read(events: AsyncIterable<EngineEvent>): Promise<void> {
    try {
      for await (const { Actor } of events) {
        for (const wake of this.#wakeById.get(Actor.ID) ?? []) wake()
      }
      this.#broken = new UserError('unavailable', 'the engine ended its stream of events', {
        next: 'See whether it still runs, and try again.',
      })
    } catch (error) {
      this.#broken = error
    }
    for (const wakers of this.#wakeById.values()) for (const wake of wakers) wake()
  }
}
