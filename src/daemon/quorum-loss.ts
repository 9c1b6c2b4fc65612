import { type Clock, UserError, within } from '../base/index.ts'
import type { Transport } from '../cluster/index.ts'
import { quorumOf } from '../control/index.ts'

/** A manager that should be there. */
export interface ExpectedManager {
  /** Its host's name, where it is known. */
  readonly name?: string
  /** Of its cluster port. */
  readonly address: string
  readonly sinceMs?: number
}

/** For a manager to take a connection, in ms. */
const connectMs = 1_000

/** Says in words why nothing can be stored: which of the other managers are missing, since when, and what to do. */
export async function describeQuorumLoss(
  others: readonly ExpectedManager[],
  { transport, clock, sinceMs }: { transport: Transport; clock: Clock; sinceMs: number },
): Promise<UserError> {
  const missing = (
    await Promise.all(
      others.map(async (manager) => ((await answers(transport, manager, clock)) ? [] : [manager])),
    )
  ).flat()
  const count = others.length + 1
  const names = missing.map(
    ({ name, address, sinceMs: own }) =>
      `${name === undefined ? address : `${name} (${address})`} since ${timeOf(own ?? sinceMs)}`,
  )
  const inReach = count - missing.length
  return new UserError(
    'unavailable',
    `the swarm has no quorum since ${timeOf(sinceMs)}: of ${count} managers ${quorumOf(count)} have to agree, and ` +
      (missing.length === 0
        ? 'their etcd does not answer, though all of them can be reached'
        : `${inReach === 1 ? 'only this one is' : `${inReach} are`} in reach; missing: ${names.join(', ')}`) +
      '. Running services are not touched, but nothing can be changed or read for certain',
    {
      next:
        missing.length === 0
          ? 'Wait some seconds; if this stays, look into the logs of the managers, and whether port 2380 is open between them.'
          : 'Start the missing managers again. Only if they are lost for good, run `docker swarm init --force-new-cluster` here.',
    },
  )
}

async function answers(
  transport: Transport,
  { address }: ExpectedManager,
  clock: Clock,
): Promise<boolean> {
  try {
    const stream = await within(clock, connectMs, (late) =>
      transport.connect(address, { type: 'cluster' }, late),
    )
    stream.close()
    return true
  } catch {
    return false
  }
}

/** `2026-11-21T09:16:32Z` */
function timeOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}
