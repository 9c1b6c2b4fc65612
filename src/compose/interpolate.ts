import { UserError } from '../base/index.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Puts variables into one string: `$A`, `${A}`, `${A:-x}`, `${A-x}`, `${A:?why}`, `${A?why}`, `${A:+x}`, `${A+x}`; `$$` is a dollar
 * sign. Defaults may hold variables themselves. `onMissing` hears of a variable that is not set and has no default.
 * Source: Compose specification, "Interpolation". Throws `invalidInput`.
 */
export function interpolate(
  text: string,
  env: Environment,
  onMissing: (name: string) => void = () => {},
): string {
  let out = ''
  let at = 0
  while (at < text.length) {
    const dollar = text.indexOf('$', at)
    if (dollar < 0) return out + text.slice(at)
    out += text.slice(at, dollar)
    const next = text[dollar + 1]
    if (next === '$') {
      out += '$'
      at = dollar + 2
      continue
    }
    if (next === '{') {
      const end = closingBrace(text, dollar + 2)
      if (end === undefined) throw badVariable('${')
      out += braced(text.slice(dollar + 2, end), env, onMissing)
      at = end + 1
      continue
    }
    const name = /^[A-Za-z_][A-Za-z0-9_]*/.exec(text.slice(dollar + 1))?.[0]
    if (name === undefined) throw badVariable(text.slice(dollar, dollar + 2))
    out += variableOf(name, env, onMissing)
    at = dollar + 1 + name.length
  }
  return out
}

function closingBrace(text: string, from: number): number | undefined {
  let depth = 1
  for (let at = from; at < text.length; at++) {
    if (text.startsWith('${', at)) depth++
    else if (text[at] === '}' && --depth === 0) return at
  }
  return undefined
}

function braced(inner: string, env: Environment, onMissing: (name: string) => void): string {
  const match = /^([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])([\s\S]*))?$/.exec(inner)
  if (!match?.[1]) throw badVariable(`\${${inner.slice(0, 20)}${inner.length > 20 ? '…' : ''}}`)
  const [, name, operator, argument = ''] = match
  if (operator === undefined) return variableOf(name, env, onMissing)
  const value = env[name]
  const isThere = operator.startsWith(':')
    ? value !== undefined && value !== ''
    : value !== undefined
  switch (operator.at(-1)) {
    case '-':
      return isThere ? (value ?? '') : interpolate(argument, env, onMissing)
    case '+':
      return isThere ? interpolate(argument, env, onMissing) : ''
    default:
      if (isThere) return value ?? ''
      throw new UserError(
        'invalidInput',
        `the variable ${name} is missing: ${argument || 'it is required'}`,
        {
          next: `Set ${name} in the shell or in .env.`,
        },
      )
  }
}

function variableOf(name: string, env: Environment, onMissing: (name: string) => void): string {
  const value = env[name]
  if (value === undefined) onMissing(name)
  return value ?? ''
}

/** Tells little of the text: it may hold a secret. */
function badVariable(what: string): UserError {
  return new UserError('invalidInput', `"${what}" is not a variable`, {
    next: `Write $NAME or \${NAME:-default}; for a dollar sign write $$.`,
  })
}
