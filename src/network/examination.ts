import { createSocket } from 'node:dgram'
import { readFile } from 'node:fs/promises'
import { decode, encode } from 'dns-packet'
import { type Clock, messageOf } from '../base/index.ts'
import { ipv6Of } from '../model/index.ts'
import type { NetworkAssignment, NetworkFinding } from '../wire/index.ts'
import { bridgeName } from './bridge-name.ts'
import { isDual } from './ipv6-view.ts'
import { hostNamespace } from './namespace.ts'
import { addressesOf } from './resolver/lookup.ts'
import { type ResolverState, tiers } from './resolver/zones.ts'

/** What of the host's settings and of other firewalls cluster networks depend on. */
export interface HostSettings {
  /** `net.ipv4.ip_forward` and the like; undefined: the kernel has no such setting. */
  readonly sysctls: Readonly<Record<string, number | undefined>>
  /** What `iptables -S` printed. */
  readonly iptables: string
  /** Base chains of nftables that drop what they do not know. */
  readonly droppingChains: readonly DroppingChain[]
}

export interface DroppingChain {
  readonly family: string
  readonly table: string
  readonly chain: string
  readonly hook: string
  /** Its rules, as nft lists them. */
  readonly rules: string
}

const sysctlNames = [
  'ip_forward',
  'bridge-nf-call-iptables',
  'rp_filter',
  'disable_ipv6',
  'ipv6_forwarding',
] as const
const sysctlPaths: Readonly<Record<(typeof sysctlNames)[number], string>> = {
  ip_forward: '/proc/sys/net/ipv4/ip_forward',
  'bridge-nf-call-iptables': '/proc/sys/net/bridge/bridge-nf-call-iptables',
  rp_filter: '/proc/sys/net/ipv4/conf/all/rp_filter',
  disable_ipv6: '/proc/sys/net/ipv6/conf/all/disable_ipv6',
  ipv6_forwarding: '/proc/sys/net/ipv6/conf/all/forwarding',
}

export async function readHostSettings(): Promise<HostSettings> {
  const [iptables, ...numbers] = await Promise.all([
    hostNamespace.run('iptables', ['-w', '5', '-S']).catch(() => undefined),
    ...sysctlNames.map((name) => readNumber(sysctlPaths[name])),
  ])
  return {
    sysctls: Object.fromEntries(sysctlNames.map((name, index) => [name, numbers[index]])),
    iptables: iptables?.stdout ?? '',
    droppingChains: await readDroppingChains(),
  }
}

async function readNumber(path: string): Promise<number | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : Number(text.trim())
}

async function readDroppingChains(): Promise<readonly DroppingChain[]> {
  const listed = await hostNamespace.run('nft', ['list', 'chains'])
  const chains: DroppingChain[] = []
  for (const { family, table, chain, hook } of parseDroppingChains(listed?.stdout ?? '')) {
    const rules = await hostNamespace.run('nft', ['list', 'chain', family, table, chain])
    chains.push({ family, table, chain, hook, rules: rules?.stdout ?? '' })
  }
  return chains
}

/** Base chains for input and forwarding with the policy to drop, by `nft list chains`. */
export function parseDroppingChains(listing: string): readonly Omit<DroppingChain, 'rules'>[] {
  const found: Omit<DroppingChain, 'rules'>[] = []
  let table: { readonly family: string; readonly name: string } | undefined
  let chain = ''
  for (const line of listing.split('\n').map((text) => text.trim())) {
    const [, family, name] = /^table (\S+) (\S+) \{/.exec(line) ?? []
    if (family !== undefined && name !== undefined) table = { family, name }
    chain = /^chain (\S+) \{/.exec(line)?.[1] ?? chain
    const hook = /^type filter hook (input|forward) .*policy drop;/.exec(line)?.[1]
    if (table && hook) found.push({ family: table.family, table: table.name, chain, hook })
  }
  return found
}

/** Judges the host's settings for the networks that it has. */
export function judgeHost(
  { sysctls, iptables, droppingChains }: HostSettings,
  networks: readonly NetworkAssignment[],
  port: number | undefined,
): readonly NetworkFinding[] {
  const findings: NetworkFinding[] = []
  if (networks.length === 0) return findings
  if (sysctls['ip_forward'] === 0) {
    findings.push({
      what: 'the kernel forwards no packets (net.ipv4.ip_forward is 0): published ports and ways out of containers do not work',
      next: 'sysctl -w net.ipv4.ip_forward=1, and see which program turned it off (a file in /etc/sysctl.d sets it for good).',
    })
  }
  for (const { name } of networks.filter(isDual)) {
    if (sysctls['disable_ipv6'] !== 0) {
      findings.push({
        what: 'this host has IPv6 switched off (net.ipv6.conf.all.disable_ipv6), which the network needs',
        next: 'sysctl -w net.ipv6.conf.all.disable_ipv6=0, or take the kernel parameter ipv6.disable away and restart the host.',
        network: name,
      })
    } else if (sysctls['ipv6_forwarding'] === 0) {
      findings.push({
        what: 'the kernel forwards no packets of IPv6 (net.ipv6.conf.all.forwarding is 0): published ports do not answer other hosts there',
        next: 'sysctl -w net.ipv6.conf.all.forwarding=1, and see which program turned it off (a file in /etc/sysctl.d sets it for good).',
        network: name,
      })
    }
  }
  const isForwardDropped = /^-P FORWARD DROP$/m.test(iptables)
  const areBridgesFiltered = sysctls['bridge-nf-call-iptables'] === 1
  // Newer engines name all their bridges by a set.
  const knowsBridges = iptables.includes('docker-ext-bridges')
  for (const { id, name } of networks) {
    const bridge = bridgeName(id)
    if (!isForwardDropped || knowsBridges || iptables.includes(` ${bridge} `)) continue
    const effect = areBridgesFiltered
      ? 'packets between its containers, also to other nodes, are dropped'
      : 'its containers have no way out of the host'
    findings.push({
      what: `the host's firewall (chain FORWARD, policy DROP) has no rule for the bridge ${bridge}: ${effect}`,
      next: "The engine's own rules are gone: restart the Docker Engine, and have the other firewall keep the chains DOCKER*.",
      network: name,
    })
  }
  for (const { family, table, chain, hook, rules } of droppingChains) {
    // The engine's own, and what iptables shows already.
    if (table === 'filter' && family === 'ip') continue
    if (hook === 'input' && port !== undefined && mentions(rules, `dport ${port}`)) continue
    const unknown = networks.filter(({ id }) => !rules.includes(bridgeName(id)))
    if (hook === 'forward' && (rules.includes('"sk-*"') || unknown.length === 0)) continue
    if (family === 'ip6' || family === 'arp') continue
    findings.push(
      hook === 'input'
        ? {
            what: `the nftables chain ${family} ${table} ${chain} drops what comes in and does not name udp port ${port ?? 4789}, by which other nodes send the packets of cluster networks`,
            next: `nft insert rule ${family} ${table} ${chain} udp dport ${port ?? 4789} accept, and the same in that firewall's own settings.`,
          }
        : {
            what: `the nftables chain ${family} ${table} ${chain} drops what is forwarded and does not name the bridges of cluster networks (sk-*): published ports and ways out of containers do not work`,
            next: `nft insert rule ${family} ${table} ${chain} iifname "sk-*" accept; nft insert rule ${family} ${table} ${chain} oifname "sk-*" accept; and the same in that firewall's own settings.`,
          },
    )
  }
  return findings
}

function mentions(rules: string, words: string): boolean {
  return new RegExp(`${words}\\b`).test(rules)
}

/** Longest the resolver may take to answer a question from its own host, in ms. */
const answerMsMax = 2_000

/** Asks the resolver on each network for a name that it has to know there. */
export async function examineNames(
  state: ResolverState,
  nameById: ReadonlyMap<string, string>,
  clock: Clock,
): Promise<readonly NetworkFinding[]> {
  const findings = await Promise.all(
    state.networks.map(async (zone): Promise<readonly NetworkFinding[]> => {
      const { id, gateway } = zone
      const names = zone.pages.flatMap((page) => tiers.flatMap((tier) => Object.keys(page[tier])))
      const name = names.find((one) => addressesOf(zone, one)?.length) ?? 'skep-doctor'
      const narrow = addressesOf(zone, name) ?? []
      const { subnet, ipv6 } = zone
      // Where it has both, those that follow from the others are asked for: then both are right.
      const addresses = ipv6 ? narrow.map((one) => ipv6Of({ subnet, ipv6 }, one)) : narrow
      const network = nameById.get(id) ?? id
      const next =
        "See the resolver's log (resolver.log in the data root's folder network) and what else listens on port 53."
      try {
        const answered = await ask(gateway, name, ipv6 ? 'AAAA' : 'A', clock)
        if (
          answered.length === 0 ? addresses.length === 0 : addresses.includes(answered[0] ?? '')
        ) {
          return []
        }
        const what = `the resolver of network ${network} answers ${name} with ${answered.join(', ') || 'nothing'}, not ${addresses.join(', ')}`
        return [{ what, next, network }]
      } catch (error) {
        return [
          {
            what: `the resolver does not answer on ${gateway}:53: ${messageOf(error)}`,
            next,
            network,
          },
        ]
      }
    }),
  )
  return findings.flat()
}

async function ask(
  server: string,
  name: string,
  type: 'A' | 'AAAA',
  clock: Clock,
): Promise<readonly string[]> {
  const socket = createSocket('udp4')
  const done = new AbortController()
  try {
    const answer = new Promise<Buffer>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('message', resolve)
      const question = { name, type }
      const bytes = encode({ type: 'query', id: 1, flags: 256, questions: [question] })
      // The engine's masquerading would replace any other address of the host.
      socket.bind({ address: '127.0.0.1' }, () =>
        socket.send(bytes, 53, server, (error) => error && reject(error)),
      )
    })
    const late = clock.sleep(answerMsMax, done.signal).then(() => {
      throw new Error(`no answer in ${answerMsMax / 1000} s`)
    })
    const { answers = [] } = decode(await Promise.race([answer, late]))
    return answers.flatMap((each) => (each.type === 'A' || each.type === 'AAAA' ? [each.data] : []))
  } finally {
    done.abort()
    socket.close()
  }
}
