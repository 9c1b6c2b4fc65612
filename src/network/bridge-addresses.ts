import { UserError } from '../base/index.ts'
import type { EndpointAssignment, NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { BridgeParts } from './bridge-parts.ts'
import { fieldOf, parseList, textOf } from './overlay-state.ts'

/**
 * IPv6 addresses of bridges: their gateways', the node's own, and VIPs. Neighbour discovery answers for no address but a
 * device's own, so that is what a VIP has to be for its packets to come to the host's rules; a route of type `local`, which is
 * enough with IPv4, is not. No address is looked for elsewhere first (`nodad`): each node's bridge has the same ones.
 */
export function openBridgeAddresses(): BridgeParts {
  return new BridgeParts({
    listCommand: ['ip', '-j', '-6', 'address', 'show', 'up'],
    options: ['-6'],
    read: parseBridgeAddresses,
    change: changeAddresses,
    harmless: /^Command failed|Cannot assign requested address|Cannot find device/,
    refused: (line) =>
      new UserError('internal', `the kernel did not take IPv6 addresses: ${line}`, {
        next: 'Check that IPv6 is not switched off on this host (sysctl net.ipv6.conf.all.disable_ipv6).',
      }),
    drift: (count) => `${count} IPv6 addresses of this node's bridges were not as they should be`,
  })
}

/** What the bridges of these networks have besides link-local addresses. Their addresses are all IPv6 (`Ipv6View`). */
export function planBridgeAddresses(
  networks: readonly NetworkAssignment[],
  endpoints: readonly EndpointAssignment[],
): ReadonlySet<string> {
  const bridgeById = new Map<string, string>()
  const planned = new Set<string>()
  for (const { id, subnet, gateway, nodeAddress } of networks) {
    const bridge = bridgeName(id)
    bridgeById.set(id, bridge)
    planned.add(`${gateway}/${subnet.split('/')[1]} dev ${bridge}`)
    if (nodeAddress) planned.add(`${nodeAddress.address}/128 dev ${bridge}`)
  }
  for (const { networks: places } of endpoints) {
    for (const { networkId, vip } of places) {
      const bridge = bridgeById.get(networkId)
      if (vip !== undefined && bridge !== undefined) planned.add(`${vip}/128 dev ${bridge}`)
    }
  }
  return planned
}

/** Lines for `ip -batch`. */
export function changeAddresses(
  present: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): readonly string[] {
  return [
    ...[...present].filter((one) => !wanted.has(one)).map((one) => `address delete ${one}`),
    ...[...wanted]
      .filter((one) => !present.has(one))
      .map((one) =>
        // With a preferred lifetime of 0 the host itself never sends from a VIP, nor from its address on the ingress network.
        one.includes('/128 ')
          ? `address replace ${one} nodad noprefixroute preferred_lft 0`
          : `address replace ${one} nodad`,
      ),
  ]
}

/** Those that are in use: not one that still waits for others to object, or that somebody has objected to. */
export function parseBridgeAddresses(
  json: string,
  bridges: ReadonlySet<string>,
): ReadonlySet<string> {
  const found = new Set<string>()
  for (const device of parseList(json)) {
    const name = textOf(device, 'ifname')
    const infos = fieldOf(device, 'addr_info')
    if (!bridges.has(name) || !Array.isArray(infos)) continue
    for (const info of infos) {
      if (textOf(info, 'family') !== 'inet6' || textOf(info, 'scope') !== 'global') continue
      if (fieldOf(info, 'tentative') === true || fieldOf(info, 'dadfailed') === true) continue
      found.add(`${textOf(info, 'local')}/${Number(fieldOf(info, 'prefixlen'))} dev ${name}`)
    }
  }
  return found
}
