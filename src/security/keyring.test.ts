import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { UserError } from '../base/index.ts'
import { createUnlockKey, importKeyring, openKeyring, parseUnlockKey } from './index.ts'

function pathFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'skep-keys-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return join(directory, 'data', 'keys.json')
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe('a keyring', () => {
  test('opens what it sealed, now and after the file is opened again', async (t) => {
    const path = pathFor(t)
    const keyring = await openKeyring({ path })
    const again = await openKeyring({ path })
    assert.equal(again.keyId, keyring.keyId)
    fc.assert(
      fc.property(fc.uint8Array(), fc.string(), (plaintext, aad) => {
        assert.deepEqual(again.unseal(keyring.seal(plaintext, aad), aad), plaintext)
      }),
    )
    assert.equal(statSync(path).mode & 0o777, 0o600)
    assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700)
  })

  test('refuses what was changed, swapped or sealed by another key', async (t) => {
    const path = pathFor(t)
    const keyring = await openKeyring({ path })
    const sealed = keyring.seal(bytes('geheim'), 'cluster/join/worker')
    assert.notDeepEqual(keyring.seal(bytes('geheim'), 'cluster/join/worker'), sealed)
    const flipped = Buffer.from(sealed.ciphertext, 'base64')
    flipped[0] = (flipped[0] ?? 0) ^ 1
    const wrong = [
      { ...sealed, ciphertext: flipped.toString('base64') },
      { ...sealed, ciphertext: '' },
      { ...sealed, ciphertext: flipped.subarray(0, 10).toString('base64') },
      { ...sealed, nonce: '' },
      { ...sealed, nonce: Buffer.alloc(12).toString('base64') },
      { ...sealed, keyId: 'other' },
    ]
    for (const one of wrong) {
      assert.throws(() => keyring.unseal(one, 'cluster/join/worker'), { code: 'internal' })
    }
    assert.throws(() => keyring.unseal(sealed, 'cluster/join/manager'), { code: 'internal' })
    const other = await openKeyring({ path: pathFor(t) })
    assert.throws(() => other.unseal({ ...sealed, keyId: other.keyId }, 'cluster/join/worker'), {
      code: 'internal',
    })
  })

  test('after a rotation the newest key seals and the older ones still open', async (t) => {
    const path = pathFor(t)
    const keyring = await openKeyring({ path })
    const old = keyring.seal(bytes('one'), 'a')
    await keyring.rotate()
    const young = keyring.seal(bytes('two'), 'a')
    assert.notEqual(young.keyId, old.keyId)
    const again = await openKeyring({ path })
    assert.equal(again.keyId, young.keyId)
    assert.deepEqual(again.unseal(old, 'a'), bytes('one'))
    assert.deepEqual(again.unseal(young, 'a'), bytes('two'))
  })

  test('refuses a file that others may read, and names no key when one is damaged', async (t) => {
    const path = pathFor(t)
    await openKeyring({ path })
    chmodSync(path, 0o640)
    await assert.rejects(openKeyring({ path }), { code: 'forbidden', message: /mode 640/ })
    chmodSync(path, 0o600)
    const text = readFileSync(path, 'utf8')
    const secret = /"key": "([^"]+)"/.exec(text)?.[1] ?? ''
    assert.equal(secret.length, 44)
    const damaged = [
      text.slice(0, -5),
      text.replace('"id"', '"name"'),
      text.replace(secret, secret.slice(4)),
      '',
    ]
    for (const content of damaged) {
      writeFileSync(path, content)
      await assert.rejects(openKeyring({ path }), (error) => {
        assert.ok(error instanceof UserError)
        assert.match(error.message, /not a whole file of data keys/)
        assert.ok(!inspect(error).includes(secret.slice(4, 20)))
        return true
      })
    }
    writeFileSync(path, text.replace('"version": 1', '"version":3'))
    await assert.rejects(openKeyring({ path }), { message: /newer version/ })
  })

  test('says where it can not keep its keys', async (t) => {
    const path = pathFor(t)
    await openKeyring({ path })
    await assert.rejects(openKeyring({ path: join(path, 'keys.json') }), {
      code: 'unavailable',
      message: /keys\.json can not be read/,
    })
  })

  test('shows no key when it is printed', async (t) => {
    const path = pathFor(t)
    const keyring = await openKeyring({ path })
    const secret = /"key": "([^"]+)"/.exec(readFileSync(path, 'utf8'))?.[1] ?? '?'
    assert.ok(!inspect(keyring, { depth: 9, showHidden: true }).includes(secret))
    assert.ok(!JSON.stringify(keyring).includes(secret))
  })

  describe('that is locked', () => {
    const key = parseUnlockKey(createUnlockKey())

    test('opens with its unlock key only, and has no key in the clear', async (t) => {
      const path = pathFor(t)
      const keyring = await openKeyring({ path })
      const sealed = keyring.seal(bytes('geheim'), 'a')
      const [plainKey = ''] = /"key": "([^"]+)"/.exec(keyring.exportKeys())?.slice(1) ?? []
      assert(readFileSync(path, 'utf8').includes(plainKey))
      await keyring.lockWith(key)
      assert(!readFileSync(path, 'utf8').includes(plainKey))
      assert.equal(statSync(path).mode & 0o777, 0o600)
      await assert.rejects(openKeyring({ path }), { code: 'locked' })
      const other = parseUnlockKey(createUnlockKey())
      await assert.rejects(openKeyring({ path, unlockKey: other }), {
        code: 'forbidden',
        message: 'swarm could not be unlocked: invalid key provided',
      })
      const again = await openKeyring({ path, unlockKey: key })
      assert.deepEqual(again.unseal(sealed, 'a'), bytes('geheim'))
    })

    test('stays so through a rotation of its keys; another unlock key takes over; none opens it', async (t) => {
      const path = pathFor(t)
      const keyring = await openKeyring({ path })
      await keyring.lockWith(key)
      await keyring.rotate()
      const sealed = keyring.seal(bytes('geheim'), 'a')
      await assert.rejects(openKeyring({ path }), { code: 'locked' })
      const next = parseUnlockKey(createUnlockKey())
      await keyring.lockWith(next)
      await assert.rejects(openKeyring({ path, unlockKey: key }), { code: 'forbidden' })
      const opened = await openKeyring({ path, unlockKey: next })
      assert.deepEqual(opened.unseal(sealed, 'a'), bytes('geheim'))
      await opened.lockWith(undefined)
      await openKeyring({ path })
    })

    test('can be taken to another node', async (t) => {
      const keyring = await openKeyring({ path: pathFor(t) })
      const sealed = keyring.seal(bytes('geheim'), 'a')
      const path = pathFor(t)
      await importKeyring({ path, text: keyring.exportKeys(), unlockKey: () => key })
      const there = await openKeyring({ path, unlockKey: key })
      assert.deepEqual(there.unseal(sealed, 'a'), bytes('geheim'))
    })
  })
})
