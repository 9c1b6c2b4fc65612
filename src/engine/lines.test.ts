import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { readJsonLines, readLines } from './lines.ts'

async function* chunksOf(bytes: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of source) all.push(item)
  return all
}

describe('readJsonLines', () => {
  test('gives every value, however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.jsonValue(), { maxLength: 6 }),
        fc.integer({ min: 1, max: 17 }),
        async (values, step) => {
          const text = values.map((value) => `${JSON.stringify(value)}\r\n`).join('')
          const read = await collect(readJsonLines(chunksOf(Buffer.from(text), step)))
          assert.equal(JSON.stringify(read), JSON.stringify(values))
        },
      ),
    )
  })

  test('takes a last line without newline, refuses what is not JSON or too long', async () => {
    assert.deepEqual(await collect(readJsonLines(chunksOf(Buffer.from('1\n2'), 2))), [1, 2])
    await assert.rejects(collect(readJsonLines(chunksOf(Buffer.from('{]\n'), 9))), {
      code: 'internal',
    })
    await assert.rejects(collect(readLines(chunksOf(Buffer.alloc(101), 7), 100)), {
      code: 'tooLarge',
    })
  })
})
