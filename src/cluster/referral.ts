import { type Clock, type Log, UserError, within } from '../base/index.ts'
import { parseCall, refused } from './messages.ts'
import type { Listener, MessageStream, Transport } from './transport.ts'

export interface ReferralOptions {
  readonly transport: Transport
  /** `0.0.0.0:2377`: where this node was found while it was a manager. */
  readonly listenAddress: string
  /** `host:port` of the managers' cluster ports, as this node knows them now. */
  readonly managers: () => readonly string[]
  readonly clock: Clock
  readonly log: Log
}

/** For the first message on a connection, in ms. */
const firstMessageMs = 10_000

/**
 * The port of a node that was a manager: it sends on nodes that still look for one here, because they were away
 * when it was demoted. It says nothing to who is no node of the cluster, and whom it names has to prove itself as ever.
 * Rejects with `failedPrecondition` when the address can't be used.
 */
export function openReferral(options: ReferralOptions): Promise<Listener> {
  const { transport, listenAddress } = options
  return transport.listen(listenAddress, (stream) => void serve(options, stream))
}

async function serve(
  { managers, clock, log }: ReferralOptions,
  stream: MessageStream,
): Promise<void> {
  try {
    const first = await within(clock, firstMessageMs, (late) => stream.receive(late))
    if (first === undefined) return
    const { call } = parseCall(first)
    const { peer } = stream
    if (peer.type !== 'node' || call.call !== 'session') throw noManager()
    log.info('a node was sent on to the managers', { nodeId: peer.nodeId })
    const addresses = managers().map((address) => ({ address }))
    await stream.send({ type: 'redirect', managers: addresses })
  } catch (error) {
    await stream.send(refused(error)).catch(() => {}) // Whoever asked has gone.
  } finally {
    stream.close()
  }
}

function noManager(): UserError {
  return new UserError('unavailable', 'this node is no manager any more', {
    next: 'Give the address of one that is: `docker node ls` shows them on any of them.',
  })
}
