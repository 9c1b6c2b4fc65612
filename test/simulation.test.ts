import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const partsMax = 5
const seedsPerPart = 100
/** Other seeds at every run; what fails says its seed and how to replay it. */
const first = 1_000 + (Math.floor(Date.now() / 1000) % 2_000_000_000)

describe('simulated clusters under random faults', () => {
  for (let part = 0; part < partsMax; part++) {
    const from = first + part * seedsPerPart
    test(`keep their promises in ${seedsPerPart} lives nobody has seen before`, async () => {
      const args = ['src/sim/main.ts', '--from', String(from), '--seeds', String(seedsPerPart)]
      const { stdout } = await run(process.execPath, args, { maxBuffer: 2 ** 26 }).catch(
        (error: { readonly stdout?: string; readonly message: string }) =>
          assert.fail(error.stdout || error.message),
      )
      assert.match(stdout, /nothing broke/)
    })
  }
})
