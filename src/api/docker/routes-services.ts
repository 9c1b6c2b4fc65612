import { UserError } from '../../base/index.ts'
import { findObject, lookUp, type RegistryAuth } from '../../control/index.ts'
import type { Network, Workload } from '../../model/index.ts'
import type { View } from '../../store/store.ts'
import { type Call, json, nothing, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { type ServiceSpecDocument, serviceSpec } from './documents.ts'
import { downgradeService } from './downgrade.ts'
import { DockerError } from './errors.ts'
import type { Filters } from './filters.ts'
import { streamLogs } from './logs.ts'
import { type Lowering, lowerService, normaliseService, warningsOf } from './lower-service.ts'
import { madeUpName } from './names.ts'
import { isService, nodesUp, raiseService } from './raise-service.ts'

const filterKeys = ['id', 'label', 'mode', 'name', 'runtime'] as const

/** What `X-Registry-Auth` says when nobody is logged in: `{}`. */
const noAuth = new Set(['e30=', 'e30'])

export function serviceRoutes(api: ApiContext): readonly Route[] {
  return [
    { method: 'GET', path: '/services', handle: (call) => listServices(api, call) },
    {
      method: 'GET',
      path: '/services/:id',
      handle(call) {
        const { view } = api.requireControl().store
        const workload = findService(view, call.param('id'))
        const insertDefaults = call.strictFlag('insertDefaults')
        return json(raiseService(view, workload, { insertDefaults }))
      },
    },
    { method: 'POST', path: '/services/create', handle: (call) => createService(api, call) },
    { method: 'POST', path: '/services/:id/update', handle: (call) => updateService(api, call) },
    {
      method: 'DELETE',
      path: '/services/:id',
      async handle(call) {
        const control = api.requireControl()
        await control.removeWorkload(findService(control.store.view, call.param('id')).id)
        return nothing()
      },
    },
    {
      method: 'GET',
      path: '/services/:id/logs',
      handle(call) {
        const { store } = api.requireControl()
        const workload = findService(store.view, call.param('id'))
        return streamLogs(api, call, store, workload, (view) => view.tasksOfWorkload(workload.id))
      },
    },
  ]
}

export function findService(view: View, text: string): Workload {
  const workload = findObject(view, 'workload', text)
  if (!isService(workload)) throw new UserError('notFound', `service ${text} not found`)
  return workload
}

function listServices(api: ApiContext, call: Call) {
  const { view } = api.requireControl().store
  const filters = call.filters(filterKeys)
  const status = call.strictFlag('status') ? nodesUp(view) : undefined
  const reading = { insertDefaults: false, status }
  const found: object[] = []
  for (const workload of view.list('workload')) {
    if (isService(workload) && isListed(workload, filters)) {
      found.push(raiseService(view, workload, reading))
    }
  }
  return json(found)
}

const modeWords = {
  replicated: 'replicated',
  global: 'global',
  replicatedJob: 'replicated-job',
  globalJob: 'global-job',
} as const satisfies Record<Workload['spec']['mode']['type'], string>

function isListed(workload: Workload, filters: Filters): boolean {
  return (
    filters.startsWith('id', workload.id) &&
    filters.startsWith('name', workload.name) &&
    filters.labels('label', workload.labels) &&
    filters.equals('mode', modeWords[workload.spec.mode.type]) &&
    filters.equals('runtime', 'container')
  )
}

async function createService(api: ApiContext, call: Call) {
  const control = api.requireControl()
  const { document, warnings } = await readSpec(api, call)
  const { view } = control.store
  const lowering = loweringOf(api, view)
  const isTaken = (name: string) => view.byName('workload', name).length > 0
  const named = document.Name ? document : { ...document, Name: madeUpName(api.random, isTaken) }
  const normal = normaliseService(named, lowering.findNetwork)
  const declaration = lowerService(normal, lowering)
  const workload = await control.createWorkload(declaration, authHeader(call))
  const all = [...warnings, ...warningsOf(declaration)]
  return json({ ID: workload.id, Warnings: all.length > 0 ? all : null }, 201)
}

async function updateService(api: ApiContext, call: Call) {
  const control = api.requireControl()
  const version = call.objectVersion('service')
  const workload = findService(control.store.view, call.param('id'))
  const rollback = call.query('rollback') ?? ''
  if (rollback !== '' && rollback !== 'previous') {
    throw new DockerError(500, `unrecognized rollback option ${rollback}`)
  }
  if (rollback === 'previous') {
    await control.rollbackWorkload({ id: workload.id, version })
    return json({ Warnings: null })
  }
  const { document, warnings } = await readSpec(api, call)
  const auth = registryAuth(call)
  let notes: readonly string[] = []
  await control.updateWorkload({ id: workload.id, version, auth }, (view) => {
    const lowering = loweringOf(api, view)
    const declaration = lowerService(normaliseService(document, lowering.findNetwork), lowering)
    notes = warningsOf(declaration)
    return declaration
  })
  const all = [...warnings, ...notes]
  return json({ Warnings: all.length > 0 ? all : null })
}

/** The body as this client could mean it, with what it holds in vain. */
async function readSpec(
  api: ApiContext,
  call: Call,
): Promise<{ readonly document: ServiceSpecDocument; readonly warnings: readonly string[] }> {
  const { value, unknown } = call.read(serviceSpec)
  const { document, dropped } = downgradeService(value, call.version)
  const { Mode } = document
  const { ReplicatedJob, GlobalJob } = value.Mode
  if ((ReplicatedJob && !Mode.ReplicatedJob) || (GlobalJob && !Mode.GlobalJob)) {
    throw new UserError('invalidInput', 'Unrecognized service mode', {
      next: 'Jobs need API version 1.41.',
    })
  }
  await checkNetworks(api, document)
  return {
    document,
    warnings: [
      ...unknown.map((path) => `unknown field ${path} was ignored`),
      ...dropped.map((field) => `${field}: ignored, the client speaks ${call.version}`),
    ],
  }
}

/** Says of a network that is no cluster network whether it is the engine's own. */
async function checkNetworks(api: ApiContext, document: ServiceSpecDocument): Promise<void> {
  const { findNetwork } = loweringOf(api, api.requireControl().store.view)
  const attachments = [...(document.TaskTemplate.Networks ?? []), ...(document.Networks ?? [])]
  for (const { Target = '' } of attachments) {
    if (findNetwork(Target)) continue
    const local = Target && (await api.engine.networks.inspect(Target).catch(() => undefined))
    if (!local) throw new UserError('notFound', `network ${Target} not found`)
    throw new UserError(
      'forbidden',
      `The network ${Target} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.`,
    )
  }
}

function loweringOf(api: ApiContext, view: View): Lowering {
  return {
    checkTemplate: api.checkTemplate,
    findNetwork(target): Network | undefined {
      const found = lookUp(view, 'network', target)
      if (found.length > 1) {
        throw new UserError(
          'ambiguous',
          `network ${target} is ambiguous (${found.length} matches found)`,
        )
      }
      return found[0]
    },
  }
}

function authHeader(call: Call): string | undefined {
  const header = call.header('x-registry-auth')
  return header === undefined || noAuth.has(header) ? undefined : header
}

function registryAuth(call: Call): RegistryAuth {
  const header = authHeader(call)
  if (header !== undefined) return { from: 'request', header }
  const from = call.query('registryAuthFrom') ?? ''
  if (from === '' || from === 'spec') return { from: 'current' }
  if (from === 'previous-spec') return { from: 'previous' }
  throw new UserError('invalidInput', `unsupported registryAuthFrom "${from}"`, {
    next: 'Use spec or previous-spec.',
  })
}
