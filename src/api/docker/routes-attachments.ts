import { randomBytes } from 'node:crypto'
import { UserError } from '../../base/index.ts'
import type { Network } from '../../model/index.ts'
import { type Answer, type Call, nothing, passed, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { findClusterNetwork, realisationLabel, realisationOf } from './routes-networks.ts'
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
  if (isWorker(api)) {
    for (const name of names) await refuseOnWorker(api, name)
    return passed
  }
  const networks = new Map<string, Network>()
  for (const name of names) {
    const network = await findClusterNetwork(api, name)
    if (network) networks.set(name, network)
  }
  if (networks.size === 0) return passed
  for (const [name, network] of networks) checkAttachable(name, network)

  const url = new URL(call.originalTarget, 'http://localhost')
  const container = url.searchParams.get('name') || `attached-${randomBytes(6).toString('hex')}`
  url.searchParams.set('name', container)
  const reserved: Network[] = []
  const giveBack = async () => {
    for (const { id } of reserved) {
      await api.attachments.release(id, container).catch((error: unknown) => {
        api.log.warn('an address could not be given back', { container, error: String(error) })
      })
    }
  }
  const renamed = new Map<string, string>()
  const attached: Record<string, unknown> = {}
  let nameservers: readonly string[] = []
  let mac: string | undefined
  try {
    for (const [name, network] of networks) {
      const place = await api.attachments.reserve(network.id, container)
      reserved.push(network)
      const wish = objectOf(endpoints[name])
      renamed.set(name, place.engineNetwork)
      attached[place.engineNetwork] = {
        ...wish,
        IPAMConfig: { ...objectOf(wish['IPAMConfig']), IPv4Address: place.address },
        MacAddress: place.mac,
      }
      if (name === mode) mac = place.mac
      if (nameservers.length === 0) nameservers = place.nameservers
    }
  } catch (error) {
    await giveBack()
    throw error
  }
  const rest = Object.entries(endpoints).filter(([name]) => !networks.has(name))
  const rewritten = {
    ...body,
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

function isWorker(api: ApiContext): boolean {
  const { localNodeState, controlAvailable } = api.node.state()
  return localNodeState === 'active' && !controlAvailable
}

/** The engine would choose an address that the cluster may have given to a task. */
async function refuseOnWorker(api: ApiContext, name: string): Promise<void> {
  const local = await api.engine.networks.inspect(name).catch(() => undefined)
  if (local?.Labels?.[realisationLabel] === undefined) return
  throw new UserError(
    'unsupported',
    `network ${name} is the cluster's: a container that is no task can join it on a manager only`,
    { next: 'Run it on a manager, or as a service.' },
  )
}

function checkAttachable(name: string, network: Network): void {
  if (network.spec.attachable) return
  throw new UserError(
    'forbidden',
    `Could not attach to network ${name}: rpc error: code = PermissionDenied desc = network ${network.name} not manually attachable`,
    { next: 'Create the network with --attachable.' },
  )
}

const connectBody = record({ Container: text, EndpointConfig: map(anything) })
const disconnectBody = record({ Container: text, Force: flag })

async function connect(api: ApiContext, call: Call): Promise<Answer> {
  const name = call.param('id')
  if (isWorker(api)) {
    await refuseOnWorker(api, name)
    return passed
  }
  const network = await findClusterNetwork(api, name)
  if (!network) return passed
  checkAttachable(name, network)
  const { Container = '', EndpointConfig = {} } = call.read(connectBody).value
  const container = await nameOf(api, Container)
  const place = await api.attachments.reserve(network.id, container)
  try {
    await api.engine.networks.connect(place.engineNetwork, container, {
      ...EndpointConfig,
      IPAMConfig: { ...objectOf(EndpointConfig['IPAMConfig']), IPv4Address: place.address },
      MacAddress: place.mac,
    })
  } catch (error) {
    await api.attachments.release(network.id, container)
    throw error
  }
  return nothing()
}

async function disconnect(api: ApiContext, call: Call): Promise<Answer> {
  const network = await findClusterNetwork(api, call.param('id'))
  if (!network) return passed
  const { Container = '', Force = false } = call.read(disconnectBody).value
  const container = await nameOf(api, Container)
  const local = await realisationOf(api, network)
  if (local === undefined) {
    throw new UserError(
      'notFound',
      `container ${Container} is not connected to network ${network.name}`,
    )
  }
  await api.engine.networks.disconnect(local, container, { force: Force })
  await api.attachments.release(network.id, container)
  return nothing()
}

/** The name an address is reserved under, whichever way the client names the container. */
async function nameOf(api: ApiContext, container: string): Promise<string> {
  if (container === '') throw new UserError('invalidInput', 'Container must be given')
  const { Name } = await api.engine.containers.inspect(container)
  return Name.replace(/^\//, '')
}
