import { UserError } from '../base/index.ts'
import { readQuickly } from './quick-yaml.ts'

/** A value tagged `!reset` (what earlier files say is dropped) or `!override` (it is replaced). */
export class Tagged {
  readonly tag: 'reset' | 'override'
  readonly value: unknown
  constructor(tag: 'reset' | 'override', value: unknown) {
    this.tag = tag
    this.value = value
  }
}

/** A key of a mapping, or the index of a list. */
export type Step = string | number

/** One YAML document of a file. */
export interface YamlSource {
  /** Absolute. */
  readonly file: string
  readonly text: string
  /** Its place among the file's documents, from 0. */
  readonly index: number
  /** Whether it can tell places; one that was read quickly can't. */
  readonly hasPlaces: boolean
  /** A top-level key's text, where it is a scalar. */
  topText(key: string): string | undefined
  /**
   * The document as plain data: aliases and merge keys resolved, `!reset` and `!override` as `Tagged`. `change` is given each
   * string that is a value and may hold a variable.
   */
  readTree(change?: (text: string) => string): unknown
  /**
   * Where a path lies: its key's offset, or that of the nearest thing around it that is written there. `depth` counts the
   * steps that were found.
   */
  find(path: readonly Step[]): Found
}

export interface Found {
  readonly offset: number
  readonly depth: number
}

/** Nodes of one document, those behind aliases counted each time: more is an alias bomb. */
export const treeNodesMax = 500_000

/** A file's only document, where the quick reader is sure of it; it tells no places. */
export function quickSource(file: string, text: string): YamlSource | undefined {
  const quick = readQuickly(text)
  if (quick === undefined) return undefined
  const tree = quick.value
  return {
    file,
    text,
    index: 0,
    hasPlaces: false,
    topText: (key) =>
      typeof tree === 'object' && tree !== null
        ? keyText(Object.entries(tree).find(([name]) => name === key)?.[1])
        : undefined,
    readTree: (change = (given) => given) => changedTree(tree, change),
    find: () => ({ offset: 0, depth: 0 }),
  }
}

/** The tree with its strings changed. */
function changedTree(tree: unknown, change: (text: string) => string): unknown {
  const done = new Map<object, { readonly value: unknown; readonly nodes: number }>()
  const visit = (value: unknown): { readonly value: unknown; readonly nodes: number } => {
    if (typeof value === 'string') {
      return { value: value.includes('$') ? change(value) : value, nodes: 1 }
    }
    if (typeof value !== 'object' || value === null) return { value, nodes: 1 }
    const known = done.get(value)
    if (known !== undefined) return known
    let nodes = 1
    const inner = (item: unknown): unknown => {
      const result = visit(item)
      nodes += result.nodes
      return result.value
    }
    const changed = Array.isArray(value)
      ? value.map(inner)
      : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inner(item)]))
    if (nodes > treeNodesMax) throw new UserError('tooLarge', 'the tree has too many values')
    const result = { value: changed, nodes }
    done.set(value, result)
    return result
  }
  return visit(tree).value
}

/** A key as text; `undefined` for what is none. */
export function keyText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  return value === null ? '' : undefined
}

/** `services.web.ports[0]`. */
export function pathText(path: readonly Step[]): string {
  let text = ''
  for (const step of path) {
    text += typeof step === 'number' ? `[${step}]` : text === '' ? step : `.${step}`
  }
  return text
}

/** `file:line:column: path what`; what begins with a colon follows the path at once. */
export function placedFault(
  source: YamlSource,
  path: readonly Step[],
  offset: number,
  what: string,
  cause?: UserError,
): UserError {
  const { line, column } = positionAt(source.text, offset)
  const key = pathText(path)
  const told = what.startsWith(':') ? `${key}${what}` : `${key} ${what}`
  const text = key === '' ? what.replace(/^: /, '') : told
  return new UserError('invalidInput', `${source.file}:${line}:${column}: ${text}`, {
    ...(cause?.next !== undefined && { next: cause.next }),
    ...(cause !== undefined && { cause }),
  })
}

export function positionAt(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset)
  return {
    line: before.split('\n').length,
    column: offset - (before.lastIndexOf('\n') + 1) + 1,
  }
}
