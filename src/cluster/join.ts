import { UserError } from '../base/index.ts'
import { createCertificateRequest, isTokenForRoot, parseJoinToken } from '../security/index.ts'
import { type CallWorld, callOnce, firstOf } from './calls.ts'
import {
  type Admission,
  type AdmissionRequest,
  type Call,
  checkProtocol,
  type MemberAdmission,
  parseAdmission,
  parseMemberAdmission,
} from './messages.ts'

export interface JoinWish extends Omit<AdmissionRequest, 'csrPem'> {
  /** The node's key (PKCS #8). It stays here. */
  readonly keyPem: string
  /** Managers to ask, `host` or `host:port`; the first that answers decides. */
  readonly addresses: readonly string[]
}

export interface Joined {
  readonly admission: Admission
  /** The manager that let this node in. */
  readonly managerAddress: string
  /** This host's address as that connection had it. */
  readonly localAddress: string
}

/** How far the clocks of a joining host and its manager may be apart, in ms: certificates and logs are read by them. */
const clockSkewMsMax = 5 * 60_000
const clusterPortDefault = 2377
/** The same where the managers make room for another one: state moves, or is caught up with. */
const memberAnswerMs = 70_000

/**
 * Makes this host a node: gets the root certificate, checks that it is the one the token was made for, and only then
 * shows the token. Rejects with a sentence for each way in which it can fail.
 */
export async function joinCluster(
  world: CallWorld,
  wish: JoinWish,
  signal: AbortSignal,
): Promise<Joined> {
  const csrPem = await createCertificateRequest(wish.keyPem)
  const token = parseJoinToken(wish.token)
  return firstOf(wish.addresses.map(withPort), async (address) => {
    const root = await callOnce(
      world,
      address,
      { type: 'nobody' },
      { call: 'root' },
      'root',
      signal,
    )
    const skepVersion = root.fields.text('skepVersion', 100)
    checkProtocol(root.fields.number('protocol'), skepVersion, 'this host')
    const rootPem = root.fields.text('certificatePem')
    if (!isTokenForRoot(token, rootPem)) {
      throw new UserError(
        'forbidden',
        `remote CA does not match fingerprint: the root certificate of ${address} is not the one this join token was made for`,
        {
          next: 'Is it the right cluster? If its root was rotated, get a new token with `docker swarm join-token worker`.',
        },
      )
    }
    checkClock(address, root.fields.number('nowMs'), world.clock.nowMs())
    const { token: text, hostname, availability, advertiseAddress } = wish
    const request = { token: text.trim(), csrPem, hostname, availability, advertiseAddress }
    const { fields, localAddress } = await callOnce(
      world,
      address,
      { type: 'root', rootPem },
      { call: 'join', request },
      'admitted',
      signal,
    )
    return { admission: parseAdmission(fields), managerAddress: address, localAddress }
  })
}

/** A new certificate for the node's own key, from any manager. The old one may have ended. */
export async function renewCertificate(
  world: CallWorld,
  keyPem: string,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<Admission> {
  const csrPem = await createCertificateRequest(keyPem)
  return firstOf(managers, async (address) => {
    const call: Call = { call: 'renew', csrPem }
    const { fields } = await callOnce(world, address, { type: 'cluster' }, call, 'admitted', signal)
    return parseAdmission(fields)
  })
}

/** The data keys of the cluster, for a node whose certificate says that it is a manager. */
export async function fetchDataKeys(
  world: CallWorld,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  return firstOf(managers, async (address) => {
    const { fields } = await callOnce(
      world,
      address,
      { type: 'cluster' },
      { call: 'keys' },
      'keys',
      signal,
    )
    return fields.text('text')
  })
}

/** Asks the managers to let this one keep the state with them. `address` is its cluster port. */
export async function askToBeMember(
  world: CallWorld,
  managers: readonly string[],
  address: string,
  signal: AbortSignal,
): Promise<MemberAdmission> {
  return firstOf(managers, async (manager) => {
    const call: Call = { call: 'addManager', address }
    const trust = { type: 'cluster' } as const
    const { fields } = await callOnce(world, manager, trust, call, 'member', signal, memberAnswerMs)
    return parseMemberAdmission(fields)
  })
}

/** Tells the managers that this one's part runs: it counts from then on. */
export async function confirmMember(
  world: CallWorld,
  managers: readonly string[],
  memberId: string,
  signal: AbortSignal,
): Promise<void> {
  await firstOf(managers, (manager) => {
    const call: Call = { call: 'promoteManager', memberId }
    const trust = { type: 'cluster' } as const
    return callOnce(world, manager, trust, call, 'promoted', signal, memberAnswerMs)
  })
}

/** Says goodbye, so that the node is known to be down at once. */
export async function announceLeave(
  world: CallWorld,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  await firstOf(managers, (address) =>
    callOnce(world, address, { type: 'cluster' }, { call: 'leave' }, 'left', signal),
  )
}

/** Takes back a join that was not completed: the managers forget this node. */
export async function withdrawJoin(
  world: CallWorld,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const call: Call = { call: 'leave', withdraw: true }
  await firstOf(managers, (address) =>
    callOnce(world, address, { type: 'cluster' }, call, 'left', signal),
  )
}

/**
 * Tells the managers that this node's daemon is there again, long before it has a session: whoever leads then waits for it.
 * Resolves when all have answered or can't be reached.
 */
export async function announceReturn(
  world: CallWorld,
  managers: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const call = { call: 'returning' } as const
  await Promise.allSettled(
    managers.map((address) =>
      callOnce(world, address, { type: 'cluster' }, call, 'awaited', signal),
    ),
  )
}

function checkClock(address: string, theirsMs: number, ownMs: number): void {
  const skewMs = ownMs - theirsMs
  if (Math.abs(skewMs) <= clockSkewMsMax) return
  const minutes = Math.round(Math.abs(skewMs) / 60_000)
  const [own, theirs] = [ownMs, theirsMs].map((ms) => new Date(ms).toISOString())
  throw new UserError(
    'failedPrecondition',
    `this host's clock is ${minutes} min ${skewMs > 0 ? 'ahead of' : 'behind'} that of ${address} (here ${own}, there ${theirs})`,
    { next: 'Set both clocks (chrony or systemd-timesyncd), and join again.' },
  )
}

/** An address of a manager, with the cluster port's default where none is given. */
function withPort(address: string): string {
  const text = address.trim()
  if (/^[^:]+$/.test(text) || /^\[[^\]]+\]$/.test(text)) return `${text}:${clusterPortDefault}`
  return text
}
