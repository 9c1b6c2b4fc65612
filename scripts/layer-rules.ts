import { dirname, posix } from 'node:path'

/** A place where a file breaks a rule of its layer. `line` counts from 1. */
export interface Fault {
  readonly file: string
  readonly line: number
  readonly what: string
}

const decisions = ['orchestrator', 'scheduler', 'allocator'] as const
const loops = ['base', 'model', 'wire', 'store', ...decisions, 'dispatcher'] as const

/**
 * Which folders a folder of `src/` may import, beside itself. An arrow points down: `model` and what is under it know
 * nothing of what is above, manager and agent share `model` and `wire` but never each other, and nothing imports `sim`.
 * `daemon` puts the parts together; `cli` alone stands above it.
 */
export const mayImport: Readonly<Record<string, readonly string[] | 'everything'>> = {
  base: [],
  model: ['base'],
  wire: ['base', 'model'],
  store: ['base', 'model'],
  orchestrator: ['base', 'model', 'store'],
  scheduler: ['base', 'model', 'store'],
  allocator: ['base', 'model', 'store'],
  dispatcher: ['base', 'model', 'wire', 'store', ...decisions],
  manager: [...loops],
  security: ['base', 'model'],
  backup: ['base', 'model', 'store'],
  control: [...loops, 'manager', 'security'],
  cluster: [...loops, 'manager', 'security', 'control'],
  engine: ['base'],
  runtime: ['base', 'model', 'wire', 'engine'],
  network: ['base', 'model', 'wire', 'engine'],
  agent: ['base', 'model', 'wire', 'engine', 'runtime', 'network'],
  'api/proxy': ['base', 'engine'],
  'api/docker': [...loops, 'manager', 'security', 'control', 'engine', 'api/proxy'],
  compose: ['base'],
  'compose-run': ['base', 'compose', 'engine'],
  daemon: 'everything',
  cli: 'everything',
  etcd: ['base', 'store'],
  sim: 'everything',
}

/** Folders whose files are pure: they reach nothing of the machine. */
const pureFolders: readonly string[] = ['model', ...decisions]
/** Folders that take time and chance from the world they are given. */
const givenTimeFolders: readonly string[] = [
  ...pureFolders,
  'store',
  'dispatcher',
  'manager',
  'agent',
  'cluster',
]

/** Packages that compute and no more, which decisions may use. */
const purePackages: readonly string[] = ['ipaddr.js']

/** What Node.js gives without an import. */
const nodeGlobal = /(?<![.\w])(process\.|Buffer\.|fetch\()/

const ambient: readonly { readonly pattern: RegExp; readonly name: string }[] = [
  { pattern: /\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.now\b/, name: 'the clock' },
  { pattern: /\bMath\.random\b|\brandomUUID\b|\bgetRandomValues\b/, name: 'chance' },
  { pattern: /(?<![.\w])set(Timeout|Interval|Immediate)\b/, name: 'a bare timer' },
  { pattern: /['"]node:timers(\/promises)?['"]/, name: 'a bare timer' },
]

/** Files that make the world real, and the first files of threads, into which no world can be handed. */
const realFile = /\/(real-[^/]*|[^/]*-worker)\.ts$/

const importPattern =
  /(?:^|\n)[ \t]*(?:import|export)\b[\w\s{},*$]*?\bfrom\s*['"]([^'"\n]+)['"]|(?:^|\n)[ \t]*import\s*['"]([^'"\n]+)['"]|\bimport\(\s*['"]([^'"\n]+)['"]/g

/** Blanks out comments, keeping every line where it is. */
function withoutComments(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
    .replace(/(^|[^:'"`\\])\/\/[^\n]*/g, '$1')
}

/** The folder of `src/` that a file belongs to: its first part, or `api/<dialect>`. */
export function folderOf(file: string): string {
  const [, first = '', second = ''] = file.split('/')
  return first === 'api' ? `api/${second}` : first
}

/** Finds what one file of `src/` does that its folder may not. `file` is its path from the root. */
export function checkFile(file: string, source: string): readonly Fault[] {
  if (file.endsWith('.test.ts')) return []
  const folder = folderOf(file)
  const allowed = mayImport[folder]
  if (allowed === undefined) {
    const what = `the folder src/${folder} has no layer: give it one in scripts/layer-rules.ts`
    return [{ file, line: 1, what }]
  }
  const text = withoutComments(source)
  const faults: Fault[] = []
  const lineAt = (offset: number) => text.slice(0, offset).split('\n').length

  for (const match of text.matchAll(importPattern)) {
    const target = match[1] ?? match[2] ?? match[3] ?? ''
    const line = lineAt(match.index + match[0].length)
    if (target.startsWith('.')) {
      const path = posix.normalize(posix.join(dirname(file), target))
      const other = folderOf(path)
      // Its version is said by the parts that people talk to.
      if (path === 'package.json' && allowed === 'everything') continue
      if (!path.startsWith('src/')) {
        faults.push({ file, line, what: `imports ${path}, which lies outside src/` })
      } else if (path.endsWith('.test.ts')) {
        faults.push({ file, line, what: `imports the test ${path}` })
      } else if (
        other !== folder &&
        (other === 'sim' || (other === 'cli' && folder !== 'sim') || !isAllowed(allowed, other))
      ) {
        const what = `${folder} may not import ${other} (${path})`
        faults.push({ file, line, what: `${what}: ${hintFor(allowed)}` })
      }
    } else if (pureFolders.includes(folder) && !purePackages.includes(target)) {
      faults.push({ file, line, what: `${folder} is pure and may not import ${target}` })
    }
  }
  if (givenTimeFolders.includes(folder) && !realFile.test(file)) {
    for (const [index, lineText] of text.split('\n').entries()) {
      if (pureFolders.includes(folder) && nodeGlobal.test(lineText)) {
        const what = `${folder} is pure and may not use Node.js`
        faults.push({ file, line: index + 1, what })
      }
      const found = ambient.find(({ pattern }) => pattern.test(lineText))
      if (found === undefined) continue
      const what = `reaches for ${found.name}: take it from the World the file is given`
      faults.push({ file, line: index + 1, what })
    }
  }
  return faults
}

function isAllowed(allowed: readonly string[] | 'everything', folder: string): boolean {
  return allowed === 'everything' || allowed.includes(folder)
}

function hintFor(allowed: readonly string[] | 'everything'): string {
  if (allowed === 'everything') return 'nothing imports sim, and sim alone imports cli'
  return allowed.length === 0 ? 'it imports no other folder' : `it may use ${allowed.join(', ')}`
}
