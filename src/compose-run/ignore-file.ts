interface Rule {
  readonly pattern: RegExp
  readonly isNegated: boolean
}

/** What a `.dockerignore` leaves out of a build's context. */
export interface IgnoreRules {
  /** Whether `path` (relative, `/` between its parts) is left out. */
  readonly ignores: (path: string) => boolean
  /** Whether nothing in the directory `path` can be brought back by a later `!` rule: it needn't be looked into. */
  readonly ignoresAllIn: (path: string) => boolean
}

/** Reads the lines of a `.dockerignore`: the last rule that matches a path or a folder above it counts. */
export function parseIgnoreFile(text: string): IgnoreRules {
  return ignoreRules(
    text
      .replace(/^\uFEFF/, '')
      .split(/\r?\n/)
      .filter((line) => !line.startsWith('#'))
      .map((line) => line.trim())
      .filter((line) => line !== ''),
  )
}

/** As `parseIgnoreFile`, of patterns. */
export function ignoreRules(patterns: readonly string[]): IgnoreRules {
  const rules: Rule[] = patterns.map((line) => {
    const isNegated = line.startsWith('!')
    const path = (isNegated ? line.slice(1) : line).trim()
    const clean = path.replace(/^\.?\/+/, '').replace(/\/+$/, '')
    return { isNegated, pattern: patternOf(clean === '' ? '.' : clean) }
  })
  const hasNegated = rules.some(({ isNegated }) => isNegated)
  const ignores = (path: string): boolean => {
    const parts = path.split('/')
    const paths = parts.map((_, index) => parts.slice(0, index + 1).join('/'))
    let ignored = false
    for (const { pattern, isNegated } of rules) {
      if (paths.some((one) => pattern.test(one))) ignored = !isNegated
    }
    return ignored
  }
  return { ignores, ignoresAllIn: (path) => !hasNegated && ignores(path) }
}

/** Go's filepath.Match with `**` for any number of folders. */
function patternOf(glob: string): RegExp {
  let source = ''
  for (let index = 0; index < glob.length; index++) {
    const char = glob[index] ?? ''
    if (char === '*' && glob[index + 1] === '*') {
      index++
      if (glob[index + 1] === '/') {
        index++
        source += '(?:.*/)?'
      } else source += '.*'
    } else if (char === '*') source += '[^/]*'
    else if (char === '?') source += '[^/]'
    else if (char === '[') {
      const end = glob.indexOf(']', index + 1)
      if (end < 0) source += '\\['
      else {
        source += `[${glob.slice(index + 1, end).replaceAll('\\', '\\\\')}]`
        index = end
      }
    } else if (char === '\\' && index + 1 < glob.length) {
      index++
      source += escaped(glob[index] ?? '')
    } else source += escaped(char)
  }
  return new RegExp(`^${source}$`, 's')
}

function escaped(char: string): string {
  return char.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}
