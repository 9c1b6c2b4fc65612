import { existsSync } from 'node:fs'
import { UserError } from '../base/index.ts'
import { hostNamespace } from './namespace.ts'
import { fieldOf, parseList, textOf } from './overlay-state.ts'

/** Prints what `planBridgeSettings` reads: devices that are up, with what bridges and their ports are set to. */
export const bridgeSettingsCommand: readonly string[] = 'ip -j -d link show up'.split(' ')

/** There where the kernel has netfilter for bridges. */
const bridgeFilterFolder = '/proc/sys/net/bridge'

/** What is told to `ip -batch` and to `bridge -batch`. */
export interface BridgeSettings {
  readonly bridges: readonly string[]
  readonly ports: readonly string[]
  /** What was not as it should be, in words. */
  readonly found: readonly string[]
}

/**
 * What bridges need so that the host translates VIPs on them:
 * - the host's rules are asked for what crosses them (`nf_call_iptables`, `nf_call_ip6tables` on those of networks with
 *   IPv6), as Docker has it by default up to 27;
 * - a task may be sent back to where it asked from, because it is a backend itself (`hairpin` of its port).
 */
export function planBridgeSettings(
  json: string,
  bridges: ReadonlySet<string>,
  dual: ReadonlySet<string> = new Set(),
): BridgeSettings {
  const links: string[] = []
  const ports: string[] = []
  const found: string[] = []
  for (const device of parseDevices(json)) {
    const isAskingAll = device.isAsking && (device.isAskingIpv6 || !dual.has(device.name))
    if (bridges.has(device.name) && !isAskingAll) {
      const ipv6 = dual.has(device.name) ? ' nf_call_ip6tables 1' : ''
      links.push(`link set dev ${device.name} type bridge nf_call_iptables 1${ipv6}`)
      found.push(`the bridge ${device.name} did not ask the host's rules`)
    }
    // A container that has just started has a port that nobody has seen yet: nothing has drifted.
    if (bridges.has(device.master) && isTask(device.name) && !device.isHairpin) {
      ports.push(`link set dev ${device.name} hairpin on`)
    }
  }
  return { bridges: links, ports, found }
}

/** Looks at the bridges and puts right what is not as it should be. Resolves with that, in words. */
export async function settleBridges(
  bridges: ReadonlySet<string>,
  dual: ReadonlySet<string>,
  listing?: string,
): Promise<readonly string[]> {
  if (bridges.size === 0) return []
  const [program = '', ...args] = bridgeSettingsCommand
  const json = listing ?? (await hostNamespace.run(program, args))?.stdout ?? ''
  const plan = planBridgeSettings(json, bridges, dual)
  await batch('ip', plan.bridges)
  await batch('bridge', plan.ports)
  return plan.found
}

/**
 * Makes the kernel able to ask the host's rules about what crosses a bridge. Throws UserError `unsupported` where it has no
 * such part.
 */
export async function needBridgeFilter(): Promise<void> {
  if (existsSync(bridgeFilterFolder)) return
  const loaded = await hostNamespace.run('modprobe', ['br_netfilter']).catch(() => undefined)
  if (existsSync(bridgeFilterFolder)) return
  throw new UserError(
    'unsupported',
    `this kernel has no netfilter for bridges${loaded?.stderr ? `: ${loaded.stderr}` : ''}`,
    { next: 'Load the module br_netfilter (modprobe br_netfilter) before starting the daemon.' },
  )
}

async function batch(program: 'ip' | 'bridge', lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return
  const result = await hostNamespace.run(
    program,
    ['-force', '-batch', '-'],
    `${lines.join('\n')}\n`,
  )
  // A port may go with its container at any time.
  const [first] = (result?.stderr ?? '')
    .split('\n')
    .filter((line) => line !== '' && !/^Command failed|Cannot find device|No such dev/.test(line))
  if (first === undefined) return
  throw new UserError('internal', `the kernel did not take the settings of a bridge: ${first}`)
}

/** Not the device to other nodes. */
function isTask(port: string): boolean {
  return !port.startsWith('sv-')
}

interface Device {
  readonly name: string
  readonly master: string
  readonly isAsking: boolean
  readonly isAskingIpv6: boolean
  readonly isHairpin: boolean
}

function parseDevices(json: string): readonly Device[] {
  return parseList(json).map((item): Device => {
    const info = fieldOf(item, 'linkinfo')
    const settings = fieldOf(info, 'info_data')
    return {
      name: textOf(item, 'ifname'),
      master: textOf(item, 'master'),
      isAsking: fieldOf(settings, 'nf_call_iptables') === 1,
      isAskingIpv6: fieldOf(settings, 'nf_call_ip6tables') === 1,
      isHairpin: fieldOf(fieldOf(info, 'info_slave_data'), 'hairpin') === true,
    }
  })
}
