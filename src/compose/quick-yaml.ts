/**
 * Reads the YAML that Compose files are mostly written in: block mappings and lists, flow ones, quoted and plain scalars of one
 * line, literal blocks, anchors, aliases and merge keys. It exists for speed: the whole of YAML takes ten times as long. What
 * it is not sure of it leaves to the parser of the whole, by answering `undefined`; what it answers is what that one would.
 * Aliases stand for the same objects.
 */
export function readQuickly(text: string): { readonly value: unknown } | undefined {
  if (/[\t\r\uFEFF]|^(---|\.\.\.|%)/m.test(text)) return undefined
  try {
    return { value: new QuickReader(text).document() }
  } catch (error) {
    if (error instanceof Unsure) return undefined
    throw error
  }
}

/** Merged mappings below the mapping's own keys: of the merged ones the first wins. */
export function withMerged(
  merged: readonly (readonly [string, unknown])[],
  own: readonly (readonly [string, unknown])[],
): Readonly<Record<string, unknown>> {
  return Object.fromEntries([...[...merged].reverse(), ...own])
}

class Unsure extends Error {}

function unsure(): never {
  throw new Unsure()
}

interface Line {
  /** Column of the first sign. */
  indent: number
  /** Offset of the first sign in the text. */
  start: number
  /** Offset behind the last sign. */
  readonly end: number
}

const plainKey = /(?:[A-Za-z_][\w./-]*|<<)(?= *:(?:[ \n]|$))/y
const anchorName = /[&*]([\w.-]+)(?=[ \n,\]}]|$)/y
const specialWord = /^(?:~|null|Null|NULL|true|True|TRUE|false|False|FALSE)$/

class QuickReader {
  private readonly text: string
  private readonly lines: Line[] = []
  private at = 0
  /** Lines of a flow collection stand deeper than this column. */
  private flowFloor = 0
  private readonly byAnchor = new Map<string, unknown>()

  constructor(text: string) {
    this.text = text
    for (let start = 0; start < text.length; ) {
      const newline = text.indexOf('\n', start)
      const stop = newline < 0 ? text.length : newline
      let first = start
      while (text[first] === ' ') first++
      let end = stop
      while (end > first && text[end - 1] === ' ') end--
      this.lines.push({ indent: first - start, start: first, end })
      start = stop + 1
    }
  }

  document(): unknown {
    const line = this.peek()
    if (line === undefined || this.text[line.start] === '-') unsure()
    const value = this.mapping(line.indent)
    if (this.peek() !== undefined) unsure()
    return value
  }

  /** The next line that says something. */
  private peek(): Line | undefined {
    for (let line = this.lines[this.at]; line !== undefined; line = this.lines[++this.at]) {
      if (line.start < line.end && this.text[line.start] !== '#') return line
    }
    return undefined
  }

  private block(above: number): unknown {
    const line = this.peek()
    if (line === undefined || line.indent <= above) return null
    return this.isItem(line) ? this.list(line.indent) : this.mapping(line.indent)
  }

  private isItem(line: Line): boolean {
    return (
      this.text[line.start] === '-' &&
      (line.start + 1 === line.end || this.text[line.start + 1] === ' ')
    )
  }

  private list(indent: number): unknown[] {
    const items: unknown[] = []
    for (let line = this.peek(); line?.indent === indent && this.isItem(line); line = this.peek()) {
      let start = line.start + 1
      while (start < line.end && this.text[start] === ' ') start++
      if (start >= line.end || this.text[start] === '#') {
        items.push(this.belowItem(indent))
        continue
      }
      const inner = indent + start - line.start
      line.indent = inner
      line.start = start
      if (this.isItem(line) || this.keyAt(line) !== undefined) {
        items.push(this.block(indent))
      } else items.push(this.value(start, line, indent, () => this.belowItem(indent)))
    }
    const next = this.peek()
    if (next !== undefined && next.indent > indent) unsure()
    return items
  }

  /** A key at the line's begin, with the offset behind its colon. */
  private keyAt(line: Line): { readonly key: string; readonly behind: number } | undefined {
    const { text } = this
    const first = text[line.start]
    let key: string
    let behind: number
    if (first === '"' || first === "'") {
      const quoted = this.quoted(line.start)
      key = quoted.value
      behind = quoted.end
      if (behind > line.end) return unsure()
    } else {
      plainKey.lastIndex = line.start
      const found = plainKey.exec(text)?.[0]
      if (found === undefined) return undefined
      if (specialWord.test(found)) return unsure()
      key = found
      behind = line.start + found.length
    }
    while (text[behind] === ' ') behind++
    if (text[behind] !== ':') return undefined
    behind++
    return behind === line.end || text[behind] === ' ' ? { key, behind } : unsure()
  }

  private mapping(indent: number): unknown {
    const own: [string, unknown][] = []
    const merged: (readonly [string, unknown])[] = []
    const seen = new Set<string>()
    for (let line = this.peek(); line?.indent === indent; line = this.peek()) {
      const found = this.keyAt(line)
      if (found === undefined || seen.has(found.key)) return unsure()
      seen.add(found.key)
      let start = found.behind
      while (start < line.end && this.text[start] === ' ') start++
      const isEmpty = start >= line.end || this.text[start] === '#'
      const below = () => this.belowKey(indent)
      const value = isEmpty ? below() : this.value(start, line, indent, below)
      if (found.key !== '<<' || this.text[line.start] !== '<') own.push([found.key, value])
      else {
        for (const part of Array.isArray(value) ? value : [value]) {
          if (typeof part !== 'object' || part === null || Array.isArray(part)) unsure()
          merged.push(...Object.entries(part))
        }
      }
    }
    const next = this.peek()
    if (next !== undefined && next.indent > indent) unsure()
    return withMerged(merged, own)
  }

  /** What stands below a key: deeper, or a list at its own depth. */
  private belowKey(indent: number): unknown {
    this.at++
    const line = this.peek()
    if (line?.indent === indent && this.isItem(line)) return this.list(indent)
    return this.block(indent)
  }

  /** What stands below a dash: deeper only, as what is at its own depth is the next item. */
  private belowItem(indent: number): unknown {
    this.at++
    return this.block(indent)
  }

  /** A value that begins on the line of its key or dash; `below` reads what stands under that one. */
  private value(start: number, line: Line, indent: number, below: () => unknown): unknown {
    const { text } = this
    const first = text[start]
    switch (first) {
      case '&': {
        const name = this.nameAt(start)
        let behind = start + name.length + 1
        if (/[,\]}]/.test(text[behind] ?? '')) return unsure()
        while (behind < line.end && text[behind] === ' ') behind++
        if (behind >= line.end || text[behind] === '#') return this.anchor(name, below)
        if (this.keyAt({ ...line, start: behind }) !== undefined || text[behind] === '-') unsure()
        return this.anchor(name, () => this.value(behind, line, indent, below))
      }
      case '*': {
        const name = this.nameAt(start)
        return this.closed(this.alias(name), start + name.length + 1, line)
      }
      case '|':
      case '>':
        return this.blockScalar(start, line, indent)
      case '"':
      case "'": {
        const { value, end } = this.quoted(start)
        return this.closed(value, end, line)
      }
      case '[':
      case '{': {
        this.flowFloor = indent
        const { value, end } = this.flow(start)
        while (this.lines[this.at] !== undefined && (this.lines[this.at]?.end ?? 0) < end) this.at++
        return this.closed(value, end, this.lines[this.at] ?? line)
      }
      default:
        return this.plain(start, line, indent)
    }
  }

  private nameAt(start: number): string {
    anchorName.lastIndex = start
    return anchorName.exec(this.text)?.[1] ?? unsure()
  }

  private anchor(name: string, read: () => unknown): unknown {
    // Until it is whole, what is in it can't name it.
    this.byAnchor.delete(name)
    const value = read()
    this.byAnchor.set(name, value)
    return value
  }

  private alias(name: string): unknown {
    if (!this.byAnchor.has(name)) unsure()
    return this.byAnchor.get(name)
  }

  /** The value, if nothing but a comment stands behind it and nothing deeper below. */
  private closed(value: unknown, end: number, line: Line): unknown {
    const rest = this.text.slice(end, line.end)
    if (rest !== '' && !/^ +(#|$)/.test(rest)) unsure()
    this.at++
    return value
  }

  private plain(start: number, line: Line, indent: number): unknown {
    const whole = this.text.slice(start, line.end)
    const comment = whole.search(/ +#/)
    const bare = comment < 0 ? whole : whole.slice(0, comment)
    if (/^[?:,\]}#&*!|>%@`]|^-(?: |$)|: |:$/.test(bare)) unsure()
    this.at++
    // More lines would belong to it.
    const next = this.peek()
    if (next !== undefined && next.indent > indent) unsure()
    return scalarOf(bare)
  }

  private quoted(start: number): { readonly value: string; readonly end: number } {
    const { text } = this
    const quote = text[start]
    let value = ''
    for (let at = start + 1; at < text.length; at++) {
      const sign = text[at]
      if (sign === '\n') return unsure()
      if (sign === quote) {
        if (quote === '"' || text[at + 1] !== "'") return { value, end: at + 1 }
        value += "'"
        at++
      } else if (sign === '\\' && quote === '"') {
        const meant = escapes[text[++at] ?? '']
        if (meant === undefined) return unsure()
        value += meant
      } else value += sign
    }
    return unsure()
  }

  private blockScalar(start: number, line: Line, above: number): string {
    const header = /^([|>])(-?)(?: +#.*)?$/.exec(this.text.slice(start, line.end))
    if (header === null) return unsure()
    const [, kind, chomp] = header
    this.at++
    const rows: string[] = []
    let indent: number | undefined
    for (let row = this.lines[this.at]; row !== undefined; row = this.lines[++this.at]) {
      const isBlank = row.start === row.end
      if (!isBlank && row.indent <= above) break
      // Where it begins, and what spaces mean at its edges, is for the whole of YAML.
      if (isBlank && (indent === undefined || row.indent > indent)) return unsure()
      indent ??= row.indent
      if (!isBlank && row.indent < indent) return unsure()
      const newline = this.text.indexOf('\n', row.end)
      const stop = newline < 0 ? this.text.length : newline
      rows.push(isBlank ? '' : this.text.slice(row.start - (row.indent - indent), stop))
    }
    while (rows.at(-1) === '') rows.pop()
    if (rows.length === 0) return unsure()
    if (kind === '>' && rows.some((row) => row === '' || row.startsWith(' '))) return unsure()
    return rows.join(kind === '|' ? '\n' : ' ') + (chomp === '-' ? '' : '\n')
  }

  private flow(start: number): { readonly value: unknown; readonly end: number } {
    const { text } = this
    const close = text[start] === '[' ? ']' : '}'
    const items: unknown[] = []
    const entries: [string, unknown][] = []
    const merged: (readonly [string, unknown])[] = []
    const seen = new Set<string>()
    let at = this.space(start + 1)
    while (text[at] !== close) {
      if (close === ']') {
        const item = this.flowValue(at)
        items.push(item.value)
        at = this.space(item.end)
      } else {
        const { key, behind, isPlain } = this.flowKey(at)
        if (seen.has(key)) return unsure()
        seen.add(key)
        at = this.space(behind)
        const value =
          text[at] === ',' || text[at] === '}' ? { value: null, end: at } : this.flowValue(at)
        if (key === '<<' && isPlain) {
          const part = value.value
          if (typeof part !== 'object' || part === null || Array.isArray(part)) return unsure()
          merged.push(...Object.entries(part))
        } else entries.push([key, value.value])
        at = this.space(value.end)
      }
      if (text[at] === ',') at = this.space(at + 1)
      else if (text[at] !== close) return unsure()
    }
    return { value: close === ']' ? items : withMerged(merged, entries), end: at + 1 }
  }

  private flowKey(at: number): {
    readonly key: string
    readonly behind: number
    readonly isPlain: boolean
  } {
    const { text } = this
    if (text[at] === '"' || text[at] === "'") {
      const { value, end } = this.quoted(at)
      return text[end] === ':' ? { key: value, behind: end + 1, isPlain: false } : unsure()
    }
    const [key] = /^(?:[A-Za-z_][\w./-]*|<<)(?=:[ \n,}])/.exec(text.slice(at, at + 200)) ?? []
    if (key === undefined || specialWord.test(key)) return unsure()
    return { key, behind: at + key.length + 1, isPlain: true }
  }

  private flowValue(at: number): { readonly value: unknown; readonly end: number } {
    const { text } = this
    switch (text[at]) {
      case '[':
      case '{':
        return this.flow(at)
      case '"':
      case "'": {
        const quoted = this.quoted(at)
        // `["a": b]` is a mapping.
        return text[this.space(quoted.end)] === ':' ? unsure() : quoted
      }
      case '*': {
        const name = this.nameAt(at)
        return { value: this.alias(name), end: at + name.length + 1 }
      }
      default: {
        let end = at
        while (end < text.length && !/[,[\]{}\n]/.test(text[end] ?? '')) end++
        const bare = text.slice(at, end).trimEnd()
        if (bare === '' || text[end] === '\n') return unsure()
        if (text[end] === '[' || text[end] === '{') return unsure()
        if (/^[-?:,#&*!|>%@`]|: |:$| #/.test(bare) && !/^-[\w-]+(?:[=./][\w./-]*)?$/.test(bare)) {
          return unsure()
        }
        return { value: scalarOf(bare), end }
      }
    }
  }

  /** Behind spaces and line ends; a comment is for the whole of YAML. */
  private space(from: number): number {
    let at = from
    while (this.text[at] === ' ' || this.text[at] === '\n') at++
    const newline = this.text.lastIndexOf('\n', at - 1)
    if (newline >= from && at - newline - 1 <= this.flowFloor) return unsure()
    return this.text[at] === '#' || at >= this.text.length ? unsure() : at
  }
}

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  n: '\n',
  t: '\t',
  ' ': ' ',
}

/** A plain scalar by YAML's core schema, and `0440` as octal. */
function scalarOf(text: string): unknown {
  const first = text.charCodeAt(0)
  // Digits, signs and the dot begin a number.
  if ((first >= 48 && first <= 57) || first === 43 || first === 45 || first === 46) {
    if (/^0[0-7]+$/.test(text)) return Number.parseInt(text, 8)
    if (/^-?(?:0|[1-9]\d*)$/.test(text)) {
      const number = Number(text)
      return Number.isSafeInteger(number) ? number : unsure()
    }
    if (/^-?\d+\.\d+$/.test(text)) return Number(text)
    if (/^[-+.]?\d*\.?\d*(?:[eE][-+]?\d+)?$|^0[xo]|^[-+]?\.(?:inf|nan)$/i.test(text))
      return unsure()
    return text
  }
  if (!specialWord.test(text)) return text
  if (text === '~' || /^null$/i.test(text)) return null
  return /^true$/i.test(text)
}
