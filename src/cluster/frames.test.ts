import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { encodeFrame, FrameReader } from './frames.ts'

const anyBytes = fc.uint8Array({ maxLength: 300 })
const anyMessage = fc.record(
  {
    type: fc.string(),
    n: fc.jsonValue(),
    bytes: fc.oneof(anyBytes, fc.array(anyBytes, { maxLength: 4 })),
  },
  { requiredKeys: ['type'] },
)

describe('frames', () => {
  test('whatever pieces a stream comes in, the messages are those that were sent', () => {
    fc.assert(
      fc.property(
        fc.array(anyMessage, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 40 }),
        (messages, cuts) => {
          const stream = Buffer.concat(
            messages.flatMap((message) =>
              encodeFrame(
                message.bytes === undefined
                  ? { type: message.type, ...('n' in message ? { n: message.n } : {}) }
                  : { ...message, bytes: message.bytes },
              ),
            ),
          )
          const reader = new FrameReader(1_000_000)
          const got: unknown[] = []
          let at = 0
          for (const cut of cuts) {
            got.push(...reader.take(stream.subarray(at, at + cut)))
            at += cut
          }
          if (at < stream.length) got.push(...reader.take(stream.subarray(at)))
          assert.equal(got.length, messages.length)
          got.forEach((message, index) => {
            const sent = messages[index]
            const { bytes, ...rest } = sent ?? { type: '' }
            const expected = JSON.parse(JSON.stringify(rest))
            const whole = bytes instanceof Uint8Array ? bytes : Buffer.concat(bytes ?? [])
            assert.deepEqual(
              message,
              bytes === undefined ? expected : { ...expected, bytes: new Uint8Array(whole) },
            )
          })
        },
      ),
    )
  })

  test('a message over the bound is refused before it is held', () => {
    const reader = new FrameReader(100)
    const frame = Buffer.concat(encodeFrame({ type: 'x', bytes: new Uint8Array(200) }))
    assert.throws(() => reader.take(frame.subarray(0, 20)), { code: 'tooLarge' })
  })

  test('what is no frame is refused, never passed on', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 200 }), (bytes) => {
        try {
          for (const message of new FrameReader(1000).take(Buffer.from(bytes))) {
            assert.equal(typeof message, 'object')
          }
        } catch (error) {
          assert.match(String(error), /message/)
        }
      }),
    )
  })
})
