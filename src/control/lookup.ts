import { UserError } from '../base/index.ts'
import type { Kind, ObjectByKind } from '../model/index.ts'
import type { View } from '../store/store.ts'

/** Words people know the kinds by. */
const wordOf: Partial<Record<Kind, string>> = { workload: 'service', cluster: 'swarm' }

/**
 * The object a person means: by whole id, then by whole name, then by the beginning of its id. Throws `notFound` or
 * `ambiguous`.
 */
export function findObject<K extends Kind>(view: View, kind: K, text: string): ObjectByKind[K] {
  const found = lookUp(view, kind, text)
  const word = wordOf[kind] ?? kind
  if (found.length > 1) {
    throw new UserError('ambiguous', `${word} ${text} is ambiguous (${found.length} matches found)`)
  }
  const [object] = found
  if (!object) throw new UserError('notFound', `${word} ${text} not found`)
  return object
}

/** Everything that `text` may mean. */
export function lookUp<K extends Kind>(
  view: View,
  kind: K,
  text: string,
): readonly ObjectByKind[K][] {
  if (text === '') return []
  const exact = view.get(kind, text)
  if (exact) return [exact]
  if (kind !== 'task') {
    const named = view.byName(kind, text)
    if (named.length > 0) return named
  }
  const found: ObjectByKind[K][] = []
  if (/^[0-9a-z]{1,25}$/.test(text)) {
    for (const object of view.list(kind)) if (object.id.startsWith(text)) found.push(object)
  }
  return found
}
