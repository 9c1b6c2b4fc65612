import { randomFillSync, randomInt } from 'node:crypto'
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

/** Bytes drawn at once: one call costs as much as hundreds of them. */
const bytesDrawn = 4_096

/** Of bytes that were drawn together. Each is used once. */
function openBytes(): () => number {
  const bytes = new Uint8Array(bytesDrawn)
  let used = bytesDrawn
  return () => {
    if (used === bytesDrawn) {
      randomFillSync(bytes)
      used = 0
    }
    const byte = bytes[used] ?? 0
    // What was given out is secret from then on.
    bytes[used] = 0
    used += 1
    return byte
  }
}

const nextByte = openBytes()

/** Numbers nobody can guess. */
export const realRandom: Random = {
  below(limit) {
    if (limit <= 1) return 0
    if (limit > 256) return randomInt(limit)
    // Above the greatest multiple of the limit some numbers would come more often.
    const bound = 256 - (256 % limit)
    for (;;) {
      const byte = nextByte()
      if (byte < bound) return byte % limit
    }
  },
}
