import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatEngineAddress, parseEngineAddress } from './address.ts'

describe('parseEngineAddress', () => {
  const cases = [
    { text: 'unix:///var/run/docker.sock', want: { type: 'unix', path: '/var/run/docker.sock' } },
    { text: 'tcp://127.0.0.1:2375', want: { type: 'tcp', host: '127.0.0.1', port: 2375 } },
    { text: 'tcp://engine', want: { type: 'tcp', host: 'engine', port: 2375 } },
    { text: 'tcp://[::1]:99', want: { type: 'tcp', host: '::1', port: 99 } },
  ]
  for (const { text, want } of cases) {
    test(`reads ${text} and writes it back`, () => {
      assert.deepEqual(parseEngineAddress(text), want)
      assert.deepEqual(parseEngineAddress(formatEngineAddress(parseEngineAddress(text))), want)
    })
  }
  for (const text of [
    '',
    '/var/run/docker.sock',
    'unix://run',
    'tcp://a:0',
    'tcp://a:70000',
    'x',
  ]) {
    test(`refuses "${text}" with the next step`, () => {
      assert.throws(() => parseEngineAddress(text), { code: 'invalidInput', next: /unix:\/\// })
    })
  }
})
