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
import { messageOf, UserError } from '../base/index.ts'
import { withMerged } from './quick-yaml.ts'
import {
  type Found,
  keyText,
  placedFault,
  positionAt,
  type Step,
  Tagged,
  treeNodesMax,
  type YamlSource,
} from './yaml-source.ts'

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

/** Reads the documents of a YAML file; empty ones are left out. Throws `invalidInput` with line and column. */
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
    if (document.contents === null) continue
    const source: YamlSource = {
      file,
      text,
      index: sources.length,
      hasPlaces: true,
      topText: (key) => {
        const node: unknown = document.hasIn([key]) ? document.getIn([key], true) : undefined
        return isScalar(node) ? keyText(node.value) : undefined
      },
      readTree: (change = (given) => given) => readWhole(source, document, change),
      find: (path) => offsetOf(document, path),
    }
    sources.push(source)
  }
  return sources
}

function readWhole(
  source: YamlSource,
  document: Document.Parsed,
  change: (text: string) => string,
): unknown {
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
    return visit(document.contents).value
  } catch (error) {
    if (error instanceof RangeError) throw placedFault(source, [], 0, `: ${messageOf(error)}`)
    throw error
  }
}

function offsetOf(document: Document.Parsed, path: readonly Step[]): Found {
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
