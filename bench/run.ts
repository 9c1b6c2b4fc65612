/**
 * Runs benchmarks one after the other, each a process of its own, into one table whose rows are printed as they come.
 *
 *   node bench/run.ts [NAME...] [--json] [--OPTION=VALUE...]
 *
 * Without a NAME it runs every one. `--json` prints one object a figure instead; other options go to each benchmark.
 * One that lacks what it needs is skipped with the reason, on standard error. One that fails does not end the run, but
 * fails it.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { run, sharedEngine } from '../test/support/daemon.ts'
import type { Row } from './support/rows.ts'

interface Needs {
  readonly commands: readonly string[]
  readonly images: readonly string[]
}

const orchestrating = ['docker', 'nft', 'ip']
const stackImages = [
  'nginx:alpine',
  'my-registry.com/api:1.0.0',
  'postgres:15-alpine',
  'redis:7-alpine',
]
/** What a benchmark asks of the machine: root and an engine with these images. One that is not named asks for nothing. */
const needsByName: Readonly<Record<string, Needs>> = {
  compose: { commands: ['docker'], images: ['whoami:v1'] },
  deploy: { commands: orchestrating, images: ['whoami:v1'] },
  failover: { commands: [...orchestrating, 'dockerd', 'nsenter'], images: ['whoami:v1'] },
  idle: { commands: [...orchestrating, 'openssl'], images: stackImages },
  network: {
    commands: [...orchestrating, 'dockerd', 'nsenter', 'unshare', 'wrk'],
    images: ['whoami:v1', 'busybox'],
  },
  one: { commands: orchestrating, images: ['whoami:v1'] },
  proxy: { commands: ['docker'], images: ['busybox'] },
  rollout: { commands: orchestrating, images: ['whoami:v1', 'whoami:v2'] },
  stack: { commands: [...orchestrating, 'openssl'], images: stackImages },
  update: { commands: [...orchestrating, 'wrk'], images: ['nginx:1.24', 'nginx:1.25'] },
}

/** Why a benchmark cannot run here, and what to do about it. */
async function missingFor(name: string): Promise<string | undefined> {
  const needs = needsByName[name]
  if (needs === undefined) return undefined
  if (process.getuid?.() !== 0) return 'it needs root'
  for (const command of needs.commands) {
    const { code } = await run('sh', ['-c', 'command -v "$1"', 'sh', command])
    if (code !== 0) return `${command} is not installed`
  }
  const { code } = await run('docker', ['-H', sharedEngine, 'version'])
  if (code !== 0) return `no engine answers on ${sharedEngine}: start one, or set SKEP_ENGINE`
  for (const image of needs.images) {
    const found = await run('docker', ['-H', sharedEngine, 'image', 'inspect', image])
    if (found.code !== 0) return `the engine has no image ${image}: run ./dev images`
  }
  return undefined
}

function parseRow(line: string): Row | undefined {
  try {
    const row = JSON.parse(line) as Row
    return typeof row.figure === 'string' && typeof row.value === 'number' ? row : undefined
  } catch {
    return undefined
  }
}

function tableLine(bench: string, figure: string, value: string, against: string): string {
  return `${bench.padEnd(11)}${figure.padEnd(56)}${value.padStart(20)}  ${against}`.trimEnd()
}

function show(row: Row): void {
  if (json) {
    console.log(JSON.stringify(row))
    return
  }
  const { bench, figure, value, unit, baseline, ratio } = row
  const against = ratio === null ? '' : `${ratio}x of ${baseline} ${unit}`
  console.log(tableLine(bench, figure, `${value} ${unit}`, against))
}

/** Resolves with what went wrong, if anything did. */
async function runOne(name: string): Promise<string | undefined> {
  const path = join(import.meta.dirname, `${name}.ts`)
  const child = spawn(process.execPath, [path, '--json', ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<string | undefined>((done, fail) => {
    child.on('error', fail)
    child.on('close', (code, signal) =>
      done(code === 0 ? undefined : `it ended with ${signal ?? `code ${code}`}`),
    )
  })
  let figures = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const row = parseRow(line)
    if (row === undefined) {
      console.error(`${name}: ${line}`)
      continue
    }
    show(row)
    figures++
  }
  return (await ended) ?? (figures === 0 ? 'it measured nothing' : undefined)
}

const words = process.argv.slice(2)
const json = words.includes('--json')
const options = words.filter((word) => word.startsWith('-') && word !== '--json')
const all = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.ts') && file !== basename(import.meta.filename))
  .map((file) => basename(file, '.ts'))
  .sort()
const named = words.filter((word) => !word.startsWith('-'))
const unknown = named.filter((name) => !all.includes(name))
if (unknown.length > 0) {
  console.error(`no benchmark is named ${unknown.join(', ')}; there are ${all.join(', ')}`)
  process.exit(2)
}

if (!json) console.log(tableLine('bench', 'figure', 'value', 'against'))
for (const name of named.length > 0 ? named : all) {
  const missing = await missingFor(name)
  if (missing !== undefined) {
    console.error(`skip ${name}: ${missing}`)
    continue
  }
  const failure = await runOne(name)
  if (failure === undefined) continue
  console.error(`FAIL ${name}: ${failure}`)
  process.exitCode = 1
}
