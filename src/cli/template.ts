import { UserError } from '../base/index.ts'

/**
 * The part of Go's templates that people use with `--format`: fields (`.Spec.Name`), `json`, `upper`, `lower`, `title`, `join`,
 * `split`, `index`, `len`, `println`, `eq`, `ne`, `not`, pipes, `if`/`else`, `range`, and `\t`, `\n` in the text.
 * Unknown functions are refused by name when the template is read.
 */
export type Template = (data: unknown) => string

type Expression = (data: unknown) => unknown
type Part = (data: unknown) => string

export function parseTemplate(source: string): Template {
  const tokens = tokenize(source.replace(/\\t/g, '\t').replace(/\\n/g, '\n'))
  const { part, end } = parseParts(tokens, 0, [])
  if (end < tokens.length) throw malformed(source, 'an end without its beginning')
  return part
}

interface Token {
  readonly type: 'text' | 'action'
  readonly text: string
}

function tokenize(source: string): readonly Token[] {
  const tokens: Token[] = []
  let at = 0
  while (at < source.length) {
    const open = source.indexOf('{{', at)
    if (open < 0) {
      tokens.push({ type: 'text', text: source.slice(at) })
      break
    }
    if (open > at) tokens.push({ type: 'text', text: source.slice(at, open) })
    const close = closingBraces(source, open + 2)
    if (close === undefined) throw malformed(source, '"{{" without "}}"')
    let inner = source.slice(open + 2, close)
    if (/^-\s/.test(inner)) {
      const before = tokens.pop()
      if (before) {
        tokens.push(before.type === 'text' ? { type: 'text', text: before.text.trimEnd() } : before)
      }
      inner = inner.slice(1)
    }
    at = close + 2
    if (/\s-$/.test(inner)) {
      inner = inner.slice(0, -1)
      at += /^\s*/.exec(source.slice(at))?.[0].length ?? 0
    }
    tokens.push({ type: 'action', text: inner.trim() })
  }
  return tokens
}

function closingBraces(source: string, from: number): number | undefined {
  let quote: string | undefined
  for (let at = from; at < source.length; at++) {
    const char = source[at]
    if (quote !== undefined) {
      if (char === '\\' && quote === '"') at++
      else if (char === quote) quote = undefined
    } else if (char === '"' || char === '`') quote = char
    else if (source.startsWith('}}', at)) return at
  }
  return undefined
}

function parseParts(
  tokens: readonly Token[],
  from: number,
  until: readonly string[],
): { readonly part: Part; readonly end: number } {
  const parts: Part[] = []
  let at = from
  while (at < tokens.length) {
    const token = tokens[at]
    if (token === undefined) break
    if (token.type === 'text') {
      parts.push(() => token.text)
      at++
      continue
    }
    const [word = ''] = token.text.split(/\s/, 1)
    if (until.includes(word)) break
    if (token.text.startsWith('/*')) {
      at++
    } else if (word === 'if' || word === 'range' || word === 'with') {
      const branch = parseBranch(tokens, at, token.text)
      parts.push(branch.part)
      at = branch.end
    } else if (word === 'end' || word === 'else') {
      throw malformed(token.text, `"${word}" without its beginning`)
    } else {
      const pipeline = parsePipeline(token.text)
      parts.push((data) => textOf(pipeline(data)))
      at++
    }
  }
  return { part: (data) => parts.map((part) => part(data)).join(''), end: at }
}

/** Reads from an `if`, `range` or `with` (or the `if` of an `else if`) to behind its `end`. */
function parseBranch(
  tokens: readonly Token[],
  at: number,
  action: string,
): { readonly part: Part; readonly end: number } {
  const [word = ''] = action.split(/\s/, 1)
  const condition = parsePipeline(action.slice(word.length).trim())
  const then = parseParts(tokens, at + 1, ['else', 'end'])
  const middle = tokens[then.end]?.text ?? ''
  if (/^else\s+if\b/.test(middle)) {
    const other = parseBranch(tokens, then.end, middle.slice(4).trim())
    return { part: branch(word, condition, then.part, other.part), end: other.end }
  }
  const other = middle === 'else' ? parseParts(tokens, then.end + 1, ['end']) : undefined
  const end = other?.end ?? then.end
  if (tokens[end]?.text !== 'end') throw malformed(action, `"${word}" without "end"`)
  return { part: branch(word, condition, then.part, other?.part ?? (() => '')), end: end + 1 }
}

function branch(word: string, condition: Expression, then: Part, otherwise: Part): Part {
  if (word === 'if') return (data) => (isTrue(condition(data)) ? then(data) : otherwise(data))
  if (word === 'with') {
    return (data) => {
      const value = condition(data)
      return isTrue(value) ? then(value) : otherwise(data)
    }
  }
  return (data) => {
    const value = condition(data)
    const items = Array.isArray(value)
      ? value
      : typeof value === 'object' && value !== null
        ? Object.entries(value)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([, item]) => item)
        : []
    return items.length === 0 ? otherwise(data) : items.map((item) => then(item)).join('')
  }
}

const functions: Readonly<Record<string, (...args: readonly unknown[]) => unknown>> = {
  json: (value) => JSON.stringify(value ?? null),
  upper: (value) => textOf(value).toUpperCase(),
  lower: (value) => textOf(value).toLowerCase(),
  title: (value) => textOf(value).replace(/\b\w/g, (letter) => letter.toUpperCase()),
  join: (list, separator) => (Array.isArray(list) ? list.map(textOf).join(textOf(separator)) : ''),
  split: (text, separator) => textOf(text).split(textOf(separator)),
  truncate: (text, count) => Array.from(textOf(text)).slice(0, Number(count)).join(''),
  index: (value, ...keys) => keys.reduce((inner, key) => fieldOf(inner, textOf(key)), value),
  len: (value) =>
    Array.isArray(value) || typeof value === 'string'
      ? value.length
      : Object.keys(value ?? {}).length,
  print: (...values) => values.map(textOf).join(''),
  println: (...values) => `${values.map(textOf).join(' ')}\n`,
  eq: (a, ...others) => others.some((other) => other === a),
  ne: (a, b) => a !== b,
  not: (value) => !isTrue(value),
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
}

/** `a | f x | g`: each result is the last argument of the next call. */
function parsePipeline(source: string): Expression {
  const words = source.match(/"(?:[^"\\]|\\.)*"|`[^`]*`|\||\(|\)|[^\s|()]+/g) ?? []
  let at = 0

  function pipeline(closing: boolean): Expression {
    let left: Expression | undefined
    for (;;) {
      const command = call(left)
      left = command
      if (words[at] === '|') {
        at++
        continue
      }
      if (closing ? words[at] !== ')' : at < words.length) throw malformed(source, 'a stray word')
      if (closing) at++
      return command
    }
  }

  function call(piped: Expression | undefined): Expression {
    const first = words[at]
    if (first === undefined) throw malformed(source, 'an empty action')
    if (!/^[A-Za-z]/.test(first) || first === 'true' || first === 'false' || first === 'nil') {
      const value = operand()
      if (words[at] !== undefined && words[at] !== '|' && words[at] !== ')') {
        // A method with arguments, as docker's `.Label "key"`.
        const args: Expression[] = []
        while (words[at] !== undefined && words[at] !== '|' && words[at] !== ')')
          args.push(operand())
        return (data) => {
          const target = value(data)
          const keys = args.map((arg) => textOf(arg(data)))
          return keys.reduce<unknown>((inner, key) => fieldOf(inner, key), target)
        }
      }
      return value
    }
    at++
    const apply = Object.hasOwn(functions, first) ? functions[first] : undefined
    if (apply === undefined) {
      throw new UserError('invalidInput', `the template's function "${first}" is unknown`, {
        next: `There are ${Object.keys(functions).join(', ')}.`,
      })
    }
    const args: Expression[] = []
    while (words[at] !== undefined && words[at] !== '|' && words[at] !== ')') args.push(operand())
    if (piped) args.push(piped)
    return (data) => apply(...args.map((arg) => arg(data)))
  }

  function operand(): Expression {
    const word = words[at++] ?? ''
    if (word === '(') {
      const inner = pipeline(true)
      return inner
    }
    if (word.startsWith('"')) {
      const text = unquoted(word)
      if (text === undefined) throw malformed(source, `the string ${word}`)
      return () => text
    }
    if (word.startsWith('`')) return () => word.slice(1, -1)
    if (/^-?\d+(\.\d+)?$/.test(word)) return () => Number(word)
    if (word === 'true' || word === 'false') return () => word === 'true'
    if (word === 'nil') return () => undefined
    if (word === '.' || word === '$') return (data) => data
    if (/^\$?(\.[A-Za-z_]\w*)+$/.test(word)) {
      const path = word.replace(/^\$?\./, '').split('.')
      return (data) => path.reduce<unknown>((inner, key) => fieldOf(inner, key), data)
    }
    throw malformed(source, `"${word}"`)
  }

  return pipeline(false)
}

function unquoted(word: string): unknown {
  try {
    return JSON.parse(word.replace(/\t/g, '\\t').replace(/\n/g, '\\n'))
  } catch {
    return undefined
  }
}

function fieldOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  if (Array.isArray(value)) return value[Number(key)]
  return Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined
}

function isTrue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0
  return Boolean(value)
}

/** As Go prints: `[a b]`, `map[k:v]`, `<no value>`. */
function textOf(value: unknown): string {
  if (value === undefined || value === null) return '<no value>'
  if (Array.isArray(value)) return `[${value.map(textOf).join(' ')}]`
  if (typeof value === 'object') {
    const items = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
    return `map[${items.map(([key, item]) => `${key}:${textOf(item)}`).join(' ')}]`
  }
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function malformed(source: string, what: string): UserError {
  return new UserError('invalidInput', `the template "${source}" has ${what}`, {
    next: 'Write fields as {{.Name}}; {{json .}} shows what there is.',
  })
}
