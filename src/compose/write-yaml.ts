/** Writes plain data as YAML, in block form, so that any YAML reader reads the same again. Needs no YAML library. */
export function writeYaml(value: unknown): string {
  return `${block(value, '').replace(/^\n/, '')}\n`
}

/** The value behind a key or dash: on its line, or below it with a line end first. */
function block(value: unknown, indent: string): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return '[]'
    return value.map((item) => `\n${indent}- ${inItem(item, `${indent}  `)}`).join('')
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined)
    if (entries.length === 0) return '{}'
    return entries
      .map(([key, item]) => {
        const text = block(item, `${indent}  `)
        return `\n${indent}${keyText(key)}:${text.startsWith('\n') ? '' : ' '}${text}`
      })
      .join('')
  }
  return scalar(value, indent)
}

/** A mapping or list of an item begins behind its dash. */
function inItem(item: unknown, indent: string): string {
  const text = block(item, indent)
  return text.startsWith('\n') ? text.slice(1 + indent.length) : text
}

const plain = /^[A-Za-z_/][\w./@=+-]*(?:[ :]?[\w./@=+-]+)*$/
/** `1m30s`. */
const duration = /^(?:\d+(?:h|ms|m|s))+$/
/** What one YAML reader or another takes for something else than text. */
const special = /^(?:null|true|false|yes|no|on|off|y|n)$/i

function keyText(key: string): string {
  return /^[A-Za-z_][\w./-]*$/.test(key) && !special.test(key) ? key : JSON.stringify(key)
}

function scalar(value: unknown, indent: string): string {
  if (typeof value !== 'string') return value === undefined ? 'null' : JSON.stringify(value)
  if (value.length < 200 && plain.test(value) && !special.test(value)) return value
  if (duration.test(value)) return value
  // Lines are kept as lines where nothing at their edges could be lost.
  if (
    value.includes('\n') &&
    /^\S/.test(value) &&
    !/[^\S\n ]|[ ]\n|\n\n$|[^\n -~\u00a0-\uD7FF]/.test(value)
  ) {
    const body = value.endsWith('\n') ? value.slice(0, -1) : value
    const lines = body.split('\n').map((line) => (line === '' ? '' : `${indent}${line}`))
    if (!body.endsWith(' ')) return `|${value.endsWith('\n') ? '' : '-'}\n${lines.join('\n')}`
  }
  return JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029\ufeff]/g, escaped)
}

function escaped(sign: string): string {
  return `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`
}
