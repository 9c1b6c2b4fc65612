import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Parser,
  type ScalarTag,
  type YAMLMap,
} from 'yaml'
import { assert, messageOf, UserError } from '../base/index.ts'
import { readQuickly, withMerged } from './quick-yaml.ts'

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

/** One YAML document of a file, from which places can be told. */
export interface YamlSource {
  /** Absolute. */
  readonly file: string
  readonly text: string
  /** Its place among the file's documents, from 0. */
  readonly index: number
  /** What the quick reader made of it, where it was sure. */
  readonly quick?: { readonly value: unknown }
  /** With the place of everything in it. */
  readonly document: Document.Parsed
}

/** Nodes of one document, those behind aliases counted each time: more is an alias bomb. */
export const treeNodesMax = 500_000

const knownTags: readonly string[] = [
  '!',
  '!override',
  ...['str', 'int', 'float', 'bool', 'null', 'map', 'seq'].map(
    (name) => `tag:yaml.org,2002:${name}`,
  ),
]

/** Docker reads `0440` as octal, as YAML 1.1 did. */
const octal: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^0[0-7]+$/,
  resolve: (text) => Number.parseInt(text, 8),
}

/** A top-level key's text, where it is a scalar. */
export function topText(source: YamlSource, key: string): string | undefined {
  const tree = source.quick?.value
  if (tree !== undefined) {
    return typeof tree === 'object' && tree !== null && key in tree
      ? keyText(Object.entries(tree).find(([name]) => name === key)?.[1])
      : undefined
  }
  const { document } = source
  const node: unknown = document.hasIn([key]) ? document.getIn([key], true) : undefined
  return isScalar(node) ? keyText(node.value) : undefined
}

/** Reads the documents of a YAML file; empty ones are left out. Throws `invalidInput` with line and column. */
export function parseYamlDocuments(file: string, text: string): readonly YamlSource[] {
  const quick = readQuickly(text)
  if (quick !== undefined) {
    let parsed: Document.Parsed | undefined
    return [
      {
        file,
        text,
        index: 0,
        quick,
        get document() {
          parsed ??= parseWhole(file, text)[0]?.document
          assert(parsed !== undefined, 'what was read quickly has a document')
          return parsed
        },
      },
    ]
  }
  return parseWhole(file, text)
}

/** As `parseYamlDocuments`, of all that YAML is. */
export function parseWhole(file: string, text: string): readonly YamlSource[] {
  const composer = new Composer({
    prettyErrors: false,
    merge: false,
    customTags: (tags) => [octal, ...tags],
  })
  const sources: YamlSource[] = []
  for (const document of composer.compose(new Parser().parse(text))) {
    const error = document.errors[0]
    if (error) {
      const { line, column } = positionAt(text, error.pos[0])
      throw new UserError(
        'invalidInput',
        `${file}:${line}:${column}: is not valid YAML: ${error.message.split('\n')[0]}`,
      )
    }
    if (document.contents !== null) sources.push({ file, text, index: sources.length, document })
  }
  return sources
}

export interface TreeOptions {
  /** Changes each string that is a value. Throws `UserError`, which is told with its place. */
  readonly change?: (text: string) => string
}

/** The document as plain data: aliases and merge keys resolved, `!reset` and `!override` as `Tagged`. */
export function readTree(source: YamlSource, { change = (text) => text }: TreeOptions): unknown {
  const quick = source.quick === undefined ? undefined : changedTree(source.quick.value, change)
  return quick === undefined ? readWhole(source, change) : quick.value
}

/** The tree with its strings changed; `undefined` where that fails, so that it is told with its place. */
function changedTree(
  tree: unknown,
  change: (text: string) => string,
): { readonly value: unknown } | undefined {
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
  try {
    return visit(tree)
  } catch (error) {
    if (error instanceof UserError) return undefined
    throw error
  }
}

function readWhole(source: YamlSource, change: (text: string) => string): unknown {
  const byAnchor = new Map<string, unknown>()
  const done = new Map<unknown, { readonly value: unknown; readonly nodes: number }>()
  const path: Step[] = []

  function fail(what: string, node: { range?: readonly number[] | null | undefined }): never {
    throw placedFault(source, path, node.range?.[0] ?? 0, what)
  }

  function visit(node: unknown): { readonly value: unknown; readonly nodes: number } {
    if (isAlias(node)) {
      const target = byAnchor.get(node.source)
      if (target === undefined) fail(`names the anchor ${node.source}, which is not above it`, node)
      const found = done.get(target)
      if (found === undefined) fail(`holds itself by the anchor ${node.source}`, node)
      return found
    }
    if (!isScalar(node) && !isMap(node) && !isSeq(node)) return { value: null, nodes: 1 }
    if (node.anchor !== undefined) byAnchor.set(node.anchor, node)
    const tag = node.tag
    let result: { readonly value: unknown; readonly nodes: number }
    if (tag === '!reset') result = { value: new Tagged('reset', undefined), nodes: 1 }
    else {
      if (tag !== undefined && !knownTags.includes(tag)) {
        fail(`has the unknown tag ${tag.replace('tag:yaml.org,2002:', '!!')}`, node)
      }
      const plain = isScalar(node)
        ? { value: scalar(node), nodes: 1 }
        : isMap(node)
          ? mapping(node)
          : sequence(node.items)
      result =
        tag === '!override'
          ? { value: new Tagged('override', plain.value), nodes: plain.nodes }
          : plain
    }
    if (result.nodes > treeNodesMax) fail(`comes to more than ${treeNodesMax} values`, node)
    if (node.anchor !== undefined) done.set(node, result)
    return result
  }

  function scalar(node: {
    value: unknown
    source?: string
    range?: readonly number[] | null | undefined
  }): unknown {
    const { value } = node
    if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      return node.source ?? String(value)
    }
    if (typeof value !== 'string' || !value.includes('$')) return value
    try {
      return change(value)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      throw placedFault(source, path, node.range?.[0] ?? 0, `: ${error.message}`, error)
    }
  }

  function sequence(items: readonly unknown[]): { value: unknown; nodes: number } {
    let nodes = 1
    const value = items.map((item, index) => {
      path.push(index)
      const result = visit(item)
      path.pop()
      nodes += result.nodes
      return result.value
    })
    return { value, nodes }
  }

  function mapping(map: YAMLMap): { value: unknown; nodes: number } {
    let nodes = 1
    const own: [string, unknown][] = []
    const merged: (readonly [string, unknown])[] = []
    for (const { key, value } of map.items) {
      if (!isScalar(key)) fail('has a key that is not text', map)
      const name = keyText(key.value)
      if (name === undefined) fail('has a key that is not text', key)
      path.push(name)
      const result = visit(value)
      nodes += result.nodes
      if (name === '<<' && key.type === 'PLAIN') {
        const parts = Array.isArray(result.value) ? result.value : [result.value]
        for (const part of parts) {
          if (typeof part !== 'object' || part === null || Array.isArray(part)) {
            fail('merges something that is not a mapping', key)
          }
          merged.push(...Object.entries(part))
        }
      } else own.push([name, result.value])
      path.pop()
    }
    return { value: withMerged(merged, own), nodes }
  }

  try {
    return visit(source.document.contents).value
  } catch (error) {
    if (error instanceof RangeError) throw placedFault(source, [], 0, `: ${messageOf(error)}`)
    throw error
  }
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

function positionAt(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset)
  return {
    line: before.split('\n').length,
    column: offset - (before.lastIndexOf('\n') + 1) + 1,
  }
}

/**
 * Where a path lies in the document: its key's offset, or that of the nearest thing around it that is written there. `depth`
 * counts the steps that were found.
 */
export function offsetOf(
  source: YamlSource,
  path: readonly Step[],
): { readonly offset: number; readonly depth: number } {
  const { document } = source
  const resolve = (node: unknown): unknown => (isAlias(node) ? node.resolve(document) : node)
  let node: unknown = document.contents
  let offset = document.contents?.range?.[0] ?? 0
  let depth = 0
  for (const step of path) {
    node = resolve(node)
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && keyText(key.value) === step)
      if (pair === undefined) break
      if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else if (isSeq(node) && typeof step === 'number') {
      const item = node.items[step]
      if (item === undefined) break
      node = item
      if (isScalar(item) || isMap(item) || isSeq(item) || isAlias(item)) {
        offset = item.range?.[0] ?? offset
      }
    } else break
    depth++
  }
  return { offset, depth }
}
