import { UserError } from '../base/index.ts'
import {
  type Config,
  type ConfigId,
  mintId,
  type Secret,
  type SecretId,
  type Source,
  type Workload,
} from '../model/index.ts'
import type { View } from '../store/store.ts'
import { type Changes, type ControlWorld, checkVersion, emptyMeta } from './world.ts'

export interface SecretDeclaration {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly templating?: string
  readonly driver?: string
  /** Without the data. */
  readonly source: Source
  readonly data: Uint8Array
}
export type ConfigDeclaration = Omit<SecretDeclaration, 'driver'>

export async function createSecret(
  world: ControlWorld,
  changes: Changes,
  declaration: SecretDeclaration,
): Promise<Secret> {
  const id: SecretId = mintId(world.random)
  const { name, labels, templating, driver, source } = declaration
  const secret: Secret = {
    kind: 'secret',
    id,
    ...emptyMeta(name, labels),
    source,
    spec: { ...(templating ? { templating } : {}), ...(driver ? { driver } : {}) },
    data: world.sealer.seal(declaration.data, id),
  }
  return create(changes, secret)
}

export async function createConfig(
  world: ControlWorld,
  changes: Changes,
  declaration: ConfigDeclaration,
): Promise<Config> {
  const id: ConfigId = mintId(world.random)
  const { name, labels, templating, source, data } = declaration
  const config: Config = {
    kind: 'config',
    id,
    ...emptyMeta(name, labels),
    source,
    spec: templating ? { templating } : {},
    data: Buffer.from(data).toString('base64'),
  }
  return create(changes, config)
}

async function create<T extends Secret | Config>(changes: Changes, object: T): Promise<T> {
  const { result } = await changes.run((view) => {
    if (view.byName(object.kind, object.name).length > 0) {
      throw new UserError('conflict', `${object.kind} ${object.name} already exists`)
    }
    return { changes: [{ type: 'create', object }], result: object }
  })
  return result
}

export interface Relabelling {
  readonly labels: Readonly<Record<string, string>>
  /** The declaration with the new labels. */
  readonly source: Source
  /** Whether the declaration, labels and data apart, is the stored one. */
  readonly isOtherwiseEqual: (object: Secret | Config) => boolean
  /** Must be the stored bytes, when given. */
  readonly data?: Uint8Array
}

/** Gives a secret or config other labels, the only thing about it that may change. */
export async function relabel(
  world: ControlWorld,
  changes: Changes,
  kind: 'secret' | 'config',
  id: string,
  version: number,
  { labels, source, isOtherwiseEqual, data }: Relabelling,
): Promise<void> {
  await changes.run((view) => {
    const object = view.get(kind, id)
    if (!object) throw new UserError('notFound', `${kind} ${id} not found`)
    checkVersion(object, version)
    if (!isOtherwiseEqual(object) || (data && !isStored(world, object, data))) {
      throw new UserError('invalidInput', 'only updates to Labels are allowed', {
        next: `Make a new ${kind} under another name and point the services to it.`,
      })
    }
    const isSame = JSON.stringify(sorted(object.labels)) === JSON.stringify(sorted(labels))
    if (isSame) return { changes: [], result: undefined }
    const next = { ...object, labels, source }
    return { changes: [{ type: 'update', object: next, specChanged: true }], result: undefined }
  })
}

/** Whether these bytes are what a secret or config holds. */
export function isStored(
  world: Pick<ControlWorld, 'sealer'>,
  object: Secret | Config,
  data: Uint8Array,
): boolean {
  const stored =
    object.kind === 'secret'
      ? world.sealer.unseal(object.data, object.id)
      : Buffer.from(object.data, 'base64')
  return Buffer.compare(stored, data) === 0
}

function sorted(labels: Readonly<Record<string, string>>) {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))
}

export async function removeSecretOrConfig(
  changes: Changes,
  kind: 'secret' | 'config',
  id: string,
): Promise<void> {
  await changes.run((view) => {
    const object = view.get(kind, id)
    if (!object) throw new UserError('notFound', `${kind} ${id} not found`)
    const users = usersOf(view, kind, id).map(({ name }) => name)
    if (users.length > 0) {
      const services = users.length === 1 ? 'service' : 'services'
      throw new UserError(
        'inUse',
        `${kind} '${object.name}' is in use by the following ${services}: ${users.join(', ')}`,
      )
    }
    return {
      changes: [{ type: 'delete', kind, id, version: object.version }],
      result: undefined,
    }
  })
}

/** Workloads whose wanted template refers to the secret or config. */
function usersOf(view: View, kind: 'secret' | 'config', id: string): readonly Workload[] {
  const users: Workload[] = []
  for (const workload of view.list('workload')) {
    const template = view.get('revision', workload.spec.revisionId)?.template
    const isUser = template?.containers.some((container) =>
      (kind === 'secret' ? container.secrets : container.configs).some((file) => file.id === id),
    )
    if (isUser) users.push(workload)
  }
  return users
}
