import { fileShape } from './keys.ts'
import { type Inside, type Support, supported } from './shape.ts'

/** A key of a Compose file and what becomes of it. */
export interface ListedKey {
  /** `services.*.ports[].target`: `*` is any name, `[]` an item. */
  readonly path: string
  readonly compose: Support
  readonly stack: Support
  /** The key around it whose support holds for it too, by dialect. */
  readonly composeAs?: string | undefined
  readonly stackAs?: string | undefined
}

/** Every key that the loader knows, those around before those inside; what is said of a key holds for all inside it. */
export function listKeys(): readonly ListedKey[] {
  return keysInside('', fileShape.inside, { path: '', compose: supported, stack: supported })
}

function keysInside(path: string, inside: Inside | undefined, around: ListedKey): ListedKey[] {
  if (inside === undefined) return []
  if (inside.kind === 'list') return keysInside(`${path}[]`, inside.item, around)
  if (inside.kind === 'record') return keysInside(`${path}.*`, inside.item, around)
  return (inside.fields ?? []).flatMap((rule) => {
    const compose = stronger(around.compose, rule.compose)
    const stack = stronger(around.stack, rule.stack)
    const key: ListedKey = {
      path: path === '' ? rule.name : `${path}.${rule.name}`,
      compose,
      stack,
      ...(compose !== rule.compose && { composeAs: around.composeAs ?? around.path }),
      ...(stack !== rule.stack && { stackAs: around.stackAs ?? around.path }),
    }
    return [key, ...keysInside(key.path, rule.inside, key)]
  })
}

const ranks = { supported: 0, warned: 1, refused: 2 } as const

function stronger(around: Support, own: Support): Support {
  return ranks[own.level] > ranks[around.level] ? own : around
}
