import { idFrom, type NetworkId } from '../model/index.ts'
import type { NetworkAssignment } from '../wire/index.ts'
import { type CallWorld, callOnce, firstOf } from './calls.ts'
import type { AttachmentWish, Call } from './messages.ts'
import { Fields } from './read.ts'

export interface AttachedPlace {
  readonly network: NetworkAssignment
  readonly address: string
  readonly mac: string
}

/** A place that is kept for a container of a node. */
export interface KeptPlace {
  readonly networkId: NetworkId
  readonly networkName: string
  readonly container: string
  readonly ageMs: number
}

/** Where one node gets addresses for its plain containers. Whoever leads gives them out: no two do at a time. */
export interface AttachmentDesk {
  /**
   * Durable before it resolves. Undefined: the cluster has no such network. Rejects with `forbidden` (not attachable),
   * `conflict` or `invalidInput` (the address asked for), `failedPrecondition` (full), `unavailable` (ask again).
   */
  attach(wish: AttachmentWish): Promise<AttachedPlace | undefined>
  /** Frees what is kept under any of these names. */
  detach(networkId: NetworkId, containers: readonly string[]): Promise<void>
  list(): Promise<readonly KeptPlace[]>
}

/** The desk as a node reaches it: over the cluster port, by its certificate. `managers` has the leader's address first. */
export function openRemoteDesk(
  world: CallWorld,
  managers: () => readonly string[],
  signal: AbortSignal,
): AttachmentDesk {
  const ask = async (call: Call, answer: string): Promise<Fields> =>
    firstOf(managers(), async (address) => {
      const { fields } = await callOnce(world, address, { type: 'cluster' }, call, answer, signal)
      return fields
    })
  return {
    async attach(wish) {
      const fields = await ask({ call: 'attach', wish }, 'attached')
      if (!fields.has('network')) return undefined
      return {
        network: parseNetwork(fields.raw('network')),
        address: fields.text('address', 100),
        mac: fields.text('mac', 100),
      }
    },
    async detach(networkId, containers) {
      await ask({ call: 'detach', networkId, containers }, 'detached')
    },
    async list() {
      const fields = await ask({ call: 'attachments' }, 'attachments')
      return fields.list('places', (value) => {
        const place = new Fields('place', value)
        return {
          networkId: idFrom(place.text('networkId', 100)),
          networkName: place.text('networkName', 255),
          container: place.text('container', 255),
          ageMs: place.number('ageMs'),
        }
      })
    },
  }
}

/** Managers are trusted with what they say of networks, as in assignments: its shape is the wire's own. */
function parseNetwork(value: unknown): NetworkAssignment {
  const fields = new Fields('network', value)
  for (const name of ['id', 'name', 'subnet', 'gateway']) fields.text(name, 255)
  return fields.all() as unknown as NetworkAssignment
}
