import assert from 'node:assert/strict'
import { test } from 'node:test'
import { forgetTracked } from './connection-tracking.ts'

const tool = 'conntrack v1.4.7 (conntrack-tools)'

/** A `conntrack` that says these things, one after the other, and the last one again and again. */
function saying(...words: readonly string[]) {
  const asked: string[] = []
  return {
    asked,
    run: (program: string, args: readonly string[]) => {
      asked.push([program, ...args].join(' '))
      const stderr = words[Math.min(asked.length, words.length) - 1] ?? ''
      return Promise.resolve({ code: /: [1-9]\d* flow/.test(stderr) ? 0 : 1, stdout: '', stderr })
    },
  }
}

test('what ended by itself while it was looked through does not keep the rest from being forgotten', async () => {
  const gone = `${tool}: Operation failed: such conntrack doesn't exist`
  const kernel = saying(gone, gone, `${tool}: 3 flow entries have been deleted.`)
  await forgetTracked(['-p', 'tcp'], kernel)
  assert.deepEqual(kernel.asked, Array(3).fill('conntrack -D -p tcp'))
  const endless = saying(gone)
  await forgetTracked(['-p', 'tcp'], endless)
  assert.ok(endless.asked.length > 3)
})

test('that there was nothing to forget is no failure, a kernel that can not is', async () => {
  const kernel = saying(`${tool}: 0 flow entries have been deleted.`)
  await forgetTracked(['-p', 'tcp'], kernel)
  assert.equal(kernel.asked.length, 1)
  await assert.rejects(forgetTracked([], saying('Operation not permitted')), {
    code: 'unsupported',
    message: 'Operation not permitted',
  })
})
