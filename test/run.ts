/**
 * Runs the tests behind `./dev test [PATTERN…]` and says how they went.
 *
 * First `src/` and `scripts/`, two files at a time but for those that change this machine's network, then simulated lives,
 * then the rest of `test/` (real containers) one file at a time; each file is a process of its own. A pattern selects the files whose path contains it, or matches it
 * as a glob. Standard output ends in exactly `N passed, N failed, N skipped`; a file that holds no test, hangs or
 * crashes counts as failed.
 */
import { glob, readFile } from 'node:fs/promises'
import { matchesGlob, relative, resolve } from 'node:path'
import { run } from 'node:test'
import type { TestEvent } from 'node:test/reporters'
import { inspect } from 'node:util'
import { drawnFromCode } from './drawn.ts'

interface Phase {
  readonly title: string
  readonly files: readonly string[]
  readonly filesAtOnce: number
  readonly testTimeoutMs: number
  readonly fileTimeoutMs: number
}

interface FileResult {
  readonly file: string
  readonly durationMs: number
  passed: number
  readonly failures: string[]
  readonly skips: string[]
  /** What its tests say of themselves. */
  readonly notes: string[]
}

/**
 * Draws the examples of properties from the code, unless the environment says from what: what fails here fails again when it is run
 * again. It costs a second to load, so only files that can have properties get it.
 */
const propertyOptions = ['--import', resolve(import.meta.dirname, 'drawn-properties.ts')]
process.env['SKEP_PROPERTY_SEED'] ??= String(await drawnFromCode())

async function mayHaveProperties(file: string): Promise<boolean> {
  return /from '(?:fast-check|.*\/contract\.ts)'/.test(await readFile(file, 'utf8'))
}

/** Lines of a failing file's own output that are shown. */
const outputLinesMax = 60
const root = resolve(import.meta.dirname, '..')
const bold = (text: string) => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text)
const red = (text: string) => (process.stdout.isTTY ? `\x1b[31m${text}\x1b[0m` : text)
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

async function filesIn(folder: string, patterns: readonly string[]): Promise<string[]> {
  const files: string[] = []
  for await (const file of glob(`${folder}/**/*.test.ts`, { cwd: root })) files.push(file)
  const wanted = patterns.map((pattern) => relative(root, resolve(pattern)))
  return files
    .filter(
      (file) =>
        patterns.length === 0 ||
        patterns.some((pattern) => file.includes(pattern) || matchesGlob(file, pattern)) ||
        wanted.some((path) => path !== '' && file.startsWith(path)),
    )
    .sort()
}

/** The reason inside the runner's wrapping: what the test itself threw. */
function reasonOf(error: unknown): string {
  let reason = error
  while (reason instanceof Error && 'code' in reason && reason.code === 'ERR_TEST_FAILURE') {
    if (reason.cause === undefined || typeof reason.cause === 'string') return reason.message
    reason = reason.cause
  }
  return reason instanceof Error ? inspect(reason, { depth: 6 }) : String(reason)
}

const indent = (text: string) => text.replace(/^(?=.)/gm, '    ')

async function runFile(file: string, phase: Phase): Promise<FileResult> {
  const startedMs = performance.now()
  const result: FileResult = { file, durationMs: 0, passed: 0, failures: [], skips: [], notes: [] }
  const output: string[] = []
  const giveUp = AbortSignal.timeout(phase.fileTimeoutMs)
  const events: AsyncIterable<TestEvent> = run({
    files: [resolve(root, file)],
    cwd: root,
    concurrency: false,
    timeout: phase.testTimeoutMs,
    signal: giveUp,
    execArgv: (await mayHaveProperties(resolve(root, file))) ? propertyOptions : [],
  })
  const names: string[] = []
  for await (const { type, data } of events) {
    if (type === 'test:stdout' || type === 'test:stderr') output.push(data.message)
    // A runner's own sums come at no depth.
    if (type === 'test:diagnostic' && data.nesting > 0) result.notes.push(data.message)
    if (type === 'test:start') names.splice(data.nesting, Number.POSITIVE_INFINITY, data.name)
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const whole = data.nesting === 0 && resolve(root, data.name) === resolve(root, file)
    const name = whole ? '(the file)' : [...names.slice(0, data.nesting), data.name].join(' > ')
    const place = data.line === undefined || whole ? file : `${file}:${data.line}`
    if (type === 'test:fail') {
      // A suite fails because a test in it did, which has been told.
      const cause = data.details.error.cause
      const inherited = cause instanceof Error && /subtests? failed/.test(cause.message)
      if (inherited || /subtests? failed/.test(data.details.error.message)) continue
      const reason = giveUp.aborted
        ? `not over after ${seconds(phase.fileTimeoutMs)}`
        : reasonOf(data.details.error)
      result.failures.push(`${red('FAIL')} ${place} ${bold(name)}\n${indent(reason)}`)
    } else if (data.skip !== undefined && data.skip !== false) {
      const reason = typeof data.skip === 'string' ? data.skip : 'no reason given'
      result.skips.push(`skip ${place} ${name}: ${reason}`)
    } else if (data.todo !== undefined && data.todo !== false) {
      result.skips.push(`skip ${place} ${name}: to do`)
    } else if (whole) {
      result.failures.push(`${red('FAIL')} ${place}\n    holds no test`)
    } else if (data.details.type !== 'suite') {
      result.passed += 1
    }
  }
  if (giveUp.aborted && result.failures.length === 0) {
    result.failures.push(
      `${red('FAIL')} ${file}\n    not over after ${seconds(phase.fileTimeoutMs)}`,
    )
  }
  if (result.failures.length > 0 && output.length > 0) {
    const lines = output.join('').trimEnd().split('\n')
    const cut = lines.length - outputLinesMax
    const shown = cut > 0 ? [`(${cut} lines before)`, ...lines.slice(cut)] : lines
    result.failures.push(`  output of ${file}:\n${indent(shown.join('\n'))}`)
  }
  return { ...result, durationMs: performance.now() - startedMs }
}

async function runPhase(phase: Phase): Promise<FileResult[]> {
  if (phase.files.length === 0) return []
  console.log(bold(`${phase.title} (${phase.files.length} files)`))
  const waiting = [...phase.files]
  const results: FileResult[] = []
  async function work(): Promise<void> {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const result = await runFile(file, phase)
      results.push(result)
      const { passed, failures, skips, notes } = result
      const word = failures.length > 0 ? red('FAIL') : 'ok  '
      const skipped = skips.length > 0 ? `, ${skips.length} skipped` : ''
      console.log(`${word} ${file}: ${passed} passed${skipped}, ${seconds(result.durationMs)}`)
      for (const note of notes) console.log(`     ${note}`)
      for (const failure of failures) console.log(failure)
    }
  }
  await Promise.all(Array.from({ length: phase.filesAtOnce }, work))
  return results
}

const patterns = process.argv.slice(2)
const startedMs = performance.now()
/** Tests beside the code that change rules and networks of this machine, which others of them look at. */
const alone = [
  'src/network/contract.test.ts',
  'src/network/linux-data-plane.test.ts',
  'src/runtime/docker-runtime.test.ts',
]
const inSource = [...(await filesIn('src', patterns)), ...(await filesIn('scripts', patterns))]
const near: Phase = {
  title: 'unit, property and contract tests',
  files: inSource.filter((file) => !alone.includes(file)),
  filesAtOnce: 2,
  testTimeoutMs: 300_000,
  fileTimeoutMs: 900_000,
}
const onMachine: Phase = {
  ...near,
  title: 'tests on the kernel and the engine of this machine',
  files: inSource.filter((file) => alone.includes(file)),
  filesAtOnce: 1,
}
const inTest = await filesIn('test', patterns)
const livesFile = 'test/simulation.test.ts'
const far: Phase = {
  title: 'end-to-end tests',
  files: inTest.filter((file) => file !== livesFile),
  filesAtOnce: 1,
  testTimeoutMs: 600_000,
  fileTimeoutMs: 2_700_000,
}
/** Hundreds of lives in two processes of its own. */
const lives: Phase = {
  title: 'simulated lives',
  files: inTest.filter((file) => file === livesFile),
  filesAtOnce: 1,
  testTimeoutMs: 2_700_000,
  fileTimeoutMs: 2_700_000,
}

const results: FileResult[] = []
for (const phase of [near, onMachine, lives, far]) results.push(...(await runPhase(phase)))
const nothing = results.length === 0
if (nothing) console.log(`no test file matches ${patterns.join(' ')}: give a part of its path`)

const isFailure = (text: string) => text.includes('FAIL')
const passed = results.reduce((sum, result) => sum + result.passed, 0)
const failed = results.flatMap((result) => result.failures).filter(isFailure)
const skips = results.flatMap((result) => result.skips)
if (failed.length > 0 && results.length > 1) {
  console.log(bold('\nfailed:'))
  for (const failure of failed) console.log(failure.split('\n', 1)[0])
}
if (skips.length > 0) console.log(['', 'skipped:', ...skips].join('\n'))
console.log(`\n${seconds(performance.now() - startedMs)}`)
console.log(`${passed} passed, ${failed.length} failed, ${skips.length} skipped`)
// A leaked handle of an aborted file must not keep the runner alive.
process.exit(failed.length > 0 || nothing ? 1 : 0)
