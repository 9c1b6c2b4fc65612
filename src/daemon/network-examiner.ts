import type { Agent } from '../agent/index.ts'
import type { Clock } from '../base/index.ts'
import { type DataPlane, openPathProbe } from '../network/index.ts'
import type { NetworkExaminer, PathProbe, PathProbeOrder } from '../wire/index.ts'

/** Longest that a test of paths may take, in ms: whoever asked for it may be gone without a word. */
const probeMsMax = 60_000

/** How this node's part of the cluster's networks is, for `skep net doctor`. */
export function openNetworkExaminer(options: {
  readonly dataPlane: Pick<DataPlane, 'examine'>
  readonly agent: () => Pick<Agent, 'driftCount'> | undefined
  readonly clock: Clock
  readonly openProbe?: (order: PathProbeOrder) => Promise<PathProbe>
}): NetworkExaminer {
  const { dataPlane, agent, clock, openProbe = openPathProbe } = options
  return {
    async examine() {
      const examination = await dataPlane.examine()
      return { ...examination, driftCount: agent()?.driftCount() ?? 0, nowMs: clock.nowMs() }
    },
    async openProbe(order) {
      const probe = await openProbe(order)
      const done = new AbortController()
      const close = async (): Promise<void> => {
        if (done.signal.aborted) return
        done.abort()
        await probe.close()
      }
      void clock.sleep(probeMsMax, done.signal).then(close)
      return { send: () => probe.send(), read: () => probe.read(), close }
    },
  }
}
