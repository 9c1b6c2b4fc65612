import type { Clock } from '../base/index.ts'
import type { Store } from './store.ts'

/** Longest wait for the commit that won a race, in ms: if its disk fails, it never lands. */
const landingMs = 50

/**
 * Waits until the next commit is in the view: what to do before a change that lost a race is decided anew. To ask again
 * at once would meet the same commit, still on its way to the disk.
 */
export async function nextCommit(store: Store, clock: Clock): Promise<void> {
  const done = new AbortController()
  let unsubscribe = () => {}
  const landed = new Promise<void>((resolve) => {
    unsubscribe = store.subscribe(() => resolve())
  })
  await Promise.race([landed, clock.sleep(landingMs, done.signal)])
  unsubscribe()
  done.abort()
}
