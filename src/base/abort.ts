import type { Clock } from './world.ts'

/** Resolves once the signal is aborted; at once where it was before. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** Does work with a signal that is aborted after `ms`, unless the work has ended by then: no timer outlasts it. */
export async function within<Result>(
  clock: Pick<Clock, 'sleep'>,
  ms: number,
  work: (late: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const late = new AbortController()
  const done = new AbortController()
  void clock.sleep(ms, done.signal).then(() => {
    if (!done.signal.aborted) late.abort()
  })
  try {
    return await work(late.signal)
  } finally {
    done.abort()
  }
}
