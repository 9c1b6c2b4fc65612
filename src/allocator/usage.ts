import { holdsResources, type Network, parseIpv4 } from '../model/index.ts'
import type { View } from '../store/store.ts'
import { AddressPool } from './address-pool.ts'

export interface AddressUsage {
  /** Addresses that can be given out, and how many of them are held. */
  readonly size: number
  readonly used: number
}

/** How much of a network's addresses is held. Undefined: it has no subnet. */
export function countAddresses(view: View, network: Network): AddressUsage | undefined {
  const pool = new AddressPool()
  pool.setNetwork(network)
  if (!pool.hasBounds) return undefined
  const hold = (text: string) => {
    const address = parseIpv4(text)
    if (address !== undefined) pool.hold(address)
  }
  for (const task of view.tasksOnNetwork(network.id)) {
    if (!holdsResources(task)) continue
    for (const { networkId, address } of task.addresses) if (networkId === network.id) hold(address)
  }
  // Endpoints are on the ingress network by their ports alone.
  const endpoints = network.spec.ingress
    ? view.list('endpoint')
    : view.endpointsOnNetwork(network.id)
  for (const { status } of endpoints) {
    for (const { networkId, address } of status.vips) if (networkId === network.id) hold(address)
  }
  for (const { address } of network.status.attachments ?? []) hold(address)
  for (const { address } of network.status.nodeAddresses ?? []) hold(address)
  return { size: pool.size, used: pool.used }
}
