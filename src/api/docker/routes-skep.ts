import { pipeline } from 'node:stream/promises'
import { messageOf, UserError } from '../../base/index.ts'
import { findObject, lookUp, type TokenSummary } from '../../control/index.ts'
import { type Move, observeDrain, planRebalance } from '../../orchestrator/index.ts'
import type { View } from '../../store/store.ts'
import { type Answer, type Call, json, nothing, type Route } from './call.ts'
import { type ApiContext, commonHeaders } from './context.ts'
import { backupRequest, secretData, tokenWish } from './documents.ts'
import { time } from './raise.ts'
import { isService } from './raise-service.ts'
import { findService } from './routes-services.ts'

/** What Docker's API has no words for. */
export function skepRoutes(api: ApiContext): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/skep/v1/version',
      async handle() {
        const { apiVersion } = await api.identity()
        return json({ Version: api.skepVersion, EngineApiVersion: apiVersion })
      },
    },
    {
      method: 'GET',
      path: '/skep/v1/explain/:id',
      handle(call) {
        const { view } = api.requireControl().store
        const text = call.param('id')
        const workloads = lookUp(view, 'workload', text).filter(isService)
        const tasks = workloads.length > 0 ? [] : lookUp(view, 'task', taskIdIn(text))
        const count = workloads.length + tasks.length
        if (count > 1) {
          throw new UserError('ambiguous', `${text} is ambiguous (${count} matches found)`)
        }
        const [workload] = workloads
        const [task] = tasks
        const explanation = workload
          ? api.explain.workload(view, workload.id)
          : task && api.explain.task(view, task.id)
        if (explanation !== undefined) return json(explanation)
        throw new UserError('notFound', `service or task ${text} not found`, {
          next: 'List them with `docker service ls` and `docker service ps <service>`.',
        })
      },
    },
    {
      method: 'GET',
      path: '/skep/v1/nodes/:id/drain',
      handle(call) {
        const { view } = api.requireControl().store
        const node = findObject(view, 'node', call.param('id'))
        const left = observeDrain(view, node.id, api.clock.nowMs())
        return json({
          Availability: node.spec.availability,
          Tasks: left.map(({ taskId, name, state, how, because }) => ({
            ID: taskId,
            Name: name,
            State: state,
            How: how,
            Because: because,
          })),
        })
      },
    },
    {
      method: 'GET',
      path: '/skep/v1/rebalance',
      handle(call) {
        const { view } = api.requireControl().store
        const everything = call.strictFlag('all')
        const { moves, skipped } = planRebalance(view, api.clock.nowMs(), {
          everything,
          atOnce: everything,
        })
        return json({
          Moves: moves.map((move) => raiseMove(view, move)),
          Skipped: skipped.map(({ name, because }) => ({ Service: name, Because: because })),
        })
      },
    },
    {
      method: 'POST',
      path: '/skep/v1/rebalance',
      async handle() {
        const control = api.requireControl()
        const { moves, underWay } = await control.rebalance()
        const { view } = control.store
        return json({ Moves: moves.map((move) => raiseMove(view, move)), UnderWay: underWay })
      },
    },
    {
      method: 'POST',
      path: '/skep/v1/secrets/:id/compare',
      handle(call) {
        const control = api.requireControl()
        const { id } = findObject(control.store.view, 'secret', call.param('id'))
        const { Data = '' } = call.read(secretData).value
        return json({ Same: control.isSecretData(id, Buffer.from(Data, 'base64')) })
      },
    },
    {
      method: 'POST',
      path: '/skep/v1/tokens',
      async handle(call) {
        api.requireControl()
        const { Role, Labels, LifeSeconds, UsesMax } = call.read(tokenWish).value
        if (Role !== 'worker' && Role !== 'manager') {
          throw new UserError('invalidInput', `"${Role ?? ''}" is no role of a node`, {
            next: 'Use worker or manager.',
          })
        }
        const { token, ...summary } = await api.node.createToken({
          role: Role,
          labels: Labels,
          ...(LifeSeconds ? { lifeMs: LifeSeconds * 1000 } : {}),
          ...(UsesMax ? { usesMax: UsesMax } : {}),
        })
        return json({ ...raiseToken(summary), Token: token }, 201)
      },
    },
    {
      method: 'GET',
      path: '/skep/v1/tokens',
      async handle() {
        api.requireControl()
        return json((await api.node.listTokens()).map(raiseToken))
      },
    },
    {
      method: 'DELETE',
      path: '/skep/v1/tokens/:id',
      async handle(call) {
        api.requireControl()
        await api.node.removeToken(call.param('id'))
        return nothing()
      },
    },
    {
      method: 'GET',
      path: '/skep/v1/networks/doctor',
      async handle(call) {
        api.requireControl()
        const network = call.query('network')
        const { nodes, findings, pathsTested } = await api.examineNetworks(
          {
            nodes: (call.query('nodes') ?? '').split(',').filter((text) => text !== ''),
            ...(network ? { network } : {}),
          },
          call.gone,
        )
        return json({
          Nodes: nodes.map(({ id, name, driftCount, mtuBytes, clockAheadMs }) => ({
            ID: id,
            Name: name,
            DriftRepaired: driftCount,
            ...(mtuBytes === undefined ? {} : { MTU: mtuBytes }),
            ClockAheadMs: clockAheadMs,
          })),
          Findings: findings.map(({ node, network: about, what, next }) => ({
            Node: node,
            ...(about === undefined ? {} : { Network: about }),
            What: what,
            Next: next,
          })),
          PathsTested: pathsTested,
        })
      },
    },
    { method: 'POST', path: '/skep/v1/backup', handle: (call) => sendBackup(api, call) },
    {
      method: 'GET',
      path: '/skep/v1/services/:id/revisions',
      handle(call) {
        const { view } = api.requireControl().store
        const { id, spec } = findService(view, call.param('id'))
        const revisions = [...view.revisionsOfWorkload(id)].sort((a, b) => a.number - b.number)
        return json(
          revisions.map((revision) => ({
            Number: revision.number,
            ID: revision.id,
            CreatedAt: time(revision.createdAtMs),
            Image: revision.template.containers[0]?.image ?? '',
            TemplateHash: revision.templateHash,
            Current: revision.id === spec.revisionId,
            Previous: revision.id === spec.previousRevisionId,
            ...(revision.healthyAtMs === undefined
              ? {}
              : { HealthyAt: time(revision.healthyAtMs) }),
          })),
        )
      },
    },
    {
      method: 'POST',
      path: '/skep/v1/services/:id/rollback',
      async handle(call) {
        const control = api.requireControl()
        const { id } = findService(control.store.view, call.param('id'))
        const to = call.query('to')
        if (to !== undefined && !/^[1-9]\d{0,8}$/.test(to)) {
          throw new UserError('invalidInput', `"${to}" is not a revision number`, {
            next: 'List the revisions with GET /skep/v1/services/<service>/revisions.',
          })
        }
        const revision = await control.rollbackWorkload({
          id,
          ...(to === undefined ? {} : { to: Number(to) }),
        })
        return json({ Number: revision.number })
      },
    },
  ]
}

/** The backup as it is made. What is refused is refused before the first byte; later errors break the connection. */
async function sendBackup(api: ApiContext, call: Call): Promise<Answer> {
  api.requireControl()
  if (!api.backup) throw new UserError('unsupported', 'this daemon makes no backups')
  const { Passphrase = '' } = call.read(backupRequest).value
  const pieces = api.backup(Passphrase)[Symbol.asyncIterator]()
  const first = await pieces.next()
  const headers = commonHeaders(await api.identity())
  const { response } = call.stream()
  response.writeHead(200, { ...headers, 'Content-Type': 'application/octet-stream' })
  const body = async function* () {
    if (!first.done) yield first.value
    for (let piece = await pieces.next(); !piece.done; piece = await pieces.next())
      yield piece.value
  }
  await pipeline(body, response).catch((error: unknown) =>
    api.log.warn('a backup was not sent whole', { error: messageOf(error) }),
  )
  return { type: 'streamed' }
}

function raiseMove(view: View, { taskId, name, from, to, because }: Move): object {
  const nameOf = (id: string) => view.get('node', id)?.name ?? id
  return { TaskID: taskId, Name: name, From: nameOf(from), To: nameOf(to), Because: because }
}

/** A task may be named whole, as `docker ps` shows it: `web.1.<id>`. */
function taskIdIn(text: string): string {
  return text.slice(text.lastIndexOf('.') + 1)
}

function raiseToken({ id, role, labels, createdAtMs, expiresAtMs, usesLeft }: TokenSummary) {
  return {
    ID: id,
    Role: role,
    Labels: labels,
    CreatedAt: time(createdAtMs),
    ...(expiresAtMs === undefined ? {} : { ExpiresAt: time(expiresAtMs) }),
    ...(usesLeft === undefined ? {} : { UsesLeft: usesLeft }),
  }
}
