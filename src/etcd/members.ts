import { type Clock, UserError } from '../base/index.ts'
import { type EtcdClient, EtcdError, type EtcdMember } from '../store/etcd/client.ts'

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
 * `promoteMember` makes it a voter. Who asks has no state: what it was before, a voter or a learner, may rest on what it has
 * lost, and etcd does not go on from there, so that member is removed first. Rejects with `conflict` where the address is
 * another manager's.
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
  const hasAddress = ({ peerUrls }: EtcdMember) => peerUrls.includes(peerUrl)
  // A learner that has begun may not have said its name.
  const isFormer = (one: EtcdMember) => one.name === name || (one.name === '' && hasAddress(one))
  const others = before.filter((one) => !isFormer(one))
  if (others.some(hasAddress)) {
    throw new UserError('conflict', `${peerUrl} belongs to another manager already`, {
      next: 'Give this node an address of its own (--advertise-addr), or remove the other one.',
    })
  }
  for (const { memberId } of before.filter(isFormer)) await removeIfThere(client, memberId)
  const untilMs = clock.nowMs() + healthyMs
  let member: EtcdMember | undefined
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
  const members = others.map((one) => ({
    name: one.name || one.memberId,
    peerUrl: one.peerUrls[0] ?? '',
  }))
  return { memberId: member.memberId, members: [...members, { name, peerUrl }] }
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
  if (member) await removeIfThere(client, member.memberId)
}

async function removeIfThere(client: EtcdClient, memberId: string): Promise<void> {
  try {
    await client.memberRemove(memberId)
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
