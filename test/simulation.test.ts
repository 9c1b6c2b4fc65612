import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { drawnFromCode } from './drawn.ts'

const run = promisify(execFile)
/** Each has about a second and a half of a processor. */
const freshCount = Number(process.env['SKEP_FRESH_SEEDS'] ?? 500)

describe('simulated clusters under random faults', () => {
  test(`keep their promises in ${freshCount} lives`, async (t) => {
    // Above all that are tried by hand.
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
