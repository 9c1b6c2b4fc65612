import type { Engine } from '../engine/index.ts'

/** One pull per image and credentials at a time, shared by all tasks that wait for it; ends with the last of them. */
export class ImagePulls {
  readonly #engine: Engine
  readonly #pulls = new Map<
    string,
    { done: Promise<void>; abort: AbortController; waiting: number }
  >()

  constructor(engine: Engine) {
    this.#engine = engine
  }

  async pull(image: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const key = `${image}\n${registryAuth ?? ''}`
    let pull = this.#pulls.get(key)
    if (!pull) {
      const abort = new AbortController()
      const done = this.#engine.images
        .pull(image, { registryAuth }, abort.signal)
        .finally(() => this.#pulls.get(key)?.abort === abort && this.#pulls.delete(key))
      pull = { done, abort, waiting: 0 }
      this.#pulls.set(key, pull)
    }
    const mine = pull
    mine.waiting++
    let onAbort = (): void => {}
    const aborted = new Promise<never>((_resolve, reject) => {
      onAbort = () => reject(signal.reason)
      signal.addEventListener('abort', onAbort, { once: true })
    })
    try {
      await Promise.race([mine.done, aborted])
    } finally {
      signal.removeEventListener('abort', onAbort)
      mine.waiting--
      if (mine.waiting === 0) {
        if (this.#pulls.get(key) === mine) this.#pulls.delete(key)
        mine.done.catch(() => {}) // Nobody waits for it any more.
        mine.abort.abort(new Error('nobody waits for the image any more'))
      }
    }
  }
}
