import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { FrameReader } from './frames.ts'

function encode(stream: number, data: Uint8Array): Buffer {
  const header = Buffer.alloc(8)
  header[0] = stream
  header.writeUInt32BE(data.length, 4)
  return Buffer.concat([header, data])
}

describe('FrameReader', () => {
  test('gives every frame whole, however the bytes are cut into chunks', () => {
    const frame = fc.record({
      stream: fc.constantFrom(1, 2),
      data: fc.uint8Array({ maxLength: 40 }),
    })
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 13 }), { minLength: 1 }),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames.map(({ stream, data }) => encode(stream, data)))
          const reader = new FrameReader()
          const read = []
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const step = cuts[turn % cuts.length] ?? 1
            read.push(...reader.push(bytes.subarray(at, at + step)))
            at += step
          }
          assert.deepEqual(
            read.map(({ stream, data }) => [stream, data.toString('hex')]),
            frames.map(({ stream, data }) => [
              stream === 2 ? 'stderr' : 'stdout',
              Buffer.from(data).toString('hex'),
            ]),
          )
          assert.equal(reader.pendingBytes, 0)
        },
      ),
    )
  })

  test('refuses plain output and frames over the bound', () => {
    assert.throws(() => new FrameReader().push(Buffer.from('hello world')), { code: 'internal' })
    assert.throws(() => new FrameReader().push(Buffer.from([1, 0, 0, 0, 255, 255, 255, 255])))
  })
})
