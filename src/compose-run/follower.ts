import { messageOf, UserError } from '../base/index.ts'
import type { EngineEvent } from '../engine/index.ts'
import { label } from './labels.ts'
import { type LogPrinter, readLog, shortName } from './logs.ts'
import type { RunWorld } from './run-world.ts'

/** Time in which a container that ended may be started again by somebody, ms. */
const restartMs = 500

/** A container that ended and is not started again by its restart policy. */
export interface ContainerExit {
  readonly id: string
  readonly name: string
  readonly service: string
  readonly code: number
}

interface Followed {
  readonly id: string
  readonly name: string
  readonly service: string
  /** Whether its lines are shown. */
  readonly isShown: boolean
  isLive: boolean
  reading: Promise<void>
  /** When it ended last, seconds with a fraction: what came before was shown. */
  since: string | undefined
}

/** Shows what the containers of a project print from now on, over their restarts, and tells when they end. */
export class Follower {
  readonly #world: RunWorld
  readonly #project: string
  readonly #printer: LogPrinter
  readonly #timestamps: boolean
  readonly #onExit: (exit: ContainerExit) => void
  readonly #accepts: (service: string) => boolean
  readonly #byId = new Map<string, Followed>()
  readonly #closed = new AbortController()
  #wake: () => void = () => {}
  #failure: unknown
  #isQuiet = false

  constructor(
    world: RunWorld,
    project: string,
    printer: LogPrinter,
    options: {
      readonly timestamps: boolean
      readonly onExit?: (exit: ContainerExit) => void
      /** Services whose new containers are followed as they come. */
      readonly accepts?: (service: string) => boolean
    },
  ) {
    this.#world = world
    this.#project = project
    this.#printer = printer
    this.#timestamps = options.timestamps
    this.#onExit = options.onExit ?? (() => {})
    this.#accepts = options.accepts ?? (() => false)
  }

  /** From here on nothing is missed. */
  async open(): Promise<void> {
    const signal = AbortSignal.any([this.#closed.signal, this.#world.signal])
    const events = await this.#world.engine.events(
      {
        filters: {
          type: ['container'],
          event: ['start', 'die'],
          label: [`${label.project}=${this.#project}`, `${label.oneOff}=False`],
        },
      },
      signal,
    )
    void this.#read(events)
  }

  close(): void {
    this.#closed.abort(new Error('closed'))
  }

  /**
   * Takes a container in before it starts; one that runs (`isKept`) is followed at once. `past`: what of its earlier output is
   * shown, and then that of one that does not run is shown as well. Without it: what comes from now on.
   */
  async add(
    container: {
      readonly id: string
      readonly name: string
      readonly service: string
      readonly isKept: boolean
    },
    isShown: boolean,
    past?: { readonly tail: string; readonly since?: string },
  ): Promise<void> {
    const { id, service, isKept } = container
    const name = shortName(this.#project, container.name)
    if (isShown) this.#printer.add(name)
    const { State } = await this.#world.engine.containers.inspect(id, this.#world.signal)
    const followed: Followed = {
      id,
      name,
      service,
      isShown,
      isLive: past === undefined || isKept,
      reading: Promise.resolve(),
      // What it printed in an earlier life is not shown again.
      since: State.FinishedAt.startsWith('0001') ? undefined : secondsOf(State.FinishedAt),
    }
    this.#byId.set(id, followed)
    if (isKept || past !== undefined) this.#follow(followed, past ?? { tail: '0' })
  }

  /** Resolves when every container that was taken in has ended and is shown to its last line. */
  async ended(): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      const isOver = (): boolean => [...this.#byId.values()].every(({ isLive }) => !isLive)
      if (isOver()) {
        await Promise.all([...this.#byId.values()].map(({ reading }) => reading))
        // Who restarts a container from outside stops it first.
        await this.#world.sleep(restartMs, this.#world.signal)
        if (isOver()) return
      } else await woken
    }
  }

  /** Ends of containers are expected from now on, and no longer told. */
  hush(): void {
    this.#isQuiet = true
  }

  async #read(events: AsyncIterable<EngineEvent>): Promise<void> {
    try {
      for await (const event of events) await this.#onEvent(event)
      throw new UserError('unavailable', 'the engine ended its stream of events', {
        next: 'The containers may still run: see skep compose ps.',
      })
    } catch (error) {
      if (this.#closed.signal.aborted) return
      this.#failure = error
      this.#wake()
    }
  }

  async #onEvent({ Action, Actor, timeNano }: EngineEvent): Promise<void> {
    const attributes = Actor.Attributes ?? {}
    const service = attributes[label.service] ?? ''
    let followed = this.#byId.get(Actor.ID)
    if (Action === 'start') {
      if (followed === undefined) {
        if (!this.#accepts(service)) return
        const name = shortName(this.#project, attributes['name'] ?? Actor.ID.slice(0, 12))
        const { id, reading } = { id: Actor.ID, reading: Promise.resolve() }
        followed = { id, name, service, isShown: true, isLive: true, reading, since: undefined }
        this.#byId.set(id, followed)
      }
      followed.isLive = true
      this.#follow(followed, followed.since === undefined ? {} : { since: followed.since })
      return
    }
    if (followed === undefined) return
    followed.since = `${Math.floor(timeNano / 1e9)}.${String(Math.round(timeNano % 1e9)).padStart(9, '0')}`
    if (await this.#comesBack(followed.id)) return
    followed.isLive = false
    const code = Number(attributes['exitCode'] ?? 0)
    // Its last lines come before the word of its end.
    const { reading, name, isShown, id } = followed
    followed.reading = reading.then(async () => {
      if (isShown && !this.#isQuiet) await this.#printer.note(name, `exited with code ${code}`)
    })
    this.#onExit({ id, name, service, code })
    this.#wake()
  }

  async #comesBack(id: string): Promise<boolean> {
    try {
      const { State } = await this.#world.engine.containers.inspect(id, this.#world.signal)
      return State.Running || State.Status === 'restarting'
    } catch (error) {
      if (error instanceof UserError && error.code === 'notFound') return false
      throw error
    }
  }

  #follow(followed: Followed, query: { readonly since?: string; readonly tail?: string }): void {
    if (!followed.isShown) return
    const before = followed.reading
    followed.reading = (async () => {
      await before
      try {
        const { Config } = await this.#world.engine.containers.inspect(
          followed.id,
          this.#world.signal,
        )
        const lines = readLog(
          this.#world,
          { id: followed.id, isTty: Config.Tty },
          { follow: true, timestamps: this.#timestamps, ...query },
        )
        for await (const line of lines) await this.#printer.print(followed.name, line)
      } catch (error) {
        if (this.#world.signal.aborted || this.#closed.signal.aborted) return
        // A container that is gone has said all it had to say.
        if (!(error instanceof UserError) || error.code !== 'notFound')
          this.#world.warn(`${followed.name}: ${messageOf(error)}`)
      }
    })()
  }
}

/** Seconds since 1970 with all digits that RFC 3339 has. */
function secondsOf(time: string): string {
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? '0'
  return `${Math.floor(Date.parse(time) / 1000)}.${fraction}`
}
