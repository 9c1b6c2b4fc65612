import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { glob, readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = resolve(import.meta.dirname, '..')
/** Each has about a second and a half of a processor. */
const freshCount = Number(process.env['SKEP_FRESH_SEEDS'] ?? 500)
/** Fresh ones begin above all that are tried by hand. */
const freshMin = 1_000_000
const freshMax = 2 ** 31

/**
 * The first of some lives that nobody has seen, drawn by the code itself: what changes a byte of it gets others, and what
 * failed fails again until the code has changed.
 */
async function drawnFromCode(): Promise<number> {
  const files: string[] = []
  for await (const file of glob('src/**/*.ts', { cwd: root })) files.push(file)
  const hash = createHash('sha256')
  for (const file of files.sort())
    hash.update(`${file}\0`).update(await readFile(resolve(root, file)))
  return freshMin + (hash.digest().readUInt32BE() % (freshMax - freshMin))
}

describe('simulated clusters under random faults', () => {
  test(`keep their promises in ${freshCount} lives`, async (t) => {
    const first = await drawnFromCode()
    t.diagnostic(`the same again: ./dev sim --from ${first} --seeds ${freshCount}`)
    const args = ['src/sim/main.ts', '--from', String(first), '--seeds', String(freshCount)]
    const { stdout } = await run(process.execPath, args, { maxBuffer: 2 ** 26 }).catch(
      ({ stdout: told = '', stderr = '', message }: Partial<Record<string, string>>) =>
        assert.fail([told, stderr, told || stderr ? '' : message].join('\n')),
    )
    t.diagnostic(stdout.split('\n').find((line) => line.includes('seeds/s')) ?? '')
    assert.match(stdout, /nothing broke/)
  })
})
