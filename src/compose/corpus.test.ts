import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { UserError } from '../base/index.ts'
import {
  type CorpusFile,
  corpusEnvironment,
  corpusNeighbours,
  readCorpus,
} from './corpus.testing.ts'
import type { Dialect } from './load-options.ts'
import { loadProject } from './load-project.ts'
import type { ComposeService, Project } from './project.ts'
import { renderProject } from './render-project.ts'
import { parseWhole } from './whole-yaml.ts'
import { Tagged } from './yaml-source.ts'

interface Loaded {
  readonly project?: Project
  readonly refusal?: string
  readonly warnings: readonly string[]
}

/** Loads a text as a project; a refusal is an answer too, anything else is not. */
async function load(text: string, dialect: Dialect): Promise<Loaded> {
  const warnings: string[] = []
  try {
    const project = await loadProject({
      directory: '/p',
      dialect,
      environment: corpusEnvironment,
      readFile: async (path) => {
        const found = path === '/p/compose.yaml' ? text : corpusNeighbours[path]
        if (found !== undefined) return Buffer.from(found)
        throw Object.assign(new Error(`ENOENT: no such file, open '${path}'`), { code: 'ENOENT' })
      },
      warn: (warning) => warnings.push(warning),
      profiles: ['*'],
    })
    return { project, warnings }
  } catch (error) {
    assert.ok(error instanceof UserError, error instanceof Error ? error.stack : String(error))
    return { refusal: error.message, warnings }
  }
}

const corpus = readCorpus()

describe('the corpus of public Compose files', () => {
  test('has at least 150 files', () => assert.ok(corpus.length >= 150, String(corpus.length)))

  for (const file of corpus) {
    test(`${file.name} loads, or is refused by place`, async () => {
      for (const dialect of ['compose', 'stack'] as const) {
        const { project, refusal } = await load(file.text, dialect)
        if (project === undefined) {
          assert.match(refusal ?? '', /^\/p\/[a-z.]+:\d+:\d+: |^services\./, file.text)
          continue
        }
        if (dialect === 'stack') continue
        const again = await load(renderProject(project, 'yaml'), dialect)
        assert.equal(again.refusal, undefined)
        assert.deepEqual(
          again.project?.services,
          Object.fromEntries(Object.entries(project.services).map(withoutFiles)),
          'as it is shown',
        )
      }
    })
  }

  test('most of it is what skep compose runs', async () => {
    const results = await Promise.all(corpus.map(({ text }) => load(text, 'compose')))
    const refusals = results.flatMap(({ refusal }) => refusal ?? [])
    // An override without its base has services of neither image nor build.
    assert.ok(refusals.length <= 1, refusals.join('\n'))
  })

  test('says something of every key: what it becomes, that it has no effect, or that it is refused', async () => {
    const seen = new Set<string>()
    const passedOver: string[] = []
    for (const file of corpus) {
      for (const dialect of ['compose', 'stack'] as const) {
        // A file that is refused has its answer.
        if ((await load(file.text, dialect)).project === undefined) continue
        for (const { key, whole: text, without } of keysOf(file, seen, dialect)) {
          const whole = answerOf(await load(text, dialect))
          const less = answerOf(await load(without, dialect))
          if (whole === less) passedOver.push(`${dialect}: ${key} in ${file.name}`)
        }
      }
    }
    assert.deepEqual(passedOver, [])
    assert.ok(seen.size > 150, `${seen.size} kinds of keys`)
  })
})

/** What env files hold is shown in their place. */
function withoutFiles([name, service]: [string, ComposeService]): [string, ComposeService] {
  const { envFiles: _files, ...rest } = service
  return [name, rest]
}

function answerOf({ project, refusal, warnings }: Loaded): string {
  return JSON.stringify([project, refusal?.replace(/:\d+:\d+:/, ''), warnings])
}

/** What is so without being said. */
const saysNothing = [
  /^version=/,
  /\.disable=false$/,
  /\.external=false$/,
  /\.(?:ports|build)=(?:null|\[\])$/,
  /^networks={"default":null}$/,
]

/** Each key of a kind that was not seen yet, with the file as it is without that key. */
function* keysOf(
  file: CorpusFile,
  seen: Set<string>,
  dialect: Dialect,
): Generator<{ readonly key: string; readonly whole: string; readonly without: string }> {
  const [source] = parseWhole('f', file.text)
  const root = untagged(source?.readTree())
  const paths: { readonly path: readonly (string | number)[]; readonly kind: string }[] = []
  const visit = (value: unknown, path: readonly (string | number)[], kind: string): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, item] of Object.entries(value)) {
      if (key === '<<' || key.startsWith('x-')) continue
      const step = Array.isArray(value) ? Number(key) : key
      const isNamed =
        /^(services|networks|volumes|secrets|configs)$/.test(kind) && path.length === 1
      const inner = Array.isArray(value) ? `${kind}[]` : isNamed ? `${kind}.*` : `${kind}.${key}`
      const shape = Array.isArray(item) ? 'list' : item === null ? 'null' : typeof item
      if (typeof step === 'string' && !isNamed) {
        paths.push({
          path: [...path, step],
          kind: `${dialect} ${inner.replace(/^\./, '')} ${shape}`,
        })
      }
      visit(item, [...path, step], inner.replace(/^\./, ''))
    }
  }
  visit(root, [], '')
  for (const { path, kind } of paths) {
    const at = path.join('.')
    const said = `${at}=${leafOf(root, path)}`
    if (seen.has(kind) || saysNothing.some((one) => one.test(said))) continue
    seen.add(kind)
    yield { key: at, whole: JSON.stringify(root), without: JSON.stringify(withoutPath(root, path)) }
  }
}

/** Without what the tags say. */
function untagged(value: unknown): unknown {
  if (value instanceof Tagged) return untagged(value.value ?? null)
  if (Array.isArray(value)) return value.map(untagged)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, untagged(item)]))
}

type Path = readonly (string | number)[]

function leafOf(value: unknown, path: Path): string {
  const found = path.reduce<unknown>(
    (around, step) =>
      typeof around === 'object' && around !== null
        ? Object.entries(around).find(([key]) => key === String(step))?.[1]
        : undefined,
    value,
  )
  return JSON.stringify(found) ?? ''
}

function withoutPath(value: unknown, [step, ...rest]: Path): unknown {
  if (Array.isArray(value)) {
    return value.map((item: unknown, index) => (index === step ? withoutPath(item, rest) : item))
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, item]): [string, unknown][] => {
      if (key !== step) return [[key, item]]
      return rest.length === 0 ? [] : [[key, withoutPath(item, rest)]]
    }),
  )
}
