import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { UserError } from '../base/index.ts'
import {
  createJoinToken,
  createUnlockKey,
  isSameSecret,
  isTokenForRoot,
  parseJoinToken,
  parseUnlockKey,
} from './index.ts'

const root = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n'

function refusal(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    assert.ok(error instanceof UserError)
    assert.equal(error.code, 'invalidInput')
    assert.ok(error.next)
    return error.message
  }
  return assert.fail('was accepted')
}

describe('a join token', () => {
  test('has the form of Swarm and names the root', () => {
    const text = createJoinToken(root)
    assert.match(text, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/)
    const token = parseJoinToken(` ${text}\n`)
    const digest = BigInt(`0x${createHash('sha256').update(root).digest('hex')}`)
    assert.equal(token.digest, digest.toString(36).padStart(50, '0'))
    assert.ok(isTokenForRoot(token, root))
    assert.ok(!isTokenForRoot(token, `${root}\n`))
    assert.ok(!isSameSecret(createJoinToken(root), text), 'every token has a secret of its own')
    assert.ok(isSameSecret(text, `${text}`))
    assert.ok(!isSameSecret(text, text.slice(1)))
  })

  const good = createJoinToken(root)
  const [, , digest = '', secret = ''] = good.split('-')
  const cases = [
    { text: '', why: /it is empty/ },
    { text: createUnlockKey(), why: /it is an unlock key/ },
    { text: 'hello', why: /does not begin with SWMTKN-/ },
    { text: `SWMTKN-2-1-${digest}-${secret}`, why: /only version 1/ },
    { text: `SWMTKN-1-${digest}`, why: /does not have the form/ },
    { text: `${good}-x`, why: /does not have the form/ },
    { text: `SWMTKN-1-${digest.slice(1)}-${secret}`, why: /digest is not 50 characters/ },
    { text: `SWMTKN-1-${digest.slice(1)}A-${secret}`, why: /digest is not 50 characters/ },
    { text: good.slice(0, -1), why: /secret is not 25 characters of 0-9a-z: was it cut off/ },
  ]
  for (const { text, why } of cases) {
    test(`is refused where ${why.source}: ${text.length} characters`, () => {
      const message = refusal(() => parseJoinToken(text))
      assert.match(message, why)
      assert.ok(!message.includes(secret.slice(0, 10)), 'the secret is not repeated')
    })
  }

  test('no text makes the parser fail in another way', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((s) => `SWMTKN-1-${s}`),
        ),
        (text) => {
          refusal(() => parseJoinToken(text))
        },
      ),
    )
  })
})

describe('an unlock key', () => {
  test('is read back as the 32 bytes it stands for', () => {
    const key = createUnlockKey()
    assert.match(key, /^SWMKEY-1-[0-9A-Za-z+/]{43}$/)
    const bytes = parseUnlockKey(`${key}\n`)
    assert.equal(bytes.length, 32)
    assert.equal(`SWMKEY-1-${Buffer.from(bytes).toString('base64').slice(0, 43)}`, key)
  })

  const good = createUnlockKey()
  const cases = [
    { text: '', why: /it is empty/ },
    { text: createJoinToken(root), why: /it is a join token/ },
    { text: 'hello', why: /does not begin with SWMKEY-/ },
    { text: good.replace('-1-', '-2-'), why: /only version 1/ },
    { text: good.slice(0, -1), why: /was it cut off/ },
    { text: `${good}AA`, why: /not 43 characters/ },
    { text: `${good.slice(0, -4)}!!!!`, why: /not 43 characters/ },
  ]
  for (const { text, why } of cases) {
    test(`is refused where ${why.source}: ${text.length} characters`, () => {
      const message = refusal(() => parseUnlockKey(text))
      assert.match(message, why)
      assert.ok(!message.includes(good.slice(9, 20)), 'the key is not repeated')
    })
  }
})
