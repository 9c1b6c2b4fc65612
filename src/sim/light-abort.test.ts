import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lightenAborts } from './light-abort.ts'

/** What happens, in order, with whatever `AbortController` and `AbortSignal.any` are now. */
function story(): readonly string[] {
  const said: string[] = []
  const say = (what: string) => () => said.push(what)
  const [one, two] = [new AbortController(), new AbortController()]
  const either = AbortSignal.any([one.signal, two.signal])
  const nested = AbortSignal.any([either, new AbortController().signal])
  const unheard = AbortSignal.any([two.signal])
  const removed = say('removed')
  const leaving = new AbortController()
  either.addEventListener('abort', say('either'))
  nested.addEventListener('abort', say('nested'), { once: true })
  one.signal.addEventListener('abort', removed)
  one.signal.removeEventListener('abort', removed)
  one.signal.addEventListener('abort', say('until it left'), { signal: leaving.signal })
  const twice = say('one, once')
  one.signal.addEventListener('abort', twice)
  one.signal.addEventListener('abort', twice)
  one.signal.addEventListener('abort', () => {
    said.push(`all know: ${either.aborted} ${nested.aborted}`)
    either.addEventListener('abort', say('too late'))
  })
  leaving.abort()
  said.push(`before: ${either.aborted} ${nested.aborted} ${unheard.aborted}`)
  one.abort(new Error('first'))
  one.abort(new Error('again'))
  two.abort()
  said.push(`after: ${unheard.aborted} ${String(nested.reason)} ${String(two.signal.reason)}`)
  const born = AbortSignal.any([two.signal])
  born.addEventListener('abort', say('born late'))
  said.push(`born: ${born.aborted}`)
  assert.throws(() => born.throwIfAborted(), { name: 'AbortError' })
  return said
}

test("light aborts do what Node's do, in the same order", () => {
  const native = story()
  lightenAborts()
  assert.ok(native.includes('nested'))
  assert.deepEqual(story(), native)
})
