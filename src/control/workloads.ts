import { UserError } from '../base/index.ts'
import {
  type Config,
  type DeclaredWorkload,
  type Endpoint,
  type EndpointId,
  isJob,
  mintId,
  type PortSpec,
  type Revision,
  type RevisionId,
  type Sealed,
  type Secret,
  type Source,
  type TaskTemplate,
  type UpdateStatus,
  type Workload,
  type WorkloadId,
  withRevision,
} from '../model/index.ts'
import type { Change, View } from '../store/store.ts'
import { stableJson, templateHash, withoutEmpty } from './template-hash.ts'
import { type Changes, type ControlWorld, checkVersion, emptyMeta } from './world.ts'

/** A workload with its endpoint as a person declared it, parsed and lowered from its dialect. */
export interface WorkloadDeclaration extends DeclaredWorkload {
  readonly name: string
  readonly template: TaskTemplate
  readonly source: Source
}

/** Where the credentials for pulling come from. */
export type RegistryAuth =
  /** The header's value as it came. */
  | { readonly from: 'request'; readonly header: string }
  | { readonly from: 'current' }
  | { readonly from: 'previous' }

/** Creates workload, endpoint and first revision in one commit. */
export async function createWorkload(
  world: ControlWorld,
  changes: Changes,
  declaration: WorkloadDeclaration,
  authHeader?: string,
): Promise<Workload> {
  const id: WorkloadId = mintId(world.random)
  const endpointId: EndpointId = mintId(world.random)
  const revisionId: RevisionId = mintId(world.random)
  const auth = sealAuth(world, revisionId, authHeader)
  const { result } = await changes.run((view) => {
    const [taken] = view.byName('workload', declaration.name)
    if (taken) {
      throw new UserError(
        'conflict',
        `name conflicts with an existing object: service ${declaration.name} already exists`,
      )
    }
    checkReferences(view, declaration, undefined)
    const revision = reviseTo(declaration, { id: revisionId, workloadId: id, number: 1, auth })
    const { name, labels, mode, update, rollback, onNodeLoss, source } = declaration
    const workload: Workload = {
      kind: 'workload',
      id,
      ...emptyMeta(name, labels),
      source,
      spec: { mode, update, rollback, onNodeLoss, revisionId, jobIteration: 0 },
      status: isJob(declaration) ? { lastExecutionMs: world.clock.nowMs() } : {},
    }
    const endpoint: Endpoint = {
      kind: 'endpoint',
      id: endpointId,
      ...emptyMeta(name, labels),
      source,
      spec: { ...declaration.endpoint, backends: [{ workloadId: id, weight: 1 }] },
      status: { vips: [], ports: [] },
    }
    return { changes: [workload, endpoint, revision].map(created), result: workload }
  })
  return result
}

export interface WorkloadUpdate {
  readonly id: WorkloadId
  /** `specVersion` of what was read. */
  readonly version: number
  readonly auth: RegistryAuth
}

/**
 * Puts a new declaration in place of the current one. Every accepted one becomes the next revision; an equal one
 * changes nothing, but lets a paused update go on.
 */
export async function updateWorkload(
  world: ControlWorld,
  changes: Changes,
  { id, version, auth }: WorkloadUpdate,
  declare: (view: View, current: Workload) => WorkloadDeclaration,
): Promise<void> {
  const revisionId: RevisionId = mintId(world.random)
  const header = auth.from === 'request' ? auth.header : undefined
  await changes.run((view) => {
    const workload = view.get('workload', id)
    if (!workload) throw new UserError('notFound', `service ${id} not found`)
    checkVersion(workload, version)
    const declaration = declare(view, workload)
    if (declaration.name !== workload.name) {
      throw new UserError('unsupported', 'renaming services is not supported')
    }
    if (declaration.mode.type !== workload.spec.mode.type) {
      throw new UserError('unsupported', 'service mode change is not allowed')
    }
    const current = view.get('revision', workload.spec.revisionId)
    if (current && isSame(current, declaration)) {
      const registryAuth = sealAuth(world, current.id, header)
      return {
        changes: [
          ...resume(workload, world.clock.nowMs()),
          ...(registryAuth ? [updated({ ...current, registryAuth }, false)] : []),
        ],
        result: undefined,
      }
    }
    checkReferences(view, declaration, workload)
    const revision = reviseTo(declaration, {
      id: revisionId,
      workloadId: id,
      number: nextNumber(view, id),
      auth:
        header === undefined
          ? resealAuth(world, revisionId, authSource(view, workload, auth))
          : sealAuth(world, revisionId, header),
    })
    const [endpoint] = view.endpointsOfWorkload(id)
    const turned = withRevision(workload, endpoint, revision)
    const job = isJob(declaration)
    const nowMs = world.clock.nowMs()
    const { update: _former, ...status } = workload.status
    const update = job ? undefined : nextUpdate(workload, current, revision, nowMs)
    return {
      changes: [
        created(revision),
        updated(
          {
            ...turned.workload,
            spec: {
              ...turned.workload.spec,
              previousRevisionId: workload.spec.revisionId,
              jobIteration: workload.spec.jobIteration + (job ? 1 : 0),
            },
            status: {
              ...status,
              ...(update ? { update } : {}),
              ...(job ? { lastExecutionMs: nowMs } : {}),
            },
          },
          true,
        ),
        ...(turned.endpoint && !isSameEndpoint(turned.endpoint, endpoint)
          ? [updated({ ...turned.endpoint, source: revision.source }, true)]
          : []),
      ],
      result: undefined,
    }
  })
}

export interface RollbackRequest {
  readonly id: WorkloadId
  /** `specVersion` of what was read; absent: whatever it is. */
  readonly version?: number
  /** Revision number; absent: the one before the current one. */
  readonly to?: number
}

/** Goes back to an earlier revision, and makes the current one the previous. */
export async function rollbackWorkload(
  world: ControlWorld,
  changes: Changes,
  { id, version, to }: RollbackRequest,
): Promise<Revision> {
  const { result } = await changes.run((view) => {
    const workload = view.get('workload', id)
    if (!workload) throw new UserError('notFound', `service ${id} not found`)
    if (version !== undefined) checkVersion(workload, version)
    const current = view.get('revision', workload.spec.revisionId)
    const revision = targetOf(view, workload, to)
    if (revision.id === workload.spec.revisionId) {
      return { changes: resume(workload, world.clock.nowMs()), result: revision }
    }
    checkReferences(view, declarationOf(workload, revision), workload)
    const [endpoint] = view.endpointsOfWorkload(id)
    const turned = withRevision(workload, endpoint, revision)
    const nowMs = world.clock.nowMs()
    const job = isJob(turned.workload.spec)
    const update: UpdateStatus = {
      state: 'rollbackStarted',
      startedAtMs: nowMs,
      message: 'manually requested rollback',
      revisionId: revision.id,
    }
    return {
      changes: [
        updated(
          {
            ...turned.workload,
            spec: {
              ...turned.workload.spec,
              previousRevisionId: current?.id ?? workload.spec.revisionId,
              jobIteration: workload.spec.jobIteration + (job ? 1 : 0),
            },
            status: {
              ...workload.status,
              ...(job ? { lastExecutionMs: nowMs } : { update }),
            },
          },
          true,
        ),
        ...(turned.endpoint && !isSameEndpoint(turned.endpoint, endpoint)
          ? [updated({ ...turned.endpoint, source: revision.source }, true)]
          : []),
      ],
      result: revision,
    }
  })
  return result
}

/** Removes workload and endpoint at once; its tasks and revisions follow by the loops. */
export async function removeWorkload(changes: Changes, id: WorkloadId): Promise<void> {
  await changes.run((view) => {
    const workload = view.get('workload', id)
    if (!workload) throw new UserError('notFound', `service ${id} not found`)
    return {
      changes: [workload, ...view.endpointsOfWorkload(id)].map(
        (object): Change => ({
          type: 'delete',
          kind: object.kind,
          id: object.id,
          version: object.version,
        }),
      ),
      result: undefined,
    }
  })
}

const created = (object: CreatedObject): Change => ({
  type: 'create',
  object,
})
type CreatedObject = Extract<Change, { type: 'create' }>['object']

function updated(object: CreatedObject, specChanged: boolean): Change {
  return { type: 'update', object, specChanged }
}

function reviseTo(
  declaration: WorkloadDeclaration,
  {
    id,
    workloadId,
    number,
    auth,
  }: {
    readonly id: RevisionId
    readonly workloadId: WorkloadId
    readonly number: number
    readonly auth: Sealed | undefined
  },
): Revision {
  const { name, labels, template, source, mode, update, rollback, onNodeLoss, endpoint } =
    declaration
  return {
    kind: 'revision',
    id,
    ...emptyMeta(name, labels),
    workloadId,
    number,
    templateHash: templateHash(template, endpoint),
    template,
    source,
    declared: { labels, mode, update, rollback, onNodeLoss, endpoint },
    ...(auth ? { registryAuth: auth } : {}),
  }
}

function declarationOf(workload: Workload, revision: Revision): WorkloadDeclaration {
  const { labels, spec } = workload
  const endpoint = { mode: 'vip', networks: [], ports: [] } as const
  return {
    ...(revision.declared ?? { labels, ...spec, endpoint }),
    name: workload.name,
    template: revision.template,
    source: revision.source,
  }
}

/** Whether the declaration is what the revision already says. */
function isSame(revision: Revision, declaration: WorkloadDeclaration): boolean {
  const { declared, template, source } = revision
  const { name: _name, template: newTemplate, source: newSource, ...rest } = declaration
  return (
    stableJson([declared, template]) === stableJson([rest, newTemplate]) &&
    stableJson(withoutEmpty(source.document)) === stableJson(withoutEmpty(newSource.document))
  )
}

function isSameEndpoint(a: Endpoint, b: Endpoint | undefined): boolean {
  return b !== undefined && stableJson(a.spec) === stableJson(b.spec)
}

function nextNumber(view: View, id: WorkloadId): number {
  let highest = 0
  for (const { number } of view.revisionsOfWorkload(id)) highest = Math.max(highest, number)
  return highest + 1
}

/** What a new declaration makes of the update status: nothing when no running task gets out of date by it. */
function nextUpdate(
  workload: Workload,
  current: Revision | undefined,
  next: Revision,
  nowMs: number,
): UpdateStatus | undefined {
  const state = workload.status.update?.state
  const wasUnfinished =
    state !== undefined && state !== 'completed' && state !== 'rollbackCompleted'
  const isStale =
    current?.templateHash !== next.templateHash ||
    stableJson(current.template.placement) !== stableJson(next.template.placement)
  if (!isStale && !wasUnfinished) return undefined
  return {
    state: 'updating',
    startedAtMs: nowMs,
    message: 'update in progress',
    revisionId: next.id,
  }
}

/** A paused update goes on when its declaration is sent again. */
function resume(workload: Workload, nowMs: number): readonly Change[] {
  const { update } = workload.status
  if (update?.state !== 'paused' && update?.state !== 'rollbackPaused') return []
  const isRollback = update.state === 'rollbackPaused'
  const status: UpdateStatus = {
    state: isRollback ? 'rollbackStarted' : 'updating',
    startedAtMs: nowMs,
    message: isRollback ? 'rollback in progress' : 'update in progress',
    revisionId: update.revisionId,
  }
  return [updated({ ...workload, status: { ...workload.status, update: status } }, false)]
}

function targetOf(view: View, workload: Workload, to: number | undefined): Revision {
  if (to !== undefined) {
    const revisions = view.revisionsOfWorkload(workload.id)
    const revision = revisions.find(({ number }) => number === to)
    if (revision) return revision
    const known = revisions.map(({ number }) => number).sort((a, b) => a - b)
    throw new UserError('notFound', `service ${workload.name} has no revision ${to}`, {
      next: `It has ${known.join(', ')}.`,
    })
  }
  const previous =
    workload.spec.previousRevisionId && view.get('revision', workload.spec.previousRevisionId)
  if (!previous) {
    throw new UserError(
      'failedPrecondition',
      `service ${workload.id} does not have a previous spec`,
    )
  }
  return previous
}

function sealAuth(
  world: ControlWorld,
  revisionId: RevisionId,
  header: string | undefined,
): Sealed | undefined {
  if (header === undefined) return undefined
  return world.sealer.seal(new TextEncoder().encode(header), revisionId)
}

/** The holder's credentials for another revision: they open only in the name of the one they were sealed for. */
function resealAuth(
  { sealer }: ControlWorld,
  revisionId: RevisionId,
  holder: Revision | undefined,
): Sealed | undefined {
  if (!holder?.registryAuth) return undefined
  return sealer.seal(sealer.unseal(holder.registryAuth, holder.id), revisionId)
}

/** The revision whose credentials an update without any of its own keeps. */
function authSource(view: View, workload: Workload, auth: RegistryAuth): Revision | undefined {
  if (auth.from !== 'previous') return view.get('revision', workload.spec.revisionId)
  const { previousRevisionId } = workload.spec
  const previous = previousRevisionId && view.get('revision', previousRevisionId)
  // The Engine answers this with 500.
  if (!previous) throw new UserError('internal', 'service does not have a previous spec')
  return previous
}

function checkReferences(
  view: View,
  declaration: WorkloadDeclaration,
  self: Workload | undefined,
): void {
  for (const container of declaration.template.containers) {
    for (const { id, name } of container.secrets) {
      const secret: Secret | undefined = view.get('secret', id)
      if (secret?.name !== name) throw new UserError('invalidInput', `secret not found: ${name}`)
    }
    for (const { id, name } of container.configs) {
      const config: Config | undefined = view.get('config', id)
      if (config?.name !== name) throw new UserError('invalidInput', `config not found: ${name}`)
    }
  }
  for (const { networkId } of declaration.template.networks) {
    const network = view.get('network', networkId)
    if (!network) throw new UserError('notFound', `network ${networkId} not found`)
    if (network.spec.ingress) {
      throw new UserError(
        'invalidInput',
        'Service cannot be explicitly attached to the ingress network "ingress"',
      )
    }
  }
  checkPorts(view, declaration.endpoint.ports, self)
}

function checkPorts(view: View, ports: readonly PortSpec[], self: Workload | undefined): void {
  const wanted = ports.filter(({ publishedPort }) => publishedPort !== 0)
  if (ports.some(({ publishMode }) => publishMode === 'ingress') && !ingressOf(view)) {
    throw new UserError(
      'failedPrecondition',
      'service needs ingress network, but no ingress network is present',
      { next: 'Create one with `docker network create --ingress --driver overlay ingress`.' },
    )
  }
  if (wanted.length === 0) return
  for (const endpoint of view.list('endpoint')) {
    const owner = endpoint.spec.backends[0]?.workloadId
    if (owner === self?.id && self) continue
    for (const held of [...endpoint.spec.ports, ...endpoint.status.ports]) {
      if (held.publishedPort === 0) continue
      const clash = wanted.find(
        (port) =>
          port.protocol === held.protocol &&
          port.publishedPort === held.publishedPort &&
          !(port.publishMode === 'host' && held.publishMode === 'host'),
      )
      if (!clash) continue
      const how = held.publishMode === 'host' ? 'a host-published port' : 'an ingress port'
      throw new UserError(
        'invalidInput',
        `port '${clash.publishedPort}' is already in use by service '${endpoint.name}' (${owner ?? endpoint.id}) as ${how}`,
      )
    }
  }
}

function ingressOf(view: View): boolean {
  for (const network of view.list('network')) if (network.spec.ingress) return true
  return false
}
