import { UserError } from '../../base/index.ts'
import { findObject, type NodeDeclaration } from '../../control/index.ts'
import type { ClusterNode } from '../../model/index.ts'
import { json, nothing, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { type NodeSpecDocument, nodeSpec } from './documents.ts'
import { DockerError } from './errors.ts'
import type { Filters } from './filters.ts'
import { raiseNode } from './raise.ts'

const filterKeys = ['id', 'label', 'node.label', 'membership', 'name', 'role'] as const

export function nodeRoutes(api: ApiContext): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/nodes',
      handle(call) {
        const { view } = api.requireControl().store
        const filters = call.filters(filterKeys)
        checkValues(filters, 'role', ['manager', 'worker'])
        checkValues(filters, 'membership', ['accepted', 'pending'])
        const found = [...view.list('node')].filter((node) => isListed(node, filters))
        return json(found.map(raiseNode))
      },
    },
    {
      method: 'GET',
      path: '/nodes/:id',
      handle(call) {
        const { view } = api.requireControl().store
        return json(raiseNode(findObject(view, 'node', call.param('id'))))
      },
    },
    {
      method: 'POST',
      path: '/nodes/:id/update',
      async handle(call) {
        const control = api.requireControl()
        const version = call.objectVersion('node')
        const { id } = findObject(control.store.view, 'node', call.param('id'))
        await control.updateNode(id, version, lowerNode(call.read(nodeSpec).value))
        return nothing()
      },
    },
    {
      method: 'DELETE',
      path: '/nodes/:id',
      async handle(call) {
        const control = api.requireControl()
        const { id } = findObject(control.store.view, 'node', call.param('id'))
        await control.removeNode(id, call.flag('force'))
        return nothing()
      },
    },
  ]
}

function checkValues(filters: Filters, key: string, allowed: readonly string[]): void {
  for (const value of filters.get(key)) {
    if (!allowed.includes(value)) throw new DockerError(500, `Invalid ${key} filter: '${value}'`)
  }
}

function isListed(node: ClusterNode, filters: Filters): boolean {
  return (
    filters.startsWith('id', node.id) &&
    (filters.startsWith('name', node.description.hostname) ||
      filters.startsWith('name', node.spec.name ?? '')) &&
    filters.equals('role', node.spec.role) &&
    filters.equals('membership', 'accepted') &&
    filters.labels('label', node.description.engine.labels) &&
    filters.labels('node.label', node.labels)
  )
}

function lowerNode(document: NodeSpecDocument): NodeDeclaration {
  const { Name, Labels, Role, Availability } = document
  if (Role !== 'manager' && Role !== 'worker') {
    throw new UserError('invalidInput', `invalid Role: "${Role ?? ''}"`, {
      next: 'Use worker or manager.',
    })
  }
  if (Availability !== 'active' && Availability !== 'pause' && Availability !== 'drain') {
    throw new UserError('invalidInput', `invalid Availability: "${Availability ?? ''}"`, {
      next: 'Use active, pause or drain.',
    })
  }
  return {
    ...(Name ? { name: Name } : {}),
    labels: Labels,
    role: Role,
    availability: Availability,
    source: { dialect: 'docker', document },
  }
}
