import { Allocator } from '../../allocator/index.ts'
import { isDeepEqual } from '../../base/index.ts'
import type { AnyObject } from '../../model/index.ts'
import { holdsResources, isTerminal } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import type { SimulatedCluster } from '../cluster.ts'
import type { Checker } from '../judge.ts'

/** What an object holds that nobody else may hold: `what` is the same for both when they clash. */
function held(object: AnyObject | undefined): readonly string[] {
  switch (object?.kind) {
    case 'network': {
      const { subnet, vni, attachments = [], gateway } = object.status
      const own = attachments.map(({ address }) => `address ${address} on ${object.id}`)
      if (gateway !== undefined) own.push(`address ${gateway} on ${object.id}`)
      if (subnet !== undefined) own.push(`subnet ${subnet}`)
      if (vni !== undefined) own.push(`vni ${vni}`)
      return own
    }
    case 'endpoint': {
      const { vips, ports } = object.status
      return [
        ...vips.map(({ networkId, address }) => `address ${address} on ${networkId}`),
        ...ports.flatMap(({ protocol, publishedPort, publishMode }) =>
          publishMode === 'ingress' && publishedPort !== 0
            ? [`port ${publishedPort}/${protocol}`]
            : [],
        ),
      ]
    }
    case 'task': {
      if (!holdsResources(object)) return []
      const addresses = object.addresses.map(
        ({ networkId, address }) => `address ${address} on ${networkId}`,
      )
      return addresses
    }
    case 'cluster':
    case 'node':
    case 'workload':
    case 'revision':
    case 'secret':
    case 'config':
    case undefined:
      return []
  }
}

/** No address, VIP, published port, subnet or network number is held twice, nor by nothing. */
export function addresses(cluster: SimulatedCluster): Checker {
  const holders = new Map<string, Set<string>>()
  let seconds = 0
  const free = (object: AnyObject | undefined) => {
    for (const what of held(object)) {
      const ids = holders.get(what)
      if (object) ids?.delete(object.id)
      if (ids?.size === 0) holders.delete(what)
    }
  }
  return {
    name: 'nothing is held twice',
    commit(commit) {
      // All of a commit happens at once: what one gives up another may take.
      for (const { before } of commit.changes) free(before)
      for (const { after } of commit.changes) {
        if (!after) continue
        const own = new Set<string>()
        for (const what of held(after)) {
          if (own.has(what)) return `${after.kind} ${after.id} holds ${what} twice`
          own.add(what)
          const ids = holders.get(what)
          if (!ids) {
            holders.set(what, new Set([after.id]))
            continue
          }
          const [other] = [...ids].filter((id) => id !== after.id)
          if (other !== undefined)
            return `${what} is held by ${other} and by ${after.kind} ${after.id}`
          ids.add(after.id)
        }
      }
      return undefined
    },
    second(view) {
      seconds += 1
      if (seconds % 5 !== 0) return undefined
      const manager = cluster.isLed ? cluster.leader?.manager : undefined
      const leadership = manager?.leaderships.at(-1)
      // A stopped leader knows only what it knew before.
      if (!manager || !leadership?.process.isRunning) return undefined
      if (manager.store.view.revision !== view.revision) return undefined
      const known = leadership.manager.allocator.describe()
      const real = Allocator.from(manager.store.view).describe()
      return isDeepEqual(known, real)
        ? undefined
        : `the allocator believes ${difference(known, real)}`
    },
  }
}

function difference(known: unknown, real: unknown): string {
  return `${JSON.stringify(known).slice(0, 600)}, but what objects hold is ${JSON.stringify(real).slice(0, 600)}`
}

/** Where something unfinished lies on a network that is gone, its address is held by nothing. */
export function addressesHaveNetworks(): Checker {
  return {
    name: 'addresses lie on networks',
    change({ kind, before, after }, _commit, view: View) {
      if (kind !== 'network' || after || before?.kind !== 'network') return undefined
      const task = view
        .tasksOnNetwork(before.id)
        .find(
          ({ status, workloadId, desiredState }) =>
            !isTerminal(status.state) &&
            desiredState === 'running' &&
            view.get('workload', workloadId),
        )
      return task && `network ${before.name} was removed while task ${task.id} runs on it`
    },
  }
}
