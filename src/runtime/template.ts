import { UserError } from '../base/index.ts'
import { type Expression, type Node, parseTemplate, TemplateError } from './template-syntax.ts'

/**
 * Go's text/template as far as services use it: fields, `index`, pipelines, variables, `if`, `with`, `range`,
 * comments, trimming, the built-in functions and `join`. What else Go can do (`define`, `template`, `block`, `call`,
 * methods) is refused by name. Source: Go, package text/template; the words of the context are Docker's.
 */

export type TemplateValue =
  | string
  | number
  | boolean
  | undefined
  | readonly TemplateValue[]
  | { readonly [key: string]: TemplateValue }

/** What `{{.Service.Name}}` and its like say. */
export interface TemplateContext {
  readonly Service: {
    readonly ID: string
    readonly Name: string
    readonly Labels: Readonly<Record<string, string>>
  }
  readonly Node: {
    readonly ID: string
    readonly Hostname: string
    readonly Platform: { readonly Architecture: string; readonly OS: string }
  }
  /** `Slot` of a one-per-node task is its node's id. */
  readonly Task: { readonly ID: string; readonly Name: string; readonly Slot: string }
}

/** What secret and config data may ask for beside the context. Throw UserError when there is no such thing. */
export interface PayloadFunctions {
  secret(target: string): string
  config(target: string): string
  env(name: string): string
}

/** `text`: hostname, env, mounts. `payload`: data of secrets and configs. */
export type TemplateKind = 'text' | 'payload'

/** Steps one rendering may take, so that no template runs for ever. */
export const templateStepsMax = 100_000
/** Longest text a template may become. */
export const templateOutputMax = 4 * 1024 * 1024

/** The text with every `{{…}}` replaced. Throws `invalidInput` that names the expression. */
export function renderTemplate(
  text: string,
  context: TemplateContext,
  payload?: PayloadFunctions,
): string {
  if (!text.includes('{{')) return text
  return guarded(() => new Evaluation({ ...context }, payload, false).run(parseTemplate(text)))
}

/** Throws `invalidInput` that names the expression when `text` could never be rendered. */
export function validateTemplate(text: string, kind: TemplateKind): void {
  if (!text.includes('{{')) return
  const payload: PayloadFunctions = { secret: () => '', config: () => '', env: () => '' }
  const context = {
    Service: { ID: 'service', Name: 'service', Labels: {} },
    Node: { ID: 'node', Hostname: 'node', Platform: { Architecture: 'x86_64', OS: 'linux' } },
    Task: { ID: 'task', Name: 'task', Slot: '1' },
  }
  guarded(() =>
    new Evaluation(context, kind === 'payload' ? payload : undefined, true).run(
      parseTemplate(text),
    ),
  )
}

function guarded(work: () => string): string {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    throw new UserError('invalidInput', `template ${error.expression}: ${error.message}`, {
      next: 'Use fields such as {{.Node.Hostname}}, {{.Service.Name}}, {{.Task.Slot}}, {{index .Service.Labels "key"}}.',
      cause: error,
    })
  }
}

class Evaluation {
  readonly #root: TemplateValue
  readonly #payload: PayloadFunctions | undefined
  /** Only checking: every branch is taken, and no label is missed. */
  readonly #checking: boolean
  #steps = 0
  #output = ''

  constructor(root: TemplateValue, payload: PayloadFunctions | undefined, checking: boolean) {
    this.#root = root
    this.#payload = payload
    this.#checking = checking
  }

  run(nodes: readonly Node[]): string {
    this.#nodes(nodes, this.#root, new Map([['$', { value: this.#root }]]))
    return this.#output
  }

  #nodes(nodes: readonly Node[], dot: TemplateValue, outer: Scope): void {
    const scope: Scope = new Map(outer)
    for (const node of nodes) {
      if (++this.#steps > templateStepsMax) {
        throw new TemplateError('it takes too many steps', '{{…}}')
      }
      this.#node(node, dot, scope)
    }
  }

  #node(node: Node, dot: TemplateValue, scope: Scope): void {
    switch (node.type) {
      case 'text':
        this.#print(node.text)
        return
      case 'action': {
        const value = this.#value(node.pipeline, dot, scope)
        if (node.set) this.#set(node.set, value, scope, node.pipeline)
        else this.#print(textOf(value))
        return
      }
      case 'if':
      case 'with': {
        const value = this.#value(node.pipeline, dot, scope)
        const inner: Scope = new Map(scope)
        if (node.set) this.#set(node.set, value, inner, node.pipeline)
        if (this.#checking || isTrue(value)) {
          this.#nodes(node.body, node.type === 'with' ? value : dot, inner)
        }
        if (this.#checking || !isTrue(value)) this.#nodes(node.otherwise, dot, inner)
        return
      }
      case 'range': {
        const value = this.#value(node.pipeline, dot, scope)
        const entries = this.#entriesOf(value, node.pipeline)
        for (const [key, item] of entries) {
          const inner: Scope = new Map(scope)
          if (node.keyName) inner.set(node.keyName, { value: key })
          if (node.valueName) inner.set(node.valueName, { value: item })
          this.#nodes(node.body, item, inner)
        }
        if (entries.length === 0 || this.#checking) this.#nodes(node.otherwise, dot, scope)
        return
      }
    }
  }

  #set(
    set: { name: string; declares: boolean },
    value: TemplateValue,
    scope: Scope,
    at: Expression,
  ) {
    if (set.declares) {
      scope.set(set.name, { value })
      return
    }
    const cell = scope.get(set.name)
    if (!cell) throw new TemplateError(`undefined variable "${set.name}"`, at.text)
    cell.value = value
  }

  #print(text: string): void {
    this.#output += text
    if (this.#output.length > templateOutputMax) {
      throw new TemplateError('it becomes too long', '{{…}}')
    }
  }

  #entriesOf(value: TemplateValue, at: Expression): [TemplateValue, TemplateValue][] {
    if (value === undefined) return []
    if (Array.isArray(value)) return value.map((item, index) => [index, item])
    if (typeof value === 'number')
      return Array.from({ length: Math.max(0, value) }, (_, i) => [i, i])
    if (isMap(value)) {
      if (this.#checking && Object.keys(value).length === 0) return [['', '']]
      return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
    }
    throw new TemplateError(`range can't iterate over ${textOf(value)}`, at.text)
  }

  #value(expression: Expression, dot: TemplateValue, scope: Scope): TemplateValue {
    switch (expression.type) {
      case 'literal':
        return expression.value
      case 'dot':
        return dot
      case 'variable': {
        const cell = scope.get(expression.name)
        if (!cell)
          throw new TemplateError(`undefined variable "${expression.name}"`, expression.text)
        return cell.value
      }
      case 'field':
        return this.#field(this.#value(expression.of, dot, scope), expression.name, expression)
      case 'call': {
        const lazy = expression.name === 'and' || expression.name === 'or'
        if (lazy && !this.#checking) {
          // As Go: stops at the first argument that decides.
          let last: TemplateValue
          for (const argument of expression.arguments) {
            last = this.#value(argument, dot, scope)
            if (isTrue(last) === (expression.name === 'or')) return last
          }
          return last
        }
        const values = expression.arguments.map((argument) => this.#value(argument, dot, scope))
        return this.#call(expression.name, values, expression)
      }
    }
  }

  #field(of: TemplateValue, name: string, at: Expression): TemplateValue {
    if (!isMap(of)) throw new TemplateError(`can't evaluate field ${name}`, at.text)
    if (Object.hasOwn(of, name)) return of[name]
    // Labels are the only open map; which keys there are is not known while checking.
    const isLabels = at.type === 'field' && at.of.type === 'field' && at.of.name === 'Labels'
    if (this.#checking && isLabels) return ''
    throw new TemplateError(
      isLabels ? `there is no label "${name}"` : `there is no field ${name}`,
      at.text,
    )
  }

  #call(name: string, args: readonly TemplateValue[], at: Expression): TemplateValue {
    const text = (index: number): string => {
      const value = args[index]
      if (typeof value === 'string') return value
      throw new TemplateError(`${name} wants text as argument ${index + 1}`, at.text)
    }
    const count = (min: number, max = min): void => {
      if (args.length >= min && args.length <= max) return
      throw new TemplateError(`wrong number of arguments for ${name}: ${args.length}`, at.text)
    }
    switch (name) {
      case 'and':
        count(1, 99)
        return args.find((value) => !isTrue(value)) ?? args.at(-1)
      case 'or':
        count(1, 99)
        return args.find(isTrue) ?? args.at(-1)
      case 'not':
        count(1)
        return !isTrue(args[0])
      case 'len': {
        count(1)
        const [value] = args
        if (typeof value === 'string') return Buffer.byteLength(value)
        if (Array.isArray(value)) return value.length
        if (isMap(value)) return Object.keys(value).length
        throw new TemplateError(`len of ${textOf(value)}`, at.text)
      }
      case 'index':
        count(1, 99)
        return args.slice(1).reduce<TemplateValue>((of, key) => {
          if (isMap(of) && typeof key === 'string') return Object.hasOwn(of, key) ? of[key] : ''
          if (Array.isArray(of) && typeof key === 'number' && key >= 0 && key < of.length) {
            return of[key]
          }
          throw new TemplateError(`can't index ${textOf(of)} with ${textOf(key)}`, at.text)
        }, args[0])
      case 'join':
        count(1, 99)
        return args
          .slice(1)
          .map((_, index) => text(index + 1))
          .join(text(0))
      case 'print':
        return sprint(args)
      case 'println':
        return `${args.map(textOf).join(' ')}\n`
      case 'printf':
        count(1, 99)
        return sprintf(text(0), args.slice(1), at)
      case 'urlquery':
        return encodeURIComponent(sprint(args)).replaceAll('%20', '+')
      case 'html':
        return sprint(args).replace(/[&<>'"]/g, (c) => htmlEscapes[c] ?? c)
      case 'slice': {
        count(1, 3)
        const bytes = Buffer.from(text(0))
        const [from = 0, to = bytes.length] = args.slice(1)
        if (typeof from !== 'number' || typeof to !== 'number' || from > to || to > bytes.length) {
          if (this.#checking) return ''
          throw new TemplateError('slice out of range', at.text)
        }
        return bytes.subarray(from, to).toString()
      }
      case 'eq':
        count(2, 99)
        return args.slice(1).some((value) => compare(args[0], value, at) === 0)
      case 'ne':
        count(2)
        return compare(args[0], args[1], at) !== 0
      case 'lt':
        count(2)
        return compare(args[0], args[1], at) < 0
      case 'le':
        count(2)
        return compare(args[0], args[1], at) <= 0
      case 'gt':
        count(2)
        return compare(args[0], args[1], at) > 0
      case 'ge':
        count(2)
        return compare(args[0], args[1], at) >= 0
      case 'secret':
      case 'config':
      case 'env':
        if (!this.#payload) {
          throw new TemplateError(`${name} works in data of secrets and configs only`, at.text)
        }
        count(1)
        return this.#payload[name](text(0))
      default:
        throw new TemplateError(`function "${name}" is not supported`, at.text)
    }
  }
}

type Scope = Map<string, { value: TemplateValue }>

const htmlEscapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
}

function isList(value: TemplateValue): value is readonly TemplateValue[] {
  return Array.isArray(value)
}

function isMap(value: TemplateValue): value is { readonly [key: string]: TemplateValue } {
  return typeof value === 'object' && !isList(value)
}

/** Go's truth: not zero, not empty. */
function isTrue(value: TemplateValue): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (isMap(value)) return Object.keys(value).length > 0
  return Boolean(value)
}

/** As Go prints it with %v. */
function textOf(value: TemplateValue): string {
  if (value === undefined) return '<no value>'
  if (isList(value)) return `[${value.map(textOf).join(' ')}]`
  if (isMap(value)) {
    const keys = Object.keys(value).sort()
    return `map[${keys.map((key) => `${key}:${textOf(value[key])}`).join(' ')}]`
  }
  return String(value)
}

/** Go's Sprint: a blank between operands when neither is text. */
function sprint(args: readonly TemplateValue[]): string {
  return args.reduce<string>((all, value, index) => {
    const before = args[index - 1]
    const blank = index > 0 && typeof value !== 'string' && typeof before !== 'string'
    return `${all}${blank ? ' ' : ''}${textOf(value)}`
  }, '')
}

function sprintf(format: string, args: readonly TemplateValue[], at: Expression): string {
  let next = 0
  const text = format.replace(/%([-0]?)(\d*)([a-zA-Z%])/g, (whole, flag, width, verb) => {
    if (verb === '%') return '%'
    if (next >= args.length) throw new TemplateError(`printf misses a value for ${whole}`, at.text)
    const value = args[next++]
    const shown = formatOne(verb, value)
    if (shown === undefined) throw new TemplateError(`printf can't do ${whole}`, at.text)
    if (flag === '-') return shown.padEnd(Number(width))
    return shown.padStart(Number(width), flag === '0' ? '0' : ' ')
  })
  if (next < args.length) throw new TemplateError('printf has values left over', at.text)
  return text
}

function formatOne(verb: string, value: TemplateValue): string | undefined {
  switch (verb) {
    case 'v':
    case 's':
      return textOf(value)
    case 'd':
      return typeof value === 'number' ? String(Math.trunc(value)) : undefined
    case 'x':
      return typeof value === 'number'
        ? value.toString(16)
        : Buffer.from(textOf(value)).toString('hex')
    case 'q':
      return JSON.stringify(textOf(value))
    case 't':
      return typeof value === 'boolean' ? String(value) : undefined
    default:
      return undefined
  }
}

function compare(a: TemplateValue, b: TemplateValue, at: Expression): number {
  if (typeof a === 'object' || typeof a !== typeof b) {
    throw new TemplateError('incompatible types for comparison', at.text)
  }
  if (a === b) return 0
  return (a ?? 0) < (b ?? 0) ? -1 : 1
}
