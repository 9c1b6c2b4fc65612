import { type Random, UserError } from '../../base/index.ts'
import { idFrom, type NetworkId, parseWide } from '../../model/index.ts'
import { type Answer, type Call, nothing, passed, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { engineNetworkOf, findClusterNetwork, realisationLabel } from './routes-networks.ts'
import { anything, flag, map, record, text } from './shape.ts'

/** Plain containers on attachable cluster networks: the engine makes them, the cluster gives the address. */
export function attachmentRoutes(api: ApiContext): readonly Route[] {
  return [
    { method: 'POST', path: '/containers/create', handle: (call) => createContainer(api, call) },
    { method: 'POST', path: '/networks/:id/connect', handle: (call) => connect(api, call) },
    { method: 'POST', path: '/networks/:id/disconnect', handle: (call) => disconnect(api, call) },
  ]
}

type Json = Readonly<Record<string, unknown>>

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}

function isNonEmptyList(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0
}

/** What the places of a container are kept under, whatever becomes of its name. */
const placeLabel = 'skep.attachment'
/** Names of networks that are never the cluster's. */
const engineModes = /^(default|bridge|host|none|nat|container:.*)?$/

async function createContainer(api: ApiContext, call: Call): Promise<Answer> {
  // Without a cluster, or with a body that is the engine's to refuse, the call goes on as it came.
  if (!call.body || (!api.control() && !isWorker(api))) return passed
  let body: Json
  try {
    body = objectOf(JSON.parse(call.body.toString('utf8')))
  } catch {
    return passed
  }
  const hostConfig = objectOf(body['HostConfig'])
  const endpoints = objectOf(objectOf(body['NetworkingConfig'])['EndpointsConfig'])
  const mode = hostConfig['NetworkMode']
  const names = new Set(Object.keys(endpoints))
  if (typeof mode === 'string') names.add(mode)
  const meant = new Map<string, string>()
  for (const name of names) {
    const network = await networkMeant(api, name)
    if (network !== undefined) meant.set(name, network)
  }
  if (meant.size === 0) return passed

  const url = new URL(call.originalTarget, 'http://localhost')
  const container = url.searchParams.get('name') || `attached-${drawnDigits(api.random)}`
  url.searchParams.set('name', container)
  const reserved: NetworkId[] = []
  const giveBack = async () => {
    for (const id of reserved) await api.attachments.release(id, [container])
  }
  const renamed = new Map<string, string>()
  const attached: Record<string, unknown> = {}
  let nameservers: readonly string[] = []
  let mac: string | undefined
  try {
    for (const [name, network] of meant) {
      const wish = objectOf(endpoints[name])
      const place = await api.attachments.reserve({
        network,
        container,
        names: [container, ...textsOf([body['Hostname']]), ...textsOf(wish['Aliases'])],
        ...addressOf(wish),
      })
      if (!place) continue // The engine says in its own words that there is no such network.
      reserved.push(place.networkId)
      renamed.set(name, place.engineNetwork)
      attached[place.engineNetwork] = atPlace(wish, place)
      if (name === mode) mac = place.mac
      if (nameservers.length === 0) nameservers = place.nameservers
    }
  } catch (error) {
    await giveBack()
    throw error
  }
  if (renamed.size === 0) return passed
  const rest = Object.entries(endpoints).filter(([name]) => !renamed.has(name))
  const rewritten = {
    ...body,
    Labels: { ...objectOf(body['Labels']), [placeLabel]: container },
    // Engines before API 1.44 take the link-layer address from here only.
    ...(mac ? { MacAddress: mac } : {}),
    HostConfig: {
      ...hostConfig,
      ...(typeof mode === 'string' ? { NetworkMode: renamed.get(mode) ?? mode } : {}),
      ...(nameservers.length > 0 && !isNonEmptyList(hostConfig['Dns']) ? { Dns: nameservers } : {}),
    },
    NetworkingConfig: {
      ...objectOf(body['NetworkingConfig']),
      EndpointsConfig: { ...Object.fromEntries(rest), ...attached },
    },
  }
  const { response } = call
  response.once('close', () => {
    const isMade = response.writableFinished && response.statusCode < 300
    if (!isMade) void giveBack()
  })
  return {
    type: 'passed',
    body: Buffer.from(JSON.stringify(rewritten)),
    url: `${url.pathname}${url.search}`,
  }
}

/** Texts of a list, without empty ones. */
function textsOf(value: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : []
  return list.filter((item) => typeof item === 'string').filter((text) => text !== '')
}

/** The address that a person asks for (`--ip`, `--ip6`). Of the two each follows from the other. */
function addressOf(wish: Json): { readonly address?: string } {
  const { IPv4Address, IPv6Address } = objectOf(wish['IPAMConfig'])
  const [address] = textsOf([IPv4Address, IPv6Address])
  return address === undefined ? {} : { address }
}

function atPlace(
  wish: Json,
  place: { readonly address: string; readonly ipv6?: string; readonly mac: string },
) {
  const { address, ipv6, mac } = place
  const config = objectOf(wish['IPAMConfig'])
  const [asked] = textsOf([config['IPv6Address']])
  if (asked !== undefined && (ipv6 === undefined || parseWide(asked) !== parseWide(ipv6))) {
    throw new UserError(
      'invalidInput',
      `the address ${asked} does not go with ${address} on this network`,
      {
        next:
          ipv6 === undefined
            ? 'The network has no IPv6: leave --ip6 out.'
            : `Leave --ip6 out: it is ${ipv6}.`,
      },
    )
  }
  return {
    ...wish,
    IPAMConfig: { ...config, IPv4Address: address, ...(ipv6 ? { IPv6Address: ipv6 } : {}) },
    MacAddress: mac,
  }
}

function isWorker(api: ApiContext): boolean {
  const { localNodeState, controlAvailable } = api.node.state()
  return localNodeState === 'active' && !controlAvailable
}

/**
 * What to ask the cluster's desk for, or undefined where a network can only be the engine's own. A worker does not know
 * the cluster's networks: what its engine does not have, the managers are asked for.
 */
async function networkMeant(api: ApiContext, name: string): Promise<string | undefined> {
  if (engineModes.test(name)) return undefined
  if (isWorker(api)) {
    const local = await localNetwork(api, name)
    return local ? local.Labels?.[realisationLabel] : name
  }
  const network = await findClusterNetwork(api, name)
  if (network && !network.spec.attachable) throw notAttachable(name, network.name)
  return network?.id
}

/** The engine's network that this text names. */
async function localNetwork(api: ApiContext, text: string) {
  return await api.engine.networks.inspect(text).catch((error: unknown) => {
    if (error instanceof UserError && error.code === 'notFound') return undefined
    throw error
  })
}

function notAttachable(asked: string, name: string): UserError {
  return new UserError(
    'forbidden',
    `Could not attach to network ${asked}: rpc error: code = PermissionDenied desc = network ${name} not manually attachable`,
    { next: 'Create the network with --attachable.' },
  )
}

const connectBody = record({ Container: text, EndpointConfig: map(anything) })
const disconnectBody = record({ Container: text, Force: flag })

async function connect(api: ApiContext, call: Call): Promise<Answer> {
  const network = await networkMeant(api, call.param('id'))
  if (network === undefined) return passed
  const { Container = '', EndpointConfig = {} } = call.read(connectBody).value
  const { id, names } = await containerNamed(api, Container)
  const place = await api.attachments.reserve({
    network,
    container: id,
    names: [...names, ...textsOf(EndpointConfig['Aliases'])],
    ...addressOf(EndpointConfig),
  })
  if (!place) return passed
  try {
    await api.engine.networks.connect(place.engineNetwork, id, atPlace(EndpointConfig, place))
  } catch (error) {
    await api.attachments.release(place.networkId, [id])
    throw error
  }
  return nothing()
}

async function disconnect(api: ApiContext, call: Call): Promise<Answer> {
  const asked = call.param('id')
  const cluster = await findClusterNetwork(api, asked)
  const local = cluster
    ? await realisationOf(api, cluster)
    : isWorker(api)
      ? await ownRealisation(api, asked)
      : undefined
  if (!cluster && !local) return passed
  const { Container = '', Force = false } = call.read(disconnectBody).value
  if (!local) {
    throw new UserError('notFound', `container ${Container} is not connected to network ${asked}`)
  }
  const { id, kept } = await containerNamed(api, Container)
  await api.engine.networks.disconnect(local.id, id, { force: Force })
  await api.attachments.release(local.networkId, kept)
  return nothing()
}

interface Realisation {
  /** The engine's id of it. */
  readonly id: string
  readonly networkId: NetworkId
}

async function realisationOf(
  api: ApiContext,
  { id: networkId }: { readonly id: NetworkId },
): Promise<Realisation | undefined> {
  const id = await engineNetworkOf(api, networkId)
  return id === undefined ? undefined : { id, networkId }
}

async function ownRealisation(api: ApiContext, text: string): Promise<Realisation | undefined> {
  const local = await localNetwork(api, text)
  const networkId = local?.Labels?.[realisationLabel]
  return local && networkId !== undefined
    ? { id: local.Id, networkId: idFrom(networkId) }
    : undefined
}

/** The container, however the client names it, and all that its places may be kept under. */
async function containerNamed(
  api: ApiContext,
  container: string,
): Promise<{
  readonly id: string
  readonly names: readonly string[]
  readonly kept: readonly string[]
}> {
  if (container === '') throw new UserError('invalidInput', 'Container must be given')
  const { Id, Name, Config } = await api.engine.containers.inspect(container)
  const name = Name.replace(/^\//, '')
  const label = Config.Labels?.[placeLabel]
  return {
    id: Id,
    names: [
      name,
      ...(Config.Hostname.length > 0 && !Id.startsWith(Config.Hostname) ? [Config.Hostname] : []),
    ],
    kept: [Id, name, ...(label === undefined ? [] : [label])],
  }
}

/** Of the name of a container that has none, in hexadecimal: 48 bits, so that no two share it. */
const drawnDigitsCount = 12

function drawnDigits(random: Random): string {
  let digits = ''
  for (let at = 0; at < drawnDigitsCount; at++) digits += random.below(16).toString(16)
  return digits
}
