import { readFile, writeFile } from 'node:fs/promises'
import { type Log, messageOf, UserError } from '../base/index.ts'
import { macOf } from '../model/index.ts'
import type { NetworkAssignment } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { hostNamespace, type Namespace } from './namespace.ts'
import type { HostDevice } from './overlay-plan.ts'
import { parseDevices } from './overlay-state.ts'

/**
 * Lets answers to a local client (127.0.0.1) come back through the bridge, and answers of a container that leave by
 * another of its networks come in. Resolves with whether something had to be written.
 */
export async function tuneBridge(network: NetworkAssignment, log: Log): Promise<boolean> {
  const folder = `/proc/sys/net/ipv4/conf/${bridgeName(network.id)}`
  try {
    const [local, filter, filterOfAll] = await Promise.all([
      readNumber(`${folder}/route_localnet`),
      readNumber(`${folder}/rp_filter`),
      readNumber('/proc/sys/net/ipv4/conf/all/rp_filter'),
    ])
    if (local !== 1) await writeFile(`${folder}/route_localnet`, '1')
    // The greater of the two counts: 1 is strict, 2 is loose.
    const isStrict = Math.max(filter, filterOfAll) === 1
    if (isStrict) await writeFile(`${folder}/rp_filter`, '2')
    const isIpv6New = network.ipv6 !== undefined && (await tuneIpv6(bridgeName(network.id)))
    return local !== 1 || isStrict || isIpv6New
  } catch (error) {
    log.warn('a bridge could not be tuned: published ports may not answer on 127.0.0.1', {
      network: network.name,
      bridge: bridgeName(network.id),
      error: messageOf(error),
    })
    return false
  }
}

/** Only a bridge that we made anew differs: the engine has set its own ones so. */
async function tuneIpv6(bridge: string): Promise<boolean> {
  const folder = `/proc/sys/net/ipv6/conf/${bridge}`
  let isChanged = false
  for (const [name, wanted] of [
    ['disable_ipv6', 0],
    ['accept_ra', 0],
    ['forwarding', 1],
  ] as const) {
    if ((await readNumber(`${folder}/${name}`)) === wanted) continue
    await writeFile(`${folder}/${name}`, `${wanted}`)
    isChanged = true
  }
  return isChanged
}

async function readNumber(path: string): Promise<number> {
  return Number((await readFile(path, 'utf8')).trim())
}

/** Addresses by device, of the host's devices that are up. */
export async function addressesByDevice(): Promise<ReadonlyMap<string, readonly string[]>> {
  // Not `os.networkInterfaces`: that leaves out a bridge nothing is plugged into.
  const [, ...args] = addressesCommand
  const { text } = await ip(hostNamespace, args)
  return parseAddresses(text)
}

/** Prints what `parseAddresses` reads. */
export const addressesCommand: readonly string[] = 'ip -j address show up'.split(' ')

/** Addresses by device. */
export function parseAddresses(json: string): ReadonlyMap<string, readonly string[]> {
  return new Map(parseLinks(json).map(({ name, addresses }) => [name, addresses]))
}

/** Devices of the host that are up, with their IPv4 addresses. */
export async function hostDevices(): Promise<readonly HostDevice[]> {
  const [, ...args] = addressesCommand
  return parseDevices((await ip(hostNamespace, args)).text)
}

/**
 * Gives the bridge the node's own address on the network, and the link-layer address by which other nodes know it. Only
 * where the network has one for this node. Resolves with whether something had to be done.
 */
export async function settleNodeAddress(
  network: NetworkAssignment,
  devices: readonly HostDevice[],
): Promise<boolean> {
  const { nodeAddress } = network
  if (!nodeAddress) return false
  const bridge = bridgeName(network.id)
  const device = devices.find(({ name }) => name === bridge)
  const prefix = Number(network.subnet.split('/')[1] ?? '24')
  const own = new Set([network.gateway, nodeAddress.address])
  // One that this node had before would take the packets of whoever has it now.
  const stale = (device?.addresses ?? []).filter((address) => !own.has(address))
  const isSettled =
    stale.length === 0 &&
    device?.addresses.includes(nodeAddress.address) &&
    device.mac === nodeAddress.mac
  if (isSettled) return false
  for (const args of [
    ...stale.map((address) => ['address', 'del', `${address}/32`, 'dev', bridge]),
    ['link', 'set', 'dev', bridge, 'address', nodeAddress.mac],
    ['address', 'replace', `${network.gateway}/${prefix}`, 'dev', bridge],
    ['address', 'replace', `${nodeAddress.address}/32`, 'dev', bridge],
  ]) {
    const done = await ip(hostNamespace, args)
    if (!done.ok) throw failed(network, done.text)
  }
  return true
}

/** Whether the network's bridge is there and has its gateway's address. */
export function isBridgeUp(
  network: NetworkAssignment,
  devices: ReadonlyMap<string, readonly string[]>,
): boolean {
  return devices.get(bridgeName(network.id))?.includes(network.gateway) ?? false
}

export interface AttachedTask {
  readonly namespace: Namespace
  readonly address: string
}

/**
 * Makes a bridge anew that somebody deleted, took down or took the address from, and puts the tasks' devices back on it.
 * Containers keep running meanwhile, so the engine's own way (remove the network, make it again) is closed.
 */
export async function repairBridge(
  network: NetworkAssignment,
  tasks: readonly AttachedTask[],
): Promise<void> {
  const bridge = bridgeName(network.id)
  const prefix = network.subnet.split('/')[1] ?? '24'
  const existing = await ip(hostNamespace, ['link', 'show', 'dev', bridge])
  if (!existing.ok) {
    // Without an address of its own a bridge takes one of its ports', and changes it as they come and go.
    const mac = network.nodeAddress?.mac ?? macOf(network.gateway)
    const added = await ip(hostNamespace, [
      ...['link', 'add', 'name', bridge, 'address', mac, 'type', 'bridge'],
    ])
    if (!added.ok) throw failed(network, added.text)
  }
  for (const args of [
    ['address', 'replace', `${network.gateway}/${prefix}`, 'dev', bridge],
    ['link', 'set', 'dev', bridge, 'up'],
  ]) {
    const done = await ip(hostNamespace, args)
    if (!done.ok) throw failed(network, done.text)
  }
  const hostDevices = parseLinks((await ip(hostNamespace, ['-j', 'link', 'show'])).text)
  for (const { namespace, address } of tasks) {
    const inside = parseLinks((await ip(namespace, ['-j', 'address', 'show'])).text)
    const device = inside.find(({ addresses }) => addresses.includes(address))
    const peer = hostDevices.find(({ index }) => index === device?.peerIndex)
    // It knows the gateway by the address that the former bridge had.
    await ip(namespace, ['neighbour', 'flush', 'to', network.gateway])
    if (network.ipv6) await ip(namespace, ['neighbour', 'flush', 'to', network.ipv6.gateway])
    if (!peer || peer.master === bridge) continue
    const done = await ip(hostNamespace, ['link', 'set', 'dev', peer.name, 'master', bridge, 'up'])
    if (!done.ok) throw failed(network, done.text)
  }
}

/**
 * Removes the bridge of a network that the engine has no more. The engine leaves a device that it did not make itself: one
 * that was repaired, or that outlived the engine's state. Its address would take packets from the next network's.
 */
export async function removeBridge(networkId: string): Promise<void> {
  const bridge = bridgeName(networkId)
  const devices = await readFile('/proc/self/net/dev', 'utf8')
  if (!devices.includes(`${bridge}:`)) return
  const done = await ip(hostNamespace, ['link', 'delete', 'dev', bridge])
  if (done.ok || /Cannot find device/.test(done.text)) return
  throw new UserError('internal', `the bridge ${bridge} could not be removed: ${done.text}`)
}

function failed(network: NetworkAssignment, text: string): UserError {
  return new UserError(
    'internal',
    `the bridge ${bridgeName(network.id)} of network "${network.name}" could not be repaired: ${text}`,
  )
}

async function ip(
  namespace: Namespace,
  args: readonly string[],
): Promise<{ readonly ok: boolean; readonly text: string }> {
  const result = await namespace.run('ip', args)
  return { ok: result?.code === 0, text: result?.stdout || result?.stderr || '' }
}

interface Link {
  readonly index: number
  readonly name: string
  /** The other end of a veth pair, in another namespace. */
  readonly peerIndex: number | undefined
  readonly master: string | undefined
  readonly addresses: readonly string[]
}

/** Reads `ip -j link` or `ip -j address`. */
export function parseLinks(json: string): readonly Link[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    return [] // Nothing was printed: there is no such namespace any more.
  }
  if (!Array.isArray(parsed)) return []
  return parsed.map((item: unknown): Link => {
    const field = (name: string): unknown =>
      typeof item === 'object' && item !== null ? Reflect.get(item, name) : undefined
    const peer = field('link_index')
    const master = field('master')
    const infos = field('addr_info')
    return {
      index: Number(field('ifindex')),
      name: String(field('ifname')),
      peerIndex: typeof peer === 'number' ? peer : undefined,
      master: typeof master === 'string' ? master : undefined,
      addresses: (Array.isArray(infos) ? infos : []).map((info: unknown) =>
        typeof info === 'object' && info !== null ? String(Reflect.get(info, 'local')) : '',
      ),
    }
  })
}
