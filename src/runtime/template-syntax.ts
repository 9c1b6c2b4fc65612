/** The grammar of Go's text/template, as far as `template.ts` evaluates it. */

/** Why a template is refused, with the expression as it was written. */
export class TemplateError extends Error {
  override readonly name = 'TemplateError'
  readonly expression: string
  constructor(message: string, expression: string) {
    super(message)
    this.expression = expression
  }
}

export type Node =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'action'; readonly pipeline: Expression; readonly set: Assignment | undefined }
  | {
      readonly type: 'if' | 'with'
      readonly pipeline: Expression
      readonly set: Assignment | undefined
      readonly body: readonly Node[]
      readonly otherwise: readonly Node[]
    }
  | {
      readonly type: 'range'
      readonly pipeline: Expression
      readonly keyName: string | undefined
      readonly valueName: string | undefined
      readonly body: readonly Node[]
      readonly otherwise: readonly Node[]
    }

/** `declares`: `:=` against `=`. */
interface Assignment {
  readonly name: string
  readonly declares: boolean
}

/** `text` is the action it stands in, for errors. */
export type Expression = { readonly text: string } & (
  | { readonly type: 'literal'; readonly value: string | number | boolean | undefined }
  | { readonly type: 'dot' }
  | { readonly type: 'variable'; readonly name: string }
  | { readonly type: 'field'; readonly of: Expression; readonly name: string }
  | { readonly type: 'call'; readonly name: string; readonly arguments: readonly Expression[] }
)

type Piece =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'action'; readonly text: string; readonly tokens: readonly Token[] }

type Token =
  | { readonly type: 'word'; readonly value: string; readonly spaced: boolean }
  | { readonly type: 'field'; readonly value: string; readonly spaced: boolean }
  | { readonly type: 'variable'; readonly value: string; readonly spaced: boolean }
  | { readonly type: 'literal'; readonly value: string | number; readonly spaced: boolean }
  | { readonly type: 'sign'; readonly value: string; readonly spaced: boolean }

/** Deepest nesting of blocks and parentheses. */
const depthMax = 100

export function parseTemplate(text: string): readonly Node[] {
  const parser = new BlockParser(splitPieces(text))
  return parser.top()
}

/** Text and actions, with `{{-` and `-}}` already trimmed and comments gone. */
function splitPieces(text: string): readonly Piece[] {
  const pieces: Piece[] = []
  let at = 0
  let trimNext = false
  for (;;) {
    const open = text.indexOf('{{', at)
    const plain = text.slice(at, open < 0 ? text.length : open)
    const trimsBefore = open >= 0 && /^\{\{-\s/.test(text.slice(open, open + 4))
    let shown = trimNext ? plain.trimStart() : plain
    if (trimsBefore) shown = shown.trimEnd()
    if (shown !== '') pieces.push({ type: 'text', text: shown })
    if (open < 0) return pieces
    const start = open + (trimsBefore ? 3 : 2)
    const comment = /^\s*\/\*[\s\S]*?\*\/\s*?(\s-)?\}\}/.exec(text.slice(start))
    if (comment) {
      trimNext = comment[1] !== undefined
      at = start + comment[0].length
      continue
    }
    const { tokens, end, trimsAfter } = readTokens(text, start, open)
    pieces.push({ type: 'action', text: text.slice(open, end), tokens })
    trimNext = trimsAfter
    at = end
  }
}

const tokenPattern =
  /(\s+-\}\}|\s*\}\})|(\s*)(?:("(?:[^"\\\n]|\\.)*")|(`[^`]*`)|('(?:[^'\\\n]|\\.)+')|([+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)(?![\w.]))|(\$\w*)|(\.[\p{L}_][\p{L}\p{N}_]*)|([\p{L}_][\p{L}\p{N}_]*)|(:=|[()|=,.]))/uy

function readTokens(
  text: string,
  start: number,
  open: number,
): { tokens: readonly Token[]; end: number; trimsAfter: boolean } {
  const tokens: Token[] = []
  let at = start
  for (;;) {
    tokenPattern.lastIndex = at
    const match = tokenPattern.exec(text)
    if (!match) {
      const rest = text.slice(open, open + 60).split('\n')[0] ?? ''
      const close = rest.indexOf('}}')
      throw new TemplateError(
        close < 0 ? 'unclosed action' : `unexpected "${text.slice(at, at + 10).trim()}"`,
        close < 0 ? rest : rest.slice(0, close + 2),
      )
    }
    at = tokenPattern.lastIndex
    const [, close, blank, quoted, raw, char, number, variable, field, word, sign] = match
    if (close !== undefined) {
      return { tokens, end: at, trimsAfter: close.trimStart().startsWith('-') }
    }
    const spaced = blank !== ''
    if (quoted !== undefined) tokens.push({ type: 'literal', value: unquote(quoted), spaced })
    else if (raw !== undefined) tokens.push({ type: 'literal', value: raw.slice(1, -1), spaced })
    else if (char !== undefined) {
      tokens.push({ type: 'literal', value: unquote(char).codePointAt(0) ?? 0, spaced })
    } else if (number !== undefined) tokens.push({ type: 'literal', value: Number(number), spaced })
    else if (variable !== undefined) tokens.push({ type: 'variable', value: variable, spaced })
    else if (field !== undefined) tokens.push({ type: 'field', value: field.slice(1), spaced })
    else if (word !== undefined) tokens.push({ type: 'word', value: word, spaced })
    else tokens.push({ type: 'sign', value: sign ?? '', spaced })
  }
}

const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '\\': '\\',
  '"': '"',
  "'": "'",
}

function unquote(quoted: string): string {
  return quoted
    .slice(1, -1)
    .replace(
      /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))/g,
      (whole, hex, short, long, octal, simple) => {
        if (simple !== undefined) {
          const known = escapes[simple]
          if (known === undefined) throw new TemplateError(`unknown escape ${whole}`, quoted)
          return known
        }
        const code = octal === undefined ? parseInt(hex ?? short ?? long, 16) : parseInt(octal, 8)
        if (code > 0x10ffff) throw new TemplateError(`unknown escape ${whole}`, quoted)
        return String.fromCodePoint(code)
      },
    )
}

const refused: ReadonlySet<string> = new Set(['define', 'template', 'block', 'break', 'continue'])

class BlockParser {
  readonly #pieces: readonly Piece[]
  #at = 0
  #depth = 0

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces
  }

  top(): readonly Node[] {
    const { nodes, stop } = this.#nodes()
    if (stop) throw new TemplateError(`unexpected {{${stop.word}}}`, stop.text)
    return nodes
  }

  /** Nodes up to `{{end}}`, `{{else …}}` or the end of the text. */
  #nodes(): { nodes: readonly Node[]; stop?: { word: string; text: string; rest: ActionParser } } {
    const nodes: Node[] = []
    for (let piece = this.#pieces[this.#at++]; piece; piece = this.#pieces[this.#at++]) {
      if (piece.type === 'text') {
        nodes.push(piece)
        continue
      }
      const parser = new ActionParser(piece.tokens, piece.text)
      const word = parser.keyword()
      if (word === 'end' || word === 'else') {
        return { nodes, stop: { word, text: piece.text, rest: parser } }
      }
      if (word !== undefined && refused.has(word)) {
        throw new TemplateError(`{{${word}}} is not supported`, piece.text)
      }
      if (word === 'if' || word === 'with' || word === 'range')
        nodes.push(this.#block(word, parser))
      else nodes.push({ type: 'action', ...parser.assignment() })
    }
    return { nodes }
  }

  #block(word: 'if' | 'with' | 'range', parser: ActionParser): Node {
    if (++this.#depth > depthMax) throw new TemplateError('nested too deeply', parser.text)
    const head = word === 'range' ? parser.range() : parser.assignment()
    const body = this.#nodes()
    let otherwise: readonly Node[] = []
    let stop = body.stop
    if (stop?.word === 'else') {
      const next = stop.rest.keyword()
      if (next === 'if' || next === 'with') {
        // `else if` is an `if` in the `else`, and shares its `end`.
        otherwise = [this.#block(next, stop.rest)]
        stop = undefined
        this.#depth--
        return node(word, head, body.nodes, otherwise)
      }
      stop.rest.finish()
      const after = this.#nodes()
      otherwise = after.nodes
      stop = after.stop
    }
    if (stop?.word !== 'end') throw new TemplateError(`{{${word}}} has no {{end}}`, parser.text)
    stop.rest.finish()
    this.#depth--
    return node(word, head, body.nodes, otherwise)
  }
}

function node(
  type: 'if' | 'with' | 'range',
  head: ReturnType<ActionParser['assignment']> | ReturnType<ActionParser['range']>,
  body: readonly Node[],
  otherwise: readonly Node[],
): Node {
  if ('set' in head) {
    if (type === 'range') throw new TemplateError('range without a list', head.pipeline.text)
    return { type, pipeline: head.pipeline, set: head.set, body, otherwise }
  }
  return { type: 'range', ...head, body, otherwise }
}

class ActionParser {
  readonly text: string
  readonly #tokens: readonly Token[]
  #at = 0
  #depth = 0

  constructor(tokens: readonly Token[], text: string) {
    this.#tokens = tokens
    this.text = text
  }

  /** Takes a leading word of control; anything else stays. */
  keyword(): string | undefined {
    const token = this.#tokens[this.#at]
    if (token?.type !== 'word') return undefined
    if (!/^(if|with|range|else|end)$/.test(token.value) && !refused.has(token.value)) {
      return undefined
    }
    this.#at++
    return token.value
  }

  finish(): void {
    const token = this.#tokens[this.#at]
    if (token) throw new TemplateError(`unexpected ${token.value}`, this.text)
  }

  /** `pipeline`, `$x := pipeline` or `$x = pipeline`. */
  assignment(): { pipeline: Expression; set: Assignment | undefined } {
    const [variable, sign] = this.#tokens.slice(this.#at, this.#at + 2)
    let set: Assignment | undefined
    if (variable?.type === 'variable' && sign?.type === 'sign' && /^:?=$/.test(sign.value)) {
      set = { name: variable.value, declares: sign.value === ':=' }
      this.#at += 2
    }
    const pipeline = this.#pipeline()
    this.finish()
    return { pipeline, set }
  }

  /** `pipeline`, `$value := pipeline` or `$key, $value := pipeline`. */
  range(): { pipeline: Expression; keyName: string | undefined; valueName: string | undefined } {
    const names: string[] = []
    const from = this.#at
    for (;;) {
      const token = this.#tokens[this.#at]
      if (token?.type !== 'variable') break
      names.push(token.value)
      this.#at++
      if (!this.#takeSign(',')) break
    }
    if (names.length === 0 || names.length > 2 || !this.#takeSign(':=')) {
      this.#at = from
      names.length = 0
    }
    const pipeline = this.#pipeline()
    this.finish()
    const [first, second] = names
    return second === undefined
      ? { pipeline, keyName: undefined, valueName: first }
      : { pipeline, keyName: first, valueName: second }
  }

  /** Commands joined by `|`: each value becomes the last argument of the next. */
  #pipeline(): Expression {
    let value = this.#command(undefined)
    while (this.#takeSign('|')) value = this.#command(value)
    return value
  }

  #command(piped: Expression | undefined): Expression {
    const first = this.#tokens[this.#at]
    if (first?.type === 'word' && !/^(true|false|nil)$/.test(first.value)) {
      this.#at++
      const args: Expression[] = []
      for (;;) {
        const operand = this.#operand()
        if (!operand) break
        args.push(operand)
      }
      if (piped) args.push(piped)
      return { type: 'call', name: first.value, arguments: args, text: this.text }
    }
    const operand = this.#operand()
    if (!operand) throw new TemplateError('missing value', this.text)
    const next = this.#tokens[this.#at]
    if (piped || (next && !(next.type === 'sign' && /^[|)]$/.test(next.value)))) {
      throw new TemplateError("can't give arguments to a value that is no function", this.text)
    }
    return operand
  }

  #operand(): Expression | undefined {
    const token = this.#tokens[this.#at]
    let value: Expression | undefined
    if (token?.type === 'literal') value = { type: 'literal', value: token.value, text: this.text }
    else if (token?.type === 'variable') {
      value = { type: 'variable', name: token.value, text: this.text }
    } else if (token?.type === 'field') {
      const dot: Expression = { type: 'dot', text: this.text }
      value = { type: 'field', of: dot, name: token.value, text: this.text }
    } else if (token?.type === 'word') {
      if (/^(true|false)$/.test(token.value)) {
        value = { type: 'literal', value: token.value === 'true', text: this.text }
      } else if (token.value === 'nil') {
        value = { type: 'literal', value: undefined, text: this.text }
      } else value = { type: 'call', name: token.value, arguments: [], text: this.text }
    } else if (token?.type === 'sign' && token.value === '.') {
      value = { type: 'dot', text: this.text }
    } else if (token?.type === 'sign' && token.value === '(') {
      if (++this.#depth > depthMax) throw new TemplateError('nested too deeply', this.text)
      this.#at++
      value = this.#pipeline()
      const close = this.#tokens[this.#at]
      if (close?.type !== 'sign' || close.value !== ')') {
        throw new TemplateError('unclosed parenthesis', this.text)
      }
      this.#depth--
    }
    if (!value) return undefined
    this.#at++
    for (;;) {
      const next = this.#tokens[this.#at]
      if (next?.type !== 'field' || next.spaced) return value
      value = { type: 'field', of: value, name: next.value, text: this.text }
      this.#at++
    }
  }

  #takeSign(sign: string): boolean {
    const token = this.#tokens[this.#at]
    if (token?.type !== 'sign' || token.value !== sign) return false
    this.#at++
    return true
  }
}
