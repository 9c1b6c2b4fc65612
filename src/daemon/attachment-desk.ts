import type { Allocator } from '../allocator/index.ts'
import { type Clock, UserError } from '../base/index.ts'
import type { AttachedPlace, AttachmentDesk, AttachmentWish } from '../cluster/index.ts'
import { findObject } from '../control/index.ts'
import { networkAssignment } from '../dispatcher/index.ts'
import type { Network, NetworkAttachment, NetworkId, NodeId } from '../model/index.ts'
import { nextCommit, type Store } from '../store/index.ts'

export interface AttachmentDeskOptions {
  readonly store: Store
  /** The leader's: what it promises here, it gives to no task meanwhile. */
  readonly allocator: Pick<Allocator, 'freeAddress'>
  readonly clock: Clock
}

/** The desk of one node where this manager leads. */
export function openAttachmentDesk(
  { store, allocator, clock }: AttachmentDeskOptions,
  nodeId: NodeId,
): AttachmentDesk {
  const change = async (
    id: NetworkId,
    how: (network: Network) => Network | undefined,
  ): Promise<Network | undefined> => {
    for (;;) {
      const network = store.view.get('network', id)
      const changed = network && how(network)
      if (!changed) return network
      try {
        await store.commit([{ type: 'update', object: changed }])
        return changed
      } catch (error) {
        if (!(error instanceof UserError && error.code === 'outOfSequence')) throw error
        await nextCommit(store, clock)
      }
    }
  }
  const isOwn = (attachment: NetworkAttachment) => attachment.nodeId === nodeId

  return {
    async attach(wish: AttachmentWish): Promise<AttachedPlace | undefined> {
      const found = findNetwork(store, wish.network)
      if (!found) return undefined
      let taken: { readonly address: string; readonly mac: string } | undefined
      const network = await change(found.id, (before) => {
        checkAttachable(before, wish.network)
        const others = (before.status.attachments ?? []).filter(
          (attachment) => !isOwn(attachment) || attachment.container !== wish.container,
        )
        taken = allocator.freeAddress(before.id, wish.address)
        const attachment: NetworkAttachment = {
          nodeId,
          container: wish.container,
          names: wish.names,
          createdAtMs: clock.nowMs(),
          ...taken,
        }
        return { ...before, status: { ...before.status, attachments: [...others, attachment] } }
      })
      if (!network || !taken) return undefined
      const assignment = networkAssignment(network, nodeId)
      if (!assignment) {
        throw new UserError(
          'unavailable',
          `network ${network.name} has no subnet: ${network.status.error ?? 'it is being allocated'}`,
        )
      }
      return { network: assignment, ...taken }
    },

    async detach(networkId, containers) {
      const isGone = (attachment: NetworkAttachment) =>
        isOwn(attachment) && containers.includes(attachment.container)
      await change(networkId, (network) => {
        const { attachments = [] } = network.status
        if (!attachments.some(isGone)) return undefined
        const kept = attachments.filter((attachment) => !isGone(attachment))
        return { ...network, status: { ...network.status, attachments: kept } }
      })
    },

    async list() {
      const nowMs = clock.nowMs()
      return [...store.view.list('network')].flatMap(({ id, name, status }) =>
        (status.attachments ?? []).filter(isOwn).map(({ container, createdAtMs }) => ({
          networkId: id,
          networkName: name,
          container,
          ageMs: nowMs - createdAtMs,
        })),
      )
    },
  }
}

function findNetwork(store: Store, text: string): Network | undefined {
  try {
    const network = findObject(store.view, 'network', text)
    return network.spec.predefined ? undefined : network
  } catch (error) {
    if (error instanceof UserError && error.code === 'notFound') return undefined
    throw error
  }
}

function checkAttachable(network: Network, text: string): void {
  if (network.spec.attachable) return
  throw new UserError(
    'forbidden',
    `Could not attach to network ${text}: rpc error: code = PermissionDenied desc = network ${network.name} not manually attachable`,
    { next: 'Create the network with --attachable.' },
  )
}
