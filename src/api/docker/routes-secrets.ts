import { UserError } from '../../base/index.ts'
import { findObject, type SecretDeclaration } from '../../control/index.ts'
import type { Config, Secret } from '../../model/index.ts'
import { type Call, json, nothing, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import { configSpec, type SecretSpecDocument, secretSpec } from './documents.ts'
import type { Filters } from './filters.ts'
import { checkFileName } from './names.ts'
import { documentOf, raiseConfig, raiseSecret } from './raise.ts'

type Kind = 'secret' | 'config'
const filterKeys = {
  secret: ['id', 'label', 'name', 'names'],
  config: ['id', 'label', 'name'],
} as const
/** The data must be shorter than this, in bytes. */
const dataBytesMax = { secret: 512_000, config: 1_024_000 } as const

export function secretRoutes(api: ApiContext): readonly Route[] {
  return [...routesOf(api, 'secret'), ...routesOf(api, 'config')]
}

function routesOf(api: ApiContext, kind: Kind): readonly Route[] {
  const raise = (object: Secret | Config) =>
    object.kind === 'secret' ? raiseSecret(object) : raiseConfig(object)
  return [
    {
      method: 'GET',
      path: `/${kind}s`,
      handle(call) {
        const { view } = api.requireControl().store
        const filters = call.filters(filterKeys[kind])
        const found: object[] = []
        for (const object of view.list(kind))
          if (isListed(object, filters)) found.push(raise(object))
        return json(found)
      },
    },
    {
      method: 'GET',
      path: `/${kind}s/:id`,
      handle(call) {
        const { view } = api.requireControl().store
        return json(raise(findObject(view, kind, call.param('id'))))
      },
    },
    {
      method: 'POST',
      path: `/${kind}s/create`,
      async handle(call) {
        const control = api.requireControl()
        const declaration = lower(api, kind, readSpec(kind, call))
        const object =
          kind === 'secret'
            ? await control.createSecret(declaration)
            : await control.createConfig(declaration)
        return json({ ID: object.id }, 201)
      },
    },
    {
      method: 'POST',
      path: `/${kind}s/:id/update`,
      async handle(call) {
        const control = api.requireControl()
        const version = call.objectVersion(kind)
        const { id } = findObject(control.store.view, kind, call.param('id'))
        const spec = readSpec(kind, call)
        await control.relabel(kind, id, version, {
          labels: spec.Labels,
          source: { dialect: 'docker', document: withoutData(spec) },
          isOtherwiseEqual: (object) => isOtherwiseEqual(object, spec),
          ...(spec.Data === undefined ? {} : { data: Buffer.from(spec.Data, 'base64') }),
        })
        return nothing()
      },
    },
    {
      method: 'DELETE',
      path: `/${kind}s/:id`,
      async handle(call) {
        const control = api.requireControl()
        const { id } = findObject(control.store.view, kind, call.param('id'))
        if (kind === 'secret') await control.removeSecret(id)
        else await control.removeConfig(id)
        return nothing(204)
      },
    },
  ]
}

function readSpec(kind: Kind, call: Call): SecretSpecDocument {
  return call.read(kind === 'secret' ? secretSpec : configSpec).value
}

function isListed(object: Secret | Config, filters: Filters): boolean {
  return (
    filters.startsWith('id', object.id) &&
    filters.startsWith('name', object.name) &&
    filters.equals('names', object.name) &&
    filters.labels('label', object.labels)
  )
}

function lower(api: ApiContext, kind: Kind, spec: SecretSpecDocument): SecretDeclaration {
  const name = checkFileName(spec.Name)
  if (spec.Driver?.Name) {
    throw new UserError('unsupported', `secret driver "${spec.Driver.Name}" is not supported`, {
      next: 'Leave --driver out: the cluster keeps the secret itself, encrypted.',
    })
  }
  const templating = spec.Templating?.Name
  if (templating !== undefined && templating !== 'golang') {
    throw new UserError('invalidInput', `templating driver "${templating}" is not known`, {
      next: 'Use golang.',
    })
  }
  const data = Buffer.from(spec.Data ?? '', 'base64')
  const max = dataBytesMax[kind]
  if (data.length === 0 || data.length >= max) {
    throw new UserError(
      'invalidInput',
      `${kind} data must be larger than 0 and less than ${max} bytes`,
    )
  }
  if (templating) checkPayload(api, kind, data)
  return {
    name,
    labels: spec.Labels,
    ...(templating ? { templating } : {}),
    source: { dialect: 'docker', document: withoutData(spec) },
    data,
  }
}

function checkPayload(api: ApiContext, kind: Kind, data: Buffer): void {
  try {
    api.checkTemplate(data.toString('utf8'), 'payload')
  } catch (error) {
    if (kind === 'config') throw error
    // The reason may quote the template, and a secret's data never comes back.
    throw new UserError('invalidInput', 'the secret data is not a template that can be filled in')
  }
}

function withoutData({ Data: _data, ...rest }: SecretSpecDocument): object {
  return rest
}

function isOtherwiseEqual(object: Secret | Config, spec: SecretSpecDocument): boolean {
  if (spec.Name !== undefined && spec.Name !== object.name) return false
  const before: { readonly Templating?: unknown; readonly Driver?: unknown } = documentOf(
    object.source,
  )
  return (
    JSON.stringify(before.Templating) === JSON.stringify(spec.Templating) &&
    JSON.stringify(before.Driver) === JSON.stringify(spec.Driver)
  )
}
