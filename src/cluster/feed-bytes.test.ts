import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { idFrom } from '../model/index.ts'
import type { FeedPart } from '../wire/index.ts'
import { decodePart, encodePart } from './feed-bytes.ts'

function partOf(count: number): FeedPart {
  return {
    endpoints: { put: [], remove: [idFrom('e0')] },
    backends: [
      {
        endpointId: idFrom('e1'),
        put: Array.from({ length: count }, (_, at) => ({
          taskId: idFrom<'task'>(`t${at}`),
          taskName: `wéb.${at}.t${at}`,
          nodeId: idFrom<'node'>('n1'),
          weight: 1,
          addresses: { x: `10.0.0.${at}` },
        })),
        remove: [],
      },
    ],
    neighbours: { put: [], remove: ['x/10.0.0.9'] },
  }
}

describe('parts of feeds as bytes', () => {
  test('come out as they went in, short ones and long ones', () => {
    for (const count of [0, 1, 200]) {
      const part = partOf(count)
      assert.deepEqual(decodePart(encodePart(part)), part)
    }
    assert.ok(encodePart(partOf(200)).length < JSON.stringify(partOf(200)).length / 4)
  })

  test('are made once', () => {
    const part = partOf(3)
    assert.equal(encodePart(part), encodePart(part))
  })

  test('that are none are refused', () => {
    const whole = encodePart(partOf(200))
    for (const bytes of [new Uint8Array(), whole.subarray(0, 50), Buffer.from('\0[]')])
      assert.throws(() => decodePart(bytes), { code: 'invalidInput' })
  })
})
