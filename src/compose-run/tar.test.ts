import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { packTar, type TarEntry, unpackTar } from './tar.ts'

const anyName = fc
  .array(fc.stringMatching(/^[a-zäß0-9 ._-]{1,40}$/), { minLength: 1, maxLength: 6 })
  .map((parts) => parts.map((part) => `x${part}x`).join('/'))

const anyEntry: fc.Arbitrary<TarEntry> = fc.oneof(
  fc
    .record({
      name: anyName,
      mode: fc.integer({ min: 0, max: 0o7777 }),
      bytes: fc.uint8Array({ maxLength: 2000 }),
    })
    .map(({ name, mode, bytes }) => ({
      name,
      mode,
      type: 'file' as const,
      size: bytes.length,
      data: () => [Buffer.from(bytes)],
    })),
  fc.record({ name: anyName, target: anyName }).map((one) => ({
    ...one,
    mode: 0o777,
    type: 'symlink' as const,
  })),
)

/** The bytes in pieces, as a socket gives them. */
async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

describe('tar', () => {
  test('what is packed is unpacked the same, however it is cut into pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyEntry, { maxLength: 5 }),
        fc.integer({ min: 1, max: 1500 }),
        async (entries, size) => {
          const bytes = await buffer(packTar(entries))
          const found = []
          for await (const { name, type, mode, target, data } of unpackTar(inPieces(bytes, size))) {
            found.push({ name, type, mode, target, bytes: await buffer(data) })
          }
          const want = await Promise.all(
            entries.map(async ({ name, type, mode, target = '', data }) => ({
              name,
              type,
              mode,
              target,
              bytes: data ? await buffer(Readable.from(data())) : Buffer.alloc(0),
            })),
          )
          assert.deepEqual(found, want)
        },
      ),
      { numRuns: 50 },
    )
  })

  test('the system’s tar reads it', async () => {
    const long = `${'folder-of-a-long-name/'.repeat(8)}ä-file`
    const bytes = await buffer(
      packTar([
        { name: 'd', type: 'directory', mode: 0o755 },
        { name: 'd/f', type: 'file', mode: 0o640, size: 3, data: () => [Buffer.from('abc')] },
        { name: long, type: 'file', mode: 0o644, size: 0, data: () => [] },
        { name: 'd/l', type: 'symlink', mode: 0o777, target: 'f' },
      ]),
    )
    const listed = spawnSync('tar', ['-tf', '-', '--quoting-style=literal'], { input: bytes })
    assert.equal(listed.stderr.toString(), '')
    assert.deepEqual(listed.stdout.toString().trim().split('\n'), ['d/', 'd/f', long, 'd/l'])
  })

  test('an archive that is cut short is told', async () => {
    const bytes = await buffer(
      packTar([
        { name: 'f', type: 'file', mode: 0o644, size: 3, data: () => [Buffer.from('abc')] },
      ]),
    )
    await assert.rejects(async () => {
      for await (const { data } of unpackTar(inPieces(bytes.subarray(0, 514), 100))) {
        await buffer(data)
      }
    }, /ended in the middle/)
  })
})
