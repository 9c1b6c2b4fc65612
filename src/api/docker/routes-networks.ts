import ipaddr from 'ipaddr.js'
import { countAddresses } from '../../allocator/index.ts'
import { UserError } from '../../base/index.ts'
import { lookUp, type NetworkDeclaration } from '../../control/index.ts'
import {
  isTerminal,
  type Network,
  type NetworkId,
  parseWide,
  parseWideBlock,
} from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import { type Answer, type Call, json, nothing, passed, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { type NetworkCreateDocument, networkCreate } from './documents.ts'
import type { Filters } from './filters.ts'
import { readTime } from './logs.ts'
import { checkDnsName } from './names.ts'
import { raiseNetwork } from './raise.ts'

/** Label of the engine networks that are a cluster network on this node: its id. */
export const realisationLabel = 'skep.network.id'
const filterKeys = ['driver', 'type', 'name', 'id', 'label', 'scope', 'dangling'] as const

export function networkRoutes(api: ApiContext): readonly Route[] {
  return [
    { method: 'GET', path: '/networks', handle: (call) => listNetworks(api, call) },
    { method: 'GET', path: '/networks/:id', handle: (call) => inspectNetwork(api, call) },
    { method: 'POST', path: '/networks/create', handle: (call) => createNetwork(api, call) },
    { method: 'POST', path: '/networks/prune', handle: (call) => pruneNetworks(api, call) },
    {
      method: 'DELETE',
      path: '/networks/:id',
      async handle(call) {
        const text = call.param('id')
        if (await isOnlyEngines(api, text)) return passed
        const network = await findClusterNetwork(api, text)
        if (!network) return passed
        await api.requireControl().removeNetwork(network.id)
        return nothing(204)
      },
    },
  ]
}

/**
 * The cluster network that a client means, `undefined` when it can only be one of the engine's. The engines' own
 * networks that services can name (`host`) are found only where `predefined` asks for them. A name goes before the
 * beginning of an id, whoever has the name.
 */
export async function findClusterNetwork(
  api: ApiContext,
  text: string,
  { predefined = false } = {},
): Promise<Network | undefined> {
  const view = api.control()?.store.view
  if (!view) return undefined
  const found = lookUp(view, 'network', text).filter(({ spec }) => predefined || !spec.predefined)
  const [network] = found
  if (!network) return undefined
  const isWhole = network.id === text || network.name.toLowerCase() === text.toLowerCase()
  if (isWhole) return network
  const local = await api.engine.networks.inspect(text).catch(() => undefined)
  if (local?.Name === text) return undefined
  if (found.length > 1) {
    throw new UserError('ambiguous', `network ${text} is ambiguous (${found.length} matches found)`)
  }
  return network
}

/**
 * Has the cluster's state up to date, to look a network up in it. Where it is out of reach, what the engine alone has can
 * be told of all the same: resolves with true then, and rejects for anything else.
 */
async function isOnlyEngines(api: ApiContext, text: string): Promise<boolean> {
  try {
    await api.control()?.store.barrier?.()
    return false
  } catch (error) {
    const local = await api.engine.networks.inspect(text).catch(() => undefined)
    if (local && local.Labels?.[realisationLabel] === undefined) return true
    throw error
  }
}

async function listNetworks(api: ApiContext, call: Call): Promise<Answer> {
  const filters = call.filters(filterKeys)
  const isLocal = filters.has('scope') && !filters.equals('scope', 'swarm')
  if (!isLocal) await api.control()?.store.barrier?.()
  const view = api.control()?.store.view
  const own: object[] = []
  const known = new Set<string>()
  for (const network of view?.list('network') ?? []) {
    known.add(network.id)
    if (!network.spec.predefined && view && isListed(view, network, filters)) {
      own.push(raiseNetwork(network, null))
    }
  }
  const local = await api.engine.networks.list({ filters: filters.toJson() })
  const foreign = local.filter(({ Labels }) => !known.has(Labels?.[realisationLabel] ?? ''))
  return json([...own, ...foreign])
}

function isListed(view: View, network: Network, filters: Filters): boolean {
  const contains = (key: string, actual: string) => {
    const values = filters.get(key)
    return values.length === 0 || values.some((value) => actual.includes(value))
  }
  const isDangling = () => view.tasksOnNetwork(network.id).length === 0 && !usersOf(view, network)
  return (
    contains('name', network.name) &&
    contains('id', network.id) &&
    filters.equals('driver', network.spec.driver) &&
    filters.equals('scope', 'swarm') &&
    filters.equals('type', 'custom') &&
    filters.labels('label', network.labels) &&
    (!filters.has('dangling') || readFlag(filters, 'dangling') === isDangling())
  )
}

function usersOf(view: View, network: Network): boolean {
  return view.endpointsOnNetwork(network.id).length > 0
}

function readFlag(filters: Filters, key: string): boolean {
  const [value = ''] = filters.get(key)
  if (value === 'true' || value === '1') return true
  if (value === 'false' || value === '0') return false
  throw new UserError('invalidInput', `invalid filter '${key}=${value}'`, {
    next: 'Use true or false.',
  })
}

async function inspectNetwork(api: ApiContext, call: Call): Promise<Answer> {
  const text = call.param('id')
  const scope = call.query('scope') ?? ''
  if (scope === 'local') return passed
  if (scope === '' && (await isOnlyEngines(api, text))) return passed
  if (scope === 'swarm') await api.control()?.store.barrier?.()
  const network = await findClusterNetwork(api, text, { predefined: scope === 'swarm' })
  if (!network) {
    if (scope !== 'swarm' || !api.control()) return passed
    throw new UserError('notFound', `network ${text} not found`)
  }
  const { view } = api.requireControl().store
  const containers = await containersOf(api, network)
  const peers = peersOf(view, network)
  return json({
    ...raiseNetwork(network, containers),
    ...(peers.length > 0 ? { Peers: peers } : {}),
    Status: statusOf(view, network),
    ...(call.flag('verbose') ? { Services: servicesOn(view, network) } : {}),
  })
}

/** As newer engines say it (API 1.52), and what people have to do something about. */
function statusOf(view: View, network: Network): object {
  const usage = countAddresses(view, network)
  const { subnet, range, error } = network.status
  const from = range ?? subnet
  if (!usage || from === undefined) return error === undefined ? {} : { Error: error }
  const { size, used } = usage
  return {
    IPAM: { Subnets: { [from]: { IPsInUse: used, DynamicIPsAvailable: size - used } } },
    ...(used < size
      ? {}
      : {
          Error: `no free address is left (${from}: ${used} of ${size} used): stop what is not needed on it, or use a network with a larger subnet`,
        }),
  }
}

/** Containers on this node that are on the network, by the engine. */
async function containersOf(
  api: ApiContext,
  network: Network,
): Promise<Readonly<Record<string, unknown>>> {
  const local = await engineNetworkOf(api, network.id)
  if (!local) return {}
  const detail = await api.engine.networks.inspect(local)
  return detail.Containers ?? {}
}

/** Id of the engine's network that is this cluster network on this node. */
export async function engineNetworkOf(
  api: ApiContext,
  networkId: NetworkId,
): Promise<string | undefined> {
  const filters = { label: [`${realisationLabel}=${networkId}`] }
  const [local] = await api.engine.networks.list({ filters })
  return local?.Id
}

function peersOf(view: View, network: Network): readonly object[] {
  const nodes = new Set<string>()
  for (const { nodeId, status } of view.tasksOnNetwork(network.id)) {
    if (nodeId && !isTerminal(status.state)) nodes.add(nodeId)
  }
  return [...nodes].flatMap((id) => {
    const node = view.get('node', id)
    return node ? [{ Name: id.slice(0, 12), IP: node.status.address }] : []
  })
}

function servicesOn(view: View, network: Network): object {
  return Object.fromEntries(
    view.endpointsOnNetwork(network.id).map((endpoint) => {
      const vip = endpoint.status.vips.find(({ networkId }) => networkId === network.id)
      const tasks = endpoint.spec.backends.flatMap(({ workloadId }) =>
        view.tasksOfWorkload(workloadId).flatMap((task) => {
          const at = task.addresses.find(({ networkId }) => networkId === network.id)
          if (!at || isTerminal(task.status.state)) return []
          const host = task.nodeId && view.get('node', task.nodeId)?.status.address
          return [
            {
              Name: `${endpoint.name}.${task.slot ?? task.nodeId ?? ''}.${task.id}`,
              EndpointID: '',
              EndpointIP: at.address,
              Info: { 'Host IP': host ?? '' },
            },
          ]
        }),
      )
      const service = { VIP: vip?.address ?? '', Ports: [], LocalLBIndex: 0, Tasks: tasks }
      return [endpoint.name, service]
    }),
  )
}

async function createNetwork(api: ApiContext, call: Call): Promise<Answer> {
  const { value, unknown } = call.read(networkCreate)
  const name = value.Name ?? ''
  if (value.Driver !== 'overlay' && value.Scope !== 'swarm') {
    if (name !== '' && (await findClusterNetwork(api, name))?.name === name) {
      throw new UserError('conflict', `network with name ${name} already exists`)
    }
    return passed
  }
  const control = api.requireControl()
  const network = await control.createNetwork(lowerNetwork(name, value))
  const warnings = unknown.map((path) => `unknown field ${path} was ignored`)
  return json({ Id: network.id, Warning: warnings.join('; ') }, 201)
}

function lowerNetwork(name: string, document: NetworkCreateDocument): NetworkDeclaration {
  const refuse = (what: string, next: string): never => {
    throw new UserError('unsupported', what, { next })
  }
  checkDnsName(name)
  if (['host', 'bridge', 'none', 'default'].includes(name)) {
    throw new UserError('forbidden', `operation is not permitted on predefined ${name} network`)
  }
  const driver = document.Driver ?? 'overlay'
  if (driver !== 'overlay') {
    refuse(
      `network driver "${driver}" is not supported for networks of the cluster`,
      'Use --driver overlay.',
    )
  }
  if (document.ConfigOnly || document.ConfigFrom?.Network) {
    refuse(
      'configuration-only networks are not supported for networks of the cluster',
      'Give the configuration itself.',
    )
  }
  if (document.EnableIPv4 === false) {
    refuse('networks of the cluster need IPv4', 'Leave --ipv4=false out.')
  }
  const ipam = document.IPAM
  if (ipam?.Driver && ipam.Driver !== 'default') {
    refuse(`IPAM driver "${ipam.Driver}" is not supported`, 'Leave --ipam-driver out.')
  }
  const pools = ipam?.Config ?? []
  const wide = pools.filter(({ Subnet }) => Subnet?.includes(':'))
  if (pools.length - wide.length > 1 || wide.length > 1) {
    refuse(
      'a network of the cluster has one subnet of each family',
      'Give --subnet once for IPv4, and once for IPv6.',
    )
  }
  const ipv6 = document.EnableIPv6 ?? false
  if (wide.length > 0 && !ipv6) {
    throw new UserError('invalidInput', `subnet ${wide[0]?.Subnet} is one of IPv6`, {
      next: 'Add --ipv6, or leave that subnet out.',
    })
  }
  if (document.Ingress && document.Attachable) {
    throw new UserError('invalidInput', 'an ingress network cannot be attachable')
  }
  const options = document.Options ?? {}
  const encrypted = Object.hasOwn(options, 'encrypted') && options['encrypted'] !== 'false'
  if (encrypted && document.Ingress) {
    refuse(
      'the ingress network can not be encrypted',
      'Leave --opt encrypted out there; connections to published ports are as their clients make them.',
    )
  }
  return {
    name,
    labels: document.Labels,
    spec: {
      driver,
      internal: document.Internal ?? false,
      attachable: document.Attachable ?? false,
      ingress: document.Ingress ?? false,
      ipv6,
      encrypted,
      options,
      ipam: pools.map(lowerPool),
      predefined: false,
    },
    source: { dialect: 'docker', document },
  }
}

type PoolDocument = NonNullable<NonNullable<NetworkCreateDocument['IPAM']>['Config']>[number]

function lowerPool({ Subnet, IPRange, Gateway, AuxiliaryAddresses }: PoolDocument) {
  const refuse = (why: string): never => {
    throw new UserError('invalidInput', why)
  }
  if (AuxiliaryAddresses && Object.keys(AuxiliaryAddresses).length > 0) {
    throw new UserError(
      'unsupported',
      'auxiliary addresses are not supported on networks of the cluster',
      {
        next: 'Leave --aux-address out, or keep addresses free with --ip-range.',
      },
    )
  }
  if (Subnet?.includes(':')) {
    checkWidePool(Subnet, IPRange, Gateway)
    return {
      subnet: Subnet,
      ...(IPRange ? { range: IPRange } : {}),
      ...(Gateway ? { gateway: Gateway } : {}),
    }
  }
  const subnet = Subnet === undefined ? undefined : readSubnet('subnet', Subnet)
  const range = IPRange === undefined ? undefined : readSubnet('ip-range', IPRange)
  if (!subnet && (range || Gateway)) refuse('an ip-range or gateway needs its subnet')
  if (subnet && range && !(range[0].match(subnet) && range[1] >= subnet[1])) {
    refuse(`ip-range ${IPRange} is not within subnet ${Subnet}`)
  }
  if (Gateway !== undefined) {
    if (!ipaddr.IPv4.isValidFourPartDecimal(Gateway)) refuse(`invalid gateway address: ${Gateway}`)
    if (subnet && !ipaddr.IPv4.parse(Gateway).match(subnet)) {
      refuse(`gateway ${Gateway} is not within subnet ${Subnet}`)
    }
  }
  return {
    ...(Subnet ? { subnet: Subnet } : {}),
    ...(IPRange ? { range: IPRange } : {}),
    ...(Gateway ? { gateway: Gateway } : {}),
  }
}

/** Blocks that no network can have: addresses of one link, of groups, and of each host itself. */
const wideForbidden = ['fe80::/10', 'ff00::/8', '::/8']

function checkWidePool(subnet: string, range: string | undefined, gateway: string | undefined) {
  const refuse = (why: string, next?: string): never => {
    throw new UserError('invalidInput', why, { ...(next === undefined ? {} : { next }) })
  }
  const read = (what: string, text: string) =>
    parseWideBlock(text) ??
    refuse(
      `invalid ${what} ${text}: invalid CIDR block notation`,
      'Write it as fd00:1:2:3::/64 (IPv6).',
    )
  const block = read('subnet', subnet)
  const isWithin = (first: bigint, last: bigint, outer = block) =>
    outer.first <= first && last <= outer.last
  for (const text of wideForbidden) {
    const forbidden = read('subnet', text)
    if (isWithin(block.first, block.last, forbidden)) {
      refuse(
        `subnet ${subnet} lies in ${text}, which is no block for networks`,
        'Choose one in fd00::/8, or one that is yours.',
      )
    }
  }
  if (range !== undefined) {
    const { first, last } = read('ip-range', range)
    if (!isWithin(first, last)) refuse(`ip-range ${range} is not within subnet ${subnet}`)
  }
  if (gateway !== undefined) {
    const address = parseWide(gateway) ?? refuse(`invalid gateway address: ${gateway}`)
    if (!isWithin(address, address)) refuse(`gateway ${gateway} is not within subnet ${subnet}`)
  }
}

function readSubnet(what: string, text: string): [ipaddr.IPv4, number] {
  const [address = '', length = ''] = text.split('/')
  if (!ipaddr.IPv4.isValidFourPartDecimal(address) || !/^\d{1,2}$/.test(length)) {
    throw new UserError('invalidInput', `invalid ${what} ${text}: invalid CIDR block notation`, {
      next: 'Write it as 10.20.0.0/16 (IPv4).',
    })
  }
  if (Number(length) > 30) {
    throw new UserError(
      'invalidInput',
      `invalid ${what} ${text}: it holds no addresses to give out`,
    )
  }
  return ipaddr.IPv4.parseCIDR(text)
}

async function pruneNetworks(api: ApiContext, call: Call): Promise<Answer> {
  const filters = call.filters(['until', 'label', 'label!'])
  const [until] = filters.get('until')
  const untilMs = until === undefined ? undefined : untilOf(until, api.clock.nowMs())
  const control = api.node.state().controlAvailable ? api.control() : undefined
  const own =
    (await control?.pruneNetworks(
      ({ labels, createdAtMs }) =>
        (untilMs === undefined || createdAtMs < untilMs) &&
        filters.labels('label', labels) &&
        !(filters.has('label!') && filters.labels('label!', labels)),
    )) ?? []
  const given = filters.toJson()
  // The engine sees no container on a cluster network whose tasks are elsewhere, but the network is used.
  const spared = [...(given['label!'] ?? []), realisationLabel]
  const local = await api.engine.networks.prune({ filters: { ...given, 'label!': spared } })
  const all = [...own, ...(local.NetworksDeleted ?? [])]
  return json({ NetworksDeleted: all.length > 0 ? all : null })
}

/** Reads `10m`, `1h30m` (ago), or a time, as ms. */
function untilOf(text: string, nowMs: number): number {
  const unitMs = { h: 3_600_000, m: 60_000, s: 1_000 } as const
  if (/^(?:\d+(?:\.\d+)?[hms])+$/.test(text)) {
    let agoMs = 0
    for (const [, count, unit] of text.matchAll(/(\d+(?:\.\d+)?)([hms])/g)) {
      if (unit === 'h' || unit === 'm' || unit === 's') agoMs += Number(count) * unitMs[unit]
    }
    return nowMs - agoMs
  }
  return readTime(text) ?? nowMs
}
