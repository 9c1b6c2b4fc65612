import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { runSeed } from './run.ts'

describe('a seed', () => {
  test('gives the same run again, event for event, in this process and in another', async () => {
    const [first, second] = [await runSeed(7), await runSeed(7)]
    assert.equal(first.traceHash, second.traceHash)
    assert.equal(first.commits, second.commits)
    const program = `import { runSeed } from '${import.meta.dirname}/run.ts'
      const { traceHash } = await runSeed(7)
      process.stdout.write(traceHash)`
    const other = execFileSync(process.execPath, ['--input-type=module', '--eval', program])
    assert.equal(other.toString(), first.traceHash)
  })

  test('gives another run than the next seed', async () => {
    assert.notEqual((await runSeed(8)).traceHash, (await runSeed(9)).traceHash)
  })
})
