import { randomInt } from 'node:crypto'
import { setTimeout as sleepTimer, setImmediate as turnOfLoop } from 'node:timers/promises'
import { type SteadyClock, steadyClock } from './steady-clock.ts'
import type { Clock, Random } from './world.ts'

/** The machine's clock, kept from going back or standing still when the wall clock is set back. */
export function openRealClock(): Clock & SteadyClock {
  const steady = steadyClock({ wallMs: () => Date.now(), elapsedMs: () => performance.now() })
  return {
    ...steady,
    async sleep(ms, signal) {
      const options = signal ? { signal } : {}
      // No time at all lets whatever came in go first; a timer that is due again at once would keep it waiting.
      const waited =
        ms <= 0
          ? turnOfLoop(undefined, options)
          : sleepTimer(Math.min(ms, 2_147_483_647), undefined, options)
      // An aborted wait is a normal end of waiting: callers look at the signal.
      await waited.catch(() => {})
    },
  }
}

/** Numbers nobody can guess. */
export const realRandom: Random = { below: (limit) => (limit <= 1 ? 0 : randomInt(limit)) }
