import { setTimeout as pause } from 'node:timers/promises'
import { EngineApi } from './engine-api.ts'
import { listAt, numberAt, textAt } from './look.ts'

/** What a writer was told of one write. `unknown`: nothing, so that it may have been done or not. */
export type Outcome = 'done' | 'refused' | 'unknown'

interface Write {
  readonly beganAtMs: number
  readonly endedAtMs: number
  readonly outcome: Outcome
}

/** Between two writes of a writer, in ms. */
const restMs = 25
/** For a write to be answered, in ms. Longer than a manager waits for a majority. */
const answerMs = 15_000

/**
 * Writes configs by one manager's API, one after the other, for as long as it is wanted, and keeps what it was told of each.
 * Whatever the manager goes through, it goes on.
 */
export class Writer {
  readonly #api: string
  readonly #prefix: string
  readonly #writes = new Map<string, Write>()
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined

  /** `api` is a manager's, `unix://…`. No two writers may have one prefix. */
  constructor(api: string, prefix: string) {
    this.#api = api
    this.#prefix = prefix
  }

  get writes(): ReadonlyMap<string, Write> {
    return this.#writes
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  /** When the first write that began at or after this time was acknowledged, in ms of `performance.now()`. */
  firstDoneSince(ms: number): number | undefined {
    let first: number | undefined
    for (const { beganAtMs, endedAtMs, outcome } of this.#writes.values())
      if (outcome === 'done' && beganAtMs >= ms) first = Math.min(first ?? endedAtMs, endedAtMs)
    return first
  }

  async #run(): Promise<void> {
    const api = new EngineApi(this.#api)
    for (let count = 0; !this.#stop.signal.aborted; count++) {
      const name = `${this.#prefix}-${count}`
      const beganAtMs = performance.now()
      const outcome = await outcomeOf(api, name)
      this.#writes.set(name, { beganAtMs, endedAtMs: performance.now(), outcome })
      await pause(restMs)
    }
    api.close()
  }
}

async function outcomeOf(api: EngineApi, name: string): Promise<Outcome> {
  const over = new AbortController()
  try {
    const late = pause(answerMs, undefined, { signal: over.signal }).catch(() => {})
    const body = { Name: name, Data: Buffer.from(name).toString('base64') }
    const answer = await Promise.race([api.call('POST', '/configs/create', body), late])
    if (!answer) return 'unknown'
    if (answer.status === 201) return 'done'
    // What a manager says of a write that it can not tell the end of.
    return /may have been stored/.test(JSON.stringify(answer.body)) ? 'unknown' : 'refused'
  } catch (error) {
    // Nobody listens: it was never sent. A connection that breaks later tells nothing.
    const code = error instanceof Error && 'code' in error ? error.code : ''
    return code === 'ECONNREFUSED' || code === 'ENOENT' ? 'refused' : 'unknown'
  } finally {
    over.abort()
  }
}

export interface Verdict {
  readonly acknowledged: number
  readonly refused: number
  readonly unknown: number
  /** Acknowledged, and not there. */
  readonly lost: readonly string[]
  /** Refused, and there all the same. */
  readonly phantom: readonly string[]
  /** Names that are there twice. */
  readonly doubled: readonly string[]
}

/** Holds what writers were told against what a manager tells of the end. */
export async function judge(writers: readonly Writer[], api: EngineApi): Promise<Verdict> {
  const counts = new Map<string, number>()
  for (const config of listAt(await api.ok('GET', '/configs'))) {
    const name = textAt(config, 'Spec', 'Name')
    counts.set(name, (counts.get(name) ?? 0) + 1)
    if (Number.isNaN(numberAt(config, 'Version', 'Index')))
      throw new Error(`${name} has no version`)
  }
  const all = writers.flatMap(({ writes }) => [...writes])
  const named = (outcome: Outcome) =>
    all.filter(([, write]) => write.outcome === outcome).map(([name]) => name)
  const [done, refused] = [named('done'), named('refused')]
  return {
    acknowledged: done.length,
    refused: refused.length,
    unknown: named('unknown').length,
    lost: done.filter((name) => !counts.has(name)),
    phantom: refused.filter((name) => counts.has(name)),
    doubled: [...counts].filter(([, count]) => count > 1).map(([name]) => name),
  }
}
