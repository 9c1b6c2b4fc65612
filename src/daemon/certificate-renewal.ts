import { type Clock, type Log, messageOf, type Random, WakeUp } from '../base/index.ts'
import { decideRenewalMs, type NodeCertificate } from '../security/index.ts'

export interface CertificateRenewal {
  /** Within this time from now, at a random moment: the root retires, or a manager refused the certificate (0). */
  within(ms: number): void
  close(): Promise<void>
}

/** Pause after a renewal that failed, in ms; doubled each time. */
const retryMs = 2_000
const retryMsMax = 60_000

/** Renews a node's certificate by itself, well before its end. `renew` gets a new one and keeps it. */
export function keepRenewed(options: {
  readonly certificate: () => NodeCertificate
  readonly renew: (signal: AbortSignal) => Promise<void>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}): CertificateRenewal {
  const { clock, random, log } = options
  const stop = new AbortController()
  const { signal } = stop
  const sooner = new WakeUp()
  let dueAtMs = decideRenewalMs(options.certificate(), random)
  const loop = async () => {
    let pauseMs = retryMs
    while (!signal.aborted) {
      if (clock.nowMs() < dueAtMs) {
        await sooner.wait(clock, signal, dueAtMs)
        continue
      }
      try {
        await options.renew(signal)
        dueAtMs = decideRenewalMs(options.certificate(), random)
        pauseMs = retryMs
        log.info('the certificate of this node was renewed', {
          until: new Date(options.certificate().expiresAtMs).toISOString(),
        })
      } catch (error) {
        if (signal.aborted) return
        log.warn('the certificate of this node could not be renewed; trying again', {
          error: messageOf(error),
        })
        await clock.sleep(pauseMs, signal)
        pauseMs = Math.min(pauseMs * 2, retryMsMax)
      }
    }
  }
  const finished = loop()
  return {
    within(ms) {
      const atMs = clock.nowMs() + (ms > 0 ? random.below(ms) : 0)
      if (atMs >= dueAtMs) return
      dueAtMs = atMs
      sooner.ring()
    },
    async close() {
      stop.abort()
      await finished
    },
  }
}
