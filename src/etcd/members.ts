import { type Clock, UserError } from '../base/index.ts'
import { type EtcdClient, EtcdError } from '../store/etcd/client.ts'

/**
 * Longest wait for etcd to take a new member, in ms: it does so only while it has been connected to all voters for 5 s.
 * One that is lost has to be removed first.
 */
const healthyMs = 15_000
/** How often to look whether a new member has caught up, in ms, and for how long. */
const lookMs = 100
const catchUpMs = 60_000

/**
 * Lets a node become a member: what it starts its etcd with. It comes as a learner, which can't cost the quorum;
 * `promoteMember` makes it a voter. Asked again with the same address it answers the same, as long as that member has not
 * begun: one that has, and lost its folder, has to be removed first.
 */
export async function addMember({
  client,
  name,
  peerUrl,
  clock,
  signal,
}: {
  readonly client: EtcdClient
  readonly name: string
  readonly peerUrl: string
  readonly clock: Clock
  readonly signal?: AbortSignal
}): Promise<{
  readonly memberId: string
  readonly members: readonly { readonly name: string; readonly peerUrl: string }[]
}> {
  const before = await client.memberList()
  const known = before.find((member) => member.peerUrls.includes(peerUrl))
  if (known && known.name !== '' && known.name !== name) {
    throw new UserError('conflict', `${peerUrl} belongs to another manager already`, {
      next: 'Give this node an address of its own (--advertise-addr), or remove the other one.',
    })
  }
  const untilMs = clock.nowMs() + healthyMs
  let member = known
  while (member === undefined) {
    try {
      member = await client.memberAdd(
        { peerUrls: [peerUrl], learner: true },
        signal ? { signal } : {},
      )
    } catch (error) {
      if (!(error instanceof EtcdError && error.reason === 'refused') || signal?.aborted)
        throw error
      if (clock.nowMs() >= untilMs) {
        throw new UserError('failedPrecondition', `etcd takes no new member: ${error.message}`, {
          next: 'Bring every manager back first, or demote or remove the ones that are lost; one joins at a time.',
          cause: error,
        })
      }
      await clock.sleep(lookMs, signal)
    }
  }
  const members = (known ? before : [...before, member]).map((one) => ({
    name: one.memberId === member.memberId ? name : one.name || one.memberId,
    peerUrl: one.peerUrls[0] ?? '',
  }))
  return { memberId: member.memberId, members }
}

/** Makes a learner a voter as soon as it has caught up. Rejects with `unavailable` when it does not within a minute. */
export async function promoteMember({
  client,
  memberId,
  clock,
  signal,
}: {
  readonly client: EtcdClient
  readonly memberId: string
  readonly clock: Clock
  readonly signal?: AbortSignal
}): Promise<void> {
  const untilMs = clock.nowMs() + catchUpMs
  for (;;) {
    const member = (await client.memberList(signal ? { signal } : {})).find(
      (one) => one.memberId === memberId,
    )
    if (member && !member.learner) return
    try {
      await client.memberPromote(memberId, signal ? { signal } : {})
      return
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error
      const isWaiting = error.reason === 'refused' || error.reason === 'outcomeUnknown'
      if (!isWaiting || signal?.aborted) throw error
      if (clock.nowMs() >= untilMs) {
        throw new UserError('unavailable', 'the new manager did not catch up with the others', {
          next: 'Look at its log, and whether the managers reach each other on the port of etcd.',
          cause: error,
        })
      }
      await clock.sleep(lookMs, signal)
    }
  }
}

/** Removes a member by its name or address. One that is not there is no error. */
export async function removeMember({
  client,
  name,
  peerUrl,
}: {
  readonly client: EtcdClient
  readonly name: string
  readonly peerUrl?: string
}): Promise<void> {
  const member = (await client.memberList()).find(
    (one) => one.name === name || (peerUrl !== undefined && one.peerUrls.includes(peerUrl)),
  )
  if (member === undefined) return
  try {
    await client.memberRemove(member.memberId)
  } catch (error) {
    if (!(error instanceof EtcdError && error.reason === 'memberNotFound')) throw error
  }
}

/**
 * Has the others find a member, by its name, at another address. One that is not there, or has the address, is no error.
 * Rejects with `conflict` where another member has it.
 */
export async function updateMember({
  client,
  name,
  peerUrl,
}: {
  readonly client: EtcdClient
  readonly name: string
  readonly peerUrl: string
}): Promise<void> {
  const members = await client.memberList()
  const member = members.find((one) => one.name === name)
  if (!member || (member.peerUrls.length === 1 && member.peerUrls[0] === peerUrl)) return
  if (members.some((one) => one !== member && one.peerUrls.includes(peerUrl))) {
    throw new UserError('conflict', `${peerUrl} belongs to another manager`, {
      next: 'Give this node an address of its own (--advertise-addr), or remove the other one.',
    })
  }
  await client.memberUpdate(member.memberId, [peerUrl])
}
