/**
 * `AbortController` and `AbortSignal` for a world that makes and aborts them by the ten thousand. Node's own are events of
 * the DOM, and keep a signal that somebody listens to, and all that hangs on it, until it is aborted: simulated processes
 * that were killed never abort theirs. These do the same for what this code asks of them, in the same order.
 */

type Listener = Parameters<AbortSignal['addEventListener']>[1]
type ListenOptions = Parameters<AbortSignal['addEventListener']>[2]

interface Listening {
  readonly listener: Listener
  readonly once: boolean
}

/** An abort without a reason makes one, with a stack: one does for all. */
const abortedReason = new DOMException('This operation was aborted', 'AbortError')
const abortEvent = new Event('abort')
const none: readonly never[] = []

class LightSignal implements AbortSignal {
  onabort: AbortSignal['onabort'] = null
  reason: unknown = undefined
  #aborted = false
  #listening: Listening[] = []
  /** Signals that abort when this one does, while somebody listens to them. */
  #dependents: Set<LightSignal> | undefined
  /** Absent: a controller aborts it. */
  readonly #sources: readonly LightSignal[] | undefined

  constructor(sources?: readonly LightSignal[]) {
    this.#sources = sources?.flatMap((source) => source.#sources ?? [source])
  }

  get aborted(): boolean {
    if (this.#aborted) return true
    // One that nobody listens to has told its sources nothing.
    for (const source of this.#sources ?? none) {
      if (!source.#aborted) continue
      this.#aborted = true
      this.reason = source.reason
      return true
    }
    return false
  }

  abort(reason: unknown): void {
    if (this.#aborted) return
    if (!this.#dependents) {
      this.#aborted = true
      this.reason = reason
      this.dispatchEvent(abortEvent)
      return
    }
    const dependents = [...this.#dependents].filter((dependent) => !dependent.#aborted)
    this.#dependents = undefined
    for (const signal of [this, ...dependents]) {
      signal.#aborted = true
      signal.reason = reason
    }
    for (const signal of [this, ...dependents]) signal.dispatchEvent(abortEvent)
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason
  }

  addEventListener(type: string, listener: Listener, options?: ListenOptions): void {
    if (type !== 'abort') return
    if (this.#placeOf(listener) >= 0) return
    const { once = false, signal } = typeof options === 'object' ? options : {}
    if (signal?.aborted) return
    this.#listening.push({ listener, once })
    signal?.addEventListener('abort', () => this.removeEventListener(type, listener))
    if (this.#listening.length > 1 || this.aborted) return
    for (const source of this.#sources ?? none) {
      source.#dependents ??= new Set()
      source.#dependents.add(this)
    }
  }

  removeEventListener(_type: string, listener: Listener): void {
    const at = this.#placeOf(listener)
    if (at < 0) return
    if (at === this.#listening.length - 1) this.#listening.pop()
    else this.#listening.splice(at, 1)
    if (this.#listening.length === 0)
      for (const source of this.#sources ?? none) source.#dependents?.delete(this)
  }

  /** Who listened last leaves first, mostly. */
  #placeOf(listener: Listener): number {
    for (let at = this.#listening.length - 1; at >= 0; at--)
      if (this.#listening[at]?.listener === listener) return at
    return -1
  }

  dispatchEvent(event: Event): boolean {
    this.onabort?.(event)
    if (this.#listening.length === 0) return true
    for (const known of [...this.#listening]) {
      if (!this.#listening.includes(known)) continue
      if (known.once) this.removeEventListener('abort', known.listener)
      if (typeof known.listener === 'function') known.listener.call(this, event)
      else known.listener.handleEvent(event)
    }
    return true
  }
}

class LightController implements AbortController {
  readonly signal = new LightSignal()

  abort(reason: unknown = abortedReason): void {
    this.signal.abort(reason)
  }
}

/** Every controller that is made from now on in this process is a light one, and so is what `AbortSignal.any` makes of them. */
export function lightenAborts(): void {
  const any = AbortSignal.any.bind(AbortSignal)
  globalThis.AbortController = LightController
  AbortSignal.any = (signals) => {
    const own: LightSignal[] = []
    for (const signal of signals) {
      if (!(signal instanceof LightSignal)) return any(signals)
      own.push(signal)
    }
    return new LightSignal(own)
  }
}
